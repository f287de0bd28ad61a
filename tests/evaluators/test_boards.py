"""Boards: their program with NumPy and the runtime alone, addresses, boards that do not answer, and corrections."""

from __future__ import annotations

import ast
import inspect
import itertools
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from slimsearch import compression
from slimsearch.compression import Network
from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import Board, BoardsAway, LatencyPredictor, LatencySettings, Meter, connected_boards
from slimsearch.evaluators.latency import board_program, boards
from slimsearch.evaluators.latency.boards import (
    PROGRAM,
    BoardConnection,
    BoardMeasurements,
    Boards,
    ConnectionLost,
)
from slimsearch.evaluators.latency.measurement import Latency, Measured, MeasurementSettings
from slimsearch.evaluators.latency.operators import operators_of
from slimsearch.evaluators.latency.predictor import OperatorCosts
from slimsearch.evaluators.network_pipeline import FileLatencies
from slimsearch.options.configuration import device_hosts
from tests.conftest import Run

SETTINGS = MeasurementSettings((1, 8, 8), blocks=3, patience=0.1, patience_beside_others=0.0)


@pytest.fixture
def bare(tmp_path: Path) -> list[str]:
    """The command of the board's program in a Python with NumPy and ONNX Runtime alone."""
    packages = tmp_path / "packages"
    packages.mkdir()
    for package in (np, onnxruntime):
        folder = Path(inspect.getfile(package)).parent
        for found in folder.parent.glob(f"{folder.name}*"):
            (packages / found.name).symlink_to(found)
    python = f"env -i HOME={tmp_path} TMPDIR={tmp_path} PYTHONPATH={packages} {sys.executable} -S"
    return ["sh", "-c", f"echo welcome; {PROGRAM}".replace("p=python3", f"p='{python}'").replace('"$p"', "$p")]


@pytest.fixture
def connection(bare: list[str]) -> Iterator[BoardConnection]:
    found = BoardConnection(bare)
    yield found
    found.close()


def export(path: Path, channels: int = 8) -> Path:
    module = nn.Sequential(nn.Conv2d(1, channels, 3), nn.ReLU(), nn.Flatten(), nn.Linear(channels * 36, 10))
    compression.export_onnx(Network(module.eval()), path, torch.randn(2, 1, 8, 8))
    return path


def test_the_program_measures_with_numpy_and_the_runtime_alone(connection: BoardConnection, tmp_path: Path) -> None:
    assert connection.facts["packages"].keys() == {"numpy", "onnxruntime"}
    assert connection.facts["cores"] >= 1
    times, _ = connection.reference_ms(1)
    assert all(0 < ms < 1000 for ms in times)
    small, large = (export(tmp_path / f"{width}.onnx", width).read_bytes() for width in (8, 512))
    (one, other), alone = connection.measure({"a": small, "b": large}, SETTINGS)
    assert alone
    assert 0 < one.low_ms <= one.median_ms <= one.high_ms
    assert one.median_ms < other.median_ms
    with pytest.raises(SlimsearchError, match="onnxruntime cannot load"):
        connection.measure({"a": b"no file"}, SETTINGS)
    assert connection.measure({"a": small}, SETTINGS)[0][0].blocks >= 3, "it goes on after an error"


def test_the_program_ends_with_its_connection(bare: list[str]) -> None:
    process = subprocess.Popen(bare, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    program = inspect.getsource(board_program).encode()
    process.stdin.write(b"%d\n" % len(program) + program)
    process.stdin.close()
    assert process.wait(30) == 0


def test_what_a_board_runs_is_of_python_3_9() -> None:
    for module in (board_program, *(sys.modules[name] for name in boards.MODULES)):
        text = inspect.getsource(module)
        ast.parse(text, feature_version=(3, 9))
        assert "strict=" not in text, "zip has that since Python 3.10"


@pytest.mark.parametrize("said", ["echo Permission denied >&2; exit 255", "echo hello; cat", "printf 'x\\n{'"])
def test_a_program_that_does_not_start_is_a_lost_connection(said: str) -> None:
    with pytest.raises(ConnectionLost, match=r"Permission denied|connection was closed"):
        BoardConnection(["sh", "-c", f"head -c 100 >/dev/null; {said.replace('cat', 'exit')}"])


def test_a_board_that_does_not_answer_is_tried_again_later(tmp_path: Path) -> None:
    if shutil.which("ssh") is None:
        pytest.skip("needs an SSH client")
    board = Board(1, "pi4", "ssh://nobody@127.0.0.1:1")  # nothing listens there
    device = Boards([board], 0.0, Meter(tmp_path))
    path = export(tmp_path / "model.onnx")
    for _ in range(2):
        with pytest.raises(BoardsAway, match=r"^pi4 does not answer$"):
            device.measure([path], SETTINGS)
    started = time.monotonic()
    with pytest.raises(BoardsAway):
        device.measure([path], SETTINGS)
    assert time.monotonic() - started < 1, "it is not tried for each measurement"
    with pytest.raises(SlimsearchError, match=r"'ssh://nobody@127.0.0.1:1' does not answer: .*Connection refused"):
        connected_boards({"pi4": board.address}, "onnxruntime", 1)


def test_addresses_and_names() -> None:
    assert device_hosts(None) == {}
    assert device_hosts("pi@a") == {"board 1": "pi@a"}
    assert device_hosts("pi4=pi@a, ssh://pi@b:2222") == {"pi4": "pi@a", "board 2": "ssh://pi@b:2222"}
    for wrong in ("", "-oProxyCommand=touch /tmp/x", "x=-oProxyCommand=x", "a b", "pi@a,", "a\nb", "=pi@a", "x\x1b=a"):
        with pytest.raises(SlimsearchError, match="is not of the form user@board"):
            device_hosts(wrong)
    with pytest.raises(SlimsearchError, match="two boards with the name pi4"):
        device_hosts("pi4=a,pi4=b")


def test_mistakes_are_one_line(run: Run) -> None:
    for words, said in (
        (("--space", "mlp", "--device-host=-x"), "is not of the form user@board or NAME=user@board"),
        (("--evaluator", "table.csv", "--device-host", "a"), "--device-host measures files"),
    ):
        done = run(*words)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert said in done.stderr
    done = run("chek", "pi@a", command="device")
    assert (done.returncode, "did you mean 'check'?" in done.stderr) == (2, True)


def test_measurements_are_shared_and_torn_lines_are_ignored(tmp_path: Path) -> None:
    shared, files = BoardMeasurements(tmp_path / "measured.jsonl"), [tmp_path / f"{i}.onnx" for i in range(4)]
    assert shared.read(10) == {}
    for number, file in enumerate(files):
        file.touch()
        shared.add(file, number + 1.0)
        BoardMeasurements(tmp_path / "measured.jsonl").add(file, number + 2.0)
    with (tmp_path / "measured.jsonl").open("a") as opened:
        opened.write('{"file": "0.onnx", "ms": -1}\n{"file": 3}\n{"fi')
    files[1].unlink()
    assert shared.read(10) == {files[0]: 2.0, files[2]: 4.0, files[3]: 5.0}
    assert shared.read(1) == {files[3]: 5.0}
    assert "/" not in json.loads((tmp_path / "measured.jsonl").read_text().splitlines()[0])["file"]


@pytest.mark.usefixtures("calm")
def test_few_measurements_correct_predictions_for_another_device(tmp_path: Path) -> None:
    """There, convolutions take 20 times as long, and all else 4 times."""
    rng = np.random.default_rng(0)

    def network(path: Path) -> Path:
        channels, hidden = int(rng.integers(2, 65)), int(rng.integers(16, 1025))
        module = nn.Sequential(
            nn.Conv2d(1, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, channels, 3), nn.ReLU(), nn.Flatten(),
            nn.Linear(channels * 36, hidden), nn.ReLU(), nn.Linear(hidden, 10),
        )  # fmt: skip
        compression.export_onnx(Network(module.eval()), path, torch.randn(2, 1, 8, 8))
        return path

    here = LatencyPredictor(folder=tmp_path / "cache")

    def there(path: Path) -> float:
        here.predict(path)
        (tmp_path / "folder").mkdir(exist_ok=True)
        operators, costs = operators_of(path, 1, 1, tmp_path / "folder"), OperatorCosts(1, 1, tmp_path / "cache").read()
        known = [(operator.kind, cost) for operator in operators if (cost := costs[operator.key]) is not None]
        times = [cost.ms * (20 if kind == "convolution" else 4) for kind, cost in known]
        return 4 * float(np.median([cost.overhead_ms for _, cost in known])) + sum(times)

    paths = [network(tmp_path / f"{i}.onnx") for i in range(16)]
    predictor = LatencyPredictor(folder=tmp_path / "cache", slowness=8.0)
    assert predictor.predict(paths[0]).ms == pytest.approx(8 * here.predict(paths[0]).ms)
    for path in paths[:10]:
        predictor.correct(path, there(path))
    errors = [abs(predictor.predict(path).ms / there(path) - 1) for path in paths[10:]]
    assert np.median(errors) < 0.05


@pytest.mark.usefixtures("calm")
def test_with_predictions_a_board_measures_few_files_that_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Fake:
        def measure(self, paths: Sequence[Path], settings: MeasurementSettings) -> Measured:
            return Measured([Latency.predicted(path.stat().st_size / 1000) for path in paths], True, 1)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(LatencySettings, "device", lambda *_: Fake())
    settings = LatencySettings(
        how="predicted", boards=(Board(1, "pi4", "nowhere"),), board_measurements=tmp_path / "measured.jsonl"
    )
    latencies, number = FileLatencies(settings, Meter(tmp_path)), itertools.count()

    def is_measured(channels: int) -> bool:
        metrics = latencies.of([export(tmp_path / f"{next(number)}.onnx", channels)], (1, 8, 8), 0.0)[1]
        assert ("latency_board" in metrics) != ("latency_predicted" in metrics)
        return "latency_board" in metrics

    assert [is_measured(channels) for channels in (8, 8, 512, 512, 8)] == [True, False, True, False, False]
    shared = BoardMeasurements(tmp_path / "measured.jsonl")
    for _ in range(8):
        shared.add(export(tmp_path / f"{next(number)}.onnx"), 1.0)
    assert not is_measured(1024), "ten are enough"
