"""Rounding of trained weights to few bits, with the errors of single weights compensated by the others of a layer.

Source: GPTQ (Frantar et al. 2023), which rounds the weights of a row one after the other and corrects those that are
left, so that the row's products with the calibration inputs change least. Differences: columns go by the size of their
inputs, from the largest; a row's scale minimizes the squared error of its products under independent rounding;
afterwards the bias takes up the change of each channel's mean (Nagel et al. 2019, "Data-free quantization through
weight equalization and bias correction", section 4.2, with calibration inputs).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from slimsearch.compression._network import Network
from slimsearch.compression._weights import layers_in_order, run_hooked
from slimsearch.compression.quantization.plan import LearnedRange

if TYPE_CHECKING:
    from torch import Tensor, nn

_BATCH = 16  # images for the inputs of a layer at a time
_ROWS = 16_384  # of a layer's inputs, at most about
_DAMPING = 0.01  # of the mean diagonal of the Hessian
_BLOCK = 128  # columns that are corrected at once
_SHARES = 24  # candidates for the largest weight that a scale represents


def round_weights(network: Network, images: Tensor) -> Network:
    """A copy of `network` whose layers in ``quantization.bits`` have integer weights, with scales in its plan.

    Layers are rounded in the order of their calls, each with inputs that the rounded layers before it give.

    Args:
        network: with a plan, and with BatchNorm folded.
        images: calibration images, (N, C, H, W) float32.
    """
    import torch

    plan, module = network.quantization, network.copy_module().eval()
    assert plan is not None
    order = [name for name in layers_in_order(module, images[:2]) if name in plan.bits]
    expected = _means(module, images, order)
    learned = dict(plan.learned)
    with torch.no_grad():
        for name in order:
            layer = module.get_submodule(name)
            assert isinstance(layer, torch.nn.Conv2d | torch.nn.Linear)
            bits = plan.bits[name]
            weight, scales = _rounded(layer, _second_moments(module, name, images), bits)
            layer.weight.copy_(weight)
            learned[name] = LearnedRange(tuple(scales.tolist()), bits)
            if layer.bias is not None:
                layer.bias += expected[name] - _means(module, images, [name])[name]
    return Network(module, network.structure, replace(plan, learned=learned))


def nearest(weight: Tensor, bits: int) -> Tensor:
    """`weight`, (C_out, ...), rounded to the nearest multiples of scales per channel that suit it best."""
    rows = weight.flatten(1)
    scales = _scales(rows, rows.new_ones(rows.shape[1]).expand_as(rows), bits)
    return _grid(rows, scales, bits).view_as(weight)


def rounding_error(network: Network, images: Tensor) -> float:
    """Root mean square error of the outputs with rounded weights, relative to the standard deviation of the outputs.

    Args:
        network: with a plan, which has the bits of the weights.
        images: (N, C, H, W) float32.
    """
    import torch

    plan, module = network.quantization, network.copy_module().eval()
    assert plan is not None
    with torch.no_grad():
        expected = module(images)
        for name in layers_in_order(module, images[:2]):
            weight = module.get_submodule(name).get_parameter("weight")
            weight.copy_(nearest(weight, plan.weight_bits(name)))
        error = (module(images) - expected).square().mean().sqrt() / expected.std().clamp_min(1e-9)
    return float(error)


def _rounded(layer: nn.Conv2d | nn.Linear, moments: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """The layer's weights on their grids and the scales of the output channels, (C_out,).

    Args:
        layer: G groups of channels; a linear layer has one.
        moments: of the inputs of each group, (G, D, D).
        bits: of the integers.
    """
    import torch

    groups, size = len(moments), moments.shape[-1]
    weight = layer.weight.detach().reshape(groups, -1, size).clone()  # (G, C_out / G, D)
    diagonal = moments.diagonal(dim1=1, dim2=2)  # (G, D)
    scales = _scales(weight.flatten(0, 1), diagonal.repeat_interleave(weight.shape[1], 0), bits).view(groups, -1)
    order = diagonal.argsort(dim=1, descending=True)
    weight = weight.gather(2, order[:, None].expand_as(weight))
    hessian = moments.gather(1, order[:, :, None].expand_as(moments)).gather(2, order[:, None].expand_as(moments))
    damping = _DAMPING * diagonal.mean(1, keepdim=True).clamp_min(1e-8) + 1e-12
    hessian.diagonal(dim1=1, dim2=2).add_(damping)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
    upper = torch.linalg.cholesky(inverse, upper=True)  # (G, D, D)
    found = torch.empty_like(weight)
    for start in range(0, size, _BLOCK):
        stop = min(start + _BLOCK, size)
        errors = weight.new_empty(groups, weight.shape[1], stop - start)
        for column in range(start, stop):
            own = weight[:, :, column]
            found[:, :, column] = _grid(own.reshape(-1, 1), scales.flatten(), bits).view_as(own)
            error = (own - found[:, :, column]) / upper[:, column, column, None]
            weight[:, :, column:stop] -= error[:, :, None] * upper[:, None, column, column:stop]
            errors[:, :, column - start] = error
        weight[:, :, stop:] -= errors @ upper[:, start:stop, stop:]
    back = found.gather(2, order.argsort(dim=1)[:, None].expand_as(found))
    return back.view_as(layer.weight), scales.flatten()


def _scales(rows: Tensor, importance: Tensor, bits: int) -> Tensor:
    """The scale of each row with the least squared error of its rounded weights, (N, D), (N, D) -> (N,)."""
    import torch

    top = 2 ** (bits - 1) - 1
    largest = rows.abs().amax(dim=1).clamp_min(1e-8)
    best: Tensor = largest / top
    least = torch.full_like(largest, torch.inf)
    for share in torch.linspace(1, 0.3, _SHARES).tolist():
        scales = share * largest / top
        errors = ((rows - _grid(rows, scales, bits)).square() * importance).sum(1)
        best, least = torch.where(errors < least, scales, best), torch.minimum(errors, least)
    return best


def _grid(rows: Tensor, scales: Tensor, bits: int) -> Tensor:
    """(N, D) rounded to multiples of (N,) scales."""
    top = 2 ** (bits - 1) - 1
    return (rows / scales[:, None]).round().clamp(-top, top) * scales[:, None]


def _means(module: nn.Module, images: Tensor, names: list[str]) -> Mapping[str, Tensor]:
    """The mean output of each channel of layers, (C_out,), by name."""
    import torch

    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}

    def add(name: str, layer: nn.Module, outputs: Tensor) -> None:
        channels = outputs.transpose(1, -1) if isinstance(layer, torch.nn.Conv2d) else outputs  # (N, ..., C_out)
        flat = channels.flatten(0, -2)
        sums[name] = sums.get(name, 0) + flat.sum(0)
        counts[name] = counts.get(name, 0) + len(flat)

    hooks = [
        module.get_submodule(name).register_forward_hook(lambda own, _, outputs, name=name: add(name, own, outputs))
        for name in names
    ]
    run_hooked(module, images, hooks)
    return {name: total / counts[name] for name, total in sums.items()}


def _second_moments(module: nn.Module, name: str, images: Tensor) -> Tensor:
    """The mean products of the inputs of a layer's output, (G, D, D), of positions drawn at random."""
    import torch

    layer = module.get_submodule(name)
    groups = layer.groups if isinstance(layer, torch.nn.Conv2d) else 1
    generator = torch.Generator().manual_seed(0)
    sums: list[Tensor] = []
    counts: list[int] = []

    def add(own: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        inputs = arguments[0]
        share = min(1.0, _ROWS / (len(images) * _positions(own, inputs)))
        for start in range(0, len(inputs), _BATCH):
            part = inputs[start : start + _BATCH]
            rows = _rows(own, part, groups)  # (G, N, D)
            if share < 1:
                rows = rows[:, torch.rand(rows.shape[1], generator=generator) < share]
            sums.append(rows.transpose(1, 2) @ rows)
            counts.append(rows.shape[1])

    run_hooked(module, images, [layer.register_forward_pre_hook(add)])
    found: Tensor = torch.stack(sums).sum(0) / max(1, sum(counts))
    return found


def _positions(layer: nn.Module, inputs: Tensor) -> int:
    """Outputs of a layer for an image, in each channel."""
    import torch

    if isinstance(layer, torch.nn.Conv2d):
        return inputs[0, 0].numel() // (layer.stride[0] * layer.stride[1])
    return inputs[0].numel() // inputs.shape[-1]


def _rows(layer: nn.Module, inputs: Tensor, groups: int) -> Tensor:
    """What each output of a layer is computed from, (G, N, D)."""
    import torch
    import torch.nn.functional as F

    if not isinstance(layer, torch.nn.Conv2d):
        return inputs.reshape(1, -1, inputs.shape[-1])
    padding: int | tuple[int, ...] = 0
    if isinstance(layer.padding, str):
        both = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
        pads = [side for total in reversed(both) for side in (total // 2, total - total // 2)]
        inputs = F.pad(inputs, pads if layer.padding == "same" else [0] * 4)
    else:
        padding = layer.padding
    columns = F.unfold(inputs, layer.kernel_size, layer.dilation, padding, layer.stride)  # (N, C * k * k, positions)
    rows = columns.transpose(1, 2).reshape(-1, groups, columns.shape[1] // groups)
    return rows.transpose(0, 1)
