"""Clusters of several nodes, and what is killed in them: every trial is recorded once, whatever is lost.

Each case is a real run: a driver in a process of its own, and real training where the case is about networks.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from ray.cluster_utils import Cluster

from tests.conftest import ROOT, environment
from tests.counts import Counts

pytestmark = pytest.mark.faults

# One candidate takes more and more memory.
GREEDY = """
import time


def evaluate(candidate):
    taken = []
    while candidate["a"] == 1 and len(taken) < 60:
        taken.append(b"x" * (100 * 2**20))
        time.sleep(0.1)
    time.sleep(2)
    return {"score": candidate["a"]}
"""


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Its head, which has no room for a trial."""
    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    yield found
    found.shutdown()


def begin(folder: Path, *words: str, run: str = "run") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(ROOT / "experiments" / "run.py"), "--strategy", "ray", "--run-dir", run, *words],
        cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def resume(folder: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, str(ROOT / "experiments" / "run.py"), "--resume", "run", *words],
        cwd=folder, env=environment(), capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def wait(condition: Callable[[], object], driver: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 240
    while not condition():
        assert driver.poll() is None, driver.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.2)


def finished(run: Path) -> int:
    return len(list(run.glob("trials/*/model.onnx")))


def states(run: Path) -> list[str]:
    """Of all trials in the study, by number."""
    from optuna import load_study
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    study = load_study(study_name=None, storage=JournalStorage(JournalFileBackend(str(run / "study.journal"))))
    trials = study.get_trials(deepcopy=False)
    keys = [trial.user_attrs["key"] for trial in trials]
    assert len(set(keys)) == len(keys)
    assert [trial.number for trial in trials] == list(range(len(trials)))
    return [trial.user_attrs["result"]["state"] if "result" in trial.user_attrs else "running" for trial in trials]


def test_a_node_that_is_killed_loses_no_trial(cluster: Cluster, tmp_path: Path, counts: Counts) -> None:
    """Three nodes train 30 networks; one of them goes with all its processes in the middle."""
    nodes = [cluster.add_node(num_cpus=1) for _ in range(3)]
    cluster.wait_for_nodes()
    driver = begin(
        tmp_path, "--space", "lenet", "--ray-address", cluster.address, "--trials", "30", "--epochs", "1",
        "--compress", "none",
    )  # fmt: skip
    wait(lambda: finished(tmp_path / "run") >= 8, driver)
    cluster.remove_node(nodes[0], allow_graceful=False)
    said = driver.communicate(timeout=500)[0]
    assert driver.returncode == 0, said
    assert states(tmp_path / "run") == ["complete"] * 30
    assert "30/30" in said
    models = json.loads((tmp_path / "run" / "top_models.json").read_text())
    assert all((tmp_path / "run" / model["artifact"]).is_file() for model in models)
    counts.add("kills of Ray's processes survived")


@pytest.mark.skipif(os.geteuid() != 0, reason="to hide folders from a node takes the rights of root")
def test_a_node_that_sees_neither_the_code_nor_the_run(cluster: Cluster, tmp_path: Path) -> None:
    """Code, data, checkpoints and parents are sent to it; files come back after every epoch and at the end."""
    venv, kept = Path(sys.prefix), tmp_path / "venv"
    (tmp_path / "run").mkdir()
    commands = [
        f"mkdir {kept} && mount --bind {venv} {kept}",
        f"mount -t tmpfs none {ROOT}",
        f"mkdir -p {venv} && mount --bind {kept} {venv}",
        f"mount -t tmpfs none {tmp_path / 'run'}",
        "cd /",
        f"exec {venv}/bin/ray start --address={cluster.address} --num-cpus=2 --block",
    ]
    hidden = subprocess.Popen(["unshare", "-m", "bash", "-ec", "\n".join(commands)], stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while not cluster.global_state.cluster_resources().get("CPU"):
            assert time.monotonic() < deadline, "the node did not start"
            time.sleep(0.2)
        driver = begin(
            tmp_path, "--space", "lenet", "--ray-address", cluster.address, "--trials", "3", "--epochs", "4",
            "--top-k", "1",
        )  # fmt: skip
        checkpoints: set[str] = set()
        while driver.poll() is None:
            checkpoints |= {path.parent.name for path in (tmp_path / "run").glob("trials/*/training.pt")}
            time.sleep(0.05)
        said = driver.communicate()[0]
        assert driver.returncode == 0, said
    finally:
        hidden.terminate()
        hidden.wait(60)
    assert states(tmp_path / "run")[:3] == ["complete"] * 3
    assert len(states(tmp_path / "run")) == 5
    assert {"00000", "00001", "00002"} <= checkpoints
    for number in range(5):
        folder = tmp_path / "run" / "trials" / f"{number:05d}"
        names = {path.name for path in folder.iterdir()}
        assert names >= {"model.onnx", "predictions.safetensors", "weights.safetensors", "log.txt"}, names
        assert not any(name.startswith("training.") or ".part" in name for name in names), names
    assert not list((tmp_path / "run").glob(".ray-*"))


def test_a_driver_whose_raylet_is_killed_says_so(tmp_path: Path, counts: Counts) -> None:
    """Nothing is blamed on the trials that were lost with it, and they are run again."""
    driver = begin(tmp_path, "--space", "lenet", "--trials", "8", "--epochs", "2", "--compress", "none")
    wait(lambda: finished(tmp_path / "run") >= 2, driver)
    (raylet,) = (p for p in psutil.Process(driver.pid).children(recursive=True) if p.name() == "raylet")
    raylet.kill()
    said = driver.communicate(timeout=120)[0]
    assert driver.returncode == 2, said
    assert (
        "error: this machine's Ray node (its raylet) was lost; finished trials are kept, continue with --resume" in said
    )
    assert set(states(tmp_path / "run")) <= {"complete", "running"}
    resume(tmp_path)
    assert states(tmp_path / "run") == ["complete"] * 8
    counts.add("kills of Ray's processes survived")


@pytest.mark.parametrize("killed", ["worker", "driver"])
def test_a_process_that_is_killed_in_training(killed: str, tmp_path: Path, counts: Counts) -> None:
    driver = begin(tmp_path, "--space", "lenet", "--trials", "6", "--epochs", "3", "--compress", "none")
    wait(lambda: finished(tmp_path / "run") >= 1 and list((tmp_path / "run").glob("trials/*/training.pt")), driver)
    if killed == "driver":
        os.kill(driver.pid, signal.SIGKILL)
        driver.communicate(timeout=60)
        resume(tmp_path)
    else:
        # Ray names its processes after what they do.
        names = ((p, " ".join(p.cmdline())) for p in psutil.Process(driver.pid).children(recursive=True))
        worker = next(p for p, name in names if name.startswith("ray::run, trial"))
        worker.kill()
        said = driver.communicate(timeout=300)[0]
        assert driver.returncode == 0, said
    assert states(tmp_path / "run") == ["complete"] * 6
    counts.add("kills of Ray's processes survived")


def test_a_trial_that_eats_memory_takes_no_other_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counts: Counts
) -> None:
    memory = psutil.virtual_memory()
    share = (memory.total - memory.available + 2.5 * 2**30) / memory.total
    monkeypatch.setenv("RAY_memory_usage_threshold", f"{share:.4f}")
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "100")
    (tmp_path / "greedy.py").write_text(GREEDY)
    (tmp_path / "begin.py").write_text(
        "import slimsearch\nfrom greedy import evaluate\n"
        "slimsearch.search({'a': [0, 1, 2, 3, 4, 5]}, evaluate=evaluate, objectives='score:max', strategy='ray',\n"
        "    sampler='grid', trials=6, workers=2, run_dir='run')\n"
    )
    done = subprocess.run(
        [sys.executable, "begin.py"], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=200,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "its node ran out of memory" in done.stdout
    assert states(tmp_path / "run") == ["complete", "failed", *["complete"] * 4]
    counts.add("faults injected")
