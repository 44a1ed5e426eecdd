"""What is known about a training before it is run: cases, their trainings, and sources of images.

The option classes declare the keys of the files; `case_files` reads them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cae_cli.options import key_of, option, quoted

EXPECTED = ("faulty", "healthy", "borderline")
# tuning: thresholds may be set with its results in view; test: gives the published figures; smoke: a
# quick check on generated images; large-tuning and large: the same on colour images of up to 128 pixels.
PARTS = ("tuning", "test", "smoke", "large-tuning", "large")
FOLDER = "{data}"  # placeholder for the folder of the image files


@dataclass(frozen=True)
class SourceOptions:
    """Keys of an entry of ``data.yaml``."""

    config: list[str] = option("overrides that choose the images, such as [data=glyphs]", nonempty=True)
    doc: str = option("one sentence about the images")


@dataclass(frozen=True)
class CaseOptions:
    """Keys of a case file."""

    expect: str = option("what the diagnosis should report", choices=EXPECTED)
    causes: list[str] = option("codes accepted as the first-named cause, such as [CAE101]")
    second_fault: list[str] = option("codes of a second fault, such as [CAE101]")
    fixable: bool = option("true if an option can fix the fault, else false")
    adjusted: bool = option("true if a rule was changed with such test trainings in view, else false")
    config: list[str] = option("overrides of all variants: [key=value], in quotes if it has brackets")
    variants: list[dict] = option("a list of variants, at least one", nonempty=True)  # type: ignore[type-arg]


@dataclass(frozen=True)
class VariantOptions:
    """Keys of a variant of a case."""

    part: str = option("part of the benchmark", choices=PARTS)
    data: str = option("name of a source in data.yaml")
    seeds: list[int] = option("one training per seed: [0, 1, 2]", least=0, below=2**31, nonempty=True)
    config: list[str] = option("overrides: [key=value], in quotes if it has brackets")
    corrupt: str | None = option("corruption of the images, such as repeats_16")


@dataclass(frozen=True)
class Source:
    """Where the images of a training come from.

    Attributes:
        name: used by cases.
        config: overrides; ``{data}`` stands for the folder of the image files.
        doc: one sentence about the images.
    """

    name: str
    config: tuple[str, ...]
    doc: str

    def overrides(self, data: Path) -> tuple[str, ...]:
        """The overrides with the folder filled in."""
        return tuple(_filled(override, data) for override in self.config)

    def missing(self, data: Path) -> Path | None:
        """The first file or folder that the source reads and that does not exist, or None."""
        values = (override.partition("=")[2] for override in self.config if FOLDER in override)
        paths = (Path(value.strip("'\"").replace(FOLDER, str(data))) for value in values)
        return next((path for path in paths if not path.exists()), None)


@dataclass(frozen=True)
class Training:
    """A variant of a case with one seed.

    Attributes:
        case: it belongs to.
        variant: number of the variant in the file, from 0.
        part: one of `PARTS`.
        source: of its images.
        seed: of the run.
        config: overrides of the case and the variant; later ones replace earlier ones.
        corrupt: name of a corruption of the images, or None.
    """

    case: Case
    variant: int
    part: str
    source: Source
    seed: int
    config: tuple[str, ...]
    corrupt: str | None

    @property
    def name(self) -> str:
        """Name of its run folder."""
        return f"{self.case.name}.{self.variant}.s{self.seed}"

    def overrides(self, data: Path) -> tuple[str, ...]:
        """All overrides except the seed, in the order of the files."""
        return joined(self.source.overrides(data), self.config)


@dataclass(frozen=True)
class Case:
    """What is known about some trainings in advance.

    Attributes:
        name: of its file.
        file: path of the file.
        reason: first comment of the file: why this is faulty, healthy or borderline.
        options: the keys of the file.
        trainings: in the order of the file.
    """

    name: str
    file: Path
    reason: str
    options: CaseOptions
    trainings: tuple[Training, ...] = ()


def joined(*lists: Iterable[str]) -> tuple[str, ...]:
    """Overrides in order; a later one replaces an earlier one with the same key.

    Hydra refuses a group that is chosen twice.
    """
    last: dict[str, str] = {}
    for override in (override for overrides in lists for override in overrides):
        last.pop(key_of(override), None)
        last[key_of(override)] = override
    return tuple(last.values())


def _filled(override: str, data: Path) -> str:
    if FOLDER not in override:
        return override
    key, _, value = override.partition("=")
    return f"{key}={quoted(value.replace(FOLDER, str(data)))}"
