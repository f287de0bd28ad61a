"""Metrics of learning tasks against those of scikit-learn; intervals and gates of metrics that are no proportion."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn import metrics as sk

import slimsearch
from slimsearch import SlimsearchError
from slimsearch.compression import Network
from slimsearch.compression.quantize import Quantize
from slimsearch.evaluators import NetworkTraining, Objective, PairedDrop, TrainingSettings, scores
from slimsearch.evaluators.objective import DIRECTIONS
from slimsearch.evaluators.tasks import load_task
from slimsearch.loop.problem import networks
from slimsearch.loop.python_objects import PythonObjects
from slimsearch.names import built_in_names
from slimsearch.options.configuration import FROM_PYTHON, Configuration

TASKS = built_in_names("slimsearch.evaluators.tasks")


def test_the_directions_of_objectives_are_those_of_the_tasks() -> None:
    for name in TASKS:
        for metric, direction in load_task(name).metrics.items():
            assert Objective.parse(f"val_{metric}") == Objective(f"val_{metric}", direction)
    known = {f"val_{metric}" for name in TASKS for metric in load_task(name).metrics}
    assert {name for name in DIRECTIONS if name.startswith("val_")} == known | {"val_loss"}


@pytest.mark.parametrize("seed", range(4))
def test_classification_against_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    true = np.concatenate([np.arange(5), rng.choice(5, 200, p=[0.6, 0.2, 0.1, 0.06, 0.04])])
    outputs = (rng.normal(size=(205, 5)) + 1.5 * np.eye(5)[true]).astype(np.float32)
    found = load_task("classification")
    got = found.scores(found.examples(outputs, true))
    said, shares = outputs.argmax(1), torch.softmax(torch.from_numpy(outputs).double(), 1).numpy()
    assert got["accuracy"] == pytest.approx(sk.accuracy_score(true, said))
    assert got["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(true, said))
    assert got["macro_f1"] == pytest.approx(sk.f1_score(true, said, average="macro"))
    assert got["auc"] == pytest.approx(sk.roc_auc_score(true, shares, multi_class="ovr"), abs=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_multilabel_against_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    true = (rng.random((150, 4)) < [0.5, 0.2, 0.1, 0.05]).astype(np.float32)
    true[:2] = [[1, 1, 1, 1], [0, 0, 0, 0]]
    outputs = (rng.normal(size=true.shape) + 2 * true - 1).astype(np.float32)
    found = load_task("multilabel")
    got = found.scores(found.examples(outputs, true))
    assert got["macro_f1"] == pytest.approx(sk.f1_score(true, outputs > 0, average="macro"))
    assert got["exact_match"] == pytest.approx(sk.accuracy_score(true, outputs > 0))
    assert got["auc"] == pytest.approx(sk.roc_auc_score(true, outputs, average="macro"))


@pytest.mark.parametrize("seed", range(4))
def test_regression_against_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    true = (rng.normal(size=(150, 3)) * [1, 100, 1e-3] + [5, -1000, 0]).astype(np.float32)
    found = load_task("regression").fitted(true)
    outputs = rng.normal(size=true.shape).astype(np.float32)
    got, said = found.scores(found.examples(outputs, true)), found.predictions(outputs)
    assert got["r2"] == pytest.approx(sk.r2_score(true, said), rel=1e-4)
    assert got["rmse"] == pytest.approx(np.sqrt(sk.mean_squared_error(true, said)), rel=1e-5)
    assert got["mae"] == pytest.approx(sk.mean_absolute_error(true, said), rel=1e-5)
    standard = torch.from_numpy((true - true.mean(0)) / true.std(0)).float()
    assert float(found.loss(standard, torch.from_numpy(true))) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_segmentation_against_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    true = rng.choice(4, (20, 6, 5), p=[0.7, 0.2, 0.06, 0.04]).astype(np.uint8)
    outputs = rng.normal(size=(20, 4, 6, 5)).astype(np.float32)
    found = load_task("segmentation")
    got, said = found.scores(found.examples(outputs, true)), outputs.argmax(1)
    assert got["mean_iou"] == pytest.approx(sk.jaccard_score(true.ravel(), said.ravel(), average="macro"))
    assert got["pixel_accuracy"] == pytest.approx((true == said).mean())


def test_balanced_weights_count_rare_classes_as_much() -> None:
    true = np.array([0] * 90 + [1] * 10)
    task = load_task("classification", class_weights="balanced").fitted(true)
    weights = np.array(task.class_weights)[true]  # type: ignore[attr-defined]
    assert weights[true == 0].sum() == pytest.approx(weights[true == 1].sum())


def test_the_interval_of_a_metric_that_is_no_proportion() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(40):
        true = rng.normal(size=(120, 1)).astype(np.float32)
        task = load_task("regression").fitted(np.array([[-1.0], [1.0]]))
        outputs = (true + 0.5 * rng.normal(size=true.shape)).astype(np.float32)
        found = scores(task, task.examples(outputs, true), "val")
        assert found["val_r2_low"] < found["val_r2"] < found["val_r2_high"]
        covered += found["val_r2_low"] <= 0.75 <= found["val_r2_high"]  # the share in the whole population
    assert covered >= 32
    right = load_task("classification").examples(np.eye(3, dtype=np.float32), np.array([0, 1, 1]))
    assert "val_accuracy_low" not in scores(load_task("classification"), right, "val")


def test_the_drop_of_a_metric_that_is_no_proportion() -> None:
    rng = np.random.default_rng(0)
    true = rng.normal(size=(300, 1)).astype(np.float32)
    task = load_task("regression").fitted(np.array([[-1.0], [1.0]]))
    near, far = (
        task.examples((true + noise * rng.normal(size=true.shape)).astype(np.float32), true) for noise in (0.1, 0.6)
    )
    drop = PairedDrop.of(task, near, far)
    assert (drop.metric, drop.unit) == ("r2", "points")
    assert 20 < drop.low < drop.points < drop.high < 45
    assert drop.low < 35 < drop.high  # in the whole population
    same = PairedDrop.of(task, near, near)
    assert same.low == same.points == same.high == 0
    error = load_task("regression", lead="rmse").fitted(np.array([[-1.0], [1.0]]))
    worse = PairedDrop.of(error, near, far)
    assert worse.unit == "%"
    assert 300 < worse.points < 700
    assert str(worse).startswith("+")


@pytest.mark.parametrize(
    ("task", "options", "said"),
    [
        ("nonsense", {}, "unknown task 'nonsense'"),
        ("regression", {"class_weights": "balanced"}, "--class-weights is not an option of --task regression"),
        ("multilabel", {"label_smoothing": 0.1}, "--label-smoothing is not an option of --task multilabel"),
        ("regression", {"lead": "accuracy"}, "has no metric 'accuracy'; its metrics: r2, rmse, mae"),
        (int, {}, "is not a subclass"),
    ],
)
def test_tasks_that_are_none(task: object, options: dict[str, object], said: str) -> None:
    with pytest.raises(SlimsearchError, match=said):
        load_task(task, **options)


def test_answers_that_change_are_counted_of_classifications_alone() -> None:
    x = np.random.default_rng(0).normal(size=(100, 3))
    data = slimsearch.load_dataset((x, x[:, 0]), task="regression")
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1))
    training = NetworkTraining(data, TrainingSettings(), 0)
    with pytest.raises(SlimsearchError, match=r"max_drop counts the classes .* keep_float"):
        Quantize(max_drop=0.5).apply(Network(net), training)


def test_options_count_for_a_data_set_that_is_given_as_it_is() -> None:
    x = np.random.default_rng(0).normal(size=(200, 3))
    data = slimsearch.load_dataset((x, (x[:, 0] > 1).astype(int)))
    given = PythonObjects(data=data)
    options = Configuration(space="mlp", dataset=FROM_PYTHON, class_weights="balanced")
    _, found = networks(options, given)
    low, high = found.task.class_weights  # type: ignore[attr-defined]
    assert 0.5 < low < 1 < 2 < high
    with pytest.raises(SlimsearchError, match=r"was read for --task classification: read it with task='regression'"):
        networks(options.replace(task="regression", class_weights="none"), given)
