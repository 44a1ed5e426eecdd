"""DICOM and NIfTI: the values that they mean, the frames of volumes, and what is refused."""

from __future__ import annotations

import gzip
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cae_cli.data import load
from cae_cli.data.images import Pool
from cae_cli.errors import UserError
from tests.test_data import configured

X = np.random.default_rng(0).integers(0, 4000, (6, 12, 10)).astype(np.uint16)  # (frames, h, w)


def read(path: Path, **changes: Any) -> Pool:
    return configured("image_folder", path=str(path), **changes).read()


def refused(path: Path, **changes: Any) -> UserError:
    with pytest.raises(UserError) as error:
        read(path, **changes)
    return error.value


def dicom(path: Path, pixels: np.ndarray, **tags: Any) -> Path:
    """Writes a file of DICOM: (h, w), (h, w, 3) or, with NumberOfFrames, (n, h, w)."""
    pydicom = pytest.importorskip("pydicom")
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    data = pydicom.Dataset()
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, generate_uid()
    several = "NumberOfFrames" in tags
    colour = pixels.ndim == 3 and not several
    data.Rows, data.Columns = pixels.shape[several : several + 2]
    data.SamplesPerPixel = 3 if colour else 1
    data.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        data.PlanarConfiguration = 0
    bits = 8 * pixels.dtype.itemsize
    data.BitsAllocated, data.BitsStored, data.HighBit = bits, bits, bits - 1
    data.PixelRepresentation = int(pixels.dtype.kind == "i")
    for name, value in tags.items():
        setattr(data, name, value)
    data.PixelData = pixels.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return path


def nifti(path: Path, volume: np.ndarray, slope: float | None = None, intercept: float = 0.0) -> Path:
    """Writes a volume (x, y, z); with a slope the values stand for slope * volume + intercept."""
    nibabel = pytest.importorskip("nibabel")
    image = nibabel.Nifti1Image(volume, np.eye(4))
    if slope is not None:
        image.header.set_slope_inter(slope, intercept)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(image.to_bytes()) if path.suffix == ".gz" else image.to_bytes())
    if slope is not None:  # nibabel computes other ones for the values it is given
        content = bytearray(image.to_bytes())
        content[112:120] = np.array([slope, intercept], "<f4").tobytes()
        path.write_bytes(gzip.compress(bytes(content)) if path.suffix == ".gz" else bytes(content))
    return path


def test_dicom_without_a_unit_is_read_as_it_is(tmp_path):
    for i, image in enumerate(X):
        dicom(tmp_path / f"scans/{i}.dcm", image)
    pool = read(tmp_path / "scans")
    assert pool.images.dtype == np.uint16
    assert np.array_equal(pool.images, X)


def test_dicom_has_the_values_of_its_unit(tmp_path):
    for i, image in enumerate(X):
        dicom(tmp_path / f"{i}.dcm", image, RescaleSlope=2, RescaleIntercept=-1024.5)
    pool = read(tmp_path)
    assert pool.images.dtype == np.float32
    assert np.array_equal(pool.images, X * np.float32(2) - np.float32(1024.5))
    with pytest.raises(UserError) as error:  # of Hounsfield units, none is black or white
        load(configured("image_folder", path=str(tmp_path)))
    assert "data.scale=minmax" in error.value.hint
    images = load(configured("image_folder", path=str(tmp_path), scale="minmax"))
    assert max(images.train.max(), images.validation.max()) == 1


def test_dicom_in_colour_inverted_signed_and_without_an_extension(tmp_path):
    rgb = np.random.default_rng(1).integers(0, 256, (12, 10, 3), np.uint8)
    dicom(tmp_path / "a" / "IM0001", rgb)
    assert np.array_equal(read(tmp_path / "a").images[0], rgb)
    inverted = {"PhotometricInterpretation": "MONOCHROME1", "BitsStored": 12, "HighBit": 11}
    dicom(tmp_path / "b" / "IM0001", X[0], **inverted)
    assert np.array_equal(read(tmp_path / "b").images[0], 4095 - X[0])
    dicom(tmp_path / "c" / "1.dicom", X[0].astype(np.int16) - 2000)
    assert np.array_equal(read(tmp_path / "c").images[0], X[0].astype(np.int32) - 2000)


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_dicom_without_an_extension_in_an_archive(kind, tmp_path):
    for i, image in enumerate(X):
        dicom(tmp_path / f"study/ST1/IM{i:05}", image)
    (tmp_path / "study/DICOMDIR.txt").write_text("no image")
    (tmp_path / "study/README").write_text("neither")
    form = {"zip": "zip", "tar.gz": "gztar"}[kind]
    path = Path(shutil.make_archive(str(tmp_path / "study"), form, tmp_path / "study"))
    pool = read(path)
    assert sorted(map(bytes, pool.images)) == sorted(map(bytes, X))
    assert "files that are not images, ignored: 2" in pool.notes


@pytest.mark.parametrize("shared", [False, True])
def test_frames_of_one_file_have_the_values_of_their_own_unit(tmp_path, shared):
    pydicom = pytest.importorskip("pydicom")

    def group(slope: int) -> Any:
        unit, whole = pydicom.Dataset(), pydicom.Dataset()
        unit.RescaleSlope, unit.RescaleIntercept = slope, -1024
        whole.PixelValueTransformationSequence = [unit]
        return whole

    slopes = [2] * 6 if shared else range(1, 7)
    groups = {"SharedFunctionalGroupsSequence": [group(2)]} if shared else {}
    frames = [pydicom.Dataset() if shared else group(slope) for slope in slopes]
    dicom(tmp_path / "a.dcm", X, NumberOfFrames=6, PerFrameFunctionalGroupsSequence=frames, **groups)
    images = read(tmp_path, frames="all").images
    assert images.dtype == np.float32
    expected = [x * np.float32(slope) - 1024 for x, slope in zip(X, slopes, strict=True)]
    assert np.array_equal(images, expected)


@pytest.mark.parametrize(("frames", "count"), [("first", 1), ("4", 4), ("all", 6)])
@pytest.mark.parametrize("kind", ["dicom", "nii", "nii.gz"])
def test_frames_of_volumes(tmp_path, kind, frames, count):
    if kind == "dicom":
        dicom(tmp_path / "a" / "a.dcm", X, NumberOfFrames=6)
    else:  # upright: x to the right, y to the top
        nifti(tmp_path / "a" / f"a.{kind}", X[:, ::-1].transpose(2, 1, 0))
    pool = read(tmp_path / "a", frames=frames)
    assert np.array_equal(pool.images, X[:count])
    left = f"{6 - count} frames left out of 1 file with more than {count}; data.frames=all reads them"
    assert (left in pool.notes) == (count < 6)
    if frames == "all":
        assert pool.groups is not None and set(pool.groups) == {0}
        only = read(next((tmp_path / "a").iterdir()), frames="all")
        assert np.array_equal(only.images, X)


def test_nifti_has_the_values_of_its_unit(tmp_path):
    volume = X[:, ::-1].transpose(2, 1, 0).astype(np.int16)
    path = nifti(tmp_path / "a.nii.gz", volume, 0.5, -3)
    pool = read(path, frames="all")
    assert pool.images.dtype == np.float32
    assert np.array_equal(pool.images, X * np.float32(0.5) - 3)


def test_slices_are_resized_and_cut(tmp_path):
    path = nifti(tmp_path / "a.nii", np.repeat(np.repeat(X.transpose(2, 1, 0), 2, 0), 2, 1))
    assert read(path, frames="all", patches=8).images.shape == (6 * 3 * 2, 8, 8)
    assert read(path, frames="all", image_size=16).images.shape == (6, 16, 16)


def test_files_that_are_damaged_or_too_large_are_refused(tmp_path):
    path = nifti(tmp_path / "a.nii", X.transpose(2, 1, 0))
    content = path.read_bytes()
    huge = bytearray(content)
    huge[42:48] = np.array([32767, 32767, 32767], "<i2").tobytes()
    far = bytearray(content)
    far[108:112] = np.float32(1e9).tobytes()
    for name, damaged, why in (
        ("huge.nii", bytes(huge), "too large for the memory"),
        ("huge.nii.gz", gzip.compress(bytes(huge)), "too large for the memory"),
        ("far.nii", bytes(far), "no volume"),
        ("short.nii", content[:-40], "truncated"),
        ("pair.nii", content.replace(b"n+1\0", b"ni1\0"), "in another file"),
        ("gzip.nii.gz", gzip.compress(content)[:60], ""),
    ):
        (tmp_path / "one").mkdir(exist_ok=True)
        (tmp_path / "one" / name).write_bytes(damaged)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("cae_cli.system.memory.free", lambda: 2**30)
            said = refused(tmp_path / "one" / name, frames="all").what
        assert why in said and name in said
    whole = dicom(tmp_path / "two" / "a.dcm", X[0]).read_bytes()
    for name, damaged, why in (
        ("deflated.dcm", whole.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99"), "deflated"),
        ("short.dcm", whole[:-40], ""),
        ("none.dcm", whole[:132], ""),
    ):
        (tmp_path / "two" / name).write_bytes(damaged)
        assert why in refused(tmp_path / "two" / name).what


def test_without_the_libraries_the_way_to_them_is_said(tmp_path, monkeypatch):
    (tmp_path / "a.dcm").write_bytes(bytes(128) + b"DICM")
    (tmp_path / "a.nii").write_bytes((348).to_bytes(4, "little") + bytes(344))
    for name, package in (("a.dcm", "pydicom"), ("a.nii", "nibabel")):
        monkeypatch.setitem(sys.modules, package, None)
        error = refused(tmp_path / name)
        assert f"needs {package}, which is not installed" in error.what
        assert error.hint == "pip install 'cae-cli[medical]'"
        assert error.where == name
