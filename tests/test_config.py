"""Every option of every group composes, alone and together, and everything wrong is refused."""

import functools
from pathlib import Path

import pytest

from cae_cli.commands.options import keys, summary
from cae_cli.config.compose import (
    CONFIGS,
    MOST_CHECKED,
    Sources,
    checked,
    count,
    jobs,
    swept_keys,
    with_sweeper_params,
)
from cae_cli.config.schema import DEVIATIONS, GROUPS, ONE, SEVERAL, VARIANTS, plain
from cae_cli.config.trust import Trust
from cae_cli.errors import UserError
from cae_cli.model.regularization import L1, L2, BatchNorm
from cae_cli.training.losses import StructuralSimilarity

SOURCES = Sources()
OPTIONS = [(group, name) for group in GROUPS for name in SOURCES.options(group)]


@functools.cache
def option(group, name):
    """The composed config with one option of a group, and the checked one."""
    return checked([f"{group}={name}"])


def refused(*overrides: str, sources: Sources = SOURCES) -> UserError:
    with pytest.raises(UserError) as caught:
        checked(overrides, sources)
    return caught.value


def test_there_are_options_in_every_group_and_no_group_more():
    folders = {path.name for path in CONFIGS.iterdir() if path.is_dir()}
    assert folders == set(GROUPS) == {*ONE, *VARIANTS, *SEVERAL, *DEVIATIONS}
    assert all(SOURCES.options(group) for group in GROUPS)


@pytest.mark.parametrize(("group", "name"), OPTIONS)
def test_every_option_composes_and_is_valid(group, name):
    option(group, name)


@pytest.mark.parametrize(("group", "name"), OPTIONS)
def test_every_option_says_what_it_is(group, name):
    assert len(summary(SOURCES.options(group)[name])) > 5


@pytest.mark.parametrize("group", VARIANTS)
def test_variants_and_their_files_are_the_same(group):
    assert set(VARIANTS[group]) == set(SOURCES.options(group))
    for name in VARIANTS[group]:
        assert option(group, name)[0][group].name == name


def test_several_and_their_files_are_the_same():
    assert {*SEVERAL["regularization"], "none"} == set(SOURCES.options("regularization"))


@pytest.mark.parametrize(("group", "name"), [(g, n) for g, n in OPTIONS if g in VARIANTS])
def test_a_file_sets_every_key_that_its_class_declares_and_documents_it(group, name):
    node = option(group, name)[0][group]
    assert {info.name for info in keys(group, name)} == set(node) - {"name"}
    assert all(len(info.doc) > 4 for info in keys(group, name))


def test_the_l2_model_has_l2_whatever_the_order():
    assert checked(["model=l2"])[1].regularization == {"l2": L2(strength=0.001)}
    for overrides in (["model=l2", "regularization=l1"], ["regularization=l1", "model=l2"]):
        assert checked(overrides)[1].regularization == {"l1": L1(strength=1e-5)}


@pytest.mark.parametrize(
    ("model", "regularization"),
    [  # every model with two, and every regularization with the model that brings one
        pytest.param(
            model,
            regularization,
            marks=[] if model == "l2" or regularization in ("none", "l1") else pytest.mark.soak,
        )
        for model in SOURCES.options("model")
        for regularization in SOURCES.options("regularization")
    ],
)
def test_the_regularization_on_the_command_line_replaces_that_of_the_model(model, regularization):
    chosen = checked([f"model={model}", f"regularization={regularization}"])[1].regularization
    assert set(chosen) == ({regularization} - {"none"})


def test_several_regularizers_at_once():
    config = checked(["regularization=[l2,batchnorm]", "regularization.l2.strength=0.5"])[1]
    assert config.regularization == {"l2": L2(strength=0.5), "batchnorm": BatchNorm(momentum=0.99)}


@pytest.mark.parametrize("experiment", SOURCES.options("experiment"))
def test_the_command_line_wins_over_an_experiment(experiment):
    config = checked([f"experiment={experiment}", "loss=mae", "training.epochs=7", "data.train=99"])[1]
    assert (config.training.epochs, config.data.train) == (7, 99)
    assert type(config.loss).__name__ == "MeanAbsoluteError"


def test_the_reference_experiments_are_what_they_say():
    first = checked(["experiment=reference_1_baseline"])[1]
    assert (first.training.epochs, first.training.batch_size) == (10, 32)
    assert first.model.filters == [16, 8] and first.regularization == {}
    second = checked(["experiment=reference_2_l2_augmented"])[1]
    assert second.regularization == {"l2": L2(strength=0.001)}
    augmentation = second.augmentation
    assert (augmentation.rotation, augmentation.shift, augmentation.zoom) == (10, 0.1, 0.1)
    assert augmentation.target == "same" and not augmentation.flip
    third = checked(["experiment=reference_3_ssim"])[1]
    assert third.loss == StructuralSimilarity(window=11, sigma=1.5, k1=0.01, k2=0.03)
    assert third.regularization == {}


@pytest.mark.parametrize("group", ["experiment", "debug"])
def test_an_experiment_changes_the_config(group):
    default = checked([])[1]
    for name in SOURCES.options(group):
        assert checked([f"{group}={name}"])[1] != default


def test_an_experiment_that_lands_in_the_wrong_place_is_refused(tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("training:\n  epochs: 3\n")
    error = refused("experiment=mine", sources=Sources(folders=(tmp_path,)))
    assert "# @package _global_" in (error.hint or "")


WRONG = [
    (["modl=l2"], "there is no option 'modl'", "did you mean model?", "command line: modl=l2"),
    (["model=bseline"], "model has no option 'bseline'", "did you mean baseline?", "model=bseline"),
    (["experiment=smok"], "experiment has no option 'smok'", "did you mean smoke?", "smok"),
    (["loss=ssim", "loss.windw=3"], "loss.windw is not an option", "did you mean loss.window?", "windw"),
    (
        ["optimizer.lr=1"],
        "optimizer.lr is not an option",
        "did you mean optimizer.learning_rate?",
        "lr=1",
    ),
    (["epochs=3"], "there is no option 'epochs'", "did you mean training.epochs?", "epochs=3"),
    (["lr=0.1"], "there is no option 'lr'", "did you mean optimizer.learning_rate?", "lr=0.1"),
    (["qqqq=1"], "there is no option 'qqqq'", "the choices are", "qqqq=1"),
    (["+optimizer.lrr=1"], "optimizer.lrr is not an option", "learning_rate", "lrr=1"),
    (["loss.window=3"], "loss.window is not an option of loss=mse", "loss=ssim", "window=3"),
    (["data.path=x"], "data.path is not an option of data=glyphs", "data=image_folder", "path=x"),
    (["loss=ssim", "loss.window=4"], "loss.window must be odd, got 4", "side", "loss.window=4"),
    (["training.epochs=abc"], "training.epochs must be a whole number, got 'abc'", "", "epochs"),
    (["training.epochs=0"], "training.epochs must be at least 1, got 0", "", "epochs=0"),
    (["optimizer.learning_rate=nan"], "optimizer.learning_rate must be a finite", "", "nan"),
    (["data.validation=1"], "data.validation must be less than 1, got 1", "share", "validation=1"),
    (["regularization.l2.strength=1"], "regularization=l2 is not chosen", "add regul", "strength"),
    (["regularization=[l2,l3]"], "regularization has no option 'l3'", "l2", ""),
    (["seed=-1"], "seed must be at least 0, got -1", "", "seed=-1"),
    (["seed=0,1"], "seed=0,1 has several values", "-m", "seed=0,1"),
    (["tags=x"], "tags must be a list, got 'x'", "tags=[", "tags=x"),
    (["task_name=../x"], "task_name must be the name of a folder", "", "task_name=../x"),
    (["task_name=-rf"], "task_name must be the name of a folder", "no dash", "task_name=-rf"),
    (["task_name=.."], "task_name must be the name of a folder", "no dot", "task_name=.."),
    (["task_name='a\nb'"], "task_name must be the name of a folder", "", "task_name="),
    ([f"task_name={'n' * 256}"], "task_name must be the name of a folder", "255", "task_name=nn"),
    (["foo"], "cannot read the override 'foo'", "key=value", "foo"),
    (["a=["], "cannot read the override 'a=['", "key=value", "a=["),
    (["loss=null"], "loss has no value", "cae options loss", "loss=null"),
    (["model.filters=[]"], "model.filters must not be empty, got []", "", "model.filters=[]"),
    (["model.filters=16"], "model.filters must be a list, got 16", "[", "model.filters=16"),
    (["model.activation=rleu"], "model.activation must be one of relu", "", "rleu"),
    (["seed=${nothing}"], "seed", "", ""),
]


@pytest.mark.parametrize(("overrides", "what", "hint", "where"), WRONG, ids=lambda x: str(x)[:40])
def test_a_mistake_on_the_command_line_is_named_with_a_way_out(overrides, what, hint, where):
    error = refused(*overrides)
    assert what in error.what
    assert hint in (error.hint or "")
    assert where in (error.where or "")
    assert "\n" not in error.what


@pytest.mark.parametrize(
    ("content", "what", "hint"),
    [
        (
            "name: ssim\nwindow: 3\nsigma: 1\nk1: 0\nk2: 0\nwidow: 3\n",
            "loss.widow is not an option",
            "window",
        ),
        ("name: ssim\nwindow: two\nsigma: 1\nk1: 0\nk2: 0\n", "loss.window must be a whole number", ""),
        ("name: ssim\nwindow: 3\n", "loss.sigma has no value", "loss.sigma="),
        ("window: 3\n", "loss.name has no value", "ssim"),
        ("name: sssim\n", "loss.name must be one of", "did you mean ssim?"),
        ("- 1\n- 2\n", "", ""),
        ("defaults: [mine, _self_]\nname: mse\n", "", ""),
        ("name: [\n", "not valid YAML", ""),
        ("name: !!python/object/apply:os.system ['true']\n", "", ""),
    ],
)
def test_a_mistake_in_a_file_is_named_with_the_file(tmp_path, content, what, hint):
    (tmp_path / "loss").mkdir()
    file = tmp_path / "loss" / "mine.yaml"
    file.write_text(content)
    error = refused("loss=mine", sources=Sources(folders=(tmp_path,)))
    assert what in error.what and hint in (error.hint or "")
    if what:
        assert "mine.yaml" in (error.where or "")


def test_a_wrong_value_of_an_experiment_is_traced_to_its_file(tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\ntraining: {epochs: -1}\n")
    error = refused("experiment=mine", sources=Sources(folders=(tmp_path,)))
    assert error.what == "training.epochs must be at least 1, got -1"
    assert Path(error.where or "").name == "mine.yaml"


def test_own_configs_are_used_in_addition_to_those_of_cae(tmp_path):
    (tmp_path / "loss").mkdir()
    (tmp_path / "loss" / "mine.yaml").write_text("defaults: [ssim, _self_]\nwindow: 5\n")
    config = checked(["loss=mine"], Sources(folders=(tmp_path,)))[1]
    assert config.loss == StructuralSimilarity(window=5, sigma=1.5, k1=0.01, k2=0.03)


def test_an_own_primary_config_is_used(tmp_path):
    (tmp_path / "mine.yaml").write_text("defaults: [config, _self_]\nseed: 77\n")
    assert checked([], Sources("mine", (tmp_path,)))[1].seed == 77
    with pytest.raises(UserError, match="there is no config 'mein'"):
        checked([], Sources("mein", (tmp_path,)))


def test_a_sweep_is_every_combination():
    overrides = ["model=baseline,l2", "seed=range(0,3)", "loss=mse"]
    found = jobs(overrides)
    assert len(found) == 6 and ["model=l2", "seed=2", "loss=mse"] in found
    assert swept_keys(overrides) == ["model", "seed"]


def test_every_value_of_a_large_sweep_is_checked():
    found = jobs(["seed=range(0,100)", "loss=mse,ssim,mae"])
    assert len(found) == 102 > MOST_CHECKED
    assert {job[0] for job in found} == {f"seed={n}" for n in range(100)}
    assert {job[1] for job in found} == {"loss=mse", "loss=ssim", "loss=mae"}


def test_a_checked_config_is_written_in_the_form_of_yaml():
    content = plain(
        checked(["tags=[a,b]", "loss=ssim", "model=l2", "optimizer.learning_rate='1e-2'"])[1]
    )
    assert content["tags"] == ["a", "b"] and content["seed"] == 0
    assert content["loss"] == {"name": "ssim", "window": 11, "sigma": 1.5, "k1": 0.01, "k2": 0.03}
    assert content["regularization"] == {"l2": {"strength": 0.001}}
    assert content["optimizer"]["learning_rate"] == 0.01
    assert set(content) == {
        *ONE,
        *VARIANTS,
        *SEVERAL,
        "seed",
        "task_name",
        "tags",
        "optimized_metric",
        "rules",
    }


@pytest.mark.parametrize("key", ["hydra.launcher.x={_target_: os.system}", "hydra.job.env_set.A=b"])
def test_what_could_run_anything_is_refused(key):
    assert "is refused" in refused(f"+{key}").what


def test_an_experiment_that_sets_a_group_like_a_value_gets_a_hint(tmp_path):
    (tmp_path / "experiment").mkdir()
    file = tmp_path / "experiment" / "mine.yaml"
    for text in ("regularization: l2", "loss: ssim", "model: deep"):
        file.write_text(f"# @package _global_\n{text}\n")
        error = refused("experiment=mine", sources=Sources(folders=(tmp_path,)))
        assert "override /" in (error.hint or "") and "mine.yaml" in (error.where or "")


def test_sweeps_set_by_a_config_are_checked_too(tmp_path):
    (tmp_path / "experiment").mkdir()
    text = "# @package _global_\nhydra: {sweeper: {params: {loss: 'mse,ssim', seed: '1,2'}}}\n"
    (tmp_path / "experiment" / "mine.yaml").write_text(text)
    sources = Sources(folders=(tmp_path,), trust=Trust(files=True))
    overrides = with_sweeper_params(["experiment=mine", "seed=5"], sources)
    assert count(overrides) == 2 and ["loss=ssim", "experiment=mine", "seed=5"] in jobs(overrides)


@pytest.mark.parametrize(
    ("images", "epochs", "steps", "said"),
    [
        (100, 2, 200, "training.steps=200 decides the length: 50 epochs of 4 steps instead of"),
        (1000, 9, 20, "training.steps=20 decides the length: 1 epoch of 32 steps instead of"),
        (100, 50, 199, None),
        (100, 2, None, None),
    ],
)
def test_steps_that_decide_the_length_are_said(images, epochs, steps, said):
    words = (f"training.epochs={epochs}", "training.batch_size=32")
    training = checked([*words, *([f"training.steps={steps}"] if steps else [])])[1].training
    length = training.length(images)
    assert (length is None) is (said is None) and (length or "").startswith(said or "")
    assert training.planned_steps(images) == (steps or 4 * epochs)


@pytest.mark.parametrize(
    ("steps", "epochs"), [("null", 10), ("1", 1), ("64", 2), ("65", 3), ("9999", 313)]
)
def test_the_progress_counts_the_epochs_that_the_steps_need(steps, epochs):
    training = checked([f"training.steps={steps}", "training.epochs=10"])[1].training
    assert training.planned_epochs(1000) == epochs  # 32 steps in each
