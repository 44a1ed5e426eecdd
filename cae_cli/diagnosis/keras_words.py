"""Fixes for networks that this tool did not train: overrides in the words of Keras."""

from __future__ import annotations

import re

from cae_cli.diagnosis.finding import Fix

# An override's key -> what to write; {} stands for its value.
WORDS = {
    "augmentation": "random flips, shifts and turns of input and target together",
    "augmentation.target": "transform input and target together",
    "data.noise": "images without added noise",
    "data.scale": "images scaled to [0, 1]",
    "data.train": "more images",
    "loss.k1": "the range of the images as max_val",
    "loss.k2": "",
    "model.activation": 'activation="{}" in the hidden layers',
    "model.block": "residual blocks",
    "model.latent_channels": "a code of {} channels",
    "model.convolutions": "{} convolution a stage",
    "model.filters": "{} filters in the stages",
    "model.initializer": 'kernel_initializer="{}"',
    "model.kernel_size": "kernel_size={}",
    "model.output_activation": 'activation="{}" in the last layer',
    "model.sampling_kernel": "kernel_size={} in Conv2DTranspose",
    "model.skips": "no skip connections",
    "model.upsampling": "UpSampling2D and Conv2D in the place of Conv2DTranspose",
    "optimizer.clip_norm": "clipnorm={}",
    "optimizer.learning_rate": "learning_rate={}",
    "training.epochs": "more epochs",
    "training.frozen": "trainable=True",
}
LOSSES = {
    "bce": 'loss="binary_crossentropy"',
    "mse": 'loss="mse"',
    "ssim": "a loss of 1 - tf.image.ssim(…, max_val=1.0)",
}
LAYERS = {
    "batchnorm": "BatchNormalization() between convolution and activation",
    "dropout": "Dropout(0.1) behind the activations",
    "noise": "GaussianNoise(0.1) on the input",
}


def in_keras(fix: Fix) -> str:
    """What a fix comes to in a script of one's own.

    Args:
        fix: as the rules give it, in overrides.
    """
    said = [_one(override) for override in fix.overrides]
    return ", ".join(dict.fromkeys(words for words in said if words))


def _one(override: str) -> str:
    key, _, value = override.partition("=")
    if key == "loss":
        return LOSSES.get(value, f"loss {value}")
    if key == "regularization":
        added = [LAYERS[name] for name in re.findall(r"\w+", value) if name in LAYERS]
        return ", ".join(added) or "no penalties"
    return WORDS.get(key, override).replace("{}", value.strip("[]"))
