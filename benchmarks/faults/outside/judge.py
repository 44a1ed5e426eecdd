"""What the trainings of a mutant show: whether it is faulty, and what the diagnosis and the tools say.

Diagnoses are made again from the run folders, with the rules of today.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.faults import tools
from benchmarks.faults.outside.accepted import accepted
from benchmarks.faults.outside.criterion import Comparison, compare
from benchmarks.faults.outside.draw import Mutant
from benchmarks.faults.outside.repairs import Repair
from benchmarks.faults.outside.worker import Result
from benchmarks.faults.scoring import Verdict
from benchmarks.faults.tools import Signals, Symptoms
from benchmarks.faults.trainings import with_diagnosis
from cae_cli import experiment
from cae_cli.errors import UserError
from cae_cli.external import trials as short
from cae_cli.runs.folder import Run

HEALTHY, FAULTY, BORDERLINE = "healthy", "faulty", "borderline"


@dataclass(frozen=True)
class Judged:
    """A mutant or an original, judged.

    Attributes:
        mutant: what was trained.
        errors: of held-out images, one per seed.
        comparison: with the original; None for an original, or if Keras cannot train the mutant.
        verdict: the diagnosis next to what is accepted. An original is "healthy", a killed mutant
            "faulty", any other mutant "borderline".
        symptoms: that each simpler tool reports, by its name.
        seconds: that all trainings took.
        fix: the edit of `external.edits` that is the first fix of the first-named cause, "" if there is
            none.
        is_fixed: whether this fix alone brings the error back to the spread of the original; None where
            that was not tried.
        proposed: the edits that the findings propose, in order.
        repair: what fixes that were tried did; None where none were tried.
    """

    mutant: Mutant
    errors: tuple[float, ...]
    comparison: Comparison | None
    verdict: Verdict
    symptoms: Mapping[str, Symptoms] = field(default_factory=dict)
    seconds: float = 0.0
    fix: str = ""
    is_fixed: bool | None = None
    proposed: tuple[str, ...] = ()
    repair: Repair | None = None

    @property
    def is_killed(self) -> bool:
        """Whether it is really faulty."""
        return self.comparison is not None and self.comparison.is_killed

    @property
    def needs_trial(self) -> bool:
        """Whether its first fix decides if it is right: killed, and another cause is named first."""
        return self.is_killed and not self.verdict.is_right and bool(self.fix)

    @property
    def described(self) -> str:
        """The judgement in words."""
        if self.comparison is None:
            return self.verdict.described
        state = "killed" if self.is_killed else "not killed"
        return f"{state} (error x {self.comparison.ratio:.2f}); {self.verdict.described}"


def judged(
    mutant: Mutant, number: int, own: Sequence[Result], original: Sequence[Result], out: Path
) -> Judged:
    """Judges the trainings of a mutant.

    Args:
        mutant: what was trained; an original has no change.
        number: for the name.
        own: what its trainings gave; the first was diagnosed.
        original: what the trainings of its original gave.
        out: folder of the run folders.
    """
    errors, reference = _errors(own), _errors(original)
    comparison = None
    if mutant.change is not None and len(errors) == len(own) and len(reference) == len(original):
        comparison = compare(reference, errors)
    killed = comparison is not None and comparison.is_killed
    expect = HEALTHY if mutant.change is None else FAULTY if killed else BORDERLINE
    name = mutant.change.operator if mutant.change else "original"
    expected = Verdict(
        name=f"{mutant.base}.{name}.{number}",
        case=name,
        data=mutant.base,
        expect=expect,
        causes=accepted(mutant.change).rules if mutant.change and killed else (),
        second_fault=(),
        fixable=False,
    )
    verdict, symptoms, fix, proposed = _diagnosed(expected, own[0], out)
    return Judged(
        mutant=mutant,
        errors=errors,
        comparison=comparison,
        verdict=verdict,
        symptoms=symptoms,
        seconds=round(sum(one.seconds for one in own), 1),
        fix=fix,
        proposed=proposed,
    )


def _errors(results: Sequence[Result]) -> tuple[float, ...]:
    return tuple(result.error for result in results if result.error is not None)


def _diagnosed(
    expected: Verdict, first: Result, out: Path
) -> tuple[Verdict, dict[str, Symptoms], str, tuple[str, ...]]:
    """Of the training with the callback: diagnosis, symptoms, first fix, and all proposed edits."""
    nothing: dict[str, Symptoms] = {tool.name: () for tool in tools.TOOLS}
    if not first.folder:
        return replace(expected, failed=first.failed or "it was not diagnosed"), nothing, "", ()
    folder = Run(out / first.folder)
    try:
        outcome = experiment.diagnose(folder)
        signals = _of_callback(tools.signals(folder, folder.settings()), folder.training())
    except UserError as error:
        return replace(expected, failed=error.what), nothing, "", ()
    verdict = replace(
        with_diagnosis(expected, outcome.diagnosis),
        explained_variance=outcome.metrics.quality.explained_variance,
    )
    fixes = [fix for cause in outcome.diagnosis.causes[:1] for fix in cause.fixes[:1]]
    symptoms = {tool.name: tuple(tool.check(signals)) for tool in tools.TOOLS}
    proposed = tuple(short.proposed(outcome.diagnosis.findings))
    return verdict, symptoms, fixes[0].edit if fixes else "", proposed


def _of_callback(signals: Signals, trained: Mapping[str, Any]) -> Signals:
    """What the callback does not record is filled in, in favour of the tools.

    The loss before training is that of the training images in the first epoch. Without validation the
    loss of the training images stands for it. The explained variance is 0 before the last epoch.

    Args:
        signals: as recorded.
        trained: training.json.
    """
    train, val = signals.train_loss, signals.val_loss[1:]
    val = train if np.isnan(val).all() else val
    start = train[:1] if train.size else np.array([np.nan])
    config = dict(signals.config)
    config["model"] = {"activation": trained["network"]["hidden_activation"]}
    return replace(
        signals,
        val_loss=np.concatenate([start, val]),
        val_mse=np.array([signals.variance, signals.variance, signals.val_mse[-1]]),
        config=config,
    )
