"""Training on a GPU, as far as a machine without one can tell: no tensor stays on the wrong device."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import slimsearch
from slimsearch import compression
from slimsearch.compression import Network
from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import NetworkTraining, TrainingSettings
from slimsearch.evaluators.datasets import Dataset, Split
from slimsearch.evaluators.training.augmentation import NAMED, Augmentation
from slimsearch.evaluators.training.batches import TrainingBatches
from slimsearch.evaluators.training.checkpoint import random_state, restore_random
from slimsearch.evaluators.training.hardware import memory_errors
from slimsearch.loop.evaluation_settings import training_settings
from slimsearch.options.configuration import Configuration
from slimsearch.search_spaces import ModelSpace
from tests.conftest import TINY, VARIOUS
from tests.evaluators.pretended_gpu import pretended_gpu

SETTINGS = TrainingSettings(device="cuda", normalise=True)
QUICK = ["prune:schedule=agp:importance=taylor:events=2", "lsq", "distill"]
RECIPES = [
    "prune", "prune:importance=slim", "level", "low_rank", "cluster", "qat", "lsq_plus", "dorefa", "bnn",
    "adaptive1d_layerwise", "dynamic_layerwise", "prune:schedule=agp+distill+lsq",
]  # fmt: skip


TWICE = """
def twice(batch, generator):
    assert not batch.is_cuda
    return 2 * batch
"""


@pytest.fixture(scope="module")
def space() -> ModelSpace:
    return ModelSpace.load(VARIOUS, (1, 8, 8), 10)


@pytest.fixture(scope="module")
def few(digits: Dataset) -> Dataset:
    parts = {
        name: Split(split.inputs[:130], split.targets[:130])
        for name, split in (("train", digits.train), ("validation", digits.validation))
    }
    return replace(digits, **parts)


@pytest.mark.parametrize("recipe", [*QUICK, *(pytest.param(recipe, marks=pytest.mark.slow) for recipe in RECIPES)])
def test_stages_train_on_the_device(recipe: str, space: ModelSpace, few: Dataset) -> None:
    start = Network(space.build({"width": 16}, 1).eval())
    with pretended_gpu():
        training = NetworkTraining(
            few, replace(SETTINGS, augmentation="none" if "distill" in recipe else "shift"), 0, epochs=2,
            teachers={"parent": start},
        )  # fmt: skip
        found = compression.Recipe.parse(recipe).apply(start, training)
    assert all(tensor.device.type == "cpu" for tensor in found.module.state_dict().values())
    assert all(bool(tensor.isfinite().all()) for tensor in found.module.state_dict().values())


@pytest.mark.parametrize("name", [name for name in NAMED if name not in ("auto", "none", "mask")])
@pytest.mark.parametrize("free", [2**40, 0])
def test_batches_are_those_of_the_cpu(name: str, free: int, few: Dataset) -> None:
    chosen, augment = np.arange(3, 40), Augmentation(name, few)
    expected = TrainingBatches(few, augment, torch.device("cpu"), torch.channels_last)
    on_cpu = [expected(chosen, np.random.default_rng(seed)) for seed in (0, 1)]
    with pretended_gpu(free):
        batches = TrainingBatches(few, augment, torch.device("cuda"), torch.channels_last)
        on_gpu = [batches(chosen, np.random.default_rng(seed)) for seed in (0, 1)]
        assert all(tensor.is_cuda for batch in on_gpu for tensor in batch)
        found = [[tensor.cpu() for tensor in batch] for batch in on_gpu]
    for batch, other in zip(found, on_cpu, strict=True):
        assert all(torch.equal(one, two) for one, two in zip(batch, other, strict=True))


def test_functions_of_the_user_get_batches_of_the_cpu(few: Dataset, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(TWICE)
    augment = Augmentation(f"{tmp_path}/mine.py:twice", few)
    with pretended_gpu():
        batch, _ = TrainingBatches(few, augment, torch.device("cuda"), torch.contiguous_format)(
            np.arange(5), np.random.default_rng(0)
        )
        assert batch.is_cuda
        assert torch.equal(batch.cpu(), 2 * few.normalise(few.train.inputs[:5]))


def test_a_seed_trains_as_on_the_cpu(few: Dataset) -> None:
    start = Network(ModelSpace.load(TINY, (1, 8, 8), 10).build({"act": 0, "width": 16}, 1).eval())  # without dropout
    settings = replace(SETTINGS, augmentation="shift-flip+cutout+mixup")
    with pretended_gpu():
        found = NetworkTraining(few, settings, 3).fit(start, epochs=2).module.state_dict()
    expected = NetworkTraining(few, replace(settings, device="cpu"), 3).fit(start, epochs=2).module.state_dict()
    assert all(torch.allclose(found[name], value, atol=1e-5) for name, value in expected.items())


def test_random_states_of_both_devices_are_in_a_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    restored: list[torch.Tensor] = []
    with pretended_gpu():
        monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: torch.tensor([7], dtype=torch.uint8))
        monkeypatch.setattr(torch.cuda, "set_rng_state", restored.append)
        state = random_state(torch.device("cuda"))
        restore_random(state)
    assert [tensor.tolist() for tensor in restored] == [[7]]
    assert random_state(torch.device("cpu")).keys() == {"random"}


class TooLarge(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training and len(x) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity")
        return super().forward(x)


def test_a_gpu_without_memory_is_one_line(few: Dataset) -> None:
    network = Network(nn.Sequential(nn.Flatten(), TooLarge(64, 10)).eval())
    emptied: list[int] = []
    with pretended_gpu(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(1))
        with pytest.raises(SlimsearchError, match=r"^out of memory .*CUDA.*--batch-size, or fewer --workers$"), (
            memory_errors()
        ):  # fmt: skip
            NetworkTraining(few, SETTINGS, 0).fit(network, epochs=1)
    assert len(emptied) >= 2, "before the training, and after it"


def one_too_large(trial: Any) -> nn.Module:
    kind = TooLarge if trial.suggest_categorical("large", [False, True]) else nn.Linear
    return nn.Sequential(nn.Flatten(), kind(64, 10))


@pytest.mark.slow
def test_other_trials_go_on(few: Dataset, tmp_path: Path) -> None:
    found = slimsearch.search(
        one_too_large, few, trials=2, epochs=1, workers=1, compress="none", run_dir=tmp_path / "run", show=False
    )
    by_size = {trial.candidate.architecture["large"]: trial for trial in found.trials}
    assert by_size[False].state == "complete"
    assert by_size[True].state == "failed"
    assert "out of memory (CUDA out of memory" in str(by_size[True].error)


def test_trials_on_ray_train_where_their_gpu_is() -> None:
    def device(**options: object) -> str:
        return training_settings(Configuration(space="lenet", strategy="ray", **options)).device  # type: ignore[arg-type]

    assert device() == "cpu"
    assert device(gpus_per_trial=0.25) == "cuda"
    assert device(gpus_per_trial=0.25, device="cpu") == "cpu"
    with pytest.raises(SlimsearchError, match="--device cuda with --strategy ray needs --gpus-per-trial"):
        device(device="cuda")
