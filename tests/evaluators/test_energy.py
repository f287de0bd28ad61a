"""Energy per call, with counters in a tree of files like that of Linux."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import nn

from slimsearch.compression import Network
from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import LatencySettings, Meter
from slimsearch.evaluators.latency import energy
from slimsearch.evaluators.latency.energy import PackageCounters, energy_of
from slimsearch.evaluators.network_pipeline import FileLatencies, write_file
from slimsearch.loop.problem import check_without_data, prepare
from slimsearch.loop.python_objects import PythonObjects
from slimsearch.options.configuration import Configuration
from slimsearch.report.reliability import intervals

RANGE = 262_143_328_850  # microjoules


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two packages, of which one has a domain of its cores, and the whole machine."""
    for domain, name in (
        ("intel-rapl:0", "package-0"), ("intel-rapl:0:0", "core"), ("intel-rapl:1", "package-1"),
        ("intel-rapl:2", "psys"), ("intel-rapl-mmio:0", "package-0"),
    ):  # fmt: skip
        folder = tmp_path / "powercap" / domain
        folder.mkdir(parents=True)
        (folder / "name").write_text(f"{name}\n")
        (folder / "max_energy_range_uj").write_text(f"{RANGE}\n")
        (folder / "energy_uj").write_text("1000000\n")
    return tmp_path / "powercap"


def advance(tree: Path, domain: str, joules: float) -> None:
    file = tree / domain / "energy_uj"
    file.write_text(f"{(int(file.read_text()) + round(joules * 1e6)) % RANGE}\n")


class Clock:
    """In place of the module ``time``, with packages that consume `watts` all the time."""

    def __init__(self, tree: Path, watts: float) -> None:
        self._tree, self._watts, self._now = tree, watts, 0.0

    def perf_counter(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        self._now += seconds
        advance(self._tree, "intel-rapl:0", self._watts * seconds)


def test_packages_are_counted_also_when_a_counter_starts_again(tree: Path) -> None:
    counters = PackageCounters(tree)
    assert counters.joules() == 0
    for domain, joules in (("0", 3.0), ("1", 2.0), ("0:0", 50.0), ("2", 70.0)):
        advance(tree, f"intel-rapl:{domain}", joules)
    advance(tree, "intel-rapl-mmio:0", 90.0)
    assert counters.joules() == pytest.approx(5.0)
    for times in range(1, 4):  # 0.6 of the range each
        advance(tree, "intel-rapl:1", 0.6 * RANGE / 1e6)
        assert counters.joules() == pytest.approx(5.0 + 0.6 * times * RANGE / 1e6)


@pytest.mark.parametrize("watts", [0.0, 80.0])
def test_what_is_consumed_without_the_calls_is_not_theirs(
    tree: Path, watts: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(tree, watts)
    monkeypatch.setattr(energy, "time", clock)

    def call(joules: float) -> None:
        clock.sleep(0.0003)
        advance(tree, "intel-rapl:1", joules)

    calls = [lambda: call(0.002), lambda: call(0.004)]
    one, two = energy_of(calls, PackageCounters(tree), rounds=7, seconds=0.01)
    assert one.median_mj == pytest.approx(2.0)
    assert two.median_mj == pytest.approx(4.0)
    assert one.low_mj <= one.median_mj <= one.high_mj


def test_the_energy_of_a_file_is_recorded_with_its_interval(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(energy, "ROOT", tree)
    monkeypatch.setattr(energy, "_BLOCK_SECONDS", 0.001)
    write_file(
        Network(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()), tmp_path / "a.onnx", torch.randn(2, 1, 8, 8)
    )
    _, metrics = FileLatencies(LatencySettings(energy=True), Meter()).of([tmp_path / "a.onnx"], (1, 8, 8), 0.1)
    assert metrics["energy_mj"] == 0, "nothing advances these counters"
    assert intervals(metrics)["energy_mj"] == [0, 0]


@contextmanager
def not_root() -> Iterator[None]:
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_counters_that_cannot_be_read(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = Configuration(space="tiny_cnn", objectives="val_accuracy,energy_mj", dataset="digits")

    def asked() -> str:
        with pytest.raises(SlimsearchError) as caught:
            check_without_data(options)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    monkeypatch.setattr(energy, "ROOT", tmp_path / "nothing")
    assert "no readable energy counter: " + str(tmp_path / "nothing") in asked()
    monkeypatch.setattr(energy, "ROOT", tree)
    (tree / "intel-rapl:1" / "energy_uj").write_text("many")
    assert "damaged" in asked()
    (tree / "intel-rapl:1" / "energy_uj").chmod(0)
    tree.chmod(0o755)
    monkeypatch.chdir(tree)  # its parents are closed to others
    with not_root(), pytest.raises(SlimsearchError, match=r"only root can read .* chmod a\+r intel-rapl:\*/energy_uj"):
        PackageCounters(Path())
    (tree / "intel-rapl:1" / "energy_uj").chmod(0o600)
    (tree / "intel-rapl:1" / "energy_uj").write_text("0")
    problem = prepare(options, PythonObjects())
    assert problem.latency.energy
    assert "energy_mj" in (problem.metrics or ())
