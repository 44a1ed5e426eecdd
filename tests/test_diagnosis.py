import math
from dataclasses import fields, replace

import numpy as np
import pytest

from cae_cli.config.compose import checked
from cae_cli.config.schema import plain
from cae_cli.diagnosis import RULES, Case, Finding, Severity, diagnose, forecast
from cae_cli.diagnosis.catalogue import FIRES, Rule, Rules, When
from cae_cli.diagnosis.causes import order
from cae_cli.diagnosis.finding import Confidence, Fix, Safety
from cae_cli.diagnosis.fixes import batchnorm, longer, without
from cae_cli.metrics.batches import BatchStatistics
from cae_cli.metrics.collect import Labels, Layer, Metrics
from cae_cli.metrics.dataset import DatasetStatistics
from cae_cli.metrics.dynamics import TrainingDynamics
from cae_cli.metrics.latent import LatentUse
from cae_cli.metrics.loss_minimum import LossMinimum
from cae_cli.metrics.maps import MapHealth
from cae_cli.metrics.network import Network
from cae_cli.metrics.order import BatchOrder
from cae_cli.metrics.perturbation import Perturbation
from cae_cli.metrics.preparation import Preparation
from cae_cli.metrics.quality import Mean, Quality
from cae_cli.metrics.reach import ReachStatistics
from cae_cli.metrics.score import score
from cae_cli.metrics.spectrum import Spectrum
from cae_cli.metrics.spikes import LossSpike
from cae_cli.model.plan import plan
from cae_cli.training.facts import facts

NAN, INF = float("nan"), float("inf")
CONFIG = {
    "augmentation": {"rotation": 0.0, "shift": 0.0, "zoom": 0.0, "flip": False, "target": "same"},
    "data": {"name": "npz", "noise": 0.0, "scale": "none", "train": 4096},
    "loss": {"name": "mse"},
    "model": {
        "filters": [16, 8], "convolutions": 1, "kernel_size": 5, "latent_channels": None,
        "block": "plain", "output_activation": "sigmoid", "activation": "relu", "skips": True,
        "upsampling": "nearest", "sampling_kernel": 4,
    },
    "optimizer": {"name": "adam", "learning_rate": 0.001, "clip_norm": None},
    "regularization": {},
    "training": {"epochs": 10, "batch_size": 32, "steps": None, "frozen": "none"},
}  # fmt: skip


def known(config):
    """A config with the facts of its loss and optimizer, as a run records them."""
    return {**config, "facts": facts(config)}


CONFIG = known(CONFIG)


def layer(name="encoder_1", filters=16, dead=0, constant=0, moved=0.8, **values):
    inactive = np.arange(filters) < dead + constant
    found = Layer(
        name, filters, (3, 3, 1), MapHealth(inactive, dead, constant), inactive_at={0: 0.0, 128: 0.0},
        duplicates=0, weight_change=moved, structure=0.1, p_value=0.02, prunable=0.2,
    )  # fmt: skip
    return replace(found, **values)


def healthy():
    """What a healthy run of the reference network on Fashion-MNIST measures."""
    return Metrics(
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
        perturbation=Perturbation(
            linear=0.79,
            linear_train=0.792,
            skill_score=0.24,
            latent_swap=0.9,
            pixel_copy=0.0,
            grey=-0.24,
            noise_gain=0.08,
            zero_latent=-1.2,
            mean_latent=0.1,
            repeat=0.0,
            training_mode=0.0,
            projection=0.99,
        ),
        layers=(layer(), layer("output", 1)),
        dynamics=TrainingDynamics(
            2560, 0.17, 0.012, reported_loss=0.012, recomputed_loss=0.012, diverged_at=None,
            early_update=-1.9, early_peak=-1.8, last_update=-2.3, penalty_share=0.0, slope=0.01,
            gradient_ratio=0.4,
        ),
        loss_spike=LossSpike(0.3, 0.05),
        network=Network(
            (28, 28, 1), (7, 7, 8), "sigmoid", "relu", normalised=True, skips=False,
            receptive_field=10.0, depth=5, narrowest=8,
        ),
        dataset=DatasetStatistics(
            4096, 1000, 0.0, 1.0, black=-1.38, variance=0.087, image_std=0.32, flat=0.0,
            distinct=1.0, repeated=0.0, correlation=0.85, beyond=0.0, filled=1.0, brightness=0.5,
            contrast=0.5, detail=0.5, mistake="height and width were swapped", smoothness=0.4,
            roughness=4.0,
        ),
        spectrum=Spectrum(
            sharpness=0.2, power=0.15, coherence=0.2, sharpening_gain=1.0, checkerboard=2.0
        ),
        latent=LatentUse(values=392, effective_rank=90.0, participation=20.0, dead=0.0),
        labels=Labels(0.8, 0.8),
        batches=BatchStatistics(
            0.0, 1.0, 0.0, 1.0, image_std=0.32, variance=0.087, distinct=1.0, pair=0.0,
            correlation=0.85, difference_correlation=NAN, target_correlation=0.85, difference=0.0,
        ),
        order=BatchOrder(32, inflation=1.0, chance=0.1),
        frozen=None,
        reach=ReachStatistics(unread=0.0, unreached=0.0),
        loss=LossMinimum(elsewhere=0.0, unmoved=0.0),
        score=score(explained=0.84, base=0.0, latent_swap=0.9, pixel_copy=0.0, inactive=0.0),
    )  # fmt: skip


def changed(part, **values):
    """A healthy run but for some values of a part."""
    metrics = healthy()
    return replace(metrics, **{part: replace(getattr(metrics, part), **values)})


def with_quality(**values):
    return changed("quality", **values)


def with_perturbation(**values):
    return changed("perturbation", **values)


def with_dynamics(**values):
    return changed("dynamics", **values)


def poor(metrics, **dynamics):
    """The same, but far worse than a linear decoder, for a network trained for similarity too."""
    return replace(
        metrics,
        perturbation=replace(metrics.perturbation, skill_score=-1.5),
        dynamics=replace(metrics.dynamics, **dynamics),
    )


def prepared(**values):
    """A network of bytes that was given images from 0 to 1."""
    tried = Preparation(
        explained=0.2, otherwise=0.84, learned=0.84, given_low=0.0, given_high=255.0, made_low=0.0,
        made_high=255.0, hand_low=0.0, hand_high=1.0,
    )  # fmt: skip
    return replace(healthy(), preparation=replace(tried, **values))


BLACK = with_quality(
    mse=Mean(0.209, 0.001),
    output_variance_share=0.0,
    output_mean=0.0,
    explained_variance=-1.4,
    train_explained_variance=-1.4,
)
POOR_AVERAGES = replace(healthy().perturbation, training_mode=0.4)
DEAD = (layer(dead=5, constant=2), layer("output", 1))
FLAT = with_quality(explained_variance=0.0, train_explained_variance=0.0)


def saturated(*slopes, of=FLAT):
    """A run with these slopes of hidden sigmoids, the same before and after training."""
    layers = [layer(activation="sigmoid", slope_at={0: slope, 128: slope}) for slope in slopes]
    sigmoid = replace(healthy().network, hidden_activation="sigmoid")
    return replace(of, layers=(*layers, layer("output", 1)), network=sigmoid)


# One faulty and one nearly faulty case for every rule that judges a trained network.
CASES = {
    "CAE005": (
        changed("network", latent_shape=(14, 14, 8)),
        changed("network", latent_shape=(14, 14, 3)),
    ),
    "CAE101": (changed("dataset", distinct=0.01), changed("dataset", distinct=0.6)),
    "CAE102": (changed("batches", target_high=255.0), changed("batches", target_high=1.04)),
    "CAE103": (changed("batches", pair=0.3), changed("batches", pair=0.08)),
    "CAE104": (changed("dataset", correlation=0.02), changed("dataset", correlation=0.5)),
    "CAE105": (changed("dataset", correlation=0.3), changed("dataset", correlation=0.5)),
    "CAE106": (changed("dataset", repeated=0.5), changed("dataset", repeated=0.05)),
    "CAE107": (changed("dataset", flat=0.3), changed("dataset", flat=0.05)),
    "CAE108": (changed("order", inflation=8.0), changed("order", inflation=2.4)),
    "CAE109": (changed("dataset", beyond=1.0), changed("dataset", beyond=0.1)),
    "CAE110": (
        changed("batches", target_correlation=0.5, difference=0.05, difference_correlation=0.05),
        changed("batches", target_correlation=0.84, difference=0.05, difference_correlation=0.05),
    ),
    "CAE111": (
        changed("dataset", smoothness=0.92, roughness=0.2),
        changed("dataset", smoothness=0.92, roughness=0.7),
    ),
    "CAE112": (prepared(), prepared(otherwise=0.5)),
    "CAE113": (
        poor(prepared(otherwise=0.1, stored=0.8)),
        replace(prepared(otherwise=0.1, stored=0.8), perturbation=healthy().perturbation),
    ),
    "CAE201": (with_dynamics(diverged_at=17), healthy()),
    "CAE202": (
        replace(
            with_quality(explained_variance=0.0, train_explained_variance=0.0),
            dynamics=replace(healthy().dynamics, last_val_loss=0.1699),
        ),
        with_dynamics(last_val_loss=0.16),
    ),
    "CAE203": (
        changed("network", output_activation="softmax"),
        changed("network", output_activation="hard_sigmoid"),
    ),
    "CAE204": (
        with_dynamics(reported_loss=0.01, recomputed_loss=0.4),
        with_dynamics(reported_loss=0.3, recomputed_loss=0.4),
    ),
    "CAE205": (
        replace(healthy(), layers=(layer(dead=8, inactive_at={0: 0.5}), layer("output", 1))),
        replace(healthy(), layers=(layer(dead=4, inactive_at={0: 0.5}), layer("output", 1))),
    ),
    "CAE206": (with_dynamics(penalty_share=0.9), with_dynamics(penalty_share=0.3)),
    "CAE207": (
        replace(with_dynamics(early_peak=-0.6), layers=DEAD),
        with_dynamics(early_peak=-0.6),
    ),
    "CAE208": (
        poor(healthy(), early_update=-4.0, last_update=-4.1),
        with_dynamics(early_update=-4.0),
    ),
    "CAE209": (
        replace(healthy(), layers=(layer(moved=0.0), layer("output", 1))),
        replace(healthy(), layers=(layer(moved=0.001), layer("output", 1))),
    ),
    "CAE210": (with_perturbation(training_mode=0.3), with_perturbation(training_mode=0.05)),
    "CAE211": (poor(healthy(), slope=0.2), with_dynamics(slope=0.07)),
    "CAE212": (
        saturated(0.25, 0.24, 0.25, 0.24),
        saturated(0.25, 0.24, 0.25, 0.24, of=healthy()),
    ),
    "CAE213": (
        replace(poor(healthy()), network=replace(healthy().network, half_precision="float16")),
        changed("network", half_precision="float16"),
    ),
    "CAE214": (
        replace(poor(healthy()), dropout_noise=0.4),
        replace(healthy(), dropout_noise=0.4, hidden_dropout_noise=0.1),
    ),
    "CAE215": (
        changed("loss", elsewhere=1.1),
        changed("loss", elsewhere=0.2, unmoved=0.05),
    ),
    "CAE301": (BLACK, with_quality(output_variance_share=0.06)),
    "CAE302": (
        with_quality(explained_variance=0.05, train_explained_variance=0.06),
        with_quality(explained_variance=0.12, train_explained_variance=0.13),
    ),
    "CAE303": (with_perturbation(skill_score=-0.1), with_perturbation(skill_score=-0.05)),
    "CAE304": (changed("spectrum", sharpening_gain=2.5), changed("spectrum", sharpening_gain=1.2)),
    "CAE305": (changed("spectrum", checkerboard=30.0), changed("spectrum", checkerboard=4.0)),
    "CAE401": (
        replace(healthy(), layers=DEAD),
        replace(healthy(), layers=(layer(dead=4, constant=2), layer("output", 1))),
    ),
    "CAE402": (
        replace(healthy(), layers=(layer(duplicates=6), layer("output", 1))),
        replace(healthy(), layers=(layer(duplicates=3), layer("output", 1))),
    ),
    "CAE501": (
        with_quality(train_explained_variance=0.9),
        with_quality(train_explained_variance=0.875),
    ),
    "CAE502": (with_perturbation(latent_swap=0.01), with_perturbation(latent_swap=0.2)),
    "CAE503": (with_perturbation(pixel_copy=0.65), with_perturbation(pixel_copy=0.55)),
    "CAE505": (changed("latent", informative=0.0), changed("latent", informative=0.1)),
    "CAE601": (
        poor(replace(healthy(), layers=(layer(kernel=(1, 1, 1)), layer("output", 1)))),
        replace(healthy(), layers=(layer(kernel=(1, 1, 1)), layer("output", 1))),
    ),
    "CAE602": (
        replace(
            with_perturbation(projection=0.5, skill_score=0.0),
            quality=replace(healthy().quality, explained_variance=0.55, train_explained_variance=0.55),
        ),
        with_perturbation(projection=0.5),
    ),
    "CAE603": (poor(changed("network", narrowest=1)), changed("network", narrowest=1)),
    "CAE604": (
        replace(
            with_perturbation(pixel_copy=0.2),
            network=replace(healthy().network, receptive_field=4.0, latent_shape=(14, 14, 8)),
        ),
        changed("network", receptive_field=4.0),
    ),
    "CAE605": (
        poor(changed("network", depth=20, normalised=False)),
        changed("network", depth=20, normalised=False),
    ),
    "CAE606": (changed("reach", unread=0.4), changed("reach", unread=0.07)),
}


def seen(config=None, **values):
    """Dataset statistics, network and config of a healthy experiment but for some values."""
    dataset, network = healthy().dataset, replace(healthy().network, normalised=False)
    names = {field.name for field in fields(DatasetStatistics)}
    return (
        replace(dataset, **{k: v for k, v in values.items() if k in names}),
        replace(network, **{k: v for k, v in values.items() if k not in names}),
        known({**CONFIG, **(config or {})}),
    )


def group(_group, **values):
    return {_group: {**CONFIG[_group], **values}}


# The same for what can be forecast.
FORECAST = {
    "CAE001": (seen(black=-0.6), seen(black=-1.3)),
    "CAE002": (
        seen(group("optimizer", name="adadelta", learning_rate=0.001)),
        seen(group("optimizer", learning_rate=0.01)),
    ),
    "CAE003": (seen(group("training", epochs=1), train=100), seen(train=512)),
    "CAE004": (
        seen(group("augmentation", rotation=10.0, target="original")),
        seen(group("augmentation", rotation=10.0)),
    ),
    "CAE006": (seen(receptive_field=3.0), seen(receptive_field=5.0)),
    "CAE007": (
        seen(group("model", upsampling="transposed", sampling_kernel=3)),
        seen(group("model", upsampling="transposed")),
    ),
    "CAE008": (
        seen({"loss": {"name": "ssim", "k1": 2.55, "k2": 7.65}}),
        seen({"loss": {"name": "ssim", "k1": 0.01, "k2": 0.03}}),
    ),
}


def case(config):
    metrics = healthy()
    return Case(metrics.dataset, metrics.network, config, metrics)


def codes(metrics, config=CONFIG):
    return [f.code for f in diagnose(metrics, config).findings]


# What these look at does not depend on how many images are held out, or on the steps made.
WITHOUT_HELD_OUT_IMAGES = {r.code for r in RULES if r.when is When.ALWAYS} | {
    "CAE201",
    "CAE209",
    "CAE215",
}
AFTER = [rule for rule in RULES if rule.when is not When.BEFORE]


@pytest.mark.parametrize("code", sorted(FORECAST))
def test_a_risk_is_forecast_where_it_is_one_and_only_then(code):
    faulty, well = FORECAST[code]
    assert [f.code for f in forecast(*faulty).findings] == [code]
    assert [f.code for f in forecast(*well).findings] == []
    assert forecast(*faulty).findings[0].fixes


def test_problems_of_the_data_are_reported_before_training_too():
    always = [rule.code for rule in RULES if rule.when is When.ALWAYS]
    assert {"CAE101", "CAE102", "CAE105"} <= set(always)
    found = [f.code for f in forecast(*seen(high=255.0)).findings]
    assert found == ["CAE102"]
    assert set(forecast(*seen()).passed) >= set(always)


def test_every_rule_has_a_case():
    assert sorted(CASES) == [rule.code for rule in AFTER]
    assert sorted(FORECAST) == [rule.code for rule in RULES if rule.when is When.BEFORE]


@pytest.mark.parametrize("code", sorted(CASES))
def test_a_rule_fires_when_it_should_and_only_then(code):
    faulty, well = CASES[code]
    assert codes(faulty)[0] == code
    assert codes(well) == []


def test_a_healthy_run_has_no_finding_and_says_how_many_rules_looked():
    diagnosis = diagnose(healthy(), CONFIG)
    assert diagnosis.findings == () and diagnosis.worst is None
    assert diagnosis.passed == tuple(rule.code for rule in AFTER)
    assert f"no problem found by {len(AFTER)} rules" in diagnosis.verdict


def test_the_size_of_a_code_that_is_drawn_at_random_is_not_what_limits_it():
    small = CASES["CAE602"][0]
    assert diagnose(small, CONFIG).findings[0].code == "CAE602"
    drawn = diagnose(replace(small, latent=replace(small.latent, informative=0.8)), CONFIG)
    assert not drawn.findings and "CAE602" not in drawn.passed
    [skipped] = [s for s in drawn.skipped if s.code == "CAE602"]
    assert "drawn at random" in skipped.reason


@pytest.mark.parametrize(
    ("metrics", "reason"),
    [
        (with_quality(images=1), "only 1 held-out image, 16 are needed"),
        (with_dynamics(steps=96), "only 96 steps, 128 are needed"),
    ],
)
@pytest.mark.parametrize("code", sorted(CASES))
def test_a_rule_without_its_data_is_skipped_and_does_not_pass(metrics, reason, code):
    diagnosis = diagnose(metrics, CONFIG)
    assert diagnosis.undecided
    assert reason in {s.reason for s in diagnosis.skipped}
    assert diagnosis.verdict.startswith(f"cannot tell: {reason}")
    faulty = CASES[code][0]
    faulty = replace(
        faulty,
        quality=replace(faulty.quality, images=metrics.quality.images),
        dynamics=replace(faulty.dynamics, steps=metrics.dynamics.steps),
    )
    if code not in WITHOUT_HELD_OUT_IMAGES:
        assert code not in diagnose(faulty, CONFIG).passed


def test_a_linear_decoder_is_no_bar_for_a_short_training_or_where_there_is_none():
    worse = replace(with_perturbation(skill_score=-0.9), dynamics=replace(healthy().dynamics, steps=500))
    for metrics in (worse, with_perturbation(skill_score=float("nan"))):
        diagnosis = diagnose(metrics, CONFIG)
        assert "CAE303" in [s.code for s in diagnosis.skipped]
        assert not {"CAE303", "CAE601", "CAE603", "CAE605"} & {f.code for f in diagnosis.findings}


def test_some_rules_that_could_not_look_are_counted():
    assert "1 not checked" in diagnose(with_dynamics(first_val_loss=float("nan")), CONFIG).verdict


def test_the_black_collapse_is_named_first_and_bce_is_prescribed():
    diagnosis = diagnose(BLACK, CONFIG)
    first, *others = diagnosis.findings
    assert first.code == "CAE301" and "black" in first.message
    assert first.fixes[0].overrides == ("loss=bce",)
    assert all(f.consequence_of == "CAE301" for f in others)
    assert diagnosis.verdict == (
        "these filters are not meaningful: the output is the same for every image"
    )


def test_images_in_another_range_are_the_cause_of_all_that_they_bring_about():
    bad = replace(BLACK, preparation=prepared().preparation, perturbation=POOR_AVERAGES)
    first, *others = diagnose(bad, {}).findings
    assert first.code == "CAE112" and first.severity is Severity.ERROR
    assert {f.consequence_of for f in others} == {"CAE112"}
    assert {"CAE210", "CAE301", "CAE302"} <= {f.code for f in others}


@pytest.mark.parametrize(
    ("values", "code", "words"),
    [
        ({}, "x = 255 * x  # cae: --range=0,255", "of those from 0 to 255"),
        ({"given_low": 1.0, "given_high": 0.0, "made_low": 1.0, "made_high": 0.0},
         "x = 1 - x  # cae: --range=1,0", "from 0 to 1 with black and white exchanged"),
        ({"made_high": 1.0}, "x = 255 * x  # cae: --range=0,255,0,1",
         "from 0 to 255, if its output is from 0 to 1"),
        ({"given_low": -1.0, "made_low": -1.0, "given_high": 1.0, "made_high": 1.0, "hand_high": 255.0},
         "x = 0.007843 * x - 1  # cae: --range=-1,1", "from -1 to 1"),
        ({"given_low": -0.5, "made_low": -0.5, "given_high": 2.0, "made_high": 2.0},
         "x = 2.5 * x - 0.5  # cae: --range=-0.5,2", "(mean 0, standard deviation 1)"),
        ({"given_high": 1.0, "made_high": 1.0, "swapped": True}, "x = x[..., ::-1]",
         "the order blue, green, red"),
    ],
)  # fmt: skip
def test_the_preparation_that_a_network_knows_is_given_in_words_and_as_code(values, code, words):
    finding = diagnose(prepared(**values), {}).findings[0]
    assert finding.code == "CAE112"
    assert finding.fixes[0].keras == code and words in finding.message


def test_a_network_that_knows_no_preparation_is_not_called_wrongly_fed():
    for values in ({"learned": 0.05}, {"otherwise": -math.inf}, {"explained": math.nan}):
        found = {f.code for f in diagnose(prepared(**values), {}).findings}
        assert "CAE112" not in found
    # It was trained on such inputs, and its running averages are what is wrong.
    assert "CAE112" not in codes(prepared(stored=0.001)) and "CAE112" in codes(prepared(stored=0.2))
    # Values that the network cannot compute are no reason to keep silent.
    assert diagnose(prepared(explained=-math.inf), {}).findings[0].code == "CAE112"


def test_what_was_not_tried_on_a_model_from_elsewhere_is_not_healthy():
    diagnosis = diagnose(replace(healthy(), evaluated=True), {})
    assert {"CAE112", "CAE113"} <= {s.code for s in diagnosis.skipped}


def test_a_constant_output_that_is_not_black_is_not_called_black():
    grey = with_quality(output_variance_share=0.01, output_mean=0.3, explained_variance=0.0)
    assert "black for every image" not in diagnose(grey, CONFIG).findings[0].message


def test_causes_come_before_their_consequences():
    faulty = replace(BLACK, dynamics=replace(healthy().dynamics, last_val_loss=0.17))
    found = diagnose(faulty, CONFIG).findings
    assert [(f.code, f.consequence_of) for f in found] == [
        ("CAE301", None),
        ("CAE202", "CAE301"),
        ("CAE302", "CAE301"),
    ]


def test_a_slow_and_a_stuck_training_get_different_prescriptions():
    stuck = CASES["CAE202"][0]
    slow = replace(stuck, layers=(layer(moved=1e-4),))
    assert diagnose(slow, CONFIG).findings[0].fixes[0].overrides == ("optimizer.learning_rate=0.01",)
    assert diagnose(stuck, CONFIG).findings[0].fixes[0].overrides == ("regularization=batchnorm",)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.code)
def test_every_rule_says_what_it_is(rule):
    assert rule.code.startswith("CAE") and len(rule.code) == 6
    known = {other.code for other in RULES} - {rule.code}
    assert set(rule.alternatives) <= known
    for text in (rule.problem, rule.measured, rule.why, rule.source):
        assert text and len(text) > 10
    assert not rule.problem[:2].istitle() and not rule.problem.endswith(".")
    assert rule.unit and rule.fires in FIRES
    assert isinstance(rule.severity, Severity)
    assert isinstance(rule.threshold, int | float)
    assert set(rule.consequences) <= known


@pytest.mark.parametrize("code", sorted({**CASES, **FORECAST}))
def test_a_rule_fires_on_the_side_of_its_threshold_that_it_names(code):
    def found(threshold=None):
        rules = {"rules": {code: {"threshold": threshold}}}
        if code in CASES:
            findings = diagnose(CASES[code][0], {**CONFIG, **rules}).findings
        else:
            dataset, network, config = FORECAST[code][0]
            findings = forecast(dataset, network, {**config, **rules}).findings
        return next((finding.evidence[0] for finding in findings if finding.code == code), None)

    rule, decisive = next(rule for rule in RULES if rule.code == code), found()
    assert decisive.unit == rule.unit
    if rule.fires == "by definition":
        return
    value = abs(decisive.value) if rule.fires == "apart" else decisive.value
    assert (value > decisive.threshold) == (rule.fires in ("above", "from", "apart"))
    if code not in ("CAE004", "CAE007", "CAE213"):  # whose value is what it is, at any threshold
        assert (found(value) is not None) == (rule.fires in ("from", "up to"))


def test_no_rule_explains_itself_by_a_detour():
    consequences = {rule.code: set(rule.consequences) for rule in RULES}
    for start in consequences:
        reached, todo = set(), set(consequences[start])
        while todo:
            code = todo.pop()
            reached.add(code)
            todo |= consequences[code] - reached
        assert start not in reached


@pytest.mark.parametrize(("pull", "ruled_out"), [(0.0, True), (0.9, True), (2.0, False), (NAN, True)])
def test_a_penalty_that_pulls_harder_than_the_images_is_not_ruled_out(pull, ruled_out):
    dynamics = replace(BLACK.dynamics, penalty_share=0.03, penalty_pull=pull)
    finding = diagnose(replace(BLACK, dynamics=dynamics), CONFIG).findings[0]
    assert ("CAE206" in finding.ruled_out, "CAE206" in finding.unseen) == (ruled_out, not ruled_out)


def test_a_cause_is_ruled_out_only_by_a_value_that_healthy_runs_have():
    def black(peak):
        dynamics = replace(BLACK.dynamics, early_peak=peak)
        return diagnose(replace(BLACK, dynamics=dynamics), CONFIG).findings[0]

    usual, large = black(-1.8), black(-0.8)
    assert usual.code == large.code == "CAE301"
    assert "CAE207" in usual.ruled_out and "CAE207" in large.unseen
    assert "CAE207" not in large.ruled_out + usual.unseen
    assert usual.confidence is Confidence.HIGH and large.confidence is Confidence.MEDIUM


def test_no_fix_is_offered_of_a_cause_that_is_ruled_out():
    mended = set()
    for faulty, _ in CASES.values():
        for finding in diagnose(faulty, CONFIG).findings:
            mended |= {fix.mends for fix in finding.fixes}
            assert not {fix.mends for fix in finding.fixes} & set(finding.ruled_out), finding.code
    assert mended >= {"CAE207", "CAE208", "CAE211"}


def test_first_steps_that_are_small_are_no_low_rate_if_later_ones_are_not():
    """As with RMSprop, whose epsilon counts while gradients are small."""
    assert "CAE208" not in codes(poor(healthy(), early_update=-4.2, last_update=-2.5))


@pytest.mark.parametrize(("moves", "named"), [((0.02, 0.05, 0.3), False), ((0.001, 0.003, 0.3), True)])
def test_first_steps_that_are_small_are_no_low_rate_if_those_after_them_move_the_maps(moves, named):
    """As with momentum at a rate that suits it."""
    hidden = tuple(layer(largest_move=move) for move in moves)
    slow = poor(healthy(), early_update=-4.2, last_update=-4.0)
    slow = replace(slow, layers=(*hidden, layer("output", 1)))
    assert ("CAE208" in codes(slow)) == named


def test_maps_behind_a_code_that_is_drawn_move_by_chance_and_are_no_sign_of_a_rate():
    hidden = tuple(layer(largest_move=move) for move in (0.0003, 0.8, 0.6))
    slow = poor(healthy(), early_update=-3.6, last_update=-3.7)
    slow = replace(slow, layers=(*hidden, layer("output", 1)))
    assert "CAE208" not in codes(slow)
    drawn = replace(slow, latent=replace(slow.latent, informative=0.0))
    assert diagnose(drawn, CONFIG).causes[0].code == "CAE208"


@pytest.mark.parametrize("code", sorted(CASES))
def test_every_finding_names_its_evidence_and_a_way_out(code):
    config = {**CONFIG, "model": {**CONFIG["model"], "output_activation": "softmax"}}
    finding = diagnose(CASES[code][0], config if code == "CAE203" else CONFIG).findings[0]
    assert finding.message and (finding.fixes or finding.advice)
    assert all(
        evidence.unit and evidence.unit.strip("()") in str(evidence) for evidence in finding.evidence
    )
    assert all(evidence.value != evidence.threshold for evidence in finding.evidence)
    threshold = next(r.threshold for r in RULES if r.code == code)
    assert abs(finding.evidence[0].threshold - threshold) <= 0.5  # counts end between two numbers
    low, high = finding.evidence[0].healthy
    assert not low <= finding.evidence[0].value <= high


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

    none = {rule.code: () for rule in RULES}
    found = order([finding("CAE501"), finding("CAE401")], none, none, ())
    assert [f.code for f in found] == ["CAE401", "CAE501"]


def test_a_loss_with_a_floor_may_hardly_fall():
    # Cross-entropy of grey images starts next to where it ends.
    assert codes(with_dynamics(first_val_loss=0.690, last_val_loss=0.688)) == []


@pytest.mark.parametrize("code", sorted(CASES))
def test_what_is_not_a_number_is_not_judged(code):
    nan = float("nan")
    numbers = replace(
        CASES[code][0].quality, explained_variance=nan, train_explained_variance=nan,
        output_variance_share=nan, mse=Mean(nan, nan),
    )  # fmt: skip
    found = diagnose(replace(CASES[code][0], quality=numbers), CONFIG)
    assert {f.code for f in found.findings} <= {
        *WITHOUT_HELD_OUT_IMAGES,
        "CAE103",
        "CAE108",
        "CAE110",
        "CAE112",  # it measures few images in other ways
        "CAE206",
        "CAE213",
    }


def test_a_prescription_replaces_what_the_run_had_set():
    fix = Fix(("loss=bce", "optimizer.learning_rate=0.1"), "why", Safety.SAFE)
    words = [
        "cae",
        "train",
        "+loss=mse",
        "loss.window=7",
        "data.path=my photos",
        "optimizer.learning_rate=1",
    ]
    command = ["cae", "train", "data.path=my photos", "loss=bce", "optimizer.learning_rate=0.1"]
    assert fix.applied(words) == command


def test_a_prescription_keeps_what_still_has_a_place():
    words = ["cae", "train", "regularization=l2", "regularization.l2.strength=0.1", "-cd", "mine"]
    kept = ["cae", "train", "regularization.l2.strength=0.1", "-cd", "mine"]
    fix = Fix(("regularization=[l2,batchnorm]",), "why", Safety.SAFE)
    assert fix.applied(words) == [*kept, "regularization=[l2,batchnorm]"]


def test_a_regularizer_is_added_to_those_the_run_had():
    assert batchnorm(case(CONFIG)).overrides == ("regularization=batchnorm",)
    config = {**CONFIG, "regularization": {"l2": {}, "dropout": {}}}
    assert without(case(config), ["l2", "dropout"], "").overrides == ("regularization=none",)
    assert without(case(config), ["l2"], "").overrides == ("regularization=dropout",)
    assert batchnorm(case(config)).overrides == ("regularization=[l2,dropout,batchnorm]",)


def test_where_nothing_moved_that_is_the_cause():
    faulty = replace(BLACK, layers=(layer(moved=0), layer("output", 1, moved=0)))
    faulty = replace(faulty, dynamics=replace(healthy().dynamics, last_val_loss=0.17))
    diagnosis = diagnose(faulty, {**CONFIG, "optimizer": {"name": "adam", "learning_rate": 0}})
    assert [f.code for f in diagnosis.findings] == ["CAE202", "CAE302"]
    assert diagnosis.findings[0].fixes[0].overrides == ("optimizer.learning_rate=0.001",)
    assert [(s.code, s.reason) for s in diagnosis.skipped] == [("CAE301", "no layer has changed")]


def test_a_gap_within_the_margin_of_few_images_or_without_learning_is_no_memory():
    gap = {"train_explained_variance": 0.9}
    assert codes(with_quality(**gap)) == ["CAE501"]
    assert codes(with_quality(**gap, mse=Mean(0.012, 0.003))) == []
    poor = with_quality(explained_variance=-0.17, train_explained_variance=-0.03)
    assert "CAE501" not in codes(poor)


def test_averages_that_fit_the_training_images_fit_whatever_other_images_gain():
    normalised = replace(healthy().network, normalised=True)

    def found(held_out, training):
        own = with_perturbation(training_mode=held_out, training_mode_train=training)
        return list(diagnose(replace(own, network=normalised), CONFIG).findings)

    assert found(0.4, 0.02) == []
    (lagging,) = found(0.4, 0.3)
    assert lagging.code == "CAE210" and lagging.message.startswith(
        "explained variance is 0.846, and 1.146"
    )
    (unknown,) = found(0.4, float("nan"))
    assert unknown.code == "CAE210" and unknown.message.startswith("explained variance is 0.840")


def test_noise_on_the_input_is_the_first_thing_to_leave_out_where_nothing_is_learned():
    config = known(plain(checked(["regularization=[noise,l2]"])[1]))
    found = {f.code: f for f in diagnose(with_quality(explained_variance=0.05), config).findings}
    assert found["CAE302"].fixes[0].overrides == ("regularization=l2",)


def test_a_code_that_holds_little_beyond_brightness_is_too_small_and_the_cause_of_a_gap_too():
    """Patches of photographs: flat images of the right mean grey explain most."""

    def found(explained, possible, training):
        tests = replace(healthy().perturbation, grey=0.85, projection=possible, skill_score=-0.5)
        quality = replace(
            healthy().quality, explained_variance=explained, train_explained_variance=training
        )
        findings = diagnose(replace(healthy(), quality=quality, perturbation=tests), CONFIG).findings
        return {f.code: f.consequence_of for f in findings if f.severity is not Severity.NOTE}

    assert found(0.9, 0.97, 0.9) == {}
    assert found(0.86, 0.97, 0.86) == {"CAE302": None}
    assert found(0.87, 0.88, 0.87) == {"CAE602": None}
    assert found(0.72, 0.97, 0.91) == {"CAE501": None, "CAE302": "CAE501"}
    small = found(0.72, 0.88, 0.91)
    assert (
        small == {"CAE602": None, "CAE302": "CAE602", "CAE501": None} and next(iter(small)) == "CAE602"
    )


def test_a_gap_between_patches_of_few_files_says_how_many():
    alike = replace(healthy().dataset, train_groups=12, held_out_groups=2)
    gap = replace(with_quality(train_explained_variance=0.9), dataset=alike)
    (found,) = diagnose(gap, CONFIG).findings
    assert "held-out images, which come from 2 other files" in found.message
    assert found.advice == "images from more files than 12: those of one file are alike"


def test_a_gap_that_a_linear_decoder_has_too_is_no_memory():
    # Held-out photographs may simply be harder than those of the training.
    harder = with_quality(train_explained_variance=0.9)
    assert codes(harder) == ["CAE501"]
    assert codes(replace(harder, perturbation=replace(harder.perturbation, linear_train=0.84))) == []
    unknown = replace(harder.perturbation, linear=float("nan"), linear_train=float("nan"))
    assert codes(replace(harder, perturbation=unknown)) == ["CAE501"]


def spiked(at=0.1, inactive_at=None, dead=8, **dynamics):
    """A run that lost at some time all it had gained, and half of its maps with it."""
    inactive_at = {0: 0.0, 128: 0.0, 256: 0.0, 512: 0.5} if inactive_at is None else inactive_at
    return replace(
        with_dynamics(**dynamics),
        loss_spike=LossSpike(1.4, at),
        layers=(layer(dead=dead, inactive_at=inactive_at), layer("output", 1)),
    )


def test_a_rate_that_undoes_what_was_learned_and_kills_is_too_high_however_it_began():
    diagnosis = diagnose(spiked(), CONFIG)
    assert diagnosis.findings[0].code == "CAE207"
    assert "at about step 256 the loss rose by 140%" in diagnosis.findings[0].message
    # Maps that live, that had died before, or that died later: it was not this.
    assert "CAE207" not in codes(spiked(dead=2))
    assert "CAE207" not in codes(spiked(inactive_at={0: 0.0, 128: 0.5, 512: 0.5}))
    assert "CAE207" not in codes(spiked(at=0.01))
    assert "CAE207" not in codes(replace(spiked(), loss_spike=LossSpike(0.9, 0.1)))
    # A penalty that outweighs the images raises their loss, too.
    assert codes(spiked(penalty_share=0.9))[0] == "CAE206"
    assert "CAE207" not in codes(spiked(penalty_share=0.9))


def test_steps_that_move_the_maps_further_than_they_vary_and_kill_are_too_large():
    def moved(far, dead=8, before=0.0):
        """A run whose early steps were small for the weights, and moved the maps this far."""
        hidden = layer(dead=dead, inactive_at={0: before}, largest_move=far)
        return replace(healthy(), layers=(hidden, layer("output", 1, largest_move=20.0)))

    diagnosis = diagnose(moved(1.4), CONFIG)
    assert diagnosis.findings[0].code == "CAE207"
    assert "1.4 times their spread" in diagnosis.findings[0].message
    # Shorter steps, maps that live, maps that were dead before, moves that are not known.
    for other in (moved(0.9), moved(1.4, dead=4), moved(1.4, before=0.5), moved(float("nan"))):
        assert "CAE207" not in codes(other)


def test_a_layer_whose_values_are_mostly_saturated_needs_smaller_weights():
    finding = diagnose(saturated(0.25, 0.1), CONFIG).findings[0]
    assert finding.code == "CAE212" and "40% of the slope" in finding.message
    assert finding.fixes[0].overrides == ("model.initializer=glorot_uniform",)
    assert diagnose(saturated(0.25, 0.24, 0.25, 0.24), CONFIG).findings[0].fixes[0].edit == "ELU"
    # Two sigmoids that are not saturated pass enough, and what works is left alone.
    assert "CAE212" not in codes(saturated(0.25, 0.24))
    assert "CAE212" not in codes(saturated(0.25, 0.1, of=healthy()))


def test_dropout_behind_the_last_layer_counts_whatever_the_result():
    behind = replace(healthy(), network=replace(healthy().network, drops_output=True))
    assert codes(replace(behind, dropout_noise=0.3)) == ["CAE214"]
    assert codes(replace(behind, dropout_noise=0.08)) == []


def test_dropout_that_draws_much_is_a_warning_where_the_result_is_not_poor():
    drawn = replace(healthy(), dropout_noise=0.3)
    [finding] = diagnose(replace(drawn, hidden_dropout_noise=0.2), CONFIG).findings
    assert (finding.code, finding.severity) == ("CAE214", Severity.WARNING)
    assert diagnose(poor(drawn), CONFIG).findings[0].severity is Severity.ERROR
    # A short training had no time to quieten what is drawn.
    assert codes(replace(with_dynamics(steps=500), dropout_noise=0.13, hidden_dropout_noise=0.13)) == []
    # Of a run that was measured by an earlier version, which knew of no masks, it is not known.
    assert "CAE214" in [skipped.code for skipped in diagnose(drawn, CONFIG).skipped]


def test_a_loss_that_is_smallest_elsewhere_is_an_error_where_the_result_is_poor():
    elsewhere = changed("loss", elsewhere=1.1)
    assert diagnose(elsewhere, CONFIG).findings[0].severity is Severity.WARNING
    assert diagnose(poor(elsewhere), CONFIG).findings[0].severity is Severity.ERROR
    # Outputs that the loss no longer moves, as beyond 0 to 1 under cross-entropy.
    finding = diagnose(changed("loss", unmoved=0.4), CONFIG).findings[0]
    assert finding.code == "CAE215" and "40% of the squared error" in finding.message
    unknown = diagnose(changed("loss", elsewhere=NAN, unmoved=NAN), CONFIG)
    assert [skipped.code for skipped in unknown.skipped] == ["CAE215"]


def test_pixels_that_are_not_read_or_not_drawn_are_said_where_they_matter():
    unread = changed("reach", unread=0.4, pixels=0.44, rows=7, columns=7)
    jumping = replace(unread, network=replace(unread.network, skipping=("conv2d",)))
    [finding] = diagnose(jumping, CONFIG).findings
    assert "44% of the pixels (7 of 28 rows, 7 of 28 columns)" in finding.message
    assert "larger than the kernel in conv2d" in finding.message
    assert finding.severity is Severity.WARNING
    assert diagnose(poor(jumping), CONFIG).findings[0].severity is Severity.ERROR
    drawn = diagnose(changed("reach", unreached=0.4), CONFIG).findings[0]
    assert drawn.code == "CAE606" and "the same for every image" in drawn.message
    unknown = diagnose(changed("reach", unread=NAN, unreached=NAN), CONFIG)
    assert [skipped.code for skipped in unknown.skipped] == ["CAE606"]


def test_half_precision_is_blamed_for_what_it_does_only():
    half = replace(healthy(), network=replace(healthy().network, half_precision="float16"))
    assert "CAE213" not in codes(half)
    broken = replace(half, dynamics=replace(half.dynamics, diverged_at=3))
    still = replace(half, layers=(layer(moved=0.0), layer("output", 1)))
    for found, said in ((broken, "not finite"), (still, "of encoder_1 were rounded away")):
        assert said in next(f for f in diagnose(found, CONFIG).findings if f.code == "CAE213").message
        assert codes(replace(found, network=healthy().network)) != codes(found)


def test_a_loss_that_still_falls_faster_than_any_healthy_one_needs_more_time():
    assert codes(with_dynamics(slope=0.09)) == ["CAE211"]
    assert codes(with_dynamics(slope=0.07)) == []
    # A short run, or a poor result, makes less of it count; both together still less.
    assert codes(with_dynamics(slope=0.04, steps=200)) == ["CAE211"]
    assert codes(with_dynamics(slope=0.02, steps=200)) == []
    assert "CAE211" in codes(poor(healthy(), slope=0.04))
    assert "CAE211" not in codes(poor(healthy(), slope=0.02))
    assert "CAE211" in codes(poor(healthy(), slope=0.02, steps=200))
    assert codes(with_dynamics(slope=0.09), {**CONFIG, "rules": {"CAE211": {"threshold": 0.03}}}) == []


def test_constants_beyond_the_contrast_are_wrong_where_the_loss_cannot_be_computed_anew():
    def said(k2):
        config = known({**CONFIG, "loss": {"name": "ms_ssim", "k1": 0.01, "k2": k2}})
        return codes(with_dynamics(reported_loss=0.1, recomputed_loss=NAN), config)

    assert said(7.65) == ["CAE204"] and said(0.03) == []


@pytest.mark.parametrize(
    ("latent", "copied", "expected"),
    [
        ((7, 7, 1), 0.2, []),
        ((7, 7, 1), 0.3, ["CAE503"]),  # a linear description of 49 values passes 0.06
        ((14, 14, 2), 0.55, []),  # half the image: up to a fifth more than that
        ((14, 14, 2), 0.65, ["CAE503"]),
        ((14, 14, 3), 0.86, []),
        ((14, 14, 3), 0.89, ["CAE503"]),
        ((14, 14, 4), 0.4, ["CAE005"]),  # as large as the image, which is a note
        ((14, 14, 4), 0.6, ["CAE503", "CAE005"]),
        ((14, 14, 16), 0.2, ["CAE503", "CAE005"]),  # four times the image: no bottleneck at all
        ((14, 14, 16), 0.05, ["CAE005"]),
    ],
)
def test_copying_counts_beyond_what_a_linear_description_of_the_same_size_passes(
    latent, copied, expected
):
    network = replace(healthy().network, latent_shape=latent)
    diagnosis = diagnose(replace(with_perturbation(pixel_copy=copied), network=network), CONFIG)
    assert [f.code for f in diagnosis.findings] == expected
    assert [f.code for f in diagnosis.causes] == [code for code in expected if code != "CAE005"]


def test_the_fixes_of_a_dense_code_change_its_number_of_values():
    tight, _ = CASES["CAE602"][:2]
    dense = replace(tight.network, latent_shape=(4,))
    (fix,) = diagnose(replace(tight, network=dense), CONFIG).findings[0].fixes
    assert fix.overrides == ("model.latent_units=16",) and fix.keras == "latent_units = 16"
    large = replace(healthy().network, latent_shape=(1600,))
    found = forecast(healthy().dataset, large, CONFIG).findings[0]
    noise, half = (fix.overrides for fix in found.fixes)  # no other stages: the code stays as large
    assert noise == ("regularization=noise",) and half == (f"model.latent_units={28 * 28 // 2}",)


def test_rules_that_find_nothing_say_what_they_measured():
    values = diagnose(healthy(), CONFIG).values
    assert values["CAE401"].value == max(x.maps.inactive_share for x in healthy().layers)
    assert values["CAE401"].threshold == 0.4 and values["CAE302"].healthy == (0.7, 1)
    assert values["CAE302"].value == pytest.approx(healthy().quality.explained_variance)
    assert "CAE209" not in values  # has one right value
    own = {"rules": {"CAE401": {"threshold": 0.9}}}
    assert diagnose(healthy(), {**CONFIG, **own}).values["CAE401"].threshold == 0.9
    collapsed = diagnose(with_quality(output_variance_share=0.01), CONFIG)
    assert "CAE301" in [f.code for f in collapsed.findings] and "CAE301" not in collapsed.values


def test_a_value_beyond_the_threshold_that_is_fine_is_shown_without_the_threshold():
    still = replace(healthy().dynamics, slope=0.02, steps=2000)
    found = diagnose(replace(healthy(), dynamics=still), CONFIG)
    assert "CAE211" in found.passed and found.values["CAE211"].value == 0.02
    assert math.isnan(found.values["CAE211"].threshold)


@pytest.mark.parametrize("margin", [0.0, 0.05])
def test_a_pixel_copy_within_its_margin_of_the_limit_is_no_finding(margin):
    tests = with_perturbation(pixel_copy=0.62, pixel_copy_margin=margin)
    assert ("CAE503" in [f.code for f in diagnose(tests, CONFIG).findings]) == (margin == 0)


def test_an_excess_of_latent_values_is_a_risk_before_training_and_a_note_after_it():
    large = replace(healthy().network, latent_shape=(14, 14, 8))
    (before,) = forecast(healthy().dataset, large, CONFIG).findings
    (after,) = diagnose(replace(healthy(), network=large), CONFIG).findings
    assert (before.severity, after.severity) == (Severity.WARNING, Severity.NOTE)


def test_a_note_is_no_problem():
    diagnosis = diagnose(CASES["CAE303"][0], CONFIG)
    assert diagnosis.worst is Severity.NOTE
    assert diagnosis.verdict.startswith(f"no problem found by {len(AFTER) - 1} rules, 1 note; ")


def test_an_absurd_learning_rate_is_replaced_and_not_divided():
    config = known({**CONFIG, "optimizer": {"name": "sgd", "learning_rate": 1e12}})
    first = diagnose(with_dynamics(diverged_at=3), config).findings[0].fixes[0]
    assert first.overrides == ("optimizer.learning_rate=0.1",)


@pytest.mark.parametrize("model", ["baseline", "strided", "shallow", "residual"])
@pytest.mark.parametrize("shape", [(40, 60, 1), (128, 128, 3), (200, 300, 3), (512, 512, 1)])
def test_the_stages_that_are_proposed_for_a_small_field_are_enough(model, shape):
    def found(*words):
        config = checked([f"model={model}", *words])[1]
        network = plan(shape, config.model)
        return network, [
            f for f in forecast(healthy().dataset, network, known(plain(config))).findings
            if f.code == "CAE006"
        ]  # fmt: skip

    before, few = found()
    assert bool(few) == (before.receptive_field / min(shape[:2]) < 0.15)
    if few:
        assert found(*few[0].fixes[0].overrides)[1] == []


def test_softmax_is_to_be_replaced():
    config = known(plain(checked(["model.output_activation=softmax"])[1]))
    softmax = replace(BLACK, network=replace(BLACK.network, output_activation="softmax"))
    assert diagnose(softmax, config).findings[0].fixes[0].overrides == (
        "model.output_activation=sigmoid",
    )


BASES = [
    [],
    ["loss=huber", "loss.delta=0.5", "regularization=[l2,dropout]", "regularization.dropout.rate=0.5"],
    ["loss=bce", "regularization=batchnorm"],
    ["loss=ssim", "loss.window=7", "model=l2"],
    ["model.output_activation=linear", "model.activation=elu", "optimizer=sgd", "augmentation=flip"],
    ["model.output_activation=softmax", "optimizer.clip_norm=1", "data.train=null"],
    ["experiment=reference_2_l2_augmented", "optimizer.learning_rate=1e-2"],
    ["data=npz", "data.path=x.npz", "data.train=100", "schedule=plateau", "optimizer.learning_rate=0"],
]


@pytest.mark.parametrize("code", sorted({**CASES, **FORECAST}))
def test_every_fix_has_a_form_for_keras_scripts(code):
    if code in CASES:
        findings = diagnose(CASES[code][0], CONFIG).findings
    else:
        findings = forecast(*FORECAST[code][0]).findings
    for finding in findings:
        for fix in finding.fixes:
            assert fix.keras and not any(override in fix.keras for override in fix.overrides)


def test_a_layer_that_a_script_froze_is_to_be_made_trainable_again():
    finding = diagnose(CASES["CAE209"][0], {}).findings[0]
    assert finding.fixes[0].keras == "layer.trainable = True  # encoder_1"


@pytest.mark.parametrize("whole", [1, pytest.param(len(BASES), marks=pytest.mark.soak)])
def test_every_fix_composes_and_changes_the_run(whole):
    """All fixes of the first bases; of the others those that no base before has had."""
    composed = set()
    for number, base in enumerate(BASES):
        before = checked(base)[1]
        for code in sorted(CASES):
            findings = diagnose(CASES[code][0], known(plain(before))).findings
            restrained = code == "CAE005" and {"noise", "dropout"} & set(plain(before)["regularization"])
            assert restrained or code in {finding.code for finding in findings}, base
            for fix in (fix for finding in findings for fix in finding.fixes):
                key = (number, fix.overrides) if number < whole else fix.overrides
                if key in composed:
                    continue
                composed |= {key, fix.overrides}
                words = fix.applied(["cae", "train", *base])
                assert words[:2] == ["cae", "train"]
                assert checked(words[2:])[1] != before, (base, code, fix)


# What is known of a script, for which there are fixes that no override makes.
ADAM = {"name": "adam", "learning_rate": 0.001, "usual_rate": 0.001}
SCRIPT = known({"loss": {"name": "mse"}, "optimizer": ADAM})


@pytest.mark.parametrize(
    ("output", "loss", "first"),
    [
        ("sigmoid", "mse", "loss=bce"),
        ("linear", "mse", "regularization=batchnorm"),
        ("tanh", "mse", "model.output_activation=linear"),
        ("sigmoid", "bce", "regularization=batchnorm"),
    ],
)
def test_a_script_gets_fixes_for_the_output_that_it_has(output, loss, first):
    network = replace(healthy().network, output_activation=output, normalised=False)
    script = known({**SCRIPT, "loss": {"name": loss}})
    fixes = diagnose(replace(BLACK, network=network), script).findings[0].fixes
    assert fixes[0].overrides == (first,)
    assert output != "linear" or ("model.output_activation=linear",) not in [f.overrides for f in fixes]


def test_what_the_network_of_a_script_has_is_no_fix():
    def proposed(code, **network):
        faulty = CASES[code][0]
        faulty = replace(faulty, network=replace(faulty.network, **network))
        return [fix.overrides for fix in diagnose(faulty, SCRIPT).findings[0].fixes]

    assert ("regularization=batchnorm",) in proposed("CAE401", normalised=False)
    assert ("regularization=batchnorm",) not in proposed("CAE401", normalised=True)
    assert ("model.skips=false",) in proposed("CAE502", skips=True)
    assert proposed("CAE502", skips=False) == []


def test_a_script_is_told_of_the_momentum_whose_default_is_too_near_to_1():
    first = diagnose(CASES["CAE210"][0], SCRIPT).findings[0].fixes[0]
    assert first.keras.startswith("BatchNormalization(momentum=0.9)")
    config = {**CONFIG, "regularization": {"batchnorm": {"momentum": 0.9}}}
    assert diagnose(CASES["CAE210"][0], config).findings[0].fixes[0].overrides[0].startswith("training")


@pytest.mark.parametrize(
    ("rate", "usual", "keras", "why"),
    [
        (1e12, 0.1, "learning_rate=0.1", "the usual learning rate"),
        (1e12, None, "learning_rate=0.001", "the usual learning rate of Adam"),
        (None, 0.1, "learning_rate *= 0.1", "a tenth of the learning rate"),
    ],
)
def test_no_rate_is_called_usual_of_an_optimizer_that_is_not_known(rate, usual, keras, why):
    optimizer = {"name": "its name", "learning_rate": rate, "usual_rate": usual}
    script = known({**SCRIPT, "optimizer": optimizer})
    first = diagnose(with_dynamics(diverged_at=3), script).findings[0].fixes[0]
    assert (first.keras, first.why) == (keras, why)


@pytest.mark.parametrize("code", ["CAE109", "CAE112", "CAE113"])
def test_of_images_that_tell_nothing_of_the_filters_the_verdict_cannot_tell(code):
    diagnosis = diagnose(CASES[code][0], CONFIG)
    assert diagnosis.verdict == f"cannot tell: {diagnosis.findings[0].problem}"


def test_a_way_around_the_latent_code_is_usual_for_restoration():
    restoring = replace(CASES["CAE502"][0], paired=True)
    [finding] = diagnose(restoring, CONFIG).findings
    assert (finding.code, finding.severity) == ("CAE502", Severity.NOTE)
    assert not finding.fixes and "for restoration this is usual" in finding.advice


@pytest.mark.parametrize("network", [{"normalised": True}, {"normalised": False, "shortcuts": True}])
def test_many_layers_do_no_harm_where_signals_do_not_fade(network):
    assert "CAE605" not in codes(poor(changed("network", depth=20, **network)))


def test_the_number_of_steps_counts_whatever_the_epochs_say():
    training = {"epochs": 10, "batch_size": 32}
    assert not forecast(*seen(group("training", **training, steps=2000), train=320)).findings
    few = forecast(*seen(group("training", **training, steps=50), train=320)).findings[0]
    assert few.evidence[0].value == 50 and few.fixes[0].overrides == ("training.steps=768",)
    epochs = forecast(*seen(group("training", **training), train=320)).findings[0]
    assert epochs.evidence[0].value == 100 and epochs.fixes[0].overrides == ("training.epochs=77",)


def test_ssim_of_images_that_fill_little_of_0_to_1_needs_other_images_and_not_other_constants():
    paper = {"loss": {"name": "ssim", "k1": 0.01, "k2": 0.03}}
    [dark] = forecast(*seen(paper, high=0.19)).findings
    assert dark.code == "CAE008"
    assert [fix.overrides for fix in dark.fixes] == [("data.scale=minmax",)]
    # One constant that is far too small is not hidden by the other.
    [small] = forecast(*seen({"loss": {"name": "ssim", "k1": 0.01, "k2": 0.003}})).findings
    assert small.evidence[0].value == pytest.approx(-1)
    assert [fix.overrides for fix in small.fixes] == [("loss.k1=0.01", "loss.k2=0.03")]


def test_a_variational_autoencoder_without_its_divergence_is_none():
    weaker, none = diagnose(CASES["CAE505"][0], SCRIPT).findings[0].fixes
    assert (weaker.safety, none.safety) == (Safety.SAFE, Safety.TRADE)


def test_what_has_one_healthy_value_by_definition_is_shown_without_a_threshold():
    [evidence] = diagnose(with_dynamics(diverged_at=312), CONFIG).findings[0].evidence
    assert str(evidence) == "first step that is not finite: 312 (step)"


def test_duplicates_are_counted_where_they_tell_something():
    def found(*layers):
        return diagnose(replace(healthy(), layers=layers), CONFIG)

    uncounted = layer("shortcut", duplicates=None)
    assert [f.code for f in found(layer(duplicates=6), uncounted).findings] == ["CAE402"]
    assert "CAE402" in [s.code for s in found(uncounted, uncounted).skipped]


def test_denoising_is_no_mismatch():
    def found(correlation, erased=NAN):
        noise = {"difference_correlation": correlation, "erased": erased}
        return codes(changed("batches", pair=0.5, **noise))

    assert found(0.01) == found(0.7, erased=1.0) == []
    assert found(0.7) == found(NAN) == found(0.7, erased=0.9) == ["CAE103"]


def test_the_range_that_a_network_was_made_for_counts():
    metrics = replace(changed("network", span=(0.0, 255.0)), batches=None)
    assert codes(metrics) == ["CAE102"]
    linear = replace(metrics.network, output_activation="linear")
    assert codes(replace(metrics, network=linear)) == []


def test_images_without_contrast_have_no_noise_to_judge():
    skipped = {s.code for s in diagnose(changed("dataset", correlation=NAN), CONFIG).skipped}
    assert {"CAE104", "CAE105"} <= skipped


@pytest.mark.parametrize(("steps", "change"), [(10, "training.steps=30"), (None, "training.epochs=6")])
def test_a_longer_training_has_more_of_what_decides_its_length(steps, change):
    training = {**CONFIG["training"], "epochs": 2, "steps": steps}
    assert longer(case({**CONFIG, "training": training})).overrides == (change,)


def test_a_network_trained_for_similarity_may_give_up_squared_error():
    faulty = replace(
        with_dynamics(slope=0.05), perturbation=replace(healthy().perturbation, skill_score=-0.3)
    )
    assert codes(faulty)[0] == "CAE211"
    similar = diagnose(faulty, known({**CONFIG, "loss": {"name": "ssim"}}))
    assert [f.code for f in similar.findings] == ["CAE303"]  # a note
