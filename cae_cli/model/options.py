"""The options of the network, apart from the code that builds it: a config is checked without Keras."""

from __future__ import annotations

from dataclasses import dataclass

from cae_cli.errors import UserError
from cae_cli.options import option

# Self-attention compares every position of the latent code with every other one.
MOST_POSITIONS = 4096

ACTIVATIONS = (
    "relu", "elu", "gelu", "leaky_relu", "selu", "silu", "softplus", "tanh", "sigmoid", "linear",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Options of the network."""

    filters: list[int] = option(
        "filters of each stage of the encoder; the decoder mirrors them. With latent_channels, the "
        "last stage of the encoder has that many instead",
        least=1,
        nonempty=True,
    )
    convolutions: int = option("convolutions (or residual blocks) in each stage", least=1)
    kernel_size: int = option("side of the kernels, in pixels", least=1)
    latent_channels: int | None = option(
        "channels of the latent code; null: as many as the last stage's filters", least=1
    )
    latent_units: int | None = option(
        "values of a dense latent code behind the last stage of the encoder; null: the latent code is "
        "the map of that stage",
        least=1,
    )
    block: str = option("kind of block in each stage", choices=("plain", "residual"))
    activation: str = option("activation of the hidden layers", choices=ACTIVATIONS)
    output_activation: str = option(
        "activation of the last layer",
        choices=("sigmoid", "hard_sigmoid", "linear", "relu", "tanh", "softmax"),
    )
    downsampling: str = option(
        "how a stage halves the resolution", choices=("max_pool", "average_pool", "strided")
    )
    upsampling: str = option(
        "how a stage doubles the resolution", choices=("nearest", "bilinear", "transposed")
    )
    sampling_kernel: int = option(
        "side of the kernels of strided and transposed convolutions, in pixels", least=2
    )
    skips: bool = option(
        "each stage of the decoder also gets the maps of the encoder stage with its resolution "
        "(U-Net), which bypass the latent code"
    )
    attention_heads: int = option(
        "heads of the self-attention on both sides of the latent code; 0: none", least=0
    )
    initializer: str = option(
        "initializer of the kernels",
        choices=(
            "glorot_uniform", "glorot_normal", "he_uniform", "he_normal", "lecun_uniform",
            "lecun_normal", "orthogonal", "random_normal", "random_uniform", "zeros",
        ),
    )  # fmt: skip

    def encoded_shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """(h', w', channels) of the map of the encoder's last stage, for an image of (h, w, c)."""
        h, w = (-(-side // 2 ** len(self.filters)) for side in shape[:2])
        return h, w, self.latent_channels or self.filters[-1]

    def latent_shape(self, shape: tuple[int, int, int]) -> tuple[int, ...]:
        """(h', w', channels) or (values,) of the latent code of an image of (h, w, c)."""
        return self.encoded_shape(shape) if self.latent_units is None else (self.latent_units,)

    def check(self, shape: tuple[int, int, int]) -> None:
        """Checks the options against (h, w, c), the shape of the images.

        Raises:
            UserError: self-attention over more positions than fit into memory.
        """
        h, w, _ = self.encoded_shape(shape)
        if self.attention_heads and h * w > MOST_POSITIONS:
            raise UserError(
                f"model.attention_heads={self.attention_heads} on maps of {h}x{w}: attention "
                f"over {h * w:,} positions, at most {MOST_POSITIONS:,} are possible",
                hint="Use more stages (a longer model.filters) or smaller images.",
            )
