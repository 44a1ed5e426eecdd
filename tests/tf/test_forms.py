"""The callback in whatever people write: every form of data and of training gets the same diagnosis."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from cae_cli import Diagnosis, data
from cae_cli.config.compose import checked
from cae_cli.data import as_float
from cae_cli.errors import UserError
from tests.tf import scripts

pytestmark = pytest.mark.tf

BATCH = 32


@pytest.fixture(scope="module")
def glyphs():
    """(1,088, 28, 28, 1) letters and digits in [0, 1]; the last 64 are held out."""
    images = data.load(checked(["data.train=1088", "data.validation=0.0588"])[1].data)
    return np.concatenate([as_float(images.train), as_float(images.validation)])[:1088]


def parts(images):
    return images[:-64], images[-64:]


def arrays(x, y, held, folder):
    return {"x": x, "y": y, "batch_size": BATCH, "validation_data": held}


def dataset(x, y, held, folder):
    pairs = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(2048, seed=0).batch(BATCH)
    return {
        "x": pairs.prefetch(2).repeat(),
        "steps_per_epoch": len(x) // BATCH,
        "validation_data": tf.data.Dataset.from_tensor_slices(held).batch(BATCH),
    }


class Pairs(keras.utils.PyDataset):
    """Batches of pairs by number."""

    def __init__(self, x, y):
        super().__init__()
        self.x, self.y = x, y

    def __len__(self):
        return len(self.x) // BATCH

    def __getitem__(self, i):
        here = slice(i * BATCH, (i + 1) * BATCH)
        return self.x[here], self.y[here]


def pydataset(x, y, held, folder):
    return {"x": Pairs(x, y), "validation_data": Pairs(*held)}


def generator(x, y, held, folder):
    def batches():
        rng = np.random.default_rng(0)
        while True:
            chosen = rng.permutation(len(x))[:BATCH]
            yield x[chosen], y[chosen]

    return {"x": batches(), "steps_per_epoch": len(x) // BATCH, "validation_data": held}


def one_shot(x, y, held, folder):
    def batches():
        for i in range(0, len(x) * 99, BATCH):
            here = np.arange(i, i + BATCH) % len(x)
            yield x[here], y[here]

    return {"x": batches(), "steps_per_epoch": len(x) // BATCH}


def from_folder(x, y, held, folder):
    """Images without targets from files; targets are made by ``map``."""
    for name, part in (("train", x), ("validation", held[0])):
        (folder / name / "all").mkdir(parents=True)
        for i, image in enumerate(part):
            picture = Image.fromarray((image[..., 0] * 255).astype(np.uint8))
            picture.save(folder / name / "all" / f"{i:04d}.png")

    def read(name):
        read = keras.utils.image_dataset_from_directory(
            folder / name, labels=None, color_mode="grayscale", image_size=x.shape[1:3],
            batch_size=BATCH, seed=0, verbose=False,
        )  # fmt: skip
        return read.map(lambda image: (image / 255, image / 255))

    return {"x": read("train"), "validation_data": read("validation")}


def image_generator(x, y, held, folder):
    flow = keras.src.legacy.preprocessing.image.ImageDataGenerator().flow
    return {"x": flow(x, y, batch_size=BATCH, seed=0), "validation_data": held}


def image_generator_of_folder(x, y, held, folder):
    from_folder(x, y, held, folder)
    read = keras.src.legacy.preprocessing.image.ImageDataGenerator(rescale=1 / 255).flow_from_directory
    words = {"target_size": x.shape[1:3], "color_mode": "grayscale", "class_mode": "input",
             "batch_size": BATCH, "seed": 0}  # fmt: skip
    return {name: read(folder / part, **words)
            for name, part in (("x", "train"), ("validation_data", "validation"))}  # fmt: skip


FORMS = [arrays, dataset, pydataset, generator, one_shot, from_folder, image_generator,
         image_generator_of_folder]  # fmt: skip
QUICK = [dataset, one_shot, image_generator_of_folder]


def trained(form, images, folder, *, model=None, epochs=2, watch=None, shuffled=False, **words):
    """The callback after a training in this form."""
    keras.utils.set_random_seed(0)
    x, held = parts(images)
    y = np.random.default_rng(0).permutation(x) if shuffled else x
    model = model or scripts.strided(images.shape[1:])
    model.compile(keras.optimizers.Adam(0.003), "mse", **words)
    watch = watch or Diagnosis(folder=folder / "runs", verbose=0)
    fit = form(x, y, (held, held), folder)
    fit["shuffle"] = "y" in fit  # Keras warns where the data set has the say
    model.fit(**fit, epochs=epochs, verbose=0, callbacks=[watch])
    return watch


@pytest.fixture
def unmeasured(monkeypatch):
    """At the end of a training only the images that were seen are kept, as ``watch.images``."""

    def keep(watch, recorder):
        watch.images = watch._passed()
        raise UserError("not measured")

    monkeypatch.setattr(Diagnosis, "_measure", keep)


@pytest.mark.parametrize(
    "form", [f if f in QUICK else pytest.param(f, marks=pytest.mark.soak) for f in FORMS]
)
def test_images_are_taken_from_every_form_of_data(form, glyphs, tmp_path, unmeasured):
    few = glyphs[-256:]
    x, held = parts(few)
    images = trained(form, few, tmp_path, epochs=3).images

    def known(part):
        return {(255 * image).round().astype(np.uint8).tobytes() for image in part}

    assert known(images.train) | known(images.validation) <= known(few)
    if form is one_shot:
        assert images.trained_on and len(images.train) + len(images.validation) == len(x)
    else:
        assert known(images.train) >= known(x) if form is not generator else True
        assert known(images.validation) == known(held) and len(images.validation) == len(held)


@pytest.mark.soak
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_data_gets_the_same_diagnosis(form, glyphs, tmp_path):
    for shuffled, cause in ((False, None), (True, "CAE103")):
        outcome = trained(form, glyphs, tmp_path / str(shuffled), epochs=6, shuffled=shuffled).outcome
        reads = form in (from_folder, image_generator_of_folder)  # and makes targets of its own
        assert scripts.first_cause(outcome) == (None if reads else cause)
        assert outcome.metrics.dynamics.steps == 6 * 32
        assert outcome.held_out == ("training" if form is one_shot else "validation")
