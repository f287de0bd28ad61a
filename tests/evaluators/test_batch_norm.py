"""Batch normalization in training: as PyTorch's, in each layout and number format."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from slimsearch.evaluators.training.batch_norm import speed_up_batch_norm

_LAYERS: dict[int, Any] = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
_SHAPES = [
    (16, 6, 7, 7), (5, 3, 14, 14), (32, 12, 9, 9), (8, 8, 8, 8), (3, 33, 5, 4), (16, 1, 6, 6), (1, 6, 9, 9),
    (4, 20, 50), (16, 6), (3, 5, 4, 4, 4), (2, 300, 4, 4), (7, 6, 1, 1),
]  # fmt: skip
_OPTIONS: list[dict[str, Any]] = [{}, {"affine": False}, {"momentum": None}, {"track_running_stats": False}]


def _inputs(shape: tuple[int, ...], layout: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    x = (3 * torch.randn(shape) + 5).to(dtype)
    if layout == "channels_last":
        x = x.to(memory_format=torch.channels_last)
    elif layout == "strided":
        x = torch.stack([x, x], dim=-1)[..., 0]
    return x.clone().requires_grad_(), x.clone().requires_grad_()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("shape", _SHAPES, ids=str)
def test_outputs_gradients_and_statistics_are_those_of_pytorch(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layouts = ["contiguous", "strided", *(["channels_last"] if len(shape) == 4 else [])]
    close = {"rtol": 1e-4, "atol": 5e-5} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 4e-2}
    for layout, options in itertools.product(layouts, _OPTIONS):
        expected = _LAYERS[len(shape)](shape[1], **options).train()
        if expected.affine:
            nn.init.normal_(expected.weight)
            nn.init.normal_(expected.bias)
        layer = copy.deepcopy(expected)
        undo = speed_up_batch_norm(layer)
        for _ in range(2):
            first, second = _inputs(shape, layout, dtype)
            ours, theirs = layer(first), expected(second)
            assert (ours.dtype, ours.is_contiguous()) == (theirs.dtype, theirs.is_contiguous())
            torch.testing.assert_close(ours, theirs, **close)
            gradient = torch.randn_like(theirs)
            # What follows may work in place, and gradients come in any layout.
            torch.relu_(ours).backward(gradient.contiguous())
            torch.relu_(theirs).backward(gradient)
            kept = (ours > 0) == (theirs > 0)
            assert kept.float().mean() > 0.99
            if dtype == torch.float32 and bool(kept.all()):
                torch.testing.assert_close(first.grad, second.grad, **close)
                for own, other in zip(layer.parameters(), expected.parameters(), strict=True):
                    torch.testing.assert_close(own.grad, other.grad, rtol=1e-3, atol=1e-3)
        for own, other in zip(layer.buffers(), expected.buffers(), strict=True):
            torch.testing.assert_close(own, other, rtol=1e-3 if dtype == torch.float32 else 1e-2, atol=1e-4)
        undo()
        assert layer(first).grad_fn.name() == expected(second).grad_fn.name()


def test_gradients_of_bfloat16_are_as_exact_as_those_of_pytorch() -> None:
    torch.manual_seed(0)
    exact = nn.BatchNorm2d(12)
    nn.init.normal_(exact.weight)
    errors = {}
    x, gradient = (torch.randn(32, 12, 10, 10).to(memory_format=torch.channels_last) for _ in range(2))
    x, gradient = (3 * x + 2).bfloat16().float(), gradient.bfloat16().float()
    known = x.clone().requires_grad_()
    exact(known).backward(gradient)
    assert known.grad is not None
    for name, speed_up in (("ours", speed_up_batch_norm), ("PyTorch's", lambda layer: None)):
        layer = copy.deepcopy(exact)
        speed_up(layer)
        inputs = x.bfloat16().requires_grad_()
        layer(inputs).backward(gradient.bfloat16())
        assert inputs.grad is not None
        errors[name] = float((inputs.grad.float() - known.grad).square().mean().sqrt())
    assert errors["ours"] < 2 * errors["PyTorch's"]


def test_large_offsets_are_no_difference_of_large_sums() -> None:
    torch.manual_seed(0)
    x = (torch.randn(16, 6, 8, 8) + 3000).to(memory_format=torch.channels_last)
    layer, exact = nn.BatchNorm2d(6), nn.BatchNorm2d(6).double()
    speed_up_batch_norm(layer)
    # The mean is known to a few float32 steps of 0.0002; squares of 9,000,000 are known to 0.5.
    torch.testing.assert_close(layer(x).double(), exact(x.double()), rtol=0, atol=0.01)


def test_other_layers_and_evaluation_are_left_alone() -> None:
    class Own(nn.BatchNorm2d):
        def forward(self, x: Tensor) -> Tensor:
            return x + 1

    x = torch.randn(4, 6, 5, 5).to(memory_format=torch.channels_last)
    module = nn.Sequential(Own(6), nn.BatchNorm2d(6))
    speed_up_batch_norm(module)
    assert torch.equal(module[0](x), x + 1)
    expected = nn.BatchNorm2d(6).eval()
    expected.load_state_dict(module[1].state_dict())
    assert torch.equal(module.eval()[1](x), expected(x))
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        module.train()[1](torch.randn(1, 6, 1, 1))
    with pytest.raises(ValueError, match="4D"):
        module[1](torch.randn(4, 6, 5))
    with pytest.raises(RuntimeError, match=r"6 elements not 7|7 elements not 6"):
        module[1](torch.randn(4, 7, 5, 5))
