"""Runs that are watched in Chromium: one and three, wide and narrow, while they go on.

The picture is that of the documentation: `--keep-screenshots` renews it in docs/images.
"""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from slimsearch.report.page_server import PageServer
from slimsearch.report.watched_runs import WatchedRuns
from tests.conftest import ROOT, environment
from tests.report.test_report_page import GOLDEN

pytestmark = pytest.mark.browser

SIZES = {"wide": {"width": 1440, "height": 900}, "narrow": {"width": 420, "height": 900}}
COMMON = [
    "--space", "lenet", "--dataset", "digits", "--image-size", "20", "--trials", "12", "--epochs", "2", "--top-k", "2",
]  # fmt: skip
RUNS = {
    "graph-gp": ["--compress", "prune,distill,quantize"],
    "random": ["--sampler", "random", "--compress", "none", "--seed", "3"],
    "nsga2-int8": ["--sampler", "nsga2", "--compress", "quantize", "--seed", "5"],
}


NUMBERS = "nodes => nodes.map(node => node.dataset.number)"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of three runs on the same data, with different samplers and recipes."""
    folder = tmp_path_factory.mktemp("runs")
    for name, words in RUNS.items():
        subprocess.run(
            [sys.executable, str(ROOT / "experiments" / "run.py"), *COMMON, *words, "--run-dir", name],
            cwd=folder, env=environment(), check=True, capture_output=True, timeout=900,
        )  # fmt: skip
    return folder


@contextmanager
def watched(page: Any, *paths: Path) -> Iterator[str]:
    """The address of the pages of runs; they ask for nothing else, and say nothing on the console."""
    asked: list[str] = []
    said: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    with PageServer(WatchedRuns(paths), 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.address
        server.shutdown()
        own = f"http://127.0.0.1:{server.server_port}/"
    assert [url for url in asked if not url.startswith((own, "data:", "about:", "blob:"))] == []
    assert said == []


def points(page: Any) -> int:
    return int(page.locator("#scatter .point").count())


def view_of(page: Any) -> str:
    return str(page.evaluate("location.hash"))


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_a_run_that_goes_on(made: Path, page: Any, tmp_path: Path, size: dict[str, int]) -> None:
    """New trials appear, and what is selected, scrolled to and focused stays."""
    run = Path(shutil.copytree(made / "graph-gp", tmp_path / "run"))
    journal = run / "study.journal"
    whole = journal.read_bytes()
    lines = whole.splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[: len(lines) // 2]))
    page.set_viewport_size(size)
    with watched(page, run) as address:
        page.goto(address)
        page.locator("#scatter svg").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") == size["width"], "nothing sticks out"
        before = points(page)
        page.get_by_label("Across axis").select_option("params")
        page.locator("#columns button").filter(has_text="latency ms").click()
        row = page.locator("#rows .link").nth(2)
        number = row.inner_text()
        row.click()
        row.focus()
        page.locator("#trials-section").evaluate("node => node.scrollIntoView()")
        top = page.evaluate("scrollY")
        view = view_of(page)
        assert f"trial={number}" in view
        assert "x=params" in view
        journal.write_bytes(whole)
        page.locator("#scatter .point").nth(before).wait_for()
        assert view_of(page) == view
        assert page.locator("#rows tr.chosen .link").inner_text() == number
        assert page.get_by_label("Across axis").input_value() == "params"
        assert page.locator("#columns th[aria-sort=ascending]").inner_text().startswith("latency")
        assert page.evaluate("document.activeElement.dataset.number") == number
        assert top > 0
        assert page.locator(".finalist").count() > 0
        assert page.evaluate("document.documentElement.scrollWidth") == size["width"]
        assert page.locator("#live").inner_text() == "finished"


def test_nothing_is_drawn_again_while_nothing_has_changed(made: Path, page: Any) -> None:
    with watched(page, made / "random") as address:
        page.goto(address)
        page.locator("#scatter svg").wait_for()
        page.evaluate("window.first = document.querySelector('#scatter svg')")
        with page.expect_response(lambda answer: answer.status == 304):
            pass
        assert page.evaluate("window.first === document.querySelector('#scatter svg')")


def test_a_link_opens_the_same_view(made: Path, page: Any) -> None:
    with watched(page, made / "graph-gp") as address:
        page.goto(address)
        page.locator("#scatter svg").wait_for()
        page.get_by_label("Across axis").select_option("params")
        page.get_by_label("Size of the marks").select_option("")
        page.locator("#legend button").first.click()
        page.get_by_label("by running time").check()
        axis = page.locator("#parallel [data-axis='Size, KiB']")
        axis.focus()
        page.keyboard.press("ArrowUp")
        page.locator("details.finalist").nth(1).locator("summary").click()
        page.locator("#rows .link").first.click()
        page.wait_for_timeout(300)

        def seen() -> dict[str, Any]:
            return {
                "points": page.locator("#scatter .point:not(.off)").evaluate_all(NUMBERS),
                "rows": page.locator("#rows .link").all_inner_texts(),
                "chosen": page.locator("#rows tr.chosen .link").all_inner_texts(),
                "open": page.locator("details.finalist").evaluate_all("all => all.map(one => one.open)"),
                "kept": page.locator("#kept").inner_text(),
                "along": page.locator("#volume").inner_text(),
                "sizes": page.locator("#scatter .shape[transform]").count(),
            }

        before, link = seen(), page.url
        assert before["kept"]
        page.goto("about:blank")
        page.goto(link)
        page.locator("#scatter svg").wait_for()
        page.wait_for_timeout(300)
        assert seen() == before
        assert page.url == link


@pytest.mark.parametrize("name", SIZES)
def test_three_runs(made: Path, page: Any, pictures: Path, name: str) -> None:
    page.set_viewport_size(SIZES[name])
    page.emulate_media(color_scheme="light")
    with watched(page, *(made / run for run in RUNS)) as address:
        page.goto(address)
        page.locator("#scatter svg").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") == SIZES[name]["width"]
        colors = {
            page.locator(f"#scatter .step.g-run-{i}").evaluate("node => getComputedStyle(node).stroke")
            for i in range(3)
        }
        assert len(colors) == 3
        assert set(page.locator("#rows td:nth-child(3)").all_inner_texts()) == set(RUNS)
        if name == "wide":
            box = page.locator("#scatter svg").bounding_box()
            assert box["y"] + box["height"] <= SIZES[name]["height"]
            path = pictures / "watch.png"
            page.screenshot(path=path)
            with Image.open(path) as picture:
                picture.convert("RGB").quantize(255).save(path, optimize=True)
        every = points(page)
        page.locator("#legend button").filter(has_text="random").click()
        assert 0 < points(page) < every
        page.locator("#legend button").filter(has_text="random").click()
        row = page.locator("#rows tr").filter(has_text="nsga2-int8").first
        number = row.locator(".link").inner_text()
        row.locator(".link").click()
        assert page.locator("#detail h3").inner_text().endswith(f"nsga2-int8, trial {number}")
        page.locator("#detail").get_by_text("Report of nsga2-int8").click()
        page.locator("#rows tr.chosen").wait_for()
        assert page.locator("#rows tr.chosen .link").inner_text() == number
        assert page.locator("h1").inner_text() == "nsga2-int8"
        page.get_by_role("link", name="All runs").click()
        page.locator("#runs-table").wait_for()


def test_csv_files_mistakes_and_the_command(made: Path, page: Any, tmp_path: Path) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    with watched(page, made / "graph-gp") as address:
        page.goto(address)
        page.locator("#scatter svg").wait_for()
        with page.expect_download() as download:
            page.get_by_role("link", name="All trials as CSV").click()
        download.value.save_as(tmp_path / "trials.csv")
        rows = list(csv.DictReader((tmp_path / "trials.csv").open()))
        assert len(rows) == page.locator("#rows .link").count()
        card = page.locator("details.finalist").first
        assert card.locator(".mistakes img").count() > 0
        assert all(card.locator(".mistakes img").evaluate_all("all => all.map(image => image.naturalWidth > 0)"))
        card.locator(".command button").click()
        copied = page.evaluate("navigator.clipboard.readText()")
        assert copied == card.locator(".command code").inner_text()
        assert copied.startswith("slimsearch export ")


def test_a_run_without_trials(page: Any, tmp_path: Path) -> None:
    run = Path(shutil.copytree(GOLDEN, tmp_path / "run"))
    journal = (run / "study.journal").read_bytes()
    (run / "study.journal").unlink()
    with watched(page, run) as address:
        page.goto(address)
        page.get_by_text("No trial has started yet").first.wait_for()
        for link in page.locator(".bar-top a").all():
            link.click()
        (run / "study.journal").write_bytes(journal)
        page.locator("#scatter .point").first.wait_for()


def test_a_server_that_has_ended_and_is_back(made: Path, page: Any) -> None:
    with PageServer(WatchedRuns([made / "random"]), 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page.goto(server.address)
        page.locator("#scatter svg").wait_for()
        page.context.set_offline(True)
        page.get_by_text("no longer served").wait_for()
        assert points(page) > 0, "what was shown stays"
        page.context.set_offline(False)
        page.locator("#live.finished").wait_for()
        server.shutdown()
