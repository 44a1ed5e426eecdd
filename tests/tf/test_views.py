"""What filters respond to and what latent channels draw, against networks that were planted."""

import numpy as np
import pytest
from scipy.signal import correlate

from cae_cli.data import Images
from cae_cli.introspection import introspect, views
from cae_cli.introspection.receptive_field import Window
from cae_cli.introspection.views import Network, atoms, grating_images, patches, tuning
from cae_cli.metrics.sample import Sample

RNG = np.random.default_rng(0)


def maps_of(*kernels):
    """The maps of convolutions with zeros around the image, as the only layer "conv", 16 at a time."""

    def maps(images):
        for start in range(0, len(images), 16):
            grey = images[start : start + 16].mean(axis=3)
            out = [[correlate(image, k, mode="same") for k in kernels] for image in grey]
            yield {"conv": np.moveaxis(np.array(out, np.float32), 1, 3)}

    return maps


def network(maps=None, encode=None, decode=None, reach=2, side=32):
    window = Window(-reach, reach, 1, side)
    return Network(maps, encode, decode, {"conv": (window, window)}, Sample(40, 40, 40, 40))


def gabor(angle, period, side=13):
    """A wave below a bell, whose bars have this angle, counterclockwise on a screen."""
    y, x = np.mgrid[:side, :side] - side // 2
    turned = np.deg2rad(angle)
    across = x * np.sin(turned) + y * np.cos(turned)
    wave = np.cos(2 * np.pi * across / period) * np.exp(-(x**2 + y**2) / (2 * (side / 5) ** 2))
    return (wave - wave.mean()).astype(np.float32)


@pytest.mark.parametrize(("angle", "period"), [(0, 4), (45, 6), (90, 4), (165, 6)])
def test_a_planted_gabor_filter_is_found(angle, period):
    shape = (32, 32, 1)
    table = tuning(network(maps_of(gabor(angle, period))), shape, {"conv": np.array([0])})["tuning/conv"]
    found, pixels, selectivity, response = table[0]
    assert min(abs(found - angle), 180 - abs(found - angle)) <= 15
    periods = grating_images(shape)[1]
    assert pixels in sorted(periods, key=lambda p: abs(np.log(p / period)))[:2]
    assert selectivity > 0.5 and response > 0


def test_an_angle_is_that_of_the_bars_on_a_screen():
    """Rising from left to right at 45°, where rows are counted from the top."""
    angles, _, images = grating_images((16, 16, 1))
    per = len(images) // len(angles)
    rising = images[int(np.flatnonzero(angles == 45)[0]) * per, ..., 0]
    assert np.allclose(rising[1:, :-1], rising[:-1, 1:], atol=1e-5)
    flat = images[0, ..., 0]
    assert np.allclose(flat, flat[:, :1], atol=1e-5)  # 0° is horizontal


def test_a_round_filter_prefers_no_angle_and_a_silent_one_has_none():
    y, x = np.mgrid[:9, :9] - 4
    bell = np.exp(-(x**2 + y**2) / 4).astype(np.float32)
    shown = {"conv": np.array([0, 1])}
    table = tuning(network(maps_of(bell, 0 * bell)), (32, 32, 3), shown)["tuning/conv"]
    assert table[0, 2] < 0.1
    assert np.isnan(table[1, :3]).all() and table[1, 3] == 0


def test_a_planted_detector_finds_its_patches():
    """Each patch is another image; the strongest comes first; borders are black."""
    template = RNG.random((5, 5), dtype=np.float32)
    images = (0.1 * RNG.random((40, 32, 32, 1))).astype(np.float32)
    strengths = {3: 1.0, 17: 0.9, 21: 0.8, 39: 0.7}
    places = {3: (10, 12), 17: (0, 0), 21: (31, 20), 39: (15, 31)}
    for index, strength in strengths.items():
        padded = np.pad(images[index, ..., 0], 2)
        row, column = places[index]
        padded[row : row + 5, column : column + 5] = strength * template
        images[index, ..., 0] = padded[2:-2, 2:-2]
    centred = template - template.mean()
    arrays = patches(network(maps_of(centred)), images, {"conv": np.array([0])})
    found = arrays["patch_image/conv"][0].tolist()
    assert set(found[:4]) == set(strengths) and len(set(found)) == 9
    assert arrays["patch_value/conv"][0].tolist() == sorted(arrays["patch_value/conv"][0], reverse=True)
    assert tuple(arrays["field/conv"]) == (5, 5)
    for index, strength in strengths.items():
        patch = arrays["patch/conv"][0, found.index(index), ..., 0] / 255
        row, column = places[index]
        inside = np.zeros((5, 5), bool)
        inside[max(0, 2 - row) : 5 - max(0, row - 29), max(0, 2 - column) : 5 - max(0, column - 29)] = (
            True
        )
        assert np.allclose(patch[inside], (strength * template)[inside], atol=0.01)
        assert not patch[~inside].any()


def test_atoms_of_a_linear_decoder_are_its_columns():
    columns = RNG.normal(size=(6, 8 * 8)).astype(np.float32)
    codes = RNG.normal(size=(50, 6)).astype(np.float32) * [1, 5, 2, 0, 3, 4]
    linear = network(decode=lambda images, c: (c @ columns).reshape(-1, 8, 8, 1))
    found = atoms(linear, np.zeros((1, 8, 8, 1), np.float32), codes.astype(np.float32))
    assert found["atom_channel"].tolist() == [1, 5, 4, 2, 0]  # those that vary most first, dead ones not
    for channel, atom in zip(found["atom_channel"], found["atom"], strict=True):
        expected = 2 * views.REACH * codes[:, channel].std() * columns[channel]
        assert np.allclose(atom.ravel(), expected, atol=1e-3)


def test_an_atom_of_a_code_with_positions_is_drawn_in_the_middle():
    codes = RNG.normal(size=(30, 4, 4, 2)).astype(np.float32)

    def decode(images, c):
        return c[..., :1].repeat(2, axis=1).repeat(2, axis=2)

    found = atoms(network(decode=decode), np.zeros((1, 8, 8, 1), np.float32), codes)
    drawn = dict(zip(found["atom_channel"].tolist(), found["atom"], strict=True))
    assert np.argwhere(drawn[0][..., 0]).tolist() == [[4, 4], [4, 5], [5, 4], [5, 5]]
    assert not drawn[1].any()


def test_codes_on_a_line_are_laid_out_along_it_and_neighbours_are_near():
    at = np.linspace(-1, 1, 20).astype(np.float32)
    images = np.tile(at[:, None, None, None] / 4 + 0.5, (1, 4, 4, 1)).astype(np.float32)

    def encode(batch):
        return batch.reshape(len(batch), -1)

    def decode(_, codes):
        return codes.reshape(-1, 4, 4, 1)

    found = views.latent(network(encode=encode, decode=decode), Images(images, images))
    assert found["code_share"][0] > 0.999
    steps = np.diff(found["code"][:, 0])
    assert (steps > 0).all() or (steps < 0).all()
    assert set(found["neighbour"][3, :2].tolist()) == {2, 4}
    traversal = found["traversal"][0].reshape(views.STEPS, -1)
    assert np.ptp(traversal, axis=1).max() <= 1 and len(set(traversal[:, 0].tolist())) == views.STEPS


@pytest.mark.tf
@pytest.mark.parametrize("strided", [False, True])
def test_a_patch_is_all_that_a_value_sees(strided):
    """Pixels outside of the window change nothing; those at its corners do."""
    import keras
    from keras import layers

    down = {"strides": 2} if strided else {}
    stack = [layers.Conv2D(4, 3, padding="same", name="a", **down)]
    stack += [] if strided else [layers.AveragePooling2D(2)]
    stack += [layers.Conv2D(3, 5, padding="valid", name="b"), layers.UpSampling2D()]
    stack += [layers.Conv2DTranspose(1, 3, padding="same", name="c")]
    stack += [layers.Resizing(28, 28)]
    model = keras.Sequential([keras.Input((28, 28, 1)), *stack])
    autoencoder = introspect(model, latent="b")
    maps = keras.Model(autoencoder.model.input, autoencoder.maps)
    image = RNG.random((1, 28, 28, 1)).astype(np.float32)
    before = {k: np.asarray(v) for k, v in maps(image).items()}
    for name, window in autoencoder.windows().items():
        if name not in "ab" or window is None:
            continue
        row = before[name].shape[1] // 2
        changed = np.repeat(image, 28 * 28, axis=0)
        changed[np.arange(28 * 28), np.repeat(range(28), 28), np.tile(range(28), 28), 0] += 1
        after = np.asarray(maps(changed)[name])[:, row, row]
        here = np.asarray(maps(np.repeat(image, 28 * 28, axis=0))[name])[:, row, row]
        seen = (after != here).any(axis=1).reshape(28, 28)
        spots = np.argwhere(seen)
        for axis in (0, 1):
            assert spots[:, axis].min() == window[axis].start(row)
            assert np.ptp(spots[:, axis]) + 1 == window[axis].length
