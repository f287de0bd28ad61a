"""Compression after the search: which stage starts from what, what is kept, and what a resumed run goes on with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.numpy import save_file

from slimsearch import compression
from slimsearch.evaluators import Objective, Outcome, Task
from slimsearch.evaluators.datasets import Dataset
from slimsearch.loop.compression_phase import CompressionPhase
from slimsearch.record.ranking import Ranking
from slimsearch.record.record import Record
from slimsearch.record.run_directory import RunDirectory
from slimsearch.record.trial import COMPLETE, FAILED, REJECTED, SEARCH
from slimsearch.search_spaces import Candidate, ModelSpace
from slimsearch.strategies import Failure
from tests.conftest import TINY

OBJECTIVES = (Objective("val_accuracy", "maximize"), Objective("size_kib", "minimize"))
RECIPE = compression.Recipe.parse("prune,distill,quantize")


@pytest.fixture(scope="module")
def space() -> ModelSpace:
    return ModelSpace.load(TINY, (1, 8, 8), 10)


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[RunDirectory]:
    with RunDirectory(tmp_path / "run", create=True) as found:
        yield found


def leave(directory: RunDirectory, number: int, data: Dataset, wrong: int, size: float) -> Outcome:
    """What an evaluation leaves behind: predictions with so many mistakes, and metrics."""
    predictions = data.validation.targets.copy()
    predictions[:wrong] = (predictions[:wrong] + 1) % 10
    right = predictions == data.validation.targets
    save_file({"examples": right[:, None]}, directory.trial_directory(number) / "predictions.safetensors")
    latency = {"latency_ms": 1.0, "latency_low_ms": 0.9, "latency_high_ms": 1.1}
    metrics = {"val_accuracy": 1 - wrong / len(predictions), "size_kib": size, **latency}
    return Outcome(metrics | {f"start_{name}": value for name, value in latency.items()}, {"model": "model.onnx"})


def make(directory: RunDirectory, space: ModelSpace, data: Dataset, top_k: int = 2) -> tuple[CompressionPhase, Record]:
    ranking = Ranking(OBJECTIVES)
    record = Record(directory.open_study(OBJECTIVES), space, OBJECTIVES)
    if not record.trials:
        for number, point in enumerate(list(space.grid())[:3]):
            record.start(Candidate(point), kind=SEARCH, fidelity=4, seed=0)
            record.finish(number, leave(directory, number, data, 10 * number, 100.0 - 20 * number))
    phase = CompressionPhase(
        RECIPE, top_k=top_k, max_drop=0.5, ranking=ranking, record=record, directory=directory, task=data.task, seed=0
    )
    return phase, record


def stages(task: Task) -> list[str]:
    return list(task.candidate.recipe)


def test_what_is_kept_is_gone_on_from_and_what_is_not_is_skipped(directory, space: ModelSpace, digits: Dataset) -> None:
    phase, record = make(directory, space, digits)
    assert phase.length == 4
    first, second = phase.ask(), phase.ask()
    assert first is not None
    assert second is not None
    assert phase.ask() is None, "both networks wait for their first stage"
    assert stages(first) == stages(second) == ["prune", "distill"]
    assert first.start is not None
    assert first.teacher is not None
    assert first.teacher.directory == directory.trial_directory(0), "the most accurate network of the run"

    pruned = leave(directory, first.number, digits, 1, 50.0)
    shares = {"channels_removed": 0.25, "channels_asked": 0.5}
    phase.tell(first.number, Outcome({**pruned.metrics, **shares}, pruned.artifacts))
    assert record.trials[first.number].state == COMPLETE
    assert "25% of the channels removed, 50% asked" in (record.trials[first.number].reason or "")
    third = phase.ask()
    assert third is not None
    assert stages(third) == ["prune", "distill", "quantize"]
    assert third.start is not None
    assert third.start.directory == first.directory
    assert third.start.recipe == {"prune": {}, "distill": {}}

    phase.tell(second.number, leave(directory, second.number, digits, 40, 10.0))
    assert record.trials[second.number].state == REJECTED
    assert "more than --max-drop 0.5" in (record.trials[second.number].reason or "")
    fourth = phase.ask()
    assert fourth is not None
    assert stages(fourth) == ["quantize"]
    assert fourth.start is not None
    assert fourth.start.directory != second.directory

    phase.tell(third.number, Failure("SlimsearchError: cannot be quantized"))
    phase.tell(fourth.number, leave(directory, fourth.number, digits, 20, 5.0))
    assert record.trials[third.number].state == FAILED
    assert phase.ask() is None


def test_resumed_in_the_middle(directory, space: ModelSpace, digits: Dataset, tmp_path: Path) -> None:
    phase, _ = make(directory, space, digits, top_k=1)
    task = phase.ask()
    assert task is not None
    phase, record = make(directory, space, digits, top_k=1)  # as a new process would
    again = phase.ask()
    assert again is not None
    assert (again.number, again.candidate, again.seed) == (task.number, task.candidate, task.seed)
    assert phase.ask() is None
    phase.tell(again.number, leave(directory, again.number, digits, 0, 50.0))
    phase, record = make(directory, space, digits, top_k=1)
    following = phase.ask()
    assert following is not None
    assert stages(following) == ["prune", "distill", "quantize"]
    assert [t.parent for t in record.trials] == [None, None, None, 0, 3]


def test_nothing_to_do(directory, space: ModelSpace, digits: Dataset) -> None:
    phase, _ = make(directory, space, digits, top_k=0)
    assert phase.length == 0
    assert phase.ask() is None
