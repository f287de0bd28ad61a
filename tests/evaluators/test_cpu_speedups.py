"""Speed-ups of training on a CPU: they change the time, not the result."""

from __future__ import annotations

import pickle
import platform
import resource
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from slimsearch.evaluators.training.cpu_speedups import (
    depthwise_in_float32,
    dropout,
    keep_channels_last,
    speed_up_dropout,
)

_STEPS = """
import contextlib, resource, sys
import torch
from slimsearch.evaluators.training.cpu_speedups import reuse_freed_memory
torch.set_num_threads(1)
with reuse_freed_memory() if sys.argv[1] == "reused" else contextlib.nullcontext():
    def step():
        return [torch.ones(2**20, 12).relu() for _ in range(2)]  # 48 MiB each
    step()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        step()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() // 2**20)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_memory_is_reused_and_returned_at_the_end() -> None:
    def run(memory: str) -> tuple[int, int]:
        done = subprocess.run([sys.executable, "-c", _STEPS, memory], capture_output=True, text=True, check=True)
        faults, mebibytes = map(int, done.stdout.split())
        return faults, mebibytes

    (faults, resident), (default_faults, default_resident) = run("reused"), run("default")
    pages_per_step = 4 * 48 * 2**20 // resource.getpagesize()
    assert faults < pages_per_step < default_faults
    assert resident < default_resident + 48


@pytest.mark.parametrize("rate", [0.1, 0.25, 0.5, 0.9])
def test_dropout_has_the_rate_mean_and_gradient(rate: float) -> None:
    torch.manual_seed(0)
    x = torch.rand(200, 1001).add_(1).requires_grad_()
    y = dropout(x, rate)
    remaining = y.detach() != 0
    assert float(remaining.float().mean()) == pytest.approx(1 - rate, abs=0.005)
    torch.testing.assert_close(y.detach()[remaining], (x.detach() / (1 - rate))[remaining], rtol=1e-3, atol=0)
    # The mask is uniform over rows and columns.
    assert float((remaining.float().mean(dim=0) - (1 - rate)).abs().max()) < 0.2
    y.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad != 0, remaining)


def test_dropout_masks_follow_from_pytorchs_seed_and_change() -> None:
    x = torch.ones(64, 100)

    def masks() -> list[Tensor]:
        torch.manual_seed(3)
        return [dropout(x, 0.5) for _ in range(2)]

    first, second = masks()
    assert not torch.equal(first, second)
    assert all(torch.equal(a, b) for a, b in zip(masks(), (first, second), strict=True))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dropout_preserves_layout_and_type(dtype: torch.dtype) -> None:
    x = torch.ones(4, 8, 6, 6, dtype=dtype).contiguous(memory_format=torch.channels_last)
    y = dropout(x, 0.25)
    assert y.dtype == dtype
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert y.unique().tolist() == [0, float(torch.tensor(4 / 3, dtype=dtype))]
    assert dropout(torch.ones(6, 10)[:, ::2], 0.5).shape == (6, 5)


@pytest.mark.parametrize(
    ("layer", "is_replaced"),
    [
        (nn.Dropout(0.5), True),
        (nn.Dropout(0.5, inplace=True), False),
        (nn.Dropout2d(0.5), False),
        (nn.Dropout(0.0), False),
        (nn.Dropout(1.0), False),
    ],
)
def test_only_plain_dropout_layers_are_replaced_until_it_is_undone(layer: nn.Module, is_replaced: bool) -> None:
    def output() -> Tensor:
        torch.manual_seed(0)
        return module(torch.ones(2, 3, 4, 4))

    module = nn.Sequential(layer)
    original = output()
    undo = speed_up_dropout(module)
    torch.manual_seed(0)
    expected = dropout(torch.ones(2, 3, 4, 4), 0.5) if is_replaced else original
    assert torch.equal(output(), expected)
    assert torch.equal(module.eval()(torch.ones(2, 3)), torch.ones(2, 3))
    module.train()
    undo()
    assert torch.equal(output(), original)
    pickle.dumps(module)


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


def test_gradients_are_equal_and_in_channels_last() -> None:
    module = _Network().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    plain = _gradients(module)
    layouts: list[bool] = []

    def look(_: nn.Module, gradients: tuple[Tensor, ...], __: object) -> None:
        layouts.append(gradients[0].is_contiguous(memory_format=torch.channels_last))

    module.rest.register_full_backward_hook(look)
    undo = keep_channels_last(module)
    for _ in range(3):
        for one, other in zip(_gradients(module), plain, strict=True):
            torch.testing.assert_close(one, other)
    assert layouts == [True] * 3
    undo()
    _gradients(module)
    assert layouts == [True] * 3 + [False]


def test_gradients_that_are_in_channels_last_stay() -> None:
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.ReLU())
    module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def gradients() -> list[Tensor]:
        torch.manual_seed(0)
        module.zero_grad()
        x = torch.rand(2, 1, 8, 8).contiguous(memory_format=torch.channels_last)
        (module(x) * torch.rand(2, 6, 4, 4).contiguous(memory_format=torch.channels_last)).sum().backward()
        return [p.grad.clone() for p in module.parameters() if p.grad is not None]

    plain = gradients()
    keep_channels_last(module)
    for _ in range(2):
        assert all(torch.equal(one, other) for one, other in zip(gradients(), plain, strict=True))


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv2d(6, 6, 3, stride=2, padding=1, groups=6), (4, 6, 9, 9)),
        (nn.Conv2d(6, 6, 5, padding=2, groups=6, bias=False), (4, 6, 9, 9)),
        (nn.Conv2d(6, 6, 3, dilation=2, groups=6), (4, 6, 9, 9)),
        (nn.Conv2d(6, 12, 3, groups=6), (4, 6, 9, 9)),
        (nn.Conv1d(6, 6, 9, stride=3, groups=6), (4, 6, 40)),
        (nn.ConvTranspose2d(6, 6, 2, stride=2, groups=6), (4, 6, 5, 5)),
    ],
    ids=str,
)
def test_slow_depthwise_convolutions_compute_in_float32(layer: nn.Module, shape: tuple[int, ...]) -> None:
    x = torch.randn(shape).bfloat16()
    expected = layer(x.float())
    undo = depthwise_in_float32(layer)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = layer(x)
    assert output.dtype == torch.bfloat16
    assert torch.equal(output, expected.bfloat16())
    assert torch.equal(layer(x.float()), expected)
    undo()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    assert "forward" not in layer.__dict__


def test_other_convolutions_keep_their_precision() -> None:
    class Own(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return x

    layers = [
        nn.Conv2d(6, 6, 3, padding=1, groups=6), nn.Conv2d(6, 6, 3, stride=2), nn.Conv2d(1, 1, 5, stride=2),
        nn.Conv2d(6, 6, 5, groups=3), Own(6, 6, 5, groups=6),
    ]  # fmt: skip
    depthwise_in_float32(nn.Sequential(*layers))
    assert not any("forward" in layer.__dict__ for layer in layers)
