"""Dropout with quick masks: rate, mean, gradient and layout are dropout's, and a training repeats."""

from __future__ import annotations

import pickle

import pytest
import torch
from torch import nn

from slimsearch.evaluators.training.quick_dropout import dropped, quicken


@pytest.mark.parametrize("rate", [0.1, 0.25, 0.5, 0.9])
def test_rate_mean_and_gradient(rate: float) -> None:
    torch.manual_seed(0)
    x = torch.rand(200, 1001).add_(1).requires_grad_()
    found = dropped(x, rate)
    kept = found.detach() != 0
    assert float(kept.float().mean()) == pytest.approx(1 - rate, abs=0.005)
    torch.testing.assert_close(found.detach()[kept], (x.detach() / (1 - rate))[kept], rtol=1e-3, atol=0)
    # Neither rows nor columns have more than their share.
    assert float((kept.float().mean(dim=0) - (1 - rate)).abs().max()) < 0.2
    found.sum().backward()
    assert torch.equal(x.grad != 0, kept)  # type: ignore[arg-type]


def test_masks_follow_from_pytorchs_seed_and_change() -> None:
    x = torch.ones(64, 100)

    def masks() -> list[torch.Tensor]:
        torch.manual_seed(3)
        return [dropped(x, 0.5) for _ in range(2)]

    first, second = masks()
    assert not torch.equal(first, second)
    assert all(torch.equal(a, b) for a, b in zip(masks(), (first, second), strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_layout_and_type_stay(dtype: torch.dtype) -> None:
    x = torch.ones(4, 8, 6, 6, dtype=dtype).contiguous(memory_format=torch.channels_last)
    found = dropped(x, 0.25)
    assert found.dtype == dtype
    assert found.is_contiguous(memory_format=torch.channels_last)
    every_second = dropped(torch.ones(6, 10)[:, ::2], 0.5)
    assert every_second.shape == (6, 5)


def test_only_plain_dropouts_are_quickened_and_it_is_taken_back() -> None:
    module = nn.Sequential(
        nn.Dropout(0.5), nn.Dropout(0.5, inplace=True), nn.Dropout2d(0.5), nn.Dropout(0.0), nn.Dropout(1.0)
    )
    take_back = quicken(module)
    assert ["forward" in vars(layer) for layer in module] == [True, False, False, False, False]
    x = torch.ones(2, 3, 4, 4)
    torch.manual_seed(0)
    assert torch.equal(module[0](x), _seeded(x))
    assert torch.equal(module.eval()[0](x), x)
    take_back()
    assert not any("forward" in vars(layer) for layer in module)
    pickle.dumps(module)


def _seeded(x: torch.Tensor) -> torch.Tensor:
    torch.manual_seed(0)
    return dropped(x, 0.5)
