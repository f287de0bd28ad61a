"""Fixtures of many tests: small real data, small spaces, and runs in this process and in others.

Nothing heavy is imported with this module: the main process of ``-n`` only hands out tests.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.util import Finalize
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

import slimsearch  # noqa: F401 - light, and lets torchvision be imported, and with it NNI
from tests.counts import Counts

if TYPE_CHECKING:
    import numpy as np

    from slimsearch.evaluators.datasets import Dataset

ROOT = Path(__file__).resolve().parent.parent
SPACES = ROOT / "tests" / "spaces.py"
DEFINED = ROOT / "tests" / "defined.py"
TINY, DOZEN, VARIOUS = f"{SPACES}:Tiny", f"{SPACES}:Dozen", f"{SPACES}:Various"

Run = Callable[..., "subprocess.CompletedProcess[str]"]

RUNTIMES = {
    "onnxruntime": "onnxruntime", "openvino": "openvino", "litert": "litert_torch", "executorch": "executorch",
}  # fmt: skip
"""By name, the package without which tests of a runtime are skipped."""


def skip_without(runtime: str) -> None:
    """Skip a test of a runtime that is not installed."""
    if importlib.util.find_spec(RUNTIMES[runtime]) is None:
        pytest.skip(f"needs the extra '{runtime}'")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--keep-screenshots", action="store_true", help="renew the pictures of docs/images (-m browser)")


_COUNTS = pytest.StashKey[Counts]()


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """With ``-n``, each process gets tests that stand together, which share fixtures of their module."""
    if config.getoption("numprocesses", None) and config.getoption("dist") == "no":
        config.option.dist = "worksteal"


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_COUNTS] = Counts()


def pytest_sessionstart(session: pytest.Session) -> None:
    # A background job of a shell ignores Ctrl-C, one of nohup SIGHUP, and so would the processes that tests interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    if hasattr(session.config, "workerinput"):  # one of the processes of -n
        _measure_apart()
        _compute_apart()
    elif session.config.getoption("numprocesses", None) or session.config.option.collectonly:
        return
    from slimsearch.evaluators import IMPORTS
    from slimsearch.strategies import begin_workers

    begin_workers(IMPORTS)  # once, with all that any run needs, whichever is the first


def _measure_apart() -> None:
    """A temporary folder for this process: measurements wait for those with the same one."""
    folder = tempfile.mkdtemp(prefix="tests-")
    # After multiprocessing has removed its own folder in it, which it does at -100.
    Finalize(None, shutil.rmtree, args=(folder,), kwargs={"ignore_errors": True}, exitpriority=-200)
    os.environ["TMPDIR"] = tempfile.tempdir = folder


def _compute_apart() -> None:
    """One thread for this process and those that it starts: threads of several would wait for each other, spinning."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def counts(pytestconfig: pytest.Config) -> Counts:
    """What this session's tests have counted: ``counts.add("kills survived", 50)``."""
    return pytestconfig.stash[_COUNTS]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if lines := config.stash[_COUNTS].lines():
        terminalreporter.section("counts")
        terminalreporter.write_line("\n".join(lines))


@pytest.fixture(scope="session")
def digits() -> Dataset:
    """1,797 real digits of 8x8 pixels."""
    from slimsearch.evaluators.datasets import load_dataset

    return load_dataset("digits")


@pytest.fixture(scope="session")
def digits_directory(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits without their test split, as workers find them."""
    folder = tmp_path_factory.mktemp("digits")
    digits.without_test().save(folder)
    return folder


@pytest.fixture
def rng() -> np.random.Generator:
    import numpy as np

    return np.random.default_rng(0)


@pytest.fixture
def calm(monkeypatch: pytest.MonkeyPatch) -> None:
    """All measurements of this process count as undisturbed: other processes may keep the machine busy."""
    from slimsearch.evaluators.latency.reference import Reference

    monkeypatch.setattr(Reference, "calm", lambda self, times: True)


@pytest.fixture
def half_disturbed(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Every second block of a measurement is disturbed. Its patience ends only where a test adds seconds to `now`."""
    from slimsearch.evaluators.latency import measurement, operators
    from slimsearch.evaluators.latency.reference import Reference

    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now, perf_counter=time.perf_counter)
    disturbed = itertools.cycle((True, False))
    for module in (measurement, operators):
        monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(
        Reference, "around", lambda self, before, *_: (math.inf if next(disturbed) else 0.0,) * len(before)
    )
    monkeypatch.setattr(Reference, "calm", lambda self, times: math.inf not in times)
    monkeypatch.setattr(Reference, "wait", lambda self, until: clock.now < until)
    return clock


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """The command line in an empty folder: ``run("--space", ...)``; in this process, so that NNI is imported once."""
    from slimsearch.cli.main import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")

    def call(*words: object, command: str = "run") -> subprocess.CompletedProcess[str]:
        arguments = [command, *map(str, words)]
        capfd.readouterr()
        try:
            code = main(arguments)
        except SystemExit as end:  # of the parser
            code = int(end.code or 0)
        output = capfd.readouterr()
        return subprocess.CompletedProcess(arguments, code, output.out, output.err)

    return call


@pytest.fixture
def run_apart(tmp_path: Path) -> Run:
    """The same in a process of its own."""

    def call(*words: object, command: str = "run", timeout: float = 240) -> subprocess.CompletedProcess[str]:
        arguments = [sys.executable, "-m", "slimsearch.cli.main", command, *map(str, words)]
        return subprocess.run(
            arguments, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=timeout, check=False
        )

    return call


def environment() -> dict[str, str]:
    """For a process that imports the project from this checkout."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "160"}


def recorded(directory: Path) -> dict[int, dict[str, object]]:
    """Finished trials as any Optuna program reads them."""
    import optuna

    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(directory / "study.journal"))
    )
    study = optuna.load_study(study_name=None, storage=storage)
    return {
        t.number: {
            "params": t.params, "values": t.values, "kind": t.user_attrs["kind"], "result": t.user_attrs["result"],
            "curve": t.intermediate_values, "state": t.state.name, "recipe": t.user_attrs["recipe"],
            "parent": t.user_attrs["parent"],
        }
        for t in study.trials
        if t.state.is_finished()
    }  # fmt: skip


# It may run as root, without a screen or a graphics card, and fetches nothing.
ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
PATIENCE_MS = 90_000
"""For what is to appear on a page, also on a busy machine."""


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A whole run on real digits: all six candidates of the tiny space, and compression."""
    folder = tmp_path_factory.mktemp("finished")
    apart = folder / "apart"  # a run that shares a temporary folder with others pauses for their measurements
    apart.mkdir()
    words = [
        "--space",
        TINY,
        "--strategy",
        "optuna",
        "--dataset",
        "digits",
        "--epochs",
        "8",
        "--top-k",
        "3",
        "--run-dir",
        "run",
    ]
    process = subprocess.run(
        [sys.executable, str(ROOT / "experiments" / "run.py"), *words],
        cwd=folder, env={**environment(), "TMPDIR": str(apart)}, capture_output=True, text=True, timeout=600,
        check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    return folder / "run", process


def quantized_trial(run_dir: Path) -> Path:
    """The folder of a trial of a run whose file is quantized."""
    plans = {
        path.parent: json.loads(path.read_text())["quantization"] for path in run_dir.glob("trials/*/network.json")
    }
    return next(folder for folder, plan in sorted(plans.items()) if plan is not None)


@pytest.fixture
def page() -> Iterator[Any]:
    """An empty page of a new browser, in which no script may fail."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the extra 'browser'")
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("needs Chromium")
    failed: list[str] = []
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: failed.append(str(error)))
        yield page
        browser.close()
    assert failed == []


@pytest.fixture
def pictures(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    folder = ROOT / "docs" / "images" if request.config.getoption("--keep-screenshots") else tmp_path
    folder.mkdir(parents=True, exist_ok=True)
    return folder
