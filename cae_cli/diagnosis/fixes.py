"""The fixes that rules propose, each as overrides and as code of a Keras script."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

from cae_cli.diagnosis.case import Case
from cae_cli.diagnosis.finding import Fix, Safety
from cae_cli.metrics.preparation import Preparation

SAFE, TRADE, SLOW = Safety.SAFE, Safety.TRADE, Safety.SLOW

# -- loss and data

CROSS_ENTROPY = Fix(
    ("loss=bce",), "its gradient survives a saturated sigmoid", SAFE, 'loss="binary_crossentropy"',
    edit="cross-entropy",
)  # fmt: skip
SQUARED_ERROR = Fix(
    ("loss=mse",), "smallest where output and image are equal", SAFE, 'loss="mse"', edit="squared error"
)
SSIM_CONSTANTS = Fix(
    ("loss.k1=0.01", "loss.k2=0.03"),
    "the constants of the paper",
    SAFE,
    "tf.image.ssim(y_true, y_pred, max_val=1.0)  # for images in [0, 1]",
)
SCALED_IMAGES = Fix(
    ("data.scale=auto",),
    "images in [0, 1]",
    SAFE,
    "x = (x - x.min()) / (x.max() - x.min())",
    edit="images in reach",
)
STRETCHED_IMAGES = Fix(
    ("data.scale=minmax",),
    "images that fill 0 to 1",
    SAFE,
    "x = (x - x.min()) / (x.max() - x.min())",
)
SAME_TARGET = Fix(
    ("augmentation.target=same",),
    "transforms input and target together",
    SAFE,
    "model.fit(x, x)  # or the same transform of input and target",
    edit="target = input",
)
CLEAN_TARGET = Fix(
    (), "learns to remove the noise", SAFE, "model.fit(noisy, clean)  # the clean image as the target"
)
MIXED_BATCHES = Fix(
    (),
    "every batch shows the whole data set",
    SAFE,
    "model.fit(..., shuffle=True)  # of tf.data: shuffle(n), with n as large as the data set",
    edit="shuffled batches",
)


def prepared(tried: Preparation) -> Fix:
    """Images in the values that a network knows, found by `introspection.preparation`."""
    given = tried.given_low, tried.given_high
    factor = (given[1] - given[0]) / (tried.hand_high - tried.hand_low)
    offset = given[0] - factor * tried.hand_low
    code = "x[..., ::-1]" if tried.swapped else "x"
    if (factor, offset) == (-1, 1):
        code = f"1 - {code}"
    elif (factor, offset) != (1, 0):
        code = f"{factor:.4g} * {code}" + (f" {'+-'[offset < 0]} {abs(offset):.4g}" if offset else "")
    ends = given if tried.is_same_output else (*given, tried.made_low, tried.made_high)
    flag = f"  # cae: --range={','.join(f'{end:.4g}' for end in ends)}"
    if ends == (tried.hand_low, tried.hand_high):
        flag = ""
    return Fix((), "the values that it was trained on", SAFE, f"x = {code}{flag}")


# -- layers

LINEAR_OUTPUT = Fix(
    ("model.output_activation=linear",),
    "an output that cannot saturate",
    SAFE,
    'activation="linear"  # in the last layer',
    edit="linear output",
)
SIGMOID_OUTPUT = Fix(
    ("model.output_activation=sigmoid",),
    "an output from 0 to 1 for each pixel",
    SAFE,
    'activation="sigmoid"  # in the last layer',
    edit="sigmoid output",
)
ELU = Fix(
    ("model.activation=elu",),
    "a gradient below zero",
    SAFE,
    'activation="elu"  # in the hidden layers',
    edit="ELU",
)
RELU = Fix(
    ("model.activation=relu",),
    "a slope of 1 where it is active",
    SAFE,
    'activation="relu"  # in the hidden layers',
)
WEAKER_DROPOUT = Fix((), "noise that the image outweighs", SAFE, "Dropout(0.05)", edit="weaker dropout")
KERNEL_AS_STRIDE = Fix(
    (),
    "every pixel is read",
    SAFE,
    'padding="same"  # and kernel_size at least as large as strides',
    edit="kernels as large as strides",
)
WIDER_WEIGHTS = Fix(
    (),
    "updates that are not rounded away",
    SAFE,
    'keras.config.set_dtype_policy("float32")  # or "mixed_float16", whose weights are float32',
)


def kernel_size(side: int, why: str, safety: Safety = SAFE) -> Fix:
    """Another side of the kernels."""
    return Fix(
        (f"model.kernel_size={side}",),
        why,
        safety,
        f"kernel_size={side}",
        edit="3x3 kernels" if side == 3 else "",
    )


def initializer(name: str, why: str) -> Fix:
    """Another initializer of the kernels."""
    return Fix(
        (f"model.initializer={name}",),
        why,
        SAFE,
        f'kernel_initializer="{name}"',
        edit="he_normal initializers" if name == "he_normal" else "",
    )


def layer_sizes(
    why: str, safety: Safety = SAFE, *, filters: Sequence[int] = (), channels: int | None = None
) -> Fix:
    """Other filters in the stages, other channels of the last one of the encoder, or both."""
    overrides, keras = [], []
    if filters:
        listed = ",".join(map(str, filters))
        overrides.append(f"model.filters=[{listed}]")
        keras.append(f"filters = [{listed.replace(',', ', ')}]")
    if channels is not None:
        overrides.append(f"model.latent_channels={channels}")
        keras.append(f"latent_channels = {channels}")
    edit = "wider code" if channels is not None and not filters else ""
    return Fix(tuple(overrides), why, safety, "; ".join(keras), edit)


def code_of(case: Case, size: int, why: str, safety: Safety = SAFE) -> Fix:
    """A latent code of so many channels, or so many values if it is dense."""
    if not case.network.dense:
        return layer_sizes(why, safety, channels=size)
    return Fix((f"model.latent_units={size}",), why, safety, f"latent_units = {size}", "wider code")


def deeper(case: Case, share: float = 0.0) -> list[Fix]:
    """One more stage, where they are known, or as many as let a latent value see enough.

    Args:
        case: the run.
        share: of the image's side, which a value is to see. A stage at least doubles what it sees.
    """
    filters, field = list(case.option("model.filters") or []), case.network.receptive_field
    if not filters:
        return []
    more = 1
    if field and share:
        more = max(1, math.ceil(math.log2(share * min(case.network.image_shape[:2]) / field)))
    name = "one more stage" if more == 1 else f"{more} more stages"
    return [layer_sizes(name, TRADE, filters=[*filters, *more * filters[-1:]])]


def tighter(case: Case) -> list[Fix]:
    """A latent code of half the image's values, if it has more, and one of fewer positions."""
    channels = case.network.latent_shape[-1]
    positions = case.network.latent_values / max(1, channels)
    fitting = max(1, int(case.network.image_values / (2 * positions)))
    fix = code_of(case, fitting, "a bottleneck", TRADE)
    half = [replace(fix, edit="narrower code")] if fitting < channels else []
    return half if case.network.dense else [*half, *deeper(case)]


def even_overlap(case: Case) -> list[Fix]:
    """Upsampling whose contributions do not overlap unevenly."""
    kernel = int(case.option("model.sampling_kernel") or 0)
    keras = "UpSampling2D(2), Conv2D(...)  # instead of Conv2DTranspose"
    fixes = [Fix(("model.upsampling=nearest",), "no overlap", SAFE, keras)]
    if kernel % 2:
        override, keras = (
            f"model.sampling_kernel={kernel + 1}",
            f"Conv2DTranspose(..., kernel_size={kernel + 1})",
        )
        fixes.insert(0, Fix((override,), "an even overlap", SAFE, keras))
    return fixes


# -- regularization


def _regularization(names: Sequence[str]) -> str:
    if len(names) == 1:
        return f"regularization={names[0]}"
    return f"regularization=[{','.join(names)}]" if names else "regularization=none"


def _adding(case: Case, name: str) -> tuple[str, ...]:
    names = [*(case.option("regularization") or {})]
    return (_regularization([*names, name] if name not in names else names),)


def batchnorm(case: Case, why: str = "keeps gradients alive") -> Fix:
    """Batch normalisation in addition to the regularizers of the run."""
    keras = "BatchNormalization()  # between each hidden convolution and its activation"
    return Fix(_adding(case, "batchnorm"), why, SAFE, keras, edit="batch normalisation")


def dropout(case: Case) -> Fix:
    """Dropout in addition to the regularizers of the run."""
    keras = "Dropout(0.1)  # after the hidden activations"
    return Fix(_adding(case, "dropout"), "makes memorising harder", TRADE, keras)


def input_noise(case: Case) -> Fix:
    """Noise on the input in addition to the regularizers of the run."""
    return Fix(
        _adding(case, "noise"), "makes copying useless", TRADE, "GaussianNoise(0.1)  # on the input"
    )


def without(case: Case, names: Iterable[str], why: str, safety: Safety = SAFE) -> Fix:
    """Without some of the regularizers of the run."""
    dropped = set(names)
    left = [name for name in case.option("regularization") or {} if name not in dropped]
    keras = f"# without the regularization by {', '.join(sorted(dropped))}"
    if not dropped:
        keras = "kernel_regularizer = activity_regularizer = None  # and no add_loss"
    edit = "no dropout" if dropped and dropped <= {"dropout", "noise"} else "no penalties"
    return Fix((_regularization(left),), why, safety, keras, edit)


def revive(case: Case) -> list[Fix]:
    """Brings dead filters back."""
    fixes = [batchnorm(case, "no filter can stay below zero")]
    if case.network.hidden_activation == "relu":
        leaky = 'activation="leaky_relu"  # in the hidden layers'
        why = "a gradient below zero"
        fixes.append(Fix(("model.activation=leaky_relu",), why, SAFE, leaky, edit="LeakyReLU"))
    return fixes


# -- optimizer and training

CLIPPED_GRADIENTS = Fix(
    ("optimizer.clip_norm=1",),
    "limits the gradients",
    SAFE,
    "global_clipnorm=1",
    edit="clipped gradients",
    mends="CAE207",
)


USUAL_OF_ADAM = 1e-3


def _usual_rate(case: Case) -> float | None:
    """The learning rate at which the optimizer usually works; None where it is unknown."""
    # A script may have any optimizer, also one for which there are no facts but defaults.
    rate = case.option("optimizer.usual_rate") if case.script else case.fact("optimizer.usual_rate")
    return None if rate is None else float(rate)


def usual_learning_rate(case: Case) -> Fix:
    """The usual learning rate of the optimizer; that of Adam where it is unknown."""
    known = _usual_rate(case)
    rate = f"{known or USUAL_OF_ADAM:g}"
    why = "the usual learning rate" if known else "the usual learning rate of Adam"
    keras = f"learning_rate={rate}"
    return Fix((f"optimizer.learning_rate={rate}",), why, SAFE, keras, edit="Adam at 0.001")


def _scaled_rate(case: Case, factor: float, why: str) -> Fix:
    """The learning rate times ``factor``, or the usual one where the result is still far from it."""
    edit, mends = ("rate / 10", "CAE207") if factor < 1 else ("rate x 10", "CAE208")
    rate, usual = case.option("optimizer.learning_rate"), _usual_rate(case) or USUAL_OF_ADAM
    if rate is None:  # of a training that was not recorded
        return Fix((), why, SAFE, f"learning_rate *= {factor:g}", edit, mends)
    if not rate or (rate > 10 * usual if factor < 1 else rate < usual / 10):
        return replace(usual_learning_rate(case), mends=mends)
    new = f"{rate * factor:g}"
    return Fix((f"optimizer.learning_rate={new}",), why, SAFE, f"learning_rate={new}", edit, mends)


def slower(case: Case) -> Fix:
    """A tenth of the learning rate, or the usual one where that is still far too large."""
    return _scaled_rate(case, 0.1, "a tenth of the learning rate")


def faster(case: Case) -> Fix:
    """Ten times the learning rate, or the usual one where that is still far too small."""
    return _scaled_rate(case, 10, "ten times the learning rate")


def longer(case: Case, least: int = 0) -> Fix:
    """Three times the epochs or steps, whichever decide the length; more for at least so many steps."""
    epochs, steps = case.option("training.epochs"), case.option("training.steps")
    made = case.trained and case.trained.dynamics.steps
    times = max(3, math.ceil(least / made)) if made else 3
    option = (
        f"training.steps={times * int(steps)}"
        if steps
        else f"training.epochs={times * int(epochs or 1)}"
    )
    keras = f"epochs *= {times}" + (f"  # {times * made:,} steps" if made and least else "")
    return Fix((option,), "trains longer", SLOW, keras, edit="more steps", mends="CAE211")
