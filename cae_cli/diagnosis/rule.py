"""What a rule is, and the catalogue of all of them, in the order in which they are asked."""

from __future__ import annotations

import copy
import importlib.util
import math
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar

from cae_cli.diagnosis.finding import (
    Evidence,
    Finding,
    Fix,
    Safety,
    Severity,
    Skipped,
    judged,
)
from cae_cli.errors import UserError
from cae_cli.metrics.dataset import DatasetStatistics
from cae_cli.metrics.measured import Layer, Metrics
from cae_cli.metrics.network import Network
from cae_cli.options import option

FEWEST_IMAGES = 16  # the spread over images, and a share of it, need some
# Collapsed outputs and dead maps show by step 128 on Fashion-MNIST, MNIST and Omniglot; before that
# healthy networks may look like sick ones.
FEWEST_STEPS = 128
# Healthy networks have passed the linear decoder by then.
STEPS_FOR_SKILL = 768

# An explained variance below this is next to nothing: 0 is the mean image, healthy runs are above .7.
LITTLE_EXPLAINED = 0.1
# Below this skill score a network is worse than an average and a linear decoder; healthy: -.01 to .38.
POOR_SKILL = -0.06
# The same for networks trained for SSIM: healthy ones have -.21 to .20 after 1,280 steps.
POOR_SKILL_OF_SIMILARITY = -1.0
# A layer whose kernel moved by a smaller share than this is where the initializer had put it.
UNMOVED = 1e-3
# From this share of inactive maps on a layer has lost its function; healthy: 0 to .25.
MANY_INACTIVE = 0.4

# Largest update ratios (log10) of the first steps in healthy networks: attention, and Adam at .01.
USUAL_UPDATES = (-2.5, -1.03)

# What healthy runs show where several rules look at it: skill score, inactive maps of the worst layer.
USUAL_SKILL = (-0.01, 0.38)
USUAL_INACTIVE = (0.0, 0.25)
# What any cause that keeps a network from learning leads to.
SYMPTOMS = ("CAE202", "CAE301", "CAE302", "CAE303", "CAE401", "CAE402")
# What a network that never came to learn shows as well.
NEVER_LEARNED = (*SYMPTOMS, "CAE211", "CAE602")

# Where optimizers that are not of Adam's kind usually work; the others do at 0.001.
USUAL_RATES = {"sgd": 0.1, "adadelta": 1.0}


class When(Enum):
    """What a rule needs to look at."""

    BEFORE = "the images, the network and the options, before training"
    ALWAYS = "the images and the network, before training or after it"
    AFTER = "a trained network"


@dataclass(frozen=True, kw_only=True)
class RuleOptions:
    """What a person may say of a rule: ``rules.CAE401.threshold=.5``."""

    threshold: float | None = option("where the rule draws its line; null: its own")
    silent: bool = option("the rule does not look")


@dataclass(frozen=True)
class Case:
    """What a rule looks at.

    Attributes:
        dataset: of the images.
        network: what it is made of.
        config: the run's composed config as plain containers; empty for a model that this tool did
            not train.
        trained: what was measured; None before training.
    """

    dataset: DatasetStatistics
    network: Network
    config: Mapping[str, Any]
    trained: Metrics | None = None

    @property
    def metrics(self) -> Metrics:
        """What was measured, for rules that are asked after training only."""
        assert self.trained is not None
        return self.trained

    def option(self, path: str) -> Any:
        """The config's value at a dotted path, None if there is none."""
        node: Any = self.config
        for key in path.split("."):
            node = node.get(key) if isinstance(node, Mapping) else None
        return node

    @property
    def unusable(self) -> str | None:
        """Why nothing can be said of held-out images, or None if something can."""
        quality = self.metrics.quality
        if not math.isfinite(quality.explained_variance + quality.train_explained_variance):
            return "the reconstruction is not made of finite numbers"
        count = quality.images
        if count >= FEWEST_IMAGES:
            return None
        return f"only {count} held-out image{'' if count == 1 else 's'}, {FEWEST_IMAGES} are needed"

    @property
    def too_early(self) -> str | None:
        """Why nothing can be said of what training made of the network, or None if something can."""
        return self.sooner_than(FEWEST_STEPS)

    def sooner_than(self, needed: int) -> str | None:
        """Why a rule that needs so many steps cannot look, or None if it can."""
        if self.unusable:
            return self.unusable
        steps = self.metrics.dynamics.steps
        if steps is None or steps >= needed:
            return None
        return f"only {steps} steps, {needed} are needed"

    @property
    def unwatched(self) -> str | None:
        """Why nothing can be said of how the training went, or None if something can."""
        return "nobody watched the training" if self.metrics.dynamics.steps is None else self.too_early

    @property
    def poor(self) -> bool:
        """Whether the network does worse than an average and a linear decoder would.

        A network that was trained for similarity gives up squared error for it: there only a result
        that is far worse counts.
        """
        metrics = self.metrics
        similarity = self.option("loss.name") in ("ssim", "ms_ssim")
        least = POOR_SKILL_OF_SIMILARITY if similarity else POOR_SKILL
        return (
            metrics.quality.explained_variance < LITTLE_EXPLAINED
            or metrics.perturbation.skill_score < least
        )

    @property
    def hidden(self) -> list[Layer]:
        """The convolutions before the last one, or all if there is but one."""
        layers = list(self.metrics.layers)
        return layers[:-1] or layers

    @property
    def inactive(self) -> float:
        """Share of inactive maps in the worst hidden layer."""
        return max((layer.maps.inactive_share for layer in self.hidden), default=0.0)

    def adding(self, regularizer: str) -> str:
        """The override that adds a regularizer to those the run had."""
        names = [*(self.option("regularization") or {})]
        names += [regularizer] if regularizer not in names else []
        return _regularization(names)

    def without(self, regularizers: Iterable[str]) -> str:
        """The override that leaves out some of the regularizers that the run had."""
        left_out = set(regularizers)
        return _regularization([n for n in self.option("regularization") or {} if n not in left_out])

    @property
    def unmoved(self) -> bool:
        """Whether training left every layer where the initializer had put it."""
        return all(layer.weight_change < UNMOVED for layer in self.metrics.layers)

    @property
    def usual_rate(self) -> float:
        """The learning rate at which the optimizer usually works."""
        return USUAL_RATES.get(str(self.option("optimizer.name")), 1e-3)

    def slower(self) -> Fix:
        """A tenth of the learning rate, or a usual one where that is still far too large."""
        rate = float(self.option("optimizer.learning_rate") or 0)
        if rate > 10 * self.usual_rate or not rate:
            return Fix(
                (f"optimizer.learning_rate={self.usual_rate:g}",), "a usual size of step", Safety.SAFE
            )
        return Fix((f"optimizer.learning_rate={rate / 10:g}",), "a tenth of the step", Safety.SAFE)

    def faster(self) -> Fix:
        """Ten times the learning rate, or a usual one where that is still far too small."""
        rate = float(self.option("optimizer.learning_rate") or 0)
        if rate < self.usual_rate / 10:
            return Fix(
                (f"optimizer.learning_rate={self.usual_rate:g}",), "a usual size of step", Safety.SAFE
            )
        return Fix((f"optimizer.learning_rate={10 * rate:g}",), "ten times the step", Safety.SAFE)

    def longer(self) -> Fix:
        """Three times the epochs."""
        epochs, steps = self.option("training.epochs"), self.option("training.steps")
        overrides = [f"training.epochs={3 * int(epochs or 1)}"]
        if steps:
            overrides.append(f"training.steps={3 * int(steps)}")
        return Fix(tuple(overrides), "train longer", Safety.SLOW)

    def reviving(self) -> list[Fix]:
        """What brings dead filters back."""
        why = "no filter can stay below zero"
        ways = [Fix((self.adding("batchnorm"),), why, Safety.SAFE)]
        if self.network.hidden_activation == "relu":
            why = "a gradient below zero"
            ways.append(Fix(("model.activation=leaky_relu",), why, Safety.SAFE))
        return ways

    def even_overlap(self) -> list[Fix]:
        """What keeps transposed convolutions from overlapping unevenly."""
        kernel = int(self.option("model.sampling_kernel") or 3)
        ways = [Fix(("model.upsampling=nearest",), "no overlap at all", Safety.SAFE)]
        if kernel % 2:
            even = (f"model.sampling_kernel={kernel + 1}",)
            ways.insert(0, Fix(even, "an even overlap", Safety.SAFE))
        return ways

    def deeper(self) -> list[Fix]:
        """A stage more, where the stages are known."""
        filters = list(self.option("model.filters") or [])
        if not filters:
            return []
        more = ",".join(map(str, [*filters, filters[-1]]))
        return [Fix((f"model.filters=[{more}]",), "a stage more", Safety.TRADE)]

    def tighter(self) -> list[Fix]:
        """A code of half the image's values, if that is less than there are."""
        channels = self.network.latent_shape[-1]
        positions = self.network.latent_values / max(1, channels)
        fitting = max(1, int(self.network.image_values / (2 * positions)))
        if fitting >= channels:
            return []
        return [Fix((f"model.latent_channels={fitting}",), "a bottleneck", Safety.TRADE)]

    def changes(self, override: str) -> bool:
        """Whether an override would make anything different from what the run had."""
        if not self.config:
            return True
        key, _, text = override.partition("=")
        had = self.option(key)
        if key == "regularization":
            return set(re.findall(r"\w+", text)) - {"none"} != set(had or {})
        if isinstance(had, Mapping):  # of a group without names, any option is a change
            return had.get("name") != text
        if isinstance(had, list):
            return text != f"[{','.join(map(str, had))}]"
        if isinstance(had, int | float) and not isinstance(had, bool):
            return text == "null" or float(text) != had
        return text != ("null" if had is None else str(had))


def _regularization(names: Sequence[str]) -> str:
    if len(names) == 1:
        return f"regularization={names[0]}"
    return f"regularization=[{','.join(names)}]" if names else "regularization=none"


class Rule:
    """One problem: how it shows, why it matters, what helps.

    A rule states its threshold and where it comes from, and is entered with ``@RULES.add``.
    """

    code: ClassVar[str]
    problem: ClassVar[str]
    severity: ClassVar[Severity]
    when: ClassVar[When] = When.AFTER
    measured: ClassVar[str]  # what is looked at
    why: ClassVar[str]  # why it matters
    threshold: float  # a person may set another one
    source: ClassVar[str]  # where the threshold comes from
    consequences: ClassVar[tuple[str, ...]] = ()  # codes whose findings follow from this one
    alternatives: ClassVar[tuple[str, ...]] = ()  # codes of causes that look alike
    picture: ClassVar[str | None] = None  # in the run's folder
    references: ClassVar[tuple[str, ...]] = ()

    def look(self, case: Case) -> Finding | Skipped | None:
        """A finding, None if there is none, `Skipped` if it cannot be told."""
        raise NotImplementedError

    def facts(self) -> list[tuple[str, str]]:
        """What there is to know of this rule, as (name, text)."""
        facts = [
            ("severity", self.severity.value),
            ("needs", self.when.value),
            ("measures", self.measured),
            ("threshold", f"{self.threshold:g} ({self.source})"),
            ("why it matters", self.why),
        ]
        if self.alternatives:
            facts.append(("told apart from", ", ".join(sorted(self.alternatives))))
        if self.consequences:
            facts.append(("explains", ", ".join(sorted(self.consequences))))
        if self.picture:
            facts.append(("picture", self.picture))
        facts += [("reference", reference) for reference in self.references]
        return facts

    def finding(
        self,
        message: str,
        *evidence: Evidence,
        fixes: Iterable[Fix] = (),
        advice: str = "",
        severity: Severity | None = None,
    ) -> Finding:
        """A finding of this rule."""
        return Finding(
            self.code,
            self.problem,
            severity or self.severity,
            message,
            evidence,
            tuple(fixes),
            advice,
            picture=self.picture,
        )

    def skipped(self, reason: str) -> Skipped:
        """This rule cannot look, because of ``reason``."""
        return Skipped(self.code, self.problem, reason)

    def with_options(self, options: Mapping[str, Any]) -> Rule:
        """This rule with the threshold that a person set, if one is set."""
        threshold = options.get("threshold")
        if threshold is None:
            return self
        changed = copy.copy(self)
        changed.threshold = float(threshold)
        return changed


class Rules(list[Rule]):
    """All rules, causes before their consequences."""

    def add(self, cls: type[Rule]) -> type[Rule]:
        """Decorator that enters a rule."""
        if any(rule.code == cls.code for rule in self):
            raise ValueError(f"rule {cls.code} exists already")
        self.append(cls())
        self.sort(key=lambda rule: rule.code)
        return cls


RULES = Rules()


def with_own_rules(arguments: list[str]) -> list[str]:
    """Loads the file behind ``--rules``, if there is one; returns the other arguments."""
    if "--rules" not in arguments:
        return arguments
    place = arguments.index("--rules")
    if place + 1 == len(arguments):
        raise UserError("--rules needs a file", where="command line", hint="--rules my_rules.py")
    load_rules(Path(arguments[place + 1]))
    return arguments[:place] + arguments[place + 2 :]


def load_rules(path: Path) -> None:
    """Runs a Python file of the user's own that enters rules with ``@RULES.add``.

    Raises:
        UserError: it is not there, fails, or takes a code that is taken.
    """
    name = f"cae_rules_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise UserError("no such Python file", where=path, hint="--rules my_rules.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up there
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UserError(
            f"the rules cannot be loaded: {type(error).__name__}: {error}", where=path
        ) from error


def attach(findings: Sequence[Finding], rules: Sequence[Rule], looked: Iterable[str]) -> list[Finding]:
    """Orders findings and says how sure they are.

    The severest cause comes first, among equals the one whose code is first; each is followed by its
    consequences.

    Args:
        findings: of the rules.
        rules: all of them.
        looked: codes of those that looked and found nothing.
    """
    passed = set(looked)
    fired = {finding.code: finding for finding in findings}
    by_code = {rule.code: rule for rule in rules}
    cause: dict[str, str] = {}
    for rule in rules:
        if rule.code in fired:
            for code in rule.consequences:
                cause.setdefault(code, rule.code)  # the first cause there is

    def root(code: str) -> str:
        return root(cause[code]) if code in cause else code

    severest = {
        first: min((f.severity for f in findings if root(f.code) == first), key=lambda s: s.rank)
        for first in {root(code) for code in fired}
    }

    def place(finding: Finding) -> tuple[int, str, bool, str]:
        first = root(finding.code)
        return severest[first].rank, first, finding.code in cause, finding.code

    def with_certainty(finding: Finding) -> Finding:
        alternatives = [code for code in by_code[finding.code].alternatives if code in by_code]
        ruled_out = tuple(code for code in alternatives if code in passed)
        left = tuple(
            code for code in alternatives if code not in passed and cause.get(code) != finding.code
        )
        excess = finding.evidence[0].excess if finding.evidence else math.inf
        return replace(
            finding,
            # A cause is as severe as what follows from it.
            severity=severest.get(finding.code, finding.severity),
            consequence_of=root(finding.code) if finding.code in cause else None,
            ruled_out=ruled_out,
            open=left,
            confidence=judged(excess, alternatives_open=bool(left)),
        )

    return [with_certainty(f) for f in sorted(findings, key=place)]
