"""Whatever is typed, composed or read: a result, or exit code 2 with one ``error:`` line.

Never a traceback, never a hang, never a file outside. `make fuzz` tries more of it, and other cases
every time: CAE_FUZZ is the number of cases of each kind.
"""

import io
import os
import string
import sys
import tempfile
import zipfile
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from PIL import Image

from cae_cli import cli
from cae_cli.config.compose import CONFIGS
from cae_cli.config.schema import GROUPS, ONE, SEVERAL, VARIANTS, General
from cae_cli.options import describe
from tests.conftest import within

SECONDS = 60  # for one case; far more than any needs
CASES = int(os.environ.get("CAE_FUZZ", "0"))

fuzzed = settings(
    max_examples=CASES or 25,
    derandomize=not CASES,
    deadline=None,
    database=None,
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.filter_too_much,
        HealthCheck.function_scoped_fixture,
    ],
)


def outcome(arguments, allowed=(0, 2)):
    """Runs a command; its exit code and what it said, if both are as they should be."""
    out, err = io.StringIO(), io.StringIO()
    stdout, stderr = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = out, err
    try:
        with within(SECONDS):
            code = cli.run(list(arguments))
    except (SystemExit, KeyboardInterrupt) as error:
        raise AssertionError(f"{type(error).__name__} {error}") from error
    finally:
        sys.stdout, sys.stderr = stdout, stderr
    text = err.getvalue()
    assert code in allowed, (code, text)
    errors = [line for line in text.splitlines() if line.startswith("error: ")]
    assert len(errors) == (1 if code == 2 else 0), text
    assert "Traceback" not in text + out.getvalue()
    assert all(c.isprintable() or c == "\n" for c in text + out.getvalue()), repr(text)
    return code, text


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder to work in, with some digits in a file, so that no case takes long."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SECRET", "hunter2hunter2")
    x = np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "x.npz", x_train=x, y_train=np.arange(40) % 3)
    return tmp_path


# -- the command line ---------------------------------------------------------------------------------

CLASSES = {
    **{group: [cls] for group, cls in ONE.items()},
    **{group: list(catalogue.values()) for group, catalogue in {**VARIANTS, **SEVERAL}.items()},
}
KEYS = sorted(
    {
        f"{group}.{info.name}"
        for group, classes in CLASSES.items()
        for cls in classes
        for info in describe(cls)
    }
    | {info.name for info in describe(General)}
    | {
        "hydra.run.dir",
        "hydra.job.name",
        "hydra.verbose",
        "hydra.sweep.subdir",
        "rules.CAE301.threshold",
    }
)
CHOICES = {group: sorted(path.stem for path in (CONFIGS / group).glob("*.yaml")) for group in GROUPS}
text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12) | st.text(
    "a0_-.,=[]{}()'\"\\$:!&*#%@|> \n\t~+/", max_size=12
)
numbers = st.integers() | st.floats() | st.sampled_from([0, -1, 1e308, 1e-320, 2**31, 2**63, 10**30])
scalars = st.one_of(
    numbers.map(str),
    text,
    st.sampled_from(["null", "true", "nan", ".inf", "1e-3", "0x10", "1_0", "???", ""]),
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda v: f"[{','.join(v)}]")
        | st.dictionaries(st.sampled_from("ab"), inner, max_size=2).map(
            lambda v: "{" + ",".join(f"{k}:{x}" for k, x in v.items()) + "}"
        )
        | inner.map(lambda v: "${" + v + "}")
        | st.lists(inner, min_size=1, max_size=2).map(lambda v: f"range({','.join(v)})")
    ),
    max_leaves=4,
)
keys = st.sampled_from(KEYS) | st.tuples(st.sampled_from(KEYS), text).map("".join)
overrides = st.one_of(
    st.tuples(st.sampled_from(["", "", "", "+", "++", "~"]), keys, values).map(
        lambda p: f"{p[0]}{p[1]}={p[2]}"
    ),
    st.sampled_from(sorted(GROUPS)).flatmap(
        lambda g: st.tuples(st.just(g), st.sampled_from(CHOICES[g]) | values).map("=".join)
    ),
    st.sampled_from(
        ["--json", "--verbose", "-m", "--cfg", "job", "-cd", ".", "-cn", "--fail-on", "-h", "-i", "-c"]
    ),
    text,
)


@given(st.lists(overrides, max_size=4))
@fuzzed
def test_any_command_line(here, words):
    size = ["data=npz", "data.path=x.npz", "training.batch_size=8"]
    outcome(["check", *size, *words], allowed=(0, 1, 2))
    assert {path.name for path in here.iterdir()} == {"x.npz"}


@given(st.lists(text | st.sampled_from(sorted(cli.COMMANDS)), max_size=3))
@fuzzed
def test_any_command(here, words):
    if words[:1] != ["train"]:  # which begin to train
        outcome(words, allowed=(0, 1, 2))


# -- configs --------------------------------------------------------------------------------------------

POINTED = (  # at what must not be had
    *(
        "${oc.env:SECRET}",
        "${oc.env:NOT_THERE,${oc.env:SECRET}}",
        "${${seed}}",
        "${seed}",
        "${x",
        "$",
        "???",
    ),
    *("${oc.decode:'[1]'}", "${hydra.job.num}", "ext://os.system", "../x", "/etc/x"),
)
NAMES = (
    *(
        "_target_",
        "()",
        "class",
        "filename",
        "handlers",
        "callbacks",
        "env_set",
        "launcher",
        "run",
        "dir",
    ),
    *("hydra", "job", "defaults", "_self_", "name", "seed", "data", "loss"),
)
plain = st.recursive(
    st.none() | st.booleans() | numbers | text | st.sampled_from(POINTED),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES) | text, inner, max_size=3)
    ),
    max_leaves=8,
)
tops = st.dictionaries(
    st.sampled_from([*GROUPS, "seed", "tags", "task_name", "rules", "hydra", "defaults"]) | text,
    plain,
    max_size=4,
)
trees = st.one_of(
    tops,
    st.sampled_from(KEYS).flatmap(lambda key: plain.map(lambda value: nested(key, value))),
    st.lists(plain, max_size=3).map(lambda v: {"defaults": v}),
)
documents = st.one_of(
    trees.map(lambda tree: yaml.safe_dump(tree, allow_unicode=True).encode("utf-8", "surrogatepass")),
    st.text(string.printable, max_size=60).map(str.encode),
    st.binary(max_size=60),
)


def nested(key, value):
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


@given(documents, st.booleans(), st.sampled_from(["experiment", "data", "loss", "regularization"]))
@fuzzed
def test_any_config(here, content, as_group, group):
    with tempfile.TemporaryDirectory(dir=here) as mine:
        folder = Path(mine) / group
        folder.mkdir()
        head = b"# @package _global_\n" if group == "experiment" else b""
        (folder / "mine.yaml").write_bytes(head + content)
        (Path(mine) / "top.yaml").write_bytes(content)
        words = [f"{group}=mine"] if as_group else ["-cn", "top"]
        size = ["data=npz", "data.path=x.npz"] if as_group and group != "data" else []
        _, said = outcome(["check", "-cd", mine, *words, *size], allowed=(0, 1, 2))
        assert "hunter2" not in said
    assert {path.name for path in here.iterdir()} == {"x.npz"}


# -- data -----------------------------------------------------------------------------------------------


def mutated(content, rng):
    """Bytes with some of them changed, cut off, doubled or moved."""
    content = bytearray(content)
    for _ in range(rng.integers(1, 6)):
        if not content:
            break
        a, b = sorted(rng.integers(0, len(content) + 1, 2))
        match rng.integers(6):
            case 0:
                content[rng.integers(len(content))] = rng.integers(256)
            case 1:
                content[rng.integers(len(content))] ^= 1 << rng.integers(8)
            case 2:
                del content[a : min(b, a + 64)]
            case 3:
                content[a:a] = content[a : min(b, a + 64)]
            case 4:
                content = content[:b]
            case 5:
                content[a : a + 4] = rng.choice([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff"])
    return bytes(content)


def picture(kind, rng):
    """A small picture as the bytes of a file of this kind."""
    mode = rng.choice(["L", "RGB", "P", "1"] if kind in ("gif", "bmp") else ["L", "RGB"])
    pixels = rng.integers(
        0, 256, (int(rng.integers(1, 40)), int(rng.integers(1, 40)), 3), dtype=np.uint8
    )
    file = io.BytesIO()
    Image.fromarray(pixels).convert(str(mode)).save(file, kind)
    return file.getvalue()


DTYPES = ("u1", "<i4", ">u2", "f2", "f4", "f8", "?", "c8", "i8", "U3", "S2", "u8", "<m8[s]")


@given(st.integers(0, 2**32), st.sampled_from(["npz", "npy", "zip"]))
@fuzzed
def test_any_array_file(here, seed, kind):
    rng = np.random.default_rng(seed)
    shape = tuple(int(n) for n in rng.integers(0, 12, rng.integers(0, 6)))
    with np.errstate(all="ignore"):
        numbers = rng.random(shape) * rng.choice([1, 255, 1e6, -1])
        array = numbers.astype(rng.choice(DTYPES))
    if rng.random() < 0.4:
        array = rng.integers(0, 256, (30, 8, 8), dtype=np.uint8)
    file = io.BytesIO()
    if kind == "npy":
        np.save(file, array)
    elif kind == "npz":
        (np.savez if rng.random() < 0.5 else np.savez_compressed)(file, x_train=array, y_train=array)
    else:
        with zipfile.ZipFile(file, "w") as archive:
            for name in rng.permutation(["x_train.npy", "../x", "a\n.npy", "<b>.npy"])[:3]:
                archive.writestr(str(name), rng.bytes(40))
    content = mutated(file.getvalue(), rng) if rng.random() < 0.7 else file.getvalue()
    path = here / f"y.{kind}"
    path.write_bytes(content)
    data = "npy" if kind == "npy" else "npz"
    how = str(rng.choice(["auto", "none", "minmax", "byte"]))
    outcome(
        ["check", f"data={data}", f"data.path={path}", f"data.scale={how}", "training.batch_size=4"],
        (0, 1, 2),
    )


@given(st.integers(0, 2**32))
@fuzzed
def test_any_folder_of_images(here, seed):
    rng = np.random.default_rng(seed)
    names = [
        "a.png",
        "b\n.jpg",
        "<script>.gif",
        "\x1b[2J.png",
        "sub/c.webp",
        ".hidden.png",
        "d.tif",
        "e.PPM",
        "f.txt",
    ]
    with tempfile.TemporaryDirectory(dir=here) as folder:
        for name in rng.choice(names, rng.integers(0, 9), replace=False):
            path = Path(folder) / str(name)
            path.parent.mkdir(exist_ok=True)
            kind = str(
                rng.choice(["png", "jpeg", "gif", "webp", "tiff", "ppm", "bmp", "eps", "ico", "tga"])
            )
            content = picture(kind, rng)
            path.write_bytes(mutated(content, rng) if rng.random() < 0.5 else content)
        options = [
            ["data.image_size=8"],
            ["data.patches=8"],
            [],
            ["data.image_size=8", "data.unreadable=1"],
        ]
        words = options[rng.integers(len(options))]
        outcome(
            ["check", "data=image_folder", f"data.path={folder}", "training.batch_size=2", *words],
            (0, 1, 2),
        )
