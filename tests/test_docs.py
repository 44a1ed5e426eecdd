"""Documentation that is generated is up to date; commands and links that are written down are real."""

import re
import runpy
import shlex
import textwrap

import pytest

from cae_cli.cli import COMMANDS
from cae_cli.config.compose import Sources, checked, jobs
from cae_cli.diagnosis import RULES
from cae_cli.sweep.grid import taken_out
from tests.conftest import ROOT

PAGES = runpy.run_path(str(ROOT / "docs" / "generate.py"))["PAGES"]
WRITTEN = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
# cae train … in Markdown and YAML, up to the end of the line, a closing backtick or a comment
COMMAND = re.compile(r"^ *`?(cae train[^`#\n]*)|`(cae train [^`\n]*)`", re.MULTILINE)
# $ cae … with what it prints below
SHOWN = re.compile(r"^    \$ cae (.*)\n((?:    .*\n)+)", re.MULTILINE)


def commands():
    for file in [*WRITTEN, *(ROOT / "configs").rglob("*.yaml")]:
        for match in COMMAND.finditer(file.read_text()):
            yield pytest.param(match[1] or match[2], id=f"{file.name}: {(match[1] or match[2])[:50]}")


@pytest.mark.parametrize("page", PAGES)
def test_generated_pages_are_up_to_date(page):
    assert (ROOT / "docs" / page).read_text() == PAGES[page](), "make docs"


@pytest.mark.parametrize("command", list(commands()))
def test_every_command_that_is_written_down_is_valid(command):
    words = [word for word in shlex.split(command)[2:] if word != "…"]
    if any(word.startswith("--") for word in words):
        words = [word for word in words if "=" in word]
    overrides, grid, _ = taken_out([word for word in words if word != "-m"])
    for job in grid.jobs(jobs(overrides)):
        checked(job)


def test_output_that_is_shown_is_what_is_printed(cae):
    examples = SHOWN.findall((ROOT / "README.md").read_text())
    assert examples
    for command, expected in examples:
        done = cae(*shlex.split(command))
        assert done.err == textwrap.dedent(expected)


def test_every_rule_is_documented():
    text = (ROOT / "docs" / "rules.md").read_text()
    assert all(rule.code in text and rule.source in text for rule in RULES)


@pytest.mark.parametrize("file", WRITTEN, ids=lambda path: path.name)
def test_links_lead_somewhere(file):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", file.read_text()):
        if "://" not in target:
            assert (file.parent / target).exists(), target


def test_the_readme_names_every_group_and_command():
    text = (ROOT / "README.md").read_text()
    assert all(re.search(rf"\bcae {name}(?![\w-])", text) for name in COMMANDS)
    folders = {path.name for path in (ROOT / "configs").iterdir() if path.is_dir()}
    assert all(f"`{group}`" in text for group in folders)
    for group in ("model", "loss", "regularization", "augmentation", "data", "optimizer", "experiment"):
        assert all(f"`{name}`" in text for name in Sources().options(group)), group


def test_nothing_speaks_of_the_machine_it_was_written_on():
    private = re.compile("|".join(["/" + "work/", "/" + "root/", r"\." + "library"]))
    for folder in ("cae_cli", "configs", "docs", "tests", "."):
        for path in (ROOT / folder).glob("**/*" if folder != "." else "*"):
            if path.suffix in (".py", ".md", ".yaml", ".toml", ".json"):
                assert not private.search(path.read_text()), path
