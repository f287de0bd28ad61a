"""A whole run that many tests look at, and a browser to look with."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, TINY, environment

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
        cwd=folder, env=environment(), capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    return folder / "run", process


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
