"""Latency over SSH: a real server on the loopback address whose runtime is slower, and connections that are cut."""

from __future__ import annotations

import json
import os
import re
import shlex
import site
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, TINY, Run, environment
from tests.faults.processes import Process, ended, finished
from tests.ssh_server import HOST, Server, ssh_server

pytestmark = pytest.mark.ssh

SPACE = """
from torch import nn

def define(trial):
    width = trial.suggest_categorical("width", [4, 128])
    act = {"relu": nn.ReLU, "tanh": nn.Tanh}[trial.suggest_categorical("act", ["relu", "tanh"])]
    body = [nn.Conv2d(1, width, 3), act(), nn.Conv2d(width, width, 3, padding=1), act()]
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(width * 9, 10))
"""
SEARCH = (
    "--dataset", "digits", "--epochs", "1", "--compress", "none", "--workers", "1", "--run-dir", "run",
)  # fmt: skip


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server whose Python has the packages of this one; ``ssh`` on the PATH knows it."""
    folder = tmp_path / "server"
    folder.mkdir()
    with ssh_server(folder, [Path(one) for one in site.getsitepackages()]) as found:
        monkeypatch.setenv("PATH", f"{found.client}:{os.environ['PATH']}")
        yield found


@pytest.fixture
def space(tmp_path: Path) -> str:
    (tmp_path / "space.py").write_text(SPACE)
    return f"{tmp_path / 'space.py'}:define"


def latencies(run: Path) -> dict[str, float]:
    """Milliseconds by architecture, such as "4 tanh"."""
    trials = finished(run).values()
    return {
        "{width} {act}".format(**{name: json.loads(str(value)) for name, value in trial["params"].items()}): trial[
            "result"
        ]["metrics"]["latency_ms"]
        for trial in trials
    }


def assert_private(run: Path, server: Server) -> None:
    """No file of a run directory says where the board is, or how to get there."""
    for file in (path for path in run.rglob("*") if path.is_file()):
        content = file.read_bytes()
        for secret in (HOST, "root@", "127.0.0.1", str(server.folder), "BatchMode"):
            assert secret.encode() not in content, (secret, file)


def test_the_search_ranks_by_the_board(server: Server, space: str, tmp_path: Path, run: Run) -> None:
    words = ("--space", space, "--sampler", "grid", "--trials", "4", "--top-k", "4", *SEARCH)
    process = Process(tmp_path, *words, "--device-host", f"pi4=root@{HOST}")
    assert process.end() == 0, process.said
    there = latencies(tmp_path / "run")
    assert max(there["4 relu"], there["128 relu"]) < 1 < 2 <= min(there["4 tanh"], there["128 tanh"])
    models = json.loads((tmp_path / "run" / "top_models.json").read_text())
    assert all(model["metrics"]["latency_board"] == 1 for model in models)
    assert all(trial["result"]["metrics"]["latency_board"] == 1 for trial in finished(tmp_path / "run").values())
    known = json.loads((tmp_path / "run" / "environment.json").read_text())["boards"]
    assert [board["name"] for board in known] == ["pi4"]
    assert "pi4" in (tmp_path / "run" / "report.html").read_text()
    assert "measured on pi4" in process.said
    assert_private(tmp_path / "run", server)
    # Here, a wide network takes longer than a narrow one with any activation.
    done = run(*words[:-1], "here")
    assert done.returncode == 0, done.stderr
    here = latencies(tmp_path / "here")
    assert here["4 tanh"] < here["128 relu"]
    for command, more in (
        ("run", ("--resume", "run")),
        ("retrain", ("run",)),
        ("compare", ("run", "here", "--measure")),
    ):
        done = run(*more, command=command)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert "pi4, whose address is not stored" in done.stderr
    again = run("--resume", "run", "--device-host", f"pi4={HOST}", "--trials", "4")
    assert again.returncode == 0, again.stderr
    other = run("--resume", "run", "--device-host", HOST)
    assert "measures latency on pi4, not on board 1" in other.stderr
    added = run("--resume", "here", "--device-host", HOST)
    assert "cannot be added" in added.stderr
    compared = run("run", "here", "--measure", "--device-host", HOST, "--json", "found.json", command="compare")
    assert compared.returncode == 0, compared.stderr
    assert_private(tmp_path / "run", server)


def test_connections_that_are_cut_lose_nothing(server: Server, tmp_path: Path) -> None:
    words = ("--space", TINY, "--trials", "24", "--sampler", "random", "--top-k", "1", *SEARCH, "--epochs", "4")
    env = {**environment(), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    process = Process(tmp_path, *words, "--device-host", HOST, env=env)
    run = tmp_path / "run"
    assert process.until(lambda: ended(run) >= 1), process.said
    for count in (1, 2):
        assert server.cut() >= 1
        assert process.until(lambda count=count: ended(run) >= 1 + count), process.said
    assert all("latency_board" in trial["result"]["metrics"] for trial in finished(run).values())
    server.stop()
    before = ended(run)
    assert process.until(lambda: ended(run) >= before + 2), process.said
    server.start()
    assert process.end() == 0, process.said
    trials = [trial["result"] for trial in finished(run).values()]
    assert {trial["state"] for trial in trials} == {"complete"}
    away = [trial for trial in trials if "latency_away" in trial["metrics"]]
    assert away
    assert all(trial["metrics"]["latency_predicted"] == 1 for trial in away)
    assert process.said.count("no board of --device-host answers") == 1
    models = json.loads((run / "top_models.json").read_text())
    assert all(model["metrics"]["latency_board"] == 1 for model in models)
    assert_private(run, server)


def test_predictions_need_at_most_ten_measurements(server: Server, tmp_path: Path, run: Run, monkeypatch: Any) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    done = run(
        "--space", "mlp", "--trials", "14", "--sampler", "random", "--top-k", "1", *SEARCH,
        "--latency", "predicted", "--device-host", f"{HOST},second={HOST}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    metrics = [trial["result"]["metrics"] for _, trial in sorted(finished(tmp_path / "run").items())]
    measured = [one for one in metrics if "latency_predicted" not in one]
    assert metrics[0] in measured
    assert len(measured) <= 10
    assert all(one.get("latency_board") in ((1, 2) if one in measured else (None,)) for one in metrics)
    assert_private(tmp_path / "run", server)


def test_the_commands_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    """From a board without any packages; what one reads in docs/device.md, in order."""
    folder = tmp_path / "server"
    folder.mkdir()
    page = (ROOT / "docs" / "device.md").read_text(encoding="utf-8")
    section = page.partition("## Measure on your board")[2].partition("\n## ")[0]
    lines = [
        line for block in re.findall(r"^```sh\n(.*?)^```$", section, re.S | re.M) for line in block.strip().splitlines()
    ]
    with ssh_server(folder) as server:
        monkeypatch.setenv("PATH", f"{server.client}:{os.environ['PATH']}")
        missing = run("check", HOST, command="device")
        assert missing.returncode == 2
        assert f"has no onnxruntime: slimsearch device setup {HOST}" in missing.stderr
        for line in lines:
            words = shlex.split(re.sub(r"\w+@[\w.-]+", HOST, line).replace("RUN_DIR", "run"))
            if words[0] != "slimsearch":
                subprocess.run(words, check=True)
                continue
            if words[1] == "run" and "--resume" not in words:
                words += ["--trials", "2", "--epochs", "1", "--top-k", "1", "--run-dir", "run"]
            done = run(*words[2:], command=words[1])
            assert done.returncode == 0, (line, done.stderr)
        assert not (server.home / ".cache" / "slimsearch-device").exists(), "the page says how to remove it"
