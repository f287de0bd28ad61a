"""Latency measurement: disturbed blocks, and confidence intervals."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from slimsearch import compression
from slimsearch.compression import Network
from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import DeployedModel, LatencySettings, measure_latency
from slimsearch.evaluators.latency import measurement
from slimsearch.evaluators.latency.measurement import BlockTimes, median_interval
from slimsearch.evaluators.latency.reference import CallTimes, Reference
from slimsearch.evaluators.network_pipeline import write_file
from tests.conftest import RUNTIMES, skip_without


class OneSecond(Reference):
    """A reference whose best time is 1 second."""

    def __init__(self) -> None:
        pass

    @property
    def best(self) -> CallTimes:
        return (1.0,)


@pytest.fixture
def network() -> Network:
    return Network(nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 10)).eval())


@pytest.fixture
def file(network: Network, tmp_path: Path) -> Path:
    compression.export_onnx(network, tmp_path / "model.onnx", torch.randn(2, 1, 8, 8))
    return tmp_path / "model.onnx"


def test_a_disturbed_block_does_not_count() -> None:
    calm, disturbed = [(0.002, (1.0,))] * 3, [(0.009, (1.2,))] * 40
    found = BlockTimes([calm + disturbed for _ in range(9)]).latency(OneSecond(), 9)
    assert (found.median_ms, found.low_ms, found.high_ms) == (2.0, 2.0, 2.0)
    assert (found.blocks, found.discarded, found.calm) == (27, 360, True)


def test_without_calm_blocks_the_least_disturbed_are_used_and_flagged() -> None:
    blocks = [(0.003, (1.1,))] * 5 + [(0.009, (1.5,))] * 5
    found = BlockTimes([blocks for _ in range(9)]).latency(OneSecond(), 9)
    assert found.median_ms == pytest.approx(3.0)
    assert not found.calm
    assert found.metrics()["latency_calm"] == 0


def test_calm_rounds_are_used_before_disturbed_ones() -> None:
    calm, disturbed = [(0.002, (1.0,))] * 3, [(0.009, (1.2,))] * 3
    found = BlockTimes([disturbed, *[calm] * 9]).latency(OneSecond(), 9)
    assert found.calm
    assert found.high_ms == pytest.approx(2.0)
    assert found.discarded == 3


@pytest.mark.parametrize(
    ("count", "positions"), [(1, (0, 0)), (3, (0, 2)), (5, (0, 4)), (6, (0, 5)), (9, (1, 7)), (15, (3, 11))]
)
def test_the_interval_holds_the_median_with_95_percent(count: int, positions: tuple[int, int]) -> None:
    low, high = median_interval(list(range(count)))
    assert (low, high) == positions
    if count >= 6:
        rng = np.random.default_rng(0)
        samples = np.sort(rng.standard_normal((20_000, count)), axis=1)
        held = (samples[:, int(low)] <= 0) & (samples[:, int(high)] >= 0)
        assert held.mean() >= 0.945


def test_a_measurement_has_blocks_and_an_interval(file: Path) -> None:
    cores = os.sched_getaffinity(0)
    found = measure_latency([file, file], (1, 8, 8), blocks=15, patience=1.0)
    assert len(found) == 2
    for latency in found:
        assert 0 < latency.low_ms <= latency.median_ms <= latency.high_ms
        assert latency.blocks >= 15
        assert latency.metrics("start_").keys() >= {"start_latency_ms", "start_latency_low_ms", "start_latency_high_ms"}
    assert os.sched_getaffinity(0) == cores, "this thread is no longer pinned"


def test_slow_first_calls_do_not_shorten_blocks(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first call of the first of many files takes milliseconds in OpenVINO."""
    calls = []

    class SlowAtFirst(DeployedModel):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            calls.append(0)
            self._number = len(calls) - 1
            self._first_is_slow = self._number == 0

        def __call__(self, images: Any) -> Any:
            calls[self._number] += 1
            if self._first_is_slow:
                self._first_is_slow = False
                time.sleep(0.02)
            return super().__call__(images)

    monkeypatch.setattr(measurement, "DeployedModel", SlowAtFirst)
    measure_latency([file, file], (1, 8, 8), blocks=3, patience=0.0)
    assert calls[0] > calls[1] / 3


def test_loading_takes_no_patience(
    file: Path, half_disturbed: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loading many files takes longer than the patience, as in OpenVINO."""

    class Slow(DeployedModel):
        def __init__(self, *arguments: Any) -> None:
            half_disturbed.now += 100
            super().__init__(*arguments)

    monkeypatch.setattr(measurement, "DeployedModel", Slow)
    (found,) = measure_latency([file], (1, 8, 8), blocks=9, patience=10.0)
    assert found.calm
    assert found.discarded > 0


def test_the_best_time_is_stored_for_an_hour(tmp_path: Path) -> None:
    file = tmp_path / "reference-1.json"
    Reference(1, tmp_path).store()
    stored = json.loads(file.read_text())
    stored["times"] = [[time.time() - 10, [1e-9, 1e-9]]]
    file.write_text(json.dumps(stored))
    assert Reference(1, tmp_path).best == (1e-9, 1e-9), "everything is disturbed compared with this time"
    stored["times"] = [[time.time() - 3601, [1e-9, 1e-9]], [time.time() + 100, [1e-9, 1e-9]]]
    file.write_text(json.dumps(stored))
    assert min(Reference(1, tmp_path).best) > 1e-7
    for damaged in ("", "[]", '{"times": [["a", 1]]}', '{"times": 3}', '{"times": [[1]]}'):
        file.write_text(damaged)
        assert min(Reference(1, tmp_path).best) > 1e-7
    Reference(1, tmp_path).store()
    assert len(json.loads(file.read_text())["times"]) == 1


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_every_runtime_gives_the_answers_of_the_network(runtime: str, network: Network, tmp_path: Path) -> None:
    """Also if files with other numbers of threads are loaded in between, which the process may share."""
    skip_without(runtime)
    images = torch.randn(4, 1, 8, 8)
    path = tmp_path / f"model{LatencySettings(runtime=runtime).suffix}"
    write_file(network, path, images)
    with torch.no_grad():
        expected = network.module(images).numpy()
    models = [DeployedModel(path, threads, runtime) for threads in (1, 2, 1)]
    for model in (*models, *models):
        assert np.allclose(model(images.numpy()), expected, atol=1e-4)
    assert measure_latency([path], (1, 8, 8), runtime=runtime, blocks=5, patience=0.5)[0].median_ms > 0


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_damaged_file_is_a_clear_error(runtime: str, tmp_path: Path) -> None:
    skip_without(runtime)
    path = tmp_path / f"model{LatencySettings(runtime=runtime).suffix}"
    path.write_bytes(b"no network")
    with pytest.raises(SlimsearchError, match=rf"'.*model\{path.suffix}'") as caught:
        DeployedModel(path, runtime=runtime)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_file_of_another_runtime_is_a_clear_error(runtime: str, file: Path) -> None:
    for suffix in {".onnx", ".tflite", ".pte"} - {LatencySettings(runtime=runtime).suffix}:
        with pytest.raises(SlimsearchError, match=f"model{suffix}'.*--runtime"):
            DeployedModel(file.rename(file.with_suffix(suffix)), runtime=runtime)
        file.with_suffix(suffix).rename(file)
