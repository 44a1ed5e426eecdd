"""The command line, as far as it needs no TensorFlow."""

import json
import subprocess
import sys

import pytest

from cae_cli.cli import COMMANDS
from cae_cli.diagnosis import RULES
from tests.conftest import ROOT, environment

HEAVY = ("tensorflow", "keras", "matplotlib", "sklearn", "scipy")


# Prints, after each command, which modules are loaded.
LOADED = """
import json, sys
from cae_cli import cli
for arguments in json.loads(sys.argv[1]):
    try: cli.run(arguments)
    except SystemExit: pass
    print("LOADED", *sys.modules, file=sys.stderr)
"""


def loaded_after(*commands, folder):
    """The modules that are loaded after each of several commands in one process."""
    done = subprocess.run(
        [sys.executable, "-c", LOADED, json.dumps(commands)],
        capture_output=True, text=True, cwd=folder, env=environment(), timeout=120,
    )  # fmt: skip
    lines = [line.split()[1:] for line in done.stderr.splitlines() if line.startswith("LOADED ")]
    assert len(lines) == len(commands), done.stderr
    return [set(line) for line in lines]


LIGHT = (
    ["--help"],
    ["--version"],
    ["train", "--help"],
    ["train", "--cfg", "job"],
    ["train", "modl=l2"],
    ["train", "loss=ssim", "loss.window=4"],
    ["train", "-m", "model=baseline,bseline"],
    ["train", "data=image_folder", "data.path=nowhere"],
    ["options", "loss/ssim"],
    ["report", "nowhere"],
    ["runs", "ls"],
    ["compare", "last", "last-1"],
    ["rerun", "last"],
    ["rules"],
    ["rules", "CAE301"],
)


def test_what_needs_no_tensorflow_does_not_import_it(tmp_path):
    for arguments, modules in zip(LIGHT, loaded_after(*LIGHT, folder=tmp_path), strict=True):
        assert "cae_cli.cli" in modules
        assert not modules & set(HEAVY), arguments


def test_help_imports_next_to_nothing(tmp_path):
    [modules] = loaded_after(["--help"], folder=tmp_path)
    assert not modules & {"hydra", "omegaconf", "numpy", "rich", "PIL", "yaml"}


def test_help_lists_every_command(cae):
    done = cae("--help")
    assert done.code == 0 and all(f"  {name}" in done.out for name in COMMANDS)
    assert cae().out == done.out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(cae, command):
    done = cae(command, "--help")
    assert done.code == 0 and done.out.startswith(f"usage: cae {command}")
    assert max(map(len, done.out.splitlines())) <= 80
    assert cae("help", command).out == done.out


def test_a_mistake_ends_the_process_with_its_exit_code(cae, cae_process):
    words = ("train", "loss=ssim", "loss.window=29")
    done = cae_process(*words)
    assert done == cae(*words) and done.code == 2 and done.err.startswith("error: loss.window is 29")


@pytest.mark.parametrize(
    ("arguments", "what", "hint"),
    [
        (["trian"], "there is no command 'trian'", "did you mean train?"),
        (["model=l2"], "'model=l2' is not a command", "cae train model=l2"),
        (["train", "modl=l2"], "there is no option 'modl'", "did you mean model?"),
        (["train", "seed=0,1"], "seed=0,1 has several values", "-m"),
        (["--verson"], "cae has no flag '--verson'", "did you mean cae --version?"),
        (["train", "--experiment", "smoke"], "unrecognized arguments: --experiment", "loss=ssim"),
        (["train", "--verbos"], "unrecognized arguments: --verbos", "did you mean --verbose?"),
        (["train", "--cgf", "job"], "unrecognized arguments: --cgf", "cae train --help"),
        (["train", "-cd", "nowhere"], "no such folder: nowhere", ""),
        (["train", "-m", "seed=0,1", "loss=mse,sim"], "loss has no option 'sim'", "did you mean"),
        (["train", "-m", "seed=0,-1"], "seed must be at least 0, got -1", ""),
        (["train", "--experimental-rerun", "x"], "pickle", ""),
        (["train", "hydra.mode=MULTIRUN"], "hydra.mode cannot be set on the command line", "-m"),
        (["train", "hydra.run.dir=${nope}"], "hydra.run.dir", ""),
        (["train", "hydra/launcher=joblib"], "hydra/launcher has no option 'joblib'", "not installed"),
        (["-sc", "nonsense"], "install=", "install=bash"),
        (["train", "-cp", "x"], "--config-path would replace cae's own configs", "--config-dir x"),
        (["train", "loss=ssim", "loss.window=29"], "loss.window is 29 pixels", "loss.window=27"),
        (["train", "data=npz", "data.path=nowhere.npz"], "data.path does not exist", "relative"),
        (["train", "data.train=9"], "training.batch_size is 32, but there are only 9", "=9"),
        (
            ["train", "hydra.run.dir=/dev/null/x"],
            "cannot write the run: not a directory",
            "hydra.run.dir",
        ),
        (["train", "-m", "seed=0,1", "hydra.sweep.dir=/dev/null/x"], "cannot write the run", "sweep"),
        (["options", "los"], "there is no group 'los'", "did you mean loss?"),
        (["options", "loss/sim"], "loss has no option 'sim'", "did you mean"),
        (["options", "data=python"], "data=python data.path=mine.py:load runs", "data/npz"),
        (["options", "a", "b"], "expected one group or option, got 2", "--help"),
        (["report", "nowhere"], "no such folder", ""),
        (["rules", "CAE300"], "there is no rule 'CAE300'", "did you mean CAE3"),
        (["rules", "CAE301", "CAE302"], "expected one code, got 2", "cae rules"),
        (["report"], "expected one run, got 0", "cae report last"),
        (["explain", "CAE301"], "there is no command 'explain'", "did you mean cae rules CODE?"),
        (["diff", "1", "2"], "there is no command 'diff'", "did you mean cae compare A B?"),
        (["diagnose", "last", "--probe"], "cae diagnose has no --probe", "cae treat RUN --short"),
    ],
)
def test_a_mistake_is_one_error_line_and_one_hint(cae, tmp_path, arguments, what, hint):
    done = cae(*arguments)
    assert done.code == 2 and done.out == ""
    lines = [line for line in done.err.splitlines() if not line.endswith(" …")]
    assert lines[0].startswith("error: ") and what in lines[0]
    assert not hint or any(line.startswith("hint: ") and hint in line for line in lines)
    assert len(lines) <= 3 and "Traceback" not in done.err
    assert not list(tmp_path.rglob("*"))[2:]  # at most runs/<task>: nothing half-made is left


def test_a_folder_that_was_there_before_stays(cae, tmp_path):
    (tmp_path / "keep").mkdir()
    assert cae("train", "data.train=9", "hydra.run.dir=keep").code == 2
    assert (tmp_path / "keep").is_dir()


def test_the_whole_error_can_be_had(cae_process):
    done = cae_process("train", "modl=l2", HYDRA_FULL_ERROR="1")
    assert done.code == 1 and "Traceback" in done.err


def test_flags_may_stand_anywhere(cae):
    a = cae("train", "model=l2", "--cfg", "job", "seed=3")
    b = cae("train", "--cfg", "job", "model=l2", "seed=3")
    assert a.code == b.code == 0 and a.out == b.out and "seed: 3" in a.out


def test_the_composed_config_is_shown_without_making_a_folder(cae, cae_process, tmp_path):
    assert "filters" in cae("train", "--cfg", "job").out
    assert "data: glyphs" in cae_process("train", "--info", "defaults-tree").out
    assert cae("train", "-m", "seed=0,1", "--cfg", "job").code == 0
    assert list(tmp_path.iterdir()) == []


def test_options_are_listed_at_three_depths(cae):
    assert "regularization" in cae("options").out
    assert "loss=ssim" in cae("options", "loss").out
    whole = cae("options", "loss/ssim").out
    assert "window: 11" in whole and "loss.window" in whole and "odd" in whole
    assert cae("options", "loss=ssim").out == whole


def test_rules_are_listed_and_explained(cae):
    listed = cae("rules").out
    for rule in RULES:
        assert f"{rule.code}  {rule.severity.value}" in listed and rule.problem in listed
        told = "".join(cae("rules", rule.code.lower()).out.split())
        for text in (rule.why, rule.source, rule.measured, f"{rule.threshold:g}"):
            assert "".join(text.split()) in told


def test_own_configs_are_used(cae, tmp_path):
    (tmp_path / "mine" / "loss").mkdir(parents=True)
    (tmp_path / "mine" / "loss" / "sharp.yaml").write_text("defaults: [ssim, _self_]\nwindow: 5\n")
    done = cae("train", "-cd", "mine", "loss=sharp", "--cfg", "job")
    assert done.code == 0 and "window: 5" in done.out
    assert "sharp" in cae("train", "-cd", "mine", "--help").out


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("cae tra", "train"),
        ("cae train model=res", "model=residual"),
        ("cae train optimizer.le", "optimizer.learning_rate="),
        ("cae options loss/ss", "loss/ssim"),
        ("cae train optimizer=_", ""),
    ],
)
def test_the_tab_key_completes(cae, line, found):
    assert cae("-sc", "query=bash", COMP_LINE=line).out.strip() == found


def test_the_completion_script_is_for_cae(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", "import sys; sys.argv=['cae','-sc','install=bash'];"
         "from cae_cli.cli import main; main()"],
        capture_output=True, text=True, cwd=tmp_path, env=environment(),
    )  # fmt: skip
    assert done.returncode == 0 and done.stdout.rstrip().endswith("hydra_bash_completion cae")


def test_a_closed_pipe_is_no_error(tmp_path):
    command = f"'{sys.executable}' -m cae_cli options | head -1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, cwd=tmp_path,
        env=environment(),
    )  # fmt: skip
    assert "Traceback" not in done.stderr and "BrokenPipe" not in done.stderr


def test_errors_are_plain_text_where_colour_is_not_wanted(cae):
    assert "\x1b" not in cae("train", "modl=l2", NO_COLOR="1").err
    assert "\x1b" not in cae("train", "modl=l2").err


def test_errors_are_not_wrapped_in_a_narrow_terminal(cae):
    done = cae("train", "optimizer.learning_rtae=1", COLUMNS="30")
    assert "error: optimizer.learning_rtae is not an option\n" in done.err


def test_control_characters_in_names_are_shown_and_not_sent(cae):
    done = cae("train", "data=npz", "data.path='a\x1b[31mb\nc'")
    assert done.code == 2 and "\x1b" not in done.err


def test_the_checkout_and_the_package_hold_the_same_configs():
    # An installed wheel has them inside the package; a checkout must not have both.
    assert (ROOT / "configs" / "config.yaml").is_file()
    assert not (ROOT / "cae_cli" / "configs").exists()
