"""Parallel branches of RepVGG and MobileOne: one convolution in the file, and the same answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from slimsearch.compression import Network, Quantization, export_onnx
from slimsearch.evaluators import DeployedModel


def _conv(width: int, kernel: int, **options: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width, width, kernel, padding=kernel // 2, bias=False, **options), nn.BatchNorm2d(width)
    )


class Parallel(nn.Module):
    """The sum of branches, (N, 8, H, W)."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        out = 0
        for branch in self.branches:
            out = out + branch(x)
        return out.relu()


class Two(nn.Module):
    """Branches of different inputs, and a sum that is read twice."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = _conv(8, 3), _conv(8, 1), _conv(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x) + self.b(x.relu())
        z = self.c(y)
        return (z + self.b(y)) * z


def _network(*blocks: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)
    )
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias)
    for _ in range(3):
        module(torch.randn(16, 3, 9, 9))
    return module.eval()


def _operators(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


@pytest.mark.parametrize(
    ("block", "convolutions"),
    [
        (lambda: Parallel(_conv(8, 3), _conv(8, 1), nn.BatchNorm2d(8)), 1),  # RepVGG
        (lambda: Parallel(_conv(8, 3, stride=2), _conv(8, 1, stride=2)), 1),
        (lambda: Parallel(nn.BatchNorm2d(8), _conv(8, 1, groups=8), *(_conv(8, 3, groups=8) for _ in range(3))), 1),
        (lambda: Parallel(nn.BatchNorm2d(8), _conv(8, 5, groups=2), _conv(8, 3, groups=2)), 1),
        (lambda: Parallel(_conv(8, 3), nn.Sequential(nn.Conv2d(8, 8, 3, padding=2, dilation=2))), 2),
        (lambda: Parallel(_conv(8, 3), _conv(8, 3, groups=2)), 2),
        (lambda: Parallel(_conv(8, 3), nn.Identity()), 1),  # a residual stays one
        (Two, 4),
    ],
)
def test_one_convolution_and_the_same_answers(
    block: Callable[[], nn.Module], convolutions: int, tmp_path: Path
) -> None:
    module, images = _network(block()), torch.randn(8, 3, 9, 9)
    export_onnx(Network(module), tmp_path / "model.onnx", images)
    found = _operators(tmp_path / "model.onnx")
    assert found.count("Conv") == 1 + convolutions
    assert convolutions > 1 or "BatchNormalization" not in found
    with torch.no_grad():
        expected = module(images)
    assert torch.allclose(torch.from_numpy(DeployedModel(tmp_path / "model.onnx")(images.numpy())), expected, atol=1e-5)


def test_the_kernel_is_that_of_the_paper(tmp_path: Path) -> None:
    block = Parallel(_conv(8, 3), _conv(8, 1), nn.BatchNorm2d(8))
    module = _network(block)
    export_onnx(Network(module), tmp_path / "model.onnx", torch.randn(4, 3, 9, 9))
    # RepVGG, section 3.3: each branch with its BatchNorm, smaller kernels in the middle of zeros.
    kernel = torch.zeros(8, 8, 3, 3)
    for branch in block.branches:
        norm = branch if isinstance(branch, nn.BatchNorm2d) else branch[1]
        own = torch.eye(8).view(8, 8, 1, 1) if norm is branch else branch[0].weight.detach()
        own = own * (norm.weight / (norm.running_var + norm.eps).sqrt()).detach().view(8, 1, 1, 1)
        kernel += own if own.shape[-1] == 3 else nn.functional.pad(own, [1, 1, 1, 1])
    weights = [numpy_helper.to_array(t) for t in onnx.load(tmp_path / "model.onnx").graph.initializer]
    assert any(w.shape == (8, 8, 3, 3) and torch.allclose(torch.tensor(w), kernel, atol=1e-5) for w in weights)


@pytest.mark.parametrize("form", ["static", "weights-int8"])
def test_quantized_files_have_one_convolution_too(form: str, tmp_path: Path) -> None:
    module = _network(Parallel(_conv(8, 3), _conv(8, 1), nn.BatchNorm2d(8)))
    export_onnx(Network(module, {}, Quantization(form=form)), tmp_path / "model.onnx", torch.randn(32, 3, 9, 9))
    assert _operators(tmp_path / "model.onnx").count("Conv") == 2
