"""Rules on the difference between training and held-out images."""

from __future__ import annotations

from collections.abc import Iterator

from cae_cli.diagnosis.finding import Evidence, Finding, Prescription, Safety, Severity, Skipped
from cae_cli.diagnosis.rule import LITTLE_EXPLAINED, RULES, Case, Rule


@RULES.add
class ValidationGap(Rule):
    """Training images are reconstructed better than others."""

    code = "CAE501"
    problem = "training images are memorised"
    severity = Severity.WARNING
    measures = (
        "explained variance of training images minus that of held-out ones, beyond the same "
        "difference of a linear decoder and the margin of error"
    )
    why = "What is memorised says something about these images, not about images."
    threshold = 0.04
    least_explained = LITTLE_EXPLAINED
    source = "healthy runs have .002 to .013; 16 training images give .06 to .08"

    def look(self, case: Case) -> Finding | Skipped | None:
        """Fires above .04."""
        q = case.measures.quality
        if case.too_early:
            return self.skipped(case.too_early)
        # Held-out images may be harder than those of the training (other photographs): what a linear
        # decoder, which cannot memorise, loses on them too does not count. Few held-out images give
        # an uncertain mean: only what is beyond its margin counts. Who explains next to nothing of
        # the training images has not memorised them either.
        gap = q.train_explained_variance - q.explained_variance
        causal = case.measures.causal
        harder = max(0.0, causal.linear_train - causal.linear)  # 0 where either is not known
        certain = gap - harder - q.mse.margin / q.mean_image_mse
        if certain <= self.threshold or q.train_explained_variance < self.least_explained:
            return None
        return self.finding(
            f"explained variance {q.train_explained_variance:.3f} on training images, "
            f"{q.explained_variance:.3f} on held-out ones",
            Evidence("gap in explained variance", certain, self.threshold, ".002 to .013"),
            prescriptions=tuple(self._ways_out(case)),
        )

    @staticmethod
    def _ways_out(case: Case) -> Iterator[Prescription]:
        yield Prescription(("data.train=null",), "all images there are", Safety.SLOW)
        if not any(
            case.option(f"augmentation.{kind}") for kind in ("rotation", "shift", "zoom", "flip")
        ):
            why = "more views of the same images"
            yield Prescription(("augmentation=light",), why, Safety.TRADE)
