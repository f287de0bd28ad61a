"""What a user sees of a search on Ray while it goes on, in a real browser: Ray's dashboard and optuna-dashboard.

The pictures are those of the documentation: `--keep-screenshots` renews them in docs/images.
"""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, environment, recorded

pytestmark = pytest.mark.browser

NAME = re.compile(r"lenet, trial \d+: activation=\w+ conv1=\d+ conv2=\d+ fc1=\d+ fc2=\d+ kernel1=\d kernel2=\d")


@pytest.fixture(scope="module")
def search(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A search on Ray that goes on until Ctrl-C, three trials done: its folder, and the address of Ray's dashboard."""
    folder = tmp_path_factory.mktemp("search")
    words = ["--space", "lenet", "--strategy", "ray", "--trials", "100", "--epochs", "5", "--run-dir", "lenet"]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "experiments" / "run.py"), *words],
        cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        said = ""
        for line in process.stdout:
            said += line
            if line.startswith("[3/100]"):
                break
        found = re.search(r"Ray dashboard: (http://127\.0\.0\.1:\d+)", said)
        assert found is not None, said
        yield folder, found[1]
        assert process.poll() is None, "it went on all the time"
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=120)
    assert process.returncode == 130


@pytest.fixture(scope="module")
def optuna_dashboard(search: tuple[Path, str]) -> Iterator[str]:
    """Served by the command, of the same search: its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "slimsearch.cli.main", "dashboard", "lenet", "--port", str(port)],
        cwd=search[0], env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def photograph(page: Any, heading: str, path: Path) -> None:
    """What is on the screen once `heading` has been scrolled below the bar at the top."""
    page.get_by_role("heading", name=heading, exact=True).evaluate("element => element.scrollIntoView()")
    page.mouse.wheel(0, -110)
    page.wait_for_timeout(1500)  # what turns or unfolds comes to rest
    page.screenshot(path=path)


def test_ray_shows_trials_by_name_and_their_logs(search: tuple[Path, str], page: Any, pictures: Path) -> None:
    folder, address = search
    page.goto(address)
    token = subprocess.run(
        [str(Path(sys.executable).parent / "ray"), "get-auth-token"], capture_output=True, text=True, check=True
    ).stdout.split()[-1]
    page.get_by_placeholder("Enter your authentication token").fill(token)
    page.get_by_role("button", name="Submit").click()
    page.get_by_role("dialog").wait_for(state="hidden")

    page.get_by_role("link", name="Jobs", exact=True).click()
    page.get_by_role("row").filter(has_text="--strategy ray").locator("a[href^='#/jobs/']").first.click()
    page.get_by_text("Task Table", exact=True).click()
    page.get_by_label("Function or Class Name").fill("evaluate")
    page.get_by_role("option", name="evaluate", exact=True).click()
    rows = page.get_by_role("row").filter(has_text="lenet, trial ")
    for number in range(3):
        rows.filter(has_text=f"trial {number}: ").wait_for()
    rows.filter(has_text="RUNNING").first.wait_for()
    names = [NAME.search(text) for text in rows.all_inner_texts()]
    assert all(names), "nothing else is evaluated"
    photograph(page, "Task Table", pictures / "ray-trials.png")

    number, trial = next(iter(recorded(folder / "lenet").items()))
    rows.filter(has_text=f"trial {number}: ").get_by_role("link", name="Log").click()
    page.get_by_text("STDOUT").click()
    page.get_by_text(f"trial {number} ended").wait_for()
    log = page.inner_text("body")
    told = re.findall(rf"trial {number}, epoch (\d): .*val_accuracy (0\.\d+)", log)
    assert {int(epoch): float(value) for epoch, value in told} == pytest.approx(trial["curve"], abs=1e-3), log
    assert re.search(rf"trial {number} ended: .*val_accuracy 0\.\d+, .*latency_ms", log), log
    photograph(page, "Logs", pictures / "ray-log.png")


def test_optuna_dashboard_shows_the_search_that_goes_on(optuna_dashboard: str, page: Any, pictures: Path) -> None:
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    page.goto(f"{optuna_dashboard}/dashboard/studies/0")
    page.get_by_text("Pareto Front").wait_for()
    assert {"val_accuracy", "latency_ms"} <= set(page.inner_text("body").splitlines())

    page.locator("a[href$='/studies/0/trials']").first.click()
    page.get_by_text("Running").first.click()
    page.get_by_role("heading", name=re.compile(r"Trial \d+ \(trial_id=\d+\)")).wait_for()
    page.wait_for_timeout(500)
    page.screenshot(path=pictures / "optuna-dashboard.png")
    shown = page.inner_text("body")
    assert shown.count("Complete") >= 3
    assert "Running" in shown
    assert re.search(r"Trial (\d+) \(trial_id=\1\).*activation \"\w+\"\s+conv1 \d+", shown, re.S), shown
    assert said == []
