"""Laws of every score of untrained networks, and what the definitions of some imply."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators.scores import load_score
from slimsearch.names import built_in_names
from slimsearch.search_spaces import FixedModel, ModelSpace
from tests.conftest import VARIOUS

NAMES = built_in_names("slimsearch.evaluators.scores")
Batch = tuple[Tensor, Tensor]


def _lenet(**changes: object) -> nn.Module:
    from slimsearch.search_spaces.lenet import LeNet

    return ModelSpace.load("lenet", (1, 28, 28), 10).build({**LeNet.DEFAULT, **changes}, seed=1)


def _mnist_cnn() -> nn.Module:
    return ModelSpace.load("mnist_cnn", (1, 28, 28), 10).build({"conv2": 1, "dropout": 0.5, "feature": 64}, seed=1)


def _various(width: int = 16) -> nn.Module:
    return ModelSpace.load(VARIOUS, (1, 8, 8), 10).build({"width": width}, seed=1)


def _torchvision(name: str) -> nn.Module:
    return FixedModel.load(f"torchvision.models:{name}", (3, 32, 32), 10).build(seed=1)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "lenet": _lenet,
    "lenet-tanh": lambda: _lenet(activation="tanh"),
    "mnist_cnn": _mnist_cnn,
    "various": _various,
    "resnet18": lambda: _torchvision("resnet18"),
    "mobilenet_v3_small": lambda: _torchvision("mobilenet_v3_small"),
}
SIDES = {"various": 8, "resnet18": 32, "mobilenet_v3_small": 32}


def _batch(network: str, count: int = 16) -> Batch:
    """Real digits, enlarged to what the network takes."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    side = SIDES.get(network, 28)
    images = torch.tensor(digits.images[:count, None], dtype=torch.float32) / 8 - 1
    images = F.interpolate(images, (side, side), mode="nearest")
    return images.expand(-1, 3 if side == 32 else 1, -1, -1), torch.tensor(digits.target[:count])


@pytest.fixture(scope="module", params=NETWORKS)
def network(request: pytest.FixtureRequest) -> tuple[str, nn.Module]:
    return request.param, NETWORKS[request.param]()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("training", [True, False])
def test_finite_and_repeats_and_leaves_the_network(name: str, training: bool, network: tuple[str, nn.Module]) -> None:
    kind, module = network
    module.train(training)
    before, (images, labels) = copy.deepcopy(module.state_dict()), _batch(kind)
    torch.manual_seed(0)
    first = load_score(name).score(module, images, labels)
    torch.manual_seed(1)  # whatever is random in training has no part in it
    with torch.no_grad():
        again = load_score(name).score(module, images, labels)
    assert isinstance(first, float)
    assert np.isfinite(first)
    assert again == first
    assert module.training is training
    assert all(layer.training is training for layer in module.modules())
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())
    assert all(parameter.grad is None for parameter in module.parameters())


@pytest.mark.parametrize("name", ["params", "macs", "synflow"])
def test_wider_is_more(name: str) -> None:
    score = load_score(name).score
    for narrow, wide, kind in [
        (_lenet(conv2=8), _lenet(conv2=32), "lenet"),
        (_lenet(fc1=32), _lenet(fc1=120), "lenet"),
        (_various(16), _various(32), "various"),
    ]:
        assert score(wide, *_batch(kind)) > score(narrow, *_batch(kind))


def test_params_and_macs_of_the_original_lenet() -> None:
    batch = _batch("lenet")
    assert load_score("params").score(_lenet(), *batch) == 44426
    macs = 6 * 25 * 24 * 24 + 16 * 6 * 25 * 8 * 8 + 256 * 120 + 120 * 84 + 84 * 10
    assert load_score("macs").score(_lenet(), *batch) == macs


def test_synflow_is_the_sum_over_all_paths() -> None:
    """Without biases every layer carries the whole flow: the score is log(layers * flow)."""
    module = nn.Sequential(nn.Flatten(), nn.Linear(4, 8, bias=False), nn.Tanh(), nn.Linear(8, 3, bias=False))
    one, two = (parameter.detach().double().abs() for parameter in module.parameters())
    found = load_score("synflow").score(module, torch.zeros(2, 1, 2, 2), torch.zeros(2, dtype=torch.int64))
    assert found == pytest.approx(float(torch.log(2 * (two @ one).sum())))


def test_synflow_does_not_depend_on_data_or_activation_or_overflow() -> None:
    score, (images, labels) = load_score("synflow").score, _batch("lenet")
    expected = score(_lenet(), images, labels)
    assert score(_lenet(), images * 3, labels) == expected
    assert score(_lenet(activation="tanh"), images, labels) == expected
    deep = nn.Sequential(nn.Flatten(), nn.Linear(784, 64), *(nn.Linear(64, 64) for _ in range(60)))
    with torch.no_grad():
        for parameter in deep.parameters():
            parameter.fill_(1.0)  # 64 ** 60 is too much for float32
    assert np.isfinite(score(deep, images, labels))


def test_naswot_is_the_kernel_of_the_codes() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(784, 50), nn.Tanh(), nn.Linear(50, 20), nn.ReLU(inplace=True))
    images, labels = _batch("lenet", 8)
    hidden = module[1](images.flatten(1))
    codes = torch.cat([hidden, module[3](torch.tanh(hidden))], dim=1) > 0
    kernel = (codes[:, None] == codes[None]).sum(dim=2).double()
    found = load_score("naswot").score(module, images, labels)
    assert found == pytest.approx(float(torch.logdet(kernel)))


def test_naswot_sees_activations_however_they_are_called() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(784, 50), nn.Linear(50, 20)

        def forward(self, x: Tensor) -> Tensor:
            return torch.relu_(self.two(F.hardswish(self.one(torch.flatten(x, 1)))))

    written = Functional()
    modules = nn.Sequential(nn.Flatten(), written.one, nn.Hardswish(), written.two, nn.ReLU())
    score, batch = load_score("naswot").score, _batch("lenet", 8)
    assert score(written, *batch) == score(modules, *batch)
    linear = nn.Sequential(nn.Flatten(), written.one)
    assert score(linear, *batch) == -np.inf


def test_gradient_scores_by_hand() -> None:
    module, (images, labels) = _lenet(), _batch("lenet")
    copied = copy.deepcopy(module)
    F.cross_entropy(copied(images), labels).backward()
    weights = [parameter for parameter in copied.parameters() if parameter.ndim > 1]
    norms = sum(float(weight.grad.norm()) for weight in weights)
    saliency = sum(float((weight * weight.grad).abs().sum()) for weight in weights)
    assert load_score("grad_norm").score(module, images, labels) == pytest.approx(norms, rel=1e-5)
    assert load_score("snip").score(module, images, labels) == pytest.approx(saliency, rel=1e-5)


def test_a_score_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "class Depth:\n    def score(self, module, images, labels):\n        return float(len([*module.modules()]))\n"
        "class Nothing:\n    pass\n"
        "class Fails:\n    def __init__(self):\n        raise RuntimeError('no')\n    def score(self): ...\n"
    )
    assert load_score(f"{file}:Depth").score(_lenet(), *_batch("lenet")) > 5
    with pytest.raises(SlimsearchError, match="has no method score"):
        load_score(f"{file}:Nothing")
    with pytest.raises(SlimsearchError, match="RuntimeError: no"):
        load_score(f"{file}:Fails")
    with pytest.raises(SlimsearchError, match=r"unknown score 'zen'; known: .*synflow"):
        load_score("zen")
