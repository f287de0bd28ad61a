"""The number format of training."""

from __future__ import annotations

import pickle

import pytest
import torch
from torch import nn

from slimsearch.compression import Network
from slimsearch.evaluators import NetworkTraining, TrainingSettings, precision_for
from slimsearch.evaluators.datasets import Dataset
from slimsearch.evaluators.training import network_training as training
from slimsearch.evaluators.training.hardware import network_precision
from slimsearch.search_spaces import ModelSpace
from tests.conftest import TINY

IMAGES = torch.zeros(2, 16, 8, 8)


def dense() -> nn.Module:
    """144 MACs per output element of the convolution, 48 per output element of any layer."""
    return nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())


def light() -> nn.Module:
    """9 MACs per output element of the convolution."""
    return nn.Sequential(nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.BatchNorm2d(16), nn.ReLU())


def test_networks_of_many_macs_per_element_train_in_bfloat16() -> None:
    assert network_precision("mixed", Network(dense()), IMAGES) == "bf16"
    assert network_precision("mixed", Network(light()), IMAGES) == "fp32"
    assert [network_precision(named, Network(light()), IMAGES) for named in ("fp32", "bf16")] == ["fp32", "bf16"]


def test_the_network_is_left_as_it_was() -> None:
    module = dense()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    network_precision("mixed", Network(module), torch.randn(2, 16, 8, 8))
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    pickle.dumps(module)  # fails with a hook left


def test_a_training_uses_the_precision_of_its_network(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    used = set()
    entered = training.autocast

    def noted(precision: str, device: str) -> object:
        used.add(precision)
        return entered(precision, device)

    monkeypatch.setattr(training, "autocast", noted)
    network = Network(ModelSpace.load(TINY, (1, 8, 8), 10).build({"act": 0, "width": 16}))
    expected = network_precision("mixed", network, digits.normalise(digits.train.inputs[:1]))
    NetworkTraining(digits, TrainingSettings(precision="mixed"), seed=0).fit(network, epochs=1)
    assert used == {expected}


def test_auto_follows_from_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False)
    assert precision_for("auto", "cpu") == "fp32"
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert precision_for("auto", "cpu") == "mixed"
    assert [precision_for(name, "cpu") for name in ("fp32", "bf16", "mixed")] == ["fp32", "bf16", "mixed"]
