"""The command in the file of a run or sweep. A stranger may have written it, and people paste it."""

from __future__ import annotations

import re
from typing import Any

from cae_cli.options import as_typed

# What cae writes: config files run no code, unlike --rules; the rest are overrides of options.
_WITH_VALUE = ("-cd", "--config-dir", "-cn", "--config-name")
_SWEEP = ("-m", "--multirun")
_KEY = r"(?!hydra\b)[A-Za-z_][\w./@-]*"
_OVERRIDE = re.compile(rf"[+]{{0,2}}{_KEY}=.*|~{_KEY}(=.*)?", re.DOTALL)
# A resolver may read the environment; data=python runs a file.
_RUNS_CODE = re.compile(r"\$\{[^}]*:|^\W*data=.*python")


def fit_to_paste(command: Any) -> list[str]:
    """What of a command may be shown to be run again.

    Left out are what runs the code of a file or trusts configs, options of Hydra, and values that a
    resolver computes.

    Args:
        command: of a run.json or sweep.json.

    Returns:
        Words that begin with ``cae train``; [] if it is anything else, such as the [] of a model that
        was trained elsewhere.
    """
    if not isinstance(command, list | tuple) or not all(isinstance(word, str) for word in command):
        return []
    if tuple(command[:2]) != ("cae", "train"):
        return []
    words, kept = list(command[2:]), ["cae", "train"]
    while words:
        word = words.pop(0)
        if word in _WITH_VALUE and words and not words[0].startswith("-"):
            kept += [word, words.pop(0)]
        elif word in _SWEEP or (_OVERRIDE.fullmatch(word) and not _RUNS_CODE.search(word)):
            kept.append(as_typed(word, sweep=not {*_SWEEP}.isdisjoint(command)))
    return kept
