"""run.json with anything in place of anything: an error line, or training begins."""

import copy
import json
from pathlib import Path

import pytest

from cae_cli import experiment
from cae_cli.commands import rerun
from cae_cli.config import compose
from cae_cli.config.schema import plain
from tests.conftest import Cae

VALUES = (None, 5, 10**400, "${oc.env:HOME}", "x" * 60_000, [1, "a"], {"a": 1})
GONE = object()


class Began(BaseException):
    """Training would begin."""


@pytest.fixture
def setup(tmp_path, monkeypatch):
    """The content of an interrupted run's run.json; nothing is trained."""

    def began(*arguments: object, **options: object) -> None:
        raise Began

    monkeypatch.setattr(experiment, "run", began)
    monkeypatch.setattr(rerun, "start", began)
    (tmp_path / "status.json").write_text(json.dumps({"schema": 3, "status": "interrupted"}))
    config = plain(compose.checked(["experiment=smoke", "loss=ssim", "regularization=[l2,noise]"])[1])
    return {"schema": 3, "command": ["cae", "train", "experiment=smoke"], "config": config}


def paths(node: object, path: tuple = ()):
    """The paths of all nodes of a tree."""
    yield path
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, inner in items:
        yield from paths(inner, (*path, key))


def replaced(tree: dict, path: tuple, value: object) -> dict:
    if not path:
        return value
    tree = copy.deepcopy(tree)
    *above, last = path
    node = tree
    for key in above:
        node = node[key]
    if value is GONE:
        del node[last]
    else:
        node[last] = value
    return tree


def ends_well(cae: Cae, folder: Path, content: object, *words: str) -> bool:
    (folder / "run.json").write_text(json.dumps(content))
    try:
        done = cae(words[0], str(folder), *words[1:])
    except Began:
        return True
    return done.code == 2 and done.err.count("error: ") == 1 and len(done.err) < 2000


def test_resume(setup, cae, tmp_path):
    for path in paths(setup):
        for value in (*VALUES, *[GONE][: len(path)]):
            broken = replaced(setup, path, value)
            assert ends_well(cae, tmp_path, broken, "resume"), (path, value)


def test_resume_with_overrides(setup, cae, tmp_path):
    for words in (["training.epochs=40"], ["rules.CAE401=5", "rules.CAE401.threshold=3"]):
        for value in VALUES:
            for key in ("training", "rules"):
                broken = replaced(setup, ("config", key), value)
                assert ends_well(cae, tmp_path, broken, "resume", *words), (words, key, value)


def test_rerun(setup, cae, tmp_path):  # each composes for a third of a second
    some = [(), ("command",), ("config",), ("config", "loss", "window")]
    for path in some:
        for value in VALUES[:: 1 if len(path) < 2 else 4]:
            broken = replaced(setup, path, value)
            assert ends_well(cae, tmp_path, broken, "rerun"), (path, value)


def test_text_of_run_json_is_text(setup, cae, tmp_path, monkeypatch):
    """It calls no resolver and refers to no other key."""
    seen = []

    def began(config, *arguments: object, **options: object) -> None:
        seen.append(config)
        raise Began

    monkeypatch.setattr(experiment, "run", began)
    setup["config"]["tags"] = ["${oc.env:HOME}", "${seed}"]
    assert ends_well(cae, tmp_path, setup, "resume")
    assert seen[0].tags == ["${oc.env:HOME}", "${seed}"]
