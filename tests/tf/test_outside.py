"""The outside part of the fault benchmark: operators, draws, the criterion, resuming, the page."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers as L
from scipy.stats import ttest_ind

from benchmarks.faults import tools
from benchmarks.faults.outside import (
    accepted,
    alternatives,
    criterion,
    draw,
    judge,
    operators,
    page,
    processes,
    record,
    run,
    training,
)
from benchmarks.faults.outside.draw import Mutant
from benchmarks.faults.outside.judge import Judged
from benchmarks.faults.outside.operators import OPERATORS, Change
from benchmarks.faults.outside.record import Record
from benchmarks.faults.outside.training import BASES, WORST, Training
from benchmarks.faults.outside.worker import Job, Result
from benchmarks.faults.report import count, share
from benchmarks.faults.scoring import Verdict
from cae_cli.diagnosis import RULES
from cae_cli.errors import UserError
from cae_cli.external.surgery import CannotRebuild, layers
from tests.conftest import ROOT

pytestmark = pytest.mark.tf


def model():
    """One layer at least that each operator can change."""
    image = keras.Input((8, 8, 1))
    x = L.Conv2D(4, 3, padding="same", activation="relu", kernel_regularizer="l2", name="first")(image)
    x = L.MaxPooling2D()(x)
    x = L.Conv2D(4, 3, padding="same", use_bias=False)(x)
    x = L.LeakyReLU()(x)
    x = L.Flatten()(x)
    x = L.Dropout(0.2)(x)
    x = L.Dense(16, activation="relu")(x)
    x = L.Dense(64, activation="sigmoid")(x)
    return keras.Model(image, L.Reshape((8, 8, 1))(x))


def small():
    """A training of random images in four classes."""
    keras.utils.clear_session()  # the same names of layers every time
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).random((40, 8, 8, 1), np.float32)
    return Training(
        model=model(),
        optimizer=keras.optimizers.serialize(keras.optimizers.Adam(0.001)),
        loss="mse",
        fit={"epochs": 3, "batch_size": 32},
        patience=3,
        is_validated=True,
        x=x,
        y=x,
        labels=np.arange(40) % 4,
        x_test=x[:8],
        y_test=x[:8],
    )


def configs(own):
    return [layer.get_config() for layer in layers(own.model)]


# --- operators ---


@pytest.mark.parametrize("name", OPERATORS)
def test_an_operator_changes_what_it_says_and_nothing_else(name):
    operator, rng, before = OPERATORS[name], np.random.default_rng(1), small()
    for _ in range(12):  # a mutant may be impossible
        change = operator.draw(before, rng)
        own = small()
        try:
            operators.apply(own, change, np.random.default_rng(0))
        except CannotRebuild:
            continue
        if own.fits:
            break
    assert own.fits and change.operator == name and change.before != change.after
    assert Change(**json.loads(json.dumps(vars(change)))) == change
    kinds = [type(layer).__name__ for layer in layers(own.model)]
    parts = {
        "training data": ("x", "y", "labels"),
        "learning rate": ("optimizer",),
        "optimizer": ("optimizer",),
        "gradient clipping": ("optimizer",),
        "batch size": ("fit",),
        "epochs": ("fit",),
        "loss": ("loss",),
        "early stopping": ("patience", "is_validated"),
    }.get(operator.family, ("model",))
    changed = []
    for part in ("optimizer", "loss", "fit", "patience", "is_validated", "x", "y", "labels"):
        if not np.array_equal(getattr(own, part), getattr(before, part)):
            changed.append(part)
    if configs(own) != configs(before):
        changed.append("model")
    assert changed and set(changed) <= set(parts)
    if "model" in parts:
        old = list(layers(before.model))[change.layer]
        assert type(old).__name__ == change.layer_type
        if len(kinds) == len(configs(before)):  # the other layers are as they were
            same = [a == b for a, b in zip(configs(own), configs(before), strict=True)]
            assert not same[change.layer] and sum(same) == len(same) - 1


RANGES = {
    "decrease_rate": (operators.LOWEST_RATE, 0.001),
    "increase_rate": (0.001, operators.HIGHEST_RATE),
    "clip_gradients": operators.NORMS,
    "epochs": (1, 2),
    "patience": (1, 2),
    "dropout_rate": (0, 1),
    "insert_dropout": (0, 1),
    "kernel_size": (1, 7),
    "filters": (1, 32),
    "pooling": (1, 5),
    "strides": (1, 5),
    "units": (1, 256),
    "insert_dense": (32, 128),
    **{name: (0.01, 0.99) for name, one in OPERATORS.items() if one.family == "training data"},
}


@pytest.mark.parametrize("name", RANGES)
def test_a_value_stays_in_its_range(name):
    own, rng, (low, high) = small(), np.random.default_rng(0), RANGES[name]
    values = [OPERATORS[name].draw(own, rng).after for _ in range(60)]
    assert low <= min(values) and max(values) <= high
    assert len(set(values)) > 1


def test_batches_are_multiples_of_16_or_all_images():
    own, rng = small(), np.random.default_rng(0)
    own.x = np.zeros((1000, 1))
    sizes = {OPERATORS["batch_size"].draw(own, rng).after for _ in range(200)}
    assert min(sizes) == 16 and max(sizes) <= 512 and 32 not in sizes
    assert not any(size % 16 for size in sizes)
    assert OPERATORS["disable_batching"].draw(own, rng).after == 1000


def test_operators_on_data_change_the_share_that_they_say():
    def changed(name, share):
        own = small()
        operators.apply(own, Change(name, 0.0, share), np.random.default_rng(0))
        return own

    before = small()
    own = changed("change_targets", 0.5)
    assert own.x is not own.y and np.array_equal(own.x, before.x)
    assert 15 <= (own.y != before.y).any(axis=(1, 2, 3)).sum() <= 20  # some draw themselves
    own = changed("delete_data", 0.75)
    assert len(own.x) == len(own.labels) == 10 and own.y is own.x
    own = changed("add_noise", 0.5)
    assert (own.x != before.x).any(axis=(1, 2, 3)).sum() == 20 and own.y is own.x
    assert own.x.min() >= before.x.min() and own.x.max() <= before.x.max()
    own = changed("unbalance_classes", 0.5)
    assert sorted(np.unique(own.labels, return_counts=True)[1])[2:] == [10, 10] and len(own.x) == 30
    own = changed("overlap_classes", 0.5)
    assert len(own.x) == len(own.y) == len(own.labels) == 45
    assert not (own.x[40:] == own.y[40:]).all(axis=(1, 2, 3)).any()


def test_a_script_with_targets_of_its_own_keeps_them_without_noise():
    own = small()
    own.y = own.x.copy()
    operators.apply(own, Change("add_noise", 0.0, 0.5), np.random.default_rng(0))
    assert np.array_equal(own.y, small().y) and not np.array_equal(own.x, own.y)


# --- draws and the map ---


def test_a_draw_is_reproduced_by_its_seed_and_read_again(tmp_path):
    first, again = (draw.draw(3, tmp_path, count=5, bases=run.SMOKE_BASES) for _ in range(2))
    assert first == again and len(set(first)) == 5
    assert first != draw.draw(4, tmp_path, count=5, bases=run.SMOKE_BASES)
    assert len({mutant.change.operator for mutant in first}) == 5  # each once before any comes again
    assert {mutant.base for mutant in first} == set(run.SMOKE_BASES)
    draw.write(tmp_path / "draw.json", 3, first)
    assert draw.read(tmp_path / "draw.json") == first


def test_recorded_draws_are_large_and_use_every_script():
    for file in draw.DRAWS.glob("*.json"):
        mutants = draw.read(file)
        assert len(mutants) >= 100 and {mutant.base for mutant in mutants} == set(BASES)
        assert all(accepted.accepted(mutant.change).reason for mutant in mutants)


def test_the_map_names_existing_operators_and_rules_only():
    codes, ends = {rule.code for rule in RULES}, {"", "up", "down", "output", "hidden"}
    for key, entry in accepted.table().items():
        name, _, end = key.partition(".")
        assert name in OPERATORS and end in ends
        assert set(entry.rules) <= codes and entry.reason.endswith(".")


def test_the_place_and_the_direction_choose_the_entry():
    larger = Change("filters", 8, 16, "hidden", 0, "Conv2D")
    assert accepted.accepted(larger).rules == accepted.table()["filters.up"].rules
    softmax = Change("change_activation", "relu", "softmax", "output", 0, "Conv2D")
    assert "CAE203" in accepted.accepted(softmax).rules
    assert "CAE203" not in accepted.accepted(replace(softmax, place="hidden")).rules


# --- the criterion ---


def test_the_criterion_is_welchs_test_and_cohens_d_on_logarithms():
    original, worse = [0.010, 0.011, 0.0105, 0.0098, 0.0102], [0.020, 0.015, 0.03, 0.018, 0.022]
    shown = criterion.compare(original, worse)
    a, b = np.log(original), np.log(worse)
    assert shown.p == pytest.approx(ttest_ind(b, a, equal_var=False).pvalue)
    assert shown.d == pytest.approx(
        (b.mean() - a.mean()) / math.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 2)
    )
    assert shown.ratio == pytest.approx(math.exp(b.mean() - a.mean()))
    assert shown.is_killed and not criterion.compare(worse, original).is_killed


def test_without_any_spread_the_direction_decides():
    assert criterion.compare([0.1, 0.1], [WORST, WORST]).is_killed
    assert not criterion.compare([0.1, 0.1], [0.01, 0.01]).is_killed
    assert not criterion.compare([0.1, 0.1], [0.1, 0.1]).is_killed


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e9])
def test_what_is_not_finite_has_the_worst_error(value):
    own = small()
    own.model = keras.Sequential([keras.Input((8, 8, 1)), L.Lambda(lambda x: x * 0 + value)])
    assert training.held_out_error(own) == WORST


# --- trainings ---


@pytest.mark.parametrize("base", ["dense", "digits"])
def test_a_script_trains_what_it_reconstructs(base):
    own = training.read(base, Path("nowhere"))
    assert own.fits and own.y is own.x and len(own.labels) == len(own.x)
    assert own.x.min() >= 0 and own.x.max() == 1
    own.fit["epochs"], own.x, own.y = 1, own.x[:64], own.y[:64]
    before = training.held_out_error(own)
    training.train(own)
    assert training.held_out_error(own) < before < WORST


def test_scripts_use_the_callback_and_nothing_else_of_cae():
    for base in BASES:
        text = (training.SCRIPTS / f"{base}.py").read_text()
        assert re.findall(r"(?:from|import) (?:cae_cli|benchmarks).*", text) == [
            "from cae_cli import Diagnosis"
        ]


def request(out):
    return replace(run.smoke(1, Path("nowhere"), out), n_jobs=1)


def test_what_is_trained_is_not_trained_again_and_only_complete_mutants_are_judged(
    tmp_path, monkeypatch
):
    mutants = [Mutant("dense", Change("epochs", 40, 1)), Mutant("dense", Change("epochs", 40, 2))]
    monkeypatch.setattr(run, "drawn", lambda *_: mutants)
    own, trained, variables = request(tmp_path), [], dict(os.environ)

    class Pool:
        """Trains in this process, and is interrupted after so many trainings."""

        left = 5

        def __init__(self, *_, **__):
            pass

        def submit(self, call):
            job, _, out = call.args
            assert os.environ["OMP_NUM_THREADS"] == "1"  # for the processes that are started here
            if len(trained) == Pool.left:
                raise KeyboardInterrupt
            trained.append(job)
            job.write(out, Result(0.1 if job.mutant.change is None else 0.2, 1.0, failed="not here"))
            return _done(None)

        def shutdown(self, **_):
            pass

    monkeypatch.setattr(processes, "ProcessPoolExecutor", Pool)
    with pytest.raises(KeyboardInterrupt):
        run.run(own, lambda line: None)
    assert dict(os.environ) == variables
    partial = run.run(own, lambda line: None, train=False)
    assert [one.verdict.case for one in partial] == ["original", "epochs"]
    Pool.left = 100
    whole = run.run(own, lambda line: None)
    assert len(trained) == len(set(trained)) == 6
    assert [one.verdict.expect for one in whole] == ["healthy", "faulty", "faulty"]
    assert whole[1].verdict.failed == "not here" and whole[1].verdict.causes == ("CAE210", "CAE211")
    run.run(own, lambda line: None)
    assert len(trained) == 6


def _done(value):
    from concurrent.futures import Future

    future = Future()
    future.set_result(value)
    return future


def test_missing_images_are_reported_before_anything_is_trained(tmp_path):
    own = replace(run.whole(1, tmp_path / "nowhere", tmp_path), bases=("colour",))
    with pytest.raises(UserError, match=r"the images of colour\.py cannot be read") as caught:
        run.run(own, lambda line: None)
    assert caught.value.hint == "use --data FOLDER" and not (tmp_path / "trainings").exists()


def test_another_cause_counts_if_its_first_fix_alone_repairs_the_mutant(tmp_path):
    own, mutant = request(tmp_path), Mutant("dense", Change("loss", "mse", "hinge"))
    for job in run.jobs(own, Mutant("dense")):
        job.write(tmp_path, Result(0.10 + 0.01 * job.seed, 1.0))
    wrong = replace(
        made_up("loss", "dense", killed=True, named=("CAE208",)), mutant=mutant, fix="rate x 10"
    )
    assert run._with_trial(own, wrong).is_fixed is None  # not tried yet
    for errors, is_fixed in (((0.11, 0.105), True), ((0.11, 0.14), False), ((0.11, None), False)):
        for job, error in zip(run.trials(own, wrong), errors, strict=True):
            job.write(tmp_path, Result(error, 1.0))
        assert run._with_trial(own, wrong).is_fixed is is_fixed
    right = replace(wrong, verdict=replace(wrong.verdict, causes=("CAE208",)))
    assert run.trials(own, right) == run.trials(own, replace(wrong, fix="")) == []


def test_a_fix_changes_the_mutant_and_leaves_its_change():
    own = small()
    operators.apply(own, Change("loss", "mse", "hinge"), np.random.default_rng(0))
    alternatives.apply(own, "rate x 10")
    assert own.optimizer["config"]["learning_rate"] == pytest.approx(0.01) and own.loss == "hinge"
    assert own.y is own.x and own.x_test is not None and own.fit == small().fit
    alternatives.apply(own, "more steps")
    assert own.fit["epochs"] == 9
    with pytest.raises(alternatives.CannotApply):
        alternatives.apply(own, "shuffled batches")


def test_a_training_has_another_key_if_anything_in_it_differs():
    job = Job(Mutant("dense", Change("epochs", 40, 1)), 0, is_diagnosed=False)
    others = [
        replace(job, seed=1),
        replace(job, epochs=2),
        replace(job, edit="ELU"),
        replace(job, is_diagnosed=True),
        replace(job, mutant=Mutant("dense", Change("epochs", 40, 2))),
        replace(job, mutant=Mutant("digits", Change("epochs", 40, 1))),
        replace(job, mutant=Mutant("dense")),
    ]
    assert len({one.key for one in (job, *others)}) == 8


@pytest.mark.soak
def test_the_small_run_trains_diagnoses_and_resumes(tmp_path):
    lines = []
    judged = run.run(run.smoke(1, Path("nowhere"), tmp_path), lines.append)
    assert len(judged) == 6 and all(not one.verdict.failed for one in judged)
    assert all(len(one.errors) == 2 for one in judged)
    again = []
    assert run.run(run.smoke(1, Path("nowhere"), tmp_path), again.append) == judged
    assert again[0].startswith("12 trainings, 0 to do")


@pytest.mark.soak
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_command_within_seconds_and_keeps_what_is_trained(tmp_path, number):
    flags = ["--part", "outside-smoke", "--data", str(tmp_path), "--out", str(tmp_path), "--jobs", "2"]
    command = ["nohup", sys.executable, "-m", "benchmarks.faults", *flags]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )

    def kept():
        return sorted((tmp_path / "trainings").glob("*.json"))

    while not kept() and process.poll() is None:
        time.sleep(0.1)
    time.sleep(1)  # the next trainings are on their way
    began = time.monotonic()
    process.send_signal(number)
    assert process.wait(60) == 128 + number, (tmp_path / "log").read_text()
    assert time.monotonic() - began < 10
    time.sleep(1)  # Python's own helper process sees the end of its pipe
    states = subprocess.run(
        ["ps", "-o", "stat=", "-g", str(process.pid)], capture_output=True, text=True, check=False
    ).stdout.split()
    assert all(state.startswith("Z") for state in states)  # nobody works on
    assert 0 < len(kept()) < 12 and all(json.loads(file.read_text()) for file in kept())


def test_what_the_callback_does_not_record_alarms_no_tool():
    fell = np.array([0.3, 0.2, 0.15])
    nothing = np.full(3, np.nan)
    for val in (fell + 0.01, nothing):  # with validation, and without
        recorded = tools.Signals(
            train_loss=fell,
            val_loss=np.r_[np.nan, val],
            val_mse=np.r_[nothing, 0.02],
            variance=0.1,
            gradients=np.full((3, 2), 0.1, np.float32),
            updates=np.full((3, 2), -2.0, np.float32),
            inactive=0.0,
            input_range=(0.0, 1.0),
            diverged=False,
            config={"optimizer": {"learning_rate": 0.001}},
        )
        assert any(tool.check(recorded) for tool in tools.TOOLS)
        shown = judge._of_callback(recorded, {"network": {"hidden_activation": "relu"}})
        assert not any(tool.check(shown) for tool in tools.TOOLS)
    lost = judge._of_callback(
        replace(recorded, train_loss=nothing), {"network": {"hidden_activation": "relu"}}
    )
    assert tools.TOOLS[1].check(lost) == ["not finite"]


# --- figures and the page ---


def made_up(name, base, *, killed, named=(), causes=(), **values):
    change = Change(name, 1.0, 0.5)
    compared = criterion.Comparison(0.001, 3.0, 2.5) if killed else criterion.Comparison(0.6, 0.1, 1.0)
    verdict = Verdict(
        name=f"{base}.{name}",
        case=name,
        data=base,
        expect="faulty" if killed else "borderline",
        causes=causes,
        second_fault=(),
        fixable=False,
        named=named,
        findings=named,
        **values,
    )
    symptoms = {"UMLAUT": ("overfitting",) if named else ()}
    return Judged(Mutant(base, change), (0.1, 0.2), compared, verdict, symptoms, 1800.0)


ORIGINAL = Judged(
    Mutant("blog"),
    (0.1, 0.1),
    None,
    Verdict("blog.original", "original", "blog", "healthy", (), (), False),
)
JUDGED = (
    ORIGINAL,
    made_up("epochs", "blog", killed=True, named=("CAE211",), causes=("CAE210", "CAE211")),
    made_up("delete_data", "blog", killed=True, named=("CAE501", "CAE105"), causes=("CAE211",)),
    made_up("insert_dropout", "dense", killed=True),
    made_up("padding", "dense", killed=True, undecided=True),
    made_up("loss", "dense", killed=False, named=("CAE208",)),
    made_up("decrease_rate", "blog", killed=False),
)


def recorded(judged=JUDGED, drawn=20):
    return Record(
        7, "python -m benchmarks.faults", "cae 1", "2026-01-01", {"keras": "3"}, 5, drawn, judged
    )


def counted(shown):
    return {figure.name: (figure.rate.count, figure.rate.total) for figure in record.figures(shown)}


def test_figures_follow_from_the_judged_mutants():
    assert counted(recorded()) == {
        "mutants: killed": (4, 6),
        "killed: right by the map, named first": (1, 4),
        "killed: right, and the original has another first cause": (1, 4),
        "killed: right by the map, among the findings": (1, 4),
        "killed: any finding": (2, 4),
        "killed: some rule is accepted": (2, 4),
        "killed: cannot tell": (1, 4),
        "killed: the cause may have been called ruled out": (0, 4),
        "not killed: alarms": (1, 2),
        "not killed: cannot tell": (0, 2),
        "originals: alarms": (0, 1),
        "not diagnosed": (0, 7),
    }
    code, rate = record.best_constant(recorded())
    assert (code, rate.count, rate.total) == ("CAE211", 2, 4)


def test_alternatives_count_where_they_were_tried():
    judged = [replace(one, is_fixed=one.verdict.case == "delete_data") for one in JUDGED]
    assert counted(recorded(tuple(judged)))["killed: right with alternatives, named first"] == (2, 4)


def test_a_mutant_that_keras_cannot_train_is_counted_and_left_out():
    broken = replace(JUDGED[1], comparison=None)
    shown = recorded((ORIGINAL, broken, *JUDGED[2:]))
    assert shown.n_untrainable == 1 and counted(shown)["mutants: killed"] == (3, 5)
    assert "cannot train 1 more" in page.page([(shown, shown)])


def test_the_page_follows_the_records():
    assert "| at least 85 % |  |" in page.page([(recorded(), recorded())])  # no verdict before the end
    assert "**6 of 20 mutants are judged so far**" in page.page([(recorded(), recorded())])
    shown = recorded(drawn=6)
    text = page.page([(shown, shown)])
    assert "All 6 mutants are judged" in text
    assert (
        "| killed: right by the map, named first | 1 of 4 | 25 % (5 to 70) | at least 85 % | **missed**"
        in text
    )
    missed = text[text.index("### Missed") : text.index("### False alarms")]
    assert "| blog | delete_data 1.0 → 0.5 | x 2.50 | CAE211 | CAE501, CAE105 |  |" in missed
    assert "| no rule | none |" in missed and "epochs" not in missed
    alarms = text[text.index("### False alarms") : text.index("### Simpler tools")]
    assert "| dense | loss 1.0 → 0.5 | x 1.00 | CAE208 |" in alarms and "decrease_rate" not in alarms
    assert "| 1.5 to 3 | 1 of 4 | 2 of 4 |" in text and "| below 1.1 | – | – |" in text
    assert "| UMLAUT | 1 of 4 | 2 of 4 | 1 of 2 | 0 of 1 |" in text
    assert "the figures of its first judging" in text and "None" not in missed
    before = recorded((*JUDGED[:-1], made_up("decrease_rate", "blog", killed=False, named=("CAE208",))))
    assert "### As judged first" in page.page([(recorded(), before)])
    assert "| not killed: alarms | 2 of 2 |" in page.page([(recorded(), before)])


def test_the_page_holds_no_figure_of_its_own():
    """With other mutants every count of the page is another one."""
    texts = []
    for factor in (13, 17):
        judged = tuple(
            replace(
                one,
                mutant=Mutant(
                    one.mutant.base, one.mutant.change and replace(one.mutant.change, layer=n)
                ),
            )
            for n in range(factor)
            for one in JUDGED
        )
        texts.append(page.page([(recorded(judged, 1000 + factor), recorded(judged, 1000 + factor))]))
    counts = [
        {found for found in re.findall(r"\b(\d+) of (\d+)\b", text) if found[0] != "0"} for text in texts
    ]
    assert counts[0] and counts[1] and not counts[0] & counts[1]


def test_records_are_written_read_and_first_judgements_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "RECORDS", tmp_path)
    half = recorded(JUDGED[:3])
    record.publish(half)
    later = tuple(replace(one, seconds=1.0) for one in JUDGED)
    record.publish(recorded(later))
    now, first = page.recorded()[0]
    assert now == recorded(later)
    assert first.judged == (*JUDGED[:3], *later[3:])


def test_the_page_in_docs_shows_the_recorded_draws():
    assert page.PAGE.read_text(encoding="utf-8") == page.page(page.recorded()), "run make docs"
    assert str(ROOT) not in page.PAGE.read_text(encoding="utf-8")


def test_what_it_would_take_is_written_for_every_operator_that_is_missed():
    assert set(accepted.needs()) <= set(OPERATORS)
    missed = {
        one.mutant.change.operator for one in page.recorded()[0][1].killed if not one.verdict.is_right
    }
    assert missed and missed <= set(accepted.needs())


def test_the_first_claim_of_the_readme_is_the_first_judging_of_the_newest_draw():
    (now, first), (_, earlier), *_ = page.recorded()
    own, tools_ = record.scores(first), record.tool_scores(first)
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    claim = text[text.index("**How often is it right?**") :].partition(" **Does the fix work?**")[0]
    outside, _, inside = claim.partition("Faults that the authors of the rules wrote")
    best = max((s.right for name, s in tools_.items() if name != "cae"), key=lambda r: r.share)
    large = [
        one.verdict.is_right for one in first.killed if one.comparison and one.comparison.ratio >= 1.5
    ]
    small = len(first.killed) - len(large)
    for words in (
        *(count(rate) for rate in (own.right, own.found, own.borderline_alarms, best)),
        share(own.right).replace("(", "(95 % interval "),
        f"{sum(large)} of the {len(large)} that made the error at least half as large again",
        f"{own.right.count - sum(large)} of the other {small}",
        f"{first.n_drawn} faults were drawn",
        f"before rules were changed because of it, it was {count(record.scores(earlier).right)}",
        f"DRAW={first.seed}",
    ):
        assert words in outside, words
    assert "upper bound" in inside and count(own.right) not in inside
    assert own.found.count == own.right.count or "every cause that was named was right" not in outside
    repaired = [one.repair for one in now.repaired if one.repair]
    reported = [repair for repair in repaired if repair.tried.is_reported]
    fixes = text[text.index("**Does the fix work?**") :].partition(" ## Commands")[0]
    assert f"fixes were tried on {len(repaired)} of the {len(first.killed)} so far" in fixes
    mended = sum(repair.is_mended for repair in reported)
    random, best_random = (
        sum(arm is not None and arm.is_back for arm in arms)
        for arms in ([r.random for r in repaired], [r.searched for r in repaired])
    )
    assert f"named a fix in {len(reported)}, and it repaired {mended};" in fixes
    assert f"one random change repaired {random}, the best of as many as fixes {best_random}" in fixes
