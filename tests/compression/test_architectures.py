"""The architectures that users bring: pruned and quantized without a word about any of them in the code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from slimsearch import (
    compression,
    search_spaces,  # also: torchvision may need its operators declared
)
from slimsearch.compression import LossTerm, Network
from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import DeployedModel

slow = pytest.mark.slow


def _vit_tiny() -> nn.Module:
    from torchvision.models import VisionTransformer

    vit = VisionTransformer(
        image_size=32, patch_size=8, num_layers=2, num_heads=3, hidden_dim=48, mlp_dim=96, num_classes=10
    )
    nn.init.normal_(vit.heads.head.weight, std=0.1)  # zeros otherwise, and so would be all answers
    return vit


def _torchvision(name: str) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        import torchvision.models

        module: nn.Module = getattr(torchvision.models, name)(num_classes=10)
        return module

    return make


def _residual(block: str) -> Callable[[], nn.Module]:
    point = {"block": block, "depth1": 2, "depth2": 1, "depth3": 2, "stem": "plain"}
    widths = {"width1": 32, "width2": 64, "width3": 112}  # narrower ones are mostly the scales of int8
    return lambda: search_spaces.ModelSpace.load("resnet_cifar", (3, 32, 32), 10).build({**point, **widths})


MODELS = {
    **{f"resnet_cifar_{block}": _residual(block) for block in ("basic", "bottleneck", "inverted")},
    "resnet18": _torchvision("resnet18"),
    "mobilenet_v2": _torchvision("mobilenet_v2"),
    "mobilenet_v3_small": _torchvision("mobilenet_v3_small"),
    "efficientnet_b0": _torchvision("efficientnet_b0"),
    "densenet121": _torchvision("densenet121"),
    "resnext50_32x4d": _torchvision("resnext50_32x4d"),
    "convnext_tiny": _torchvision("convnext_tiny"),
    "shufflenet_v2_x0_5": _torchvision("shufflenet_v2_x0_5"),
    "vit_tiny": _vit_tiny,
}
# The residual stream of a vision transformer and shuffled channels cannot be cut, only what is inside of blocks.
LARGEST = {"vit_tiny": 0.85, "shufflenet_v2_x0_5": 0.75}  # share of the parameters after pruning
QUICK = ("resnet18", "mobilenet_v2", "vit_tiny", "resnet_cifar_basic", "resnet_cifar_inverted")
EACH = [pytest.param(name, marks=() if name in QUICK else slow) for name in MODELS]


class _NoTraining:
    """Stands where fine-tuning would be: whether a structure is right shows without it."""

    seed, epochs = 0, 1

    def __init__(self) -> None:
        self.calibration = torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        self.examples = (self.calibration, torch.arange(16) % 10)

    def fit(self, network: Network, *, losses: list[LossTerm], **settings: object) -> Network:
        return network


def _network(name: str) -> Network:
    torch.manual_seed(0)
    module = MODELS[name]()
    if any(isinstance(layer, nn.BatchNorm2d) for layer in module.modules()):
        module.train()
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.momentum = 1.0
        with torch.no_grad():  # statistics of its own, without which deep networks answer nothing
            module(torch.randn(64, 3, 32, 32, generator=torch.Generator().manual_seed(1)))
    return Network(module.eval())


@pytest.mark.parametrize("name", EACH)
def test_is_pruned_and_quantized(name: str, tmp_path: Path) -> None:
    network, training = _network(name), _NoTraining()
    pruned = compression.Recipe.parse("prune:sparsity=0.5").apply(network, training)
    assert pruned.params < LARGEST.get(name, 0.35) * network.params
    pruned.save(tmp_path)
    images = training.calibration
    with torch.no_grad():
        expected = pruned.module(images)
        assert torch.equal(Network.load(MODELS[name]().eval(), tmp_path).module(images), expected)
    compression.export_onnx(pruned, tmp_path / "fp32.onnx", images)
    answers = DeployedModel(tmp_path / "fp32.onnx")(images.numpy())
    assert np.allclose(answers, expected.numpy(), atol=1e-3 * float(expected.abs().max()))
    compression.export_onnx(
        compression.Recipe.parse({"quantize": {}}).apply(pruned, training), tmp_path / "int8.onnx", images
    )
    assert (tmp_path / "int8.onnx").stat().st_size < 0.9 * (tmp_path / "fp32.onnx").stat().st_size
    assert DeployedModel(tmp_path / "int8.onnx")(images.numpy()).shape == (16, 10)


@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name == "resnet18" else slow) for name in MODELS])
def test_learns_integers(name: str, tmp_path: Path) -> None:
    network, training = _network(name), _NoTraining()
    quantized = compression.Recipe.parse("qat").apply(network, training)
    images = training.calibration
    compression.export_onnx(quantized, tmp_path / "int8.onnx", images)
    assert quantized.quantization is not None
    assert len(quantized.quantization.learned) > 5
    assert DeployedModel(tmp_path / "int8.onnx")(images.numpy()).shape == (16, 10)


def test_what_cannot_be_pruned_says_which_layer_and_why_and_is_left() -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1), nn.Flatten(), nn.LazyLinear(10))
    module(_NoTraining().calibration)
    module[1].weight = module[2].weight
    network = Network(module.eval())
    before = {name: tensor.clone() for name, tensor in network.module.state_dict().items()}
    with pytest.raises(SlimsearchError, match=r"cannot be pruned: '2', '1', '0' .layers share a weight: 1, 2"):
        compression.Recipe.parse("prune").apply(network, _NoTraining())
    after = network.module.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
