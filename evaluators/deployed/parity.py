"""Whether an exported file, loaded again, computes what the network computes that it was made from."""

from __future__ import annotations

import numpy as np

from slimsearch.compression import Network
from slimsearch.errors import SlimsearchError
from slimsearch.evaluators.datasets import Dataset
from slimsearch.evaluators.deployed.deployed_model import Array, DeployedModel

_IMAGES = 64

EXACT = 1e-3
"""How far any logit of a float32 file may be from the network's, relative to the largest of them."""

QUANTIZED = 0.3
"""The same for a file with rounded weights or activations, as the root of the mean square over all logits, relative
to that of the network's logits around their mean. A rounding that is as it should be stays far below it; a lost
activation or a scale of the wrong channel exceeds it."""


def exact_error(expected: Array, found: Array) -> float:
    """The largest difference of two networks' logits, relative to the largest logit: what `EXACT` bounds."""
    return float(np.abs(found - expected).max()) / max(1.0, float(np.abs(expected).max()))


def check_parity(network: Network, model: DeployedModel, data: Dataset) -> float:
    """How far the file's logits are from the network's on validation images, by the measure that has to do with it.

    Raises:
        SlimsearchError: further than is allowed.
    """
    import torch

    images = data.normalise(data.validation.images[:_IMAGES])
    with torch.no_grad():
        expected = network.module.eval()(images).numpy()
    found = model(images.numpy())
    if network.quantization is None:
        error, allowed = exact_error(expected, found), EXACT
    else:
        spread = float(np.sqrt(np.mean((expected - expected.mean()) ** 2)))
        error, allowed = float(np.sqrt(np.mean((found - expected) ** 2))) / max(spread, 1e-9), QUANTIZED
    if not error <= allowed:
        raise SlimsearchError(
            f"the exported file disagrees with the network: logits differ by {error:.3g} of their size, "
            f"allowed {allowed:.3g}"
        )
    return error
