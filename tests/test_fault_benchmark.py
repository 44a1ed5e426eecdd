"""Cases, corrupted images, figures, tools and the page of the fault benchmark; nothing is trained."""

import json
import math
import re
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.faults import __main__ as command
from benchmarks.faults import (
    ablation,
    benchmark,
    case_files,
    cells,
    controls,
    corruption,
    page,
    record,
    report,
    scoring,
    tools,
    trainings,
)
from benchmarks.faults.case import joined
from benchmarks.faults.scoring import CONTROLS, FixTrial, Tried, Verdict
from cae_cli import cli, data, experiment
from cae_cli.diagnosis import RULES, diagnose
from cae_cli.errors import UserError
from cae_cli.runs.folder import Run
from cae_cli.runs.json_files import plain
from cae_cli.statistics.interval import wilson
from cae_cli.sweep import batch
from cae_cli.treatment.result import result_of
from tests.test_diagnosis import CASES, CONFIG, healthy, layer, with_dynamics

SOURCES = """\
glyphs: {config: [data=glyphs, data.train=128, training.epochs=2], doc: Letters.}
files: {config: [data=npz, "data.path={data}/images.npz"], doc: Images in a file.}
"""
CASE = """\
# Weights shrink to nothing,
# whatever the images.
expect: faulty
causes: [CAE206]
config: [regularization=l2]
variants:
  - {part: tuning, data: glyphs, seeds: [0], config: [regularization.l2.strength=0.1]}
  - {part: test, data: files, seeds: [10, 11], config: [regularization.l2.strength=0.3]}
  - {part: smoke, data: glyphs, seeds: [0], corrupt: repeats_16, config: ["model.filters=[8,8]"]}
"""


def trial(name, named, first, fixed, control_first, control, trainings, **values):
    controls = {"random change": Tried(control_first, control, trainings)}
    return FixTrial(name, named, Tried(first, fixed, trainings), controls, **values)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "cases").mkdir()
    (tmp_path / "data.yaml").write_text(SOURCES)
    (tmp_path / "cases" / "penalty.yaml").write_text(CASE)
    return tmp_path / "cases"


# -- cases -------------------------------------------------------------------------------------------


def test_a_case_file_becomes_a_case(folder):
    [case] = case_files.read([folder])
    assert case.name == "penalty"
    assert case.reason == "Weights shrink to nothing, whatever the images."
    assert (case.options.expect, case.options.causes, case.options.second_fault) == (
        "faulty",
        ["CAE206"],
        [],
    )
    assert case.options.fixable and not case.options.adjusted
    assert [t.name for t in case.trainings] == [
        "penalty.0.s0", "penalty.1.s10", "penalty.1.s11", "penalty.2.s0",
    ]  # fmt: skip
    tuning, test, _, smoke = case.trainings
    assert tuning.overrides(Path("/data")) == (
        "data=glyphs", "data.train=128", "training.epochs=2", "regularization=l2",
        "regularization.l2.strength=0.1",
    )  # fmt: skip
    assert test.overrides(Path("/my data"))[1] == "data.path='/my data/images.npz'"
    assert batch.checked(test.overrides(Path("/it's, [here]"))).data.path == "/it's, [here]/images.npz"
    assert smoke.corrupt == "repeats_16" and smoke.case is case


def test_trainings_without_images_are_left_out_and_counted(folder, tmp_path):
    read = [t for case in case_files.read([folder]) for t in case.trainings]
    usable, left_out = trainings.with_images(read, tmp_path)
    assert [t.name for t in usable] == ["penalty.0.s0", "penalty.2.s0"]
    assert left_out == {str(tmp_path / "images.npz"): 2}
    (tmp_path / "images.npz").touch()
    assert trainings.with_images(read, tmp_path) == (read, {})


def test_a_later_override_replaces_an_earlier_one():
    overrides = joined(["model=wide", "loss=ssim"], ["loss.window=7"], ["loss=mse", "seed=1"])
    assert overrides == ("model=wide", "loss.window=7", "loss=mse", "seed=1")


MISTAKES = {
    "a misspelt key": ("expect: faulty", "expct: faulty", "expct", "did you mean expect?"),
    "a misspelt value": ("expect: faulty", "expect: faulti", "expect", "did you mean faulty?"),
    "a code that is none": ("CAE206", "CAE2O6", "causes", "did you mean CAE206?"),
    "no cause": ("causes: [CAE206]", "causes: []", "causes", "[CAE101]"),
    "no list": ("causes: [CAE206]", "causes: CAE206", "causes", "[CAE101]"),
    "a code twice": ("[CAE206]", "[CAE206, CAE206]", "causes", None),
    "a cause of the healthy": ("expect: faulty", "expect: healthy", "causes", "expect: faulty"),
    "fixable in words": ("config: [reg", "fixable: maybe\nconfig: [reg", "fixable", "true if"),
    "a part that is none": ("part: test", "part: tst", "variants[1].part", "did you mean test?"),
    "images that are none": ("data: files", "data: file", "variants[1].data", "did you mean files?"),
    "a misspelt key of a variant": ("seeds: [10", "sedes: [10", "variants[1].sedes", "mean seeds?"),
    "no seeds": ("seeds: [10, 11]", "seeds: []", "variants[1].seeds", "[0, 1, 2]"),
    "no part": ("part: test, ", "", "variants[1].part", "part of the benchmark"),
    "a seed twice": ("seeds: [10, 11]", "seeds: [10, 10]", "variants[1].seeds", None),
    "seeds that are none": ("seeds: [10, 11]", "seeds: [-1]", "variants[1].seeds", None),
    "true for a seed": ("seeds: [10, 11]", "seeds: [true]", "variants[1].seeds[0]", "[0, 1, 2]"),
    "a seed among the overrides": ("[regularization=l2]", "[seed=3]", "config", "seeds: [0, 1]"),
    "images among the overrides": ("[regularization=l2]", "[data=mnist]", "config", "of a variant"),
    "Hydra's own": ("[regularization=l2]", "[hydra.run.dir=x]", "config", "sets Hydra's options"),
    "no override": ("[regularization=l2]", "[regularization]", "config", "key=value"),
    "a mapping": ("[regularization=l2]", "[{a: b}]", "config[0]", "key=value"),
    "an override twice": ("[regularization=l2]", "[model=wide, model=deep]", "config", None),
    "a corruption that is none": ("repeats_16", "repeets_16", "variants[2].corrupt", "repeats_N"),
    "a corruption without a number": ("repeats_16", "duplicates", "variants[2].corrupt", "repeats_N"),
    "a corruption too many": ("repeats_16", "repeats_0", "variants[2].corrupt", "repeats_16"),
    "a share above all": ("repeats_16", "flat_1.5", "variants[2].corrupt", "flat_0.3"),
    "no reason": ("# Weights shrink to nothing,\n# whatever the images.\n", "", "", "start the file"),
    "a key twice": ("expect: faulty", "expect: faulty\nexpect: borderline", ":4", None),
    "a tag": ("expect: faulty", "expect: !!python/name:os.system x", ":3", "no tag is needed"),
    "no YAML": ("causes: [CAE206]", "causes: [CAE206", "", None),
    "no variants": (CASE[CASE.index("variants") :], "variants: []\n", "variants", "at least one"),
    "a variant in words": ("  - {part: test,", "  - test\n  - {part: test,", "variants[1]", None),
    "no mapping": (CASE, "# Why.\n- a\n", "", None),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_reported_with_file_key_and_hint(folder, name):
    old, new, where, hint = MISTAKES[name]
    assert old in CASE
    (folder / "penalty.yaml").write_text(CASE.replace(old, new, 1))
    with pytest.raises(UserError) as caught:
        case_files.read([folder])
    assert str(folder / "penalty.yaml") in caught.value.where
    assert caught.value.where.endswith(where)
    assert hint is None or hint in caught.value.hint


def test_the_same_training_cannot_be_in_two_parts(folder):
    twice = (
        CASE + "  - {part: test, data: glyphs, seeds: [0], config: [regularization.l2.strength=0.1]}\n"
    )
    (folder / "penalty.yaml").write_text(twice)
    with pytest.raises(UserError, match="variants 0 and 3 are the same training"):
        case_files.read([folder])


def test_sources_are_checked_as_strictly(folder):
    file = folder.parent / "data.yaml"
    file.write_text("glyphs: {config: [data=glyphs], dok: x}\n")
    with pytest.raises(UserError, match=r"glyphs\.dok is not an option") as caught:
        case_files.read([folder])
    assert caught.value.hint == "did you mean doc?"
    file.write_text("glyphs: {config: [data.train=3], doc: x}\n")
    with pytest.raises(UserError, match="must choose images"):
        case_files.read([folder])
    file.write_text("doc: [data=glyphs]\n")
    with pytest.raises(UserError, match="doc must be a mapping") as caught:
        case_files.read([folder])
    assert caught.value.hint == "its keys: config, doc"
    file.write_text("glyphs: {config: [data=glyphs], doc: ' '}\n")
    with pytest.raises(UserError, match="doc is empty"):
        case_files.read([folder])
    file.unlink()
    with pytest.raises(UserError, match=r"data\.yaml is missing"):
        case_files.read([folder])


def test_an_unknown_case_is_reported_with_the_nearest_name(folder):
    with pytest.raises(UserError) as caught:
        case_files.read([folder / "penaltie.yaml"])
    assert caught.value.hint == "did you mean penalty.yaml?"
    cases = case_files.read([folder, folder / "penalty.yaml"])  # the same file counts once
    assert len(cases) == 1
    with pytest.raises(UserError, match="no case 'penalti'") as caught:
        trainings.chosen(cases, "test", ["penalti"])
    assert caught.value.hint == "did you mean penalty?"
    assert [t.name for t in trainings.chosen(cases, "smoke", ["CAE206"])] == ["penalty.2.s0"]


@pytest.fixture(scope="module")
def all_cases():
    return case_files.read([command.CASES])


def test_every_case_composes_and_no_training_is_in_two_parts(all_cases):
    for case in all_cases:
        training = case.trainings[0]
        options = batch.checked((*training.overrides(Path("/data")), f"seed={training.seed}"))
        experiment.check_early(options)
    by_words = {}
    for training in (t for case in all_cases for t in case.trainings if t.part != "smoke"):
        key = (training.source.name, training.seed, frozenset(training.config), training.corrupt)
        assert by_words.setdefault(key, training.part) == training.part, training.name


def test_there_are_enough_healthy_trainings_and_smoke_needs_no_files(all_cases):
    test = [t for case in all_cases for t in case.trainings if t.part == "test"]
    assert sum(t.case.options.expect == "healthy" for t in test) >= report.MIN_HEALTHY
    smoke = [t for case in all_cases for t in case.trainings if t.part == "smoke"]
    assert smoke and all(t.source.missing(Path("/nowhere")) is None for t in smoke)


# -- corrupted images --------------------------------------------------------------------------------


def corrupted(name, tmp_path, *overrides):
    """The overrides that train with corrupted images, the images, and their statistics."""
    made = corruption.corrupted(
        ("data=glyphs", "data.train=180", "model=wide", *overrides), name, tmp_path / "my images"
    )
    images = data.load(batch.checked(made).data)
    return made, images, experiment.dataset_statistics(images)


def test_split_scale_and_network_of_the_training_stay(tmp_path):
    made, images, _ = corrupted("levels", tmp_path, "data.scale=none", "data.seed=3", "data.size=16")
    assert made[0] == "data=npz" and set(made[2:]) == {
        "data.train=180", "model=wide", "data.scale=none", "data.seed=3",
    }  # fmt: skip
    assert images.shape == (16, 16, 1)  # options of the source itself are applied to the images
    assert len(images.train) == 180 and len(images.validation) == 20 and images.test is None
    assert (round(float(images.train.max())), round(float(images.train.min()))) == (16, 0)


def test_each_corruption_matches_its_description(tmp_path):
    shown = {
        name: corrupted(name, tmp_path, *overrides)[2]
        for name, overrides in {
            "repeats_16": (),
            "nearly_equal": (),
            "bytes": ("data.scale=none",),
            "signed": ("data.scale=none",),
            "noise_uniform": (),
            "noise_gaussian": (),
            "noise_binary": (),
            "flat_0.25": (),
            "leaked_0.5": (),
            "leaked_1": (),
        }.items()
    }
    assert {name.rstrip("0123456789.").rstrip("_") for name in shown} | {"levels"} == set(
        corruption.CORRUPTIONS
    )
    assert shown["repeats_16"].distinct == pytest.approx(16 / 180, abs=1 / 180)
    almost = shown["nearly_equal"]
    assert almost.distinct == 1 and almost.variance < 2e-4 < almost.image_std**2
    assert shown["bytes"].high > 200 and shown["signed"].low < -0.9
    for name in ("noise_uniform", "noise_gaussian", "noise_binary"):
        assert abs(shown[name].correlation) < 0.02, name
    assert shown["flat_0.25"].flat == pytest.approx(0.25, abs=0.08)
    assert shown["leaked_0.5"].repeated == 0.5  # of 20
    assert shown["leaked_1"].repeated == 1


def test_corrupted_images_are_reproducible_and_written_once(tmp_path):
    first = corrupted("flat_0.25", tmp_path)
    [file] = (tmp_path / "my images").iterdir()
    before = file.stat().st_mtime_ns
    again = corrupted("flat_0.25", tmp_path, "seed=3", "data.noise=0.1", "data.scale=minmax")
    assert file.stat().st_mtime_ns == before and again[0][1] == first[0][1]
    file.unlink()
    assert corrupted("flat_0.25", tmp_path)[1].fingerprint() == first[1].fingerprint()
    corrupted("flat_0.25", tmp_path, "data.seed=1")
    assert len(list((tmp_path / "my images").iterdir())) == 2  # other images


def test_a_case_cannot_read_the_environment(tmp_path):
    with pytest.raises(UserError):
        corruption.corrupted(("data=npz", "data.path=${oc.env:HOME}"), "bytes", tmp_path)
    with pytest.raises(UserError) as caught:
        corruption.check_name("nois_uniform", "cases/x.yaml: variants[0].corrupt")
    assert caught.value.hint == "did you mean noise_uniform?" and "x.yaml" in caught.value.where


# -- figures -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("count, of", [(0, 60), (1, 20), (57, 60), (95, 100), (60, 60), (1, 1)])
def test_wilsons_interval_is_what_the_score_test_does_not_reject(count, of):
    def rejects(share):
        spread = math.sqrt(share * (1 - share) / of)
        return abs(count / of - share) > 1.959964 * spread

    kept = [share for share in np.linspace(0, 1, 200_001) if not rejects(share)]
    assert wilson(count, of) == pytest.approx((kept[0], kept[-1]), abs=1e-4)


def test_without_trials_the_interval_is_everything():
    assert wilson(0, 0) == (0, 1)
    assert math.isnan(scoring.rate([]).share)


def faulty(
    name="a", causes=("CAE206",), named=(), findings=None, second_fault=(), fixable=True, **values
):
    return Verdict(
        name, name.split(".")[0], "glyphs", "faulty", causes, second_fault, fixable, named=named,
        findings=named if findings is None else findings, confidence="high" if named else "", **values,
    )  # fmt: skip


def well(name="h", expect="healthy", named=(), **values):
    return Verdict(name, name, "glyphs", expect, (), (), False, named=named, findings=named, **values)


VERDICTS = (
    faulty("a.1", named=("CAE206",)),
    faulty("a.2", named=("CAE208", "CAE206"), failing_criteria=("skill_score",)),
    faulty("a.3"),
    faulty("a.4", undecided=True),
    faulty("b.1", ("CAE301", "CAE302"), named=("CAE302",), findings=("CAE302", "CAE401")),
    faulty("b.2", ("CAE301", "CAE302"), named=("CAE401",), findings=("CAE401", "CAE301"), fixable=False),
    faulty("c.1", ("CAE501",), second_fault=("CAE601",), named=("CAE501", "CAE601")),
    faulty("c.2", ("CAE501",), second_fault=("CAE601",), failed="out of memory"),
    well("h1"),
    well("h2", named=("CAE208",)),
    well("h3", undecided=True, failing_criteria=("gap",)),
    well("e1", "borderline"),
    well("e2", "borderline", named=("CAE206",)),
)


def counted(rate):
    return rate.count, rate.total


def test_counts_of_a_diagnosis():
    own = scoring.diagnosis_scores(VERDICTS)
    assert counted(own.right) == (3, 8)
    assert own.right_anywhere.count == 5 and own.found.count == 5
    assert counted(own.second_fault) == (1, 2)
    assert counted(own.healthy_alarms) == (1, 3)
    assert counted(own.borderline_alarms) == (1, 2)
    assert own.undecided.count == 2 and own.failed.count == 1
    # A training without a diagnosis has no criteria.
    assert counted(own.faulty_failing) == (1, 7)
    assert counted(own.healthy_failing) == (1, 3)


def test_recall_precision_and_what_was_named_instead():
    causes = {c.code: c for c in scoring.cause_scores(VERDICTS)}
    penalty = causes["CAE206"]
    assert counted(penalty.recall) == (1, 4)
    assert counted(penalty.precision) == (1, 2)  # named for e2 as well
    assert penalty.instead == {"CAE208": 1, "none": 1, "undecided": 1}
    # Another accepted cause is right, and no confusion; its case counts under its first code.
    assert counted(causes["CAE301"].recall) == (1, 2)
    assert (causes["CAE302"].recall.total, causes["CAE302"].precision.count) == (0, 1)
    assert counted(causes["CAE208"].precision) == (0, 2)
    assert penalty.fixed is None


def test_a_second_fault_may_show_after_the_first_is_fixed():
    both = faulty("d.1", ("CAE501",), second_fault=("CAE601",), named=("CAE501",))
    assert scoring.diagnosis_scores([both]).second_fault.count == 0
    late = trial("d.1", ("CAE501",), False, False, False, False, 2, later=("CAE601",))
    assert scoring.scores([both], [late]).diagnosis.second_fault.count == 1


def test_the_confusion_counts_every_training_once():
    confusion = scoring.confusion(VERDICTS)
    counts = np.array(confusion.counts)
    assert counts.sum() == len(VERDICTS)
    assert confusion.expected == ("CAE206", "CAE301", "CAE501", "healthy", "borderline")
    assert confusion.named[-3:] == ("none", "undecided", "not diagnosed")
    cell = {
        (e, n): counts[i, j]
        for i, e in enumerate(confusion.expected)
        for j, n in enumerate(confusion.named)
    }
    assert cell["CAE301", "CAE301"] == 1 and cell["CAE301", "CAE401"] == 1
    assert cell["CAE501", "not diagnosed"] == 1 and cell["healthy", "none"] == 1
    assert cell["borderline", "CAE206"] == 1
    unknown = scoring.confusion([faulty("e.1", (), named=("CAE301",)), faulty("e.2", ())])
    assert unknown.expected == ("no rule",) and unknown.named == ("CAE301", "none")


def test_confidence_and_wrong_verdicts():
    calibration = scoring.scores(VERDICTS).calibration
    assert [(c.confidence, *counted(c.right)) for c in calibration] == [
        ("high", 3, 5), ("medium", 0, 0), ("low", 0, 0),
    ]  # fmt: skip
    assert [v.name for v in VERDICTS if v.is_wrong] == ["a.2", "a.3", "a.4", "b.2", "c.2", "h2", "e2"]


def test_a_fixable_training_without_findings_counts_as_not_fixed():
    fixed = trial("a.1", ("CAE206",), True, True, False, False, 1)
    late = trial("a.2", ("CAE208", "CAE206"), False, True, False, True, 2)
    never = trial("b.1", ("CAE302",), False, False, True, True, 3)
    all_scores = scoring.scores(VERDICTS, [fixed, late, never])
    fixes = all_scores.fixes
    # a.1 to a.4, b.1, c.1, c.2; b.2 is not fixable
    assert counted(fixes.first) == (1, 7)
    assert counted(fixes.first_of_one) == (1, 5)
    assert counted(fixes.fixed) == (2, 7)
    assert counted(fixes.fixed_of_treated) == (2, 3)
    [control] = fixes.controls.values()
    assert (control.first.count, *counted(control.fixed)) == (1, 2, 3)
    assert counted(fixes.first_of_treated) == (1, 3)
    assert fixes.trainings == 2
    penalty = next(c for c in all_scores.causes if c.code == "CAE206")
    assert counted(penalty.fixed) == (2, 4)


# -- ablation and other tools -------------------------------------------------------------------------

# A rule that needs each group.
FAULTS = {
    "baselines": "CAE602",
    "training history": "CAE206",
    "dataset": "CAE106",
    "initial state": "CAE209",
    "feature maps": "CAE401",
    "perturbation tests": "CAE502",
    "generalisation gap": "CAE501",
}
GROUPS = {group.name: group for group in ablation.GROUPS}


def codes_of(metrics):
    return {f.code for f in diagnose(metrics, CONFIG).findings if f.severity != "note"}


@pytest.mark.parametrize("group", GROUPS)
def test_a_fault_is_invisible_without_its_metrics_and_only_then(group):
    code = FAULTS[group]
    metrics = CASES[code][0]
    shown = codes_of(metrics)
    assert code in shown
    assert not codes_of(GROUPS[group].without(metrics))
    # No other rule uses the statistics of the images.
    other = "dataset" if group != "dataset" else "feature maps"
    assert codes_of(GROUPS[other].without(metrics)) == shown


@pytest.mark.parametrize("group", GROUPS)
def test_the_healthy_stay_healthy_without_a_group(group):
    assert codes_of(healthy()) == set()
    assert codes_of(GROUPS[group].without(healthy())) == set()


def test_a_training_without_a_diagnosis_stays_without_one():
    failed = faulty("c", failed="no memory")
    one = SimpleNamespace(verdict=failed, result=SimpleNamespace(metrics=None), config={})
    assert set(ablation.verdicts([one])) == set(GROUPS)
    assert all(verdicts == (failed,) for verdicts in ablation.verdicts([one]).values())
    assert all(reports == ((),) for reports in tools.symptoms([one]).values())


def signals(**values):
    """The signals of a healthy training."""
    fell = 0.02 + 0.08 * 0.5 ** np.arange(9)
    shown = tools.Signals(
        train_loss=fell[1:],
        val_loss=fell,
        val_mse=fell / 2,
        variance=0.09,
        gradients=np.tile(np.float32([0.02, 0.05, 0.04]), (8, 1)),
        updates=np.full((8, 3), -2.0, np.float32),
        inactive=0.0,
        input_range=(0.0, 1.0),
        diverged=False,
        config=CONFIG,
    )
    return replace(shown, **values)


def with_rate(rate):
    return {**CONFIG, "optimizer": {"name": "adam", "learning_rate": rate}}


FLAT = np.full(9, 0.1)
SYMPTOMS = [
    ("validation loss", {"val_loss": np.linspace(0.1, 0.2, 9)}, ["loss does not fall"]),
    ("validation loss", {"val_loss": np.r_[0.2, 0.1, 0.05, 0.06, 0.07]}, ["overfitting"]),
    ("validation loss", {"val_loss": np.r_[0.2, np.nan]}, ["not finite"]),
    ("AUTOTRAINER", {"val_loss": np.r_[0.2, np.inf]}, ["exploding gradient"]),
    (
        "AUTOTRAINER",
        {"diverged": True, "train_loss": FLAT[:0], "val_loss": FLAT[:1]},
        ["exploding gradient"],
    ),
    ("AUTOTRAINER", {"val_mse": FLAT, "inactive": 0.8}, ["dead filters"]),
    ("AUTOTRAINER", {"val_mse": FLAT, "gradients": np.float32([[9, 1, 0.1]])}, ["exploding gradient"]),
    ("AUTOTRAINER", {"val_mse": FLAT, "gradients": np.float32([[1e-6, 1, 1]])}, ["vanishing gradient"]),
    ("AUTOTRAINER", {"val_mse": FLAT}, ["slow convergence"]),
    ("AUTOTRAINER", {"val_mse": 0.09 * np.r_[1, 0.2, 0.1, 0.2, 0.1, 0.2, 0.1]}, ["oscillating loss"]),
    ("SageMaker Debugger", {"gradients": np.float32([[1e-8, 1, 1]])}, ["vanishing gradient"]),
    ("SageMaker Debugger", {"inactive": 0.6}, ["dead filters"]),
    ("SageMaker Debugger", {"updates": np.float32([[-12, -2, -2]])}, ["weights do not change"]),
    ("SageMaker Debugger", {"updates": np.float32([[1.5, -2, -2]])}, ["weights change too much"]),
    ("SageMaker Debugger", {"train_loss": FLAT[1:], "val_loss": FLAT}, ["loss does not fall"]),
    ("SageMaker Debugger", {"val_loss": 2 * (0.02 + 0.08 * 0.5 ** np.arange(9))}, ["overfitting"]),
    ("UMLAUT", {"input_range": (0.0, 255.0)}, ["input out of range"]),
    ("UMLAUT", {"config": with_rate(0.1)}, ["learning rate out of range"]),
    ("UMLAUT", {"config": with_rate(1e-8)}, ["learning rate out of range"]),
    ("UMLAUT", {"val_loss": 0.1 + 0.01 * np.arange(9)}, ["overfitting"]),
]
TOOLS = {tool.name: tool for tool in tools.TOOLS}


@pytest.mark.parametrize("tool, values, symptoms", SYMPTOMS)
def test_a_tool_reports_its_symptoms(tool, values, symptoms):
    assert TOOLS[tool].check(signals(**values)) == symptoms


@pytest.mark.parametrize("tool", TOOLS)
def test_a_tool_reports_nothing_for_a_healthy_training(tool):
    assert TOOLS[tool].check(signals()) == []


def test_every_symptom_has_existing_causes():
    known = {rule.code for rule in RULES}
    assert all(codes and set(codes) <= known for codes in tools.SYMPTOMS.values())
    assert {s for _, _, symptoms in SYMPTOMS for s in symptoms} | {"missing activation"} == set(
        tools.SYMPTOMS
    )


def test_signals_are_read_from_the_files_of_a_run(tmp_path):
    run = Run(tmp_path)
    run.write_training({"diverged_at": None})
    names = ("epoch", "train/data_loss", "val/loss", "val/mse")
    rows = [(0, math.nan, 0.3, 0.2), (1, 0.1, 0.12, 0.08), (2, 0.05, 0.07, 0.04)]
    run.write_metrics([dict(zip(names, row, strict=True)) for row in rows])
    arrays = {
        "map_std/encoder_1": np.float32([0.3, 0, 0, 0.2]),
        "map_std/encoder_2": np.float32([0.3, 0.1]),
        "map_std/output": np.float32([0.0]),  # no hidden layer
        "dynamics/gradients": np.float32([[0.1, 0.2], [0.3, 0.4]]),
        "dynamics/updates": np.float32([[-2, -2], [-3, -3]]),
        "batches/input_low": np.array(-0.5),
        "batches/input_high": np.array(2.0),
        "mean_mse": np.float32([0.1, 0.3]),
        "kernel/encoder_1": np.zeros(1, np.float32),
    }
    run.write_arrays(run.arrays, arrays)
    shown = tools.signals(run, CONFIG)
    assert shown.train_loss.tolist() == [0.1, 0.05] and shown.val_loss.tolist() == [0.3, 0.12, 0.07]
    assert shown.accuracy == pytest.approx([1 - 0.08 / 0.2, 1 - 0.04 / 0.2])
    assert shown.inactive == 0.5 and shown.input_range == (-0.5, 2.0) and shown.is_finite
    assert shown.gradients.shape == (2, 2) and shown.updates[-1, 0] == -3
    run.write_training({"diverged_at": 3})
    assert not tools.signals(run, CONFIG).is_finite


def test_a_tool_is_right_where_the_fault_can_have_the_symptom():
    verdicts = (faulty("a", ("CAE207",)), faulty("b", ("CAE501",)), well("h"), well("e", "borderline"))
    reports = [("not finite",), ("dead filters",), ("overfitting",), ()]
    own = tools.scores(verdicts, reports)
    assert (own.right.count, own.found.count, own.right.total) == (1, 2, 2)
    assert (own.healthy_alarms.count, own.borderline_alarms.count) == (1, 0)


# -- fixes -------------------------------------------------------------------------------------------


def test_fixes_and_controls_are_trained_in_step_and_equally_often(monkeypatch, tmp_path):
    """The second fix and random search work, random changes and the one recipe do not."""
    overrides = ("data=glyphs", "optimizer.learning_rate=0.5")
    poor = replace(with_dynamics(early_peak=0.0), layers=(layer(dead=12), layer("output", 1)))
    config = {**CONFIG, "optimizer": {"name": "adam", "learning_rate": 0.5, "clip_norm": None}}
    outcomes = {
        "x.treat_1_s7": poor, "x.treat_2_s7": healthy(),
        "x.random_change_1_s7": poor, "x.random_change_2_s7": poor,
        "x.random_search_1_s7": healthy(), "x.good_practice_1_s7": poor,
    }  # fmt: skip

    def of(run):
        metrics = outcomes[run.folder.name]
        return result_of(run, diagnose(metrics, config), metrics, config)

    monkeypatch.setattr("cae_cli.treatment.arm.result", of)
    trained = []

    class Runner:
        def train(self, wanted):
            trained.append([one.name for one in wanted])
            return [Run(tmp_path / one.name) for one in wanted]

    before = result_of(Run(tmp_path), diagnose(poor, config), poor, config)
    prepared = SimpleNamespace(overrides=overrides, training=SimpleNamespace(seed=7))

    def diagnosed(name, **values):
        verdict = faulty(name, ("CAE207",), named=("CAE207",), **values)
        return SimpleNamespace(verdict=verdict, result=before, prepared=prepared, config=config)

    without_findings = diagnosed("y")
    without_findings.verdict = replace(without_findings.verdict, named=(), findings=())
    [tried] = benchmark.try_fixes(
        [diagnosed("x"), without_findings, diagnosed("z", fixable=False)], Runner(), lambda line: None
    )
    names = ["treat", "random_change", "random_search", "good_practice"]
    assert trained == [[f"x.{n}_1_s7" for n in names], [f"x.{n}_2_s7" for n in names[:2]]]
    assert (tried.name, tried.named) == ("x", ("CAE207",))
    assert (tried.fixes.first, tried.fixes.fixed, tried.fixes.trainings) == (False, True, 2)
    assert tried.fixes.steps[0].startswith("optimizer.learning_rate=0.001 → CAE207, inactive maps")
    assert tried.fixes.steps[-1].endswith("→ healthy")
    outcomes = {name: (c.first, c.fixed, c.trainings) for name, c in tried.controls.items()}
    assert outcomes == {
        "random change": (False, False, 2),
        "random search": (True, True, 1),
        "good practice": (False, False, 1),
    }
    assert list(outcomes) == list(CONTROLS)
    searched = tried.controls["random search"].steps[0].split(" → ")[0].split()
    assert [word.partition("=")[0] for word in searched[:6]] != sorted(searched[:6]) and len(
        searched
    ) == 9
    assert "model=residual" in tried.controls["good practice"].steps[0]


# -- the controls alone ------------------------------------------------------------------------------


@pytest.fixture
def controls_of(monkeypatch, tmp_path, folder):
    """Trains the controls of two faulty trainings; the fixes of one of them took two trainings."""
    (tmp_path / "images.npz").touch()
    poor = replace(with_dynamics(early_peak=0.0), layers=(layer(dead=12), layer("output", 1)))
    names = ["penalty.1.s11", "penalty.1.s10"]
    well = {f"{names[1]}.random_search_2_s10", f"{names[0]}.good_practice_1_s11"}
    clock = SimpleNamespace(now=0.0, trained=[])

    def of(run):
        metrics = healthy() if run.folder.name in well else poor
        return result_of(run, diagnose(metrics, CONFIG), metrics, CONFIG)

    class Runner:
        def train(self, wanted):
            clock.now += 10
            clock.trained += [one.name for one in wanted]
            return [Run(tmp_path / one.name) for one in wanted]

    @contextmanager
    def opened(*_, **__):
        yield Runner()

    def diagnosed(prepared, run):
        name = prepared.training.name
        verdict = faulty(name, ("CAE206",), named=("CAE206",))
        return SimpleNamespace(verdict=verdict, result=of(run), prepared=prepared, config=CONFIG)

    monkeypatch.setattr("cae_cli.treatment.arm.result", of)
    monkeypatch.setattr(batch, "opened", opened)
    monkeypatch.setattr(trainings, "diagnosed", diagnosed)
    monkeypatch.setattr(controls, "GROUP", 1)
    monkeypatch.setattr(controls.time, "monotonic", lambda: clock.now)
    own = replace(
        record.read(record.RECORDED),
        cases=(record.CaseRow("penalty", 2, "CAE206", ""),),
        not_fixed_first=(trial(names[1], ("CAE206",), False, True, False, False, 2),),
        not_treated=(),
    )
    asked = benchmark.Request((folder,), "test", tmp_path, tmp_path / "runs")

    def found(budget=math.inf, recorded=own):
        clock.trained.clear()
        found = controls.run(asked, recorded, [], lambda line: None, budget)
        return found, clock.trained

    return found, names, own


def test_the_controls_alone_get_as_many_trainings_as_the_recorded_fixes(controls_of):
    run, (other, first), _ = controls_of
    found, trained = run()
    assert sorted(trained) == sorted([
        other, f"{other}.random_search_1_s11", f"{other}.good_practice_1_s11",
        first, f"{first}.random_search_1_s10", f"{first}.good_practice_1_s10",
        f"{first}.random_search_2_s10",
    ])  # fmt: skip
    counts = {name: (s.first.count, s.fixed.count, s.fixed.total) for name, s in found.items()}
    assert counts == {"random search": (0, 1, 2), "good practice": (1, 1, 2)}


def test_the_controls_alone_end_in_time_and_leave_out_what_was_not_treated(controls_of):
    run, names, own = controls_of
    found, trained = run(budget=5)
    assert len([name for name in trained if name in names]) == 1
    assert all(one.fixed.total == 1 for one in found.values())
    assert run(recorded=replace(own, not_treated=(names[0],)))[0]["good practice"].fixed.total == 1
    with pytest.raises(UserError, match="no faulty training of the record"):
        run(recorded=replace(own, not_treated=tuple(names)))


def test_controls_that_were_tried_later_say_so_on_the_page(controls_of, tmp_path):
    run, _, own = controls_of
    merged = controls.merged(own, run(budget=5)[0])
    report.write(tmp_path / "results.json", merged)
    assert record.read(tmp_path / "results.json") == merged
    assert list(merged.scores.fixes.controls) == list(CONTROLS)
    text = page.page(merged, None, {})
    assert "one training; on 1 of 138 trainings; measured on 20" in text
    assert "Not tried in this run" in page.page(own, None, {}) and "Not tried in this run" not in text


# -- the page -----------------------------------------------------------------------------------------


FIXED = (trial("a.1", ("CAE206",), True, True, False, False, 1),)


def results(verdicts=VERDICTS, trials=FIXED):
    reasons = {"a": "A penalty | too large.", "b": "Black."}
    return benchmark.Results(
        part="test",
        cases={v.case: SimpleNamespace(reason=reasons.get(v.case, "")) for v in verdicts},
        left_out={"/somewhere/mnist.npz": 4},
        verdicts=tuple(verdicts),
        trials=trials,
        tools={name: tuple(() for _ in verdicts) for name in TOOLS},
        without={name: tuple(verdicts) for name in GROUPS},
    )


def recorded(*verdicts, trials=FIXED):
    return record.record(
        results(verdicts or VERDICTS, trials), "python -m benchmarks.faults --part test"
    )


def goals(*verdicts):
    return {g.name: g for g in report.goals(recorded(*verdicts).scores)}


def section(text, title):
    return text[text.index(f"## {title}\n") :].partition("\n## ")[0]


def test_each_number_of_the_matrix_leads_to_its_cases():
    part = cells.inside(record.read(record.RECORDED))
    counts = {
        (row, column): count
        for row, own in zip(part.confusion.expected, part.confusion.counts, strict=True)
        for column, count in zip(part.confusion.named, own, strict=True)
        if count
    }
    assert set(part.behind) == set(counts)
    for cell, behind in part.behind.items():
        right = [int(text.split(" of ")[0]) for _, text in behind if " trainings. Accepted" in text]
        assert sum(right) + len(behind) - len(right) == counts[cell], cell
    text = cells.html([part])
    links, ids = re.findall(r'href="#(inside-[^"]+)"', text), re.findall(r'details id="([^"]+)"', text)
    assert links == ids and len(links) == len(set(links)) == len(counts)


def test_a_verdict_stands_in_the_cell_where_the_matrix_counts_it():
    known = [(v.name, v) for v in VERDICTS]
    part = cells.of_verdicts("x", "X", "", known)
    for (row, column), behind in part.behind.items():
        at = part.confusion.expected.index(row), part.confusion.named.index(column)
        assert part.confusion.counts[at[0]][at[1]] == len(behind)
    assert sum(map(len, part.behind.values())) == len(known)


def test_goals_are_met_missed_or_left_open():
    many = goals(*(well(f"h{i}") for i in range(60)), faulty("a.1", named=("CAE206",)))
    assert many["healthy, every criterion met: alarms"].met is True
    assert many["faulty: an accepted cause is named first"].met is True
    assert many["fixable: fixed by the first fix"].met is True
    assert many["treated: fixed by random change, all trainings"].met is True
    assert "borderline: alarms" not in many  # there are none
    assert goals(well())["healthy, every criterion met: alarms"].met is None  # too few
    own = goals()
    assert own["healthy, every criterion met: alarms"].met is False
    assert own["borderline, every criterion met: alarms"].met is False
    assert own["fixable: fixed by one of the fixes"].met is False


def test_a_share_close_to_its_goal_has_a_decimal():
    missed = report.Goal("", scoring.rate_of(117, 138), "at least 85 %", 0.85)
    assert missed.share == "84.8 % (77.9 to 89.8)"
    assert report.Goal("", scoring.rate_of(117, 138), "at least 95 %", 0.95).share == "85 % (78 to 90)"


def test_an_alarm_where_a_criterion_fails_is_counted_separately():
    failing = replace(well("h1", named=("CAE301",)), failing_criteria=("explained",))
    own = goals(well("h0"), failing)
    assert counted(own["healthy: alarms"].rate) == (1, 2)
    assert counted(own["healthy, every criterion met: alarms"].rate) == (0, 1)


def test_the_page_has_figures_without_the_cases_that_rules_were_adjusted_for():
    own = recorded(well("h0"), faulty("a.1", named=("CAE206",), adjusted=True), faulty("b.1"))
    text = section(page.page(own, None, {}), "Without the cases that rules were adjusted for")
    assert "| faulty: an accepted cause is named first | 0 of 1 |" in text


def test_the_page_lists_every_wrong_verdict_and_no_path_of_this_machine(tmp_path):
    page.write(recorded(), None, tmp_path / "docs" / "page.md")
    text = (tmp_path / "docs" / "page.md").read_text()
    wrong = section(text, "Wrong verdicts")
    for name in ("a.2", "a.3", "a.4", "b.2", "c.2", "h2", "e2"):
        assert f"| {name} |" in wrong
    assert "CAE208, CAE206; an accepted cause is among the other findings" in wrong
    assert "not diagnosed: out of memory" in wrong
    assert "A penalty \\| too large." in section(text, "Cases")  # a | stays within its cell
    assert "4 trainings are left out because `mnist.npz`" in text and "/somewhere" not in text
    assert "3 of 8 | 38 % (14 to 69) | at least 95 % | **missed**" in text
    assert "Not treated, because nothing was found: a.2, a.3" in text
    assert (tmp_path / "docs" / "images" / page.PICTURE).read_bytes().startswith(b"\x89PNG")
    for line in text.splitlines():
        assert "nan" not in line.split() and "None" not in line.split(), line


def scaled(value, offset):
    """A plain record in which every rate is another one."""
    if isinstance(value, dict):
        if value.keys() == {"count", "total", "low", "high"}:
            low, high = wilson(value["count"] + offset, value["total"] + 3 * offset)
            return {
                "count": value["count"] + offset,
                "total": value["total"] + 3 * offset,
                "low": low,
                "high": high,
            }
        return {key: scaled(item, offset) for key, item in value.items()}
    return [scaled(item, offset) for item in value] if isinstance(value, list) else value


def test_the_page_generator_holds_no_result():
    """With other scores every figure of the page is another one."""
    history = json.loads(record.HISTORY.read_text())
    own = plain(record.read(record.RECORDED))
    pages = []
    for offset in (1000, 20_000):
        other = {
            key: [{**e, "figures": [{**f, "count": f["count"] + offset, "total": f["total"] + 3 * offset}
                                    for f in e["figures"]]} for e in entries]
            for key, entries in history.items()
        }  # fmt: skip
        shown = record.restored(record.Record, scaled(own, offset))
        pages.append(page.page(shown, replace(shown, part="large"), other))
    for pattern in (r"\b\d+ of \d+\b", r"[\d.]+ % \([\d.]+ to [\d.]+\)"):
        first, second = (set(re.findall(pattern, text)) for text in pages)
        assert first and second and not first & second, first & second


def test_the_page_in_docs_shows_the_recorded_results():
    shown = page.page(*page.recorded(), json.loads(record.HISTORY.read_text()))
    assert page.PAGE.read_text(encoding="utf-8") == shown, "run make docs"


def test_the_readme_has_the_recorded_figures():
    scores = record.read(record.RECORDED).scores
    text = " ".join((page.PAGE.parents[1] / "README.md").read_text(encoding="utf-8").split())
    right, alarms = scores.diagnosis.right, scores.diagnosis.healthy_alarms
    assert f"a right cause was named first in {right.count} of {right.total}," in text
    assert f"{alarms.count} of {alarms.total} healthy trainings raised an alarm" in text
    first, fixed = scores.fixes.first, scores.fixes.fixed
    assert f"repaired {fixed.count} of {fixed.total} faulty trainings, {first.count} of them" in text


def test_results_are_written_as_json_and_read_again(tmp_path):
    own = recorded(trials=None)
    report.write(tmp_path / "results.json", own, results(trials=None))
    content = json.loads((tmp_path / "results.json").read_text())
    assert content["schema"] == record.SCHEMA_VERSION and content["trials"] is None
    assert content["record"]["scores"]["fixes"] is None
    assert [v["name"] for v in content["verdicts"]] == [v.name for v in VERDICTS]
    assert record.read(tmp_path / "results.json") == own
    short = report.as_plain(own)
    assert short["record"]["scores"]["diagnosis"]["right"]["count"] == 3 and "verdicts" not in short
    assert short["record"]["tools"]["always healthy"]["found"]["count"] == 0


def test_the_screen_shows_figures_causes_tools_and_wrong_verdicts():
    text = "\n".join(str(part) for part in report.summary(recorded()))
    assert "faulty: an accepted cause is named first" in text and "AUTOTRAINER" in text
    assert "7 of 13 verdicts are wrong:" in text
    assert "a.2 (glyphs): expected CAE206, got CAE208, CAE206" in text


# -- the command --------------------------------------------------------------------------------------


def outcome(monkeypatch, tmp_path, verdicts, *arguments):
    monkeypatch.setattr(benchmark, "run", lambda request, command, notify: results(verdicts, None))
    monkeypatch.chdir(tmp_path)
    return command.main([str(tmp_path), *arguments])


def test_smoke_fails_because_of_a_wrong_verdict_and_nothing_else(monkeypatch, tmp_path, capsys):
    good = (faulty("a.1", named=("CAE206",)), well())
    for bad in (faulty("a.2", named=("CAE208",)), faulty("a.2"), well("h2", named=("CAE208",)),
                well("e", "borderline", named=("CAE208",))):  # fmt: skip
        assert outcome(monkeypatch, tmp_path, (*good, bad), "--part", "smoke") == 1
        assert outcome(monkeypatch, tmp_path, (*good, bad), "--part", "test") == 0
    assert outcome(monkeypatch, tmp_path, good, "--part", "smoke") == 0
    assert (tmp_path / "runs" / "faults" / "results_smoke.json").is_file()
    capsys.readouterr()
    shown = published(monkeypatch, tmp_path)
    outcome(monkeypatch, tmp_path, good, "--json", "--record")
    assert json.loads(capsys.readouterr().out)["record"]["part"] == "test"
    assert str(tmp_path) not in shown.read_text()
    assert str(tmp_path) not in (tmp_path / "test.json").read_text()
    assert "## Larger images" not in shown.read_text()


def published(monkeypatch, tmp_path):
    """The page that --record generates, which reads and writes its files in tmp_path."""
    files = {part: tmp_path / f"{part}.json" for part in ("test", "large")}
    shown, write = tmp_path / "docs" / "page.md", page.write
    monkeypatch.setattr(command, "PUBLISHED", files)
    monkeypatch.setattr(page, "RECORDED", files["test"])
    monkeypatch.setattr(page, "LARGE", files["large"])
    monkeypatch.setattr(page, "write", lambda test, large: write(test, large, shown))
    return shown


def test_diagnoses_that_are_recorded_alone_keep_the_fixes_with_their_date(monkeypatch, tmp_path):
    shown = published(monkeypatch, tmp_path)
    first = recorded()
    report.write(tmp_path / "test.json", replace(first, date="2026-01-02"))
    for _ in range(2):  # the date stays that of the fixes
        outcome(monkeypatch, tmp_path, (faulty("a.1", named=("CAE206",)), well()), "--record")
    after = record.read(tmp_path / "test.json")
    assert after.trainings == 2 and after.scores.diagnosis.right.total == 1
    measured = f"2026-01-02 with {first.code}"
    assert after.scores.fixes == replace(first.scores.fixes, measured=measured)
    assert after.not_fixed_first == first.not_fixed_first and after.not_treated == first.not_treated
    (cause,) = after.scores.causes
    assert cause.fixed == next(c.fixed for c in first.scores.causes if c.code == "CAE206")
    assert f"tried on {measured}" in " ".join(section(shown.read_text(), "Fixes").split())


def test_the_part_large_is_recorded_beside_the_others(monkeypatch, tmp_path, capsys):
    shown = published(monkeypatch, tmp_path)
    report.write(tmp_path / "test.json", recorded())
    verdicts = (faulty("a.1", named=("CAE206",)), well("h2", named=("CAE208",)))
    own = replace(results(verdicts, None), part="large")
    monkeypatch.setattr(benchmark, "run", lambda request, command, notify: own)
    monkeypatch.chdir(tmp_path)
    assert command.main([str(tmp_path), "--part", "large", "--record"]) == 0
    text = section(shown.read_text(), "Larger images")
    assert "| healthy: alarms | 1 of 1 |" in text and "| h2 |" in text and "| a.1 |" not in text
    assert record.read(tmp_path / "test.json") == recorded()
    with pytest.raises(UserError, match="--record needs --part test or large"):
        command.main([str(tmp_path), "--part", "tuning", "--record"])


def test_the_help_lists_the_corruptions(capsys):
    assert command.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"  {name} " in text for name in corruption.names())
    assert max(map(len, text.splitlines())) <= 80


def test_wrong_arguments_are_reported_without_a_stack_trace(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    for arguments in (["--part", "tests"], ["--jobs", "0"], ["--nothing"], ["--budget", "2"]):
        assert cli.run(arguments, command.main) == 2
        shown = capsys.readouterr().err
        assert shown.startswith("error: ") and "python -m benchmarks.faults --help" in shown
    assert cli.run(["--budget", "2h"], command.main) == 2
    assert "--budget needs --controls-only" in capsys.readouterr().err
    assert cli.run([str(tmp_path / "nowhere")], command.main) == 2
    assert "the case file does not exist" in capsys.readouterr().err


def test_without_any_images_there_is_nothing_to_run(folder, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="no training has its images"):
        command.main([str(folder), "--data", "nowhere"])
