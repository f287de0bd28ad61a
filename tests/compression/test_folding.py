"""BatchNorm, folded into the layer before it: in networks with a grid for each layer, and in exported files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from slimsearch.compression import Network, Quantization, export_onnx
from slimsearch.compression.quantization.folding import fold_batch_norm
from slimsearch.evaluators import DeployedModel

IMAGES = torch.randn(8, 2, 8, 8, generator=torch.Generator().manual_seed(0))


class _WithActivation(_BatchNorm):
    """Applies layers of its own to the result, in the order of their registration, as timm's do."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.drop, self.act = nn.Dropout(), nn.Hardswish(inplace=True)

    def _check_input_dim(self, input: Tensor) -> None:
        pass

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.drop(super().forward(x)))


class _ReluInside(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).relu()


class _OverTokens(nn.Module):
    """BatchNorm of the channels of tokens, (N, tokens, channels)."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(6)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.flatten(0, 1)).view_as(x)


class _Forked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x + self.norm(x)


class _Twice(nn.Module):
    def __init__(self, *, one_norm: bool) -> None:
        super().__init__()
        self.a = nn.Conv2d(2, 6, 3)
        self.b = nn.Conv2d(2, 6, 3) if one_norm else self.a
        self.norm = nn.BatchNorm2d(6)
        self.other = self.norm if one_norm else nn.BatchNorm2d(6)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.a(x)) + self.other(self.b(x))


def _network(*layers: nn.Module) -> nn.Module:
    """With a last layer, and statistics of a BatchNorm that change what it reads."""
    torch.manual_seed(0)
    module = nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(10)).eval()
    module(IMAGES)
    for layer in module.modules():
        if isinstance(layer, _BatchNorm):
            for tensor in (layer.weight, layer.running_var):
                if tensor is not None:
                    nn.init.uniform_(tensor, 0.5, 1.5)
            for tensor in (layer.bias, layer.running_mean):
                if tensor is not None:
                    nn.init.normal_(tensor)
    return module


LAYERS: dict[str, tuple[Callable[[], nn.Module], type[_BatchNorm]]] = {
    "convolution": (lambda: nn.Conv2d(2, 6, 3), nn.BatchNorm2d),
    "without bias": (lambda: nn.Conv2d(2, 6, 3, bias=False), nn.BatchNorm2d),
    "in groups": (lambda: nn.Conv2d(2, 6, 3, groups=2), nn.BatchNorm2d),
    "transposed": (lambda: nn.ConvTranspose2d(2, 6, 3), nn.BatchNorm2d),
    "of a signal": (lambda: nn.Sequential(nn.Flatten(2), nn.Conv1d(2, 6, 3)), nn.BatchNorm1d),
    "linear": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(128, 6)), nn.BatchNorm1d),
    "linear without bias": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(128, 6, bias=False)), nn.BatchNorm1d),
}
NORMS: dict[str, Callable[[type[_BatchNorm]], nn.Module]] = {
    "plain": lambda kind: kind(6),
    "not affine": lambda kind: kind(6, affine=False),
    "with an activation": lambda kind: _WithActivation(6),
    "after Identity": lambda kind: nn.Sequential(nn.Identity(), kind(6)),
}
FOLDED: dict[str, Callable[[], nn.Module]] = {
    f"{layer}, {norm}": lambda make=make, kind=kind, after=after: _network(make(), after(kind), nn.ReLU())
    for layer, (make, kind) in LAYERS.items()
    for norm, after in NORMS.items()
}
TOKENS = {"of tokens": lambda: _network(nn.Flatten(2), nn.Linear(64, 6), _OverTokens())}
KEPT: dict[str, Callable[[], nn.Module]] = {
    "read by others": lambda: _network(_Forked()),
    "after an activation": lambda: _network(nn.Conv2d(2, 6, 3), nn.ReLU(inplace=True), nn.BatchNorm2d(6)),
    "layer that runs twice": lambda: _network(_Twice(one_norm=False)),
    "norm that runs twice": lambda: _network(_Twice(one_norm=True)),
    "transposed in groups": lambda: _network(nn.ConvTranspose2d(2, 6, 3, groups=2), nn.BatchNorm2d(6)),
    "statistics of the batch": lambda: _network(nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6, track_running_stats=False)),
    "activation in its code": lambda: _network(nn.Conv2d(2, 6, 3), _ReluInside(6)),
    "over tokens": lambda: _network(nn.Flatten(2), nn.Linear(64, 6), nn.BatchNorm1d(2)),
    "over as many tokens as channels": lambda: _network(nn.Flatten(2), nn.Linear(64, 2), nn.BatchNorm1d(2)),
}


def _norms(module: nn.Module) -> int:
    return sum(isinstance(layer, _BatchNorm) for layer in module.modules())


@pytest.mark.parametrize("kind", [*FOLDED, *TOKENS, *KEPT])
def test_folding_changes_no_output(kind: str) -> None:
    module = {**FOLDED, **TOKENS, **KEPT}[kind]()
    folded = fold_batch_norm(Network(module, {}, Quantization()), IMAGES[:2]).module
    with torch.no_grad():
        assert torch.allclose(folded(IMAGES), module(IMAGES), atol=1e-4)
    assert _norms(folded) == (_norms(module) if kind in KEPT else 0)


def _operators(file: Path) -> list[str]:
    return [node.op_type for node in onnx.load(file).graph.node]


@pytest.mark.parametrize("kind", [*FOLDED, "read by others", "over as many tokens as channels"])
def test_a_file_has_no_batch_norm_that_can_be_folded(kind: str, tmp_path: Path) -> None:
    module, file = {**FOLDED, **KEPT}[kind](), tmp_path / "model.onnx"
    export_onnx(Network(module), file, IMAGES)
    with torch.no_grad():
        expected = module(IMAGES)
    assert torch.allclose(torch.from_numpy(DeployedModel(file)(IMAGES.numpy())), expected, atol=1e-4)
    assert _operators(file).count("BatchNormalization") == (_norms(module) if kind in KEPT else 0)


@pytest.mark.parametrize("kind", ["convolution, with an activation", "of a signal, plain", "linear, plain"])
def test_a_layer_before_a_batch_norm_keeps_its_name_in_the_file(kind: str, tmp_path: Path) -> None:
    module = FOLDED[kind]()
    kinds = nn.Conv2d | nn.Conv1d | nn.Linear
    first = next(name for name, layer in module.named_modules() if isinstance(layer, kinds))
    export_onnx(Network(module, {}, Quantization(keep_float=first)), tmp_path / "model.onnx", IMAGES)
    found = _operators(tmp_path / "model.onnx")
    assert "BatchNormalization" not in found
    assert "QuantizeLinear" in found
