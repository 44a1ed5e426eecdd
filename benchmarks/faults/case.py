"""What is known beforehand: cases, and the trainings that belong to each.

A case says whether it is sick, healthy or at the border, which findings would be right, and the
trainings that show it. `case_files` reads them from files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cae_cli.config.compose import quoted
from cae_cli.options import key_of

EXPECTED = ("sick", "healthy", "border")
# tuning: thresholds may have been set by it; test: the figures; smoke: made images, for every check.
PARTS = ("tuning", "test", "smoke")
FOLDER = "{data}"  # stands for the folder of the data


@dataclass(frozen=True)
class Source:
    """Where images of cases come from.

    Attributes:
        name: what cases call it.
        config: overrides; ``{data}`` stands for the folder of the data.
        doc: what the images are.
    """

    name: str
    config: tuple[str, ...]
    doc: str

    def words(self, data: Path) -> tuple[str, ...]:
        """The overrides with the folder put in."""
        return tuple(_filled(word, data) for word in self.config)

    def missing(self, data: Path) -> Path | None:
        """The file or folder that the source reads and that is not there; None if all are."""
        for word in self.config:
            if FOLDER in word:
                path = Path(word.partition("=")[2].strip("'\"").replace(FOLDER, str(data)))
                if not path.exists():
                    return path
        return None


@dataclass(frozen=True)
class Training:
    """One patient: a variant of a case with one seed.

    Attributes:
        case: the case it belongs to.
        number: of its variant in the file, from 0.
        part: one of `PARTS`.
        source: its images.
        seed: of the run.
        config: overrides of the case and of the variant, later ones in the place of earlier ones.
        corrupt: what is done to the images before, or None.
    """

    case: Case
    number: int
    part: str
    source: Source
    seed: int
    config: tuple[str, ...]
    corrupt: str | None

    @property
    def name(self) -> str:
        """Of its run's folder."""
        return f"{self.case.name}.{self.number}.s{self.seed}"

    def words(self, data: Path) -> tuple[str, ...]:
        """All overrides but the seed's, in the order in which the files say them."""
        return joined(self.source.words(data), self.config)


@dataclass(frozen=True)
class Case:
    """What is known of some trainings beforehand.

    Attributes:
        name: of its file.
        file: where it is written.
        why: the file's first comment: why this is sick, healthy or at the border.
        expect: one of `EXPECTED`.
        causes: codes that are right as the cause that is named first; () unless it is sick.
        also: codes of a second fault, right behind the first one, or after its cure.
        treatable: whether options can mend it.
        blind: whether no rule was changed with such trainings of the test part in sight.
        trainings: in the order of the file.
    """

    name: str
    file: Path
    why: str
    expect: str
    causes: tuple[str, ...]
    also: tuple[str, ...]
    treatable: bool
    blind: bool = True
    trainings: tuple[Training, ...] = ()


def joined(*lists: Sequence[str]) -> tuple[str, ...]:
    """Overrides of which a later one takes the place of an earlier one with the same key.

    Hydra refuses a group that is chosen twice.
    """
    last: dict[str, str] = {}
    for word in (word for words in lists for word in words):
        last.pop(key_of(word), None)
        last[key_of(word)] = word
    return tuple(last.values())


def _filled(word: str, data: Path) -> str:
    if FOLDER not in word:
        return word
    key, _, value = word.partition("=")
    return f"{key}={quoted(Path(value.replace(FOLDER, str(data))))}"
