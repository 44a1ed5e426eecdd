"""Arrays of other programs and in other orders: read, or refused with the option that reads them."""

import gzip
import io
import pickle
import tarfile

import h5py
import numpy as np
import pytest
from scipy.io import savemat

from cae_cli.data import load
from cae_cli.errors import UserError
from tests.test_data import configured
from tests.test_data_sources import colour, grey, refused

X = np.stack([colour(8, 10, seed=i) for i in range(12)])  # (12, 8, 10, 3)
Y = np.arange(12)


def read(source, path, **changes):
    return configured(source, path=str(path), **changes).read()


@pytest.mark.parametrize(("axes", "array"), [
    ("nhwc", X), ("nchw", X.transpose(0, 3, 1, 2)), ("hwcn", X.transpose(1, 2, 3, 0)),
    ("ncwh", X.transpose(0, 3, 2, 1)), ("nhwc", X[..., 0]), ("nchw", X[..., 0]),
    ("hwcn", X[..., 0].transpose(1, 2, 0)), ("ncwh", X[..., 0].transpose(0, 2, 1)),
])  # fmt: skip
def test_axes_in_every_order(axes, array, tmp_path):
    np.save(tmp_path / "a.npy", array)
    expected = X if array.ndim == 4 else X[..., 0]
    assert np.array_equal(read("npy", tmp_path / "a.npy", axes=axes).images, expected)


@pytest.mark.parametrize(("array", "hint", "options"), [
    (X.transpose(0, 3, 1, 2), "data.axes=nchw", {"axes": "nchw"}),
    (X.transpose(1, 2, 3, 0), "data.axes=hwcn", {"axes": "hwcn"}),
    (X[:, :8, :8, 0].reshape(12, 64), "data.shape=[8,8]", {"shape": [8, 8]}),
    (X[:, :8, :8].reshape(12, 192), "data.shape=[8,8,3]", {"shape": [8, 8, 3]}),
    (np.repeat(X, 2, axis=3), "data.bands=[0,1,2]", {"bands": [0, 2, 4]}),
])  # fmt: skip
def test_arrays_in_another_order_are_refused_with_the_option_that_reads_them(
    array, hint, options, tmp_path
):
    np.save(tmp_path / "a.npy", array)
    assert hint in refused("npy", path=str(tmp_path / "a.npy")).hint
    images = load(configured("npy", path=str(tmp_path / "a.npy"), **options))
    side = 8 if "shape" in options else 10
    assert images.shape == (8, side, (len(options.get("shape", [8, 10, 3])) == 3 and 3) or 1)
    all_images = np.concatenate([images.train, images.validation])
    wanted = X[:, :, :side, : images.shape[2]]
    assert sorted(x.tobytes() for x in all_images) == sorted(x.tobytes() for x in wanted)


def test_rows_of_colours_stored_one_after_the_other(tmp_path):
    np.save(tmp_path / "a.npy", X.transpose(0, 3, 1, 2).reshape(12, -1))
    pool = read("npy", tmp_path / "a.npy", shape=[3, 8, 10], axes="nchw")
    assert np.array_equal(pool.images, X)


def test_options_that_do_not_fit_are_explained(tmp_path):
    np.save(tmp_path / "a.npy", X)
    path = str(tmp_path / "a.npy")
    assert "data.shape has 64 values" in refused("npy", path=path, shape=[8, 8]).what
    assert "data.bands must be less than 3" in refused("npy", path=path, bands=[0, 3]).what


def test_a_single_image_in_colour_is_no_stack_of_lines(tmp_path):
    np.save(tmp_path / "a.npy", colour(40, 60))
    error = refused("npy", path=str(tmp_path / "a.npy"))
    assert "a single image in colour" in error.what
    assert "data=image_folder data.patches=28" in error.hint


@pytest.fixture(params=["npz", "hdf5", "mat"])
def written(request, tmp_path):
    """Writes arrays into a file of a source, and gives the source and the file."""

    def write(**arrays):
        path = tmp_path / f"a.{request.param}"
        if request.param == "npz":
            np.savez(path, **arrays)
            path = path if path.exists() else path.with_suffix(".npz")
        elif request.param == "mat":
            savemat(path, arrays, do_compression=True)
        else:
            with h5py.File(path, "w") as file:
                for name, array in arrays.items():
                    file.create_dataset(name, data=array, compression="gzip")
        return request.param, path

    return write


def test_the_only_array_of_images_needs_no_key(written):
    source, path = written(faces=X, ages=Y)
    pool = read(source, path)
    assert np.array_equal(pool.images, X)
    assert pool.notes == ("images are the array faces",)


def test_one_of_several_arrays_is_chosen_by_key(written):
    source, path = written(low=X[:4], high=X[4:])
    error = refused(source, path=str(path))
    assert "no array x_train" in error.what
    assert error.hint in ("use data.key=low", "use data.key=high")
    assert np.array_equal(read(source, path, key="high").images, X[4:])
    error = refused(source, path=str(path), key="hihg")
    assert "low (4, 8, 10, 3)" in error.what
    assert error.hint == "use data.key=high"


def test_both_parts_and_labels_have_the_names_of_keras(written):
    source, path = written(x_train=X[:8], y_train=Y[:8, None], x_test=X[8:], y_test=Y[8:, None])
    pool = read(source, path)
    assert np.array_equal(pool.images, X[:8])
    assert np.array_equal(pool.test_images, X[8:])
    assert (pool.labels.tolist(), pool.test_labels.tolist()) == ([*range(8)], [*range(8, 12)])


def test_an_hdf5_file_leads_to_no_other_file(tmp_path):
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["x"] = X
    (tmp_path / "raw").write_bytes(X.tobytes())
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["linked"] = h5py.ExternalLink("secret.h5", "x")
        file.create_dataset("stored", X.shape, "u1", external=[(str(tmp_path / "raw"), 0, X.nbytes)])
        layout = h5py.VirtualLayout(X.shape, "u1")
        layout[:] = h5py.VirtualSource(str(tmp_path / "secret.h5"), "x", X.shape)
        file.create_virtual_dataset("virtual", layout)
    for key in ("linked", "stored", "virtual", None):
        assert "no arrays" in refused("hdf5", path=str(tmp_path / "a.h5"), key=key).what
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["group/inside"] = X
    assert np.array_equal(read("hdf5", tmp_path / "a.h5").images, X)


def test_data_sets_larger_than_memory_are_refused_before_they_are_read(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", (10**7, 1000, 1000), "f8", chunks=(1, 1000, 1000))
    assert "x would need 80 TB of memory" in refused("hdf5", path=str(tmp_path / "a.h5")).what


def idx(array, kind=8, dtype=">u1"):
    head = bytes((0, 0, kind, array.ndim)) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return head + array.astype(dtype).tobytes()


@pytest.mark.parametrize("packed", [True, False])
def test_the_four_files_of_mnist_are_read_together(packed, tmp_path):
    files = {
        "train-images-idx3-ubyte": X[:8, ..., 0], "train-labels-idx1-ubyte": Y[:8],
        "t10k-images-idx3-ubyte": X[8:, ..., 0], "t10k-labels-idx1-ubyte": Y[8:],
    }  # fmt: skip
    for name, array in files.items():
        content = gzip.compress(idx(array)) if packed else idx(array)
        (tmp_path / (name + ".gz" * packed)).write_bytes(content)
    pool = read("idx", tmp_path / ("train-images-idx3-ubyte" + ".gz" * packed))
    assert np.array_equal(pool.images, X[:8, ..., 0])
    assert np.array_equal(pool.test_images, X[8:, ..., 0])
    assert (pool.labels.tolist(), pool.test_labels.tolist()) == ([*range(8)], [*range(8, 12)])


def test_idx_files_of_other_numbers_alone_and_cut(tmp_path):
    values = np.arange(2 * 3 * 4).reshape(2, 3, 4) / 8
    (tmp_path / "a").write_bytes(idx(values, 13, ">f4"))
    assert np.array_equal(read("idx", tmp_path / "a").images, values)
    for content, said in (
        (idx(values)[:-3], "should have 24 bytes, and has 21"),
        (gzip.compress(idx(values))[:-12], "damaged or incomplete"),
        (b"\0\0\x08\x03" + b"\xff" * 12, "of memory"),
    ):
        (tmp_path / "b").write_bytes(content)
        assert said in str(refused("idx", path=str(tmp_path / "b")))


class AsPython2:
    """A pickle as Python 2 and NumPy 1 wrote those of CIFAR: all text is bytes."""

    def __new__(cls, data, **rest):
        def text(value):
            return b"U" + bytes((len(value),)) + value

        def number(value):
            return b"J" + int(value).to_bytes(4, "little")

        body = data.tobytes()
        array = (
            b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00t" + text(b"b") + b"tR"
            b"(K\x01(" + number(data.shape[0]) + number(data.shape[1]) + b"t"
            b"cnumpy\ndtype\n(" + text(b"u1") + b"K\x00K\x01tR(K\x03" + text(b"|") + b"NNN"
            b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
            b"\x89T" + len(body).to_bytes(4, "little") + body + b"tb"
        )
        labels = b"](" + b"".join(map(number, rest["labels"])) + b"e"
        return b"\x80\x02}(" + text(b"data") + array + text(b"labels") + labels + b"u."


SMALL = np.random.default_rng(0).integers(0, 256, (12, 3072), dtype=np.uint8)
AS_IMAGES = SMALL.reshape(12, 3, 32, 32).transpose(0, 2, 3, 1)


@pytest.mark.parametrize("form", ["folder", "tar.gz"])
def test_cifar_in_its_own_files(form, tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name, rows in (
        ("data_batch_1", slice(4)),
        ("data_batch_2", slice(4, 8)),
        ("test_batch", slice(8, 12)),
    ):
        (folder / name).write_bytes(AsPython2(SMALL[rows], labels=Y[rows]))
    (folder / "readme.html").write_text("words")
    path = folder
    if form == "tar.gz":
        path = tmp_path / "cifar-10-python.tar.gz"
        with tarfile.open(path, "w:gz") as archive:
            archive.add(folder, folder.name)
    pool = read("cifar", path)
    assert np.array_equal(pool.images, AS_IMAGES[:8])
    assert np.array_equal(pool.test_images, AS_IMAGES[8:])
    assert (pool.labels.tolist(), pool.test_labels.tolist()) == ([*range(8)], [*range(8, 12)])


@pytest.mark.parametrize("protocol", [2, 4])
def test_cifar_100_written_by_python_3(protocol, tmp_path):
    content = {b"data": SMALL, b"fine_labels": Y.tolist(), b"coarse_labels": [0] * 12}
    (tmp_path / "train").write_bytes(pickle.dumps(content, protocol))
    pool = read("cifar", tmp_path / "train")
    assert np.array_equal(pool.images, AS_IMAGES)
    assert (pool.labels.tolist(), pool.test_images) == ([*range(12)], None)


class Canary:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return io.open, (str(self.path), "w")


def test_a_batch_of_cifar_runs_no_code(tmp_path):
    for content in ({b"data": Canary(tmp_path / "canary")}, {b"data": np.array([None])}):
        (tmp_path / "train").write_bytes(pickle.dumps(content, 2))
        with pytest.raises(UserError) as error:
            read("cifar", tmp_path / "train")
        assert error.value.hint
    assert not (tmp_path / "canary").exists()


def test_a_folder_without_batches_says_which_are_meant(tmp_path):
    assert "data_batch_1 to data_batch_5" in refused("cifar", path=str(tmp_path)).hint


def test_a_file_of_another_kind_names_the_source_that_reads_it(tmp_path):
    (tmp_path / "x").write_bytes(idx(X[..., 0]))
    with h5py.File(tmp_path / "h", "w") as file:
        file["x"] = X
    savemat(tmp_path / "m.mat", {"x": X})
    np.save(tmp_path / "n.npy", X)
    np.savez(tmp_path / "z.npz", x=X)
    kinds = {"x": "idx", "h": "hdf5", "m.mat": "mat", "n.npy": "npy", "z.npz": "npz"}
    for name, kind in kinds.items():
        for source in set(kinds.values()) - {kind}:
            error = refused(source, path=str(tmp_path / name))
            assert error.hint == f"use data={kind} data.path={tmp_path / name}"


@pytest.mark.parametrize("source", ["npz", "npy", "hdf5", "mat", "idx"])
def test_a_pointer_of_git_lfs_is_recognised(source, tmp_path):
    (tmp_path / "a").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    error = refused(source, path=str(tmp_path / "a"))
    assert "Git LFS pointer" in error.what
    assert error.hint == "git lfs pull"


def test_grey_stays_grey(tmp_path):
    np.save(tmp_path / "a.npy", np.stack([grey(seed=i) for i in range(9)]))
    assert read("npy", tmp_path / "a.npy", bands=[0]).images.shape == (9, 12, 12)
    assert read("npy", tmp_path / "a.npy", bands=[0, 0, 0]).images.shape == (9, 12, 12, 3)
