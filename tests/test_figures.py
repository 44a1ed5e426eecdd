import numpy as np
import pytest
from PIL import Image

from cae_cli.report.figures import draw, mosaic
from cae_cli.run import Run

RNG = np.random.default_rng(0)


def make_run(folder, channels=1, side=12, filters=(5, 40)):
    """A folder with the files of a run, made of random numbers."""
    run = Run(folder)
    images = RNG.random((9, side, side, channels), dtype=np.float32)
    arrays = {
        "example_images": images[:8],
        "example_outputs": images[:8],
        "chosen_images": images,
        "chosen_outputs": np.clip(images + 0.1, 0, 1),
        "chosen_mse": np.linspace(0.001, 0.1, 9, dtype=np.float32),
        "mse": np.linspace(0.001, 0.1, 20, dtype=np.float32),
    }
    inputs = channels
    for number, count in enumerate(filters, start=1):
        name = f"encoder_{number}"
        arrays[f"kernel/{name}"] = RNG.normal(size=(3, 3, inputs, count)).astype(np.float32)
        arrays[f"map/{name}"] = RNG.normal(size=(8, side, side, count)).astype(np.float32)
        arrays[f"map_std/{name}"] = RNG.random(count, dtype=np.float32)
        inputs = count
    run.write_arrays(run.arrays, arrays)
    for epoch in (0, 1):
        kernels = {k: v for k, v in arrays.items() if k.startswith("kernel/")}
        run.write_arrays(run.snapshot(epoch), {**kernels, "outputs": images[:8]})
    for epoch in range(3):
        run.append_metrics(
            {
                "epoch": epoch,
                "train/data_loss": float("nan") if epoch == 0 else 1 / epoch,
                "train/penalty": 0.1 if epoch else float("nan"),
                "val/loss": 1 / (epoch + 1),
                "val/psnr": 10.0 + epoch,
                "val/ssim": 0.3,
            }
        )
    return run


@pytest.mark.parametrize(("channels", "side"), [(1, 12), (3, 9), (2, 40), (4, 8)])
def test_every_picture_is_drawn_for_any_shape(tmp_path, channels, side):
    run = make_run(tmp_path, channels, side)
    written = draw(run)
    expected = [run.filters("encoder_1"), run.maps("encoder_1"), run.filters("encoder_2")]
    expected += [run.maps("encoder_2"), run.reconstructions, run.curves, run.formation]
    assert sorted(written) == sorted(expected)
    for path in written:
        with Image.open(path) as picture:
            assert min(picture.size) > 100
            assert np.asarray(picture.convert("L")).std() > 5  # not blank


def test_equal_runs_give_equal_pictures(tmp_path):
    run = make_run(tmp_path)
    first = {path: path.read_bytes() for path in draw(run)}
    assert all(path.read_bytes() == first[path] for path in draw(run))


def test_a_network_of_zeros_can_be_drawn(tmp_path):
    run = make_run(tmp_path)
    arrays = {k: np.zeros_like(v) for k, v in run.read_arrays(run.arrays).items()}
    run.write_arrays(run.arrays, arrays)
    draw(run)


def test_a_mosaic_has_its_tiles_in_their_places():
    a, b = np.ones((2, 3, 3)), np.full((2, 3, 3), 0.5)
    canvas = mosaic([[a, b], [None, b]], gap=1)
    assert canvas.shape == (5, 7, 4)
    assert canvas[0, 0].tolist() == [1, 1, 1, 1]
    assert canvas[0, 4].tolist() == canvas[3, 4].tolist() == [0.5, 0.5, 0.5, 1]
    assert not canvas[2].any() and not canvas[:, 3].any() and not canvas[3, 0].any()
