"""Rules on how the training went."""

from __future__ import annotations

import math

from cae_cli.diagnosis.finding import Evidence, Finding, Prescription, Safety, Severity, Skipped
from cae_cli.diagnosis.rule import LITTLE_EXPLAINED, RULES, UNMOVED, Case, Rule


@RULES.add
class Diverged(Rule):
    """Loss or gradient became NaN or infinite."""

    code = "CAE201"
    problem = "the training diverged"
    severity = Severity.ERROR
    measures = "whether loss and gradient norm of every step are finite numbers"
    why = "Training stopped there; the weights are those of the last good step, not trained ones."
    threshold = 0
    source = "by definition"
    explains = ("CAE202", "CAE301", "CAE302", "CAE303", "CAE401", "CAE501")

    def look(self, case: Case) -> Finding | None:
        """Fires if training ended at a step that was not finite."""
        step = case.measures.course.diverged_at
        if step is None:
            return None
        return self.finding(
            f"loss or gradient was NaN or infinite at step {step}",
            Evidence("first step that was not finite", step, self.threshold, "none"),
            prescriptions=(
                case.slower(),
                Prescription(("optimizer.clip_norm=1",), "limit the gradients", Safety.SAFE),
            ),
        )


@RULES.add
class NotLearning(Rule):
    """The validation loss did not fall."""

    code = "CAE202"
    problem = "nothing was learned"
    severity = Severity.ERROR
    measures = "fall of val/loss from before training, as a share of it, and explained variance"
    why = "The filters are what the initializer drew."
    threshold = 0.01
    source = "healthy runs of the reference network lose more than half in their first epoch"
    explains = ("CAE302", "CAE303", "CAE401")
    # A loss with a floor (cross-entropy of grey images) hardly falls even where all is well.
    most_explained = LITTLE_EXPLAINED

    def look(self, case: Case) -> Finding | Skipped | None:
        """Fires if the loss fell by less than 1 % and next to nothing is explained."""
        if case.too_early:
            return self.skipped(case.too_early)
        course = case.measures.course
        first, last = course.first_val_loss, course.last_val_loss
        if not (math.isfinite(first) and math.isfinite(last)) or first == 0:
            return self.skipped("the validation loss is not a finite number")
        fall = (first - last) / abs(first)
        explained = case.measures.quality.explained_variance
        if fall >= self.threshold or explained >= self.most_explained:
            return None
        moved = max(layer.displacement for layer in case.measures.layers)
        rate = float(case.option("optimizer.learning_rate") or 0)
        ways = [
            Prescription((case.adding("batchnorm"),), "live gradients", Safety.SAFE),
            case.slower(),
        ]
        message = f"val/loss went from {first:.4g} to {last:.4g}"
        if case.unmoved:
            message += f", and no layer moved by more than {moved:.1%} of its weights"
            larger = f"optimizer.learning_rate={10 * rate or 1e-3:g}"
            ways = [Prescription((larger,), "ten times the step", Safety.SAFE)]
        return self.finding(
            message,
            Evidence("fall of the validation loss", fall, self.threshold, "above .5"),
            Evidence("explained variance", explained, self.most_explained, "above .7"),
            Evidence("largest displacement of a layer", moved, UNMOVED, ".5 to 1.1"),
            prescriptions=tuple(ways),
        )
