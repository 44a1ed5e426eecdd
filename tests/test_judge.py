"""Plain functions on arrays, whatever library computes them: the same diagnosis, without TensorFlow."""

import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

import cae_cli
from cae_cli import data
from cae_cli.config.compose import checked
from cae_cli.data import as_float
from cae_cli.errors import UserError
from cae_cli.external.model import span_of, spans_of, stored
from cae_cli.report import figures
from cae_cli.runs.reader import Entry


@pytest.fixture(scope="module")
def glyphs():
    """(800, 28, 28, 1) letters and digits in [0, 1]."""
    images = data.load(checked(["data.train=880"])[1].data)
    return as_float(images.train)[:800]


@pytest.fixture(autouse=True)
def without_pictures(request, monkeypatch):
    if "pictures" not in request.node.name:
        monkeypatch.setattr(figures, "draw", lambda *_, **__: None)


def components(images, count=60):
    """Encoder and decoder of principal components."""
    flat = images.reshape(len(images), -1)
    mean = flat.mean(axis=0)
    basis = np.linalg.svd(flat - mean, full_matrices=False)[2][:count]
    return (
        lambda x: (x.reshape(len(x), -1) - mean) @ basis.T,
        lambda z: (z @ basis + mean).reshape(len(z), *images.shape[1:]),
    )


def judged(tmp_path, encode, decode, images, **words):
    return cae_cli.judge(
        encode=encode, decode=decode, images=images, folder=tmp_path / "runs", verbose=0, **words
    )


def first_cause(outcome):
    causes = outcome.diagnosis.causes
    return causes[0].code if causes else None


def test_a_linear_autoencoder_is_healthy_and_explains_what_its_components_do(glyphs, tmp_path):
    encode, decode = components(glyphs[:720])
    outcome = judged(tmp_path, encode, decode, glyphs)
    metrics = outcome.metrics
    assert first_cause(outcome) is None and metrics.layers == ()
    assert metrics.quality.explained_variance == pytest.approx(metrics.perturbation.projection, abs=1e-3)
    assert metrics.network.latent_shape == (60,) and metrics.perturbation.latent_swap > 0.5
    # What needs filters or the training is not checked, and not called healthy.
    skipped = {s.code: s.reason for s in outcome.diagnosis.skipped}
    assert skipped["CAE401"] == skipped["CAE605"] == "the filters are not known"
    assert skipped["CAE103"] == "the training was not recorded"
    assert {"CAE301", "CAE302", "CAE501", "CAE502", "CAE503"} <= set(outcome.diagnosis.passed)


def test_the_run_is_like_any_other_with_pictures_and_a_summary(glyphs, tmp_path, capsys):
    encode, decode = components(glyphs[:720])
    cae_cli.judge(encode=encode, decode=decode, images=glyphs[:300], folder=tmp_path / "runs")
    (folder,) = (tmp_path / "runs").iterdir()
    assert Entry(folder).status == "ok" and Entry(folder).verdict in capsys.readouterr().out
    for name in ("summary.txt", "baselines.png", "reconstructions.png", "perturbation_tests.png"):
        assert (folder / name).is_file()


def test_what_is_wrong_with_functions_is_named(glyphs, tmp_path):
    encode, decode = components(glyphs[:720])
    mean = glyphs[:720].mean(axis=0)

    def around(latents, images):
        return 0.9 * images + 0.1 * decode(latents)

    def constant(latents):
        return np.broadcast_to(mean, (len(latents), *mean.shape))

    def flat(images):
        return images.reshape(len(images), -1)

    def unflat(latents):
        return latents.reshape(-1, *mean.shape)

    assert first_cause(judged(tmp_path, encode, around, glyphs)) == "CAE502"
    collapsed = judged(tmp_path, encode, constant, glyphs)
    assert first_cause(collapsed) == "CAE301"
    assert collapsed.diagnosis.verdict.startswith("this latent code is not meaningful")
    assert first_cause(judged(tmp_path, flat, unflat, glyphs)) == "CAE503"


def test_the_range_and_the_axes_are_those_of_the_images_given(glyphs, tmp_path):
    encode, decode = components(glyphs[:720])
    plain = judged(tmp_path, encode, decode, glyphs).metrics
    bytes_first = np.moveaxis(255 * glyphs, -1, 1)

    def encode_bytes(x):
        assert x.shape[1:] == (1, 28, 28) and x.dtype == np.float32 and x.max() > 1
        return encode(x / 255).reshape(-1, 15, 2, 2)

    def decode_bytes(z):
        assert z.shape[1:] == (15, 2, 2)
        return 255 * decode(z.reshape(len(z), -1)).reshape(-1, 1, 28, 28)

    other = judged(tmp_path, encode_bytes, decode_bytes, bytes_first).metrics
    assert other.network.latent_shape == (2, 2, 15) and other.network.span == (0, 255)
    for part, name in (("quality", "explained_variance"), ("perturbation", "latent_swap")):
        ours, theirs = (getattr(getattr(m, part), name) for m in (plain, other))
        assert ours == pytest.approx(theirs, abs=1e-4)


@pytest.mark.soak
def test_a_denoiser_is_judged_by_what_it_makes_of_noise(glyphs, tmp_path):
    noise = np.random.default_rng(0).normal(0, 0.2, glyphs.shape).astype(np.float32)
    encode, decode = components(glyphs[:720])
    outcome = judged(tmp_path, encode, decode, (glyphs + noise, glyphs))
    made = decode(encode(glyphs + noise))[720:]
    error = np.square(made - glyphs[720:]).mean()
    assert outcome.metrics.quality.mse.value == pytest.approx(error, rel=1e-3)
    assert first_cause(outcome) is None


@pytest.mark.parametrize(
    ("encode", "decode", "what"),
    [
        (lambda x: x.mean(axis=(0, 1, 2, 3)), None, "encode makes an array of shape ()"),
        (lambda x: x[:, 0, 0], lambda z: z, "decode makes an array of shape (2, 1), not images"),
        (
            lambda x: x[:, 0, 0],
            lambda z: np.zeros((len(z), 14, 14, 1)),
            "decode makes images of (14, 14",
        ),
    ],
)
def test_wrong_shapes_are_named_before_a_folder_is_made(encode, decode, what, glyphs, tmp_path):
    with pytest.raises(UserError) as error:
        judged(tmp_path, encode, decode, glyphs)
    assert what in error.value.what and error.value.hint and not (tmp_path / "runs").exists()


def test_functions_are_judged_without_keras_and_tensorflow(tmp_path):
    code = f"""
import sys, numpy as np, cae_cli
x = np.random.default_rng(0).random((64, 8, 8, 1))
cae_cli.judge(encode=lambda x: x[:, ::2, ::2], decode=lambda z: z.repeat(2, 1).repeat(2, 2), images=x,
              folder={str(tmp_path)!r}, verbose=0)
sys.exit(bool({{"tensorflow", "keras"}} & set(sys.modules)))
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("fault", [None, "bypass"])
def test_a_network_of_pytorch_is_judged_by_its_functions(fault, glyphs, tmp_path):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    nn = torch.nn
    encoder = nn.Sequential(
        nn.Conv2d(1, 16, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(16, 8, 3, stride=2, padding=1)
    )
    decoder = nn.Sequential(
        nn.ConvTranspose2d(8, 16, 4, stride=2, padding=1), nn.ReLU(),
        nn.ConvTranspose2d(16, 1, 4, stride=2, padding=1), nn.Sigmoid(),
    )  # fmt: skip
    x = torch.from_numpy(np.moveaxis(glyphs, -1, 1).copy())
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], 0.003)
    for _ in range(300):
        batch = x[torch.randint(0, 720, (32,))]
        loss = nn.functional.mse_loss(decoder(encoder(batch)), batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def around(z, images):
        return 0.2 * decoder(torch.from_numpy(z)) + 0.8 * torch.from_numpy(images)

    outcome = judged(
        tmp_path,
        lambda images: encoder(torch.from_numpy(images)),
        around if fault else lambda z: decoder(torch.from_numpy(z)),
        x,
    )
    assert first_cause(outcome) == ("CAE502" if fault else None)
    assert outcome.metrics.network.latent_shape == (7, 7, 8)


def most_memory(function, *arguments):
    """What a function returns, and how much memory it takes beside its arguments, in bytes."""
    tracemalloc.start()
    try:
        found = function(*arguments)
        return found, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_ranges_are_found_and_values_scaled_without_copies_of_all_images(tmp_path):
    x = np.random.default_rng(0).random((4096, 32, 32, 1), np.float32)
    for given in (x, x[:, ::-1], 1 - x, 0.9 * x):
        spans, memory = most_memory(spans_of, given, x)
        assert spans == ((0, 1), (0, 1)) and memory < x.nbytes
    assert np.shares_memory(stored(x, (0.0, 1.0)), x)
    scaled, memory = most_memory(stored, x, (-1.0, 1.0))
    assert np.array_equal(scaled, (x + 1) / 2) and memory < 1.6 * x.nbytes
    np.save(tmp_path / "x.npy", (255 * x).astype(np.uint8))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    scaled, memory = most_memory(stored, mapped, (0.0, 255.0))
    assert np.array_equal(scaled, mapped.astype(np.float32) / 255) and memory < x.nbytes


@pytest.mark.parametrize(
    ("low", "high", "span"),
    [
        (0, 1, (0, 1)),
        (0.2, 0.4, (0, 1)),
        (-0.02, 1.01, (0, 1)),  # resized with an overshoot
        (-1, 1, (-1, 1)),
        (-0.4, 0.9, (-1, 1)),
        (-1.01, 1.03, (-1, 1)),
        (0, 255, (0, 255)),
        (3, 100, (0, 255)),
        (-4, 259, (0, 255)),
        (0, 16, (0, 16)),  # the digits of scikit-learn
        (0, 2, (0, 2)),  # bytes over 127.5
        (0, 4095, (0, 4095)),
        (5, 6, (0, 6)),
        (-0.42, 2.8, (-0.42, 2.8)),  # standardised
        (-7, -3, (-7, -3)),
    ],
)
def test_the_range_of_images_is_the_usual_one_that_holds_them(low, high, span):
    assert span_of(np.array([low, high], np.float64)) == span
