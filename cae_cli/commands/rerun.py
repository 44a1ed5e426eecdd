"""``cae rerun RUN``: the config of a run once more, with changes, as a new run of ``cae train``."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from omegaconf import DictConfig, OmegaConf

from cae_cli.commands import composing, train
from cae_cli.commands.args import RUN_WORDS, RUNS
from cae_cli.commands.diagnose import opened
from cae_cli.config import compose
from cae_cli.config.compose import Sources
from cae_cli.config.schema import DEVIATIONS, GROUPS, SEVERAL, VARIANTS, plain
from cae_cli.config.trust import Trust
from cae_cli.diagnosis import RULES
from cae_cli.errors import UserError, did_you_mean
from cae_cli.options import key_of
from cae_cli.report import terminal
from cae_cli.runs import registry
from cae_cli.runs.folder import Run, read_any_version
from cae_cli.runs.registry import flat

HELP = f"""\
usage: cae rerun RUN [group=option …] [key=value …]

Trains with the config of a run once more, as a new run: the words that come
behind RUN change it, as they change the defaults in cae train. An option that
was chosen anew (loss=ssim) brings its own values, and those of the old one are
left out. With nothing changed the same machine gives the same bits.

Keys that a run of an older version has and that are no longer options are named
and left out; for those that it did not know today's defaults are taken, and that
is said too. What -cd and -cn brought into the old config is part of it; where
the old run was written (hydra.run.dir) is not.

  cae rerun last seed=1
  cae rerun d3tg loss=ssim training.epochs=40
  cae rerun d3tg -m seed=0,1,2        a sweep; all flags of cae train
  cae rerun d3tg --cfg job            shows the config, and trains nothing

{RUN_WORDS}
flags:
{composing.HELP}{composing.COMPOSING}{RUNS}"""

ABSENT = object()


@dataclass(frozen=True)
class Overrides:
    """An old config in the words of ``cae train``.

    Attributes:
        words: what differs from today's defaults and from what the person changes.
        unknown: keys of the old config that are no options now.
        new: keys that it does not have, with the values that they get.
    """

    words: tuple[str, ...]
    unknown: tuple[str, ...] = ()
    new: Mapping[str, Any] = field(default_factory=dict)


def main(arguments: list[str]) -> int:
    """Runs the run that comes first again."""
    flags = composing.parse("cae rerun", arguments)
    if flags.help:
        print(HELP, end="")
        return 0
    subject, changes = registry.split_one(
        flags.overrides, "cae rerun", "cae rerun last seed=1", "one run"
    )
    run = opened(registry.find(subject, flags.runs))
    check_trained(run, "cae train makes runs that can be run again")
    flags.overrides = changes
    sources = composing.sources(flags)
    first = compose.jobs(changes)[0] if flags.multirun else changes
    again = overrides_again(run, first, sources)
    words = [*again.words, *changes]
    if not (flags.cfg or flags.info):
        terminal.Screen().say(shlex.join(["cae", "train", *(["-m"] if flags.multirun else []), *words]))
    return train.main([*_flags(flags), *words])


def check_trained(run: Run, hint: str) -> None:
    """Says so if there is no command that makes a run again.

    Args:
        run: that is set up.
        hint: which runs will do.

    Raises:
        UserError: this tool did not train its model.
    """
    setup = read_any_version(run.setup_file)
    if not setup.get("command") or not isinstance(setup.get("config"), dict):
        raise UserError(
            "this tool did not train that model, so it cannot train it again",
            where=run.folder,
            hint=hint,
        )


def overrides_again(run: Run, changes: Sequence[str] = (), sources: Sources | None = None) -> Overrides:
    """`overrides_of` a run's config; says which of its keys are no longer there, or are new.

    Args:
        run: that `check_trained` found nothing against.
        changes: as for `overrides_of`.
        sources: as for `overrides_of`.

    Raises:
        UserError: as `overrides_of`; names the run's file where that is what is wrong.
    """
    try:
        again = overrides_of(read_any_version(run.setup_file)["config"], changes, sources)
    except _OfTheRun as error:
        error.where = f"{run.setup_file}: {error.where}" if error.where else str(run.setup_file)
        raise
    screen = terminal.Screen()
    if again.unknown:
        screen.say(f"! these keys are no longer options, and are left out: {', '.join(again.unknown)}")
    if again.new:
        values = ", ".join(f"{key}={value}" for key, value in again.new.items())
        screen.say(f"! the run did not know these, which get today's defaults: {values}")
    return again


def _flags(flags: argparse.Namespace) -> list[str]:
    """The flags for ``cae train``; rules of the person's own are loaded already."""
    words = [f"--{name}" for name in ("multirun", "resolve", "verbose") if getattr(flags, name)]
    words += ["--trust-configs"] if flags.trust_configs else []
    for name in ("cfg", "info", "package", "config_dir", "config_name", "fail_on"):
        if getattr(flags, name) is not None:
            words += [f"--{name.replace('_', '-')}", str(getattr(flags, name))]
    return words


class _OfTheRun(UserError):
    """What is wrong with the old config, and not with what the person typed."""


def overrides_of(
    config: Mapping[str, Any], changes: Sequence[str] = (), sources: Sources | None = None
) -> Overrides:
    """The words that, with the changes behind them, make a config again.

    They are made of what the schema knows, key by key: the config is a stranger's, and nothing else
    that it says reaches the command line.

    Args:
        config: of run.json.
        changes: overrides of the person, of a single run.
        sources: where options are looked for, and whom to believe.

    Raises:
        UserError: the changes, or what is left of the old config, are wrong.
    """
    sources = sources or Sources()
    theirs = replace(sources, trust=Trust(words=False))
    default = compose.composed([], theirs)
    anew = _chosen_anew(changes, default, sources)
    choices, unknown = _choices(config, anew, default)
    before = _checked_old(choices, theirs)
    after = compose.checked([*choices, *changes], sources)[1] if changes else before
    base, changed = flat(plain(before)), flat(plain(after))
    said = {key_of(word) for word in changes}
    old = flat({name: inner for name, inner in config.items() if name != "rules"})
    words = list(choices)
    for key, value in old.items():
        group = key.partition(".")[0]
        if group in anew or (group in SEVERAL and key not in base):
            unknown += [key] * (group not in anew and not _is_dropped(key, unknown))
            continue
        if key not in base:
            unknown.append(key)
        elif key.endswith(".name") and group in VARIANTS:
            continue
        elif key in said or not _equal(base[key], changed.get(key, ABSENT)):
            continue  # the person says otherwise, by that word or by one that stands for many
        elif not _equal(value, base[key]):
            words.append(f"{key}={_word(key, value)}")
    of_rules, unknown_rules = _of_rules(config.get("rules"), said)
    words += of_rules
    if words != choices:
        _checked_old(words, theirs)
    new = {
        key: value
        for key, value in base.items()
        if key not in old and key.partition(".")[0] not in anew and key not in said
    }
    return Overrides(tuple(words), (*unknown, *unknown_rules), new)


def _checked_old(words: Sequence[str], sources: Sources) -> Any:
    """The config of words that come from a run's file."""
    try:
        return compose.checked(words, sources)[1]
    except UserError as error:
        where = (error.where or "").removeprefix("command of the run: ")
        raise _OfTheRun(error.what, where=where or None, hint=error.hint) from error


def _chosen_anew(changes: Sequence[str], default: DictConfig, sources: Sources) -> set[str]:
    """Groups whose option the person chooses, with a word of its own or by a model or an experiment."""
    picks = [word for word in changes if key_of(word) in GROUPS]
    anew = {key_of(word) for word in picks} - set(DEVIATIONS)
    if not picks:
        return anew
    picked = compose.composed(picks, sources)
    return anew | {
        group
        for group in GROUPS
        if group not in DEVIATIONS and _option(default, group) != _option(picked, group)
    }


def _option(node: DictConfig, group: str) -> Any:
    """Which option of a group a composed config has."""
    if group in SEVERAL:
        return set(node.get(group) or ())  # Hydra does not record a list
    return OmegaConf.select(node, f"hydra.runtime.choices.{group}")


def _choices(
    config: Mapping[str, Any], anew: set[str], default: DictConfig
) -> tuple[list[str], list[str]]:
    """The words that choose the options of the old config, and names that are no options now.

    What is the default is not said.
    """
    words: list[str] = []
    unknown: list[str] = []
    for group, catalogue in VARIANTS.items():
        node = config.get(group)
        name = node.get("name") if isinstance(node, dict) else None
        if group in anew or name is None:
            continue
        if not isinstance(name, str) or name not in catalogue:
            raise _OfTheRun(
                f"{group}={str(name)[:60]} is no longer an option",
                where=f"{group}.name",
                hint=f"choose one behind RUN: {group}=…; {did_you_mean(str(name), catalogue)}",
            )
        words += [f"{group}={name}"] * (name != OmegaConf.select(default, f"{group}.name"))
    for group, several in SEVERAL.items():
        node = config.get(group)
        if group in anew or not isinstance(node, dict):
            continue
        names = [str(name) for name in node if name in several]
        unknown += [f"{group}.{name}" for name in node if name not in several]
        if set(names) != _option(default, group):
            words.append(f"{group}=[{','.join(names)}]" if names else f"{group}=none")
    return words, unknown


def _is_dropped(key: str, unknown: Sequence[str]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in unknown)


def _of_rules(given: Any, said: set[str]) -> tuple[list[str], list[str]]:
    """What the old config says of single rules, as words; codes and keys that there are not."""
    codes = {rule.code for rule in RULES}
    words, unknown = [], []
    for key, value in flat(given).items() if isinstance(given, dict) else ():
        code, _, name = key.partition(".")
        if code not in codes or name not in ("threshold", "enabled"):
            unknown.append(f"rules.{key}")
        elif value not in (None, True) and f"rules.{key}" not in said:
            words.append(f"rules.{key}={_word(f'rules.{key}', value)}")
    return words, unknown


def _equal(a: Any, b: Any) -> bool:
    """Whether two values are the same; 1 is 1.0, and true is not 1."""
    return bool(a == b) and isinstance(a, bool) == isinstance(b, bool)


def _word(key: str, value: Any) -> str:
    """A value in Hydra's grammar, so that it stands for itself and for nothing else.

    Raises:
        UserError: it would not.
    """
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list):
        return f"[{','.join(_word(key, item) for item in value)}]"
    text = str(value)
    if not isinstance(value, str) or "${" in text:
        raise _OfTheRun(
            f"{key} is nothing that a run's file may say: {text[:60]!r}",
            where=key,
            hint=f"give it a value behind RUN: {key}=…",
        )
    if re.fullmatch(r"[A-Za-z_/][\w./-]*", text) and text.lower() not in (
        "null",
        "true",
        "false",
        "nan",
    ):
        return text
    # Backslashes count only before a quote, and at the end.
    return "'" + re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), text) + "'"
