"""The words of the page, in one place: other sections link to them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cae_cli.report.page.content import Content, section

# In the order in which the page needs them.
WORDS = {
    "held-out images": "Images that the training did not see. What the network does is measured on them.",
    "explained variance": "1 - MSE of the output / MSE of the mean training image. 100% is perfect, 0 is no "
    "better than the same mean image for every input, and below 0 is worse than that.",
    "latent code": "What the encoder makes of an image, and all that the decoder gets of it, unless there are "
    "skip connections.",
    "rule": "A check for one problem, with a code such as CAE301. It compares a measured value with a "
    "threshold. A rule that could not be checked never counts as fine.",
    "confidence": "How far the value is beyond the threshold, as a multiple of the distance from the healthy "
    "range to the threshold: high from 0.9, medium from 0.25. An alternative that is not ruled out costs one "
    "step.",
    "filter": "The weights of a convolution that make one feature map, a picture of where the filter responds.",
    "inactive": "A feature map that is flat, or the same for every image.",
    "duplicate": "A feature map whose correlation with an earlier one of its layer is above 0.98.",
    "grating": "A picture of stripes. A filter is shown stripes of twelve angles (fewer for large images) and "
    "several widths. 0° are horizontal stripes, 90° vertical ones; the period is the width of a light and a "
    "dark stripe.",
    "selectivity": "0: stripes of all angles excite alike; 1: those of a single angle do. It describes a "
    "filter and is no merit: untrained filters may be selective too.",
    "p": "The share of kernels drawn again from the initializer whose neighbouring weights are as alike, or as "
    "unlike, as those of the layer, counted on both sides. 0.02 is the smallest value that 99 draws give. A "
    "large p is no fault: filters that look random may be useful.",
    "PSNR": "Peak signal-to-noise ratio: the mean squared error on a logarithmic scale. 6 dB more are half the "
    "error of a pixel.",
    "SSIM": "Structural similarity: how alike two images are in local contrast and structure. 1 for equal ones.",
    "linear decoder": "The image averaged over the cells of the latent code, and the best linear map back: what "
    "is possible without filters.",
    "principal components": "The best linear autoencoder with as many latent values. Its weights are not "
    "shared by all places of the image, as those of filters are, so a network may explain less or more.",
    "update ratio": "Mean change of the weights of a layer in one step over their mean size.",
}

TEMPLATE = """\
<dl class="words">
{% for name, meaning in words.items() %}
<dt id="word-{{ name|replace(" ", "-") }}">{{ name }}</dt><dd>{{ meaning }}</dd>
{% endfor %}
</dl>
"""


@section("words", "Words", TEMPLATE)
def words(content: Content) -> Mapping[str, Any]:
    """The glossary."""
    return {"words": WORDS}
