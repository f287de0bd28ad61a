"""Precision by measured sensitivity: the layers that suffer most stay in float32, and no more than it takes."""

from __future__ import annotations

import itertools
from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn

from slimsearch.compression import Network, Quantization, Recipe, export_onnx
from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import DeployedModel
from tests.compression.no_training import NoTraining

TRAINING = NoTraining(1, 10, 10, images=128)


class Uneven(nn.Module):
    """Two channels between `stem` and `wide` have very different size, and one scale."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.wide = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3)
        self.next, self.fc = nn.Conv2d(8, 8, 3), nn.Linear(8, 10)
        with torch.no_grad():
            self.stem.weight[0] *= 300
            self.wide.weight[:, 0] = 0.001 * self.wide.weight[:, 0]
            self.fc.bias.zero_()
            self.fc.bias -= self(TRAINING.calibration).mean(0)  # every class is answered

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.next(self.wide(self.stem(x).relu()).relu()).relu().mean((2, 3)))


def _changed(module: nn.Module, keep_float: str, path: Path) -> float:
    """Share of the images for which the file answers otherwise than the network."""
    images = TRAINING.calibration
    export_onnx(Network(module, {}, Quantization(keep_float=keep_float)), path, images)
    with torch.no_grad():
        expected = module(images).argmax(1)
    return float((torch.from_numpy(DeployedModel(path)(images.numpy())).argmax(1) != expected).float().mean())


def test_the_layers_that_help_the_file_most_stay_in_float(tmp_path: Path) -> None:
    module, names = Uneven().eval(), ("stem", "wide", "next", "fc")
    assert _changed(module, "none", tmp_path / "none.onnx") > 0.2, "the network does not suffer"
    pairs = {
        pair: _changed(module, " ".join(pair), tmp_path / "pair.onnx") for pair in itertools.combinations(names, 2)
    }
    plan = Recipe.parse("quantize:max_drop=12").apply(Network(module), TRAINING).quantization
    assert plan is not None
    assert plan.keep_float == "stem wide" == " ".join(min(pairs, key=pairs.__getitem__))
    assert _changed(module, plan.keep_float, tmp_path / "kept.onnx") <= 0.12


def test_nothing_is_rounded_between_layers_in_float(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    assert _changed(Uneven().eval(), "stem wide next fc", path) == 0
    assert "QuantizeLinear" not in [node.op_type for node in onnx.load(path).graph.node]


def test_no_layer_stays_in_float_without_need() -> None:
    plan = Recipe.parse("quantize:max_drop=99").apply(Network(Uneven().eval()), TRAINING).quantization
    assert plan == Quantization()


@pytest.mark.parametrize("text", ["max_drop=-1", "max_drop=1:keep_float=first", "max_drop=100"])
def test_wrong_values_say_so(text: str) -> None:
    with pytest.raises(SlimsearchError, match="max_drop"):
        Recipe.parse(f"quantize:{text}")
