"""C files of random networks compute what ONNX Runtime does."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slimsearch.compression import Network, Quantization, export_onnx, write_c
from slimsearch.compression.export.c_source.compiled import CompiledNetwork, c_compiler
from slimsearch.evaluators import DeployedModel

pytestmark = [pytest.mark.slow, pytest.mark.skipif(c_compiler() is None, reason="no C compiler")]

PLANS = {"float": None, "int8": Quantization(), "weights-int8": Quantization(form="weights-int8")}
ACTIVATIONS: list[Callable[[Tensor], Tensor]] = [
    F.relu, F.relu6, F.hardswish, F.hardsigmoid, F.gelu, F.silu, F.elu, F.leaky_relu, F.mish, F.softplus, torch.abs,
    torch.sigmoid, torch.tanh,
]  # fmt: skip
OF_ONE: list[Callable[[Tensor], Tensor]] = [
    lambda a: 1 - a, lambda a: a * 0.5 + 0.25, lambda a: a.clamp(-0.5, 1.5), lambda a: a[:, ::2],
    lambda a: F.max_pool2d(a, 3, 2, 1), lambda a: F.avg_pool2d(a, 3, 2, 1), lambda a: a.softmax(1),
    lambda a: a * a.mean((2, 3), keepdim=True).sigmoid(), lambda a: a + a.amax(1, keepdim=True),
    lambda a: F.pad(a, (1, 0, 0, 1))[:, :, 1:, :-1], lambda a: F.group_norm(a, 1), lambda a: F.normalize(a, dim=1),
    lambda a: torch.cat([a, a[:, :1].tanh()], 1),
]  # fmt: skip
OF_TWO: list[Callable[[Tensor, Tensor], Tensor]] = [
    torch.add, torch.sub, torch.mul, torch.maximum, lambda a, b: torch.cat([a, b], 1), lambda a, b: a / (1 + b.abs()),
]  # fmt: skip
HEADS: list[Callable[[Tensor], Tensor]] = [
    lambda a: a.flatten(1), lambda a: a.mean((2, 3)), lambda a: a.amax((2, 3)),
]  # fmt: skip


class RandomNetwork(nn.Module):
    """Up to seven operators on maps, and up to two linear layers."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed
        self.layers = nn.ModuleDict()

    def layer(self, make: Callable[[], nn.Module]) -> nn.Module:
        """The next layer, made in the first call of the network."""
        name = str(self.used)
        self.used += 1
        if name not in self.layers:
            self.layers[name] = make()
        return self.layers[name]

    def forward(self, x: Tensor) -> Tensor:
        rng = random.Random(self.seed)
        self.used = 0
        maps = [self.layer(lambda: nn.Conv2d(1, 6, 3, padding=1))(x)]
        for _ in range(rng.randint(3, 7)):
            a, b, kind, width = rng.choice(maps[-3:]), rng.choice(maps[-3:]), rng.randrange(6), rng.choice([4, 8])
            one, two, activation = rng.choice(OF_ONE), rng.choice(OF_TWO), rng.choice(ACTIVATIONS)
            bias, channels = rng.random() < 0.5, a.shape[1]
            if kind == 0:
                maps.append(self.layer(lambda: nn.Conv2d(channels, width, 3, padding=1, bias=bias))(a))  # noqa: B023
            elif kind == 1:
                maps.append(self.layer(lambda: nn.Conv2d(channels, channels, 3, groups=channels))(F.pad(a, (1,) * 4)))  # noqa: B023
            elif kind == 2:
                maps.append(self.layer(lambda: nn.BatchNorm2d(channels))(a))  # noqa: B023
            elif kind == 3:
                maps.append(activation(a))
            else:
                maps.append(two(a, b) if kind == 4 and a.shape == b.shape else one(a))
        vector = rng.choice(HEADS)(maps[-1])
        outputs: Tensor = self.layer(lambda: nn.Linear(vector.shape[1], 10))(vector)
        if rng.random() < 0.5:
            outputs = self.layer(lambda: nn.Linear(10, 10))(rng.choice(ACTIVATIONS)(outputs))
            outputs = outputs + self.layer(lambda: nn.Linear(vector.shape[1], 10, bias=False))(vector)
        return outputs.log_softmax(1) if rng.random() < 0.2 else outputs


@pytest.mark.parametrize("form", PLANS)
@pytest.mark.parametrize("seed", range(24))
def test_outputs_are_those_of_onnx_runtime(seed: int, form: str, tmp_path: Path) -> None:
    torch.manual_seed(seed)
    images, module = torch.randn(200, 1, 8, 8), RandomNetwork(seed)
    with torch.no_grad():
        for _ in range(3):
            module.train()(images)
    export_onnx(Network(module.eval(), {}, PLANS[form]), tmp_path / "model.onnx", images[:64])
    write_c(tmp_path / "model.onnx", tmp_path / "model.c", "network")
    found = CompiledNetwork(tmp_path / "model.c", "network", tmp_path)(images.numpy())
    expected = DeployedModel(tmp_path / "model.onnx")(images.numpy())
    largest = np.abs(expected).max()
    # A float beside the middle of two integers may be rounded either way.
    tolerance = 0.05 if form == "int8" else 1e-4
    assert np.allclose(found, expected, rtol=0, atol=tolerance * largest)
    assert np.mean(found.argmax(1) == expected.argmax(1)) >= (0.98 if form == "int8" else 1)
