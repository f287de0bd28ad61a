"""Weight clustering: few values, zeros that stay, and centroids that learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from torch import nn

from slimsearch import compression
from slimsearch.compression import Network
from slimsearch.compression.cluster import Cluster, SharedValues, k_means
from slimsearch.compression.export.packing import pack, unpack
from slimsearch.compression.quantization.plan import CODEBOOK
from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import DeployedModel, NetworkTraining, StoppedEarly, TrainingSettings
from slimsearch.evaluators.datasets import Dataset


def _module(sparsity: float = 0.0) -> nn.Module:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(1, 16, 3),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(576, 24),
        nn.ReLU(),
        nn.Linear(24, 10),
    )
    with torch.no_grad():
        for weight in (p for p in module.parameters() if p.ndim > 1):
            weight[weight.abs() < weight.abs().quantile(sparsity)] = 0
    return module.eval()


@pytest.fixture(scope="module")
def training(digits: Dataset) -> NetworkTraining:
    return NetworkTraining(digits, TrainingSettings(), seed=0, epochs=1)


@pytest.mark.parametrize("bits", [1, 2, 5])
@pytest.mark.parametrize("sparsity", [0.0, 0.7])
@pytest.mark.parametrize("epochs", [0, 1])
def test_few_values_and_zeros_that_stay(bits: int, sparsity: float, epochs: int, training: NetworkTraining) -> None:
    module = _module(sparsity)
    result = Cluster(bits=bits, epochs=epochs).apply(Network(module), training)
    assert result.quantization is not None
    assert result.quantization.form == CODEBOOK
    for before, after in zip(module.parameters(), result.module.parameters(), strict=True):
        if before.ndim > 1 and before.numel() >= 4 << bits:
            assert len(after.unique()) == 2**bits
            assert bool((after[before == 0] == 0).all())
            assert int((after == 0).sum()) == int((before == 0).sum())
        elif epochs == 0:
            assert torch.equal(before, after), "too small to gain"


def test_clusters_are_near_and_learn(training: NetworkTraining) -> None:
    module = _module()
    start = Cluster().begin(Network(module), training).network.module
    trained = Cluster().apply(Network(module), training).module
    weight, near, far = (m[4].weight.detach() for m in (module, start, trained))
    assert float((weight - near).abs().max()) < float(weight.max() - weight.min()) / 31
    assert not torch.equal(near, far)
    pairs = torch.stack([near.flatten(), far.flatten()], dim=1).unique(dim=0)
    assert len(pairs) == 32, "whoever shared a value still does"


def test_an_interrupted_training_goes_on(training: NetworkTraining, digits: Dataset, tmp_path: Path) -> None:
    network, path = Network(_module(0.5)), tmp_path / "checkpoint"

    def stops(epoch: int, metrics: object) -> bool:
        return False

    with pytest.raises(StoppedEarly):
        Cluster(epochs=2).apply(
            network, NetworkTraining(digits, TrainingSettings(), seed=0, on_epoch=stops, checkpoint=path)
        )
    assert path.is_file()
    resumed = Cluster(epochs=2).apply(network, NetworkTraining(digits, TrainingSettings(), seed=0, checkpoint=path))
    expected = Cluster(epochs=2).apply(network, training).module.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in resumed.module.state_dict().items())


def test_a_step_moves_a_cluster_by_the_mean_of_its_weights() -> None:
    module = nn.Linear(3, 2, bias=False)
    shared = SharedValues({"weight": torch.tensor([[0, 1, 1], [2, 2, 2]], dtype=torch.uint8)})
    with torch.no_grad():
        module.weight.copy_(torch.tensor([[5.0, 1.0, 2.0], [6.0, 0.0, 9.0]]))
    shared(module, 0, 1)
    # The first is of the cluster that is zero; the zero, which somebody pruned, joins it.
    assert module.weight.tolist() == [[0.0, 1.5, 1.5], [7.5, 0.0, 7.5]]
    other = SharedValues({"weight": torch.ones(2, 3, dtype=torch.uint8)})
    other.restore(shared.state())
    with torch.no_grad():
        module.weight.copy_(torch.arange(1.0, 7.0).view(2, 3))
    other(module, 1, 1)
    assert module.weight.tolist() == [[0.0, 2.5, 2.5], [5.0, 0.0, 5.0]]


@pytest.mark.parametrize("number", [2, 15, 32])
def test_k_means_is_as_good_as_scikit_learn(number: int, rng: np.random.Generator) -> None:
    normal = rng.standard_normal(3000).astype(np.float32)
    for values in (normal, normal[np.abs(normal) > 1.2]):
        linear = np.linspace(values.min(), values.max(), number)[:, None]
        other = KMeans(number, init=linear, n_init=1, tol=0).fit(values[:, None])
        errors = [
            ((values[:, None] - centroids.ravel()) ** 2).min(axis=1).mean()
            for centroids in (k_means(values, number), other.cluster_centers_)
        ]
        assert errors[0] < 1.03 * errors[1]


def test_k_means_of_few_numbers_are_those() -> None:
    assert k_means(np.array([3.0, 1.0, 3.0, 2.0]), 4).tolist() == [1, 2, 3]
    assert len(k_means(np.array([0.0] * 50 + [1.0, 1.1, 9.0]), 3)) == 3


def test_small_in_the_file_and_smaller_when_packed(training: NetworkTraining, tmp_path: Path) -> None:
    module = _module(0.5)
    result = Cluster(bits=4).apply(Network(module), training)
    images = training.calibration
    for name, network in (("plain", Network(result.module)), ("small", result)):
        compression.export_onnx(network, tmp_path / f"{name}.onnx", images)
    answers = [DeployedModel(tmp_path / f"{name}.onnx")(images.numpy()) for name in ("plain", "small")]
    assert np.allclose(answers[0], answers[1], atol=1e-4)
    data = pack(result)
    assert data is not None
    small, plain = ((tmp_path / f"{name}.onnx").stat().st_size for name in ("small", "plain"))
    assert len(data) < 0.5 * small
    assert small < 0.35 * plain
    assert all(torch.equal(tensor, result.module.state_dict()[name]) for name, tensor in unpack(data).items())


def test_a_network_without_weights_to_share_says_so(training: NetworkTraining) -> None:
    with pytest.raises(SlimsearchError, match="no layer has 128 weights or more, the least for which 32 values pay"):
        Cluster().apply(Network(nn.Sequential(nn.Flatten(), nn.Linear(10, 10))), training)


@pytest.mark.parametrize("options", [{"bits": 0}, {"bits": 9}, {"bits": 2.5}, {"epochs": -1}, {"learning_rate": 0}])
def test_wrong_options(options: dict[str, float]) -> None:
    with pytest.raises(SlimsearchError, match=next(iter(options))):
        Cluster(**options)
