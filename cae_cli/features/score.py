"""How unusual images are to a trained network, and what such a score is worth.

The score of an image is its mean squared error. It says little by itself: a network whose code is
bypassed reconstructs everything, and a simple image has a small error whatever it shows. So the same is
measured for two baselines that need no network: the distance from the mean training image, and the error
of as many principal components of the training images as the code has values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cae_cli.data import as_float
from cae_cli.errors import UserError, did_you_mean
from cae_cli.features.network import Array, Network
from cae_cli.features.source import Part, Source
from cae_cli.introspection.behaviour import mean_image, squares
from cae_cli.metrics.projection import Projection
from cae_cli.statistics.auroc import Auroc, auroc, difference

MOST_FITTED, MOST_VALUES = 2000, 2**25  # images that principal components are fitted on, their values
NETWORK, MEAN = "this network", "distance from the mean image"
SHOWN = 8  # images of each end in the picture

Kinds = NDArray[np.bool_]


@dataclass(frozen=True)
class Scores:
    """The errors of images.

    Attributes:
        columns: what is known of each image, (n,) each.
        errors: (n,) each, of the network and of the baselines, by name; NaN where one has none.
        anomalous: (n,) which images are anomalies; None: not known.
        held_out: (k,) errors of the network on held-out images of its run.
        false_alarms: share of such images that may be called anomalies.
        components: number of principal components.
    """

    columns: dict[str, NDArray[np.generic]]
    errors: dict[str, Array]
    anomalous: Kinds | None
    held_out: Array
    false_alarms: float
    components: int

    @cached_property
    def threshold(self) -> float:
        """Images with a larger error are called anomalies; see `threshold`."""
        return threshold(self.held_out, self.false_alarms)

    @cached_property
    def alarms(self) -> Kinds:
        """(n,) images whose error is above the threshold, or no number."""
        return ~(self.errors[NETWORK] <= self.threshold)

    @cached_property
    def aurocs(self) -> dict[str, Auroc]:
        """How well each score tells anomalies; {} where they are not known."""
        if self.anomalous is None:
            return {}
        return {
            name: auroc(errors[~self.anomalous], errors[self.anomalous])
            for name, errors in self.errors.items()
            if not np.isnan(errors).all()
        }

    @cached_property
    def lead(self) -> tuple[str, float, float]:
        """The better baseline, how much more the network reaches, and half the 95 % interval."""
        assert self.anomalous is not None
        best = max((n for n in self.aurocs if n != NETWORK), key=lambda n: self.aurocs[n].value)
        pair = self.errors[NETWORK], self.errors[best]
        ahead, margin = difference(
            (pair[0][~self.anomalous], pair[1][~self.anomalous]),
            (pair[0][self.anomalous], pair[1][self.anomalous]),
        )
        return best, ahead, margin

    @property
    def worth(self) -> str:
        """What the score is worth, in a sentence."""
        if not self.aurocs:
            return "what the score is worth is not known: no anomalies are (anomalies=… or --normal)"
        if len(self.aurocs) == 1:
            return "what the score is worth is not known: no baseline could be computed"
        best, ahead, margin = self.lead
        by = f"AUROC {ahead:+.3f} ± {margin:.3f}"
        if ahead > margin:
            return f"the network tells anomalies better than the {best} ({by})"
        return f"the score is worth no more than the {best} ({by}), for which no network is needed"

    def table(self) -> dict[str, NDArray[np.generic]]:
        """Columns of a table: what is known of each image, its errors, alarm (0 or 1), anomalous."""
        names = ("error", "mean_image_error", "components_error")
        errors = dict(zip(names, self.errors.values(), strict=True))
        table = {**self.columns, **errors, "alarm": self.alarms.astype(np.int64)}
        return (
            table if self.anomalous is None else {**table, "anomalous": self.anomalous.astype(np.int64)}
        )

    def about(self, network: Network) -> dict[str, str]:
        """What stands behind the numbers of the table."""
        return {
            "network": network.name,
            "warning": network.warning or "",
            "threshold": f"{self.threshold:.9g}",
            "false_alarms": f"{self.false_alarms:g}",
            "held_out": str(len(self.held_out)),
            **{
                f"auroc of {k}": f"{a.value:.4f} ({a.low:.4f} to {a.high:.4f})"
                for k, a in self.aurocs.items()
            },
            "worth": self.worth,
        }


def unseen(source: Source) -> Source:
    """The test part of a source that has one: networks may have been trained on the others."""
    test = tuple(part for part in source.parts if part.split == "test")
    return Source(test, source.notes) if test else source


def threshold(held_out: Array, false_alarms: float) -> float:
    """The error that at most this share of new images like the held-out ones exceeds.

    Of k held-out images, it is the error of the one at place ⌈(k + 1)(1 - share)⌉: then a further image
    like them exceeds it with at most this probability (Vovk, "Conditional validity of inductive
    conformal predictors", ACML 2012).

    Raises:
        UserError: they are too few for such a small share.
    """
    place = math.ceil((len(held_out) + 1) * (1 - false_alarms) - 1e-9)
    if place > len(held_out):
        raise UserError(
            f"a share of {false_alarms:g} false alarms needs {math.ceil(1 / false_alarms) - 1} held-out "
            f"images, the run has {len(held_out)}",
            where="--false-alarms",
            hint=f"--false-alarms {math.ceil(1000 / (len(held_out) + 1)) / 1000:g}",
        )
    return float(np.sort(held_out)[place - 1])


def score(
    network: Network,
    own: Source,
    given: Source,
    anomalies: Source,
    *,
    normal: Sequence[str] = (),
    false_alarms: float = 0.05,
    done: Callable[[int], None] = lambda done: None,
) -> Scores:
    """Scores images.

    Args:
        network: of a run.
        own: all images of the run.
        given: the images to score.
        anomalies: further images, which are anomalies; those of ``given`` are normal unless their labels
            say otherwise. It may have none.
        normal: labels of the normal images among ``given``; the others are anomalies.
        false_alarms: above 0, below 1.
        done: is told how many images are done.

    Raises:
        UserError: too few held-out images, or no image has such a label.
    """
    train, held_out = own.parts[0], own.parts[-1]
    held_out_errors = _errors(network, held_out)
    threshold(held_out_errors, false_alarms)
    kinds = _kinds(given, normal)
    parts = (*given.parts, *anomalies.parts)
    columns = Source(parts).columns()
    if anomalies.parts:
        kinds = np.zeros(len(given), bool) if kinds is None else kinds
        kinds = np.append(kinds, np.ones(len(anomalies), bool))
        columns["source"] = np.repeat(["images", "anomalies"], [len(given), len(anomalies)])
    if kinds is not None and kinds.all() | ~kinds.any():
        raise UserError(
            f"all images are {'anomalies' if kinds.all() else 'normal'}",
            where="--normal" if normal else "anomalies",
            hint="anomalies=… names further images",
        )
    mean = mean_image(train.images)
    fitted = _sample(train)
    components = min(
        int(np.prod(network.code_shape)), len(fitted) // 2, int(np.prod(network.shape)) // 2
    )
    projection = Projection.of(fitted, components)
    title = f"{components} principal components"
    errors: dict[str, list[Array]] = {NETWORK: [], MEAN: [], title: []}
    passed = 0
    with np.errstate(all="ignore"):  # networks that diverged
        for batch, made in _passes(network, parts):
            errors[NETWORK].append(squares(made - batch))
            errors[MEAN].append(squares(batch - mean))
            unknown = np.full(len(batch), np.nan, np.float32)
            errors[title].append(unknown if projection is None else projection.mse(batch))
            passed += len(batch)
            done(passed)
    joined = {name: np.concatenate(own_errors) for name, own_errors in errors.items()}
    return Scores(columns, joined, kinds, held_out_errors, false_alarms, components)


def _errors(network: Network, part: Part) -> Array:
    with np.errstate(all="ignore"):
        return np.concatenate([squares(made - x) for x, made in _passes(network, [part])])


def _passes(network: Network, parts: Sequence[Part]) -> Iterator[tuple[Array, Array]]:
    for part in parts:
        for _, batch, _, made in network.passes(part.images):
            yield batch, made


def _sample(part: Part) -> Array:
    """Images of a part in [0, 1], always the same ones, drawn at random."""
    count = min(len(part.images), MOST_FITTED, MOST_VALUES // int(np.prod(part.images.shape[1:])))
    chosen = np.random.default_rng(0).permutation(len(part.images))[: max(2, count)]
    return as_float(part.images[np.sort(chosen)])


def _kinds(source: Source, normal: Sequence[str]) -> Kinds | None:
    """Which images are anomalies by their labels; None if no label is said to be normal."""
    if not normal:
        return None
    labels = source.columns().get("label", np.array([""] * len(source)))
    there = sorted(set(labels.tolist()))
    for label in normal:
        if label not in there:
            raise UserError(
                f"no image has the label {label}",
                where=f"--normal {','.join(normal)}",
                hint=did_you_mean(label, filter(None, there), "the labels are"),
            )
    return ~np.isin(labels, list(normal))


def ends(scores: Scores) -> dict[str, NDArray[np.intp]]:
    """Positions of the images with the largest and the smallest errors, the most extreme first."""
    order = np.argsort(-np.nan_to_num(scores.errors[NETWORK], nan=np.inf), kind="stable")
    count = min(SHOWN, (len(order) + 1) // 2)
    return {"largest errors": order[:count], "smallest errors": order[::-1][:count]}


def captions(scores: Scores) -> tuple[str, str]:
    """What stands above and below the picture of `ends`."""
    errors, at = scores.errors[NETWORK], ends(scores)
    ranges = ", ".join(f"{name} {errors[k[0]]:.4f} to {errors[k[-1]]:.4f}" for name, k in at.items())
    return "Images by the error of their reconstruction", f"{ranges}; threshold {scores.threshold:.4f}"
