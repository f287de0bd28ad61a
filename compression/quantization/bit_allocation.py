"""How many bits the weights of each layer get, by measured sensitivity and a budget."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from slimsearch.compression._network import Network
from slimsearch.compression._weights import layers_in_order
from slimsearch.compression.quantization.rounding import nearest

if TYPE_CHECKING:
    from torch import Tensor

BITS = (2, 3, 4, 5, 6, 8)
"""Bits that the weights of a layer can have."""
_IMAGES = 64  # for the sensitivities


def allocate_bits(network: Network, images: Tensor, mean_bits: float, *, gives_logits: bool) -> dict[str, int]:
    """Bits of the weights of every convolution and linear layer, by name, with at most `mean_bits` on average.

    Each layer alone is rounded to each number of bits, and the change of the outputs is measured; bits go where they
    lower the sum of these changes most for their size.

    Source: greedy steps along the convex hulls of all layers, as in HAWQ-V2 (Dong et al. 2020) with their estimates by
    Hessians replaced by measurement. On few images, hardly any layer alone changes an answer, so that the divergence of
    the answers' probabilities takes the place of the accuracy.

    Args:
        network: stays unchanged.
        images: calibration images, (N, C, H, W) float32.
        mean_bits: of all weights, in [2, 8].
        gives_logits: whether outputs are logits of classes.
    """
    changes = weight_sensitivities(network, images[:_IMAGES], gives_logits=gives_logits)
    sizes = {name: network.module.get_submodule(name).get_parameter("weight").numel() for name in changes}
    return cheapest_bits(changes, sizes, mean_bits)


def weight_sensitivities(network: Network, images: Tensor, *, gives_logits: bool) -> dict[str, dict[int, float]]:
    """The change of the outputs when the weights of one layer alone are rounded, by layer and bits.

    The change is the Kullback-Leibler divergence of the probabilities of classes, in nats for an image; of other
    outputs the squared error relative to their variance.
    """
    import torch

    module = network.copy_module().eval()
    found: dict[str, dict[int, float]] = {}
    with torch.no_grad():
        expected = module(images)
        for name in layers_in_order(module, images[:2]):
            weight = module.get_submodule(name).get_parameter("weight")
            original = weight.clone()
            found[name] = {}
            for bits in BITS:
                weight.copy_(nearest(original, bits))
                found[name][bits] = _change(expected, module(images), gives_logits)
            weight.copy_(original)
    return found


def cheapest_bits(
    changes: Mapping[str, Mapping[int, float]], sizes: Mapping[str, int], mean_bits: float
) -> dict[str, int]:
    """The bits of each layer with a small sum of `changes` whose mean over all weights is at most `mean_bits`.

    Args:
        changes: of the outputs, by layer and bits.
        sizes: weights of the layers.
        mean_bits: at least the smallest of the bits.
    """
    steps: list[tuple[float, int, str, int, int]] = []
    chosen: dict[str, int] = {}
    for order, (name, own) in enumerate(changes.items()):
        hull = _lower_hull(sorted(own.items()))
        chosen[name] = hull[0][0]
        for (few, before), (more, after) in itertools.pairwise(hull):
            gain = (before - after) / (sizes[name] * (more - few))
            steps.append((-gain, order, name, few, more))
    left = mean_bits * sum(sizes.values()) - sum(chosen[name] * sizes[name] for name in chosen)
    for _, _, name, few, more in sorted(steps):
        cost = sizes[name] * (more - few)
        if chosen[name] == few and cost <= left + 1e-6:
            chosen[name] = more
            left -= cost
    return chosen


def _lower_hull(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """The points of a decreasing convex curve below all `points`, which are sorted by bits."""
    hull: list[tuple[int, float]] = []
    for point in points:
        if hull and point[1] >= hull[-1][1]:
            continue
        while len(hull) > 1 and _slope(hull[-2], point) <= _slope(hull[-2], hull[-1]):
            hull.pop()
        hull.append(point)
    return hull


def _slope(one: tuple[int, float], other: tuple[int, float]) -> float:
    return (other[1] - one[1]) / (other[0] - one[0])


def _change(expected: Tensor, found: Tensor, gives_logits: bool) -> float:
    import torch.nn.functional as F

    if gives_logits:
        logs, expected_logs = (F.log_softmax(outputs.double(), -1) for outputs in (found, expected))
        return max(0.0, float(F.kl_div(logs, expected_logs, log_target=True, reduction="batchmean")))
    return float((found - expected).square().mean() / expected.var().clamp_min(1e-12))
