"""Cases, spoiled images, figures, tools and pages of the clinic; nothing is trained."""

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import faults
from benchmarks.faults import __main__ as command
from benchmarks.faults import (
    ablation,
    case_files,
    corruption,
    page,
    report,
    scoring,
    tools,
)
from benchmarks.faults import (
    case as case_module,
)
from benchmarks.faults import (
    trainings as known_trainings,
)
from benchmarks.faults.scoring import Judged, Treated
from cae_cli import data, experiment
from cae_cli.diagnosis import RULES, diagnose
from cae_cli.errors import UserError
from cae_cli.runs.folder import Run
from cae_cli.statistics.interval import NORMAL, wilson
from cae_cli.sweep import batch
from cae_cli.treatment.arm import judged as result_of
from tests.test_diagnosis import CASES, CONFIG, healthy, layer, with_dynamics

SOURCES = """\
glyphs: {config: [data=glyphs, data.train=128, training.epochs=2], doc: Letters.}
files: {config: [data=npz, "data.path={data}/images.npz"], doc: Images in a file.}
"""
CASE = """\
# Weights shrink to nothing,
# whatever the images.
expect: sick
causes: [CAE206]
config: [regularization=l2]
variants:
  - {part: tuning, data: glyphs, seeds: [0], config: [regularization.l2.strength=0.1]}
  - {part: test, data: files, seeds: [10, 11], config: [regularization.l2.strength=0.3]}
  - {part: smoke, data: glyphs, seeds: [0], corrupt: repeats_16, config: ["model.filters=[8,8]"]}
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "cases").mkdir()
    (tmp_path / "data.yaml").write_text(SOURCES)
    (tmp_path / "cases" / "penalty.yaml").write_text(CASE)
    return tmp_path / "cases"


# -- cases -------------------------------------------------------------------------------------------


def test_a_case_is_read_to_the_letter(folder):
    [case] = case_files.read([folder])
    assert case.name == "penalty"
    assert case.why == "Weights shrink to nothing, whatever the images."
    assert (case.expect, case.causes, case.also, case.treatable) == ("sick", ("CAE206",), (), True)
    assert [t.name for t in case.trainings] == [
        "penalty.0.s0", "penalty.1.s10", "penalty.1.s11", "penalty.2.s0",
    ]  # fmt: skip
    tuning, test, _, smoke = case.trainings
    assert tuning.words(Path("/data")) == (
        "data=glyphs", "data.train=128", "training.epochs=2", "regularization=l2",
        "regularization.l2.strength=0.1",
    )  # fmt: skip
    assert test.words(Path("/my data"))[1] == "data.path='/my data/images.npz'"
    assert batch.checked(test.words(Path("/it's, [here]"))).data.path == "/it's, [here]/images.npz"
    assert smoke.corrupt == "repeats_16" and smoke.case is case


def test_images_that_are_not_there_are_told(folder, tmp_path):
    trainings = [t for case in case_files.read([folder]) for t in case.trainings]
    there, left_out = known_trainings.with_data(trainings, tmp_path)
    assert [t.name for t in there] == ["penalty.0.s0", "penalty.2.s0"]
    assert left_out == {str(tmp_path / "images.npz"): 2}
    (tmp_path / "images.npz").touch()
    assert known_trainings.with_data(trainings, tmp_path) == (trainings, {})


def test_a_later_word_takes_the_place_of_an_earlier_one():
    told = case_module.joined(["model=wide", "loss=ssim"], ["loss.window=7"], ["loss=mse", "seed=1"])
    assert told == ("model=wide", "loss.window=7", "loss=mse", "seed=1")


MISTAKES = {
    "a misspelt key": ("expect: sick", "expct: sick", "expct", "did you mean expect?"),
    "a misspelt value": ("expect: sick", "expect: sik", "expect", "did you mean sick?"),
    "a code that is none": ("CAE206", "CAE2O6", "causes", "did you mean CAE206?"),
    "no cause": ("causes: [CAE206]", "causes: []", "causes", None),
    "no list": ("causes: [CAE206]", "causes: CAE206", "causes", "[CAE101]"),
    "a code twice": ("[CAE206]", "[CAE206, CAE206]", "causes", None),
    "a cause of the healthy": ("expect: sick", "expect: healthy", "causes", None),
    "treatable in words": ("config: [reg", "treatable: maybe\nconfig: [reg", "treatable", None),
    "a part that is none": ("part: test", "part: tst", "variants[1].part", "did you mean test?"),
    "images that are none": ("data: files", "data: file", "variants[1].data", "did you mean files?"),
    "a misspelt key of a variant": ("seeds: [10", "sedes: [10", "variants[1].sedes", "mean seeds?"),
    "no seeds": ("seeds: [10, 11]", "seeds: []", "variants[1].seeds", "[0, 1, 2]"),
    "a seed twice": ("seeds: [10, 11]", "seeds: [10, 10]", "variants[1].seeds", None),
    "seeds that are none": ("seeds: [10, 11]", "seeds: [-1]", "variants[1].seeds", None),
    "true for a seed": ("seeds: [10, 11]", "seeds: [true]", "variants[1].seeds", None),
    "a seed among the words": ("[regularization=l2]", "[seed=3]", "config", "seeds: [0, 1]"),
    "images among the words": ("[regularization=l2]", "[data=mnist]", "config", "of a variant"),
    "Hydra's own": ("[regularization=l2]", "[hydra.run.dir=x]", "config", "runs the trainings"),
    "no override": ("[regularization=l2]", "[regularization]", "config", "key=value"),
    "a mapping": ("[regularization=l2]", "[{a: b}]", "config", "key=value"),
    "a word twice": ("[regularization=l2]", "[model=wide, model=deep]", "config", None),
    "a corruption that is none": ("repeats_16", "repeets_16", "variants[2].corrupt", "repeats_N"),
    "a corruption without a number": ("repeats_16", "duplicates", "variants[2].corrupt", "repeats_N"),
    "a corruption too many": ("repeats_16", "repeats_0", "variants[2].corrupt", "repeats_16"),
    "a share above all": ("repeats_16", "flat_1.5", "variants[2].corrupt", "flat_0.3"),
    "no reason": ("# Weights shrink to nothing,\n# whatever the images.\n", "", "", "its first line"),
    "a key twice": ("expect: sick", "expect: sick\nexpect: border", ":4", None),
    "a tag": ("expect: sick", "expect: !!python/name:os.system x", ":3", "no tag is needed"),
    "no YAML": ("causes: [CAE206]", "causes: [CAE206", "", None),
    "no variants": (CASE[CASE.index("variants") :], "variants: []\n", "variants", None),
    "no mapping": (CASE, "# Why.\n- a\n", "", None),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_with_file_key_and_hint(folder, name):
    old, new, where, hint = MISTAKES[name]
    assert old in CASE
    (folder / "penalty.yaml").write_text(CASE.replace(old, new, 1))
    with pytest.raises(UserError) as caught:
        case_files.read([folder])
    assert str(folder / "penalty.yaml") in caught.value.where
    assert caught.value.where.endswith(where)
    assert hint is None or hint in caught.value.hint


def test_no_training_is_in_two_parts(folder):
    twice = (
        CASE + "  - {part: test, data: glyphs, seeds: [0], config: [regularization.l2.strength=0.1]}\n"
    )
    (folder / "penalty.yaml").write_text(twice)
    with pytest.raises(UserError, match="variants 0 and 3 are the same training"):
        case_files.read([folder])


def test_sources_are_read_as_strictly(folder):
    file = folder.parent / "data.yaml"
    file.write_text("glyphs: {config: [data=glyphs], dok: x}\n")
    with pytest.raises(UserError, match="there is no key 'dok'") as caught:
        case_files.read([folder])
    assert caught.value.hint == "did you mean doc?"
    file.write_text("glyphs: {config: [data.train=3], doc: x}\n")
    with pytest.raises(UserError, match="must choose a source"):
        case_files.read([folder])
    file.unlink()
    with pytest.raises(UserError, match=r"data\.yaml is missing"):
        case_files.read([folder])


def test_a_case_that_is_not_there_gets_the_nearest_name(folder):
    with pytest.raises(UserError) as caught:
        case_files.read([folder / "penaltie.yaml"])
    assert caught.value.hint == "did you mean penalty.yaml?"
    trainings = case_files.read([folder, folder / "penalty.yaml"])  # the same one twice is one
    assert len(trainings) == 1
    with pytest.raises(UserError, match="no case 'penalti'") as caught:
        known_trainings.chosen(trainings, "test", ["penalti"])
    assert caught.value.hint == "did you mean penalty?"
    assert [t.name for t in known_trainings.chosen(trainings, "smoke", ["CAE206"])] == ["penalty.2.s0"]


@pytest.fixture(scope="module")
def ours():
    if not command.CASES.is_dir():
        pytest.skip("an installed package has no cases")
    return case_files.read([command.CASES])


def test_every_case_of_ours_composes_and_the_parts_are_apart(ours):
    for case in ours:
        training = case.trainings[0]
        options = batch.checked((*training.words(Path("/data")), f"seed={training.seed}"))
        experiment.check_early(options)
    by_words = {}
    for training in (t for case in ours for t in case.trainings if t.part != "smoke"):
        key = (training.source.name, training.seed, frozenset(training.config), training.corrupt)
        assert by_words.setdefault(key, training.part) == training.part, training.name


def test_the_figures_of_ours_rest_on_enough_patients(ours):
    test = [t for case in ours for t in case.trainings if t.part == "test"]
    assert sum(t.case.expect == "healthy" for t in test) >= report.FEWEST_HEALTHY
    smoke = [t for case in ours for t in case.trainings if t.part == "smoke"]
    assert smoke and all(t.source.missing(Path("/nowhere")) is None for t in smoke)


# -- spoiled images ----------------------------------------------------------------------------------


def spoiled(name, tmp_path, *words):
    """The words, and the images that they lead to."""
    made = corruption.corrupted(
        ("data=glyphs", "data.train=180", "model=wide", *words), name, tmp_path / "my images"
    )
    images = data.load(batch.checked(made).data)
    return made, images, experiment.look_at(images)


def test_the_patients_own_split_scale_and_network_stay(tmp_path):
    made, images, _ = spoiled("words", tmp_path, "data.scale=none", "data.seed=3", "data.size=16")
    assert made[0] == "data=npz" and set(made[2:]) == {
        "data.train=180", "model=wide", "data.scale=none", "data.seed=3",
    }  # fmt: skip
    assert images.shape == (16, 16, 1)  # what a source has of its own is in the images
    assert len(images.train) == 180 and len(images.validation) == 20 and images.test is None
    assert (round(float(images.train.max())), round(float(images.train.min()))) == (16, 0)


def test_each_corruption_does_what_it_says(tmp_path):
    seen = {
        name: spoiled(name, tmp_path, *words)[2]
        for name, words in {
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
    assert {name.rstrip("0123456789.").rstrip("_") for name in seen} | {"words"} == set(
        corruption.CORRUPTIONS
    )
    assert seen["repeats_16"].distinct == pytest.approx(16 / 180, abs=1 / 180)
    almost = seen["nearly_equal"]
    assert almost.distinct == 1 and almost.variance < 2e-4 < almost.image_std**2
    assert seen["bytes"].high > 200 and seen["signed"].low < -0.9
    for name in ("noise_uniform", "noise_gaussian", "noise_binary"):
        assert abs(seen[name].correlation) < 0.02, name
    assert seen["flat_0.25"].flat == pytest.approx(0.25, abs=0.08)
    assert seen["leaked_0.5"].repeated == 0.5  # of 20
    assert seen["leaked_1"].repeated == 1


def test_spoiled_images_are_the_same_again_and_written_once(tmp_path):
    first = spoiled("flat_0.25", tmp_path)
    [file] = (tmp_path / "my images").iterdir()
    before = file.stat().st_mtime_ns
    again = spoiled("flat_0.25", tmp_path, "seed=3", "data.noise=0.1", "data.scale=minmax")
    assert file.stat().st_mtime_ns == before and again[0][1] == first[0][1]
    file.unlink()
    assert spoiled("flat_0.25", tmp_path)[1].fingerprint() == first[1].fingerprint()
    spoiled("flat_0.25", tmp_path, "data.seed=1")
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
        return abs(count / of - share) > NORMAL * spread

    kept = [share for share in np.linspace(0, 1, 200_001) if not rejects(share)]
    assert wilson(count, of) == pytest.approx((kept[0], kept[-1]), abs=1e-4)


def test_of_nothing_nothing_is_known():
    assert wilson(0, 0) == (0, 1)
    assert math.isnan(scoring.rate([]).share)


def sick(name="a", causes=("CAE206",), named=(), found=None, **values):
    return Judged(
        name, name.split(".")[0], "glyphs", "sick", causes, values.pop("also", ()),
        values.pop("treatable", True), named=named, found=named if found is None else found,
        confidence="high" if named else "", **values,
    )  # fmt: skip


def well(name="h", expect="healthy", named=(), **values):
    return Judged(name, name, "glyphs", expect, (), (), False, named=named, found=named, **values)


EXAMINED = (
    sick("a.1", named=("CAE206",)),
    sick("a.2", named=("CAE208", "CAE206"), amiss=("skill_score",)),
    sick("a.3"),
    sick("a.4", undecided=True),
    sick("b.1", ("CAE301", "CAE302"), named=("CAE302",), found=("CAE302", "CAE401")),
    sick("b.2", ("CAE301", "CAE302"), named=("CAE401",), found=("CAE401", "CAE301"), treatable=False),
    sick("c.1", ("CAE501",), also=("CAE601",), named=("CAE501", "CAE601")),
    sick("c.2", ("CAE501",), also=("CAE601",), failed="out of memory"),
    well("h1"),
    well("h2", named=("CAE208",)),
    well("h3", undecided=True, amiss=("gap",)),
    well("e1", "border"),
    well("e2", "border", named=("CAE206",)),
)


def test_counts_of_a_diagnosis():
    told = scoring.diagnosing(EXAMINED)
    assert (told.right.count, told.right.of) == (3, 8)
    assert told.right_anywhere.count == 5 and told.found.count == 5
    assert (told.second.count, told.second.of) == (1, 2)
    assert (told.false_alarms.count, told.false_alarms.of) == (1, 3)
    assert (told.border_alarms.count, told.border_alarms.of) == (1, 2)
    assert told.unsure.count == 2 and told.failed.count == 1
    # What could not be judged has no criteria.
    assert (told.amiss_sick.count, told.amiss_sick.of) == (1, 7)
    assert (told.amiss_healthy.count, told.amiss_healthy.of) == (1, 3)


def test_recall_precision_and_what_was_said_instead():
    told = {c.code: c for c in scoring.per_cause(EXAMINED)}
    penalty = told["CAE206"]
    assert (penalty.recall.count, penalty.recall.of) == (1, 4)
    assert (penalty.precision.count, penalty.precision.of) == (1, 2)  # named of e2 as well
    assert penalty.instead == {"CAE208": 1, "none": 1, "cannot tell": 1}
    # Another right cause is right, and no confusion; its case is counted under its first code.
    assert (told["CAE301"].recall.count, told["CAE301"].recall.of) == (1, 2)
    assert (told["CAE302"].recall.of, told["CAE302"].precision.count) == (0, 1)
    assert (told["CAE208"].precision.count, told["CAE208"].precision.of) == (0, 2)
    assert penalty.cured is None


def test_a_second_fault_may_show_after_the_first_is_cured():
    both = sick("d.1", ("CAE501",), also=("CAE601",), named=("CAE501",))
    assert scoring.diagnosing([both]).second.count == 0
    late = Treated("d.1", False, False, False, False, 2, 2, later=("CAE601",))
    assert scoring.scores([both], [late]).diagnosing.second.count == 1


def test_the_confusion_counts_everybody_once():
    told = scoring.confusion(EXAMINED)
    counts = np.array(told.counts)
    assert counts.sum() == len(EXAMINED)
    assert told.expected == ("CAE206", "CAE301", "CAE501", "healthy", "border")
    assert told.named[-3:] == ("none", "cannot tell", "not judged")
    cell = {(e, n): counts[i, j] for i, e in enumerate(told.expected) for j, n in enumerate(told.named)}
    assert cell["CAE301", "CAE301"] == 1 and cell["CAE301", "CAE401"] == 1
    assert cell["CAE501", "not judged"] == 1 and cell["healthy", "none"] == 1
    assert cell["border", "CAE206"] == 1


def test_confidence_and_the_list_of_the_wrong_ones():
    told = scoring.scores(EXAMINED)
    assert [(c.confidence, c.right.count, c.right.of) for c in told.calibration] == [
        ("high", 3, 5), ("medium", 0, 0), ("low", 0, 0),
    ]  # fmt: skip
    assert [p.name for p in told.wrong] == ["a.2", "a.3", "a.4", "b.2", "c.2", "h2", "e2"]


def test_a_treatable_patient_who_was_not_found_is_not_cured():
    cured = Treated("a.1", True, True, False, False, 1, 1)
    late = Treated("a.2", False, True, False, True, 2, 2)
    never = Treated("b.1", False, False, True, True, 3, 3)
    told = scoring.scores(EXAMINED, [cured, late, never])
    cures = told.cures
    # a.1 to a.4, b.1, c.1, c.2; b.2 cannot be treated
    assert (cures.first.count, cures.first.of) == (1, 7)
    assert (cures.cured.count, cures.cured.of) == (2, 7)
    assert (cures.cured_of_treated.count, cures.cured_of_treated.of) == (2, 3)
    assert (cures.control_first.count, cures.control.count, cures.control.of) == (1, 2, 3)
    assert cures.trainings == 2
    penalty = next(c for c in told.causes if c.code == "CAE206")
    assert (penalty.cured.count, penalty.cured.of) == (2, 4)


# -- with less, and by others -------------------------------------------------------------------------

# A rule that rests on each group.
FAULTS = {
    "anchors": "CAE602",
    "history": "CAE206",
    "data": "CAE106",
    "beginning": "CAE209",
    "maps": "CAE401",
    "tests": "CAE502",
    "gap": "CAE501",
}
GROUPS = {group.name: group for group in ablation.GROUPS}


def found(metrics):
    return {f.code for f in diagnose(metrics, CONFIG).findings if f.severity != "note"}


@pytest.mark.parametrize("group", GROUPS)
def test_a_fault_is_invisible_without_its_measures_and_only_then(group):
    code = FAULTS[group]
    metrics = CASES[code][0]
    shown = found(metrics)
    assert code in shown
    assert not found(GROUPS[group].without(metrics))
    # Of the images themselves nobody else says anything.
    other = "data" if group != "data" else "maps"
    assert found(GROUPS[other].without(metrics)) == shown


@pytest.mark.parametrize("group", GROUPS)
def test_the_healthy_stay_healthy_without_a_group(group):
    assert found(healthy()) == set()
    assert found(GROUPS[group].without(healthy())) == set()


def test_what_could_not_be_judged_is_not_judged_with_less():
    failed = sick("c", failed="no memory")
    one = SimpleNamespace(judged=failed, result=SimpleNamespace(metrics=None), config={})
    assert set(ablation.all_judged([one])) == set(GROUPS)
    assert all(judged == (failed,) for judged in ablation.all_judged([one]).values())
    assert all(guesses == (tools.Guess(()),) for guesses in tools.all_guesses([one]).values())


def signals(**values):
    """What a healthy training shows."""
    fell = 0.02 + 0.08 * 0.5 ** np.arange(9)
    shown = tools.Signals(
        train_loss=fell[1:],
        val_loss=fell,
        val_mse=fell / 2,
        variance=0.09,
        gradients=np.tile(np.float32([0.02, 0.05, 0.04]), (8, 1)),
        updates=np.full((8, 3), -2.0, np.float32),
        dead=0.0,
        input_range=(0.0, 1.0),
        diverged=False,
        config=CONFIG,
    )
    return replace(shown, **values)


def with_rate(rate):
    return {**CONFIG, "optimizer": {"name": "adam", "learning_rate": rate}}


FLAT = np.full(9, 0.1)
SEEN = [
    ("validation loss", {"val_loss": np.linspace(0.1, 0.2, 9)}, ["loss does not fall"]),
    ("validation loss", {"val_loss": np.r_[0.2, 0.1, 0.05, 0.06, 0.07]}, ["overfitting"]),
    ("validation loss", {"val_loss": np.r_[0.2, np.nan]}, ["not finite"]),
    ("AUTOTRAINER", {"val_loss": np.r_[0.2, np.inf]}, ["exploding gradient"]),
    (
        "AUTOTRAINER",
        {"diverged": True, "train_loss": FLAT[:0], "val_loss": FLAT[:1]},
        ["exploding gradient"],
    ),
    ("AUTOTRAINER", {"val_mse": FLAT, "dead": 0.8}, ["dead filters"]),
    ("AUTOTRAINER", {"val_mse": FLAT, "gradients": np.float32([[9, 1, 0.1]])}, ["exploding gradient"]),
    ("AUTOTRAINER", {"val_mse": FLAT, "gradients": np.float32([[1e-6, 1, 1]])}, ["vanishing gradient"]),
    ("AUTOTRAINER", {"val_mse": FLAT}, ["slow convergence"]),
    ("AUTOTRAINER", {"val_mse": 0.09 * np.r_[1, 0.2, 0.1, 0.2, 0.1, 0.2, 0.1]}, ["oscillating loss"]),
    ("SageMaker Debugger", {"gradients": np.float32([[1e-8, 1, 1]])}, ["vanishing gradient"]),
    ("SageMaker Debugger", {"dead": 0.6}, ["dead filters"]),
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


@pytest.mark.parametrize("tool, values, symptoms", SEEN)
def test_a_tool_finds_what_it_looks_for(tool, values, symptoms):
    assert TOOLS[tool].look(signals(**values)) == symptoms


@pytest.mark.parametrize("tool", TOOLS)
def test_a_tool_says_nothing_of_the_healthy(tool):
    assert TOOLS[tool].look(signals()) == []


def test_every_symptom_comes_from_causes_that_there_are():
    known = {rule.code for rule in RULES}
    assert all(codes and set(codes) <= known for codes in tools.SYMPTOMS.values())
    assert {s for _, _, symptoms in SEEN for s in symptoms} | {"missing activation"} == set(
        tools.SYMPTOMS
    )


def test_the_files_of_a_run_show_what_tools_look_at(tmp_path):
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
    seen = tools.signals(run, CONFIG)
    assert seen.train_loss.tolist() == [0.1, 0.05] and seen.val_loss.tolist() == [0.3, 0.12, 0.07]
    assert seen.accuracy == pytest.approx([1 - 0.08 / 0.2, 1 - 0.04 / 0.2])
    assert seen.dead == 0.5 and seen.input_range == (-0.5, 2.0) and seen.is_finite
    assert seen.gradients.shape == (2, 2) and seen.updates[-1, 0] == -3
    run.write_training({"diverged_at": 3})
    assert not tools.signals(run, CONFIG).is_finite


def test_a_tool_is_right_where_the_fault_can_have_the_symptom():
    examined = (sick("a", ("CAE207",)), sick("b", ("CAE501",)), well("h"), well("e", "border"))
    guesses = [tools.Guess(s) for s in (("not finite",), ("dead filters",), ("overfitting",), ())]
    told = tools.figures(examined, guesses)
    assert (told.right.count, told.found.count, told.right.of) == (1, 2, 2)
    assert (told.false_alarms.count, told.border_alarms.count) == (1, 0)


# -- treatment ---------------------------------------------------------------------------------------


def test_prescription_and_placebo_are_trained_in_step_and_as_often(monkeypatch, tmp_path):
    """The second fix cures, and chance does not."""
    words = ("data=glyphs", "optimizer.learning_rate=0.5")
    poor = replace(with_dynamics(early_peak=0.0), layers=(layer(dead=12), layer("output", 1)))
    config = {**CONFIG, "optimizer": {"name": "adam", "learning_rate": 0.5, "clip_norm": None}}
    outcomes = {
        "x.treat_1_s7": poor, "x.treat_2_s7": healthy(),
        "x.control_1_s7": poor, "x.control_2_s7": poor,
    }  # fmt: skip

    def of(run):
        metrics = outcomes[run.folder.name]
        return result_of(run, diagnose(metrics, config), metrics, config)

    monkeypatch.setattr("cae_cli.treatment.arm.result", of)
    asked = []

    class Trainings:
        def train(self, wanted):
            asked.append([one.name for one in wanted])
            return [Run(tmp_path / one.name) for one in wanted]

    before = result_of(Run(tmp_path), diagnose(poor, config), poor, config)
    patient = SimpleNamespace(words=words, training=SimpleNamespace(seed=7))

    def looked(name, **values):
        judged = sick(name, ("CAE207",), named=("CAE207",), **values)
        return SimpleNamespace(judged=judged, result=before, patient=patient, config=config)

    unseen = looked("y")
    unseen.judged = replace(unseen.judged, named=(), found=())
    [told] = faults.treat(
        [looked("x"), unseen, looked("z", treatable=False)], Trainings(), lambda line: None
    )
    assert asked == [[f"x.treat_{n}_s7", f"x.control_{n}_s7"] for n in (1, 2)]
    assert (told.name, told.first, told.cured) == ("x", False, True)
    assert (told.control_first, told.control) == (False, False)
    assert told.trainings == told.control_trainings == 2
    assert told.steps[0].startswith("optimizer.learning_rate=0.001 → CAE207, inactive maps")
    assert told.steps[-1].endswith("→ healthy")


# -- pages -------------------------------------------------------------------------------------------


CURED = (Treated("a.1", True, True, False, False, 1, 1),)


def results(judged=EXAMINED, treated=CURED):
    guesses = {name: tuple(tools.Guess(()) for _ in judged) for name in TOOLS}
    return faults.Results(
        part="test",
        why={"a": "A penalty | too large.", "b": "Black."},
        left_out={"/somewhere/mnist.npz": 4},
        judged=tuple(judged),
        treated=treated,
        guesses=guesses,
        less={name: tuple(judged) for name in GROUPS},
        scores=scoring.scores(judged, treated),
    )


def test_goals_are_met_missed_or_left_open():
    many = tuple(well(f"h{i}") for i in range(60))
    told = {g.name: g for g in report.goals(results((*many, sick("a.1", named=("CAE206",)))))}
    assert told["healthy by every fixed criterion: alarms"].met is True
    assert told["sick: right cause named first"].met is True
    assert told["treatable: cured by the first fix"].met is True
    assert told["treated: cured by as many random changes"].met is True
    assert "at the border: alarms" not in told  # there is nobody
    few = {g.name: g.met for g in report.goals(results((well(),)))}
    assert few["healthy by every fixed criterion: alarms"] is None  # too few to say so
    told = {g.name: g.met for g in report.goals(results())}
    assert told["healthy by every fixed criterion: alarms"] is False
    assert told["at the border, every fixed criterion holds: alarms"] is False
    assert told["treatable: cured by a treatment"] is False


def test_figures_without_the_cases_that_rules_were_changed_for_stand_beside(tmp_path):
    seen = sick("a.1", named=("CAE206",), blind=False)
    page.write(
        results((well("h0"), seen, sick("b.1"))),
        tmp_path / "fault_benchmark.md",
        "python -m benchmarks.faults",
    )
    text = (tmp_path / "fault_benchmark.md").read_text()
    section = text[text.index("## Without what was seen before") : text.index("## Who was examined")]
    assert "| sick: right cause named first | 0 of 1 |" in section


def test_an_alarm_where_a_criterion_fails_is_counted_apart():
    torn = replace(well("h1", named=("CAE301",)), amiss=("explained",))
    told = {g.name: g.rate for g in report.goals(results((well("h0"), torn)))}
    assert (told["healthy: alarms"].count, told["healthy: alarms"].of) == (1, 2)
    assert (
        told["healthy by every fixed criterion: alarms"].count,
        told["healthy by every fixed criterion: alarms"].of,
    ) == (0, 1)


def test_the_page_tells_every_wrong_one_and_no_path_of_this_machine(tmp_path):
    page.write(
        results(), tmp_path / "docs" / "fault_benchmark.md", "python -m benchmarks.faults --part test"
    )
    text = (tmp_path / "docs" / "fault_benchmark.md").read_text()
    wrong = text[text.index("## What was said wrong") : text.index("## The cases")]
    for name in ("a.2", "a.3", "a.4", "b.2", "c.2", "h2", "e2"):
        assert f"| {name} |" in wrong
    assert "CAE208, CAE206; the right one is found behind it" in wrong
    assert "A penalty \\| too large." in wrong  # a cell stays a cell
    assert "not judged: out of memory" in wrong
    assert "4 trainings are left out: `mnist.npz`" in text and "/somewhere" not in text
    assert "3 of 8 | 38 % (14 to 69) | 95 % at least | **missed**" in text
    assert "Not treated, because nothing was found: a.2, a.3" in text
    assert (tmp_path / "docs" / "images" / page.PICTURE).read_bytes().startswith(b"\x89PNG")
    for line in text.splitlines():
        assert "nan" not in line.split(), line


def test_all_of_it_is_written_as_json(tmp_path):
    report.write(results(treated=None), tmp_path / "results.json", ["cae", "clinic"])
    told = json.loads((tmp_path / "results.json").read_text())
    assert told["schema"] == 1 and told["treated"] is None and told["scores"]["cures"] is None
    assert [j["name"] for j in told["judged"]] == [p.name for p in EXAMINED]
    short = json.loads(report.as_json(results()))
    assert short["scores"]["diagnosing"]["right"]["count"] == 3 and "judged" not in short
    assert short["tools"]["always healthy"]["found"]["count"] == 0


def test_the_screen_has_figures_causes_tools_and_the_wrong_ones():
    text = "\n".join(str(part) for part in report.summary(results()))
    assert "sick: right cause named first" in text and "AUTOTRAINER" in text
    assert "7 of 13 judged wrong:" in text
    assert "a.2 (glyphs): expected CAE206, said CAE208, CAE206" in text


# -- the command --------------------------------------------------------------------------------------


def examined(monkeypatch, tmp_path, judged, *words):
    monkeypatch.setattr(faults, "examine", lambda request, command, say: results(judged, None))
    monkeypatch.chdir(tmp_path)
    return command.main([str(tmp_path), *words])


def test_smoke_fails_by_a_wrong_word_and_by_nothing_else(monkeypatch, tmp_path, capsys):
    good = (sick("a.1", named=("CAE206",)), well())
    for bad in (sick("a.2", named=("CAE208",)), sick("a.2"), well("h2", named=("CAE208",)),
                well("e", "border", named=("CAE208",))):  # fmt: skip
        assert examined(monkeypatch, tmp_path, (*good, bad), "--part", "smoke") == 1
        assert examined(monkeypatch, tmp_path, (*good, bad), "--part", "test") == 0
    assert examined(monkeypatch, tmp_path, good, "--part", "smoke") == 0
    assert (tmp_path / "runs" / "faults" / "results_smoke.json").is_file()
    capsys.readouterr()
    examined(monkeypatch, tmp_path, good, "--json", "--docs", "docs/fault_benchmark.md")
    assert json.loads(capsys.readouterr().out)["part"] == "test"
    assert str(tmp_path) not in (tmp_path / "docs" / "fault_benchmark.md").read_text()


def test_the_help_lists_the_ways_to_spoil_images(capsys):
    assert command.main(["--help"]) == 0
    told = capsys.readouterr().out
    assert all(f"  {name} " in told for name in corruption.names())
    assert max(map(len, told.splitlines())) <= 80


def test_wrong_words_of_the_command(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for words in (["--part", "tests"], ["--jobs", "0"], ["--nothing"]):
        with pytest.raises(UserError) as caught:
            command.main(words)
        assert "python -m benchmarks.faults --help" in caught.value.hint
    with pytest.raises(UserError, match="there is no such case"):
        command.main([str(tmp_path / "nowhere")])


def test_where_no_images_are_there_is_nothing_to_examine(folder, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="none of the images"):
        command.main([str(folder), "--data", "nowhere"])
