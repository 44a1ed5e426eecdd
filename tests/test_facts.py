"""What losses and optimizers declare about themselves, as a run records it."""

import pytest

from cae_cli.diagnosis import Case
from cae_cli.training.facts import facts
from cae_cli.training.losses import LOSSES, name_of_keras_loss
from cae_cli.training.optimizers import OPTIMIZERS
from tests.test_diagnosis import CONFIG, healthy


def of_loss(name):
    return facts({"loss": {"name": name}})["loss"]


def test_similarity_losses_alone_give_up_squared_error():
    assert {n for n in LOSSES if of_loss(n)["gives_up_squared_error"]} == {"ssim", "ms_ssim"}
    assert {n for n in LOSSES if of_loss(n)["validation_metric"]} == {"ssim"}


def test_what_a_saturated_sigmoid_does_to_a_loss_is_known_for_three():
    known = {n: of_loss(n)["survives_saturation"] for n in LOSSES}
    assert {n: v for n, v in known.items() if v is not None} == {
        "mse": False, "huber": False, "bce": True,
    }  # fmt: skip
    assert {n for n in LOSSES if of_loss(n)["needs_unit_outputs"]} == {"bce"}


def test_cross_entropy_of_logits_takes_any_output_and_of_a_loss_of_ones_own_nothing_is_known():
    for logits, needs in ((False, True), (True, False), (None, False)):
        found = facts({"loss": {"name": "bce", "from_logits": logits}})
        assert found["loss"]["needs_unit_outputs"] is needs


def test_optimizers_work_at_the_rate_of_adam_unless_they_say_otherwise():
    rates = {n: facts({"optimizer": {"name": n}})["optimizer"]["usual_rate"] for n in OPTIMIZERS}
    assert {n: r for n, r in rates.items() if r != 0.001} == {"sgd": 0.1, "adadelta": 1.0}


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("mse", "mse"), ("mean_squared_error", "mse"), ("MeanSquaredError", "mse"), ("MAE", "mae"),
        ("BinaryCrossentropy", "bce"), ("binary_crossentropy", "bce"), ("Huber", "huber"),
        ("my_ssim_loss", "ssim"), ("Something", "something"), (None, None),
    ],
)  # fmt: skip
def test_a_loss_of_keras_is_known_by_each_of_its_names(given, name):
    assert name_of_keras_loss(given) == name


def test_an_unknown_loss_and_an_empty_config_have_the_default_facts():
    assert facts({}) == facts({"loss": {"name": "mine"}, "optimizer": {"name": "mine"}})
    assert not facts({})["loss"]["gives_up_squared_error"]


def test_a_rule_reads_the_facts_of_a_run():
    metrics = healthy()
    config = {**CONFIG, "facts": facts({"loss": {"name": "ssim"}, "optimizer": {"name": "sgd"}})}
    case = Case(metrics.dataset, metrics.network, config, metrics)
    assert case.fact("loss.gives_up_squared_error") and case.fact("optimizer.usual_rate") == 0.1
    assert Case(metrics.dataset, metrics.network, {}, metrics).fact("optimizer.usual_rate") is None
