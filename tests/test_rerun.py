"""An old config in the words of ``cae train``: the same, changed, of other versions and of strangers."""

import copy
import functools
import json
from types import SimpleNamespace

import pytest

from cae_cli import cli, experiment
from cae_cli.commands import diagnose
from cae_cli.config.compose import Sources, checked
from cae_cli.config.overrides import overrides_of
from cae_cli.config.schema import GROUPS, plain
from cae_cli.errors import UserError
from cae_cli.runs.folder import Run
from cae_cli.runs.json_files import SCHEMA_VERSION
from cae_cli.runs.registry import flat

SECRET = "canary-5b1e"


@functools.cache
def _composed(words, sources):
    return json.dumps(plain(checked(list(words), sources)[1]))


def config_of(*words, sources=None):
    """As run.json has it."""
    return json.loads(_composed(words, sources))


def again(config, *changes):
    """The config that a run with these changes has."""
    return config_of(*overrides_of(config, changes).overrides, *changes)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run of SSIM, seed 3, with noise; only what was asked for is in its folder."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs" / "train" / "2026-01-01_10-00-00_aaaa"
    folder.mkdir(parents=True)
    words = ("data=digits", "loss=ssim", "loss.window=7", "seed=3", "regularization=[noise]")
    command = ["cae", "train", *words]
    Run(folder).write_setup({"command": command, "config": config_of(*words), "time": "2026-01-01"})
    return Run(folder)


def rewritten(run, change):
    setup = json.loads(run.setup_file.shown.read_text())
    change(setup)
    run.setup_file.shown.write_text(json.dumps(setup))


@pytest.mark.parametrize(
    "number", [*range(4), *(pytest.param(n, marks=pytest.mark.soak) for n in range(4, 10))]
)
def test_every_option_there_is_comes_back(number):
    words = []
    for group in set(GROUPS) - {"experiment", "debug"}:
        names = list(Sources().options(group))
        words.append(f"{group}={names[number % len(names)]}")
    config = config_of(*words)
    assert again(config) == config


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("seed=7", "tags=[a,b]", "task_name=night"),
        ("experiment=reference_3_ssim", "training.epochs=3"),
        ("debug=overfit", "model=unet"),
        ("regularization=[l2,dropout,batchnorm]", "regularization.dropout.rate=.25"),
        ("rules.CAE401.threshold=.5", "rules.CAE303.enabled=false"),
        ("rules.CAE401.threshold=1", "rules.CAE303.threshold=0"),
        ("training.early_stopping=4", "model.filters=[8,16,32]", "optimizer.learning_rate=1e-5"),
        ("data=npz", "data.path='a b/c=d,e [f] {g}: h.npz'"),
        ("data=npz", r"data.path='it\'s \\ a \\\' path\\'"),
        ("data=npz", "data.path='null'"),
        ("data=npz", "data.path='2024'"),
        ("data=npz", "data.path='ünïcode\u200b 日本'"),
        ("data=npz", "data.path='~/x $HOME #1 @2 !3 %4 &5 * ? ; | <>'"),
    ],
    ids=str,
)
def test_a_config_is_reproduced_by_few_overrides(words):
    config = config_of(*words)
    made = overrides_of(config)
    assert again(config) == config and not made.unknown and not made.new
    default = flat(config_of())
    changed = [key for key, value in flat(config).items() if default.get(key, ...) != value]
    assert len(made.overrides) <= len(changed)  # nothing is said that would be so anyway


def test_a_config_of_the_users_own_folder_needs_the_folder_no_more(tmp_path):
    file = tmp_path / "loss" / "sharp.yaml"
    file.parent.mkdir()
    file.write_text("defaults: [ssim, _self_]\nwindow: 5\n")
    config = config_of("loss=sharp", sources=Sources(folders=(tmp_path,)))
    assert set(overrides_of(config).overrides) == {"loss=ssim", "loss.window=5"}
    assert again(config) == config


def test_a_change_changes_what_it_says_and_nothing_else():
    old = config_of("loss=ssim", "loss.window=7", "seed=3", "model=deep", "regularization=dropout")
    dropout = old["regularization"]["dropout"]
    differing = [
        (("seed=0",), {"seed"}),  # the default, which it had not
        (("loss.window=9",), {"loss.window"}),
        (("model.filters=[4,4]",), {"model.filters"}),
        (("rules.CAE401.enabled=false",), {"rules.CAE401.enabled", "rules.CAE401.threshold"}),
        (("loss=mse",), {f"loss.{name}" for name in old["loss"]}),
        (("regularization=none",), {f"regularization.dropout.{name}" for name in dropout}),
        (("regularization.dropout.rate=.5",), {"regularization.dropout.rate"}),
    ]
    for changes, keys in differing:
        new = again(old, *changes)
        a, b = flat(old), flat(new)
        differs = {key for key in a.keys() | b.keys() if a.get(key) != b.get(key)}
        assert differs <= keys and differs, changes


def test_an_option_that_is_chosen_anew_brings_its_own_values():
    old = config_of("loss=ssim", "loss.window=7", "model=deep", "model.kernel_size=5")
    assert again(old, "loss=ssim")["loss"]["window"] == config_of("loss=ssim")["loss"]["window"] != 7
    assert again(old, "model=baseline")["model"] == config_of()["model"]
    assert again(old, "model=l2")["regularization"] == config_of("model=l2")["regularization"] != {}
    kept = config_of("regularization=dropout")
    assert again(kept, "model=deep")["regularization"] == kept["regularization"]
    assert again(kept, "model=l2", "regularization=l1")["regularization"].keys() == {"l1"}


def test_an_experiment_wins_where_it_says_something():
    old = config_of("seed=3", "training.epochs=77", "training.batch_size=16", "loss=mae")
    new, smoke = again(old, "experiment=smoke"), config_of("experiment=smoke")
    assert new["training"]["epochs"] == smoke["training"]["epochs"] != 77
    assert new["seed"] == 3 and new["training"]["batch_size"] == 16 and new["loss"]["name"] == "mae"
    assert again(old, "experiment=reference_3_ssim")["loss"]["name"] != "mae"


def test_keys_of_other_versions_are_named_and_left_out_or_filled(run, capsys):
    def change(setup):
        setup["schema"] = SCHEMA_VERSION - 1
        setup["config"]["model"].pop("attention_heads")
        setup["config"]["model"]["gone"] = 3
        setup["config"]["regularization"]["old_one"] = {"strength": 1, "more": 2}
        setup["config"]["nonsense"] = {"deep": {"er": 1}}
        setup["config"]["rules"] = {"CAE999": {"enabled": False}, "CAE401": {"enabled": False, "x": 1}}

    rewritten(run, change)
    assert cli.run(["rerun", "last", "seed=4", "--cfg", "job"]) == 0
    told = capsys.readouterr()
    [left_out] = [line for line in told.err.splitlines() if "no longer options" in line]
    names = left_out.partition("are ignored: ")[2].split(", ")
    assert sorted(names) == [
        "model.gone", "nonsense.deep.er", "regularization.old_one", "rules.CAE401.x",
        "rules.CAE999.enabled",
    ]  # fmt: skip
    [new] = [line for line in told.err.splitlines() if "newer than the run" in line]
    assert new.endswith(": model.attention_heads=0")
    assert "seed: 4" in told.out and "window: 7" in told.out and "enabled: false" in told.out
    assert "gone" not in told.out and "nonsense" not in told.out


def test_an_option_that_is_gone_has_to_be_chosen_anew(run, capsys):
    rewritten(run, lambda setup: setup["config"].update(loss={"name": "sssim", "x": 1}))
    assert cli.run(["rerun", "last", "--cfg", "job"]) == 2
    error = capsys.readouterr().err
    assert "error: loss=sssim is no longer an option" in error and "did you mean ssim?" in error
    assert f"runs/train/{run.folder.name}/run.json" in error
    assert cli.run(["rerun", "last", "loss=ssim", "--cfg", "job"]) == 0


def test_a_value_that_is_no_longer_allowed_is_named_with_the_file(run, capsys):
    rewritten(run, lambda setup: setup["config"]["loss"].update(window=4))
    assert cli.run(["rerun", "last", "--cfg", "job"]) == 2
    error = capsys.readouterr().err
    assert "loss.window must be odd, got 4" in error and "run.json: loss.window=4" in error
    assert cli.run(["rerun", "last", "loss.window=5", "--cfg", "job"]) == 0


HOSTILE = {
    "environment": ("data.source", "${oc.env:CANARY}"),
    "resolver": ("task_name", "${oc.create:{_target_: os.system}}"),
    "interpolation": ("model.activation", "${hydra:runtime.cwd}"),
    "out of the folder": ("task_name", "../../outside"),
    "quotes": ("task_name", "x' hydra.run.dir='/tmp/evil"),
    "flag": ("task_name", "--rules=evil.py"),
    "tags": ("tags", ["a", "${oc.env:CANARY}"]),
    "tags of trees": ("tags", [{"_target_": "os.system"}]),
    "a tree": ("loss.window", {"_target_": "os.system"}),
    "endless": ("task_name", "x" * 100_000),
    "a break": ("task_name", "a\nhydra.run.dir=x"),
    "surrogate": ("task_name", "\ud800"),
    "huge": ("seed", 10**400),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_a_strangers_file_may_not_say_is_refused(run, capsys, monkeypatch, tmp_path, case):
    monkeypatch.setenv("CANARY", SECRET)
    key, value = HOSTILE[case]

    def change(setup):
        node = setup["config"]
        for part in key.split(".")[:-1]:
            node = node[part]
        node[key.split(".")[-1]] = value

    rewritten(run, change)
    code = cli.run(["rerun", "last", "--cfg", "job"])
    told = capsys.readouterr()
    harmless = case in ("environment", "a tree")  # no option has that key: left out, and said
    assert code == (0 if harmless else 2) and "Traceback" not in told.err
    assert SECRET not in told.out + told.err and ("no longer options" in told.err) == harmless
    assert [p.name for p in tmp_path.iterdir()] == ["runs"]


def test_keys_of_hydra_and_groups_in_a_strangers_file_do_not_reach_the_command_line():
    config = config_of()
    evil = {
        "hydra": {"run": {"dir": "/tmp/evil"}, "job_logging": {"x": "ext://os.system"}},
        "hydra.run.dir": "/tmp/evil",
        "hydra/launcher": "evil",
        "+hydra": 1,
        "--trust-configs": True,
        "experiment": "smoke",
        "loss@hydra": "x",
    }
    made = overrides_of(config | evil)
    assert made.overrides == () and set(made.unknown) >= {"hydra.run.dir", "--trust-configs", "+hydra"}


@pytest.mark.parametrize(
    "nonsense", [None, {"name": 3}, *(pytest.param(n, marks=pytest.mark.soak) for n in ("text", [[1]]))]
)
def test_a_config_with_nonsense_in_a_group_is_refused_or_reported(nonsense):
    for group in ("data", "model", "loss", "regularization", "training", "rules", "seed", "tags"):
        config = copy.deepcopy(config_of())
        config[group] = nonsense
        try:
            made = overrides_of(config)
        except UserError as error:
            assert group in error.what
            continue
        # What is left is a config; it has the value that was there, or today's.
        assert config_of(*made.overrides)[group] in (nonsense, config_of()[group])


def test_mistakes_in_the_changes_are_the_persons(run, capsys):
    for words, what, where in (
        (["loss.windw=5"], "loss.windw is not an option", "command line: loss.windw=5"),
        (["los=mse"], "there is no option 'los'", "command line: los=mse"),
        (["loss.window=4"], "loss.window must be odd, got 4", "command line: loss.window=4"),
        (["seed=0,1"], "seed=0,1 has several values", "command line: seed=0,1"),
        (["loss=mse", "loss.window=5"], "loss.window is not an option of loss=mse", ""),
    ):
        assert cli.run(["rerun", "last", *words]) == 2
        error = capsys.readouterr().err
        assert f"error: {what}" in error and where in error, words


def test_a_sweep_can_be_made_of_a_run(run, capsys):
    assert cli.run(["rerun", "last", "-m", "seed=5,6", "--cfg", "job"]) == 0
    shown = capsys.readouterr().out
    assert "seed: 5" in shown and "window: 7" in shown


def test_a_frozen_encoder_is_trained_with_the_config_of_the_run(run, monkeypatch):
    """Its command would not do: a value that a resolver computes is not run again."""
    rewritten(run, lambda setup: setup["command"].append("seed=${oc.env:SEED}"))
    trained = []

    def train(options, command, folder):
        trained.append((options, command, folder))
        return SimpleNamespace(metrics=SimpleNamespace(quality=SimpleNamespace(explained_variance=0.5)))

    monkeypatch.setattr(experiment, "diagnose", lambda run: None)
    monkeypatch.setattr(experiment, "run", train)
    diagnose._train_frozen(run)
    [(options, command, folder)] = trained
    expected = json.loads(json.dumps(run.setup()["config"]))
    expected["training"]["frozen"] = "encoder"
    assert json.loads(json.dumps(plain(options))) == expected
    assert json.loads(json.dumps(plain(checked(command[2:])[1]))) == expected
    assert folder.folder.parent == run.folder / "frozen_encoder" and run.frozen_encoder() == 0.5


def test_what_was_not_trained_here_cannot_be_run_again(run, capsys):
    rewritten(run, lambda setup: setup.update(command=[]))
    assert cli.run(["rerun", str(run.folder)]) == 2
    assert "cae did not train this model" in capsys.readouterr().err
    rewritten(run, lambda setup: setup.update(schema=SCHEMA_VERSION + 1))
    assert cli.run(["rerun", "last"]) == 2
    assert "written by a newer version" in capsys.readouterr().err
