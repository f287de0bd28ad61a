"""Gradients that come back from vectors are brought into the order of the images; nothing else is changed."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from slimsearch.evaluators.training.gradient_layout import keep_channels_last


class _Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 6, 3)
        self.rest = nn.Identity()
        self.head = nn.Linear(6 * 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.max_pool2d(self.second(torch.relu(self.first(x))), 2)
        return self.head(torch.flatten(self.rest(x), 1))  # type: ignore[no-any-return]


def _gradients(module: nn.Module) -> list[Tensor]:
    x = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(1)).contiguous(memory_format=torch.channels_last)
    module.zero_grad()
    module(x).square().sum().backward()
    return [p.grad.clone() for p in module.parameters() if p.grad is not None]


def test_the_same_gradients_in_another_order() -> None:
    module = _Network().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    plain = _gradients(module)
    arrived: list[bool] = []

    def look(_: nn.Module, gradients: tuple[Tensor, ...], __: object) -> None:
        arrived.append(gradients[0].is_contiguous(memory_format=torch.channels_last))

    handle = module.rest.register_full_backward_hook(look)
    take_back = keep_channels_last(module)
    for _ in range(3):
        for one, other in zip(_gradients(module), plain, strict=True):
            torch.testing.assert_close(one, other)
    assert arrived == [True] * 3
    take_back()
    handle.remove()
    assert not any(layer._forward_hooks for layer in module.modules())


def test_layers_whose_gradients_are_in_order_are_left_alone() -> None:
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.ReLU())
    module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    keep_channels_last(module)
    x = torch.rand(2, 1, 8, 8).contiguous(memory_format=torch.channels_last)
    (module(x) * torch.rand(2, 6, 4, 4).contiguous(memory_format=torch.channels_last)).sum().backward()
    assert not any(layer._forward_hooks for layer in module)
