"""Training and scores by functions of the user's: what they get, what they may return, and what does not work."""

from __future__ import annotations

import importlib
import random
from collections.abc import Callable
from typing import Any

import cloudpickle
import numpy as np
import pytest
import torch
from torch import nn

from slimsearch.compression import Network, Recipe
from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import FunctionTraining, PairedDrop, StoppedEarly, TrainingSettings, outputs_of, scores
from slimsearch.evaluators.datasets import Dataset, unlabelled
from slimsearch.evaluators.tasks import NeedsLoss, OwnScore
from slimsearch.evaluators.training.lightning_training import LightningFit, LightningScore

INPUTS = np.random.default_rng(0).normal(size=(64, 3, 8, 8)).astype(np.float32)


@pytest.fixture
def network() -> Network:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(256, 4)
    return Network(nn.Sequential(*layers).eval())


def training(function: Callable[..., Any], **others: Any) -> FunctionTraining:
    return FunctionTraining(function, unlabelled(INPUTS), TrainingSettings(), seed=7, **others)


def own_score(function: Callable[..., Any], network: Network) -> tuple[OwnScore, Dataset]:
    data = unlabelled(INPUTS)
    return OwnScore.of(function, outputs_of(network), data), data


def test_a_function_trains_in_place_or_returns_a_module(network: Network) -> None:
    def in_place(model: nn.Module) -> None:
        assert model.training
        nn.init.zeros_(model[5].bias)  # type: ignore[index]

    for function in (
        in_place,
        lambda model: in_place(model) or model,
        lambda model: in_place(model) or nn.DataParallel(model),
    ):
        trained = training(function).fit(network, epochs=1)
        assert not trained.module.training
        assert not trained.module[5].bias.any()  # type: ignore[index]
    assert network.module[5].bias.any()  # type: ignore[index]


def test_arguments_by_name_and_the_same_random_numbers(network: Network) -> None:
    drawn = []

    def fit(net: nn.Module, epochs: int, seed: int, *, data: Dataset, learning_rate: float, device: str) -> None:
        assert (epochs, seed, learning_rate, device) == (3, 7, 0.25, "cpu")
        assert data.input_shape == (3, 8, 8)
        drawn.append((random.random(), np.random.rand(), float(torch.rand(1))))

    for _ in range(2):
        training(fit).fit(network, epochs=3, learning_rate=0.25)
    assert drawn[0] == drawn[1]


def test_reports_are_epochs_and_end_the_training(network: Network) -> None:
    told: list[tuple[int, dict[str, float]]] = []

    def on_epoch(epoch: int, metrics: Any) -> bool:
        told.append((epoch, dict(metrics)))
        return epoch < 2

    def fit(model: nn.Module, epochs: int, report: Callable[..., bool]) -> None:
        for epoch in range(1, epochs + 1):
            if not report(epoch, {"val_score": epoch / 10}):
                return

    with pytest.raises(StoppedEarly):
        training(fit, on_epoch=on_epoch).fit(network, epochs=5)
    assert told == [(1, {"val_score": 0.1}), (2, {"val_score": 0.2})]


def test_results_for_nni_are_reported(network: Network) -> None:
    import nni

    def evaluate_model(model: nn.Module) -> None:
        for accuracy in (0.5, 0.75):
            nni.report_intermediate_result(accuracy)
        nni.report_final_result(accuracy)

    told: list[tuple[int, dict[str, float]]] = []
    training(evaluate_model, on_epoch=lambda e, m: told.append((e, dict(m))) or True).fit(network, epochs=1)
    assert told == [(1, {"reported": 0.5}), (2, {"reported": 0.75})]


def forget(model: nn.Module) -> None:
    nn.init.constant_(model[5].weight, float("nan"))  # type: ignore[index]


def fail(model: nn.Module) -> None:
    raise ValueError("no data")


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda model: 0.5, "fit returned float; needed: the trained module, or nothing"),
        (lambda model: model[:3], "fit changed the layers of the network"),
        (forget, "the network gives nan"),
        (fail, "fit failed: ValueError: no data"),
        (lambda model, report: report(0, {}) and None, "epochs are counted from 1"),
        (lambda model, report: report(1, {"a": "b"}) and None, "report got 'a'"),
    ],
)
def test_mistakes_of_a_function_that_trains(network: Network, function: Any, message: str) -> None:
    with pytest.raises(SlimsearchError, match=message):
        training(function).fit(network, epochs=1)


def test_stages_that_need_no_loss_work_and_others_say_so(network: Network) -> None:
    seen = []
    here = training(lambda model, epochs: seen.append(epochs), epochs=2, teachers={"parent": network})
    small = Recipe.parse("prune:sparsity=0.5:epochs=3,low_rank,quantize").apply(network, here)
    assert small.params < network.params
    assert small.quantization is not None
    assert seen[0] == 3
    for recipe in ("qat", "lsq", "dorefa"):
        assert Recipe.parse(recipe).apply(network, here).quantization is not None
    for recipe in ("distill", "prune:importance=taylor", "prune:schedule=agp"):
        with pytest.raises(NeedsLoss):
            Recipe.parse(recipe).apply(network, here)


def test_a_score_gets_a_module_that_takes_arrays_and_tensors(network: Network) -> None:
    def score(predict: nn.Module, split: str, data: Dataset) -> float:
        assert split == "validation"
        assert data.input_shape == (3, 8, 8)
        outputs = predict.to("cpu").eval()(torch.from_numpy(INPUTS))
        assert isinstance(outputs, torch.Tensor)
        assert np.allclose(outputs.numpy(), predict(INPUTS.astype(np.float64)), atol=1e-6)
        return float(outputs.mean())

    task, data = own_score(score, network)
    examples = task.measured(outputs_of(network), data, data.validation)
    assert scores(task, examples, "val") == {"val_score": pytest.approx(float(outputs_of(network)(INPUTS).mean()))}
    assert cloudpickle.loads(cloudpickle.dumps(task)).metrics == {"score": "maximize"}


def test_scores_of_single_examples_have_an_interval(network: Network) -> None:
    def score(predict: nn.Module) -> dict[str, Any]:
        return {"error:min": np.abs(predict(INPUTS)).mean(axis=1), "size": torch.ones(64)}

    task, data = own_score(score, network)
    assert task.leading() == ("error", "minimize")
    examples = task.measured(outputs_of(network), data, data.validation)
    found = scores(task, examples, "val")
    assert found["val_error_low"] < found["val_error"] < found["val_error_high"]
    assert PairedDrop.of(task, examples, examples * 2).points == pytest.approx(100)


def test_one_number_in_all_has_none(network: Network) -> None:
    task, _ = own_score(lambda predict: {"map": 1.0}, network)
    assert scores(task, np.array([[1.0]]), "val") == {"val_map": 1.0}
    assert str(PairedDrop.of(task, np.array([[0.9]]), np.array([[0.8]]))) == "-10.00 points"


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (None, "score returned NoneType as 'score'"),
        ("good", "score returned str"),
        ({}, "score returned no metric"),
        ({"map:up": 1}, "a name may end in :min or :max"),
        (np.ones((3, 3)), "score returned ndarray"),
        ({"a": 1, "b": np.ones(3)}, "score returned metrics of"),
        (float("nan"), "score returned nan"),
    ],
)
def test_mistakes_of_a_function_that_scores(network: Network, result: Any, message: str) -> None:
    with pytest.raises(SlimsearchError, match=message):
        own_score(lambda predict: result, network)


def test_a_score_has_the_same_metrics_for_every_network(network: Network) -> None:
    names = iter(["a", "b"])
    task, data = own_score(lambda predict: {next(names): 1}, network)
    with pytest.raises(SlimsearchError, match="score returned b, and a for the first network"):
        task.measured(outputs_of(network), data, data.validation)


@pytest.mark.parametrize("inputs", [np.ones(3), np.array([["a"]]), np.zeros((0, 3)), np.full((2, 2), np.inf)])
def test_inputs_without_targets_are_numbers(inputs: Any) -> None:
    with pytest.raises(SlimsearchError, match="inputs without targets"):
        unlabelled(inputs)


def in_lightning(model: nn.Module, package: str = "pytorch_lightning") -> tuple[Any, Any, Any]:
    """A LightningModule that learns signs, and its loaders."""
    pytorch_lightning = importlib.import_module(package)
    from torch.utils.data import DataLoader, TensorDataset

    class Signs(pytorch_lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            return nn.functional.cross_entropy(self.model(batch[0]), batch[1])

        def validation_step(self, batch: Any, index: int) -> None:
            self.log("val_acc", (self.model(batch[0]).argmax(dim=1) == batch[1]).float().mean())

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), lr=1e-2)

    inputs = torch.from_numpy(INPUTS)
    loader = DataLoader(TensorDataset(inputs, (inputs.mean(dim=(1, 2, 3)) > 0).long()), batch_size=16)
    return Signs(), loader, loader


def with_a_data_module(model: nn.Module) -> tuple[Any, Any]:
    import pytorch_lightning

    module, *loaders = in_lightning(model)

    class Inputs(pytorch_lightning.LightningDataModule):
        def train_dataloader(self) -> Any:
            return loaders[0]

        def val_dataloader(self) -> Any:
            return loaders[1]

    return module, Inputs()


def in_the_other_package(model: nn.Module) -> tuple[Any, Any, Any]:
    return in_lightning(model, "lightning.pytorch")


@pytest.mark.parametrize("make", [in_lightning, with_a_data_module, in_the_other_package])
def test_lightning_trains_a_network_and_scores_its_file(make: Callable[..., Any], network: Network) -> None:
    if make is in_the_other_package:
        pytest.importorskip("lightning")
    told: list[dict[str, float]] = []
    trained = training(LightningFit(make), on_epoch=lambda e, m: told.append(dict(m)) or True).fit(network, epochs=6)
    assert len(told) == 6
    task, data = own_score(LightningScore(make, {"val_acc": "maximize", "val_loss": "minimize"}), trained)
    examples = task.measured(outputs_of(trained), data, data.validation)
    assert scores(task, examples, "val")["val_acc"] == pytest.approx(told[-1]["val_acc"])
    assert told[-1]["val_acc"] > 0.7


def test_mistakes_with_lightning(network: Network) -> None:
    import copy

    with pytest.raises(SlimsearchError, match=r"validation_step logs val_acc: name what counts"):
        own_score(LightningScore(in_lightning, {"val_accuracy": "maximize"}), network)
    with pytest.raises(SlimsearchError, match="the model itself"):
        training(LightningFit(lambda model: in_lightning(copy.deepcopy(model)))).fit(network, epochs=1)
    with pytest.raises(SlimsearchError, match="returned Sequential; needed"):
        training(LightningFit(lambda model: model)).fit(network, epochs=1)
