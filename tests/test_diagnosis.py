import shlex
from dataclasses import replace

import numpy as np
import pytest

from cae_cli.compose import checked
from cae_cli.config import plain
from cae_cli.diagnosis import RULES, Case, Finding, Severity, diagnose
from cae_cli.diagnosis.finding import Prescription, Safety
from cae_cli.diagnosis.rule import Rule, Rules, attach
from cae_cli.measures.causal import Causal
from cae_cli.measures.maps import MapHealth
from cae_cli.measures.measured import Course, Layer, Measures
from cae_cli.measures.quality import Mean, Quality

CONFIG = {
    "loss": {"name": "mse"},
    "model": {"output_activation": "sigmoid", "activation": "relu"},
    "optimizer": {"name": "adam", "learning_rate": 0.001},
    "regularization": {},
    "training": {"epochs": 10},
}


def layer(name="encoder_1", filters=16, dead=0, constant=0, moved=0.8):
    blank = np.arange(filters) < dead + constant
    return Layer(name, filters, (3, 3, 1), MapHealth(blank, dead, constant), moved)


def healthy():
    """What a healthy run of the reference network on Fashion-MNIST measures."""
    return Measures(
        quality=Quality(
            images=1000,
            mse=Mean(0.012, 0.0003),
            psnr=Mean(20.1, 0.1),
            ssim=Mean(0.72, 0.01),
            mean_image_mse=0.087,
            mean_image_psnr=10.9,
            mean_image_ssim=0.2,
            black_mse=0.21,
            explained_variance=0.84,
            train_explained_variance=0.846,
            output_variance_share=0.86,
            output_mean=0.29,
        ),
        causal=Causal(
            linear=0.79,
            linear_train=0.792,
            skill=0.24,
            code_shuffle=0.9,
            pixel_copy=0.0,
            grey=-0.24,
            noise_gain=0.08,
        ),
        layers=(layer(), layer("output", 1)),
        course=Course(2560, 0.17, 0.012, None),
    )


def with_quality(**values):
    return replace(healthy(), quality=replace(healthy().quality, **values))


def with_causal(**values):
    return replace(healthy(), causal=replace(healthy().causal, **values))


def with_course(**values):
    return replace(healthy(), course=replace(healthy().course, **values))


BLACK = with_quality(
    mse=Mean(0.209, 0.001),
    output_variance_share=0.0,
    output_mean=0.0,
    explained_variance=-1.4,
    train_explained_variance=-1.4,
)
# One sick and one nearly sick case for every rule.
CASES = {
    "CAE201": (with_course(diverged_at=17), healthy()),
    "CAE202": (
        replace(
            with_quality(explained_variance=0.0, train_explained_variance=0.0),
            course=replace(healthy().course, last_val_loss=0.1699),
        ),
        with_course(last_val_loss=0.16),
    ),
    "CAE301": (BLACK, with_quality(output_variance_share=0.06)),
    "CAE302": (
        with_quality(explained_variance=0.05, train_explained_variance=0.06),
        with_quality(explained_variance=0.12, train_explained_variance=0.13),
    ),
    "CAE303": (with_causal(skill=-0.1), with_causal(skill=-0.05)),
    "CAE401": (
        replace(healthy(), layers=(layer(dead=5, constant=2), layer("output", 1))),
        replace(healthy(), layers=(layer(dead=4, constant=2), layer("output", 1))),
    ),
    "CAE501": (
        with_quality(train_explained_variance=0.9),
        with_quality(train_explained_variance=0.875),
    ),
}


def codes(measures):
    return [f.code for f in diagnose(measures, CONFIG).findings]


def test_every_rule_has_a_case():
    assert sorted(CASES) == [rule.code for rule in RULES]


@pytest.mark.parametrize("code", sorted(CASES))
def test_a_rule_fires_when_it_should_and_only_then(code):
    sick, well = CASES[code]
    assert codes(sick)[0] == code
    assert codes(well) == []


def test_a_healthy_run_has_no_finding_and_says_how_many_rules_looked():
    diagnosis = diagnose(healthy(), CONFIG)
    assert diagnosis.findings == () and diagnosis.worst is None
    assert diagnosis.passed == tuple(rule.code for rule in RULES)
    assert f"no problem found by {len(RULES)} rules" in diagnosis.verdict


@pytest.mark.parametrize(
    ("measures", "reason"),
    [
        (with_quality(images=1), "only 1 held-out image, 16 are needed"),
        (with_course(steps=96), "only 96 steps, 128 are needed"),
    ],
)
@pytest.mark.parametrize("code", sorted(CASES))
def test_a_rule_without_its_data_is_skipped_and_does_not_pass(measures, reason, code):
    diagnosis = diagnose(measures, CONFIG)
    assert diagnosis.undecided
    assert reason in {s.reason for s in diagnosis.skipped}
    assert diagnosis.verdict.startswith(f"cannot tell: {reason}")
    assert len(diagnosis.skipped) == len(RULES) - 1
    sick = CASES[code][0]
    sick = replace(
        sick,
        quality=replace(sick.quality, images=measures.quality.images),
        course=replace(sick.course, steps=measures.course.steps),
    )
    assert code not in diagnose(sick, CONFIG).passed


def test_a_linear_decoder_is_no_bar_for_a_short_training_or_where_there_is_none():
    worse = replace(with_causal(skill=-0.9), course=replace(healthy().course, steps=500))
    for measures in (worse, with_causal(skill=float("nan"))):
        diagnosis = diagnose(measures, CONFIG)
        assert [s.code for s in diagnosis.skipped] == ["CAE303"] and not diagnosis.findings


def test_some_rules_that_could_not_look_are_counted():
    assert "1 could not look" in diagnose(with_course(first_val_loss=float("nan")), CONFIG).verdict


def test_the_black_collapse_is_named_first_and_bce_is_prescribed():
    diagnosis = diagnose(BLACK, CONFIG)
    first, *others = diagnosis.findings
    assert first.code == "CAE301" and "black" in first.message
    assert first.prescriptions[0].overrides == ("loss=bce",)
    assert all(f.consequence_of == "CAE301" for f in others)
    assert diagnosis.verdict == (
        "these filters are not meaningful: the output is the same for every image"
    )


def test_a_constant_output_that_is_not_black_is_not_called_black():
    grey = with_quality(output_variance_share=0.01, output_mean=0.3, explained_variance=0.0)
    assert "black for every image" not in diagnose(grey, CONFIG).findings[0].message


def test_causes_come_before_their_consequences():
    sick = replace(BLACK, course=replace(healthy().course, last_val_loss=0.17))
    found = diagnose(sick, CONFIG).findings
    assert [(f.code, f.consequence_of) for f in found] == [
        ("CAE301", None),
        ("CAE202", "CAE301"),
        ("CAE302", "CAE301"),
    ]


def test_a_slow_and_a_stuck_training_get_different_prescriptions():
    stuck = CASES["CAE202"][0]
    slow = replace(stuck, layers=(layer(moved=1e-4),))
    assert diagnose(slow, CONFIG).findings[0].prescriptions[0].overrides == (
        "optimizer.learning_rate=0.01",
    )
    assert diagnose(stuck, CONFIG).findings[0].prescriptions[0].overrides == (
        "regularization=batchnorm",
    )


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.code)
def test_every_rule_says_what_it_is(rule):
    assert rule.code.startswith("CAE") and len(rule.code) == 6
    for text in (rule.problem, rule.measures, rule.why, rule.source, type(rule).__doc__):
        assert text and len(text) > 10
    assert rule.problem[0].islower() and not rule.problem.endswith(".")
    assert isinstance(rule.severity, Severity)
    assert isinstance(rule.threshold, int | float)
    assert set(rule.explains) <= {other.code for other in RULES} - {rule.code}


def test_no_rule_explains_itself_by_a_detour():
    explains = {rule.code: set(rule.explains) for rule in RULES}
    for start in explains:
        reached, todo = set(), set(explains[start])
        while todo:
            code = todo.pop()
            reached.add(code)
            todo |= explains[code] - reached
        assert start not in reached


@pytest.mark.parametrize("code", sorted(CASES))
def test_every_finding_names_its_evidence_and_a_way_out(code):
    finding = diagnose(CASES[code][0], CONFIG).findings[0]
    assert finding.message and finding.prescriptions
    assert all(evidence.value != evidence.threshold for evidence in finding.evidence)
    assert finding.evidence[0].threshold == next(r.threshold for r in RULES if r.code == code)


def test_rules_of_one_code_are_refused():
    class Twin(Rule):
        code = "CAE999"

    rules = Rules()
    rules.add(Twin)
    with pytest.raises(ValueError, match="exists already"):
        rules.add(Twin)


def test_findings_without_a_cause_keep_the_order_of_the_rules():
    def finding(code):
        return Finding(code, "x", Severity.NOTE, "x", ())

    assert [f.code for f in attach([finding("CAE501"), finding("CAE401")])] == ["CAE401", "CAE501"]


def test_a_loss_with_a_floor_may_hardly_fall():
    # Cross-entropy of grey images starts next to where it ends.
    assert codes(with_course(first_val_loss=0.690, last_val_loss=0.688)) == []


@pytest.mark.parametrize("code", sorted(CASES))
def test_what_is_not_a_number_is_not_judged(code):
    nan = float("nan")
    numbers = replace(
        CASES[code][0].quality, explained_variance=nan, train_explained_variance=nan,
        output_variance_share=nan, mse=Mean(nan, nan),
    )  # fmt: skip
    found = diagnose(replace(CASES[code][0], quality=numbers), CONFIG)
    assert {f.code for f in found.findings} <= {"CAE201"}
    assert len(found.skipped) == len(RULES) - 1


def test_a_prescription_replaces_what_the_run_had_set():
    prescription = Prescription(("loss=bce", "optimizer.learning_rate=0.1"), "why", Safety.SAFE)
    words = [
        "cae",
        "train",
        "+loss=mse",
        "loss.window=7",
        "data.path=my photos",
        "optimizer.learning_rate=1",
    ]
    command = prescription.command(words)
    assert command == "cae train 'data.path=my photos' loss=bce optimizer.learning_rate=0.1"


def test_a_prescription_keeps_what_still_has_a_place():
    words = ["cae", "train", "regularization=l2", "regularization.l2.strength=0.1", "-cd", "mine"]
    command = Prescription(("regularization=[l2,batchnorm]",), "why", Safety.SAFE).command(words)
    assert command == "cae train regularization.l2.strength=0.1 -cd mine 'regularization=[l2,batchnorm]'"


def test_a_regularizer_is_added_to_those_the_run_had():
    assert Case(healthy(), CONFIG).adding("batchnorm") == "regularization=batchnorm"
    config = {**CONFIG, "regularization": {"l2": {}, "dropout": {}}}
    assert Case(healthy(), config).adding("batchnorm") == "regularization=[l2,dropout,batchnorm]"


def test_where_nothing_moved_that_is_the_cause():
    sick = replace(BLACK, layers=(layer(moved=0), layer("output", 1, moved=0)))
    sick = replace(sick, course=replace(healthy().course, last_val_loss=0.17))
    diagnosis = diagnose(sick, {**CONFIG, "optimizer": {"name": "adam", "learning_rate": 0}})
    assert [f.code for f in diagnosis.findings] == ["CAE202", "CAE302"]
    assert diagnosis.findings[0].prescriptions[0].overrides == ("optimizer.learning_rate=0.001",)
    assert [(s.code, s.reason) for s in diagnosis.skipped] == [("CAE301", "no layer has moved")]


def test_a_gap_within_the_margin_of_few_images_or_without_learning_is_no_memory():
    gap = {"train_explained_variance": 0.9}
    assert codes(with_quality(**gap)) == ["CAE501"]
    assert codes(with_quality(**gap, mse=Mean(0.012, 0.003))) == []
    poor = with_quality(explained_variance=-0.17, train_explained_variance=-0.03)
    assert "CAE501" not in codes(poor)


def test_a_gap_that_a_linear_decoder_has_too_is_no_memory():
    # Held-out photographs may simply be harder than those of the training.
    harder = with_quality(train_explained_variance=0.9)
    assert codes(harder) == ["CAE501"]
    assert codes(replace(harder, causal=replace(harder.causal, linear_train=0.84))) == []
    unknown = replace(harder.causal, linear=float("nan"), linear_train=float("nan"))
    assert codes(replace(harder, causal=unknown)) == ["CAE501"]


def test_a_note_is_no_problem():
    diagnosis = diagnose(CASES["CAE303"][0], CONFIG)
    assert diagnosis.worst is Severity.NOTE
    assert diagnosis.verdict.startswith(f"no problem found by {len(RULES) - 1} rules, 1 note; ")


def test_an_absurd_learning_rate_is_replaced_and_not_divided():
    config = {**CONFIG, "optimizer": {"name": "sgd", "learning_rate": 1e12}}
    first = diagnose(with_course(diverged_at=3), config).findings[0].prescriptions[0]
    assert first.overrides == ("optimizer.learning_rate=0.1",)


def test_softmax_is_told_to_be_something_else():
    config = plain(checked(["model.output_activation=softmax"])[1])
    assert diagnose(BLACK, config).findings[0].prescriptions[0].overrides == (
        "model.output_activation=sigmoid",
    )


BASES = [
    [],
    ["loss=bce", "regularization=batchnorm"],
    ["loss=ssim", "loss.window=7", "model=l2"],
    ["loss=huber", "loss.delta=0.5", "regularization=[l2,dropout]", "regularization.dropout.rate=0.5"],
    ["model.output_activation=linear", "model.activation=elu", "optimizer=sgd", "augmentation=flip"],
    ["model.output_activation=softmax", "optimizer.clip_norm=1", "data.train=null"],
    ["experiment=reference_2_l2_augmented", "optimizer.learning_rate=1e-2"],
    ["data=npz", "data.path=x.npz", "data.train=100", "schedule=plateau", "optimizer.learning_rate=0"],
]


@pytest.mark.parametrize("base", BASES, ids=" ".join)
@pytest.mark.parametrize("code", sorted(CASES))
def test_every_prescription_composes_and_changes_the_run(code, base):
    before = checked(base)[1]
    findings = diagnose(CASES[code][0], plain(before)).findings
    assert code in {finding.code for finding in findings}
    for finding in findings:
        for prescription in finding.prescriptions:
            words = shlex.split(prescription.command(["cae", "train", *base]))
            assert words[:2] == ["cae", "train"]
            after = checked(words[2:])[1]
            assert after != before, prescription
