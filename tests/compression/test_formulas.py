"""Methods against the formulas of their papers, written here a second time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from torch import Tensor, nn

from slimsearch.compression import Network, Quantization, Recipe, export_onnx, pack
from slimsearch.compression.export.entropy import best_bins
from slimsearch.compression.level import Level
from slimsearch.compression.pruning.channels import Channels
from slimsearch.compression.pruning.importances.taylor import Taylor
from slimsearch.compression.pruning.pruning_stage import observe
from slimsearch.evaluators import DeployedModel
from slimsearch.names import load_class


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.b, self.fc = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 6, 3), nn.Linear(6, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.b(self.norm(self.a(x)).relu()).relu().mean((2, 3)))


class Training:
    """A training of a few steps with SGD, so that a step is one line of a formula."""

    seed, epochs, rate, steps = 0, 1, 0.2, 40

    def __init__(self, *shape: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.calibration = torch.randn(256, *shape, generator=generator)
        self.examples = self.calibration, torch.randint(10, (256,), generator=generator)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs, targets)

    def fit(self, network: Network, *, after_step: Sequence[Any] = (), **_: object) -> Network:
        module = network.copy_module()
        for callback in after_step:
            callback.attach(module)
        for step in range(self.steps):
            module.zero_grad()
            images, labels = (values[step % 4 :: 4] for values in self.examples)
            F.cross_entropy(module(images), labels).backward()
            with torch.no_grad():
                for parameter in module.parameters():
                    parameter -= self.rate * parameter.grad
            for callback in after_step:
                callback(module, step, self.steps)
        return Network(module.eval(), network.structure, network.quantization)


def _first_cut(importance: str, module: nn.Module, count: int) -> set[int]:
    """The channels of layer `a` that an importance cuts first."""
    made = load_class("importance", importance, "slimsearch.compression.pruning.importances")()
    scores = made.scores({name: parameter.detach() for name, parameter in module.named_parameters()})
    channels = Channels(module, torch.randn(4, 3, 8, 8))
    cuts = channels.choose(made, scores, [count / 8], together=False)
    return set(next(cut for cut in cuts if cut.layer == "a").channels)


def _rows(weight: Tensor) -> list[list[float]]:
    return [[float(value) for value in row.flatten()] for row in weight]


def _fpgm(module: Any) -> list[float]:
    rows = _rows(module.a.weight)
    return [sum(sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) ** 0.5 for b in rows) for a in rows]


FORMULAS: dict[str, Callable[[Any], list[float]]] = {
    "fpgm": _fpgm,
    "l1": lambda module: [sum(map(abs, row)) for row in _rows(module.a.weight)],
    "l2": lambda module: [sum(x * x for x in row) for row in _rows(module.a.weight)],
    "group_l1": lambda module: [
        sum(map(abs, filters)) + abs(scale) + sum(map(abs, readers))
        for filters, scale, readers in zip(
            _rows(module.a.weight), module.norm.weight.tolist(), _rows(module.b.weight.transpose(0, 1)), strict=True
        )
    ],
    "group_l2": lambda module: [
        sum(x * x for x in (*filters, scale, *readers))
        for filters, scale, readers in zip(
            _rows(module.a.weight), module.norm.weight.tolist(), _rows(module.b.weight.transpose(0, 1)), strict=True
        )
    ],
}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("importance", FORMULAS)
def test_importances_of_channels(importance: str, seed: int) -> None:
    torch.manual_seed(seed)
    module = Plain().eval()
    nn.init.uniform_(module.norm.weight, 0.5, 5.0)
    values = FORMULAS[importance](module)
    assert _first_cut(importance, module, 3) == set(np.argsort(values)[:3].tolist())


def test_fpgm_cuts_the_filter_in_the_middle_and_not_the_small_one() -> None:
    module = Plain().eval()
    with torch.no_grad():
        for channel, value in enumerate([-3.0, -2.0, 0.1, 1.0, 1.1, 1.2, 3.0, 4.0]):
            module.a.weight[channel] = value
    assert _first_cut("fpgm", module, 1) == {3}
    assert _first_cut("l1", module, 1) == {2}


def test_taylor_is_the_mean_over_all_batches() -> None:
    torch.manual_seed(0)
    module, training, taylor = Plain().eval(), Training(3, 8, 8), Taylor()
    observe(taylor, module, training)
    expected = torch.zeros_like(module.a.weight)
    images, labels = training.examples
    for batch in range(4):
        part = slice(64 * batch, 64 * batch + 64)
        (gradient,) = torch.autograd.grad(F.cross_entropy(module(images[part]), labels[part]), module.a.weight)
        expected += (module.a.weight * gradient).detach() ** 2 / 4
    assert torch.allclose(taylor.scores({})["a.weight"], expected, rtol=1e-4, atol=0)


def test_movement_trains_masked_weights_straight_through() -> None:
    torch.manual_seed(0)
    training, network = Training(6), Network(nn.Linear(6, 10, bias=False).eval())
    stage = Level(sparsity=0.6, importance="movement", schedule="linear", events=4, ramp=0.8)
    result = stage.apply(network, training).module.weight
    # The algorithm of the paper: hidden weights W, a mask of the best scores, and gradients at the masked weights.
    values, scores = network.module.weight.detach().clone(), torch.zeros(10, 6)
    mask, returned = torch.ones(10, 6, dtype=torch.bool), 0
    for step in range(40):
        images, labels = (part[step % 4 :: 4] for part in training.examples)
        masked = (values * mask).requires_grad_(True)
        (gradient,) = torch.autograd.grad(F.cross_entropy(images @ masked.T, labels), masked)
        values -= 0.2 * gradient * mask
        if step < 32:
            scores -= values * gradient
        if step < 32:
            before, share = mask, (step + 1) / 32
            mask = torch.ones(60, dtype=torch.bool)
            mask[scores.flatten().argsort(stable=True)[: round(0.6 * share * 60)]] = False
            mask = mask.view(10, 6)
            returned += int((mask & ~before).sum())
    assert torch.allclose(result, values * mask, atol=1e-5)
    assert returned > 0, "no weight came back, so that nothing was tested"


def _divergence(counts: list[float], bins: int, levels: int) -> float:
    """Kullback-Leibler divergence, bin by bin."""
    p = [*counts[: bins - 1], counts[bins - 1] + sum(counts[bins:])]
    q = [0.0] * bins
    for level in range(levels):
        own = [i for i in range(bins) if i * levels // bins == level and p[i] > 0]
        for i in own:
            q[i] = sum(counts[j] for j in range(bins) if j * levels // bins == level) / len(own)
    if any(x > 0 and y == 0 for x, y in zip(p, q, strict=True)):
        return float("inf")
    x, y = np.array(p) / sum(p), np.array(q) / sum(q)
    return float(sum(a * np.log(a / b) for a, b in zip(x, y, strict=True) if a > 0))


@pytest.mark.parametrize("seed", range(3))
def test_entropy_takes_the_range_with_the_least_divergence(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = np.abs(np.concatenate([rng.normal(0, 1, 20000), rng.normal(0, 5, 40)]))
    counts = np.histogram(values, 256, (0, values.max()))[0].astype(float)
    best = best_bins(counts, 16)
    every = {bins: _divergence(counts.tolist(), bins, 16) for bins in range(256, 15, -8)}
    assert every[best] == pytest.approx(min(every.values()))
    assert best < 256, "it cuts nothing off, as min-max"


class Outliers(nn.Module):
    """A large activation in one image of many."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.fc = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.b(self.a(x).relu()).relu().mean((2, 3)))


def test_entropy_ranges_cut_outliers_off_and_keep_the_activation(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, images = Outliers().eval(), torch.randn(256, 1, 10, 10)
    images[7] *= 30
    scales, errors = {}, {}
    for calibration in ("minmax", "entropy"):
        path = tmp_path / f"{calibration}.onnx"
        export_onnx(Network(module, {}, Quantization(calibration=calibration)), path, images)
        graph = onnx.load(path).graph
        known = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
        quantized = [node for node in graph.node if node.op_type == "QuantizeLinear" and node.input[0] not in known]
        scales[calibration] = [float(known[node.input[1]]) for node in quantized]
        with torch.no_grad():
            difference = DeployedModel(path)(images[8:].numpy()) - module(images[8:]).numpy()
        errors[calibration] = float(np.square(difference).mean())
    pairs = list(zip(scales["entropy"], scales["minmax"], strict=True))
    assert all(entropy <= minmax * 1.001 for entropy, minmax in pairs)
    assert sum(entropy < 0.5 * minmax for entropy, minmax in pairs) >= 3
    assert errors["entropy"] < errors["minmax"] / 4


def test_binary_weights_have_two_values_and_pack_to_one_bit() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 64, 3), nn.BatchNorm2d(64), nn.ReLU(),
        nn.Conv2d(64, 64, 3), nn.Flatten(), nn.Linear(256, 10),
    )  # fmt: skip
    network = Recipe.parse("bnn").apply(Network(module.eval()), Training(1, 8, 8))
    inner = [network.module[3][1].weight, network.module[6][1].weight]
    assert [len(weight.unique()) for weight in inner] == [2, 2]
    packed = pack(network)
    whole = sum(t.numel() * t.element_size() for t in network.module.state_dict().values())
    assert packed is not None
    assert len(packed) < whole - sum(weight.numel() for weight in inner) * (32 - 1.02) / 8 + 1000
