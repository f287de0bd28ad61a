"""The first step of a training, tried beforehand: memory layouts, and a network's mistakes in one line."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

import slimsearch
from slimsearch import compression
from slimsearch.compression import Network
from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import NetworkTraining, TrainingSettings
from slimsearch.evaluators.datasets import Dataset, Split
from slimsearch.evaluators.training.probe import TrainingProbe
from slimsearch.search_spaces import ModelSpace
from tests.conftest import TINY, VARIOUS
from tests.evaluators.test_training import Several


@pytest.fixture(scope="module")
def space() -> ModelSpace:
    return ModelSpace.load(TINY, (1, 8, 8), 10)


class Tail(nn.Module):
    """A convolution, `tail` of its map, and a linear layer."""

    def __init__(self, channels: int, width: int, tail: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(channels, width, 3), nn.Linear(width * 36, 10)
        self.tail = tail

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.tail(torch.relu(self.conv(x))))


class _ViewedGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient.view(-1).view(gradient.shape)


class _NumpySquare(torch.autograd.Function):
    """Knows no bfloat16."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return torch.from_numpy(x.detach().numpy() ** 2)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient * 2 * ctx.saved_tensors[0]


TAILS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "view": lambda x: x.view(x.size(0), -1),
    "halves": lambda x: x.view(x.size(0), 2, -1).flip(1).view(len(x), -1),
    "as_strided": lambda x: x.as_strided((len(x), x[0].numel()), (x[0].numel(), 1)),
    "gradient": lambda x: nn.functional.max_pool2d(_ViewedGradient.apply(x), 1).flatten(1),
    "numpy": lambda x: _NumpySquare.apply(x).flatten(1),
    "flatten": lambda x: x.flatten(1),
}
NEED_CONTIGUOUS = ("view", "halves", "as_strided", "gradient")


@settings(max_examples=12, deadline=None)
@given(st.sampled_from([*TAILS]), st.sampled_from([1, 3]), st.sampled_from([2, 8]), st.sampled_from(["fp32", "bf16"]))
@example("as_strided", 3, 8, "fp32")
@example("view", 1, 8, "bf16")
@example("gradient", 1, 8, "fp32")
@example("numpy", 1, 8, "bf16")
def test_the_trained_network_is_the_one_that_was_validated(
    tail: str, channels: int, width: int, precision: str
) -> None:
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (200, channels, 8, 8), dtype=np.uint8), rng.integers(0, 10, 200)
    split = Split(images, labels.astype(np.int64))
    names = tuple(map(str, range(10)))
    data = Dataset("noise", names, split, split, None, (0.5,) * channels, (0.3,) * channels, "shift")
    scores: dict[str, float] = {}
    chosen = TrainingSettings(precision=precision)
    training = NetworkTraining(data, chosen, 0, on_epoch=lambda epoch, found: scores.update(found) or True)
    trained = training.fit(Network(Tail(channels, width, TAILS[tail])), epochs=2)
    with torch.no_grad():
        logits = trained.module(data.normalise(images))
    loss = float(nn.functional.cross_entropy(logits, torch.from_numpy(split.targets)))
    assert loss == pytest.approx(scores["val_loss"], rel=0.05 if precision == "bf16" else 1e-3)
    layout = TrainingProbe(trained, data).layout()
    assert layout == (torch.contiguous_format if tail in NEED_CONTIGUOUS else torch.channels_last)


@pytest.mark.parametrize("recipe", ["distill", "dynamic_layerwise:layers=1", "adaptive1d_layerwise:layers=1"])
@pytest.mark.parametrize("tail", ["view", "as_strided"])
def test_a_teacher_may_need_contiguous_memory(recipe: str, tail: str, digits: Dataset) -> None:
    student, teacher = (Network(Tail(1, 8, TAILS[name]).eval()) for name in ("flatten", tail))
    training = NetworkTraining(digits, TrainingSettings(epoch_images=128), 0, teachers={"parent": teacher})
    compression.Recipe.parse(recipe).apply(student, training)


def test_faster_layouts_stay_where_they_work(space: ModelSpace, digits: Dataset) -> None:
    networks = [
        Several(),
        space.build({"act": 0, "width": 16}),
        ModelSpace.load(VARIOUS, (1, 8, 8), 10).build({"width": 16}),
    ]
    assert all(TrainingProbe(Network(one), digits).layout() == torch.channels_last for one in networks)


class Broken(nn.Module):
    """A network with one fault."""

    def __init__(self, fault: str = "none") -> None:
        super().__init__()
        self.fault = fault
        self.conv, self.fc = nn.Conv2d(1, 8, 3), nn.Linear(8, 5 if fault == "classes" else 10)
        if fault == "frozen":
            self.requires_grad_(False)
        if fault == "weights":
            self.fc.weight.data[0, 0] = float("nan")

    def forward(self, x: torch.Tensor, *more: torch.Tensor) -> Any:
        if self.fault == "arguments":
            (mask,) = more
            x = x * mask
        logits = self.fc(torch.relu(self.conv(x)).mean((2, 3)))
        changed: dict[str, Callable[[], Any]] = {
            "dict": lambda: {"logits": logits},
            "list": lambda: [logits],
            "map": lambda: logits[:, :, None, None],
            "scalar": lambda: logits.sum(),
            "detached": lambda: logits.detach(),
            "infinite": lambda: logits / 0,
            "gradient": lambda: logits + (logits * 0).sqrt(),
            "batch": lambda: logits.view(64, -1),
            "double": lambda: self.fc(logits.double()),
            "training fails": lambda: logits.missing if self.training else logits,
            "training shape": lambda: (logits[:, :3], logits) if self.training else logits,
        }
        return changed.get(self.fault, lambda: logits)()


FAULTS = {
    "classes": r"\(2, 5\).* 10 classes", "frozen": "requires_grad", "weights": "'fc.weight' is not finite",
    "arguments": "its only argument: ValueError", "dict": "a dict", "list": "a list", "map": r"\(2, 10, 1, 1\)",
    "scalar": r"gives \(\)", "detached": "requires_grad", "infinite": "nan or infinity", "gradient": "gradient of '",
    "batch": "float32.*RuntimeError", "double": "float32.*RuntimeError",
    "training fails": "in training mode.*AttributeError",
    "training shape": r"\(2, 3\) for 2 images in training mode",
}  # fmt: skip


@pytest.mark.parametrize("fault", [*FAULTS])
def test_what_cannot_be_trained_is_said_in_one_line_before(fault: str, digits: Dataset) -> None:
    epochs: list[int] = []
    training = NetworkTraining(
        digits, TrainingSettings(), 0, on_epoch=lambda epoch, scores: epochs.append(epoch) or True
    )
    network = Network(Broken(fault))
    before = torch.get_rng_state()
    with pytest.raises(SlimsearchError, match=FAULTS[fault]) as caught:
        training.fit(network, epochs=1)
    assert "\n" not in str(caught.value)
    assert epochs == []
    assert torch.equal(before, torch.get_rng_state())


class Auxiliary(Broken):
    """Gives more than logits in training mode, as GoogLeNet does."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form

    def forward(self, x: torch.Tensor, *more: torch.Tensor) -> Any:
        logits = super().forward(x)
        forms = {
            "tuple": (logits, x),
            "list": [logits, x],
            "dict": {"aux": x, "logits": logits},
            "first": {"out": logits},
        }
        return forms[self.form] if self.training else logits


@pytest.mark.parametrize("form", ["tuple", "list", "dict", "first"])
def test_the_logits_of_a_network_with_auxiliary_outputs_are_trained(
    form: str, digits: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    curves: list[list[float]] = []
    for network in (Auxiliary(form), Broken()):
        torch.manual_seed(0)
        network.load_state_dict(Broken().state_dict())
        curve: list[float] = []
        keep = lambda epoch, scores, curve=curve: curve.append(scores["train_loss"]) or True  # noqa: E731
        NetworkTraining(digits, TrainingSettings(epoch_images=256), 0, on_epoch=keep).fit(Network(network), epochs=2)
        curves.append(curve)
    assert curves[0] == curves[1]
    assert [record.getMessage() for record in caplog.records if "in training mode" in record.getMessage()]


class EndsAfter(nn.Module):
    """Raises in the forward pass with this number, counted over all copies."""

    calls = 0

    def __init__(self, last: int, error: BaseException) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 4, 3), nn.Linear(144, 10)
        self.last, self.error = last, error

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        EndsAfter.calls += 1
        if EndsAfter.calls == self.last:
            raise self.error
        return self.fc(torch.relu(self.conv(x)).flatten(1))


def everything(network: EndsAfter, digits: Dataset, folder: Path) -> str | None:
    """The error of training, compression or export, or None."""
    EndsAfter.calls = 0
    settings: dict[str, Any] = {"epochs": 1, "epoch_images": 128, "precision": "fp32"}
    try:
        trained = slimsearch.train(network, digits, **settings)
        compressed = slimsearch.compress(trained, "prune:sparsity=0.3,quantize", digits, **settings)
        slimsearch.export(compressed, folder / "x.onnx", digits)
    except SlimsearchError as error:
        return str(error)
    return None


@pytest.mark.slow
def test_a_module_that_exits_at_any_call(digits: Dataset, tmp_path: Path) -> None:
    """Nothing that a module raises ends the process; each is one line that says what has failed."""
    assert everything(EndsAfter(0, SystemExit()), digits, tmp_path) is None
    calls = EndsAfter.calls
    errors = itertools.cycle([SystemExit("enough"), OSError(2, "enough\n"), ValueError("enough")])
    said = {
        everything(EndsAfter(number, error), digits, tmp_path)
        for number, error in zip([*range(1, calls, 2), calls], errors, strict=False)
    } - {None}  # optional checks may be left out
    assert all(re.fullmatch(r"\w.*[:(] ?\w+: .*enough\)?", str(line)) for line in said), said
    beginnings = {str(line).partition(":")[0].partition(" on ")[0] for line in said}
    assert beginnings >= {"the network fails", "the training failed", "export to ONNX failed"}


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError()])
def test_ctrl_c_in_a_module_is_ctrl_c(error: BaseException, digits: Dataset) -> None:
    EndsAfter.calls = 0
    with pytest.raises((KeyboardInterrupt, SlimsearchError)) as caught:
        slimsearch.train(EndsAfter(1, error), digits, epochs=1, epoch_images=64)
    assert isinstance(caught.value, KeyboardInterrupt) == isinstance(error, KeyboardInterrupt)


@pytest.mark.parametrize(
    ("convert", "said"),
    [
        (lambda x: torch.fft.fft(x), "complex64"), (lambda x: x.long(), "int64"), (lambda x: x > 0, "bool"),
        (lambda x: x.to_sparse(), "sparse_coo"),
    ],
)  # fmt: skip
def test_logits_of_other_numbers(convert: Callable[[torch.Tensor], Any], said: str, digits: Dataset) -> None:
    class Converting(Tail):
        def forward(self, x: torch.Tensor) -> Any:
            return convert(super().forward(x))

    for call in (slimsearch.train, lambda network, data: slimsearch.export(network, "x.onnx", data)):
        with pytest.raises(SlimsearchError, match=f"a tensor of {said}.* floating-point"):
            call(Converting(1, 4, TAILS["flatten"]), digits)
