"""Drivers with a run directory each and one study: real runs in processes of their own."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import slimsearch
from slimsearch.evaluators.datasets import Dataset
from tests.conftest import DOZEN, ROOT, SPACES, TINY, Run, environment
from tests.databases import PostgreSQL, postgresql

WORDS = ("--dataset", "digits", "--workers", "1", "--top-k", "2", "--study", "dozen", "--heartbeat", "2")
FAST = ("--dataset", "digits", "--epochs", "2", "--workers", "1")


@pytest.fixture(scope="module")
def cluster() -> Iterator[PostgreSQL]:
    with postgresql() as found:
        yield found


def begin(folder: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(ROOT / "experiments" / "run.py"), *words],
        cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def read_until(process: subprocess.Popen[str], pattern: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if re.search(pattern, line):
            return
    assert process.stderr is not None
    raise AssertionError(f"it ended before: {process.stderr.read()}")


def trials(url: str, name: str) -> list[Any]:
    """As any Optuna program reads them."""
    import optuna

    from slimsearch.record.shared.storage import normalised

    return optuna.load_study(study_name=name, storage=normalised(url)).trials


def one_line(done: subprocess.CompletedProcess[str], said: str) -> None:
    assert done.returncode == 2, done.stdout
    assert re.search(said, done.stderr), done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stdout


def until_in_training(url: str, driver: str) -> None:
    """Until a trial of that driver has trained an epoch and goes on."""
    deadline = time.monotonic() + 120
    while not any(
        t.state.name == "RUNNING" and t.intermediate_values and t.user_attrs["driver"] == driver
        for t in trials(url, "dozen")
    ):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def one_is_killed_and_the_other_finishes(url: str, folder: Path, run: Run, digits: Dataset) -> None:
    words = ["--space", DOZEN, *WORDS, "--epochs", "30", "--storage", url, "--trials", "12"]
    a, b = (begin(folder, *words, "--run-dir", name) for name in "ab")
    read_until(a, r"^\[4/12\]")
    until_in_training(url, (folder / "a" / "driver").read_text())
    a.kill()
    output, errors = b.communicate(timeout=300)
    a.communicate()
    assert b.returncode == 0, errors
    assert re.search(r"trial \d+: .* lost: ", output)

    found = trials(url, "dozen")
    searched = [t for t in found if t.user_attrs["kind"] == "search" and t.state.name == "COMPLETE"]
    assert len({json.dumps(t.params, sort_keys=True) for t in searched}) == len(searched) == 12
    assert len({t.user_attrs["driver"] for t in searched}) == 2
    assert all(t.user_attrs["host"] for t in found)
    lost = [t for t in found if "result" not in t.user_attrs]
    assert [t.state.name for t in lost] == ["FAIL"], "what its one worker was at"
    models = check_models(folder / "b", digits)

    before = [(t.number, t.state, t.values) for t in found]
    again = run("--resume", "a")
    assert again.returncode == 0, again.stderr
    assert check_models(folder / "a", digits) == models
    assert [(t.number, t.state, t.values) for t in trials(url, "dozen")] == before, "nothing was left to do"


def check_models(directory: Path, digits: Dataset) -> list[dict[str, Any]]:
    models: list[dict[str, Any]] = json.loads((directory / "top_models.json").read_text())
    assert len(models) >= 2
    assert digits.test is not None
    for model in models:
        accuracy = slimsearch.accuracy(directory / model["artifact"], digits, digits.test)
        assert accuracy == model["metrics"]["test_accuracy"]
        network = slimsearch.load_network(directory, model)
        assert sum(p.numel() for p in network.parameters()) == model["metrics"]["params"]
    return models


@pytest.mark.slow
def test_sqlite(tmp_path: Path, run: Run, digits: Dataset) -> None:
    one_is_killed_and_the_other_finishes(f"sqlite:///{tmp_path}/study.db", tmp_path, run, digits)


@pytest.mark.postgres
def test_postgresql(cluster: PostgreSQL, tmp_path: Path, run: Run, digits: Dataset) -> None:
    one_is_killed_and_the_other_finishes(cluster.url(), tmp_path, run, digits)


@pytest.mark.slow
def test_a_scheduler_pauses_and_goes_on_with_several_drivers(tmp_path: Path) -> None:
    """Each trial goes on where its checkpoint is, and what stays paused is ended by its own driver."""
    words = [
        "--space", DOZEN, *WORDS, "--epochs", "9", "--compress", "none", "--scheduler", "successive_halving",
        "--storage", "sqlite:///study.db",
    ]  # fmt: skip
    both = [begin(tmp_path, *words, "--run-dir", name) for name in "ab"]
    for process in both:
        _, errors = process.communicate(timeout=200)
        assert process.returncode == 0, errors
    states = [t.user_attrs["result"]["state"] for t in trials(f"sqlite:///{tmp_path}/study.db", "dozen")]
    assert set(states) <= {"complete", "stopped early", "withdrawn"}
    assert len([state for state in states if state != "withdrawn"]) == 12
    assert 1 <= states.count("complete") <= 4
    assert (tmp_path / "a" / "top_models.json").read_bytes() == (tmp_path / "b" / "top_models.json").read_bytes()


@pytest.mark.postgres
def test_the_database_is_lost_and_comes_back(cluster: PostgreSQL, tmp_path: Path, run: Run) -> None:
    words = ["--space", TINY, *WORDS, "--epochs", "30", "--storage", cluster.url(), "--run-dir", "run"]
    process = begin(tmp_path, *words)
    read_until(process, r"^\[2/6\]")
    cluster.stop()
    try:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 2
        assert len(errors.strip().splitlines()) == 1
        assert re.match(
            r"error: database 'postgresql\S+': .*; finished trials are kept, continue with --resume run", errors
        )
        one_line(run("--resume", "run"), "error: database 'postgresql.*refused")
    finally:
        cluster.start()
    again = run("--resume", "run")
    assert again.returncode == 0, again.stderr
    assert "[6/6]" in again.stdout


@pytest.mark.postgres
def test_a_password_is_neither_shown_nor_kept(
    cluster: PostgreSQL, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--space", TINY, *FAST, "--compress", "none", "--trials", "2", "--run-dir", "run"]
    url = cluster.url("guarded:s3cret")
    wrong = run(*words, "--storage", url.replace("s3cret", "wr0ng"))
    one_line(wrong, r'password authentication failed for user "guarded"')
    done = run(*words, "--storage", url)
    assert done.returncode == 0, done.stderr
    one_line(run("--resume", "run", "--trials", "3"), "no password supplied")
    monkeypatch.setenv("PGPASSWORD", "s3cret")
    again = run("--resume", "run", "--trials", "3")
    assert again.returncode == 0, again.stderr
    for process in (wrong, done, again):
        assert "s3cret" not in process.stdout + process.stderr
        assert "wr0ng" not in process.stdout + process.stderr
    for file in (tmp_path / "run").rglob("*"):
        assert not file.is_file() or b"s3cret" not in file.read_bytes()


@pytest.mark.postgres
def test_a_database_that_is_not_there(cluster: PostgreSQL, run: Run) -> None:
    url = f"postgresql://tester@127.0.0.1:{cluster.port}/nothing"
    one_line(run("--space", TINY, "--storage", url), 'database "nothing" does not exist')


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--storage", "study.db"], "--storage 'study.db' is not a database URL, such as postgresql://"),
        (["--storage", "sqlite://"], "--storage 'sqlite://' names no file"),
        (["--storage", "oracl://me:s3cret@host/x"], r"--storage 'oracl://me:\*\*\*@host/x' is of no known database"),
        (["--storage", "sqlite:////proc/nowhere/x.db"], "database 'sqlite:////proc/nowhere/x.db': unable to open"),
        (["--study", "mine"], "--study 'mine' is the name of a study in --storage, which is missing"),
        (["--storage", "sqlite:///x.db", "--heartbeat", "0"], "--heartbeat 0 is less than 1"),
        (["--storage", "sqlite:///x.db", "--strategy", "supernet"], "--strategy supernet keeps what it knows in one"),
    ],
)
def test_mistakes_are_one_clear_line(words: list[str], said: str, run: Run, tmp_path: Path) -> None:
    done = run("--space", TINY, "--dataset", "digits", *words)
    one_line(done, said)
    assert "s3cret" not in done.stderr
    assert not (tmp_path / "runs").exists()


def test_an_unreachable_server_is_said_soon(run: Run) -> None:
    pytest.importorskip("psycopg", reason="needs slimsearch[postgres]")
    began = time.monotonic()
    one_line(run("--space", TINY, "--storage", "postgresql://me@127.0.0.1:1/x"), "'postgresql.*Connection refused")
    one_line(run("--space", TINY, "--storage", "postgresql://me@nowhere.invalid/x"), "nowhere.invalid")
    assert time.monotonic() - began < 30


@pytest.mark.slow
def test_who_joins_must_search_the_same(run: Run, run_apart: Run, tmp_path: Path) -> None:
    words = ["--space", TINY, *FAST, "--compress", "none", "--storage", "sqlite:///study.db", "--study", "tiny"]
    first = run(*words, "--run-dir", "a", "--trials", "2")
    assert first.returncode == 0, first.stderr
    (tmp_path / "spaces.py").write_text(SPACES.read_text().replace("[8, 16, 24]", "[8, 16, 32]"))
    for changes, said in (
        (["--epochs", "3"], "--epochs is 2 in the study and 3 here"),
        (["--objectives", "val_accuracy"], "--objectives is val_accuracy,latency_ms,size_kib in the study and val_acc"),
        (["--space", "spaces.py:Tiny"], "its space differs: 'width' was 8, 16, 24, is 8, 16, 32"),
        (["--dataset", "digits", "--image-size", "9"], "--image-size is None in the study and 9 here"),
    ):
        one_line(run(*words, "--run-dir", "b", *changes), f"study 'tiny' in 'sqlite.*' has other settings: {said}")
        assert not (tmp_path / "b").exists()
    # The same space at another place, and more trials: everybody may say how long it goes on.
    (tmp_path / "spaces.py").write_text(SPACES.read_text())
    # In a process of its own, in which the file has not been imported yet.
    second = run_apart(*words, "--run-dir", "b", "--space", "spaces.py:Tiny", "--trials", "4")
    assert second.returncode == 0, second.stderr
    assert len(trials(f"sqlite:///{tmp_path}/study.db", "tiny")) == 4
    one_line(run("--resume", "a", "--storage", "sqlite:///other.db"), "there is no study 'tiny' in 'sqlite.*other.db'")


def test_the_dashboard_opens_the_study_where_it_is(run: Run, tmp_path: Path) -> None:
    words = ["--space", TINY, *FAST, "--compress", "none", "--storage", "sqlite:///study.db", "--trials", "1"]
    done = run(*words, "--run-dir", "run")
    assert done.returncode == 0, done.stderr
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "slimsearch.cli.main", "dashboard", "run", "--port", str(port)],
        cwd=tmp_path, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        for _ in range(100):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/studies", timeout=5) as answer:
                    studies = json.load(answer)["study_summaries"]
                break
            except OSError:
                time.sleep(0.3)
        assert [study["study_name"] for study in studies] == ["run"], "named like the run directory"
        stored = trials(f"sqlite:///{tmp_path}/study.db", "run")[0]
        metas = [json.loads(value) for name, value in stored.system_attrs.items() if name.startswith("artifacts:")]
        meta = next(meta for meta in metas if meta["filename"] == "model.onnx")
        address = f"http://127.0.0.1:{port}/artifacts/1/{stored.number + 1}/{meta['artifact_id']}"
        with urllib.request.urlopen(address, timeout=5) as answer:
            assert answer.read() == (tmp_path / "run" / "trials" / "00000" / "model.onnx").read_bytes()
    finally:
        process.terminate()
        process.wait()
