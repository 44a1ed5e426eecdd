"""Images that a function of the user's own Python file gives: data=python."""

import json
from pathlib import Path

import numpy as np
import pytest

from cae_cli.commands import arguments
from cae_cli.config.compose import checked
from cae_cli.data import as_float, load
from cae_cli.data.hook import replaced
from cae_cli.errors import UserError
from cae_cli.runs.command import fit_to_paste

HEAD = "import numpy as np\nrng = np.random.default_rng(0)\nX = rng.random((20, 8, 8))\n"


@pytest.fixture
def images_of(tmp_path, monkeypatch):
    """The images of a file with this text, as a command reads them."""
    monkeypatch.chdir(tmp_path)

    def read(text, name="load", *words):
        (tmp_path / "mine.py").write_text(HEAD + text)
        flags = arguments.parse("cae check", ["data=python", f"data.path=mine.py:{name}", *words])
        return load(checked(flags.overrides)[1].data)

    return read


X = np.random.default_rng(0).random((20, 8, 8))


@pytest.mark.parametrize("text", [
    "def load(): return X",
    "def load():\n    for x in X: yield x",
    "def load(): return X, np.arange(20)",
    "def load(): return {'x_train': X, 'y_train': np.arange(20)}",
    "from beside import made\ndef load(): return made(X)",
])  # fmt: skip
def test_what_the_function_gives_is_read(tmp_path, images_of, text):
    (tmp_path / "beside.py").write_text("def made(x):\n    print('a word')\n    return x\n")
    images = images_of(text, "load", "data.validation=0.25")
    assert (len(images.train), len(images.validation)) == (15, 5)
    both = np.sort(np.concatenate([images.train, images.validation]).ravel())
    assert np.allclose(both, np.sort(X.ravel()), atol=1e-6)
    assert (images.train_labels is not None) == ("arange" in text)


def test_two_arrays_of_images_are_pairs(images_of):
    images = images_of("def both(): return X, 1 - X", "both")
    assert images.are_pairs
    assert np.allclose(as_float(images.train_inputs) + as_float(images.train), 1, atol=1e-6)


def test_the_config_names_a_file_so_that_code_runs_once(tmp_path, images_of):
    count = "from pathlib import Path\nf = Path('count')\nf.write_text('x' * (1 + f.exists()))\n"
    images_of(f"{count}def load(): return X")
    words = replaced(["loss=mae", "data=python", "data.path=mine.py"])
    assert words[0] == "data=npz"
    assert words[2:] == ["loss=mae"]
    assert [p.name for p in (tmp_path / "runs/images").iterdir()] == [
        Path(words[1]).name
    ]  # equal images are kept once
    before = (tmp_path / "count").read_text()
    checked(arguments.parse("cae train", words).overrides)
    assert before == (tmp_path / "count").read_text() == "xx"


@pytest.mark.parametrize(("text", "what", "where"), [
    ("def load():\n    x = 1\n    return 1 / 0", "load() failed: ZeroDivisionError", ":6"),
    ("def load():\n    yield X[0]\n    raise KeyError('b')", "the images of load() failed: Key", ":6"),
    ("import nothing_like_it", "the file failed: ModuleNotFoundError", ":4"),
    ("def load(:", "the file failed: SyntaxError", ":4"),
    ("def load(): raise SystemExit", "load() failed: SystemExit", ":4"),
    ("def other(): pass", "the file has no function load", ""),
    ("def load(): return None", "load() gives None", ""),
    ("def load(): return X[0]", "load() gives no images: x_train must be images", ""),
    ("def load(): return [len]", "load() gives no images", ""),
    ("def load(): return iter([X[0], X[1, :4]])", "image 1 has the shape (4, 8)", ""),
    ("def load(): return iter([])", "the iterator gives no images", ""),
])  # fmt: skip
def test_an_error_is_said_with_file_and_line(images_of, text, what, where):
    with pytest.raises(UserError) as error:
        images_of(text)
    assert error.value.what.startswith(what)
    assert str(error.value.where).endswith(f"mine.py{where}")


def test_an_iterator_without_end_is_stopped(images_of, monkeypatch):
    monkeypatch.setattr("cae_cli.system.memory.free", lambda: 2**21)
    with pytest.raises(UserError, match=r"another 8\d\d\d images") as error:
        images_of("def load():\n    while True: yield X[0, :, :].astype('f4')")
    assert "must end" in error.value.hint


def test_a_file_that_is_missing_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="no such Python file"):
        replaced(["data=python", "data.path=there.py:load"])
    with pytest.raises(UserError, match=r"data\.path has no value"):
        replaced(["data=python"])


def test_what_nobody_typed_runs_no_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("open('ran', 'w')\ndef load(): pass")
    words = ["data=python", "data.path=mine.py:load"]
    (tmp_path / "configs/experiment").mkdir(parents=True)
    (tmp_path / "configs/experiment/strange.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /data: python\ndata:\n  path: mine.py:load\n"
    )
    of_a_run = arguments.parse("cae train", words, trusted=False)
    of_a_file = arguments.parse("cae train", ["-cd", "configs", "experiment=strange"])
    for flags in (of_a_run, of_a_file):
        with pytest.raises(UserError, match="data has no option 'python'") as error:
            checked(flags.overrides, arguments.sources(flags))
        assert "command line only" in error.value.hint
    assert arguments.parse("cae train", [*words, "--help"]).help
    assert not (tmp_path / "ran").exists()


def test_the_command_of_a_stranger_is_not_shown_to_run_code():
    for word in ("data=python", "+data=python", "data='python'", "data=npz,python"):
        assert fit_to_paste(["cae", "train", word, "loss=mae"]) == ["cae", "train", "loss=mae"]
    for word in ("data=npz", "data.path=python", "task_name=python"):
        assert fit_to_paste(["cae", "train", word]) == ["cae", "train", word]


def test_a_command_shows_one_error_and_no_traceback(cae, tmp_path):
    (tmp_path / "mine.py").write_text("def load():\n    return 1 / 0\n")
    done = cae("check", "data=python", f"data.path={tmp_path}/mine.py:load", "--json")
    assert done.code == 2
    assert "mine.py:2" in done.err
    assert "Traceback" not in done.err
    (tmp_path / "mine.py").write_text(HEAD + "print('a word')\ndef load(): return X")
    done = cae(
        "check", "data=python", f"data.path={tmp_path}/mine.py:load", "training.batch_size=8", "--json"
    )
    assert done.code == 0, done.err
    assert json.loads(done.out)["diagnosis"]
