import numpy as np
import pytest
from PIL import Image

from cae_cli import experiment
from cae_cli.diagnosis import RULES, diagnose
from cae_cli.errors import UserError
from cae_cli.metrics.filters import structure
from cae_cli.report import figures
from cae_cli.report.figures import FIGURES, RunData, charts, comparison, contact, draw, pictures
from cae_cli.report.figures.tiles import Colours, fitted, grid, mosaic, photo
from cae_cli.runs.folder import Run
from tests.test_diagnosis import CONFIG, healthy

RNG = np.random.default_rng(0)


EVERY = {entry.file.replace("{layer}", "encoder_1") for entry in FIGURES}
UNRECORDED = ("dynamics/", "look_", "initial_kernel/")


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
    run.write_arrays(run.trial_arrays, {"images": seen, "targets": 1 - seen, "unchanged": 0.5 * seen})
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


def names(run, paths):
    return {path.relative_to(run.folder).as_posix() for path in paths}


@pytest.fixture
def rows(monkeypatch):
    """What is handed to the grid of tiles: (rows, names of rows, names of columns, caption)."""
    handed = []

    def record(title, rows, row_names=(), column_names=(), *, caption="", **others):
        handed[:] = rows, list(row_names), list(column_names), caption
        return Image.new("RGB", (1, 1))

    for module in (pictures, comparison, contact):
        monkeypatch.setattr(module, "grid", record)
    return handed


def data_of(run, **others):
    return RunData(run.read_arrays(run.arrays), run.read_metrics(), **others)


def same(tiles, others):
    return len(tiles) == len(others) and all(map(np.array_equal, tiles, others))


@pytest.mark.parametrize(
    ("channels", "side", "examples"),
    [
        *((2, 40, 3), (4, 8, 1), (3, (10, 31), 8), (1, (90, 20), 2)),
        *(pytest.param(*shape, marks=pytest.mark.soak) for shape in ((1, 12, 8), (3, 9, 8))),
    ],
)
def test_every_figure_is_drawn_for_any_shape(tmp_path, channels, side, examples):
    run = make_run(tmp_path, channels, side, examples=examples)
    written = draw(run, figures.read(run, frozen=0.3))
    assert names(run, written) == EVERY | {f"{kind}/encoder_2.png" for kind in ("filters", "maps")}
    for path in written:
        with Image.open(path) as picture:
            assert min(picture.size) > 100
            assert np.asarray(picture.convert("L")).std() > 5  # not blank


def test_a_training_that_was_not_recorded_has_no_figures(tmp_path, unsaved):
    run = make_run(tmp_path, filters=(5,))
    without(run, *UNRECORDED)
    run.metrics.shown.unlink()
    for path in run.snapshots().values():
        path.unlink()
    assert EVERY - names(run, draw(run, figures.read(run))) == {
        "training_dynamics.png",
        "curves.png",
        "filters_by_epoch.png",
    }


@pytest.mark.parametrize(
    ("gone", "picture"),
    [
        ("reinitialized/", "filters_vs_init.png"),
        ("dynamics/", "training_dynamics.png"),
        ("mean_mse", "baselines.png"),
        (("shuffled_", "scrambled_", "noisy_"), "perturbation_tests.png"),
    ],
)
def test_a_figure_without_its_arrays_is_left_out(tmp_path, gone, picture, unsaved):
    run = make_run(tmp_path, filters=(5,))
    without(run, *([gone] if isinstance(gone, str) else gone))
    assert EVERY - names(run, draw(run, figures.read(run))) == {picture}


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
def test_a_figure_is_drawn_from_what_is_there(tmp_path, gone, unsaved):
    run = make_run(tmp_path, filters=(5,))
    without(run, gone)
    assert names(run, draw(run, figures.read(run))) == EVERY


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
    } <= names(run, draw(run, figures.read(run)))


def test_a_training_that_ended_in_its_first_epoch_can_be_drawn(tmp_path):
    run = make_run(tmp_path, filters=(5,))
    first = {
        "dynamics/gradients": 0,
        "dynamics/early_updates": 3,
        "dynamics/updates": 1,
        "dynamics/losses": 3,
    }
    rewrite(run, lambda key, values: values[: first.get(key)])
    lines = run.metrics.shown.read_text().splitlines(keepends=True)
    run.metrics.shown.write_text("".join(lines[:2]))
    assert "training_dynamics.png" in names(run, draw(run, figures.read(run)))


def test_of_a_deep_network_of_point_kernels_the_first_layers_are_compared(tmp_path, rows):
    run = make_run(tmp_path, filters=(3, 2, 20, *[4] * 9), kernel=1)
    data = data_of(run)
    pictures.filters_vs_init(data)
    tiles, row_names, _, caption = rows
    assert len(tiles) == len(row_names) == 2 * pictures.MOST_LAYERS
    assert "8 of 12 layers shown" in caption
    assert [len(row) for row in tiles[:6]] == [3, 3, 2, 2, 14, 14]
    chart = charts.dynamics(data)
    figures._save(chart, tmp_path / "picture.png")
    [legend] = chart.legends
    named = [text.get_text() for text in legend.get_texts()]
    assert named[0] == "encoder_1" and named[-2:] == ["encoder_12", "median"] and len(named) == 8


# -- the catalogue -----------------------------------------------------------------------------------


def test_every_figure_has_a_file_a_caption_and_what_it_needs():
    assert len({entry.file for entry in FIGURES}) == len(FIGURES)
    for entry in FIGURES:
        assert entry.file.endswith(".png") and entry.needs
        assert entry.caption[0].isupper() and entry.caption.endswith(".")


def test_every_figure_that_a_rule_names_is_in_the_catalogue():
    assert {rule.picture for rule in RULES} - {None} <= {entry.file for entry in FIGURES}


@pytest.mark.parametrize("name", ["../up", "a/b", "..", "."])
def test_a_layer_whose_name_leads_out_of_the_folder_is_refused(tmp_path, name):
    run = make_run(tmp_path / "run", filters=(5,))
    arrays = run.read_arrays(run.arrays)
    renamed = {key.replace("encoder_1", name): values for key, values in arrays.items()}
    run.write_arrays(run.arrays, renamed)
    before = set(tmp_path.rglob("*"))
    with pytest.raises(UserError):
        draw(run, figures.read(run))
    assert set(tmp_path.rglob("*")) == before


# -- what is drawn where -----------------------------------------------------------------------------


def test_reconstructions_are_inputs_above_outputs_above_differences(tmp_path, rows):
    data = data_of(make_run(tmp_path, channels=3))
    images, outputs = data.arrays["chosen_images"], data.arrays["chosen_outputs"]
    pictures.reconstructions(data)
    tiles, row_names, columns, _ = rows
    assert row_names == ["input", "output", "difference"]
    assert same(tiles[0], list(map(photo, images)))
    assert same(tiles[1], list(map(photo, outputs)))
    difference = (outputs - images).mean(axis=3)
    colours = Colours([difference], signed=True)
    assert same(tiles[2], list(map(colours.tile, difference)))
    decibels = [f"{-10 * np.log10(mse):.1f} dB" for mse in data.arrays["chosen_mse"]]
    kinds = ["best"] * 3 + ["median"] * 3 + ["worst"] * 3
    assert columns == [f"{kind}\n{text}" for kind, text in zip(kinds, decibels, strict=True)]


def test_inputs_that_are_not_the_targets_stand_above_them(tmp_path, rows):
    run = make_run(tmp_path)
    arrays = run.read_arrays(run.arrays)
    given = {f"{of}_inputs": 1 - arrays[f"{of}_images"] for of in ("example", "chosen")}
    run.write_arrays(run.arrays, arrays | given)
    data = data_of(run)
    pictures.reconstructions(data)
    tiles, row_names, _, _ = rows
    assert row_names == ["input", "target", "output", "difference"]
    assert same(tiles[0], list(map(photo, given["chosen_inputs"])))
    assert same(tiles[1], list(map(photo, arrays["chosen_images"])))


def test_perturbation_tests_have_a_named_row_for_each_array(tmp_path, rows):
    run = make_run(tmp_path)
    rng = np.random.default_rng(1)
    of_examples = ("example_outputs", "shuffled_", "scrambled_", "noisy_")
    rewrite(run, lambda k, v: rng.random(v.shape, np.float32) if k.startswith(of_examples) else v)
    data = data_of(run)
    pictures.perturbation_tests(data)
    expected = [
        ("input", "example_images"),
        ("output", "example_outputs"),
        ("output with the next\nimage's latent code", "shuffled_outputs"),
        ("scrambled input", "scrambled_images"),
        ("output", "scrambled_outputs"),
        ("noisy input", "noisy_images"),
        ("output", "noisy_outputs"),
    ]
    tiles, row_names, _, _ = rows
    assert row_names == [name for name, _ in expected]
    for row, (_, key) in zip(tiles, expected, strict=True):
        assert same(row, list(map(photo, data.arrays[key]))), key


def test_trained_filters_stand_above_those_of_the_initializer(tmp_path, rows):
    data = data_of(make_run(tmp_path, channels=3, filters=(5, 4)))
    pictures.filters_vs_init(data)
    tiles, row_names, _, _ = rows
    assert [name.splitlines()[0] for name in row_names] == [
        *("encoder_1 trained", "encoder_1 initializer"),
        *("encoder_2 trained", "encoder_2 initializer"),
    ]
    square = np.zeros((64, 64), np.float32)
    for layer, (trained, initial) in (("encoder_1", tiles[:2]), ("encoder_2", tiles[2:])):
        kernel, drawn = data.arrays[f"kernel/{layer}"], data.arrays[f"reinitialized/{layer}"]
        order = sorted(range(kernel.shape[3]), key=lambda f: -data.arrays[f"map_std/{layer}"][f])

        def strongest(kernel, f):
            return max((kernel[:, :, i, f] for i in range(kernel.shape[2])), key=np.linalg.norm)

        slices = [
            [strongest(kernel, f) for f in order],
            [strongest(drawn, f) for f in range(len(order))],
        ]
        colours = Colours([value for row in slices for value in row], signed=True)
        assert same(trained, [fitted(value, colours, square) for value in slices[0]])
        assert same(initial, [fitted(value, colours, square) for value in slices[1]])


def test_epochs_are_rows_in_order_with_their_own_filters_and_outputs(tmp_path, rows):
    run = make_run(tmp_path, filters=(5,))
    arrays = run.read_arrays(run.arrays)
    rng = np.random.default_rng(2)
    snapshots = {
        epoch: {
            "kernel/encoder_1": rng.normal(size=(3, 3, 1, 5)).astype(np.float32),
            "outputs": rng.random(arrays["example_images"].shape, np.float32),
        }
        for epoch in (10, 0, 2)
    }
    pictures.filters_by_epoch(RunData(arrays, snapshots=snapshots))
    tiles, row_names, _, _ = rows
    assert row_names == ["untrained", "epoch 2", "epoch 10"]
    images = list(map(photo, arrays["example_images"]))
    order = sorted(range(5), key=lambda f: -arrays["map_std/encoder_1"][f])
    kernels = {epoch: own["kernel/encoder_1"][:, :, 0] for epoch, own in snapshots.items()}
    colours = Colours(list(kernels.values()))
    for row, epoch in zip(tiles, (0, 2, 10), strict=False):
        assert same(row[:5], [fitted(kernels[epoch][:, :, f], colours, images[0]) for f in order])
        assert row[5] is None and same(row[6:], list(map(photo, snapshots[epoch]["outputs"])))
    assert tiles[3][:6] == [None] * 6 and same(tiles[3][6:], images)


@pytest.mark.parametrize(("layer", "inputs"), [("encoder_1", 1), ("encoder_2", 5)])
def test_filters_and_maps_are_shown_most_used_first(tmp_path, rows, layer, inputs):
    data = data_of(make_run(tmp_path, filters=(5, 40)))
    kernel, spread = data.arrays[f"kernel/{layer}"], data.arrays[f"map_std/{layer}"]
    order = sorted(range(len(spread)), key=lambda f: -spread[f])
    pictures.filters(data, layer)
    tiles, row_names, _, caption = rows
    colours = Colours([kernel])
    if inputs == 1:
        assert same(tiles[0], [colours.tile(kernel[:, :, 0, f]) for f in order])
        assert row_names == ["filters " + " ".join(map(str, order))]
    else:
        assert row_names == [f"filter {f}" for f in order[:32]] and "32 of 40 filters" in caption
        for row, f in zip(tiles, order, strict=False):
            assert same(row, [colours.tile(kernel[:, :, i, f]) for i in range(inputs)])
    pictures.maps(data, layer)
    tiles, _, columns, _ = rows
    assert columns == ["input", *(f"filter {f}" for f in order[:12])]
    maps = data.arrays[f"map/{layer}"]
    colours = Colours([maps[:6]])
    for row, image, own in zip(tiles, data.arrays["example_images"], maps, strict=False):
        assert same(row[:1], [photo(image)])
        assert same(row[1:], [colours.tile(own[:, :, f], row[0].shape[1]) for f in order[:12]])


def test_compared_runs_have_a_row_each_below_the_images(tmp_path, rows):
    images, *outputs = RNG.random((3, 5, 9, 9, 1), np.float32)
    comparison.picture(
        tmp_path / "x.png", images, dict(zip("ab", outputs, strict=True)), {"b": "loss=mae"}
    )
    tiles, row_names, _, _ = rows
    assert row_names == ["input", "a", "b\nloss=mae"]
    for row, part in zip(tiles, (images, *outputs), strict=True):
        assert same(row, list(map(photo, part)))


@pytest.mark.parametrize(
    ("options", "expected"),
    [({}, 0.4), ({"threshold": 0.6}, 0.6), ({"threshold": None}, 0.4), ({"enabled": False}, None)],
)
def test_the_threshold_drawn_is_that_of_the_run(tmp_path, monkeypatch, options, expected):
    run = make_run(tmp_path, filters=(5,))
    verdict = diagnose(healthy(), {**CONFIG, "rules": {"CAE401": options}})
    outcome = experiment.Outcome(tmp_path, healthy(), verdict, "test", [], failed=False)
    drawn = {}
    monkeypatch.setattr(experiment, "diagnose", lambda *_: outcome)
    monkeypatch.setattr(figures, "write", lambda figure, path: drawn.update({path.name: figure}))
    monkeypatch.setattr(experiment.page, "write", lambda *_: None)
    experiment.report(run, silent=True)
    [axes] = [a for a in drawn["training_dynamics.png"].axes if "inactive" in a.get_title()]
    lines = [line.get_ydata()[0] for line in axes.lines if line.get_linestyle() == "--"]
    assert lines == ([] if expected is None else [expected])
    healthy_range = "" if expected is None else f"< {expected:.0%}"
    assert healthy_range in run.summary_text.shown.read_text()


def test_bars_are_the_explained_variance_of_each_model(tmp_path):
    data = data_of(make_run(tmp_path), frozen=0.3)
    chart = charts.baselines(data)
    [axes] = chart.axes
    bars = {
        label.get_text(): bar.get_width()
        for label, bar in zip(axes.get_yticklabels(), axes.patches, strict=True)
    }

    def explained(key):
        mse, mean = data.arrays[key], data.arrays["mean_mse"]
        return 1 - sum(map(float, mse)) / sum(map(float, mean[: len(mse)]))

    expected = {
        "this network": explained("mse"),
        "mean training image": 0.0,
        "linear decoder": explained("perturbation/linear_mse"),
        "principal components": explained("perturbation/projection_mse"),
        "frozen random": 0.3,
        "flat image": explained("perturbation/grey_mse"),
    }
    for name, value in expected.items():
        [found] = [width for label, width in bars.items() if name in label]
        assert found == pytest.approx(value, abs=1e-5), name
    assert list(bars.values()) == sorted(bars.values())


def test_lines_are_the_columns_of_the_metrics_and_the_recorded_arrays(tmp_path):
    run = make_run(tmp_path)
    rewrite(run, lambda k, v: np.ones_like(v) if k.startswith("look_") else v)
    inactive = np.ones((3, 5), np.float32)
    inactive[1, :2] = 0  # two of five maps
    rewrite(run, lambda k, v: inactive if k == "look_std/encoder_1" else v)
    data = data_of(run)
    loss, psnr, ssim = charts.curves(data).axes
    lines = {line.get_label(): line.get_ydata() for line in loss.lines}
    for label, column in (("training", "train/data_loss"), ("validation", "val/loss")):
        np.testing.assert_array_equal(lines[label], data.epochs[column])
    np.testing.assert_array_equal(psnr.lines[0].get_ydata(), data.epochs["val/psnr"])
    np.testing.assert_array_equal(ssim.lines[0].get_ydata(), data.epochs["val/ssim"])
    panels = {a.get_title().splitlines()[0]: a for a in charts.dynamics(data).axes if a.get_title()}
    gradients = [line.get_ydata() for line in panels["gradient norm of each kernel"].lines]
    np.testing.assert_array_equal(gradients, data.arrays["dynamics/gradients"].T)
    shares = [line.get_ydata() for line in panels["share of inactive maps in each layer"].lines[:2]]
    assert [list(own) for own in shares] == [[0, 0.4, 0], [0, 0, 0]]
    updates = panels["update ratio of each kernel"].lines
    early = data.arrays["dynamics/early_updates"]
    for k in range(2):
        np.testing.assert_allclose(updates[k].get_ydata()[: len(early)], early[:, k])
    np.testing.assert_allclose(updates[2].get_ydata()[: len(early)], np.median(early, axis=1))


# -- files and tiles ---------------------------------------------------------------------------------


def test_equal_runs_give_equal_files(tmp_path):
    run = make_run(tmp_path, filters=(5,))
    first = {path: path.read_bytes() for path in draw(run, figures.read(run))}
    assert all(path.read_bytes() == first[path] for path in draw(run, figures.read(run)))


def test_a_network_of_zeros_can_be_drawn(tmp_path):
    run = make_run(tmp_path)
    rewrite(run, lambda key, values: values if key == "dynamics/kernels" else np.zeros_like(values))
    assert EVERY - names(run, draw(run, figures.read(run))) == {
        "baselines.png"
    }  # images that do not vary have nothing to explain


def test_a_mosaic_has_its_tiles_in_their_places():
    a, b = np.zeros((2, 3, 3)), np.full((2, 3, 3), 0.2)
    canvas = mosaic([[a, b], [None, b]], gap=1)
    assert canvas.shape == (5, 7, 3) and canvas.dtype == np.uint8
    assert canvas[0, 0].tolist() == [0, 0, 0]
    assert canvas[0, 4].tolist() == canvas[3, 4].tolist() == [51, 51, 51]
    assert (canvas[2] == 255).all() and (canvas[:, 3] == 255).all() and (canvas[3, 0] == 255).all()


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
