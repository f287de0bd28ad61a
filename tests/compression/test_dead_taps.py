"""Taps of kernels that only meet padding: removed without a difference, and counted nowhere."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from slimsearch.compression import Network, Recipe, export_onnx
from slimsearch.compression.prune import Prune
from slimsearch.errors import SlimsearchError

_KINDS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


class _NoTraining:
    seed, epochs = 0, 1

    def __init__(self, *shape: int) -> None:
        self.calibration = torch.randn(4, *shape, generator=torch.Generator().manual_seed(0))

    def fit(self, network: Network, **_: object) -> Network:
        return network

    def initial(self) -> nn.Module:
        return small_maps()

    def latency_ms(self, network: Network) -> float:
        return 1.0


def _used(layer: Any, shape: tuple[int, ...]) -> Tensor:
    """Whether each tap reads the input, (kernel size): its gradient for an input of ones, a formula of its own."""
    layer = layer.double()
    (gradient,) = torch.autograd.grad(layer(torch.ones(1, *shape, dtype=torch.float64)).sum(), layer.weight)
    return (gradient != 0).flatten(0, 1).any(0)


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[Any, tuple[int, ...]]:
    """A convolution and the shape of its input; a kernel may reach beyond the input on both sides."""
    dimensions = draw(st.sampled_from([1, 2, 2, 2, 3]))
    kernel = [draw(st.integers(1, 5)) for _ in range(dimensions)]
    dilation = [draw(st.sampled_from([1, 1, 2, 3])) for _ in range(dimensions)]
    stride: list[int] | int = [draw(st.sampled_from([1, 1, 2, 3])) for _ in range(dimensions)]
    padding: list[int] | str = [draw(st.integers(0, 6)) for _ in range(dimensions)]
    if draw(st.sampled_from([False, False, True])):
        stride, padding = 1, draw(st.sampled_from(["same", "valid"]))
    groups = draw(st.sampled_from([1, 2, 4]))
    size = [draw(st.integers(1, 5)) for _ in range(dimensions)]
    if not isinstance(padding, list):
        size = [max(n, d * (k - 1) + 1) if padding == "valid" else n
                for n, k, d in zip(size, kernel, dilation, strict=True)]  # fmt: skip
    else:
        size = [max(n, d * (k - 1) + 1 - 2 * p) for n, k, d, p in zip(size, kernel, dilation, padding, strict=True)]
    layer = _KINDS[dimensions](4, 4, kernel, stride, padding, dilation, groups, bias=draw(st.booleans()))  # type: ignore
    return layer, (4, *size)


@given(convolutions())
@settings(max_examples=100, deadline=None, derandomize=True)
def test_any_convolution_gives_the_same(drawn: tuple[Any, tuple[int, ...]]) -> None:
    layer, shape = drawn
    network = Network(nn.Sequential(layer).eval())
    images = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    remaining = network.without_dead_taps(shape)
    with torch.no_grad():
        assert torch.allclose(remaining.module(images), network.module(images), atol=1e-6)
    taps = remaining.structure.get("taps", {"layers": {"0": {"taps": [[0, k] for k in layer.kernel_size]}}})["layers"]
    ends, used = taps["0"]["taps"], _used(layer, shape)
    assert used[tuple(slice(first, stop) for first, stop in ends)].sum() == used.sum(), "a tap that is used is gone"
    assert remaining.params <= network.params


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("groups", [1, 8])
def test_centered_kernels_lose_every_dead_row(size: int, kernel: int, stride: int, groups: int) -> None:
    layer = nn.Conv2d(8, 8, kernel, stride, kernel // 2, groups=groups)
    remaining = Network(nn.Sequential(layer)).without_dead_taps((8, size, size)).module[0]
    rows = _used(layer, (8, size, size)).any(1).nonzero().flatten()
    assert remaining.kernel_size == (int(rows[-1] - rows[0]) + 1,) * 2


def small_maps() -> nn.Module:
    """For 1x8x8 images: the kernels of the last two convolutions are larger than their maps."""
    torch.manual_seed(0)
    widths = [1, 16, 32, 32, 32]
    convolutions = [nn.Conv2d(a, b, 3, 2, 1, bias=False) for a, b in itertools.pairwise(widths)]
    layers = [layer for conv in convolutions for layer in (conv, nn.BatchNorm2d(conv.out_channels), nn.ReLU())]
    module = nn.Sequential(*layers, nn.Flatten(), nn.Linear(32, 10))
    module(torch.randn(64, 1, 8, 8) * 2 + 1)
    return module.eval()


def test_the_file_and_its_numbers_have_no_dead_taps(tmp_path: Path) -> None:
    network, images = Network(small_maps()), _NoTraining(1, 8, 8).calibration
    remaining = network.without_dead_taps((1, 8, 8))
    # Maps of 8, 4, 2, 1 and 1: the kernels of the last two lose a row and a column, and two of them.
    assert [remaining.module[i].kernel_size for i in (0, 3, 6, 9)] == [(3, 3), (3, 3), (2, 2), (1, 1)]
    assert remaining.params == network.params - 32 * 32 * (5 + 8)
    assert remaining.macs(images) == network.macs(images) - 32 * 32 * (5 + 8)
    export_onnx(network, tmp_path / "model.onnx", images)
    weights = [t for t in onnx.load(tmp_path / "model.onnx").graph.initializer if len(t.dims) > 1]
    assert sum(onnx.numpy_helper.to_array(t).size for t in weights) == sum(
        p.numel() for p in remaining.module.parameters() if p.ndim > 1
    )
    assert network.module[9].kernel_size == (3, 3), "the given network is changed"


def test_a_budget_of_parameters_is_of_live_weights() -> None:
    network = Network(small_maps())
    live = network.without_dead_taps((1, 8, 8)).params
    with pytest.raises(SlimsearchError, match="no more than"):
        Prune(params=live, round_to=1).apply(network, _NoTraining(1, 8, 8))
    pruned = Prune(params=live // 2, round_to=1).apply(network, _NoTraining(1, 8, 8))
    assert 0.8 * live // 2 < pruned.params <= live // 2


@pytest.mark.parametrize(
    "recipe",
    ["prune:sparsity=0.5:round_to=1", "prune:after=rewind", "low_rank:energy=0.5", "bnn", "prune,low_rank,qat"],
)
def test_stages_and_stored_networks(recipe: str, tmp_path: Path) -> None:
    training = _NoTraining(1, 8, 8)
    made = Recipe.parse(recipe).apply(Network(small_maps()), training)
    made.save(tmp_path)
    loaded = Network.load(small_maps(), tmp_path)
    assert made.structure["taps"]["input_shape"] == [1, 8, 8]
    assert loaded.without_dead_taps((1, 8, 8)).params == made.params
    with torch.no_grad():
        assert torch.equal(loaded.module(training.calibration), made.module.eval()(training.calibration))
    with pytest.raises(SlimsearchError, match="for inputs of 1x8x8, not 1x16x16"):
        export_onnx(loaded, tmp_path / "model.onnx", torch.randn(2, 1, 16, 16))


class Standardized(nn.Conv2d):
    """The mean of all taps, dead ones too, changes the result."""

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight - self.weight.mean(), self.bias)


class Twice(nn.Module):
    """One convolution at two sizes of its input."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 5, padding=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).mean((2, 3)) + self.conv(x[:, :, :1, :1]).mean((2, 3))


class ByFunction(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) + nn.functional.conv2d(nn.functional.pad(x, [1, 1, 1, 1]), self.conv.weight)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.b.weight = self.a.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x))


@pytest.mark.parametrize(
    ("make", "params"),
    [
        (lambda: Standardized(4, 4, 3, padding=1), 148),
        (lambda: nn.ConvTranspose2d(4, 4, 3, padding=1), 148),
        (lambda: nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"), 148),
        (lambda: nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 4, 3, padding=1)), 152),
        (lambda: nn.utils.weight_norm(nn.Conv2d(4, 4, 3, padding=1)), 152),
        (ByFunction, 148),
        (Tied, 152),
        (lambda: nn.Conv2d(4, 4, 3, padding=1), 20),
    ],
)
def test_what_stays_whole(make: Callable[[], nn.Module], params: int) -> None:
    network = Network(nn.Sequential(make()).eval())
    remaining, images = network.without_dead_taps((4, 1, 1)), torch.randn(2, 4, 1, 1)
    assert remaining.params == params
    with torch.no_grad():
        assert torch.allclose(network.module(images), remaining.module(images), atol=1e-6)


def test_a_convolution_that_runs_twice_keeps_the_taps_of_both() -> None:
    network, images = Network(Twice().eval()), torch.randn(2, 4, 2, 2)
    remaining = network.without_dead_taps((4, 2, 2))
    assert remaining.module.conv.kernel_size == (3, 3)
    with torch.no_grad():
        assert torch.allclose(network.module(images), remaining.module(images), atol=1e-6)


def test_folded_weights_lose_their_dead_taps() -> None:
    layer = nn.utils.parametrizations.weight_norm(nn.Conv2d(1, 4, 3, padding=1))
    network = Network(nn.Sequential(layer, nn.Flatten(), nn.Linear(4, 10)).eval())
    made = Recipe.parse("quantize").apply(network, _NoTraining(1, 1, 1))
    assert made.module[0].weight.shape == (4, 1, 1, 1)


def test_sizes_are_known_without_memory_for_weights() -> None:
    with torch.device("meta"):
        module = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1)).eval()
    assert Network(module).without_dead_taps((4, 1, 1)).params == 20
