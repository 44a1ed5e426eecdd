"""The typed schema: the config groups, the dataclasses of their options, and the check of a config.

A group is of one of three kinds: *one* set of options (model), *variants* with different options, whose
``name`` says which one it is (loss), or *several* at once, each under its own key (regularization).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from cae_cli.data import SOURCES, DataOptions
from cae_cli.data.augmentation import Augmentation
from cae_cli.diagnosis import RULES, RuleOptions
from cae_cli.errors import did_you_mean, to_paste
from cae_cli.model.options import ModelOptions
from cae_cli.model.regularization import REGULARIZERS, Regularizer
from cae_cli.options import Catalogue, OptionError, build, not_a_group, option
from cae_cli.trackers import TRACKERS, NoTracker, Tracker
from cae_cli.training.losses import LOSSES, Loss
from cae_cli.training.optimizers import OPTIMIZERS, SCHEDULES, Optimizer, Schedule
from cae_cli.training.options import TrainingOptions

# Metrics that a sweep may optimize, all of held-out images, and the direction.
METRICS = {"val/psnr": "max", "val/ssim": "max", "val/mse": "min", "val/loss": "min", "explained": "max"}


LONGEST_NAME = 255  # bytes of the name of a folder


@dataclass(frozen=True, kw_only=True)
class General:
    """The keys without a group."""

    seed: int = option(
        "seed of the initial weights, the order of the images, dropout, noise and augmentation",
        least=0,
        most=2**31 - 1,
    )
    task_name: str = option("folder below runs/")
    tags: list[str] = option("labels to find the run by")
    optimized_metric: str | None = option(
        "metric that a searching sweeper optimizes", choices=tuple(METRICS)
    )


@dataclass(frozen=True, kw_only=True)
class Config(General):
    """A checked config."""

    data: DataOptions
    augmentation: Augmentation
    model: ModelOptions
    regularization: Mapping[str, Regularizer]
    loss: Loss
    optimizer: Optimizer
    schedule: Schedule
    training: TrainingOptions
    tracker: Tracker | NoTracker
    rules: Mapping[str, RuleOptions]


ONE: dict[str, type] = {
    "augmentation": Augmentation,
    "model": ModelOptions,
    "training": TrainingOptions,
}
VARIANTS: dict[str, Catalogue[Any]] = {
    "data": SOURCES,
    "loss": LOSSES,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "tracker": TRACKERS,
}
SEVERAL: dict[str, Catalogue[Any]] = {"regularization": REGULARIZERS}
# Groups whose options change keys of other groups, and have no node in the config.
DEVIATIONS = ("experiment", "debug")

# The groups and their meaning, in the order of the documentation.
GROUPS = {
    "model": "the network",
    "loss": "what the training minimises",
    "regularization": "penalties, dropout, batch normalisation, noise; several: '[l2,dropout]'",
    "augmentation": "random transforms of the training images",
    "data": "the images; data=python data.path=mine.py:load: those of your own function",
    "optimizer": "the optimizer and its learning rate",
    "schedule": "how the learning rate changes during training",
    "training": "epochs, batch size, early stopping",
    "tracker": "where the run is written to as well, after each epoch",
    "experiment": "named configurations: values of many keys",
    "debug": "short runs for a quick check",
}


def parse(node: Mapping[Any, Any] | DictConfig) -> Config:
    """Checks a config.

    Args:
        node: what Hydra composed, its own ``hydra`` node is ignored; or `plain` containers, where text
            such as ``${key}`` is just text.

    Returns:
        The config, typed.

    Raises:
        OptionError: unknown or missing key, wrong type, value out of range.
    """
    for group in DEVIATIONS:
        if node.get(group) is not None:
            raise OptionError(
                group,
                "has no effect: its keys were added below it instead of replacing other keys",
                hint=f"add this first line to the file in {group}/: # @package _global_",
            )
    parts: dict[str, Any] = {}
    groups = (*ONE, *VARIANTS, *SEVERAL)
    # Hydra's node has values that exist only in a job, so the config is not resolved as a whole.
    elsewhere = (*groups, *DEVIATIONS, "rules", "hydra")
    # Runs of older versions have no optimized_metric.
    given: dict[str, Any] = {"optimized_metric": None}
    for key in (str(key) for key in node if key not in elsewhere):
        is_missing = isinstance(node, DictConfig) and OmegaConf.is_missing(node, key)
        given[key] = "???" if is_missing else node[key]
    general = build(General, given, "")
    task = general.task_name
    if not re.fullmatch(r"\w[\w.-]*", task) or len(task.encode()) > LONGEST_NAME:
        raise OptionError(
            "task_name",
            f"must be the name of a folder, got {task!r}",
            hint=f"use at most {LONGEST_NAME} letters, digits, dots, dashes and underscores; "
            "the first is no dot and no dash",
        )
    if node.get("tracker") is None and not isinstance(node, DictConfig):
        node = {**node, "tracker": {"name": "none"}}  # neither have they a tracker
    for group in groups:
        if node.get(group) is None and group not in SEVERAL:
            raise OptionError(
                group, "has no value", hint=f"choose one: {to_paste('cae', 'options', group)}"
            )
    for group, cls in ONE.items():
        parts[group] = build(cls, node[group], group)
    for group, catalogue in VARIANTS.items():
        parts[group] = build(variant(node[group], catalogue), node[group], group, ignore=("name",))
    for group, catalogue in SEVERAL.items():
        parts[group] = {}
        given = node.get(group) or {}
        if not isinstance(given, DictConfig | dict):
            raise not_a_group(group, given)
        for name in map(str, given):
            key = f"{group}.{name}"
            if not isinstance(name, str) or name not in catalogue:
                raise OptionError(key, "is not an option", hint=did_you_mean(name, catalogue))
            parts[group][name] = build(catalogue[name], node[group][name], key)
    return Config(**vars(general), **parts, rules=_rules(node.get("rules")))


def _rules(given: Any) -> dict[str, RuleOptions]:
    """The options of single rules, by code."""
    if given is None:
        return {}
    if not isinstance(given, DictConfig | dict):
        raise OptionError(
            "rules",
            f"must name a rule and an option, got {str(given)!r}",
            hint="use rules.CAE401.threshold=… or rules.CAE401.enabled=false",
        )
    codes = [rule.code for rule in RULES]
    options = {}
    for code, given_options in ((str(code), given[code]) for code in given):
        if code not in codes:
            raise OptionError(
                f"rules.{code}", "is not a rule", hint=f"{did_you_mean(code, codes)} (cae rules)"
            )
        if not isinstance(given_options, DictConfig | dict):
            raise OptionError(
                f"rules.{code}",
                f"must name an option, got {given_options!r}",
                hint=f"use rules.{code}.threshold=… or rules.{code}.enabled=false",
            )
        whole = {
            "threshold": None,
            "enabled": True,
            **{str(key): given_options[key] for key in given_options},
        }
        options[code] = build(RuleOptions, whole, f"rules.{code}")
    return options


def variant(node: Any, catalogue: Catalogue[Any]) -> type[Any]:
    """The class of the option that a group's node has, by its ``name``."""
    if not isinstance(node, Mapping | DictConfig):
        raise not_a_group(catalogue.group, node)
    name = node.get("name")
    if name is None:
        raise OptionError(
            f"{catalogue.group}.name",
            "has no value",
            hint=f"set it to one of {', '.join(sorted(catalogue))}",
        )
    if not isinstance(name, str) or name not in catalogue:
        raise OptionError(
            f"{catalogue.group}.name",
            f"must be one of {', '.join(sorted(catalogue))}, got {name!r}",
            hint=did_you_mean(str(name), catalogue),
        )
    return catalogue[name]


def plain(config: Config) -> dict[str, Any]:
    """A checked config as plain containers, as in YAML."""
    content = asdict(config)
    for group, catalogue in VARIANTS.items():
        cls = type(getattr(config, group))
        name = next(name for name, other in catalogue.items() if other is cls)
        content[group] = {"name": name, **content[group]}
    return content
