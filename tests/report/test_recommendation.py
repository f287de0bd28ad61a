"""The recommended model of a run, and the result that gives it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from slimsearch.errors import SlimsearchError
from slimsearch.options.configuration import Configuration
from slimsearch.record.ranking import Ranking
from slimsearch.report.recommendation import program, recommend
from slimsearch.report.report_files import rewrite_reports
from slimsearch.report.result import Result

RANKING = Ranking.of(Configuration(space="lenet"))


def model(
    number: int, accuracy: float, latency: float, size: float, *, front: bool = True, **more: Any
) -> dict[str, Any]:
    metrics = {"val_accuracy": accuracy, "latency_ms": latency, "size_kib": size}
    return {
        "trial": number, "on_front": front, "architecture": {"width": number}, "recipe": {}, "metrics": metrics,
        "intervals": {}, "artifact": f"trials/{number:05d}/model.onnx", **more,
    }  # fmt: skip


MODELS = [
    model(0, 0.99, 2.0, 1000.0),
    model(1, 0.985, 0.4, 100.0, recipe={"quantize": {}}, cannot_be_told_from={"val_accuracy": [0]}),
    model(2, 0.80, 0.2, 90.0, recipe={"quantize": {}}),
    model(3, 0.70, 0.3, 50.0, recipe={"quantize": {}}),
    model(4, 0.95, 4.0, 2000.0, front=False),
]


@pytest.mark.parametrize(("prefer", "number"), [("balanced", 1), ("accuracy", 0), ("fast", 2), ("small", 3)])
def test_each_preference(prefer: str, number: int) -> None:
    found = recommend(MODELS, RANKING, prefer)
    assert found is not None
    assert found[0] == number


def test_what_is_said_of_it() -> None:
    found = recommend(MODELS, RANKING, "balanced")
    assert found is not None
    assert "5.0x faster and 10.0x smaller than the best uncompressed network (trial 0)" in found[1]
    assert "trial 0" in found[1].rpartition(";")[2]


@pytest.mark.parametrize(
    "objectives", ["val_accuracy", "loss:min", "val_accuracy,energy:min", "val_r2:max,size_kib", "trees:min,loss:min"]
)
@pytest.mark.parametrize("prefer", ["balanced", "accuracy", "small", "fast"])
@pytest.mark.parametrize("values", [(0.0, 0.0), (1.0, 1.0), (-3.0, 2.0), (0.0, 5.0)])
def test_whatever_the_metrics_are(objectives: str, prefer: str, values: tuple[float, float]) -> None:
    ranking = Ranking.of(Configuration(space="lenet", objectives=objectives))
    models = [
        {**model(i, 0, 0, 0), "metrics": {one.metric: value for one in ranking.objectives}, "artifact": None}
        for i, value in enumerate(values)
    ]
    found = recommend(models, ranking, prefer)
    assert found is not None
    assert found[0] in (0, 1)
    assert recommend([{**one, "on_front": False} for one in models], ranking, prefer) is None


@pytest.mark.slow
def test_the_result_of_a_real_run(finished: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    directory, process = finished
    result = rewrite_reports(directory)
    best = result.best
    assert best in result.front
    assert Path(best["path"]).is_file()
    assert f"{best['artifact']}: " in process.stdout
    assert len(result.to_dataframe()) == len(result.trials)
    assert str(best["trial"]) in repr(result)
    assert result._repr_html_().count("<tr>") == 1 + len(result.models)
    assert result.report().is_file()
    printed = subprocess.run(
        [sys.executable, "-c", "\n".join(program(best["path"]))], capture_output=True, text=True, check=True
    ).stdout
    assert "array" in printed
    for prefer, metric in {"small": "size_kib", "fast": "latency_ms"}.items():
        chosen = rewrite_reports(directory, prefer=prefer).best
        assert chosen["metrics"][metric] == min(one["metrics"][metric] for one in result.front)
    rewrite_reports(directory)


def test_a_result_without_a_front() -> None:
    with pytest.raises(SlimsearchError, match="no model"):
        _ = Result(Path("run"), (), ()).best
