"""Words that were replaced by the field's do not come back into messages, documentation and configs."""

import ast
import functools
import re

import pytest

from tests.conftest import ROOT

# As regular expressions of whole words: what to write instead.
REPLACED = {
    r"anatomy|dissect(s|ed|ing)?": "introspection",
    r"survey(s|ed)?": "dataset statistics",
    r"relapses?": "loss spike",
    r"ladders?|rungs?|(the|an|one) anchors?(?! or alias)": "baseline",
    r"skill(?! scores?)": "skill score",
    r"useless filters?": "prunable filter",
    r"slack": "sharpening gain",
    r"redraws?|redrawn": "re-initialised filter",
    r"sick|patients?": "faulty",
    r"cures?|cured": "fixed",
    r"clinic": "fault benchmark",
    r"prescri(ption|ptions|bes?|bed)|remed(y|ies)": "fix",
    r"ways? out": "fix",
    r"placebos?": "random control",
    r"rivals?": "alternatives",
    r"silent=(true|false)": "enabled=",
    r"(answers|course|redraws|formation)\.png": "perturbation_tests.png and the others",
    r"durable": "files",
    r"engines?": "backend",
    r"casebooks?": "case",
    r"yardsticks?": "criterion, ranking metric",
    r"theirs": "name the thing",
    r"to the bit": "bit-identical",
    r"go(es|ing)? on|went on": "resumes, continues",
    r"rounds?": "treatment steps",
    r"foresee(s|n|ing)?": "forecast",
    r"told so|so told": "is reported",
    r"(?<![\w.:\]})/\\])\.\d+": "0.4, not .4",
}
# Where such a word means something else, or names what there was for those who look for it.
ALLOWED = re.compile(r"no way out of|^clinic$|^ *cae clinic .* # now: .*$", re.MULTILINE)


def texts():
    """Everything that people read: (file, text)."""
    for folder in ("cae_cli", "hydra_plugins", "benchmarks/faults"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path, "\n".join(_strings(ast.parse(path.read_text())))
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        yield path, path.read_text()
    for folder in ("configs", "benchmarks/faults"):
        for path in sorted((ROOT / folder).rglob("*.yaml")):
            yield path, path.read_text()


def _strings(tree):
    """String literals and docstrings; of formatted ones what is not a format or a regular expression."""
    formats = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.FormattedValue) and node.format_spec is not None
        for part in ast.walk(node.format_spec)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in formats:
            yield node.value


@functools.cache
def written():
    return [(path.relative_to(ROOT).as_posix(), ALLOWED.sub("", text)) for path, text in texts()]


@pytest.mark.parametrize("word", REPLACED)
def test_a_replaced_word_does_not_come_back(word):
    pattern = re.compile(rf"(?<![\w-])(?:{word})(?![\w-])", re.IGNORECASE)
    found = [
        f"{path}: {text[max(0, match.start() - 30) : match.end() + 30]!r}"
        for path, text in written()
        for match in pattern.finditer(text)
    ]
    assert not found, f"write {REPLACED[word]!r} instead:\n" + "\n".join(found)
