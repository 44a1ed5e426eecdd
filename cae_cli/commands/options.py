"""``cae options [GROUP[/OPTION]]``: the config groups, their options and keys."""

from __future__ import annotations

from pathlib import Path

from cae_cli.config import compose
from cae_cli.config.schema import DEVIATIONS, GROUPS, ONE, SEVERAL, VARIANTS, General
from cae_cli.data import hook
from cae_cli.errors import UserError, did_you_mean, to_paste
from cae_cli.options import OptionInfo, describe

HELP = """\
usage: cae options [GROUP[/OPTION]]

  cae options             list the config groups
  cae options loss        list the options of a group
  cae options loss/ssim   show the file of an option, and describe its keys
"""


def main(args: list[str]) -> int:
    """Prints groups, a group's options, or one option."""
    if "-h" in args or "--help" in args:
        print(HELP, end="")
        return 0
    if len(args) > 1:
        raise UserError(f"expected one group or option, got {len(args)}", hint="cae options --help")
    sources = compose.Sources()
    if not args:
        _show_groups(sources)
        return 0
    group, _, name = args[0].replace("=", "/").partition("/")
    if group not in GROUPS:
        raise UserError(f"there is no group {group!r}", hint=did_you_mean(group, GROUPS))
    if not name:
        _show_group(group, sources)
        return 0
    known = sources.options(group)
    if f"{group}={name}" == hook.WORD:
        raise UserError(
            f"{hook.WORD} {hook.EXAMPLE} runs your function, and has no file",
            hint="its keys are those of data=npz: cae options data/npz",
        )
    if name not in known:
        raise UserError(
            f"{group} has no option {name!r}",
            hint=did_you_mean(name, known, f"the options of {group} are"),
        )
    _show_option(group, name, known[name])
    return 0


def summary(path: Path) -> str:
    """The first comment of a config file, which describes it in a line."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("# @"):  # Hydra's own header
            return line.lstrip("# ") if line.startswith("#") else ""
    return ""


def keys(group: str, name: str) -> list[OptionInfo]:
    """The keys of an option, as its dataclass declares them."""
    if group in ONE:
        return describe(ONE[group])
    if group in VARIANTS and name in VARIANTS[group]:
        return describe(VARIANTS[group][name])
    if group in SEVERAL and name in SEVERAL[group]:
        return describe(SEVERAL[group][name])
    return []


def _show_groups(sources: compose.Sources) -> None:
    width = max(map(len, GROUPS))
    for group, what in GROUPS.items():
        print(f"{group:<{width}}  {what}")
        print(f"{'':<{width}}  {', '.join(sources.options(group))}")
    print("\nkeys without a group:")
    _show_keys("", describe(General))
    print("\ncae options GROUP lists its options, cae options GROUP/OPTION describes one")


def _show_group(group: str, sources: compose.Sources) -> None:
    files = sources.options(group)
    width = max(map(len, files))
    print(f"{group}: {GROUPS[group]}\n")
    for name, path in files.items():
        print(f"  {group}={name:<{width}}  {summary(path)}")
    if group in ONE:
        print("\nkeys of every option:")
        _show_keys(group, describe(ONE[group]))
    elif group not in DEVIATIONS:
        print(f"\n{to_paste('cae', 'options', f'{group}/{next(iter(files))}')} describes its keys")


def _show_option(group: str, name: str, path: Path) -> None:
    print(f"# {path}\n{path.read_text(encoding='utf-8').rstrip()}")
    infos = keys(group, name)
    if infos:
        print("\nkeys:")
        _show_keys(f"{group}.{name}" if group in SEVERAL else group, infos)


def _show_keys(prefix: str, infos: list[OptionInfo]) -> None:
    names = [f"{prefix}.{info.name}" if prefix else info.name for info in infos]
    width = max(map(len, names))
    for name, info in zip(names, infos, strict=True):
        limits = f" ({info.range})" if info.range else ""
        print(f"  {name:<{width}}  {info.doc}\n  {'':<{width}}    {info.type}{limits}")
