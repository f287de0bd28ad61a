"""Networks with several inputs and outputs, from the data to predictions of the file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

import slimsearch
from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import DeployedModel, Predictor
from slimsearch.evaluators.datasets import Dataset, _stored, load_dataset
from slimsearch.evaluators.tasks import LearningTask, Targets
from slimsearch.packed import named
from slimsearch.packed_module import PackedModule, packed
from slimsearch.testing import LearningTaskContract

IMAGES, DIGITS = load_digits().images[:600], load_digits().target[:600]
TOP, ROWS = (IMAGES[:, :4] * 15).astype(np.uint8), IMAGES[:, 4:].sum(axis=2)  # (N, 4, 8) and (N, 4)
TARGETS = np.stack([DIGITS, IMAGES.mean(axis=(1, 2))], axis=1)
RNG = np.random.default_rng(0)


@dataclass(frozen=True)
class DigitAndInk(LearningTask):
    metrics: ClassVar = {"accuracy": "maximize", "ink_error": "minimize"}
    outputs: ClassVar = {"digit": (10,), "ink": (1,)}

    def read(self, targets: Any, names: Any = ()) -> Targets:
        if targets.ndim != 2 or targets.dtype.kind not in "iuf":
            raise SlimsearchError("targets are (N, 2): class and ink")
        return Targets(targets.astype(np.float32), ("digit", "ink"))

    def strata(self, targets: Any) -> Any:
        return targets[:, 0].astype(int)

    def loss(self, outputs: Any, targets: Any) -> Any:
        found = self.named(outputs)
        return F.cross_entropy(found["digit"], targets[:, 0].long()) + F.mse_loss(found["ink"][:, 0], targets[:, 1])

    def predictions(self, outputs: Any) -> Any:
        found = self.named(outputs)
        return np.stack([found["digit"].argmax(axis=1), found["ink"][:, 0]], axis=1)

    def examples(self, outputs: Any, targets: Any) -> Any:
        digit, ink = self.predictions(outputs).T
        return np.stack([digit == targets[:, 0], abs(ink - targets[:, 1])], axis=1)

    def scores(self, examples: Any) -> dict[str, float]:
        right, error = examples.mean(axis=0)
        return {"accuracy": float(right), "ink_error": float(error)}


class Net(nn.Module):
    """Its arguments, and its outputs, are in another order than those of the data set and of the task."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.pixels = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.Flatten(), nn.Linear(32 * width, 24)
        )
        self.numbers, self.both = nn.Linear(4, 8), nn.Linear(32, 24)
        self.ink, self.digit = nn.Linear(24, 1), nn.Linear(24, 10)

    def forward(self, rows: Any, top: Any) -> dict[str, Any]:
        both = torch.cat([self.pixels(top), self.numbers(rows)], dim=1).relu()
        both = self.both(both).relu()
        return {"ink": self.ink(both), "digit": self.digit(both)}


class AsTuple(Net):
    def forward(self, given: Any) -> Any:  # type: ignore[override]
        found = super().forward(given["rows"], given["top"])
        return found["digit"], found["ink"]


class OneOutput(Net):
    def forward(self, top: Any, rows: Any) -> Any:
        return super().forward(rows, top)["digit"]


def define(trial: Any) -> nn.Module:
    return Net(trial.suggest_categorical("width", [4, 6, 8]))


class Items:
    def __init__(self, given: Any) -> None:
        self.given = given

    def __len__(self) -> int:
        return len(TARGETS)

    def __getitem__(self, index: int) -> Any:
        return self.given(index), TARGETS[index]


class TestDigitAndInk(LearningTaskContract):
    task: ClassVar = DigitAndInk()
    targets: ClassVar = TARGETS


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load_dataset(({"top": TOP, "rows": ROWS}, TARGETS), task=DigitAndInk())


def test_each_channel_is_normalized(data: Dataset) -> None:
    assert data.space_shape == {"top": (1, 4, 8), "rows": (4,)}
    given = data.normalise(data.train.inputs[:])
    assert np.allclose(given[:, :32].mean(), 0, atol=1e-4)
    assert np.allclose(given[:, :32].std(), 1, atol=1e-2)
    assert np.allclose(given[:, 32:].mean(axis=0), 0, atol=1e-4)
    assert np.allclose(given[:, 32:].std(axis=0), 1, atol=1e-2)
    first = {row.tobytes(): index for index, row in enumerate(ROWS.astype(np.float32))}
    indices = [first[row[32:].tobytes()] for row in data.train.inputs[:5]]
    assert np.allclose(data.train.inputs[:5, :32] * 255, TOP[indices].reshape(5, -1))


@pytest.mark.parametrize("large", [False, True])
def test_items_are_as_arrays(large: bool, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if large:
        monkeypatch.setenv("SLIMSEARCH_CACHE", str(tmp_path))
        monkeypatch.setattr(_stored, "_IN_MEMORY", 0)
    dicts = load_dataset(Items(lambda index: {"top": TOP[index], "rows": ROWS[index]}), task=DigitAndInk())
    tuples = load_dataset(Items(lambda index: (TOP[index], torch.tensor(ROWS[index]))), task=DigitAndInk())
    assert isinstance(dicts.train.inputs, _stored.StoredInputs) == large
    assert dicts.fingerprint == tuples.fingerprint == data.fingerprint
    assert np.allclose(dicts.mean, data.mean)
    assert [field.name for field in dicts.fields] == ["top", "rows"]
    assert [field.name for field in tuples.fields] == ["input0", "input1"]
    dicts.save(tmp_path / "saved")
    assert Dataset.load(tmp_path / "saved", dicts.task).fields == dicts.fields


@pytest.mark.parametrize(
    ("given", "options", "said"),
    [
        (({"top": TOP, "rows": ROWS[1:]}, TARGETS), {}, "the inputs of a split are not one for each example"),
        (({"top": TOP, "rows": np.full((600, 2), "a")}, TARGETS), {}, "the input rows is <U1; needed: numbers"),
        (({"top": TOP, "two words": ROWS}, TARGETS), {}, "'two words' is not a name of an input"),
        (({"top": TOP, "rows": ROWS}, TARGETS), {"image_size": 8}, "--image-size is for examples of one input"),
        (Items(lambda i: {"top": TOP[i], "rows": ROWS[i][: 4 - i // 9]}), {}, "item 9 .*: the input rows is float64"),
        (Items(lambda i: {"top": TOP[i], **({"rows": ROWS[i]} if i < 9 else {})}), {}, "item 9 .* has other inputs"),
    ],
)
def test_what_is_no_data_set(given: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(SlimsearchError, match=said):
        load_dataset(given, task=DigitAndInk(), **options)


@pytest.mark.parametrize("network", [Net, AsTuple])
def test_a_packed_network_gives_what_the_network_gives(network: Any, data: Dataset) -> None:
    module = packed(network(4), named(data.space_shape), named(data.task.outputs)).eval()
    top, rows = torch.randn(3, 1, 4, 8), torch.randn(3, 4)
    found = data.task.named(module(torch.cat([top.flatten(1), rows], dim=1)))
    expected = Net.forward(module.network, rows, top)
    for name in ("digit", "ink"):
        assert torch.equal(found[name], expected[name])
    assert packed(module, named(data.space_shape), named(data.task.outputs)).network is module.network


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("network", [Net, AsTuple])
def test_a_file_has_them_by_their_names(network: Any, runtime: str, data: Dataset, tmp_path: Path) -> None:
    if runtime == "openvino":
        pytest.importorskip("openvino")
    module = network(4).eval()
    path = slimsearch.export(module, tmp_path / "model.onnx", data)
    graph = onnx.load(path).graph
    shapes = {
        value.name: [size.dim_value for size in value.type.tensor_type.shape.dim][1:]
        for value in (*graph.input, *graph.output)
    }
    assert shapes == {"top": [1, 4, 8], "rows": [4], "digit": [10], "ink": [1]}
    session = onnxruntime.InferenceSession(path)
    for count in (1, 5):
        top, rows = (RNG.normal(size=(count, *shape)).astype(np.float32) for shape in ((1, 4, 8), (4,)))
        digit, ink = session.run(["digit", "ink"], {"top": top, "rows": rows})
        with torch.no_grad():
            expected = Net.forward(module, torch.from_numpy(rows), torch.from_numpy(top))
        assert np.allclose(digit, expected["digit"], atol=1e-4)
        assert np.allclose(ink, expected["ink"], atol=1e-4)
        together = DeployedModel(path, runtime=runtime)(np.concatenate([top.reshape(count, -1), rows], axis=1))
        assert np.allclose(together, np.concatenate([digit, ink], axis=1), atol=1e-4)


@pytest.mark.slow
def test_a_search_and_what_follows(data: Dataset, tmp_path: Path) -> None:
    recipe = "prune:sparsity=0.25:epochs=1,quantize"
    options = {"trials": 2, "epochs": 6, "top_k": 1, "workers": 1, "compress": recipe, "latency": "predicted"}
    found = slimsearch.search(define, data, run_dir=tmp_path / "run", show=False, max_drop=100, **options)
    again = slimsearch.resume(tmp_path / "run", space=define, dataset=data, task=DigitAndInk(), trials=3, show=False)
    assert len(again.trials) > len(found.trials)
    entries = again.top_models(10)
    files = sorted((tmp_path / "run" / "trials").glob("*/model.onnx"))
    assert len(files) >= 4
    best = max(entries, key=lambda entry: entry["metrics"]["val_accuracy"])
    assert best["metrics"]["val_accuracy"] > 0.5
    for file in files:
        graph = onnx.load(file).graph
        assert [value.name for value in graph.input] == ["top", "rows"]
        assert [value.name for value in graph.output] == ["digit", "ink"]
    module = slimsearch.load_network(tmp_path / "run", best, space=define)
    assert isinstance(module, PackedModule)
    inputs = data.normalise(data.validation.inputs[:9])
    with torch.no_grad():
        native = module(inputs[:, 32:], inputs[:, :32].reshape(-1, 1, 4, 8))
        assert torch.allclose(data.task.named(module(inputs))["ink"], native["ink"])
    path = tmp_path / "run" / best["artifact"]
    scores = slimsearch.score(path, data, data.validation)
    assert scores["accuracy"] == pytest.approx(best["metrics"]["val_accuracy"])
    np.savez(tmp_path / "new.npz", top=TOP[:5], rows=ROWS[:5])
    predictions = list(Predictor(path).file(tmp_path / "new.npz"))
    assert [set(one.values) for one in predictions] == [{"digit", "ink"}] * 5
    metadata = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert json.loads(metadata["inputs"])["top"] == {"shape": [1, 4, 8], "bytes": True}
    np.savez(tmp_path / "other.npz", top=TOP[:5])
    with pytest.raises(SlimsearchError, match="the input rows is missing; needed: top, rows"):
        list(Predictor(path).file(tmp_path / "other.npz"))


def test_a_trained_network_is_compressed(tmp_path: Path) -> None:
    data = load_dataset(({"top": TOP, "rows": ROWS}, DIGITS))
    torch.manual_seed(0)
    trained = slimsearch.train(OneOutput(4), data, epochs=8)
    found = slimsearch.compress(
        trained, "prune:sparsity=0.25:epochs=1,quantize", data, run_dir=tmp_path / "run", show=False
    )
    assert isinstance(found.module, PackedModule)
    for file in (tmp_path / "run" / "trials").glob("*/model.onnx"):
        assert [value.name for value in onnx.load(file).graph.input] == ["top", "rows"]
        assert slimsearch.score(file, data, data.validation)["accuracy"] > 0.5


def test_what_takes_one_input(data: Dataset, tmp_path: Path) -> None:
    with pytest.raises(SlimsearchError, match="NNI ModelSpace, which takes one input; the data set has top, rows"):
        slimsearch.search("mnist_cnn", data, run_dir=tmp_path / "run", show=False, trials=1)
    wrong = packed(OneOutput(4), named(data.space_shape), named(data.task.outputs))
    with pytest.raises(SlimsearchError, match="forward gives Tensor; the task has the outputs digit, ink"):
        wrong(torch.zeros(2, 36))
