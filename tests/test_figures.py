import numpy as np
import pytest
from PIL import Image

from cae_cli.metrics.filters import structure
from cae_cli.report import figures
from cae_cli.report.figures import charts, draw, mosaic, pictures
from cae_cli.report.figures.tiles import Colours, grid
from cae_cli.runs.folder import Run

RNG = np.random.default_rng(0)


EVERY = {
    *(
        "reconstructions.png",
        "perturbation_tests.png",
        "filters_vs_init.png",
        "baselines.png",
        "training_dynamics.png",
        "curves.png",
    ),
    *("filters_by_epoch.png", "encoder_1.png"),  # of the filters and of the maps
}
UNWATCHED = ("dynamics/", "look_", "initial_kernel/")


def make_run(folder, channels=1, side=12, filters=(5, 40), examples=8, kernel=3):
    """A folder with the files of a run, made of random numbers; ``side`` may be (h, w)."""
    run = Run(folder)
    h, w = side if isinstance(side, tuple) else (side, side)
    images = RNG.random((9, h, w, channels), dtype=np.float32)
    seen = images[:examples]
    errors = {
        name: np.linspace(0.001, most, count, dtype=np.float32)
        for name, most, count in [
            ("mse", 0.1, 20),
            ("mean_mse", 0.2, 20),
            ("black_mse", 0.9, 20),
            ("train_mse", 0.08, 30),
            ("train_mean_mse", 0.2, 30),
            ("perturbation/grey_mse", 0.15, 12),
            ("perturbation/linear_mse", 0.11, 12),
            ("perturbation/projection_mse", 0.05, 12),
        ]
    }
    arrays = {
        **errors,
        "example_images": seen,
        "example_outputs": seen,
        "shuffled_outputs": np.roll(seen, 1, axis=0),
        "scrambled_images": seen[:, ::-1],
        "scrambled_outputs": 0.5 * seen,
        "noisy_images": 1 - seen,
        "noisy_outputs": seen,
        "chosen_images": images,
        "chosen_outputs": np.clip(images + 0.1, 0, 1),
        "chosen_mse": np.linspace(0.001, 0.1, 9, dtype=np.float32),
        "dynamics/kernels": np.array([f"encoder_{n}/kernel" for n, _ in enumerate(filters, start=1)]),
        "dynamics/early_updates": RNG.normal(-2, 0.1, (8, len(filters))).astype(np.float32),
        "dynamics/updates": RNG.normal(-2.5, 0.1, (2, len(filters))).astype(np.float32),
        "dynamics/gradients": RNG.random((2, len(filters)), dtype=np.float32),
        "dynamics/losses": np.linspace(1, 0.01, 200, dtype=np.float32),
        "dynamics/look_steps": np.array([0, 32, 200]),
    }
    inputs = channels
    for number, count in enumerate(filters, start=1):
        name = f"encoder_{number}"
        draws = RNG.normal(size=(20, kernel, kernel, inputs, count)).astype(np.float32)
        arrays[f"kernel/{name}"], arrays[f"reinitialized/{name}"] = draws[:2]
        arrays[f"initial_kernel/{name}"] = draws[2]
        arrays[f"null/{name}"] = np.array([structure(d) for d in draws[1:]], np.float32)
        arrays[f"map/{name}"] = RNG.normal(size=(examples, h, w, count)).astype(np.float32)
        arrays[f"map_std/{name}"] = RNG.random(count, dtype=np.float32)
        arrays[f"look_std/{name}"] = RNG.random((3, count), dtype=np.float32)
        arrays[f"look_image_std/{name}"] = RNG.random((3, count), dtype=np.float32)
        inputs = count
    run.write_arrays(run.arrays, arrays)
    for epoch in (0, 1):
        kernels = {k: v for k, v in arrays.items() if k.startswith("kernel/")}
        run.write_arrays(run.snapshot(epoch), {**kernels, "outputs": seen})
    run.write_metrics(
        [
            {
                "epoch": epoch,
                "step": 100 * epoch,
                "train/data_loss": float("nan") if epoch == 0 else 1 / epoch,
                "train/penalty": 0.1 if epoch else float("nan"),
                "val/loss": 1 / (epoch + 1),
                "val/psnr": 10.0 + epoch,
                "val/ssim": 0.3,
            }
            for epoch in range(3)
        ]
    )
    return run


def rewrite(run, change):
    """Arrays of a run, changed by a function of name and array; None takes one away."""
    changed = {k: change(k, v) for k, v in run.read_arrays(run.arrays).items()}
    run.write_arrays(run.arrays, {k: v for k, v in changed.items() if v is not None})


def without(run, *prefixes):
    rewrite(run, lambda key, values: None if key.startswith(prefixes) else values)


@pytest.fixture
def unsaved(monkeypatch):
    """Figures are made but not rendered, which takes most of the time."""
    monkeypatch.setattr(figures, "_save", lambda figure, path: path.write_bytes(b""))


def names(paths):
    return {path.name for path in paths}


@pytest.mark.parametrize(
    ("channels", "side", "examples"),
    [(1, 12, 8), (3, 9, 8), (2, 40, 3), (4, 8, 1), (3, (10, 31), 8), (1, (90, 20), 2)],
)
def test_every_picture_is_drawn_for_any_shape(tmp_path, channels, side, examples):
    run = make_run(tmp_path, channels, side, examples=examples)
    written = draw(run, frozen=0.3)
    expected = [run.filters("encoder_1"), run.maps("encoder_1"), run.filters("encoder_2")]
    expected += [run.maps("encoder_2"), run.reconstructions, run.curves, run.filters_by_epoch]
    expected += [run.baselines, run.dynamics, run.perturbation_tests, run.filters_vs_init]
    assert sorted(written) == sorted(expected)
    for path in written:
        with Image.open(path) as picture:
            assert min(picture.size) > 100
            assert np.asarray(picture.convert("L")).std() > 5  # not inactive


def test_a_network_nobody_watched_has_no_pictures_of_its_training(tmp_path, unsaved):
    run = make_run(tmp_path, filters=(5,))
    without(run, *UNWATCHED)
    run.metrics.unlink()
    for path in run.snapshots().values():
        path.unlink()
    assert EVERY - names(draw(run)) == {"training_dynamics.png", "curves.png", "filters_by_epoch.png"}


@pytest.mark.parametrize(
    ("gone", "picture"),
    [
        ("reinitialized/", "filters_vs_init.png"),
        ("dynamics/", "training_dynamics.png"),
        ("mean_mse", "baselines.png"),
        (("shuffled_", "scrambled_", "noisy_"), "perturbation_tests.png"),
    ],
)
def test_a_picture_without_its_arrays_is_left_out(tmp_path, gone, picture, unsaved):
    run = make_run(tmp_path, filters=(5,))
    without(run, *([gone] if isinstance(gone, str) else gone))
    assert EVERY - names(draw(run)) == {picture}


@pytest.mark.parametrize(
    "gone",
    [
        "null/",
        "perturbation/",
        "train_",
        "noisy_",
        "look_",
        "dynamics/gradients",
        "dynamics/losses",
        "dynamics/up",
    ],
)
def test_a_picture_is_drawn_from_what_is_there(tmp_path, gone, unsaved):
    run = make_run(tmp_path, filters=(5,))
    without(run, gone)
    assert names(draw(run)) == EVERY


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_network_that_diverged_can_be_drawn(tmp_path, value):
    run = make_run(tmp_path, channels=3, filters=(5,))

    def broken(key, values):
        kept = (
            "images",
            "steps",
            "kernels",
            "mean_mse",
            "black_mse",
            "grey_mse",
            "re-initialised filter",
            "initial",
        )
        if any(word in key for word in kept):
            return values
        values = values.copy()
        values.reshape(-1)[::2] = value
        values.reshape(-1)[1::7] = -value
        return values

    rewrite(run, broken)
    for path in run.snapshots().values():
        run.write_arrays(path, {k: broken(k, v) for k, v in run.read_arrays(path).items()})
    assert {
        "baselines.png",
        "training_dynamics.png",
        "perturbation_tests.png",
        "filters_vs_init.png",
    } <= names(draw(run))


def test_a_training_that_ended_in_its_first_epoch_can_be_drawn(tmp_path):
    run = make_run(tmp_path, filters=(5,))
    first = {
        "dynamics/gradients": 0,
        "dynamics/early_updates": 3,
        "dynamics/updates": 1,
        "dynamics/losses": 3,
    }
    rewrite(run, lambda key, values: values[: first.get(key)])
    lines = run.metrics.read_text().splitlines(keepends=True)
    run.metrics.write_text("".join(lines[:2]))
    assert run.dynamics in draw(run)


def test_a_deep_network_of_point_kernels_can_be_drawn(tmp_path):
    run = make_run(tmp_path, filters=(3, 2, 20, *[4] * 9), kernel=1)
    arrays = run.read_arrays(run.arrays)
    for figure in (pictures.filters_vs_init(arrays), charts.dynamics(arrays, run.read_metrics())):
        figures._save(figure, tmp_path / "picture.png")


def test_equal_runs_give_equal_pictures(tmp_path):
    run = make_run(tmp_path, filters=(5,))
    first = {path: path.read_bytes() for path in draw(run)}
    assert all(path.read_bytes() == first[path] for path in draw(run))


def test_a_network_of_zeros_can_be_drawn(tmp_path):
    run = make_run(tmp_path)
    rewrite(run, lambda key, values: values if key == "dynamics/kernels" else np.zeros_like(values))
    assert run.baselines not in draw(run)  # images that do not vary have nothing to explain


def test_a_mosaic_has_its_tiles_in_their_places():
    a, b = np.ones((2, 3, 3)), np.full((2, 3, 3), 0.5)
    canvas = mosaic([[a, b], [None, b]], gap=1)
    assert canvas.shape == (5, 7, 4)
    assert canvas[0, 0].tolist() == [1, 1, 1, 1]
    assert canvas[0, 4].tolist() == canvas[3, 4].tolist() == [0.5, 0.5, 0.5, 1]
    assert not canvas[2].any() and not canvas[:, 3].any() and not canvas[3, 0].any()


def test_a_grid_has_its_tiles_names_and_scale_in_their_places():
    red, blue = np.float32([1, 0, 0]), np.float32([0, 0, 1])
    tiles = [[np.tile(red, (64, 64, 1)), None], [None, np.tile(blue, (64, 64, 1))]]
    plain = np.asarray(grid("two tiles", tiles)).astype(int)
    named = np.asarray(
        grid(
            "two tiles",
            tiles,
            ["a row of a long name", "b"],
            ["left\nmost", "right"],
            caption="many words below " * 9,
            scale=(Colours([np.float32([[-1, 2]])]), "weight"),
            groups=[1, 1],
        )
    ).astype(int)
    for pixels in (plain, named):
        places = {}
        for name, colour in (("red", red), ("blue", blue)):
            rows, columns = np.nonzero((pixels == np.int64(255 * colour)).all(axis=2))
            assert 80 <= np.ptp(rows) <= 100 and 80 <= np.ptp(columns) <= 100
            places[name] = rows.mean(), columns.mean()
        assert places["blue"][0] - places["red"][0] == pytest.approx(99, abs=2)  # .9 inches
        assert places["blue"][1] - places["red"][1] == pytest.approx(99, abs=2)
        assert (pixels[:, :4] == 255).all() and (pixels[:, -4:] == 255).all()  # nothing is cut off
    assert named.shape[0] > plain.shape[0] + 40  # column names and two lines of a caption
    scale = named[:, np.nonzero((named == [0, 0, 255]).all(axis=2))[1].max() + 4 :]
    assert (scale[..., 0] > scale[..., 2] + 50).any()  # red above
    assert (scale[..., 2] > scale[..., 0] + 50).any()  # blue below
