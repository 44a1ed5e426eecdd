"""Images and arrays that somebody made to do harm, or that went wrong: a clear line, bounded memory."""

from __future__ import annotations

import io
import os
import pickle
import shutil
import socket
import struct
import subprocess
import sys
import threading
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from numpy.lib import format as npy
from PIL import Image, PngImagePlugin

from cae_cli.data import load
from cae_cli.data.decoding import FORMATS, Room
from cae_cli.errors import UserError
from cae_cli.system import memory
from tests.conftest import called, environment
from tests.test_data import configured, same
from tests.test_data_sources import colour, grey, read_folder, refused, save

LIMIT = 3 * 2**30  # bytes of address space
LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv.pop(1)),) * 2)
from cae_cli.cli import main
main()
"""
WHOLE = 12  # good images in a folder beside the bad ones


@pytest.fixture
def folder(tmp_path):
    """A folder of good images."""
    folder = tmp_path / "images"
    for i in range(WHOLE):
        save(folder / f"{i:02}.png", grey(seed=i))
    return folder


def checked(*words, cwd, limit=LIMIT, **env):
    """``cae check`` in a process with a limit on its memory."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(limit), "check", *words],
        capture_output=True, text=True, cwd=cwd, timeout=120,
        env=environment(OPENBLAS_NUM_THREADS="1", COLUMNS="500", **env),
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    return done


def checked_folder(folder, *words, **rest):
    words = ("data=image_folder", f"data.path={folder}", "training.batch_size=8", *words)
    return checked(*words, cwd=folder.parent, **rest)


def chunk(kind, content):
    return (
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    )


def zeros(count):
    """Zeros, packed, without ever holding them."""
    pack = zlib.compressobj(1)
    block = bytes(2**20)
    parts = [pack.compress(block[: min(len(block), count - i)]) for i in range(0, count, len(block))]
    return b"".join([*parts, pack.flush()])


def png(width, height, content, *extra, depth=1):
    """A grey PNG of any stated size."""
    header = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)
    chunks = (chunk(b"IHDR", header), *extra, chunk(b"IDAT", content), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def tiff(width, height, rows_per_strip, strip, stated=None, compression=1):
    """A grey TIFF with one strip."""
    entries = [
        (256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, compression), (262, 3, 1),
        (273, 4, 8 + 2 + 9 * 12 + 4), (277, 3, 1), (278, 4, rows_per_strip),
        (279, 4, len(strip) if stated is None else stated),
    ]  # fmt: skip
    directory = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + directory + bytes(4) + strip


def webp(width, height):
    """A WebP file of a stated size that ends where its pixels begin."""
    bits = (width - 1) | (height - 1) << 14
    content = b"\x2f" + struct.pack("<I", bits) + bytes(20)
    body = b"WEBPVP8L" + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def gif(width, height):
    """A GIF whose first frame states this size."""
    start = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(3) + b"\xff" * 3
    return start + b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x02\x02\x4c\x01\0;"


def bmp(width, height):
    """A BMP of any stated size."""
    return b"BM" + struct.pack("<IIIIiiHHIIIIII", 60, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)


BOMBS = {
    # 2.5 billion pixels in 300 kB
    "bomb.png": (lambda: png(50_000, 50_000, zeros(50_000 * 6251)), "too large: 2,500,000,000 pixels"),
    "large.png": (lambda: png(20_000, 20_000, zeros(20_000 * 2501)), "too large: 400,000,000 pixels"),
    "text.png": (lambda: png(8, 8, zeros(16), chunk(b"zTXt", b"a\0\0" + zeros(2**29))), "too large in"),
    "icc.png": (lambda: png(8, 8, zeros(16), chunk(b"iCCP", b"a\0\0" + zeros(2**29))), "too large in"),
    "bomb.tif": (
        lambda: tiff(60_000, 60_000, 60_000, zeros(2**24), None, 8),
        "too large: 3,600,000,000",
    ),
    "strip.tif": (lambda: tiff(12, 12, 12, zeros(2**29), None, 8), None),  # 500 MB for 144 pixels
    "length.tif": (lambda: tiff(12, 12, 12, zeros(2**24), 2**31 - 1, 8), None),
    "rows.tif": (lambda: tiff(9_000, 9_000, 2**32 - 1, b"12345"), "truncated"),
    "bomb.webp": (lambda: webp(16_384, 16_384), "too large: 268,435,456 pixels"),
    "bomb.gif": (lambda: gif(65_535, 65_535), "too large: 4,294,836,225 pixels"),
    "bomb.ppm": (lambda: b"P6 99999 99999 255\n", "too large: 9,999,800,001 pixels"),
    "bomb.bmp": (lambda: bmp(60_000, 60_000), "too large: 3,600,000,000 pixels"),
}


def test_bombs_are_left_out_with_their_reason_and_within_the_memory(folder):
    for name, (made, _) in BOMBS.items():
        (folder / name).write_bytes(made())
        assert (folder / name).stat().st_size < 2**22
    done = checked_folder(folder, "data.unreadable=0.5")
    assert done.returncode == 0, done.stderr
    for name, (_, reason) in BOMBS.items():
        # None: what is behind the pixels that are needed is not even unpacked.
        assert reason is None or f"left out: {name} ({reason}" in done.stderr, done.stderr


def test_nothing_but_a_bomb_is_an_error_in_one_line(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "bomb.png").write_bytes(BOMBS["bomb.png"][0]())
    done = checked_folder(folder)
    assert done.returncode == 2
    assert (
        "error: none of 1 files can be read: bomb.png (too large: 2,500,000,000 pixels)" in done.stderr
    )


@pytest.mark.soak
def test_pictures_as_large_as_allowed_are_decoded_in_parallel_only_if_there_is_room(folder):
    picture = Image.new("RGBA", (9_000, 9_000), (10, 20, 30, 255))
    for i in range(3):
        picture.paste((200, 60 * i, 50, 100), (1000 * i, 500, 5000, 8000))
        picture.save(folder / f"{i}_large.png", compress_level=1)
    done = checked_folder(folder, "data.image_size=28")
    assert done.returncode == 0, done.stderr
    assert "left out" not in done.stderr


SIDE_BY_SIDE = """
import os, sys
from pathlib import Path
os.cpu_count = lambda: 8
from PIL import Image
from cae_cli.data import decoding, folder
from tests.test_data_sources import read_folder
decoding.MOST_PIXELS_AT_ONCE = folder.MOST_PIXELS_AT_ONCE = int(sys.argv[2])
Image.init()
def peak():  # not that of getrusage, which begins with the size of the process that started this one
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
before = peak()
assert len(read_folder(sys.argv[1], image_size=28)) == 12
print(peak() - before)
"""


@pytest.mark.soak
def test_the_memory_of_eight_threads_is_that_of_the_pixels_that_have_room(tmp_path):
    picture = Image.new("RGBA", (3000, 3000), (10, 20, 30, 200))
    picture.save(tmp_path / "0.png", compress_level=1)
    for i in range(1, 12):
        shutil.copy(tmp_path / "0.png", tmp_path / f"{i}.png")

    def more(pixels):
        done = subprocess.run(
            [sys.executable, "-c", SIDE_BY_SIDE, tmp_path, str(pixels)],
            capture_output=True, text=True, env=environment(), check=True,
        )  # fmt: skip
        return 1024 * int(done.stdout)

    in_turn = more(10**7)
    assert in_turn < 16 * 10**7 + 10**8
    assert more(10**9) > 2 * in_turn


def test_room_is_given_in_turn_and_a_picture_larger_than_all_of_it_goes_alone():
    room, most, inside, lock = Room(10), [], [0], threading.Lock()

    def work(pixels):
        for _ in range(50):
            with room.taken(pixels):
                with lock:
                    inside[0] += min(pixels, 10)
                    most.append(inside[0])
                with lock:
                    inside[0] -= min(pixels, 10)

    threads = [threading.Thread(target=work, args=(n,)) for n in (1, 3, 4, 6, 99)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert len(most) == 250
    assert max(most) == 10


def test_a_file_of_holes_is_not_read(folder):
    with (folder / "holes.webp").open("wb") as file:
        file.write(b"RIFF\xff\xff\xff\xffWEBPVP8 ")
        file.truncate(2**40)
    pool = configured("image_folder", path=str(folder)).read()
    assert pool.notes == ("1 unreadable file left out: holes.webp (too large: 1.1 TB)",)


def test_what_is_called_png_and_starts_a_program_elsewhere_is_no_image(folder, tmp_path):
    canary, programs = tmp_path / "canary", tmp_path / "bin"
    programs.mkdir()
    for name in ("gs", "gswin64c", "xdg-open"):
        (programs / name).write_text(f"#!/bin/sh\ntouch {canary}\n")
        (programs / name).chmod(0o755)
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 12 12\n%%EndComments\nshowpage\n%%EOF\n"
    (folder / "page.png").write_bytes(eps)
    path = f"{programs}:{os.environ['PATH']}"
    # So it is with Pillow alone:
    code = "import sys; from PIL import Image; Image.open(sys.argv[1]).load()"
    subprocess.run(
        [sys.executable, "-c", code, folder / "page.png"],
        env=environment(PATH=path),
        capture_output=True,
    )
    assert canary.exists()
    canary.unlink()
    done = checked_folder(folder, PATH=path)
    assert "left out: page.png (not an image)" in done.stderr
    assert not canary.exists()


@pytest.mark.parametrize("kind", ["ICO", "TGA", "PCX", "DDS", "JPEG2000", "SGI", "ICNS", "AVIF"])
def test_formats_that_no_extension_promises_are_no_images(kind, folder):
    Image.fromarray(colour(32, 32)).save(folder / "other.png", format=kind)
    pool = configured("image_folder", path=str(folder)).read()
    assert pool.notes == ("1 unreadable file left out: other.png (not an image)",)


def test_a_wrong_extension_does_no_harm(tmp_path):
    for i, kind in enumerate(FORMATS):
        Image.fromarray(colour(seed=i)).save(
            tmp_path / f"{i}.{'png' if kind != 'PNG' else 'jpg'}", format=kind, lossless=True
        )
    read = read_folder(tmp_path)
    assert read.shape == (len(FORMATS), 12, 12, 3)
    for i, kind in enumerate(FORMATS):
        assert np.array_equal(read[i], colour(seed=i)) or kind in ("GIF", "JPEG")


# Names


NAMES = [
    *("new\nline.png", "escape\x1b[31m.png", "bell\a.png", "<script>alert(1)<.png", "[red]a[_red].png"),
    *("bidi\u202egnp.png", "zero\u200bwidth.png", os.fsdecode(b"latin\xff.png")),
    *("x" * 240 + ".png", "%s{0}.png"),
]


def plain(text):
    """Nothing that a terminal would obey, or could not show."""
    return all(c.isprintable() or c == "\n" for c in text) and text.encode()


@pytest.mark.parametrize("name", NAMES)
def test_names_of_files_and_folders_are_shown_and_not_obeyed(name, folder):
    words = "check", "data=image_folder", f"data.path={folder}", "training.batch_size=8"
    (folder / name).write_bytes(b"nothing")
    (folder / f"sub{name}").mkdir()
    (folder / f"sub{name}" / name).write_bytes(b"")
    done = called(folder.parent, *words, "data.unreadable=0.5", COLUMNS="500")
    assert done.code == 0, done.err
    assert plain(done.err + done.out)
    assert "(not an image)" in done.err
    assert "(empty)" in done.err
    for i in range(WHOLE):
        (folder / f"{i:02}.png").unlink()
    done = called(folder.parent, *words, COLUMNS="500")
    assert done.code == 2
    assert plain(done.err)
    assert done.err.count("\n") <= 4


def test_sizes_that_differ_name_their_files_safely(folder):
    save(folder / "z\x1b[2J\n.png", grey(20, 20))
    assert "12x12 in 00.png, 20x20 in z\\x1b[2J\\n.png" in refused("image_folder", path=str(folder)).what


def test_labels_may_have_any_name(tmp_path):
    for i, name in enumerate(["a\n", os.fsdecode(b"\xff"), "<b>", "\u202e"]):
        save(tmp_path / name / "0.png", grey(seed=i))
    labels = configured("image_folder", path=str(tmp_path)).read().labels
    assert sorted(labels) == [0, 1, 2, 3]


# Links, pipes, deep trees


@pytest.fixture
def linked(folder, tmp_path):
    """A folder with links to inside, to outside, to nothing, and in circles."""
    save(tmp_path / "elsewhere" / "out.png", grey(seed=100))
    save(tmp_path / "elsewhere" / "deep" / "out2.png", grey(seed=101))
    save(folder / ".store" / "hidden.png", grey(seed=102))
    (folder / "sub").mkdir()
    save(folder / "sub" / "in.png", grey(seed=103))
    for name, target in {
        "a_inside.png": "sub/in.png",
        "b_inside": "sub",
        "c_hidden.png": ".store/hidden.png",
        "d_outside.png": "../elsewhere/out.png",
        "e_outside": "../elsewhere",
        "f_nothing.png": "missing.png",
        "g_itself.png": "g_itself.png",
        "sub/h_up": "..",
        "i_machine.png": "/dev/zero",
        "../elsewhere/deep/j_round": "..",
    }.items():
        (folder / name).symlink_to(target)
    return folder


def pictures(images):
    """Seeds of the images."""
    known = {grey(seed=i).tobytes(): i for i in range(110)}
    return sorted(known[image.tobytes()] for image in images)


def test_links_out_of_the_folder_are_left_out_and_counted(linked):
    pool = configured("image_folder", path=str(linked)).read()
    assert pictures(pool.images) == [*range(WHOLE), 103]
    assert pool.notes == (
        "links out of the folder, left out: 4",
        "links to nothing: 2",
        "data.follow_links=true follows links",
    )


def test_followed_links_lead_to_each_picture_once_and_not_in_circles(linked):
    pool = configured("image_folder", path=str(linked), follow_links=True).read()
    assert pictures(pool.images) == [*range(WHOLE), 100, 101, 102, 103]
    assert pool.notes == ("links to nothing: 2",)


def test_a_folder_of_nothing_but_links_says_how_to_follow_them(tmp_path):
    save(tmp_path / "elsewhere" / "a.png", grey())
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").symlink_to("../elsewhere/a.png")
    error = refused("image_folder", path=str(tmp_path / "images"))
    assert error.what == "data.path has no images, links out of it: 1"
    assert "data.follow_links=true" in error.hint
    assert len(read_folder(tmp_path / "images", follow_links=True)) == 1


def test_the_folder_itself_may_be_a_link(folder, tmp_path):
    (tmp_path / "link").symlink_to(folder)
    pool = configured("image_folder", path=str(tmp_path / "link")).read()
    assert len(pool.images) == WHOLE
    assert pool.notes == ()


def test_pipes_and_sockets_are_never_opened(folder, tmp_path, monkeypatch):
    os.mkfifo(folder / "pipe.png")
    (folder / "link.png").symlink_to("pipe.png")
    monkeypatch.chdir(folder)  # names of sockets are short
    with socket.socket(socket.AF_UNIX) as ours:
        ours.bind("socket.png")
        for words in (("data.unreadable=0",), ("data.unreadable=0", "data.follow_links=true")):
            assert checked_folder(folder, *words).returncode == 0


@pytest.mark.parametrize("source", ["npz", "npy", "mnist", "image_folder"])
def test_a_path_that_never_ends_is_refused(source, tmp_path):
    os.mkfifo(tmp_path / "pipe.npz")
    for path in (tmp_path / "pipe.npz", "/dev/zero"):
        done = checked(f"data={source}", f"data.path={path}", cwd=tmp_path)
        assert done.returncode == 2
        assert ", got a" in done.stderr


@pytest.fixture
def deep(folder):
    """A folder with an image 1500 folders below, and folders down to where no path leads."""
    here = os.open(folder, os.O_DIRECTORY)
    for depth in range(3000):  # paths end at 4096 bytes
        if depth == 1500:
            image = io.BytesIO()
            Image.fromarray(grey(seed=50)).save(image, "png")
            handle = os.open("deep.png", os.O_CREAT | os.O_WRONLY, dir_fd=here)
            os.write(handle, image.getvalue())
            os.close(handle)
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    yield folder
    subprocess.run(["rm", "-rf", str(folder)], check=True)  # Python's own way is recursive


def test_trees_may_be_deeper_than_the_stack_and_longer_than_a_path(deep):
    pool = configured("image_folder", path=str(deep)).read()
    assert pictures(pool.images) == [*range(WHOLE), 50]
    assert pool.notes == ("folders that cannot be read: 1",)


# What is in pictures


def one(folder, **changes):
    """The only image of a folder."""
    images = read_folder(folder, **changes)
    assert len(images) == 1
    return images[0]


def png_of_16_bits(values):
    """An RGB or grey PNG of 16 bits, which Pillow does not write in colour."""
    h, w = values.shape[:2]
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in values)
    header = struct.pack(">IIBBBBB", w, h, 16, {2: 0, 3: 2}[values.ndim], 0, 0, 0)
    chunks = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(lines)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def test_16_bits_are_kept_in_grey_and_in_colour(tmp_path):
    wide = np.random.default_rng(0).integers(0, 65536, (12, 12, 3), dtype=np.uint16)
    for folder, values in (("grey", wide[..., 0]), ("colour", wide)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.png").write_bytes(png_of_16_bits(values))
        assert np.array_equal(one(tmp_path / folder), values)


def test_one_bit_is_black_and_white(tmp_path):
    bits = grey() > 128
    Image.fromarray(bits).save(tmp_path / "a.png")
    assert np.array_equal(one(tmp_path), np.where(bits, 255, 0))


def test_half_transparent_grey_is_half_as_dark(tmp_path):
    pixels = np.stack([np.zeros((12, 12), np.uint8), np.full((12, 12), 128, np.uint8)], axis=2)
    pixels[0, 0] = 255, 0
    Image.fromarray(pixels, "LA").save(tmp_path / "a.png")
    read = one(tmp_path)
    assert read.ndim == 2
    assert (read[0, 0], read[5, 5]) == (255, 127)


def test_a_palette_with_transparency_keeps_its_colours_on_white(tmp_path):
    indices = np.arange(144, dtype=np.uint8).reshape(12, 12) % 3
    image = Image.fromarray(indices, "P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.save(tmp_path / "a.png", transparency=bytes([255, 128, 0]))
    read = one(tmp_path)
    assert (read[indices == 0] == (255, 0, 0)).all()
    assert np.abs(read[indices == 1].astype(int) - (127, 255, 127)).max() <= 1
    assert (read[indices == 2] == 255).all()


@pytest.mark.parametrize("inks", [(0, 0, 0, 0), (255, 0, 0, 0), (0, 255, 255, 0), (0, 0, 0, 255)])
def test_inks_become_the_colours_that_they_print(inks, tmp_path):
    picture = Image.new("CMYK", (16, 16), inks)
    picture.paste((128, 0, 128, 0), (0, 0, 8, 16))
    picture.save(tmp_path / "a.jpg", quality=95)
    expected = [(255 - ink) * (255 - inks[3]) / 255 for ink in inks[:3]]
    assert np.abs(one(tmp_path, channels=3)[8, 12] - np.array(expected)).max() < 6


@pytest.mark.parametrize("turn", range(1, 9))
def test_every_turn_of_exif_comes_out_upright(turn, tmp_path):
    upright = np.zeros((16, 24), np.uint8)
    upright[:8, :8], upright[8:, 16:] = 255, 128
    undo = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1], 5: upright.T,
        6: np.rot90(upright), 7: upright[::-1, ::-1].T, 8: np.rot90(upright, -1),
    }  # fmt: skip
    for kind in ("jpg", "png", "webp", "tif"):
        exif = Image.Exif()
        exif[0x0112] = turn
        folder = tmp_path / kind
        save(
            folder / f"a.{kind}", np.ascontiguousarray(undo[turn]), exif=exif, quality=100, lossless=True
        )
        read = one(folder)
        assert read.shape == upright.shape
        assert np.abs(read.astype(int) - upright).max() < 12, kind


def animated(path, **options):
    frames = [Image.fromarray(colour(seed=i)) for i in range(3)]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=50, **options)
    return path


@pytest.mark.parametrize("kind", ["gif", "webp", "png", "tif"])
def test_of_every_kind_of_animation_the_first_frame_is_taken(kind, tmp_path):
    path = animated(tmp_path / f"a.{kind}", lossless=True)
    with Image.open(path) as opened:
        assert opened.n_frames == 3
        first = np.asarray(opened.convert("RGB"))
    read = one(tmp_path)
    assert np.array_equal(read, first)
    if kind != "gif":
        assert np.array_equal(read, colour(seed=0))


def test_frames_after_the_first_are_not_decoded(tmp_path):
    first = tmp_path / "first.gif"
    Image.fromarray(grey()).save(first)
    start = first.read_bytes().rstrip(b";")
    first.write_bytes(
        start + b"!\xf9\x04\0\0\0\0\0,\xff\xff\xff\xff\xff\xff\xff\xff\0\x08garbage" * 10_000
    )
    assert np.array_equal(one(tmp_path), grey())


def test_interlaced_progressive_and_stereo_files_are_read(tmp_path):
    (tmp_path / "png").mkdir()
    # Interlaced by hand: of 8 pixels a side, Adam7's seven passes
    pixels, lines = grey(8, 8), b""
    for y, x, dy, dx in (
        (0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1),
    ):  # fmt: skip
        lines += b"".join(b"\0" + line.tobytes() for line in pixels[y::dy, x::dx])
    header = struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 1)
    chunks = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(lines)), chunk(b"IEND", b""))
    (tmp_path / "png" / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    assert np.array_equal(one(tmp_path / "png"), pixels)
    smooth = np.add.outer(np.arange(32), np.arange(32)).astype(np.uint8) * 4
    save(tmp_path / "jpg" / "a.jpg", smooth, progressive=True, quality=95)
    assert np.abs(one(tmp_path / "jpg").astype(int) - smooth).max() < 6
    (tmp_path / "mpo").mkdir()
    left, right = Image.fromarray(smooth), Image.fromarray(255 - smooth)
    left.save(tmp_path / "mpo" / "a.jpg", "MPO", save_all=True, append_images=[right], quality=95)
    with Image.open(tmp_path / "mpo" / "a.jpg") as opened:
        assert opened.format == "MPO"
    assert np.abs(one(tmp_path / "mpo").astype(int) - smooth).max() < 6


def test_one_folder_of_every_kind_of_file_passes(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "grey16.png").write_bytes(png_of_16_bits(grey(40, 40).astype(np.uint16) * 257))
    (folder / "rgb16.png").write_bytes(png_of_16_bits(colour(40, 40).astype(np.uint16) * 257))
    Image.fromarray(colour(40, 40)).convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(colour(40, 40, 2)).quantize(16).save(folder / "palette.png", transparency=3)
    Image.fromarray(grey(40, 40)).convert("LA").save(folder / "la.png")
    Image.fromarray(grey(40, 40) > 99).save(folder / "bits.png")
    for kind in ("gif", "webp", "png"):
        animated(folder / f"animated.{kind}")
    Image.fromarray(grey(1, 1)).save(folder / "pixel.png")
    Image.fromarray(grey(1, 500)).save(folder / "line.png")
    done = checked_folder(folder, "data.image_size=28", "data.unreadable=0", "data.frames=all")
    assert done.returncode == 0, done.stderr
    assert "left out" not in done.stderr
    assert load(configured("image_folder", path=str(folder), image_size=28)).shape == (28, 28, 3)


def test_single_pixels_are_explained(tmp_path):
    for i in range(5):
        save(tmp_path / f"{i}.png", grey(1, 1, seed=i))
    assert "single pixels (1x1)" in refused("image_folder", path=str(tmp_path)).what


@pytest.mark.parametrize("kind", ["png", "jpg", "gif", "bmp", "tif", "webp", "ppm"])
def test_files_cut_anywhere_or_with_flipped_bytes_end_in_an_image_or_a_reason(kind, folder, tmp_path):
    whole = save(tmp_path / f"whole.{kind}", colour(24, 24)).read_bytes()
    rng = np.random.default_rng(0)
    for i in range(40):
        (folder / f"cut{i}.{kind}").write_bytes(whole[: rng.integers(1, len(whole))])
        flipped = bytearray(whole)
        for at in rng.integers(0, len(whole), 5):
            flipped[at] = rng.integers(256)
        (folder / f"flipped{i}.{kind}").write_bytes(flipped)
    pool = configured("image_folder", path=str(folder), unreadable=1.0, image_size=12).read()
    assert WHOLE <= len(pool.images) < WHOLE + 80
    assert "left out" in pool.notes[0]


def test_text_in_pictures_is_no_cost(tmp_path):
    told = PngImagePlugin.PngInfo()
    told.add_itxt("a" * 70, "b" * 500_000, zip=True)
    Image.fromarray(grey()).save(tmp_path / "a.png", pnginfo=told)
    exif = Image.Exif()
    exif[0x010E] = "c" * 60_000
    Image.fromarray(np.full((12, 12), 90, np.uint8)).save(tmp_path / "b.jpg", exif=exif)
    assert np.array_equal(read_folder(tmp_path)[0], grey())


# Arrays


def header(descr="|u1", shape=(40, 8, 8), version=(1, 0), text=None):
    """How an .npy file begins, whatever it says."""
    if text is None:
        text = repr({"descr": descr, "fortran_order": False, "shape": shape})
    size = struct.pack("<H" if version == (1, 0) else "<I", len(text) + 1)
    return npy.magic(*version) + size + text.encode() + b"\n"


def packed(path, members, compression=zipfile.ZIP_DEFLATED):
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", compression) as archive:
        warnings.simplefilter("ignore")  # of a name that is there twice
        for name, content in members:
            with archive.open(name, "w", force_zip64=True) as file:
                for block in [content] if isinstance(content, bytes) else content:
                    file.write(block)
    return path


def blocks(head, count):
    yield head
    for _ in range(count):
        yield bytes(2**20)


def checked_array(path, *words, source="npz", limit=LIMIT):
    done = checked(f"data={source}", f"data.path={path}", *words, cwd=path.parent, limit=limit)
    assert done.returncode == 2, done.stderr
    assert "error: " in done.stderr
    return done.stderr


def test_zeros_without_end_are_refused_before_they_are_unpacked(tmp_path):
    path = packed(tmp_path / "a.npz", [("x_train.npy", blocks(header(shape=(2**20, 32, 32)), 1024))])
    assert path.stat().st_size < 2**23  # and 1 GB when unpacked
    said = checked_array(path, limit=2**30)
    assert "x_train would need 1.1 GB of memory, this machine has" in said
    assert "MB free" in said


@pytest.mark.parametrize("dtype", ["|u1", "<f8", "|V1000000"])
def test_a_header_that_claims_more_than_the_file_holds_is_refused(dtype, tmp_path):
    head = header(dtype, (10**9, 32, 32))
    path = packed(tmp_path / "a.npz", [("x_train.npy", head + bytes(1000))])
    assert "is truncated: x_train should have" in checked_array(path)
    (tmp_path / "a.npy").write_bytes(head + bytes(1000))
    assert "is truncated: the array should have" in checked_array(tmp_path / "a.npy", source="npy")


def test_a_member_whose_size_is_a_lie_is_refused(tmp_path):
    path = packed(tmp_path / "a.npz", [("x_train.npy", header(shape=(10**9, 32, 32)))])
    content = bytearray(path.read_bytes())
    # The sizes of a 64-bit member stand in an extra field, in front of it and in the directory.
    extra = struct.pack("<QQ", len(header(shape=(10**9, 32, 32))), 0)[:8]
    at = content.find(extra)
    while at >= 0:
        content[at : at + 8] = struct.pack("<Q", 2**41)
        at = content.find(extra, at + 8)
    path.write_bytes(content)
    said = refused("npz", path=str(path)).what
    assert "x_train would need 1.0 TB of memory" in said or "is truncated" in said


def test_a_file_of_holes_is_larger_than_memory(tmp_path):
    with (tmp_path / "a.npy").open("wb") as file:
        file.write(header(shape=(2**31, 32, 32)))
        file.truncate(2**41 + 1000)
    said = checked_array(tmp_path / "a.npy", source="npy")
    assert "the array would need 2.2 TB of memory, this machine has" in said


HEADERS = {
    "length": npy.magic(2, 0) + b"\xff\xff\xff\xff",
    "long": header(version=(2, 0), text="{" + " " * 10**7),
    "brackets": header(text="(" * 9000),
    "signs": header(text="-" * 9000 + "1"),
    "digits": header(text="{'descr': '|u1', 'fortran_order': False, 'shape': (" + "9" * 8000 + ",)}"),
    "negative": header(shape=(-5, 8, 8)),
    "overflow": header(shape=(2**32, 2**32, 2**32)),
    "huge": header(shape=(10**300, 8, 8)),
    "descr": header(descr="|Z9"),
    "call": header(text="__import__('os').system('touch canary')"),
    "version": b"\x93NUMPY\x09\x09" + bytes(100),
    "escape": header(text="\x1b[2J\n\x07"),
    "empty": b"",
    "names": header(descr=[("\x1b[2J" + "n" * 100, "|u1")] * 2),
}


@pytest.mark.parametrize("case", HEADERS)
def test_headers_that_are_none_are_explained(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = packed(tmp_path / "a.npz", [("x_train.npy", HEADERS[case] + bytes(2000))])
    error = refused("npz", path=str(path))
    assert error.what.startswith("data.path")
    assert len(error.what) < 300
    assert plain(error.what)
    assert not (tmp_path / "canary").exists()
    if HEADERS[case]:
        (tmp_path / "a.npy").write_bytes(HEADERS[case] + bytes(2000))
        assert refused("npy", path=str(tmp_path / "a.npy")).what.startswith("data.path")


@pytest.mark.soak  # in the short tests a bomb is an array, see above
def test_four_gigabytes_of_header_are_not_unpacked(tmp_path):
    head = npy.magic(2, 0) + struct.pack("<I", 2**32 - 1) + b"{"
    path = packed(tmp_path / "a.npz", [("x_train.npy", blocks(head, 1024))])
    assert "data.path cannot be read" in checked_array(path, limit=5 * 2**28)
    assert "which has x_train (damaged)" in checked_array(path, "data.key=y", limit=5 * 2**28)


class Canary:
    """What a pickle can do."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_pickles_are_refused_wherever_they_are(tmp_path):
    canary = tmp_path / "canary"
    content = pickle.dumps(Canary(canary))
    pickle.loads(content)
    assert canary.exists()
    canary.unlink()
    for i, descr in enumerate(("|O", [("a", "|O")], ("|O", (2,)))):
        head = header(descr, (3,))
        members = [
            ("x_train.npy", np_bytes(grey())),
            ("y_train.npy", head + content),
            ("k.npy", head + content),
        ]
        path = packed(tmp_path / f"{i}.npz", members)
        (tmp_path / f"{i}.npy").write_bytes(head + content)
        for words in ({"name": "npz"}, {"name": "npz", "key": "k"}, {"name": "npy"}):
            suffix = words["name"]
            error = refused(**words, path=str(path.with_suffix(f".{suffix}")))
            assert "pickled objects" in error.what
    assert not canary.exists()


def np_bytes(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def test_an_archive_of_many_arrays_lists_a_few(tmp_path):
    one_array = np_bytes(np.zeros(1))
    names = ["\x1b[2J\n", "<b>", "\u202e", "n" * 60_000, *map(str, range(20_000))]
    path = packed(tmp_path / "a.npz", [(f"{n}.npy", one_array) for n in names], zipfile.ZIP_STORED)
    error = refused("npz", path=str(path))
    assert "and 19,984 more" in error.what
    assert "\\x1b[2J\\n (1,)" in error.what
    assert len(error.what) + len(error.hint) < 3000
    assert plain(error.what + error.hint)


def test_members_that_are_odd_are_refused_by_name(tmp_path):
    good = np_bytes(np.stack([grey(8, 8, seed=i) for i in range(20)]))
    path = packed(tmp_path / "twice.npz", [("x_train.npy", good), ("x_train.npy", good)])
    assert refused("npz", path=str(path)).what == "data.path has x_train.npy 2 times"
    for name, way in (("bzip2", zipfile.ZIP_BZIP2), ("lzma", zipfile.ZIP_LZMA)):
        path = packed(tmp_path / f"{name}.npz", [("x_train.npy", good)], way)
        assert "has an unusual compression" in refused("npz", path=str(path)).what
    path = packed(tmp_path / "locked.npz", [("x_train.npy", good)])
    content = bytearray(path.read_bytes())
    content[6] |= 1
    content[content.find(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    assert "is encrypted" in refused("npz", path=str(path)).what
    outside = packed(tmp_path / "up.npz", [("../x_train.npy", good), ("x_train.npy", good)])
    assert len(configured("npz", path=str(outside)).read().images) == 20
    assert not (tmp_path.parent / "x_train.npy").exists()


def test_compressed_and_plain_archives_give_the_same(tmp_path):
    x = np.stack([colour(8, 8, seed=i) for i in range(30)])
    np.savez(tmp_path / "a.npz", x_train=x, y_train=np.arange(30))
    np.savez_compressed(tmp_path / "b.npz", x_train=x, y_train=np.arange(30))
    a, b = (load(configured("npz", path=str(tmp_path / name))) for name in ("a.npz", "b.npz"))
    assert same(a, b)
    assert np.array_equal(a.train_labels, b.train_labels)


@pytest.mark.parametrize("dtype", [">u2", ">f4", "<f2", "?", "<i8", ">i4", "<f8", "u1"])
@pytest.mark.parametrize("order", "CF")
def test_every_kind_of_number_in_every_order_means_the_same_images(dtype, order, tmp_path):
    x = np.random.default_rng(0).integers(0, 2, (40, 8, 6, 3))
    x[0, 0, 0, 0] = 1
    np.save(tmp_path / "a.npy", np.asarray(x, dtype=dtype, order=order))
    images = load(configured("npy", path=str(tmp_path / "a.npy"), scale="minmax"))
    np.save(tmp_path / "b.npy", x.astype(np.float32))
    assert same(images, load(configured("npy", path=str(tmp_path / "b.npy"))))
    assert images.train.dtype.isnative


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((9, 8, 8), complex),
        np.zeros((9, 8, 8), "datetime64[s]"),
        np.full((9, 8, 8), "a"),
        np.zeros((9, 8, 8), [("r", "u1"), ("g\x1b", "u1")]),
        np.zeros((9, 8, 8), "S0"),
        np.float64(3),
        np.zeros((9, 0, 8)),
    ],
)
def test_arrays_that_are_no_images_are_refused(array, tmp_path):
    np.save(tmp_path / "a.npy", array)
    error = refused("npy", path=str(tmp_path / "a.npy"))
    assert error.what.startswith("the images must")
    assert plain(error.what)


@pytest.mark.parametrize("scale", ["auto", "none", "minmax"])
@pytest.mark.parametrize("high", [1e300, -1e300, np.nan, np.inf, 2.0**63])
def test_values_beyond_all_measure_are_named(scale, high, tmp_path):
    x = np.random.default_rng(0).random((20, 8, 8))
    x[3, 4, 5] = high
    np.save(tmp_path / "a.npy", x)
    source = configured("npy", path=str(tmp_path / "a.npy"), scale=scale)
    if high == 2.0**63 and scale != "auto":
        assert np.isfinite(load(source).train).all()
    else:
        with pytest.raises(UserError, match=r"values|numbers") as error:
            load(source)
        assert error.value.hint


def test_whole_numbers_too_close_to_tell_apart_are_refused(tmp_path):
    x = 2**62 + np.random.default_rng(0).integers(0, 2, (20, 8, 8))
    np.save(tmp_path / "a.npy", x)
    assert (
        "less than float precision" in refused("npy", path=str(tmp_path / "a.npy"), scale="minmax").what
    )


def test_packed_files_of_mnist_are_recognised(tmp_path):
    import gzip

    idx = struct.pack(">IIII", 0x803, 2, 28, 28) + bytes(2 * 784)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx))
    (tmp_path / "other.gz").write_bytes(gzip.compress(b"words"))
    for source in ("npz", "npy", "mnist"):
        for name in ("train-images-idx3-ubyte.gz", "train-images-idx3-ubyte"):
            hint = refused(source, path=str(tmp_path / name)).hint
            assert hint == f"use data=idx data.path={tmp_path / name}"
        error = refused(source, path=str(tmp_path / "other.gz"))
        assert "but a gzip file" in error.what
        assert "gunzip" in error.hint


def test_images_that_fit_only_until_they_are_scaled_end_in_one_line(tmp_path):
    values = np.random.default_rng(0).integers(0, 65536, 2**19, dtype=np.uint16).tobytes()
    content = [header("<u2", shape=(48_000, 64, 64)), *[values] * 375]  # 400 MB, and twice that scaled
    path = packed(tmp_path / "a.npz", [("x_train.npy", content)], zipfile.ZIP_STORED)
    said = checked_array(path, limit=5 * 2**28)
    assert "error: the images need more memory than this machine has free" in said
    assert "hint: use fewer images" in said


# Memory


def test_free_memory_is_the_least_that_anything_leaves(tmp_path):
    for name, content in {
        "proc/meminfo": "MemTotal: 99 kB\nMemAvailable:    8000000 kB\n",
        "proc/self/cgroup": "0::/job/step\n",
        "sys/fs/cgroup/job/step/memory.max": "max\n",
        "sys/fs/cgroup/job/memory.max": "5000000000\n",
        "sys/fs/cgroup/job/memory.current": "4000000000\n",
        "sys/fs/cgroup/job/memory.stat": "anon 1\ninactive_file 500000000\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    assert memory.free(tmp_path) == 1_500_000_000
    (tmp_path / "sys/fs/cgroup/job/memory.max").write_text("max\n")
    assert memory.free(tmp_path) == 8_000_000 * 1024
    old = tmp_path / "sys/fs/cgroup/memory/docker/x"
    old.mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("5:cpu,memory:/docker/x\n1:name=systemd:/\n0::/\n")
    (old / "memory.limit_in_bytes").write_text("2000000000")
    (old / "memory.usage_in_bytes").write_text("1999999999")
    (old / "memory.stat").write_text("total_inactive_file 0\n")
    assert memory.free(tmp_path) == 1
    shutil.rmtree(tmp_path / "proc")
    assert memory.free(tmp_path) > 2**20  # all that the machine has


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1200, "1.2 kB"),
        (20 * 10**9, "20 GB"),
        (12 * 10**11, "1.2 TB"),
    ],
)
def test_amounts_in_words(count, words):
    assert memory.amount(count) == words
    assert memory.amount(10**400) == "over 1000 EB"
