"""Films: their frames, and what is refused."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cae_cli.data import decoding, load
from cae_cli.data.images import Pool
from tests.test_data import configured

LEVELS = (40, 90, 140, 190, 240)  # of the frames


def frames() -> list[np.ndarray]:
    """(48, 64, 3) frames, dark to light, with a red square that moves."""
    made = [np.full((48, 64, 3), level, np.uint8) for level in LEVELS]
    for i, frame in enumerate(made):
        frame[16:32, 8 * i : 8 * i + 16] = 255, 0, 0
    return made


def film(path: Path, codec: str = "mpeg4") -> Path:
    av = pytest.importorskip("av")
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.bit_rate = 4_000_000
        for frame in frames():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def read(path: Path, **changes: Any) -> Pool:
    return configured("image_folder", path=str(path), **changes).read()


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "mpeg4"), ("a.AVI", "mpeg4"), ("a.mkv", "mpeg4"), ("a.mov", "mpeg4"),
                        ("a.webm", "libvpx")],
)  # fmt: skip
def test_frames_of_films_are_read_in_order(name, codec, tmp_path):
    film(tmp_path / name, codec)
    pool = read(tmp_path, frames="all")
    assert pool.images.shape == (5, 48, 64, 3) and pool.images.dtype == np.uint8 and not pool.notes
    difference = np.abs(pool.images.astype(int) - np.stack(frames()))
    assert difference.mean() < 4 and np.median(difference) <= 2
    assert pool.groups is not None and set(pool.groups) == {0}  # they are alike


@pytest.mark.parametrize(("wanted", "count"), [("first", 1), ("3", 3), ("9", 5)])
def test_what_is_left_out_is_said(wanted, count, tmp_path):
    film(tmp_path / "a.mp4")
    film(tmp_path / "b.mkv")  # which does not say how many it has
    pool = read(tmp_path, frames=wanted, channels=1, image_size=24)
    assert pool.images.shape == (2 * count, 24, 24)
    left = 2 * (5 - count)
    said = f"{left} frames left out of 2 files with more than {count}; data.frames=all reads them"
    assert [note for note in pool.notes if "frame" in note] == ([said] if left else [])


def test_a_single_film_is_a_data_set(tmp_path):
    images = load(
        configured("image_folder", path=str(film(tmp_path / "a.mp4")), frames="all", patches=16)
    )
    assert images.shape == (16, 16, 3) and len(images.train) + len(images.validation) == 5 * 12


def test_frames_end_before_the_memory_does(tmp_path, monkeypatch):
    film(tmp_path / "a.mp4")
    film(tmp_path / "b.mp4")
    monkeypatch.setattr(decoding, "UNCHECKED", 2 * 64 * 48 * 3)
    monkeypatch.setattr(decoding.memory, "free", lambda: 10**8)
    with pytest.raises(Exception, match="more frames than fit into memory"):
        read(tmp_path, frames="all")


@pytest.mark.parametrize(("matrix", "turns"), [
    ((0, 1, 0, -1, 0, 0, 48, 0), -1),  # as telephones write that are held upright
    ((0, -1, 0, 1, 0, 0, 0, 64), 1),
    ((-1, 0, 0, 0, -1, 0, 64, 48), 2),
])  # fmt: skip
def test_films_of_telephones_are_upright(matrix, turns, tmp_path):
    path = film(tmp_path / "a.mp4")
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 4 + 4 + 20 + 16  # version, times and numbers, reserved and layer
    content[at : at + 36] = struct.pack(">9i", *(65536 * x for x in matrix), 1 << 30)
    path.write_bytes(content)
    (image,) = read(tmp_path).images
    difference = np.abs(image.astype(int) - np.rot90(frames()[0], turns))
    assert difference.mean() < 4


HARMFUL = {
    "a playlist": b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
    "a list of files": b"ffconcat version 1.0\nfile /etc/passwd\n",
    "a film without anything": b"\0\0\0\x18ftypisom\0\0\2\0isomiso2" + bytes(64),
    "a damaged film": None,
    "sound only": b"",
}


@pytest.mark.parametrize("what", HARMFUL)
def test_what_is_no_film_is_left_out(what, tmp_path):
    av = pytest.importorskip("av")
    content, path = HARMFUL[what], tmp_path / "bad.mp4"
    film(tmp_path / "good.mp4")
    if what == "a damaged film":
        content = (tmp_path / "good.mp4").read_bytes()[:300]
    path.write_bytes(content or b"")
    if what == "sound only":
        with av.open(path, "w") as container:
            stream = container.add_stream("aac", rate=8000)
            sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            sound.rate = 8000
            container.mux(stream.encode(sound))
            container.mux(stream.encode())
    pool = read(tmp_path, frames="all", unreadable=0.5)
    assert len(pool.images) == 5 and any("bad.mp4" in note for note in pool.notes)
