"""Fixes tried on killed mutants of the fault benchmark: choosing, deciding, resuming, figures."""

import json
import os
from dataclasses import replace
from itertools import islice
from pathlib import Path

import keras
import pytest
from keras import layers as L

from benchmarks.faults.outside import (
    alternatives,
    judge,
    page,
    record,
    repairs,
    run,
    training,
    worker,
)
from benchmarks.faults.outside.alternatives import RandomChange
from benchmarks.faults.outside.draw import Mutant
from benchmarks.faults.outside.operators import Change
from benchmarks.faults.outside.repairs import Arm, Choice, Repair, Subject, Tried
from benchmarks.faults.outside.worker import Job, Result
from benchmarks.faults.record import restored
from cae_cli.diagnosis.trials import Trial, Trials
from cae_cli.external import random_edits
from cae_cli.runs.json_files import plain
from tests.tf.test_outside import JUDGED, ORIGINAL, recorded, small

pytestmark = pytest.mark.tf

NOWHERE = Path("nowhere")
MUTANT = Mutant("digits", Change("loss", "mse", "hinge"))
SUBJECT = Subject(MUTANT, 0.4, (0.10, 0.12, 0.11), "", ("ELU", "rate x 10"))
TRIED = Tried(
    budget=60,
    proposed=("ELU", "rate x 10"),
    seed=7,
    n_edits=9,
    n_random=9,
    verdict="none of the 9 changes tried mends it",
    is_reported=True,
    edit=Choice("rate x 10"),
    random=Choice("biases", 1),
    searched=Choice("learning rate", 4),
    seconds=130.0,
)


# --- whole trainings with a change ---


@pytest.mark.parametrize(
    ("errors", "is_back"),
    [
        ([], None),
        ([0.11], None),
        ([0.13], None),  # the next one may be lower
        ([0.25], False),  # too large for any mean
        ([0.11, 0.12], True),
        ([0.11, 0.14], False),
        ([None], False),
    ],
)
def test_as_few_trainings_as_decide_whether_an_error_is_back(errors, is_back):
    assert alternatives.is_back(SUBJECT.original, errors) is is_back


class Trainings:
    """Stands for the trainings; each has the error of its edit."""

    def __init__(self, errors, left=100):
        self.errors, self.left, self.trained = errors, left, []

    def __call__(self, job, data, out):
        known = job.result(out)
        if known is None:
            if len(self.trained) == self.left:
                raise KeyboardInterrupt
            self.trained.append(job)
            known = Result(self.errors[job.edit], 1.0)
            (out / "trainings").mkdir(exist_ok=True)
            job.write(out, known)
        return known


ERRORS = {"rate x 10": 0.11, RandomChange(7, 1): 0.5, RandomChange(7, 4): 0.125}


def test_an_interrupted_mutant_goes_on_where_it_was(tmp_path, monkeypatch):
    trials = []
    monkeypatch.setattr(repairs, "_tried", lambda *_: trials.append(1) or TRIED)
    first = Trainings(ERRORS, left=2)
    monkeypatch.setattr(worker, "run", first)
    assert repairs.kept(SUBJECT, 60, tmp_path) is None
    with pytest.raises(KeyboardInterrupt):
        repairs.run(SUBJECT, 60, NOWHERE, tmp_path)
    assert repairs.kept(SUBJECT, 60, tmp_path) is None  # not complete
    second = Trainings(ERRORS)
    monkeypatch.setattr(worker, "run", second)
    found = repairs.run(SUBJECT, 60, NOWHERE, tmp_path)
    assert len(trials) == 1
    assert [(job.edit, job.seed) for job in first.trained + second.trained] == [
        ("rate x 10", 0),
        ("rate x 10", 1),
        (RandomChange(7, 1), 0),  # so far off that the second one could not bring the mean back
        (RandomChange(7, 4), 0),
        (RandomChange(7, 4), 1),
    ]
    assert found == repairs.kept(SUBJECT, 60, tmp_path) == repairs.kept(SUBJECT, None, tmp_path)
    assert found.is_mended and not found.random.is_back and not found.searched.is_back
    assert restored(Repair, json.loads(json.dumps(plain(found)))) == found


def test_trials_of_another_budget_or_after_other_findings_are_not_taken(tmp_path):
    SUBJECT.write(tmp_path, TRIED)
    assert SUBJECT.tried(tmp_path, 60) == SUBJECT.tried(tmp_path, None) == TRIED
    assert SUBJECT.tried(tmp_path, 30) is None
    assert replace(SUBJECT, proposed=("ELU",)).tried(tmp_path, None) is None
    assert replace(SUBJECT, mutant=Mutant("dense")).tried(tmp_path, None) is None


def test_without_any_edit_the_mutant_is_not_mended():
    nothing = replace(TRIED, edit=None, is_reported=False, random=None, searched=None)
    found = repairs.repair(SUBJECT, nothing, lambda job: pytest.fail("nothing to train"))
    assert found == Repair(nothing, None, None, None) and not found.is_mended


def test_only_killed_mutants_get_fixes_and_these_once(tmp_path, monkeypatch):
    spared = Mutant("digits", Change("loss", "mse", "mae"))
    monkeypatch.setattr(run, "drawn", lambda *_: [MUTANT, spared])
    own = replace(run.smoke(1, NOWHERE, tmp_path, 1), try_fixes=60)
    (tmp_path / "trainings").mkdir()
    for subject, error in ((Mutant("digits"), 0.1), (MUTANT, 0.4), (spared, 0.1)):
        for job in run.jobs(own, subject):
            job.write(tmp_path, Result(error + 0.01 * job.seed, 1.0, failed="not here"))
    made = []

    def done(calls, n_jobs):
        for key, call in calls:
            made.append(call.args)
            call()
            yield key

    monkeypatch.setattr(run.processes, "done", done)
    monkeypatch.setattr(repairs, "_tried", lambda *_: replace(TRIED, proposed=()))
    monkeypatch.setattr(worker, "run", Trainings(ERRORS))
    lines = []
    found = run.run(own, lines.append)
    assert [one.repair is not None for one in found] == [False, True, False]
    subject = Subject(MUTANT, 0.4, (0.1, 0.11), "", (), own.epochs)
    assert made == [(subject, 60, NOWHERE, tmp_path)]
    assert "rate x 10: mends (reported)" in lines[-1]
    assert run.run(own, lines.append) == run.run(replace(own, try_fixes=None), lines.append) == found
    assert len(made) == 1
    assert "1 killed mutant, 0 to try fixes on" in lines[-2]


# --- changes of trainings ---


def test_a_random_change_is_the_one_with_its_number():
    own = small()
    given = alternatives.as_external(own)
    for number, (_, change) in enumerate(islice(random_edits.changes(given, 5), 4)):
        edited = small()
        alternatives.apply(edited, RandomChange(5, number))
        assert edited.loss == change.training.loss
        assert edited.fit["batch_size"] == change.training.batch_size
        assert edited.model.get_config()["layers"] == change.training.model.get_config()["layers"]
        learned = edited.optimizer["config"]["learning_rate"]
        assert learned == pytest.approx(change.training.optimizer.rate)
    with pytest.raises(alternatives.CannotApply):
        alternatives.apply(small(), RandomChange(5, random_edits.MOST))


def test_another_batch_size_leaves_the_number_of_steps(monkeypatch):
    def sized(given, _):
        yield "random: batch size", random_edits.Change(given.edited(batch_size=4), "", "")

    monkeypatch.setattr(random_edits, "changes", sized)
    own = small()  # 40 images, 2 steps of up to 32 in each of 30 epochs
    own.fit["epochs"] = 30
    alternatives.apply(own, RandomChange(0, 0))
    assert own.fit == {"batch_size": 4, "epochs": 6}


@keras.saving.register_keras_serializable("repairs")
class Pulling(L.Layer):
    """Adds a loss that outweighs everything."""

    def call(self, x):
        self.add_loss(1e6 * keras.ops.mean(x))
        return x


def test_an_edit_of_losses_that_layers_add_is_trained_as_well():
    def trained(edit):
        own = small()
        image = keras.Input((8, 8, 1))
        own.model = keras.Model(image, L.Conv2D(1, 3, padding="same")(Pulling()(image)))
        own.fit["epochs"] = 1
        if edit:
            alternatives.apply(own, edit)
        training.train(own)
        return own.model.history.history["loss"][0]

    assert trained("") > 1e5 > 10 > trained("no penalties")


# --- short trials ---


def trial(name, *explained, **values):
    return Trial(name, "", (), explained, **values)


def test_as_many_random_changes_are_tried_as_edits_and_none_twice(monkeypatch):
    given = alternatives.as_external(small())
    drawn = list(islice(random_edits.changes(given, 3), 5))
    runs = []
    monkeypatch.setattr(
        type(given), "run", lambda self, steps, seed, *_: runs.append((steps, seed)) or self.model
    )
    monkeypatch.setattr(type(given), "explained", lambda *_: 0.5)
    known = [trial(name, 0.1, after=change.after) for name, change in drawn[:2]]
    edits = tuple(trial(str(number), 0.3) for number in range(4))
    shown = Trials(trial("unchanged", 0.1), edits, tuple(known), steps=50, seeds=(3, 4), control_seed=3)
    listed = list(repairs._random(given, shown))
    assert [choice.number for choice, _ in listed] == [0, 1, 2, 3]
    assert [f"random: {choice.name}" for choice, _ in listed] == [name for name, _ in drawn[:4]]
    assert [one.mean for _, one in listed] == [0.1, 0.1, 0.5, 0.5] and runs == [(50, 3)] * 2


def test_the_explained_variance_that_belongs_to_an_error():
    own = small()
    given = alternatives.as_external(own)
    expected = given.explained(own.model)
    error = training.held_out_error(own)
    assert repairs._explained(error, own, given) == pytest.approx(expected, rel=1e-4)


@pytest.mark.soak
def test_fixes_are_tried_on_a_real_mutant(tmp_path):
    """A rate of 1e-6: the usual optimizer mends it, and that is found within the budget."""
    mutant = Mutant("digits", Change("decrease_rate", 0.002, 1e-6))
    own = replace(run.smoke(1, NOWHERE, tmp_path, 1), try_fixes=60)
    before, lines = dict(os.environ), []
    run_drawn, run.drawn = run.drawn, lambda *_: [mutant]
    try:
        [_, found] = run.run(own, lines.append)
        assert run.run(own, lines.append)[1] == found
    finally:
        run.drawn = run_drawn
    assert dict(os.environ) == before and found.is_killed
    tried = found.repair.tried
    assert tried.n_edits == tried.n_random > 0 and tried.budget == 60
    assert found.repair.edit is not None and len(found.repair.edit.errors) in (1, 2)
    assert lines[-1].startswith("1 killed mutant, 0 to try fixes on")


# --- figures and the page ---


def repaired():
    """Two killed mutants with fixes tried: one mended by its edit, one by chance."""
    mends, fails = (Arm("ELU", (0.1, 0.1), True), Arm("ELU", (0.9,), False))
    chance = Arm("biases", (0.1, 0.1), True)
    unreported = replace(TRIED, is_reported=False)
    done = {
        "epochs": Repair(TRIED, mends, None, fails),
        "delete_data": Repair(unreported, mends, chance, chance),
    }
    return tuple(replace(one, repair=done.get(one.verdict.case)) for one in JUDGED)


def test_the_figures_of_fixes_follow_from_the_mutants():
    shown = recorded(repaired())
    assert {f.name: (f.rate.count, f.rate.total) for f in record.repair_figures(shown)} == {
        "the first edit that is reported as helping": (1, 2),
        "the same, where one is reported": (1, 1),
        "the same, else the best edit that was tried": (2, 2),
        "one random change": (1, 2),
        "the best of as many random changes as edits": (1, 2),
        "no change": (0, 2),
    }
    assert record.repair_figures(shown)[0].is_met is None  # not all of the draw
    everything = tuple(one if one.repair else replace(one, comparison=None) for one in shown.judged)
    whole = recorded((ORIGINAL, *everything[1:]), drawn=6)
    assert record.repair_figures(whole)[0].is_met is False


def test_the_page_shows_the_fixes_that_were_tried(tmp_path):
    def section(judged):
        shown = recorded(judged)
        text = page.page([(shown, shown)])
        return text[text.index("### Fixes tried on killed mutants") : text.index("### Simpler tools")]

    assert section(JUDGED).endswith("\n\nNot measured.\n\n")
    text = section(repaired())
    assert "On 2 of 4 killed mutants" in text and "for 60 seconds" in text
    assert (
        "| the first edit that is reported as helping | 1 of 2 | 50 % (9 to 91) | at least 85 % |"
        in text
    )
    assert "| blog | epochs 1.0 → 0.5 | x 2.50 | ELU: **mends** | none | ELU: no |" in text
    assert "| ELU: **mends** (not reported) | biases: **mends** | biases: **mends** |" in text
    record.write(tmp_path / "draw.json", recorded(repaired()))
    assert record.read(tmp_path / "draw.json") == recorded(repaired())


def test_a_record_without_fixes_can_still_be_read():
    old = plain(JUDGED[1])
    del old["repair"], old["proposed"]
    assert restored(judge.Judged, old) == JUDGED[1]


def test_a_training_with_a_random_change_has_a_key_of_its_own():
    job = Job(MUTANT, 0, is_diagnosed=False)
    others = [replace(job, edit=RandomChange(*pair)) for pair in ((0, 1), (1, 0), (0, 0))]
    assert len({one.key for one in (job, *others)}) == 4


def test_a_limit_of_epochs_holds_before_an_edit_that_needs_more():
    job = Job(Mutant("digits"), 0, is_diagnosed=False, epochs=2, edit="more steps")
    assert worker.made(job, NOWHERE).fit["epochs"] == 6
