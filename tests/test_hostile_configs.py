"""Configs from strangers: each does its worst, and a canary says whether it succeeded."""

import os
import pickle
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

from cae_cli.commands import arguments
from cae_cli.config import hydra_internals, trust
from cae_cli.config.compose import CONFIGS, Sources, checked, composed, count, jobs, with_sweeper_params
from cae_cli.config.hydra_internals import loader_of
from cae_cli.config.trust import Trust, check_subdir
from cae_cli.errors import UserError
from tests.conftest import Done, environment

SECRET = "canary-7f3a91"
GLOBAL = "# @package _global_\n"


def written(folder: Path, name: str, text: str | bytes) -> Path:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder, beside the stranger's."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("CANARY", SECRET)
    return folder


@pytest.fixture
def theirs(tmp_path):
    """The stranger's folder of configs."""
    return tmp_path / "theirs"


def experiment(theirs: Path, text: str) -> tuple[list[str], Sources]:
    written(theirs, "experiment/mine.yaml", GLOBAL + text)
    return ["experiment=mine"], Sources(folders=(theirs,))


def primary(theirs: Path, text: str) -> tuple[list[str], Sources]:
    text = text if "defaults:" in text else f"defaults: [config, _self_]\n{text}"
    written(theirs, "mine.yaml", text)
    return [], Sources("mine", (theirs,))


WAYS = pytest.mark.parametrize("way", [experiment, primary])


def refused(overrides, sources) -> UserError:
    with pytest.raises(UserError) as caught:
        checked(overrides, sources)
    assert "\n" not in caught.value.what and SECRET not in str(caught.value)
    return caught.value


CALL = "{_target_: pathlib.Path.touch, self: {_target_: pathlib.Path, _args_: [canary]}}"
FORBIDDEN = {
    "hydra.callbacks.mine": f"callbacks: {{mine: {CALL}}}",
    "hydra.job.env_set.LD_PRELOAD": "job: {env_set: {LD_PRELOAD: /tmp/evil.so}}",
    "hydra.job.env_copy": "job: {env_copy: [CANARY]}",
    "hydra.launcher.setup": "launcher: {setup: [touch canary]}",
    "hydra.launcher.inner": f"launcher: {{inner: {CALL}}}",
    "hydra.launcher._target_": "launcher: {_target_: pathlib.Path}",
    "hydra.sweeper.inner": f"sweeper: {{inner: {CALL}}}",
    "hydra.sweeper.sampler._target_": f"sweeper: {{sampler: {CALL}}}",
    "hydra.sweeper.custom_search_space": "sweeper: {custom_search_space: os.system}",
    "hydra.sweeper.storage": "sweeper: {storage: 'sqlite:////tmp/canary.db'}",
    "hydra.job_logging.handlers.x.()": "job_logging: {handlers: {x: {(): os.system, command: 'true'}}}",
    "hydra.job_logging.handlers.x.class": "job_logging: {handlers: {x: {class: os.system}}}",
    "hydra.job_logging.x": "job_logging: {x: 'ext://os.system'}",
    "hydra.job_logging.root.handlers": "job_logging: {root: {handlers: [x]}}",
    "hydra.hydra_logging.handlers.x.class": (
        "hydra_logging: {handlers: {x: {class: logging.FileHandler, filename: canary}}}"
    ),
    "hydra.job_logging": "job_logging: '${tags}'",
    "hydra.overrides.task": "overrides: {task: ['--rules=evil.py']}",
    "hydra.overrides.hydra": "overrides: {hydra: [hydra.run.dir=/]}",
    "hydra.runtime.output_dir": "runtime: {output_dir: /}",
    "hydra.mode": "mode: MULTIRUN",
    "hydra.run": "run: '${rules}'",
    "hydra.run.dir": "run: {dir: /somewhere}",
    "hydra.sweep.dir": "sweep: {dir: ../somewhere}",
    "hydra.sweep.subdir": "sweep: {subdir: '../${hydra.job.num}'}",
    "hydra.output_subdir": "output_subdir: ../x",
    "hydra.job.name": "job: {name: ../x}",
    "hydra.job.chdir": "job: {chdir: true}",
    "hydra.job.config.override_dirname.item_sep": "job: {config: {override_dirname: {item_sep: /../}}}",
    "hydra.sweeper.params": "sweeper: {params: {hydra.job_logging.x: evil}}",
}


@WAYS
@pytest.mark.parametrize("key", FORBIDDEN)
def test_options_of_hydra_in_a_file_are_refused_with_the_file_and_the_key(here, theirs, way, key):
    error = refused(*way(theirs, f"hydra: {{{FORBIDDEN[key]}}}\n"))
    assert ".".join(key.split(".")[:2]) in error.what and "mine.yaml" in (error.where or "")
    assert "--trust-configs" in (error.hint or "") or key == "hydra.mode"
    assert not list(here.iterdir())


# Harmless, and refused all the same: one rule is easier to know than a list of exceptions.
HARMLESS = [
    "{sweeper: {params: {loss: 'mse,ssim', seed: 'range(0,3)', optimizer.learning_rate: 1e-3}}}",
    "{sweeper: {max_batch_size: 2}}",
    "{job: {name: mine, chdir: false}, output_subdir: null, verbose: true}",
    "{job: {config: {override_dirname: {item_sep: '_', exclude_keys: [seed]}}}}",
    "{sweep: {subdir: 'job_${hydra.job.num}'}}",
    "{help: {header: hello}, callbacks: {}}",
    "{run: {dir: out}, sweep: {dir: out}}",
]


@WAYS
@pytest.mark.parametrize("node", HARMLESS)
def test_a_file_sets_options_of_hydra_only_if_it_is_trusted(here, theirs, way, node):
    overrides, sources = way(theirs, f"hydra: {node}\n")
    assert "hydra" in refused(overrides, sources).what
    checked(overrides, Sources(sources.config_name, sources.folders, Trust(files=True)))


PARAMS = [
    "'seed@hydra.job_logging': '1,2'",
    "+hydra/launcher: joblib",
    "hydra.run.dir: /x",
    "'+hydra': 1",
    "/hydra/launcher: x",
    "_target_: os.system",
    "tags: '${oc.create:{_target_: os.system}}'",
    "tags: {_target_: os.system}",
    "'a b': 1",
    "seed: ['1', '${oc.env:CANARY}']",
]


@pytest.mark.parametrize("params", PARAMS)
def test_a_sweep_in_a_file_sets_nothing_of_hydra(here, theirs, params):
    text = f"hydra: {{sweeper: {{params: {{{params}}}}}}}\n"
    refused(*experiment(theirs, text))


@pytest.mark.parametrize(
    "text",
    [
        "# @package hydra.job_logging\nx: 1\n",
        "# @package hydra\njob_logging: {x: 1}\n",
        "# @package hydra[launcher]\nsetup: [touch canary]\n",
        "# @package _global_\ndefaults: [{/loss@hydra.launcher.x: mse}]\n",
        "# @package _global_\ndefaults: [{/loss@hydra.callbacks.x: mse}]\n",
        "# @package _global_\nhydra: ${tags}\n",
        "# @package _global_\nhydra: 5\n",
        "# @package _global_\nhydra: [5]\n",
    ],
)
def test_no_package_leads_to_hydra(here, theirs, text):
    written(theirs, "experiment/mine.yaml", text)
    assert "hydra" in refused(["experiment=mine"], Sources(folders=(theirs,))).what


@pytest.mark.parametrize("name", ["launcher/process", "sweeper/basic", "config", "launcher/mine"])
def test_a_folder_has_no_options_of_hydras_own(here, theirs, name):
    # Hydra prefers the folder's file to its own hydra/sweeper/basic, though nobody chose it
    written(theirs, f"hydra/{name}.yaml", f"x: {CALL}\n")
    overrides = ["hydra/launcher=mine"] if "mine" in name else []
    error = refused(overrides, Sources(folders=(theirs,)))
    assert f"hydra/{name}" in error.what and f"{name}.yaml" in (error.where or "")


@WAYS
def test_a_search_path_in_a_file_imports_nothing(here, theirs, way, monkeypatch):
    written(here, "evil_package/__init__.py", "open('canary', 'w').close()\n")
    monkeypatch.syspath_prepend(here)
    monkeypatch.delitem(sys.modules, "evil_package", raising=False)
    for text in ("hydra: {searchpath: ['pkg://evil_package']}", "hydra: ${x}\nx: {searchpath: [y]}"):
        assert "hydra" in refused(*way(theirs, text)).what
    assert not (here / "canary").exists()
    composed(["hydra.searchpath=[pkg://evil_package]"])  # the attack works where it is not refused
    assert (here / "canary").exists()


EVERYBODY = [
    "+hydra.job.env_set.A=b",
    "hydra.job.env_copy=[CANARY]",
    "+hydra.launcher.x={_target_: os.system}",
    "hydra.launcher._target_=os.system",
    "+hydra.launcher.x={_target_: [os.system]}",
    "+hydra.job_logging.handlers={x: {class: [os.system]}}",
    "hydra.launcher._target_=hydra._internal.core_plugins.basic_sweeper.BasicSweeper",
    "+hydra.sweeper.x={y: [{_target_: os.system}]}",
    "+data.x={_target_: os.system}",
    "+hydra.job_logging.handlers={x: {(): os.system}}",
    "+hydra.job_logging.handlers={x: {class: os.system}}",
    "+hydra.job_logging.x=ext://os.system",
    "+hydra.job_logging.x=[cfg://os.system]",
    "+hydra.job_logging.x=${hydra.job_logging.y} +hydra.job_logging.y=ext://os.system",
    "+hydra.hydra_logging.handlers={x: {class: logging.StreamHandler, '.': {x: 1}}}",
    "hydra.job.name=../x",
    "hydra.output_subdir=../x",
]


@pytest.mark.parametrize("trusted", [False, True])
@pytest.mark.parametrize("words", EVERYBODY)
def test_what_runs_anything_is_refused_for_everybody(here, theirs, words, trusted):
    overrides = [f"+hydra{word}" if i else word for i, word in enumerate(words.split(" +hydra"))]
    error = refused(overrides, Sources(trust=Trust(files=trusted)))
    assert "hydra" in error.what or "_target_" in error.what
    assert "command line" in (error.where or "")


@pytest.mark.parametrize("key", ["hydra.job.env_set", "hydra.mode"])
def test_a_trusted_file_may_not_set_everything(here, theirs, key):
    text = next(said for name, said in FORBIDDEN.items() if name.startswith(key))
    overrides, sources = experiment(theirs, f"hydra: {{{text}}}\n")
    assert key in refused(overrides, Sources(folders=sources.folders, trust=Trust(files=True))).what


CALLBACK = "{_target_: pathlib.Path}"


def test_callbacks_are_typed_or_set_by_a_trusted_file(here, theirs):
    typed = composed([f"+hydra.callbacks.mine={CALLBACK}"])
    overrides, sources = experiment(theirs, f"hydra: {{callbacks: {{mine: {CALLBACK}}}}}\n")
    trusted = composed(overrides, Sources(folders=sources.folders, trust=Trust(files=True)))
    for node in (typed, trusted):
        [called] = hydra_internals.context_of(None, node).callbacks.callbacks
        assert called == Path()
    assert "hydra.callbacks" in refused(overrides, sources).what
    run = Sources(trust=Trust(overrides=False))  # the command of a run may come from a stranger
    assert "command line" in refused([f"+hydra.callbacks.mine={CALLBACK}"], run).what
    assert "_target_" in refused(["+hydra.callbacks_={_target_: os.system}"], Sources()).what


@pytest.mark.parametrize(
    "entry", ["override hydra/callbacks: x", "/hydra/callbacks: x", "hydra/callbacks/x: y"]
)
def test_an_untrusted_file_chooses_no_callbacks_of_a_package(here, theirs, entry):
    overrides, sources = experiment(theirs, f"defaults: [{{{entry}}}]\n")
    assert "hydra/callbacks" in refused(overrides, sources).what


# -- the environment -------------------------------------------------------------------------------

SPELLINGS = [
    "${oc.env:CANARY}",
    "x${oc.env:CANARY}y",
    "${oc.env:CANARY,default}",
    "${oc.env:NOT_THERE,default}",
    "${${task_name}.env:CANARY}",
    "${oc.decode:'${oc.env:CANARY}'}",
    "${oc.select:nothing,${oc.env:CANARY}}",
    "${oc.create:{x: ${oc.env:CANARY}}}",
    "${job_folder:1,${oc.env:CANARY}}",
]


@WAYS
@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize(
    "key", ["tags: [a, VALUE]", "loss: {name: VALUE}", "hydra: {run: {dir: VALUE}}"]
)
def test_a_file_reads_no_environment(here, theirs, way, spelling, key):
    text = f"task_name: oc\n{key.replace('VALUE', repr(spelling))}\n"
    error = refused(*way(theirs, text))
    assert key.partition(":")[0] in error.what and "mine.yaml" in (error.where or "")
    assert ("options of Hydra" if "hydra" in key else "must not call a resolver") in error.what


@WAYS
@pytest.mark.parametrize("entry", ["/loss: '${oc.env:CANARY}'", "'/loss@${oc.env:CANARY}': mse"])
def test_a_defaults_list_reads_no_environment(here, theirs, way, entry):
    error = refused(*way(theirs, f"defaults: [{'config, ' * (way is primary)}{{{entry}}}]\n"))
    assert "mine.yaml" in (error.where or "")


def test_the_person_names_what_may_be_read(here, theirs):
    overrides, sources = experiment(theirs, "task_name: ${oc.env:HOST}\n")
    typed = [*overrides, "tags=[a${oc.env:CANARY}]"]
    assert "HOST" in refused(typed, sources).what
    assert checked(typed[1:], sources)[1].tags == [f"a{SECRET}"]


def test_the_words_of_a_runs_folder_are_no_persons(here):
    for words in (["tags=['${oc.env:CANARY}']"], ["hydra.searchpath=[pkg://x]"], ["+hydra/launcher=x"]):
        flags = arguments.parse("cae train", words, trusted=False)
        refused(flags.overrides, arguments.sources(flags))
    with pytest.raises(UserError, match="trust-configs"):
        arguments.parse("cae train", ["--trust-configs"], trusted=False)


def test_a_file_that_is_trusted_may_read_the_environment_and_set_hydras_keys(here, theirs):
    text = "tags: ['${oc.env:CANARY}']\nhydra: {run: {dir: /somewhere}, job: {chdir: true}}\n"
    overrides, _ = experiment(theirs, text)
    flags = arguments.parse("cae train", ["-cd", str(theirs), "--trust-configs", *overrides])
    node, config = checked(flags.overrides, arguments.sources(flags))
    assert config.tags == [SECRET] and node.hydra.run.dir == "/somewhere"
    assert "--trust-configs" in arguments.train_command(flags)


# -- files -----------------------------------------------------------------------------------------

LAUGHS = "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGES = "a: &a {k: 1}\n" + "".join(
    f"{new}: &{new} {{<<: [{','.join([f'*{old}'] * 9)}]}}\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
FILES = {
    "tag": (
        "\n\nname: !!python/object/apply:os.system [touch canary]",
        "!!python/object/apply:os.sys",
        3,
    ),
    "object": ("name: !!python/object:pathlib.Path {}", "the tag !!python/object:pathlib.Path", 1),
    "path": ("name: !!python/object/apply:pathlib.Path [x]", "the tag", 1),  # OmegaConf would
    "own": ("name: !mine x", "the tag !mine", 1),
    "binary": ("name: !!binary aGk=", "the tag !!binary", 1),
    "handle": ("%TAG ! tag:yaml.org,2002:python/\n---\nname: !name:os.system x", "!!python/name:os", 3),
    "verbatim": ("name: !<tag:yaml.org,2002:python/name:os.system> x", "!!python/name:os.system", 1),
    "laughs": (LAUGHS, "the anchor or alias a is refused", 1),
    "merges": (MERGES, "the anchor or alias a is refused", 1),
    "cycle": ("a: &a [*a]", "the anchor or alias a is refused", 1),
    "anchor": ("a: 1\nb: &x 2", "the anchor or alias x is refused", 2),
    "alias": ("a: 1\nb: *x", "the anchor or alias x is refused", 2),
    "deep": ("a: " + "[" * 100 + "]" * 100, "nested deeper", 1),
    "deeper": ("a: " + "[" * 5000 + "]" * 5000, "nest", 1),
    "open": ("a: " + "{a: " * 200_000, "larger than", 0),
    "large": ("a: " + "x" * 300_000, "larger than", 0),
    "many": ("a: [" + "1," * 30_000 + "]", "values", 1),
    "nul": ("name: a\0b", "not valid YAML", 0),
    "latin": (b"# k\xfcche\nname: mse", "not text in UTF-8", 1),
    "broken": ("\nname: [\n", "not valid YAML", 0),
    "twice": ("a: 1\na: 2\n", "duplicate key", 0),
    "documents": ("a: 1\n---\na: 2\n", "not valid YAML", 0),
    "grammar": ("name: ${a", "", 0),
    "number": ("name: " + "9" * 100_000, "digits", 0),
}


@WAYS
@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_no_plain_yaml_is_refused_with_its_line(here, theirs, way, name):
    text, what, line_number = FILES[name]
    file = written(theirs, "loss/bad.yaml", text)
    error = refused(*way(theirs, f"defaults: [{'config, ' * (way is primary)}override /loss: bad]\n"))
    assert what in error.what
    assert str(file) in (error.where or "")
    if line_number:
        assert (error.where or "").endswith(f":{line_number}")
    assert not list(here.iterdir())


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "dangling"])
def test_what_is_no_file_is_no_config_and_nothing_waits_for_it(here, theirs, kind):
    (theirs / "loss").mkdir(parents=True)
    path = theirs / "loss" / "bad.yaml"
    {
        "pipe": lambda: os.mkfifo(path),
        "device": lambda: path.symlink_to("/dev/zero"),
        "folder": path.mkdir,
        "dangling": lambda: path.symlink_to("nowhere"),
    }[kind]()
    error = refused(["loss=bad"], Sources(folders=(theirs,)))
    assert error.what == "a config must be a file" and error.where == str(path)
    assert "bad" not in Sources(folders=(theirs,)).options("loss")


def test_a_folder_with_a_loop_of_links_is_read(here, theirs):
    written(theirs, "loss/mine.yaml", "defaults: [ssim]\n")
    (theirs / "loss" / "loop").symlink_to(theirs)
    (theirs / "loop").symlink_to("loop")
    sources = Sources(folders=(theirs,))
    assert checked(["loss=mine"], sources) and "mine" in sources.options("loss")
    refused(["loss=loop"], sources)
    refused(["loss=loop/loss/loop/loss/nothing"], sources)


@WAYS
@pytest.mark.parametrize(
    "entry", ["/../../outside", "../../outside", "//{outside}", "/loss: ../../outside"]
)
def test_a_defaults_list_leads_to_no_other_folder(here, theirs, way, entry):
    outside = written(theirs.parent, "outside.yaml", "tags: [secret]\n")
    entry = entry.replace("{outside}", str(outside.with_suffix("")).lstrip("/"))
    entry = f"{{{entry}}}" if ": " in entry else f"'{entry}'"
    error = refused(*way(theirs, f"defaults: [{'config, ' * (way is primary)}{entry}]\n"))
    assert "secret" not in str(error)


def test_configs_that_name_each_other_end(here, theirs):
    written(theirs, "loss/a.yaml", "defaults: [b, _self_]\n")
    written(theirs, "loss/b.yaml", "defaults: [a, _self_]\n")
    assert "name itself" in (refused(["loss=a"], Sources(folders=(theirs,))).hint or "")
    written(theirs, "loss/t30.yaml", "name: mse\n")
    for n in range(30):  # a tree of two to the power of thirty
        written(theirs, f"loss/t{n}.yaml", f"defaults: [t{n + 1}@x, t{n + 1}@y]\n")
    assert "name itself" in (refused(["loss=t0"], Sources(folders=(theirs,))).hint or "")


@pytest.mark.parametrize("name", [b"caf\xe9.yaml", b"a\nb.yaml", b"\x1b[31m.yaml"])
def test_names_of_files_that_are_no_text_disturb_nobody(here, theirs, name):
    written(theirs, "loss/mine.yaml", "defaults: [ssim]\n")
    (theirs / "loss" / os.fsdecode(name)).write_text("name: mse\n")
    assert checked(["loss=mine"], Sources(folders=(theirs,)))
    refused(["loss=caf"], Sources(folders=(theirs,)))


@pytest.mark.parametrize(
    "word", ["tags=[a\udce9]", "data.path=\udcff", "tags=[" + "a," * 500_000 + "a]"]
)
def test_words_that_are_no_text_or_endless_are_refused(here, word):
    flags = arguments.parse("cae train", [word])
    for act in (lambda: checked([word]), lambda: jobs([word]), lambda: arguments.sources(flags)):
        with pytest.raises(UserError) as caught:
            act()
        str(caught.value).encode()


def test_a_word_that_is_nested_without_end_is_refused(here):
    assert "nested" in refused(["tags=" + "[" * 5000 + "]" * 5000], Sources()).what


# -- where is written ------------------------------------------------------------------------------

OUTSIDE = [
    "/x",
    "..",
    "a/../../x",
    "../here-too",
    "link/x",
    "~/../x/${hydra.job.name}/../../..",
    "${tags[0]}",
]


@WAYS
@pytest.mark.parametrize("folder", OUTSIDE)
@pytest.mark.parametrize("key", ["run", "sweep"])
def test_a_file_does_not_say_where_runs_are_written(here, theirs, way, folder, key):
    (here / "link").symlink_to("/tmp")
    text = f"tags: [../../x]\nhydra: {{{key}: {{dir: '{folder}'}}}}\n"
    overrides, sources = way(theirs, text)
    error = refused(overrides, sources)
    assert f"hydra.{key}" in error.what and "mine.yaml" in (error.where or "")
    checked(overrides, Sources(sources.config_name, sources.folders, Trust(files=True)))


@WAYS
@pytest.mark.parametrize("name", ["../x", "/x", "a/b", "${tags[0]}", ".."])
def test_the_name_of_a_task_is_no_way_out_of_the_folder_of_runs(here, theirs, way, name):
    error = refused(*way(theirs, f"tags: [../../x]\ntask_name: '{name}'\n"))
    assert error.what.startswith("task_name must be the name of a folder")


@pytest.mark.parametrize("subdir", ["..", "/x", "a/../..", ".", "''", "${tags[1]}/x"])
def test_a_job_of_a_sweep_is_inside_it(here, subdir):
    node, _ = checked(["tags=[a,../..]", f"hydra.sweep.subdir={subdir}"])
    with pytest.raises(UserError, match="inside the folder"):
        check_subdir(node, 1)


@pytest.mark.parametrize("subdir", ["'${hydra.job.num}'", "a/b", "'${hydra.job.override_dirname}'"])
def test_a_folder_inside_a_sweep_is_fine(here, subdir):
    node, _ = checked(["seed=3", f"hydra.sweep.subdir={subdir}"])
    check_subdir(node, 1)


def test_a_log_outside_the_run_is_for_the_command_line(here, theirs):
    text = "defaults: [config, override hydra/hydra_logging: hydra_debug]\n"
    error = refused(*primary(theirs, text))
    assert "hydra/hydra_logging" in error.what and "mine.yaml" in (error.where or "")
    for way in (
        "/hydra/hydra_logging/hydra_debug",
        "/hydra/hydra_logging/hydra_debug@x",
        "../hydra/config",
    ):
        refused(*primary(theirs, f"defaults: [config, {way}]\n"))
    checked(["hydra/hydra_logging=hydra_debug"])


# -- what stays possible ---------------------------------------------------------------------------

FINE = [
    "training: {epochs: 3}\ntags: [a, '${task_name}']",
    "data: {seed: !!int 7}\nseed: ${data.seed}",
    "tags: ['a:b', '${task_name}', 'x: $']",
]


@WAYS
@pytest.mark.parametrize("text", FINE)
def test_what_is_harmless_may_stand_in_a_file(here, theirs, way, text):
    checked(*way(theirs, text + "\n"))


@pytest.mark.parametrize("logging", ["default", "stdout", "none", "disabled"])
def test_hydras_own_logs_may_be_chosen_anywhere(here, theirs, logging):
    checked([f"hydra/job_logging={logging}"])
    text = f"defaults: [config, override hydra/job_logging: {logging}, override hydra/launcher: basic]\n"
    node, _ = checked(*primary(theirs, text))
    assert node.hydra.runtime.choices["hydra/job_logging"] == logging


def test_a_key_that_a_launcher_does_not_have_is_named_with_its_file(here, theirs):
    overrides, sources = experiment(theirs, "hydra: {launcher: {max_nbytes: 2}}\n")
    error = refused(overrides, Sources(folders=sources.folders, trust=Trust(files=True)))
    assert "max_nbytes" in error.what and "mine.yaml" in (error.where or "")


def test_a_copy_of_our_primary_config_works(here, theirs):
    written(theirs, "copy.yaml", (CONFIGS / "config.yaml").read_text())
    assert checked([], Sources("copy", (theirs,)))[1] == checked([])[1]


def test_sweeps_in_files_are_counted_before_they_are_written_down(here, theirs):
    text = "hydra: {sweeper: {params: {seed: 'range(0,1000000000)'}}}\n"
    overrides, sources = experiment(theirs, text)
    sources = Sources(folders=sources.folders, trust=Trust(files=True))
    overrides = with_sweeper_params(overrides, sources)
    for ask in (jobs, count):
        with pytest.raises(UserError, match="more than 10,000 jobs"):
            ask(overrides)


# -- the program -----------------------------------------------------------------------------------


def nothing_leaked(done: Done, folder: Path) -> bool:
    texts = [file.read_bytes() for file in folder.rglob("*") if file.is_file()]
    return not any(SECRET.encode() in text for text in [done.out.encode(), done.err.encode(), *texts])


ATTACKS = {
    "callback": f"hydra: {{callbacks: {{mine: {CALL}}}}}",
    "factory": "hydra: {job_logging: {handlers: {x: {(): pathlib.Path.touch, self: canary}}}}",
    "log": "hydra: {hydra_logging: {handlers: {x: {class: logging.FileHandler, filename: canary}}}}",
    "launcher": f"hydra: {{launcher: {{inner: {CALL}}}}}",
    "environment": "tags: ['${oc.env:CANARY}']",
    "copied": "hydra: {job: {env_copy: [CANARY]}}",
    "folder": "hydra: {run: {dir: ../canary}, sweep: {dir: ../canary}}",
    "tag": "tags: [!!python/object/apply:os.system [touch canary]]",
    "sweep": "hydra: {sweeper: {params: {seed: '1,2', tags: '[${oc.env:CANARY}]'}}}",
}
COMMANDS = [
    ["check"],
    ["train", "--cfg", "job", "--resolve"],
    ["train", "--cfg", "all"],
    ["train", "--info", "all"],
    ["train", "-m", "seed=1,2"],
    ["train"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("attack", ["callback", "factory", "environment", "folder", "tag"])
def test_no_command_runs_what_a_stranger_wrote(cae, tmp_path, command, attack):
    experiment(tmp_path / "theirs", ATTACKS[attack] + "\n")
    done = cae(*command, "-cd", "theirs", "experiment=mine", CANARY=SECRET)
    assert "Traceback" not in done.err
    assert done.code == 2 and "error: " in done.err and "mine.yaml" in done.err, done.err
    assert [path.name for path in tmp_path.iterdir()] == ["theirs"]
    assert nothing_leaked(done, tmp_path)


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_primary_config_runs_nothing_either(cae, tmp_path, attack):
    primary(tmp_path / "theirs", ATTACKS[attack] + "\n")
    done = cae("train", "-m", "-cd", "theirs", "-cn", "mine", CANARY=SECRET)
    assert done.code == 2 and "mine.yaml" in done.err and "Traceback" not in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["theirs"]
    assert nothing_leaked(done, tmp_path)


def test_a_worker_process_is_as_careful(here, theirs):
    # Launchers send the loader to processes of their own, which compose a job with it.
    code = (
        "import pickle, sys; from hydra.types import RunMode\n"
        "loader = pickle.load(sys.stdin.buffer)\n"
        "try: loader.load_configuration('config', sys.argv[1:], RunMode.RUN)\n"
        "except Exception as error: print(error)"
    )
    loader = pickle.dumps(loader_of(Sources(folders=(theirs,))))
    for text, message in (
        ("hydra: {run: {dir: /x}}", "hydra.run"),
        ("tags: ['${oc.env:CANARY}']", "tags"),
    ):
        experiment(theirs, f"{text}\n")
        done = subprocess.run(
            [sys.executable, "-c", code, "experiment=mine"],
            input=loader, capture_output=True, env=environment(),
        )  # fmt: skip
        out = done.stdout.decode()
        assert f"{message}" in out and "mine.yaml" in out and SECRET not in out, done.stderr.decode()


def test_hydras_help_composes_nothing_of_a_stranger(cae, tmp_path):
    text = "handlers: {x: {(): pathlib.Path.touch, self: canary}}\nversion: 1\nroot: {level: INFO}\n"
    written(tmp_path, "theirs/hydra/hydra_logging/mine.yaml", text)
    done = cae("train", "--hydra-help", "-cd", "theirs", "hydra/hydra_logging=mine")
    assert done.code == 2 and "hydra/hydra_logging/mine" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["theirs"]
    assert cae("train", "--hydra-help").code == 0


def test_what_the_person_asks_for_is_done(cae, tmp_path):
    experiment(tmp_path / "theirs", "tags: ['${oc.env:CANARY}']\n")
    done = cae("train", "--cfg", "job", "--resolve", "tags=['${oc.env:CANARY}']", CANARY=SECRET)
    assert done.code == 0 and SECRET in done.out
    words = ["--cfg", "job", "--resolve", "-cd", "theirs", "experiment=mine", "--trust-configs"]
    done = cae("train", *words, CANARY=SECRET)
    assert done.code == 0 and SECRET in done.out
    done = cae("train", "--cfg", "job", "-cd", "theirs", "experiment=mine", CANARY=SECRET)
    assert done.code == 2 and SECRET not in done.out + done.err


def test_a_pipe_in_a_folder_of_configs_holds_nobody_up(cae, tmp_path):
    (tmp_path / "theirs" / "loss").mkdir(parents=True)
    os.mkfifo(tmp_path / "theirs" / "loss" / "bad.yaml")
    for words in (["check", "loss=bad"], ["train", "--help"], ["train", "--cfg", "job", "loss=bad"]):
        done = cae(*words, "-cd", "theirs", timeout=60)
        assert "Traceback" not in done.err and done.code == (0 if "--help" in words else 2)


def test_words_that_are_no_text_are_an_error(cae):
    for words in (["data.path=caf\udce9"], ["-cd", "caf\udce9"], ["-cn", "caf\udce9"]):
        done = cae("check", *words)
        assert done.code == 2 and "not text in UTF-8" in done.err and "Traceback" not in done.err


DOUBLING = {
    "text": "  k{i}: ${{data.k{next}}}${{data.k{next}}}\n",
    "relative": "  k{i}: ${{.k{next}}}${{.k{next}}}\n",
    "list": '  k{i}: ["${{data.k{next}}}", "${{data.k{next}}}"]\n',
    "mapping": '  k{i}: {{a: "${{data.k{next}}}", b: "${{data.k{next}}}"}}\n',
    "spaces": '  k{i}: "${{ data.k{next} }}${{data.k{next}}}"\n',
    "nested": '  n{i}: k{next}\n  k{i}: "${{data.${{data.n{i}}}}}${{data.${{.n{i}}}}}"\n',
}


@pytest.mark.parametrize("line", DOUBLING.values(), ids=DOUBLING)
def test_interpolations_that_double_each_other_are_refused(line, here, theirs):
    text = "".join(line.format(i=i, next=i + 1) for i in range(40)) + "  k40: ha\n"
    error = refused(*experiment(theirs, f"data:\n{text}"))
    assert "with its interpolations ${…} it is larger than 1,000,000 characters" in error.what


def test_measuring_them_takes_no_memory():
    tree = {"long": "x" * 10**5, "tags": ["${long}"] * 10, "nested": "${long}" * 10**4 + "${${long}}"}
    tracemalloc.start()
    list(trust._targets(tree, ("tags",), "${long}" * 10**4))
    with pytest.raises(UserError, match="larger than"):
        list(trust._targets(tree, ("nested",), tree["nested"]))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**25  # of 10^9 characters


def test_they_are_refused_on_the_command_line_too(here):
    words = [f"+data.k{i}='${{data.k{i + 1}}}${{data.k{i + 1}}}'" for i in range(40)]
    assert "interpolations" in refused([*words, "+data.k40=ha"], Sources()).what


def test_interpolations_in_a_circle_or_of_unknown_keys_are_refused(here, theirs):
    for text, complaint in {
        'tags: ["${data.path}"]\ndata:\n  path: ${tags}\n': "form a circle",
        'tags: ["${data.${data.path}}"]\ndata:\n  path: ${task_name}\n': "b must be plain text",
    }.items():
        assert complaint in refused(*experiment(theirs, text)).what
