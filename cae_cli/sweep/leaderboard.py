"""The leaderboard of a sweep: configurations averaged over their seeds, ranked, shown and written."""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cae_cli.errors import printable
from cae_cli.report import leaderboard as report
from cae_cli.report.sections import Part
from cae_cli.runs.json_files import plain, write_json
from cae_cli.runs.sweep_folder import SCHEMA_VERSION, Objective, SweepFolder
from cae_cli.statistics.effects import Effects, effects
from cae_cli.statistics.interval import Interval, interval
from cae_cli.statistics.ranking import RANKING_METRICS, RankingMetric, Standing, ranked
from cae_cli.sweep.jobs import SEEDS, HeldOut, Job

DEFAULT_METRIC = "psnr"
EXPLAINED = ("psnr", "ssim", "meaningful")  # metrics for which effects are estimated
ALIASES = {"explained_variance": "explained", "score": "meaningful"}


def ranking_metric_of(objective: Objective | None) -> tuple[RankingMetric, str]:
    """The metric to rank by, and a note if it is not the optimized one.

    Args:
        objective: of the sweep, None without one.
    """
    if objective is None:
        return RANKING_METRICS[DEFAULT_METRIC], ""
    name = objective.name.rpartition("/")[2]
    found = RANKING_METRICS.get(ALIASES.get(name, name))
    if found is None:
        return RANKING_METRICS[DEFAULT_METRIC], (
            f"{printable(objective.name)} cannot be compared between losses: "
            f"ranked by {RANKING_METRICS[DEFAULT_METRIC].title}"
        )
    return replace(found, rises=objective.goal == "max"), ""


@dataclass(frozen=True)
class Configuration:
    """Jobs that differ only in the seed.

    Attributes:
        values: the swept keys, without seeds, and their values.
        jobs: one for each seed.
        standing: its rank.
        figures: metrics over its seeds, by name.
    """

    values: Mapping[str, str]
    jobs: tuple[Job, ...]
    standing: Standing
    figures: Mapping[str, Interval]

    @property
    def finding(self) -> str:
        """The most common first finding of its jobs: a code, or a few words."""
        problems = Counter(job.code or job.problem for job in self.jobs if job.status == "ok")
        return problems.most_common(1)[0][0] if problems else ""


class Leaderboard:
    """The ranked jobs of a sweep, and the effects of its keys.

    Args:
        jobs: of the sweep, in the order of its grid.
        swept: its keys.
        metric: to rank by.
    """

    def __init__(self, jobs: Sequence[Job], swept: Sequence[str], metric: RankingMetric) -> None:
        self.jobs = jobs
        self.swept = tuple(swept)
        self.keys = tuple(key for key in swept if key not in SEEDS)
        self.metric = metric
        self._figures = {  # (n,) each, NaN where there is none
            name: np.array([job.figures.get(name, math.nan) for job in jobs]) for name in RANKING_METRICS
        }
        self._seeds = _numbered(tuple(job.values[k] for k in swept if k in SEEDS) for job in jobs)
        self._images = _images(jobs)
        own = _numbered(tuple(job.values[key] for key in self.keys) for job in jobs)
        self.configurations = tuple(
            self._configuration(standing, own)
            for standing in ranked(
                self._figures[metric.name],
                own,
                self._seeds,
                self._images,
                rises=metric.rises,
            )
        )
        self.codes, self.values = self._keys()
        self.effects = self._effects()

    def _configuration(self, standing: Standing, own: NDArray[np.intp]) -> Configuration:
        mine = np.flatnonzero(own == standing.configuration).tolist()
        jobs = tuple(self.jobs[i] for i in mine)
        of_seeds = self._seeds[mine]
        figures = {}
        for name, all_jobs in self._figures.items():
            values = all_jobs[mine]
            per_seed = [values[of_seeds == s] for s in np.unique(of_seeds)]
            known = [v[np.isfinite(v)] for v in per_seed]
            figures[name] = interval([float(v.mean()) for v in known if v.size])
        return Configuration({k: jobs[0].values[k] for k in self.keys}, jobs, standing, figures)

    def _keys(self) -> tuple[dict[str, NDArray[np.intp]], dict[str, tuple[str, ...]]]:
        """Codes and values of the keys that change; keys that always change together are one."""
        by_key: dict[str, NDArray[np.intp]] = {}
        values: dict[str, tuple[str, ...]] = {}
        together: dict[bytes, list[str]] = {}
        for key in self.keys:
            codes = _numbered(job.values[key] for job in self.jobs)
            if len(set(codes.tolist())) > 1:
                together.setdefault(codes.tobytes(), []).append(key)
        for coded, keys in together.items():
            codes = np.frombuffer(coded, np.intp)
            name = ",".join(keys)
            first = [int(np.flatnonzero(codes == c)[0]) for c in range(int(codes.max()) + 1)]
            values[name] = tuple(",".join(self.jobs[i].values[k] for k in keys) for i in first)
            by_key[name] = codes
        return by_key, values

    def _effects(self) -> dict[str, Effects]:
        names = dict.fromkeys([self.metric.name, *EXPLAINED])
        return {
            name: effects(self._figures[name], self.codes, self._seeds, self._images) for name in names
        }

    # -- shown -------------------------------------------------------------------------------------

    def shown(self) -> list[Part]:
        """The leaderboard for the screen."""
        rows = [
            report.Row(
                standing=c.standing,
                values={short(key, self.keys): c.values[key] for key in self.keys},
                figures=c.figures,
                planned=len({tuple(job.values[k] for k in self.swept if k in SEEDS) for job in c.jobs}),
                finding=c.finding,
            )
            for c in self.configurations
            if c.standing.rank is not None
        ]
        shown = rows[: report.MOST_ROWS]
        left = [report.Unfinished(j.name, j.status, j.problem) for j in self.jobs if j.status != "ok"]
        return [
            "",
            *report.unfinished(left, len(self.jobs)),
            *report.leaderboard(shown, self._measured_on(), self.metric, len(rows) - len(shown)),
            *report.effects(self.effects, self.values, self.metric),
        ]

    def differences(self) -> dict[str, list[tuple[str, Interval]]]:
        """By metric, the one of the ranking first, what each value of a key changes."""
        return {
            RANKING_METRICS[name].title: [
                (f"{key}={value} instead of {self.values[key][0]}", found)
                for key, effect in own.keys.items()
                for value, found in zip(self.values[key][1:], effect.differences, strict=True)
            ]
            for name, own in self.effects.items()
        }

    def _measured_on(self) -> list[str]:
        """The images that each group was measured on."""
        count = max((c.standing.group for c in self.configurations), default=-1) + 1
        kinds: list[list[HeldOut]] = [[] for _ in range(count)]
        for c in self.configurations:
            for job in c.jobs:
                held_out = job.held_out
                known = kinds[c.standing.group]
                if held_out is not None and not any(map(held_out.is_same, known)):
                    known.append(held_out)
        return [_described(own) for own in kinds]

    def in_order(self) -> list[Job]:
        """All jobs, those of the best configuration first."""
        return [job for c in self.configurations for job in c.jobs]

    # -- files -------------------------------------------------------------------------------------

    def write(self, folder: SweepFolder, notes: Sequence[str]) -> dict[str, Any]:
        """Writes leaderboard.csv, leaderboard.json and effects.json.

        Args:
            folder: of the sweep.
            notes: on the sweep as a whole.

        Returns:
            The content of leaderboard.json, which may be larger than the files that are read.

        Raises:
            OSError: they cannot be written.
        """
        common = {
            "schema": SCHEMA_VERSION,
            "metric": self.metric.name,
            "rises": self.metric.rises,
            "notes": list(notes),
            "swept": self.swept,
        }
        text = io.StringIO(newline="")
        csv.writer(text).writerows(self._lines())
        with folder.table.atomic() as path:
            path.write_bytes(text.getvalue().encode(errors="backslashreplace"))  # names, not UTF-8
        content: dict[str, Any] = plain(
            {
                **common,
                "groups": self._measured_on(),
                "configurations": [_plain(c) for c in self.configurations],
                "jobs": [self._plain_job(i) for i in range(len(self.jobs))],
            }
        )
        write_json(folder.leaderboard, content)
        write_json(
            folder.effects,
            {**common, "values": self.values, "effects": self.effects},
        )
        return content

    def _plain_job(self, i: int) -> dict[str, Any]:
        job = self.jobs[i]
        return {
            "folder": job.name,
            "values": job.values,
            "status": job.status,
            "problem": job.problem,
            "code": job.code,
            "figures": job.figures,
            "held_out": self._images[i] if job.held_out else None,
            "seconds": job.seconds,
        }

    def _lines(self) -> Iterable[list[Any]]:
        """The lines of leaderboard.csv: a configuration, then its jobs."""
        statistics = [f"{name}{kind}" for name in RANKING_METRICS for kind in ("", "_std", "_margin")]
        behind = [f"{self.metric.name}_behind{kind}" for kind in ("", "_margin", "_n")]
        yield [
            "row",
            "rank",
            "group",
            *self.swept,
            "seeds",
            *statistics,
            *behind,
            "tied",
            "status",
            "code",
            "problem",
            "seconds",
            "folder",
        ]
        for c in self.configurations:
            standing, ok = c.standing, [job for job in c.jobs if job.status == "ok"]
            seconds = interval([job.seconds for job in c.jobs if job.seconds is not None])
            yield [
                "configuration",
                standing.rank or "",
                standing.group if standing.rank else "",
                *(c.values.get(key, "") for key in self.swept),
                standing.value.n,
                *(_cell(x) for f in c.figures.values() for x in (f.value, f.std, f.margin)),
                *map(_cell, (standing.behind.value, standing.behind.margin)),
                standing.behind.n,
                int(standing.is_tied),
                f"{len(ok)} of {len(c.jobs)} ok",
                c.finding if c.finding.startswith("CAE") else "",
                "" if c.finding.startswith("CAE") else c.finding,
                _cell(seconds.value),
                "",
            ]
            for job in c.jobs:
                figures = [job.figures.get(name, math.nan) for name in RANKING_METRICS]
                yield [
                    "job",
                    "",
                    standing.group if job.held_out else "",
                    *(job.values[key] for key in self.swept),
                    "",
                    *(x for value in figures for x in (_cell(value), "", "")),
                    *[""] * 4,
                    job.status,
                    job.code,
                    job.problem,
                    _cell(math.nan if job.seconds is None else job.seconds),
                    job.name,
                ]


def _plain(c: Configuration) -> dict[str, Any]:
    return {
        "rank": c.standing.rank,
        "group": c.standing.group if c.standing.rank else None,
        "values": c.values,
        "figures": c.figures,
        "behind": c.standing.behind,
        "tied": c.standing.is_tied,
        "finding": c.finding,
        "jobs": [job.name for job in c.jobs],
    }


def _cell(value: float) -> str:
    return f"{value:.10g}" if math.isfinite(value) else ""


def _numbered(values: Iterable[Hashable]) -> NDArray[np.intp]:
    """(n,) a number for each value, in the order of first appearance."""
    known: dict[Hashable, int] = {}
    return np.array([known.setdefault(value, len(known)) for value in values], np.intp)


def _images(jobs: Sequence[Job]) -> NDArray[np.intp]:
    """(n,) a number for the images that each job was measured on."""
    kinds: list[HeldOut] = []
    codes = np.zeros(len(jobs), np.intp)
    for i, job in enumerate(jobs):
        if job.held_out is None:
            continue
        known = (k for k, kind in enumerate(kinds) if job.held_out.is_same(kind))
        codes[i] = next(known, len(kinds))
        if codes[i] == len(kinds):
            kinds.append(job.held_out)
    return codes


def short(key: str, keys: Sequence[str]) -> str:
    """The last part of a key, if it is unique."""
    last = key.rpartition(".")[2]
    return last if sum(other.rpartition(".")[2] == last for other in keys) == 1 else key


def _described(kinds: Sequence[HeldOut]) -> str:
    """The images as text."""
    if not kinds:
        return "no images"
    parts = []
    for kind, count in Counter((k.count, k.name, k.shape) for k in kinds).items():
        number, name, shape = kind
        sets = f", {count} sets of them" if count > 1 else ""
        parts.append(f"{number:,} {printable(name)} images {'x'.join(map(str, shape))}{sets}")
    return " and ".join(parts)
