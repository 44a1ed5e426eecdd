"""Documentation that is generated is up to date; commands and links that are written down are real."""

import json
import re
import runpy
import shlex
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from PIL import Image

from cae_cli.cli import COMMANDS
from cae_cli.config.compose import Sources, checked, jobs
from cae_cli.diagnosis import RULES
from cae_cli.sweep.grid import taken_out
from tests.conftest import ROOT, environment

PAGES = runpy.run_path(str(ROOT / "docs" / "generate.py"))["PAGES"]
WRITTEN = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
# cae train … in Markdown and YAML, up to the end of the line, a closing backtick or a comment
COMMAND = re.compile(r"^ *`?(cae train[^`#\n]*)|`(cae train [^`\n]*)`", re.MULTILINE)
# $ cae … with what it prints below
SHOWN = re.compile(r"^    \$ cae (.*)\n((?:    .*\n)+)", re.MULTILINE)


# An indented block of Markdown, with the empty lines inside it
BLOCK = re.compile(r"(?:^    .*\n|^\n(?=    ))+", re.MULTILINE)


def python_examples():
    """All examples of docs/python.md, one after the other."""
    return "".join(map(textwrap.dedent, BLOCK.findall((ROOT / "docs" / "python.md").read_text())))


def commands():
    for file in [*WRITTEN, *(ROOT / "configs").rglob("*.yaml")]:
        for match in COMMAND.finditer(file.read_text()):
            yield pytest.param(match[1] or match[2], id=f"{file.name}: {(match[1] or match[2])[:50]}")


@pytest.mark.parametrize("page", PAGES)
def test_generated_pages_are_up_to_date(page):
    assert (ROOT / "docs" / page).read_text() == PAGES[page](), "make docs"


@pytest.mark.parametrize("command", list(commands()))
def test_every_command_that_is_written_down_is_valid(command):
    # A file stands in place of data=python before a config is composed.
    words = [word for word in shlex.split(command)[2:] if word != "…"]
    words = ["data=npz" if word == "data=python" else word for word in words]
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


def test_the_examples_of_python_fit_the_types_that_are_shipped(tmp_path):
    (tmp_path / "examples.py").write_text(python_examples())
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file", "pyproject.toml", str(tmp_path)],
        cwd=ROOT, env=environment(MYPYPATH=str(ROOT)), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_words_of_the_examples_of_python_are_valid():
    calls = re.findall(r"cae_cli\.(train\w*)\((.*?)(?:, data=.*)?\)\n", python_examples())
    assert len(calls) >= 4
    for function, words in calls:
        given = re.findall(r'"([^"]*)"', words)
        if "optimizer.lr=0.1" not in given:  # the example of an error
            assert all(checked(job) for job in jobs(given)), function


@pytest.mark.soak
def test_the_examples_of_python_run(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (40, 28, 28), np.uint8)
    (tmp_path / "photos").mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / "photos" / f"{i}.png")
    (tmp_path / "examples.py").write_text(python_examples())
    done = subprocess.run(
        [sys.executable, "examples.py"], cwd=tmp_path, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "optimizer.lr is not an option | did you mean optimizer.learning_rate?" in done.stdout
    assert len(list((tmp_path / "runs" / "train").glob("*/*/summary.json"))) == 12


def test_the_notebook_holds_the_cells_of_its_script_and_was_executed():
    notebook = json.loads((ROOT / "docs" / "notebook.ipynb").read_text())
    cells = runpy.run_path(str(ROOT / "docs" / "notebook.py"))["cells"]()
    found = [(cell["cell_type"], "".join(cell["source"])) for cell in notebook["cells"]]
    assert found == list(cells), "python docs/notebook.py"
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} == {"stream", "execute_result"}


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
