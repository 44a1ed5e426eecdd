"""Hints that hold a command: pasted into a shell, it names exactly the folder that is meant."""

import ast
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from cae_cli.commands import arguments
from cae_cli.commands.report import main as report
from cae_cli.config import compose
from cae_cli.data.source import folder_at
from cae_cli.errors import UserError, to_paste
from cae_cli.features.network import open_network
from cae_cli.options import override_to_paste
from cae_cli.runs.command import fit_to_paste
from cae_cli.runs.folder import Run
from cae_cli.runs.registry import Registry, check_removable
from cae_cli.sweep.hydra_app import check_empty
from tests.conftest import ROOT

NASTY = (
    "two words", "it's", 'a "quote"', "$(touch gone)", "`touch gone`", "a;b|c&d", "*", "\\", "\\'", "#",
    "-rf", "--help", "~", "~root", "new\nline", "\x1b[31mred", "\u202eright", "caf\u00e9",
    "\udcff.bytes", "${x}", "!!", "a=b", "null", "[1,2]",
)  # fmt: skip


def pasted(command: str, folder: Path) -> list[str]:
    """The words that a shell makes of a command."""
    script = f"printf '%s\\0' {command}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, cwd=folder, check=True)
    return done.stdout.decode(errors="surrogateescape").split("\0")[:-1]


def test_a_shell_reads_every_word_as_it_is(tmp_path):
    assert pasted(to_paste(*NASTY), tmp_path) == list(NASTY)
    assert to_paste(*NASTY).isprintable()
    assert list(tmp_path.iterdir()) == []


def test_a_path_is_neither_a_flag_nor_a_home_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("-rf", "--help", "~", "~root"):
        assert pasted(to_paste(Path(name)), tmp_path) == [str(tmp_path / name)]
    assert to_paste("cae", Path("runs/a")) == "cae runs/a"


def path_set_by(word: str) -> str:
    """The path that a word of the command line gives to ``data.path``."""
    flags = arguments.parse("cae check", [word])
    return next(iter(compose.parsed(flags.overrides))).value()


@pytest.mark.parametrize("sweep", [False, True])
@pytest.mark.parametrize("path", [
    "photos", "two words", "a=b", "a,b", "[1] (2) {3}", "it's", 'a "quote"', "Bäume/Größe", "~/photos",
    "2024", "true", "a:b@c", "#1 & more", "$HOME", "-x", "写真", "%d", "*", "a\\b", "'quoted'",
])  # fmt: skip
def test_a_path_that_exists_is_typed_as_it_is(path, sweep, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / path.removeprefix("~/")).mkdir(parents=True)
    word = f"data.path={path}"
    flags = arguments.parse("cae train", [word, *["-m"] * sweep])
    assert next(iter(compose.parsed(flags.overrides))).value() == path
    assert compose.jobs(flags.overrides) == [flags.overrides]
    # What is shown to be pasted is what was typed, and means the same.
    shown = arguments.train_command(flags)[-1]
    assert arguments.parse("cae train", [shown, *["-m"] * sweep]).overrides == flags.overrides
    if not set(path) & {*"'\\$"}:
        assert shown == word


@pytest.mark.parametrize(("word", "path"), [
    ("data.path='a b'", "a b"), ('data.path="~/photos"', "~/photos"), ("data.path=a\\,b", "a,b"),
    ("data.path=null", None), ("++data.path=a b", "a b"), ("data.path=${task_name}", "train"),
])  # fmt: skip
def test_what_is_written_in_hydras_grammar_still_means_the_same(word, path):
    flags = arguments.parse("cae check", ["data=image_folder", word])
    assert compose.checked(flags.overrides)[1].data.path == path


@pytest.mark.parametrize(("word", "paths"), [
    ("data.path=a b,~/c,d", ["a b", "~/c", "d"]), ("data.path='a b','c d'", ["a b", "c d"]),
    ("data.path=choice(a,b)", ["a", "b"]), ("data.path='a,b'", ["a,b"]),
])  # fmt: skip
def test_a_sweep_takes_several_paths(word, paths):
    flags = arguments.parse("cae train", ["-m", "data=image_folder", word])
    jobs = compose.jobs(flags.overrides)
    assert [list(compose.parsed(job))[1].value() for job in jobs] == paths
    command = arguments.train_command(flags)
    assert arguments.parse("cae train", command[2:]).overrides == flags.overrides


def test_an_override_to_paste_sets_the_text(tmp_path):
    names = [name for name in NASTY if name != "\udcff.bytes"]  # overrides are UTF-8 text
    words = pasted(" ".join(override_to_paste("data.path", name) for name in names), tmp_path)
    assert [path_set_by(word) for word in words] == names
    assert override_to_paste("data.path", "two words, a=b").count("'") == 2  # those of the shell


@pytest.mark.parametrize(("status", "training", "command"), [
    ("interrupted", None, "resume"),
    ("failed", None, "resume"),  # a full disk, before the first epoch ended
    ("failed", {"diverged_at": 3, "best_epoch": 0, "measured_epoch": 0}, "report"),
    ("ok", {"diverged_at": None, "best_epoch": 1, "measured_epoch": 1}, "rerun"),
])  # fmt: skip
def test_a_run_without_a_network_names_the_command_that_helps(tmp_path, status, training, command):
    run = Run(tmp_path)
    run.set_status(status, "the disk is full" if status == "failed" else None)
    run.write_setup({"command": ["cae", "train"], "config": {}})
    if training:
        run.write_training(training)
    with pytest.raises(UserError, match="the run has no network") as caught:
        open_network(run)
    assert caught.value.hint == f"cae {command} {tmp_path}"


@pytest.mark.parametrize("name", NASTY)
def test_hints_name_the_folder(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = tmp_path / name
    run.mkdir()

    def names(path: Path, function: Callable[..., object], *arguments: object) -> bool:
        with pytest.raises(UserError) as caught:
            function(*arguments)
        words = pasted(re.sub("^.*?: |^use ", "", caught.value.hint), tmp_path)
        named = [path_set_by(word) if "path=" in word else word for word in words]
        return path in [tmp_path / word for word in named]

    setup = run / "run.json"
    setup.write_text(json.dumps({"schema": 3, "command": ["cae"], "config": {}}))
    assert names(run, report, [str(run)])
    assert names(run, check_empty, Path(name), "hydra.run.dir")
    assert names(run.parent, Registry().find, str(run.parent))
    setup.write_text(json.dumps({"schema": 2, "command": ["cae"], "config": {}}))
    assert names(run, Run(Path(name)).setup)
    link = run / name
    link.symlink_to(run)
    assert names(link, check_removable, link)
    if "\udcff" not in name:  # overrides are UTF-8 text
        assert names(run, folder_at, str(setup), "photos")


TRAIN = ["cae", "train"]


@pytest.mark.parametrize("command", [
    [*TRAIN, "model=l2", "~regularization", "+tags=[a]", "++seed=1", "rules.CAE101.threshold=0.5"],
    [*TRAIN, "-cd", "my configs", "-cn", "mine", "data.path=a b", "data.test=${data.train}"],
    [*TRAIN, "-m", "seed=1,2", "sweep.pairs=[{a:1},{a:2}]"],
])  # fmt: skip
def test_a_command_as_cae_writes_it_is_fit_to_paste(command):
    assert fit_to_paste(command) == command == fit_to_paste(tuple(command))


@pytest.mark.parametrize("words", [
    ["--rules=a.py"], ["--rules", "a.py"], ["--trust-configs"], ["--custom", "a.py"], ["--force"],
    ["rm"], ["hydra.run.dir=/"], ["++hydra.sweep.dir=x"], ["+hydra/launcher=x"], ["~hydra"],
    ["-cd", "--rules=a.py"], ["-cd"], ["--config-dir=a"], ["task_name=${oc.env:SECRET}"], ["; rm -rf x"],
    ["task_name=a${oc.env:HOME}"], ["hydra/sweeper=x"],
])  # fmt: skip
def test_what_runs_code_or_reads_the_environment_is_not_shown_to_be_pasted(words):
    assert fit_to_paste([*TRAIN, "model=l2", *words]) == [*TRAIN, "model=l2"]


@pytest.mark.parametrize("command", [
    ["rm", "-rf", "important"], ["cae", "runs", "rm", "last"], ["cae"], [], None, {"cae": 1},
    "cae train", [*TRAIN, 3], ["cae", "train;rm"],
])  # fmt: skip
def test_other_commands_are_not_shown_to_be_pasted(command):
    assert fit_to_paste(command) == []


def literals(node: ast.JoinedStr):
    """Each inserted value of an f-string, and the text before it."""
    before = ""
    for part in node.values:
        if isinstance(part, ast.Constant):
            before += str(part.value)
        else:
            yield part.value, before
            before += "…"


def is_command(text: str) -> bool:
    """Whether what follows this text is a word of a command, or the value of a path's option."""
    in_command = re.search(r"(^|[\s(:;,])((cae [a-z]+|rm|mv|cd) )[^:;,()]*$", text)
    return bool(in_command or re.search(r"(\.path|\.dir|--runs|-cd|--config-dir)[= ]$", text))


def test_no_hint_inserts_a_value_into_a_command_unquoted():
    found = []
    for path in sorted((ROOT / "cae_cli").rglob("*.py")):
        tree = ast.parse(path.read_text())
        inside = [
            part
            for node in ast.walk(tree)
            if isinstance(node, ast.Call | ast.Assign)
            for part in hints(node)
        ]
        for node in (n for part in inside for n in ast.walk(part)):
            for value, before in literals(node) if isinstance(node, ast.JoinedStr) else ():
                if is_command(before):
                    found.append(f"{path.name}:{value.lineno}: {before}{{{ast.unparse(value)}}}")
    assert found == []


def hints(node: ast.Call | ast.Assign):
    """The parts of a call or an assignment that are shown as a hint, a message or a command."""
    if isinstance(node, ast.Assign):
        return [node.value] * any("hint" in ast.unparse(target) for target in node.targets)
    name = ast.unparse(node.func).rpartition(".")[2]
    shown = node.args if name in ("say", "Command", "print") else []
    return [*shown, *(word.value for word in node.keywords if word.arg == "hint")]


def test_the_search_finds_an_unquoted_value():
    for text in (
        'f(hint=f"see cae report {folder}")',
        'say(f"rm {folder}")',
        'hint = f"data.path={path}"',
    ):
        [node] = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Call | ast.Assign)][:1]
        [joined] = hints(node)
        assert [before for _, before in literals(joined) if is_command(before)]
