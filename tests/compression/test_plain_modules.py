"""Modules as users bring them: wrapped, compiled, scripted, with computed or shared weights."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

import slimsearch
from slimsearch.compression import Network, Recipe
from slimsearch.errors import SlimsearchError
from tests.compression.no_training import NoTraining

TRAINING = NoTraining(1, 8, 8, images=8)
IMAGES = TRAINING.calibration


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.fc = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.b(self.a(x).relu()).relu().mean((2, 3)))


def _parts_wrapped() -> nn.Module:
    module = Small()
    module.a, module.b = nn.DataParallel(module.a), torch.compile(module.b)
    return module


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda: nn.DataParallel(Small()), lambda: torch.compile(Small()),
        lambda: nn.DataParallel(torch.compile(Small())), _parts_wrapped,
    ],
)  # fmt: skip
def test_wrappers_are_removed(wrapped: Callable[[], nn.Module], tmp_path: Path) -> None:
    pruned = Recipe.parse("prune:sparsity=0.5").apply(Network(wrapped().eval()), TRAINING)
    assert {type(layer) for layer in pruned.module.modules()} == {Small, nn.Conv2d, nn.Linear}
    assert pruned.module.a.out_channels == 4
    pruned.save(tmp_path)
    assert torch.equal(Network.load(wrapped(), tmp_path).module(IMAGES), pruned.module(IMAGES))


def _loaded(module: nn.Module, images: Tensor) -> nn.Module:
    """A module of the class that `torch.jit.script` returns too.

    That function finds built-in operators by `id`, also those that were freed, as when another overload was defined. A
    tuple of a convolution that has such an id by now counts as the operator, and the compilation fails.
    """
    file = io.BytesIO()
    torch.jit.save(torch.jit.trace(module, images), file)
    file.seek(0)
    return torch.jit.load(file)


def _part_loaded() -> nn.Module:
    module = Small()
    module.b = _loaded(module.b, torch.zeros(1, 8, 6, 6))
    return module


@pytest.mark.parametrize(
    "scripted", [lambda: _loaded(Small(), IMAGES), lambda: torch.jit.trace(Small(), IMAGES), _part_loaded]
)
def test_torchscript_is_refused(scripted: Callable[[], nn.Module]) -> None:
    with pytest.raises(SlimsearchError, match="TorchScript"):
        slimsearch.compress(scripted(), "prune", slimsearch.load_dataset("digits"))


class _Even(nn.Module):
    """Keeps a weight symmetric."""

    def forward(self, weight: Tensor) -> Tensor:
        return (weight + weight.flip(-1)) / 2


def _masked(layer: nn.Module) -> None:
    prune.random_unstructured(layer, "weight", 0.3)
    prune.l1_unstructured(layer, "bias", 0.5)


COMPUTED: dict[str, Callable[[nn.Module], object]] = {
    "weight norm": parametrizations.weight_norm,
    "spectral norm": parametrizations.spectral_norm,
    "two in a row": lambda layer: parametrizations.spectral_norm(
        parametrize.register_parametrization(layer, "weight", _Even())
    ),
    "older weight norm": nn.utils.weight_norm,
    "older spectral norm": nn.utils.spectral_norm,
    "masks": _masked,
}


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize("kind", COMPUTED)
@pytest.mark.parametrize("recipe", ["prune:sparsity=0.5:epochs=1", "level:epochs=1", "quantize"])
def test_computed_weights_become_plain(kind: str, recipe: str, tmp_path: Path) -> None:
    def build() -> nn.Module:
        torch.manual_seed(0)
        module = Small()
        COMPUTED[kind](module.a)
        COMPUTED[kind](module.b)
        return module

    module = build()
    module(IMAGES).sum().backward()  # the older norms keep the result in the layer
    module.eval()
    with torch.no_grad():
        before, names = module(IMAGES), set(module.state_dict())
        small = Recipe.parse(recipe).apply(Network(module), TRAINING)
        assert torch.equal(module(IMAGES), before), "the given module has changed"
    assert set(module.state_dict()) == names
    assert set(small.module.state_dict()) == set(Small().state_dict())
    if recipe == "quantize":
        assert torch.allclose(small.module(IMAGES), before, atol=1e-6)
    if recipe.startswith("prune"):
        assert (small.module.a.out_channels, small.module.b.in_channels) == (4, 4)
    small.save(tmp_path)
    assert torch.allclose(Network.load(build(), tmp_path).module(IMAGES), small.module(IMAGES), atol=1e-6)


class RemembersFeatures(Small):
    def forward(self, x: Tensor) -> Tensor:
        self.features, self.all = self.a(x).relu(), {"b": [self.b(self.a(x))]}
        return self.fc(self.b(self.features).relu().mean((2, 3)))


def test_a_module_that_keeps_results_of_its_last_call_is_copied() -> None:
    module = RemembersFeatures()
    module(IMAGES)
    with pytest.raises(RuntimeError):
        copy.deepcopy(module)
    assert Recipe.parse("prune:sparsity=0.5").apply(Network(module), TRAINING).module.a.out_channels == 4


class Tied(Small):
    def __init__(self) -> None:
        super().__init__()
        self.c, self.d = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.d.weight = self.c.weight

    def forward(self, x: Tensor) -> Tensor:
        x = self.d(self.c(self.a(x).relu()).relu()).relu()
        return self.fc(self.b(x).relu().mean((2, 3)))


@pytest.mark.parametrize("schedule", ["at_once", "linear"])
def test_layers_that_share_a_weight_are_left_whole(schedule: str, caplog: pytest.LogCaptureFixture) -> None:
    pruned = Recipe.parse(f"prune:sparsity=0.5:schedule={schedule}").apply(Network(Tied()), TRAINING).module
    assert pruned.c.weight is pruned.d.weight
    assert pruned.c.out_channels == 8
    assert "'c'" in caplog.text
    if schedule == "at_once":
        assert pruned.b.out_channels == 4


class TalkingHeads(nn.Module):
    """Attention with a convolution over the heads, in which the search for dependent channels finds ever more."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.fc = nn.Conv2d(1, 32, 3, padding=1), nn.Linear(32, 10)
        self.q, self.k, self.v, self.out = (nn.Conv2d(32, 32, 1) for _ in range(4))
        self.mix, self.last = nn.Conv2d(4, 4, 1), nn.Conv2d(32, 32, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        n, c, h, w = x.shape
        q, k, v = (layer(x).flatten(2).reshape(n, 4, -1, h * w) for layer in (self.q, self.k, self.v))
        weights = self.mix(torch.einsum("bhdi,bhdj->bhij", q, k)).softmax(-1)
        y = torch.einsum("bhij,bhdj->bhdi", weights, v).reshape(n, c, h, w)
        return self.fc(self.last((x + self.out(y)).relu()).relu().mean((2, 3)))


class MatrixProducts(TalkingHeads):
    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        n, c, h, w = x.shape
        q, k, v = (layer(x).flatten(2).reshape(n, 4, -1, h * w) for layer in (self.q, self.k, self.v))
        y = (self.mix(q.permute(0, 1, 3, 2) @ k).softmax(-1) @ v.permute(0, 1, 3, 2)).transpose(2, 3)
        return self.fc(self.last((x + self.out(y.reshape(n, c, h, w))).relu()).relu().mean((2, 3)))


@pytest.mark.parametrize("attention", [TalkingHeads, MatrixProducts])
def test_attention_that_cannot_be_analyzed_is_left_whole(
    attention: type[nn.Module], caplog: pytest.LogCaptureFixture
) -> None:
    pruned = Recipe.parse("prune:sparsity=0.5:round_to=1").apply(Network(attention()), TRAINING).module
    assert (pruned.q.out_channels, pruned.last.out_channels) == (32, 16)
    assert "'q'" in caplog.text
