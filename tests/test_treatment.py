"""Criteria, random controls and arms on results made by hand; the command without a training."""

import json
import math
import shlex
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cae_cli import cli
from cae_cli.commands import treat
from cae_cli.config.compose import Sources, checked
from cae_cli.config.schema import GROUPS, plain
from cae_cli.diagnosis import diagnose
from cae_cli.diagnosis.health import criteria, is_healthy
from cae_cli.errors import Interrupted
from cae_cli.metrics.score import score
from cae_cli.options import key_of
from cae_cli.runs.folder import Run
from cae_cli.runs.registry import flat
from cae_cli.sweep import batch
from cae_cli.system.files import at_work
from cae_cli.system.guarded import GuardedPath
from cae_cli.treatment import arm as treatment
from cae_cli.treatment import session
from cae_cli.treatment.arm import Arm, Fixes, Proposal, RandomControls
from cae_cli.treatment.random_control import CHANGED, RandomControl, _options, with_changes
from cae_cli.treatment.record import experiment
from cae_cli.treatment.result import Result, result, result_of
from tests.test_diagnosis import (
    BLACK,
    CASES,
    CONFIG,
    INF,
    NAN,
    changed,
    healthy,
    known,
    layer,
    with_dynamics,
    with_perturbation,
    with_quality,
)

OVERRIDES = ("data=glyphs", "regularization=[l2]", "regularization.l2.strength=0.3")
OTHERS_SIGN = {
    "finite": with_dynamics(diverged_at=17),
    "explained variance": replace(
        with_quality(explained_variance=0.05, train_explained_variance=0.05),
        perturbation=with_perturbation(
            linear=0.05, linear_train=0.05
        ).perturbation,  # nor does it say anything here
    ),
    "share of linear baseline": with_perturbation(linear=0.96),
    "latent swap": with_perturbation(latent_swap=0.3),
    "inactive maps": replace(healthy(), layers=(layer(dead=7), layer("output", 1))),
    "pixel copy": with_perturbation(pixel_copy=0.65),
    "train-test gap": with_quality(train_explained_variance=0.9),
}


def failing(metrics, config=CONFIG):
    return [criterion.name for criterion in criteria(metrics, config) if not criterion.holds]


def test_a_healthy_run_is_healthy_by_every_criterion():
    assert failing(healthy()) == []
    assert is_healthy(diagnose(healthy(), CONFIG), healthy(), CONFIG)


@pytest.mark.parametrize("name", OTHERS_SIGN)
def test_each_criterion_fails_alone_and_no_rule_can_talk_it_well(name):
    metrics = OTHERS_SIGN[name]
    assert failing(metrics) == [name]
    deaf = CONFIG | {"rules": {code: {"enabled": False} for code in CASES}}
    diagnosis = diagnose(metrics, deaf)
    assert diagnosis.findings == () and not is_healthy(diagnosis, metrics, deaf)


def test_a_finding_or_an_open_verdict_is_not_healthy_though_every_criterion_holds():
    for metrics in (with_dynamics(penalty_share=0.9), with_dynamics(steps=96)):
        assert failing(metrics) == []
        assert not is_healthy(diagnose(metrics, CONFIG), metrics, CONFIG)


def test_what_is_not_known_does_not_fail():
    unknown = with_perturbation(
        skill_score=NAN, latent_swap=NAN, pixel_copy=NAN, linear=NAN, linear_train=NAN
    )
    assert failing(unknown) == []
    nowhere = with_quality(explained_variance=NAN, train_explained_variance=NAN)
    assert failing(nowhere) == ["finite"]


def test_similarity_and_harder_held_out_images_are_allowed_for():
    poor = with_perturbation(linear=0.96)
    assert (
        failing(poor) == ["share of linear baseline"]
        and failing(poor, known(CONFIG | {"loss": {"name": "ssim"}})) == []
    )
    harder = replace(
        with_quality(train_explained_variance=0.92),
        perturbation=with_perturbation(linear_train=0.87).perturbation,
    )
    assert failing(harder) == []


# -- random control -------------------------------------------------------------------------------------


def beside(overrides, seed=0, place=1, words=OVERRIDES):
    return RandomControl(seed).draw(overrides, words, place, batch.checked)


def test_a_random_control_is_the_same_for_a_seed_and_a_step_and_another_for_others():
    drawn = {(s, p): beside(("optimizer.learning_rate=.1",), s, p) for s in range(3) for p in (1, 2)}
    again = {(s, p): beside(("optimizer.learning_rate=.1",), s, p) for s in range(3) for p in (1, 2)}
    assert drawn == again and len(set(drawn.values())) > 3


@pytest.mark.parametrize(
    "overrides",
    [("loss=bce",), ("optimizer.learning_rate=.1",),
     ("model.filters=[64,32]", "model.latent_channels=8"),
     ("regularization=[l2,batchnorm]", "loss.k1=.01")],
)  # fmt: skip
def test_a_random_control_has_as_many_overrides_of_the_same_kinds_and_changes_the_run(overrides):
    kinds = [key_of(word) in GROUPS for word in overrides]
    before = batch.checked(OVERRIDES)
    for seed in range(3):
        drawn = beside(overrides, seed)
        assert [key_of(word) in GROUPS for word in drawn] == kinds
        assert batch.checked(with_changes(OVERRIDES, drawn)) != before


def test_random_controls_leave_the_budget_and_the_images_alone():
    keys = Counter()
    before = flat(vars(batch.checked(OVERRIDES)))
    for seed in range(6):
        [drawn] = beside(("optimizer.learning_rate=.1",), seed)
        after = batch.checked(with_changes(OVERRIDES, (drawn,)))
        keys[key_of(drawn).partition(".")[0]] += 1
        assert after.training == before["training"] and after.seed == before["seed"]
        assert key_of(drawn).partition(".")[0] != "data" or key_of(drawn) in ("data.scale", "data.noise")
    assert len(keys) > 1
    assert {key_of(beside(("loss=bce",), seed)[0]) for seed in range(5)} <= set(CHANGED)


def test_a_random_control_is_no_option_without_effect_next_to_the_others():
    idle = {"augmentation.target", "model.sampling_kernel", "optimizer.nesterov"}
    words = ("optimizer=sgd", "optimizer.momentum=0")
    assert not idle & {option.key for option in _options(batch.checked(words))}
    busy = (
        "optimizer=sgd",
        "optimizer.momentum=.9",
        "model.upsampling=transposed",
        "augmentation.flip=true",
    )
    assert idle <= {option.key for option in _options(batch.checked(busy))}


# -- arms ----------------------------------------------------------------------------------------


def made(metrics, config=CONFIG, name="run"):
    return result_of(Run(Path(name)), diagnose(metrics, config), metrics, config)


def arm(before, proposer=None, max_steps=3, words=OVERRIDES, seeds=(0,), name="a"):
    return Arm(name, words, before, seeds, proposer or Fixes(), max_steps, batch.checked)


PENALTY = CONFIG | {"regularization": {"l2": {"strength": 0.3}}}
FAULTY = with_dynamics(penalty_share=0.9)
WORSE = replace(BLACK, dynamics=FAULTY.dynamics)


def test_burden_counts_causes_and_criteria_and_an_open_verdict():
    assert made(healthy()).problems == 0 and made(healthy()).healthy
    assert made(FAULTY).problems == 1 and not made(FAULTY).healthy
    assert made(with_dynamics(steps=96)).problems == 1
    worse = made(WORSE)
    assert worse.problems == 1 + len(worse.failing) and "explained variance" in worse.failing


def test_the_first_fix_of_the_first_cause_comes_first_and_ends_it_if_it_works():
    one = arm([made(FAULTY, PENALTY)])
    first = diagnose(FAULTY, PENALTY).causes[0]
    [wanted] = one.wanted()
    assert wanted.name == "a_1_s0" and wanted.overrides[-1] == "seed=0"
    assert wanted.overrides[:-1] == (*OVERRIDES[:2], *first.fixes[0].overrides)
    assert one.wanted() == [wanted] and not one.is_over
    one.take_results([made(healthy())])
    assert one.is_fixed and one.first_fixed and one.is_over and one.wanted() == []
    [step] = one.steps
    assert (
        step.kept
        and step.proposal.code == "CAE206"
        and one.overrides == step.overrides
        and one.trainings == 1
    )


def test_what_does_not_help_is_left_and_the_next_fix_is_tried_on_the_old_base():
    one = arm([made(FAULTY, PENALTY)])
    tried = []
    while wanted := one.wanted():
        tried.append(wanted[0].overrides)
        one.take_results([made(WORSE, PENALTY)])
    proposed = [p.overrides for p in diagnose(FAULTY, PENALTY).causes[0].fixes]
    assert [step.change for step in one.steps] == proposed and len(set(tried)) == len(tried)
    assert not any(step.kept for step in one.steps) and one.overrides == OVERRIDES
    assert one.is_over and not one.is_fixed and not one.first_fixed


def test_what_helps_is_the_base_of_the_next_step_even_if_problems_remain():
    one = arm([made(WORSE, PENALTY)])
    one.wanted()
    one.take_results([made(FAULTY, PENALTY)])
    assert one.steps[0].kept
    [wanted] = one.wanted()
    # The weaker penalty stands, and what is proposed next goes on top.
    assert wanted.overrides[:-1] == with_changes(one.steps[0].overrides, one.tried[1])
    assert one.tried[1] == ("regularization=none",)


def test_as_much_wrong_and_a_clearly_higher_score_is_kept_and_a_little_is_not():
    def scored(value):
        return replace(FAULTY, score=replace(FAULTY.score, value=value))

    for after, kept in ((0.56, True), (0.54, False), (0.3, False), (NAN, False)):
        one = arm([made(scored(0.5), PENALTY)])
        one.wanted()
        one.take_results([made(scored(after), PENALTY)])
        assert one.steps[0].kept == kept


def test_a_training_without_files_is_the_worst_there_is(tmp_path):
    lost = result(Run(tmp_path))
    assert lost.problems == INF and lost.diagnosis is None and not lost.healthy and lost.reason
    one = arm([made(FAULTY, PENALTY)])
    one.wanted()
    one.take([Run(tmp_path)])
    assert not one.steps[0].kept and one.wanted()
    hopeless = arm([lost])
    assert hopeless.wanted() == [] and hopeless.is_over and hopeless.steps == []


def test_a_limit_of_steps_ends_it():
    one = arm([made(FAULTY, PENALTY)], max_steps=1)
    one.wanted()
    one.take_results([made(WORSE, PENALTY)])
    assert one.is_over and one.wanted() == []


def test_several_seeds_are_trained_each_and_judged_by_their_mean():
    one = arm([made(FAULTY, PENALTY), made(WORSE, PENALTY)], seeds=(3, 4))
    wanted = one.wanted()
    assert [w.name for w in wanted] == ["a_1_s3", "a_1_s4"]
    assert [w.overrides[-1] for w in wanted] == ["seed=3", "seed=4"]
    one.take_results([made(healthy()), made(FAULTY, PENALTY)])
    assert one.steps[0].kept and not one.first_fixed and not one.is_fixed and one.trainings == 2
    assert one.wanted()


class Fixed:
    """Proposes what it was given."""

    def __init__(self, *overrides):
        self.given = [Proposal(one, "") for one in overrides]

    def proposals(self, arm):
        return self.given


def test_what_does_not_fit_or_changes_nothing_or_was_tried_is_passed_over():
    proposer = Fixed(("loss=sssim",), ("loss.window=7",), ("loss=mse",), ("loss=mae",), ("loss=mae",))
    one = arm([made(FAULTY, PENALTY)], proposer)
    one.wanted()
    assert one.tried == [("loss=mae",)]
    one.take_results([made(WORSE, PENALTY)])
    assert one.wanted() == [] and one.is_over


def test_a_random_control_accompanies_every_step_and_no_more():
    first = arm([made(FAULTY, PENALTY)], name="rx")
    other = arm([made(FAULTY, PENALTY)], RandomControls(RandomControl(0), first), name="control")
    steps = 0
    while other.wanted():  # though nobody has asked the first one
        first.take_results([made(WORSE, PENALTY)])
        other.take_results([made(WORSE, PENALTY)])
        steps += 1
    assert steps == len(first.steps) == len(other.steps) == 2 and other.is_over
    for step, control in zip(first.steps, other.steps, strict=True):
        assert len(step.change) == len(control.change)
        assert control.proposal.code is None and control.change != step.change


def test_short_trainings_choose_between_the_fixes_of_the_first_cause():
    dead = with_dynamics(early_peak=-0.6)
    dead = replace(dead, layers=(layer(dead=8), layer("output", 1)))
    fast = CONFIG | {"optimizer": {"name": "adam", "learning_rate": 0.1, "clip_norm": None}}
    words = ("optimizer.learning_rate=0.1",)

    def tried(gains):
        proposer = Fixes()
        one = arm([made(dead, fast)], proposer, words=words)
        alternatives = proposer.alternatives(one)
        assert alternatives == [("optimizer.learning_rate=0.001",), ("optimizer.clip_norm=1",)]
        proposer.prefer(dict(zip(alternatives, gains, strict=True)))
        one.wanted()
        return one.tried[0]

    assert tried((0.1, 0.0)) == ("optimizer.learning_rate=0.001",)
    assert tried((0.1, 0.2)) == ("optimizer.clip_norm=1",)
    assert tried((-0.1, 0.0)) == ("optimizer.clip_norm=1",)
    assert tried((math.nan, 0.0)) == ("optimizer.clip_norm=1",)
    # Where all did harm, so few steps have told nothing.
    assert tried((-0.2, -0.1)) == ("optimizer.learning_rate=0.001",)


# -- the experiment file ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ("data=glyphs", "model=deep", "seed=0"),
        (
            "loss=ssim",
            "loss.window=7",
            "regularization=[l2,batchnorm]",
            "regularization.l2.strength=.01",
        ),
        ("model=l2", "model.filters=[8,4]", "regularization=none", "training.steps=null"),
        ("regularization=[dropout]", "model=l2", "augmentation=light", "optimizer.learning_rate=1e-05"),
        ("data=npz", "data.path='a b/c=d,e [f] {g}: h.npz'", "tags=[a,'2']", "task_name='2024'"),
        ("data=npz", r"data.path='it\'s \\ a \\\' path\\'", "rules.CAE401.threshold=.5"),
        ("data=npz", "data.path='null'", "model.skips=true", "seed=7"),
    ],
    ids=str,
)
def test_an_experiment_file_composes_to_what_the_words_do(words, tmp_path):
    folder = tmp_path / "experiment"
    folder.mkdir()
    (folder / "fixed.yaml").write_text(experiment(words, ["cae train x", "two\nlines"]))
    text = (folder / "fixed.yaml").read_text()
    assert text.startswith("# @package _global_\n# cae train x\n# two\n# lines\n")
    composed = checked(["experiment=fixed"], Sources(folders=(tmp_path,)))[1]
    assert composed == batch.checked(words) != batch.checked(())


# -- the command -----------------------------------------------------------------------------------

FAST = ("data=digits", "optimizer.learning_rate=0.1", "training.epochs=9", "seed=3")
DEAD = replace(
    with_dynamics(early_peak=-0.6, steps=1280),
    layers=(layer(dead=8), layer("output", 1)),
    score=score(explained=0.84, base=0.0, latent_swap=0.9, pixel_copy=0.0, inactive=0.5),
)


def files(folder):
    """What the picture is drawn from."""
    numbers = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(
        folder / "arrays.npz",
        **{
            "example_images": numbers.random((3, 8, 8, 1), np.float32),
            "example_outputs": numbers.random((3, 8, 8, 1), np.float32),
            "kernel/encoder_1": numbers.standard_normal((3, 3, 1, 5)).astype(np.float32),
            "map_std/encoder_1": numbers.random(5, np.float32),
            "mse": numbers.random(9, np.float32),
            "mean_mse": numbers.random(9, np.float32),
        },
    )


class Trainings:
    """Stands for the trainings: what each comes to is said beforehand, by its name."""

    def __init__(self, patch, home):
        self.home, self.results, self.default = home, {}, healthy()
        self.trained, self.interrupt_at = [], None
        patch.setattr(treat, "SEEDS", 1)
        patch.setattr(treat, "result", self.result)
        patch.setattr(session, "result", self.result)
        patch.setattr(treatment, "result", self.result)
        patch.setattr(batch, "opened", self.opened)

    @contextmanager
    def opened(self, folder, command):
        self.folder = folder.shown
        yield self

    def train(self, wanted):
        runs = []
        for number, one in enumerate(wanted):
            if one.name == self.interrupt_at:
                raise Interrupted(2)
            self.trained.append(one)
            runs.append(Run(self.folder / one.name))
            files(runs[number].folder)
            Run(self.folder / one.name).set_status("ok")
        return runs

    def result(self, run):
        words = next((one.overrides for one in self.trained if one.name == run.folder.name), ())
        keys = [run.folder.name, *words, run.folder.name.partition("_")[0]]
        metrics = next((self.results[key] for key in keys if key in self.results), self.default)
        if metrics is None or not run.folder.exists():
            return Result(run, None, None, (), False, INF, "no memory")
        config = json.loads(json.dumps(plain(batch.checked(words or FAST))))
        return result_of(run, diagnose(metrics, config), metrics, config)


@pytest.fixture
def trainings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = Run(tmp_path / "runs" / "train" / "2026-01-01_10-00-00_aaaa")
    files(run.folder)
    config = json.loads(json.dumps(plain(batch.checked(FAST))))
    run.write_setup({"command": ["cae", "train", *FAST], "config": config, "time": "2026-01-01"})
    run.set_status("ok")
    made = Trainings(monkeypatch, run.folder)
    made.results[run.folder.name] = DEAD
    return made


def content(trainings):
    return json.loads((trainings.folder / "treatment.json").read_text())


def snapshot(folder):
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*.*")}


def test_a_run_is_fixed_next_to_a_random_control_and_is_not_changed_itself(trainings, capsys):
    trainings.results["control"] = DEAD
    before = snapshot(trainings.home)
    assert cli.run(["treat", "last"]) == 0
    assert snapshot(trainings.home) == before
    told = capsys.readouterr()
    lines = told.out.splitlines()
    assert [one.name for one in trainings.trained] == ["treatment_1_s3", "control_1_s3"]
    assert lines[0].split()[:2] == ["change", "kept"] and "CAE207" in lines[1]
    assert "optimizer.learning_rate=0.001" in lines[2] and " yes " in lines[2] and "healthy" in lines[2]
    assert lines[3].startswith("random control 1") and " no " in lines[3]
    verdict = next(line for line in lines if line.startswith("fixed by"))
    assert "score 0.38 → 0.76, 0.38 more than with a random change (0.38)" in verdict
    assert lines[-1] == str(trainings.folder) and "at most" in told.err
    assert (trainings.folder / "treatment.png").read_bytes().startswith(b"\x89PNG")
    [command] = [line for line in lines if line.startswith("cae train data=digits")]
    words = shlex.split(command)[2:]
    assert batch.checked(words) == batch.checked((*FAST, "optimizer.learning_rate=0.001"))
    same = checked(["experiment=fixed"], Sources(folders=(trainings.folder,)))[1]
    assert same == batch.checked(words)
    [after] = [line for line in lines if "experiment=fixed" in line]
    assert after == f"cae train -cd {trainings.folder} experiment=fixed"


def reaching(explained, **values):
    """A run whose score and explained variance are what a figure says."""
    metrics = with_quality(explained_variance=explained, train_explained_variance=explained)
    value = score(explained=explained, base=0.0, latent_swap=0.9, pixel_copy=0.0, inactive=0.0)
    return replace(metrics, score=value, **values)


def test_a_control_that_reaches_more_is_not_called_worse(trainings, capsys):
    """Although problems are left: the headline says what the table says."""
    trainings.default = reaching(0.72)
    trainings.results["control"] = replace(
        reaching(0.95), perturbation=with_perturbation(pixel_copy=0.65).perturbation
    )
    assert cli.run(["treat", "last", "--max-fixes", "1"]) == 0
    out = capsys.readouterr().out
    assert "a random change left more problems and reached more" in out
    assert "95% instead of 72% explained), so which is better is open" in out


def test_a_control_that_reaches_as_much_and_leaves_problems_is_called_worse(trainings, capsys):
    trainings.results["control"] = with_perturbation(pixel_copy=0.65)
    assert cli.run(["treat", "last", "--max-fixes", "1"]) == 0
    assert "a random change left more problems (score 0.76)" in capsys.readouterr().out


@pytest.mark.parametrize(("budget", "seeds"), [("9s", 3), ("7s", 1)])
def test_three_seeds_are_the_default_where_the_budget_allows(trainings, monkeypatch, budget, seeds):
    """Two trainings of a second for each seed, and the run itself with two more seeds: 8 seconds."""
    monkeypatch.setattr(treat, "SEEDS", 3)
    trainings.results["control"] = DEAD
    assert cli.run(["treat", "last", "--max-fixes", "1", "--budget", budget]) == 0
    assert len(content(trainings)["seeds"]) == seeds


def test_treatment_json_has_all_of_it_and_json_prints_it(trainings, capsys):
    trainings.results["control"] = DEAD
    assert cli.run(["treat", "last", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == content(trainings) and printed["schema"] == 2
    assert printed["outcome"] == "fixed" and printed["changes"] == ["optimizer.learning_rate=0.001"]
    assert printed["arms"]["treatment"]["first_fixed"] and not printed["arms"]["control"]["fixed"]
    [step] = printed["arms"]["treatment"]["steps"]
    assert step["code"] == "CAE207" and step["kept"] and step["results"][0]["healthy"]
    failing = [y["name"] for y in printed["before"][0]["criteria"] if not y["holds"]]
    assert failing == ["inactive maps"]


def test_what_random_changes_fix_too_is_reported_as_chance(trainings, capsys):
    assert cli.run(["treat", "last"]) == 0
    assert "a random change fixed it too (score 0.76), so this may be chance" in capsys.readouterr().out


def test_that_no_fix_helps_is_reported(trainings, capsys):
    trainings.default = DEAD
    assert cli.run(["treat", "last", "--max-fixes", "2"]) == 0
    out = capsys.readouterr().out
    assert "no fix helped, and 2 random changes did not help either" in out
    assert "cae train" not in out and not (trainings.folder / "experiment").exists()
    assert content(trainings)["outcome"] == "none" and len(trainings.trained) == 4


def test_better_is_not_fixed(trainings, capsys):
    trainings.default = DEAD
    trainings.results["treatment_1_s3"] = with_dynamics(early_peak=-0.6, penalty_share=0.9)
    assert cli.run(["treat", "last", "--no-control", "--max-fixes", "1"]) == 0
    out = capsys.readouterr().out
    assert (
        "improved by optimizer.learning_rate=0.001, not healthy yet" in out
        and "remaining: CAE206" in out
    )
    assert "random" not in out and (trainings.folder / "experiment" / "better.yaml").is_file()
    assert "cleared" in out and "new" in out


def test_several_seeds_are_paired_and_give_an_interval(trainings, capsys):
    trainings.results |= {"control": DEAD, "before_s4": DEAD, "before_s5": DEAD}
    trainings.results["treatment_1_s5"] = changed("score", value=0.7)
    assert cli.run(["treat", "last", "--seeds", "3"]) == 0
    both = [f"{arm}_1_s{seed}" for arm in ("treatment", "control") for seed in (3, 4, 5)]
    assert [one.name for one in trainings.trained] == ["before_s4", "before_s5", *both]
    told = content(trainings)
    assert told["seeds"] == [3, 4, 5] and told["advantage"]["n"] == 3
    assert told["advantage"]["margin"] > 0 and " ± " in capsys.readouterr().out


def test_a_training_that_could_not_be_run_is_named_and_makes_the_exit_code_1(trainings, capsys):
    trainings.results["treatment_1_s3"] = None
    assert cli.run(["treat", "last", "--no-control"]) == 1
    told = capsys.readouterr()
    assert "treatment_1_s3 could not be trained: no memory" in told.err
    assert "no result: no memory" in told.out
    assert [step["kept"] for step in content(trainings)["arms"]["treatment"]["steps"]] == [False, True]


def test_what_is_done_before_a_signal_is_kept_and_shown(trainings, capsys):
    trainings.results |= {"control": DEAD, "treatment_1_s3": DEAD}
    trainings.interrupt_at = "control_2_s3"
    with pytest.raises(Interrupted):
        cli.run(["treat", "last"])
    out = capsys.readouterr().out
    # The arm whose training had ended is judged, the other is not.
    assert "fix 2" in out and "random control 1" in out and "random control 2" not in out
    assert "interrupted; so far: fixed by optimizer.clip_norm=1" in out
    assert content(trainings)["cut"] == "interrupted" and (trainings.folder / "treatment.png").is_file()


def test_short_trainings_choose_where_the_run_is_long(trainings, capsys):
    long = replace(DEAD, dynamics=replace(DEAD.dynamics, steps=2560))
    trainings.results |= {trainings.home.name: long, "control": DEAD}
    for number, value in enumerate((0.3, 0.2, 0.5)):
        trainings.results[f"short_1_{number}"] = changed("score", value=value)
    assert cli.run(["treat", "last"]) == 0
    names = [one.name for one in trainings.trained]
    assert names == ["short_1_0", "short_1_1", "short_1_2", "treatment_1_s3", "control_1_s3"]
    assert batch.checked(trainings.trained[0].overrides).training.steps == 200
    assert content(trainings)["changes"] == ["optimizer.clip_norm=1"]
    out = capsys.readouterr().out
    rows = [line.split() for line in out.splitlines()]
    assert ["none", "0.30", "0.840"] in rows and ["optimizer.clip_norm=1", "0.50", "0.840"] in rows
    trainings.trained.clear()
    trainings.results[trainings.home.name] = replace(long, dynamics=replace(long.dynamics, steps=1999))
    assert cli.run(["treat", str(trainings.home)]) == 0
    assert [one.name for one in trainings.trained] == ["treatment_1_s3", "control_1_s3"]


def test_short_only_trains_all_candidates_for_a_few_steps_and_names_the_best(trainings, capsys):
    short_run = replace(DEAD, dynamics=replace(DEAD.dynamics, steps=160))
    trainings.results |= {trainings.home.name: short_run, "short": with_quality(explained_variance=0.2)}
    trainings.results["short_1_2"] = with_quality(explained_variance=0.5)
    trainings.results["short_1_3"] = with_dynamics(diverged_at=3)
    assert cli.run(["treat", "last", "--short"]) == 0
    assert [one.name for one in trainings.trained] == [f"short_1_{i}" for i in range(7)]
    configs = [batch.checked(one.overrides) for one in trainings.trained]
    assert len(set(map(str, configs))) == 7
    assert {c.training.steps for c in configs} == {200}
    out = capsys.readouterr().out
    rows = [line.split() for line in out.splitlines()]
    assert ["optimizer.clip_norm=1", "0.76", "0.500"] in rows and ["loss=bce", "diverged"] in rows
    best = "optimizer.clip_norm=1 helps most in short trainings: explained variance 0.20 → 0.50"
    assert best in out
    told = content(trainings)
    assert told["outcome"] == "none" and told["arms"]["treatment"]["steps"] == []
    assert len(told["short"]) == 7 and not (trainings.folder / "experiment").exists()
    trainings.results["short_1_2"] = with_quality(explained_variance=0.24)
    assert cli.run(["treat", str(trainings.home), "--short", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == "no change helps in short trainings"


def test_a_budget_ends_it_between_fixes_or_before_the_first(trainings, capsys, monkeypatch):
    trainings.default = DEAD
    assert cli.run(["treat", "last", "--budget", "1s"]) == 2
    assert "the first fix takes about 2 s, which exceeds the budget of 1 s" in capsys.readouterr().err
    assert not (trainings.home.parents[1] / "treat").exists()
    ticks = iter(range(0, 10_000, 20))
    monkeypatch.setattr(session.time, "monotonic", lambda: float(next(ticks)))
    assert cli.run(["treat", "last", "--budget", "90s"]) == 0
    assert "is not enough for another fix; so far: no fix helped" in capsys.readouterr().out
    assert len(trainings.trained) == 2


def test_a_healthy_run_and_one_that_only_advice_helps_are_not_trained(trainings, capsys):
    trainings.results[trainings.home.name] = healthy()
    assert cli.run(["treat", "last"]) == 0
    assert "the run is healthy and needs no treatment" in capsys.readouterr().out
    trainings.results[trainings.home.name] = CASES["CAE101"][0]
    assert cli.run(["treat", "last"]) == 0
    out = capsys.readouterr().out
    assert "no option can fix the cause, so nothing was trained" in out and "advice: CAE101" in out
    assert cli.run(["treat", "last", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["outcome"] == "advice"
    assert not trainings.trained and not (trainings.home.parents[1] / "treat").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "one run, got 0"),
        (["last", "seed=1"], "cae treat takes no overrides"),
        (["nowhere"], "nowhere"),
        (["last", "--budget", "soon"], "must be a time like 90s, 10m or 2h, got 'soon'"),
        (["last", "--budget", "0s"], "must be a time"),
        (["last", "--max-fixes", "0"], "must be a whole number from 1"),
        (["last", "--seed", "3"], "unrecognized arguments: --seed"),
    ],
)
def test_mistakes_are_reported_before_anything_is_trained(trainings, capsys, words, said):
    assert cli.run(["treat", *words]) == 2
    assert said in capsys.readouterr().err and not trainings.trained


def test_a_model_from_elsewhere_and_a_run_that_is_not_over_are_refused(trainings, capsys):
    trainings.results[trainings.home.name] = None
    assert cli.run(["treat", "last"]) == 2
    assert "error: " in capsys.readouterr().err
    with at_work(GuardedPath(trainings.home)):
        Run(trainings.home).set_status("running")
        assert cli.run(["treat", "last"]) == 2
        assert "error: the run is in progress" in capsys.readouterr().err
    setup = json.loads((trainings.home / "run.json").read_text())
    (trainings.home / "run.json").write_text(json.dumps({**setup, "command": []}))
    assert cli.run(["treat", str(trainings.home)]) == 2
    assert "cae did not train this model" in capsys.readouterr().err
    assert not trainings.trained


def test_times_are_read():
    assert [treat.duration(text) for text in ("30s", "1.5m", "2h")] == [30, 90, 7200]
