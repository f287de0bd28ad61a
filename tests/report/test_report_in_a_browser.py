"""The report of a real run in Chromium, by mouse and by keyboard, narrow and wide, light and dark.

The pictures are those of the documentation: `--keep-screenshots` renews them in docs/images.
"""

from __future__ import annotations

import itertools
import json
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import slimsearch
from slimsearch.report.report_files import rewrite_reports
from tests.conftest import ROOT, environment
from tests.report.test_report_page import GOLDEN, data_of, ten_thousand

pytestmark = pytest.mark.browser

WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 400, "height": 860}
SCREEN = {"width": 1440, "height": 900}
PAPER = {"light": "rgb(246, 245, 241)", "dark": "rgb(19, 23, 26)"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has everything: a front, compression, finalists, and trials enough for importances."""
    folder = tmp_path_factory.mktemp("made")
    words = ["--space", "mnist_cnn", "--trials", "12", "--epochs", "2", "--top-k", "2", "--run-dir", "mnist"]
    subprocess.run(
        [sys.executable, str(ROOT / "experiments" / "run.py"), *words], cwd=folder, env=environment(), check=True,
        capture_output=True, timeout=900,
    )  # fmt: skip
    return folder / "mnist"


@pytest.fixture
def opened(made: Path, page: Any) -> Iterator[Any]:
    """The report, which says nothing on the console and asks for nothing but itself."""
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    page.on("request", lambda request: asked.append(request.url))
    page.set_default_timeout(20_000)
    page.set_viewport_size(WIDE)
    page.goto((made / "report.html").as_uri())
    yield page
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [(made / "report.html").as_uri()]


def selected(page: Any, number: int) -> None:
    """A trial is marked wherever it is drawn, and is told in full."""
    assert page.locator("#scatter [aria-selected=true]").get_attribute("data-number") == str(number)
    assert page.locator("#rows tr.chosen button").inner_text() == str(number)
    assert page.locator(f'#parallel [data-strong="{number}"]').count() == 1
    assert page.locator("#timeline .halo").count() == 1
    assert f"Trial {number}" in page.locator("#detail h3").inner_text()
    assert page.locator("#status").inner_text() == f"Trial {number} selected"


def settle(page: Any, place: Any) -> None:
    """Have `place` in view, and the page at rest: scrolling hides what is told of a mark."""
    place.scroll_into_view_if_needed()
    page.wait_for_timeout(400)


def test_hover_tells_and_click_selects(opened: Any) -> None:
    page, tip = opened, opened.locator("#tip")
    front = page.locator("#scatter .point.front")
    number = int(front.first.get_attribute("data-number"))
    assert not tip.is_visible()
    settle(page, front.first)
    front.first.locator(".shape").hover()
    assert tip.is_visible()
    assert f"Trial {number}" in tip.inner_text()
    for metric in ("Validation accuracy", "Latency, ms", "Size, KiB"):
        assert metric in tip.inner_text()
    assert page.locator("#scatter .halo.hover").count() == 1
    front.first.click()
    selected(page, number)
    page.keyboard.press("Escape")
    assert page.locator("#scatter [aria-selected=true]").count() == 0
    bar = page.locator("#timeline rect.bar").first
    settle(page, bar)
    bar.hover()
    assert "lane 1" in tip.inner_text()
    bar.click()
    selected(page, int(bar.get_attribute("data-number")))
    page.locator("#rows .link").nth(3).click()
    selected(page, int(page.locator("#rows .link").nth(3).inner_text()))


def test_every_axis_has_ticks_that_can_be_told_apart(page: Any) -> None:
    """Also within a decade, for values that hardly differ, for a single one, and in a narrow chart."""
    scales = (ROOT / "slimsearch" / "report" / "page" / "scales.js").read_text(encoding="utf-8")
    draws, axes = random.Random(0), []
    for _ in range(2000):
        kind = draws.choice(["linear", "log", "error"])
        number, pad = draws.choice([1, 2, 7]), draws.choice([0.06, 0.3])
        if kind == "error":
            worst, better = 10 ** draws.uniform(-3.3, 0), 10 ** draws.uniform(-3, 0)
            name, values = "val_accuracy", [1 - worst * (1 - better * at / number) for at in range(number)]
        else:
            least, decades = 10 ** draws.uniform(-2, 7), 10 ** draws.uniform(-4, 0.7)
            name, values = "latency_ms", [least * 10 ** (decades * at / number) for at in range(number)]
        ends, gap = draws.choice([((58, draws.uniform(280, 1200)), 52), ((draws.uniform(272, 472), 34), 30)])
        axes.append([kind, name, values, *ends, {"gap": gap, "pad": pad}])
    script = f"const isAccuracy = name => name.endsWith('accuracy'); {scales}"
    found = page.evaluate(f"axes => {{ {script}; return axes.map(axis => makeScale(...axis).ticks); }}", axes)
    for axis, ticks in zip(axes, found, strict=True):
        *_, begin, end, options = axis
        places, texts = sorted(tick["at"] for tick in ticks), {tick["text"] for tick in ticks}
        assert 3 <= len(texts) == len(ticks), (axis, ticks)
        assert min(begin, end) - 1 <= places[0]
        assert places[-1] <= max(begin, end) + 1
        assert all(b - a >= options["gap"] for a, b in itertools.pairwise(places))


def test_the_mark_of_a_trial_is_as_large_as_its_third_metric(opened: Any, made: Path) -> None:
    sizes = {t["number"]: t["metrics"]["size_kib"] for t in data_of(made)["trials"]}
    shapes = opened.locator("#scatter .point").evaluate_all(
        "nodes => nodes.map(node => [node.dataset.number, node.querySelector('.shape').getBBox().width, "
        "node.querySelector('.shape').transform.baseVal[0]?.matrix.a ?? 1])"
    )
    by_size = sorted((sizes[int(number)], scale) for number, _, scale in shapes)
    assert [scale for _, scale in by_size] == sorted(scale for _, scale in by_size)
    assert by_size[0][1] < by_size[-1][1]
    opened.get_by_label("Size of the marks").select_option("")
    assert opened.locator("#scatter .shape[transform]").count() == 0


def test_everything_by_keyboard(opened: Any, made: Path) -> None:
    page = opened
    page.locator("#scatter [tabindex='0']").focus()
    before = page.evaluate("document.activeElement.dataset.number")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    number = page.evaluate("document.activeElement.dataset.number")
    assert number
    assert before
    assert page.locator("#tip").is_visible()
    page.keyboard.press("Enter")
    selected(page, int(number))

    heading = page.locator("#columns th").filter(has_text="latency ms")
    heading.locator("button").focus()
    page.keyboard.press("Enter")
    assert heading.get_attribute("aria-sort") == "ascending"
    latency = {t["number"]: t["metrics"]["latency_ms"] for t in data_of(made)["trials"]}
    shown = [latency[int(text)] for text in page.locator("#rows .link").all_inner_texts()]
    assert shown == sorted(shown)
    page.keyboard.press("Enter")
    assert heading.get_attribute("aria-sort") == "descending"

    axis = page.locator("#parallel [data-axis='Latency, ms']")
    axis.focus()
    assert page.evaluate("getComputedStyle(document.activeElement).strokeWidth") == "2px", "it is seen where one is"
    page.keyboard.press("ArrowUp")
    told = axis.get_attribute("aria-valuetext")
    kept = int(re.search(r"(\d+) trials? kept", told).group(1))
    assert 0 < kept < len(latency)
    assert page.locator("#rows .link").count() == kept
    assert page.locator("#scatter .point:not(.off)").count() == kept
    assert page.locator("#parallel .way:not(.off)").count() == kept
    best = sorted(latency, key=lambda n: latency[n])[:kept]
    assert {int(text) for text in page.locator("#rows .link").all_inner_texts()} == set(best), "the better end is up"
    page.keyboard.press("ArrowDown")
    assert axis.get_attribute("aria-valuetext") != told
    page.keyboard.press("Escape")
    assert page.locator("#rows .link").count() == len(latency)

    card = page.locator("details.finalist").nth(1)
    card.locator("summary").focus()
    page.keyboard.press("Enter")
    card.locator("svg.matrix").focus()
    page.keyboard.press("ArrowDown")
    assert re.search(r"\d+ images?", page.locator("#tip").inner_text())
    page.locator("#volume svg").focus()
    page.keyboard.press("Home")
    assert "Hypervolume" in page.locator("#tip").inner_text()
    page.locator("#timeline svg").focus()
    page.keyboard.press("ArrowRight")
    assert "lane" in page.locator("#tip").inner_text()


def test_a_range_is_dragged_along_an_axis(opened: Any) -> None:
    page = opened
    axis = page.locator("#parallel [data-axis='Size, KiB']")
    axis.scroll_into_view_if_needed()
    box = axis.bounding_box()
    middle = box["x"] + box["width"] / 2
    page.mouse.move(middle, box["y"] + 5)
    page.mouse.down()
    page.mouse.move(middle, box["y"] + box["height"] / 2, steps=5)
    page.mouse.up()
    assert re.fullmatch(r"\d+ trials? of \d+ kept", page.locator("#kept").inner_text())
    assert page.locator("#scatter .point.off").count() > 0
    page.locator("#clear-ranges").click()
    assert page.locator("#scatter .point.off").count() == 0


def test_every_finalist_has_its_layers_stages_and_confusions(opened: Any, made: Path) -> None:
    models = json.loads((made / "top_models.json").read_text())
    cards = opened.locator("details.finalist")
    assert cards.count() == len(models)
    for place, model in enumerate(models):
        card = cards.nth(place)
        if card.get_attribute("open") is None:
            card.locator("summary").click()
        card.locator(".layer").first.wait_for()  # a card is filled in once it is open
        assert card.locator(".layer").count() >= 6
        params = [
            int(text.replace(",", "")) for text in card.locator(".params").all_inner_texts() if text[:1].isdigit()
        ]
        assert sum(params) == model["metrics"]["params"]
        counts = [int(text) for text in card.locator("svg.matrix .count").all_text_contents()]
        assert sum(counts) == model["metrics"]["test_images"]
        assert card.locator(".steps tbody tr").count() == len(model.get("lineage", []))
        assert "95%" in card.locator(".numbers").inner_text()


def test_hypervolume_by_trials_and_by_running_time(opened: Any) -> None:
    assert "Trial" in opened.locator("#volume").inner_text()
    before = opened.locator("#volume .line").get_attribute("d")
    opened.get_by_label("by running time").check()
    assert "Running time" in opened.locator("#volume").inner_text()
    assert opened.locator("#volume .line").get_attribute("d") != before


def test_light_and_dark(opened: Any) -> None:
    def paper() -> str:
        return str(opened.evaluate("getComputedStyle(document.body).backgroundColor"))

    for scheme in ("dark", "light"):
        opened.emulate_media(color_scheme=scheme)
        assert paper() == PAPER[scheme]
    for name, scheme in (("Light", "light"), ("Dark", "dark")):
        opened.locator("#theme").click()
        assert opened.locator("#theme").inner_text() == name
        for system in ("dark", "light"):
            opened.emulate_media(color_scheme=system)
            assert paper() == PAPER[scheme]
    opened.locator("#theme").click()
    assert paper() == PAPER["light"]


@pytest.mark.parametrize(("name", "size"), [("wide", WIDE), ("narrow", NARROW)])
@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_both_widths(opened: Any, pictures: Path, name: str, size: dict[str, int], scheme: str) -> None:
    opened.emulate_media(color_scheme=scheme)
    opened.set_viewport_size(size)
    opened.wait_for_timeout(300)
    assert opened.evaluate("document.documentElement.scrollWidth") == size["width"], "nothing sticks out"
    if scheme == "light":
        path = pictures / f"report-{name}.png"
        opened.screenshot(path=path, full_page=True)
        with Image.open(path) as picture:  # a page of few colours, at a third of its bytes
            picture.convert("RGB").quantize(255).save(path, optimize=True)


def test_the_front_is_on_the_first_screen(opened: Any, made: Path, pictures: Path) -> None:
    opened.emulate_media(color_scheme="light")
    opened.set_viewport_size(SCREEN)
    opened.wait_for_timeout(300)
    box = opened.locator("#scatter svg").bounding_box()
    assert box["y"] + box["height"] <= SCREEN["height"]
    best = next(m for m in json.loads((made / "top_models.json").read_text()) if "recommended" in m)
    recommended = opened.locator("#recommended")
    assert best["recommended"] in recommended.inner_text()
    path = pictures / "report-front.png"
    opened.screenshot(path=path)
    with Image.open(path) as picture:
        picture.convert("RGB").quantize(255).save(path, optimize=True)
    recommended.get_by_role("button").click()
    selected(opened, best["trial"])


def test_ten_thousand_trials_can_be_looked_at(page: Any, tmp_path: Path) -> None:
    golden = Path(shutil.copytree(GOLDEN, tmp_path / "run"))
    rewrite_reports(golden)
    ten_thousand(golden)
    page.set_viewport_size(WIDE)
    page.goto((golden / "report.html").as_uri())
    assert "of 10,000 trials" in page.locator("header .sampled").inner_text()
    assert "10,000 trials" in page.locator("#lede").inner_text()
    settle(page, page.locator("#scatter .point.front").last)
    page.locator("#scatter .point.front").last.hover()
    assert page.locator("#tip").is_visible()


def test_pages_of_other_tasks(page: Any, tmp_path: Path) -> None:
    from sklearn.datasets import load_diabetes, load_digits

    images = load_digits().images / 16
    given = {
        "regression": ("mlp", load_diabetes(return_X_y=True)),
        "segmentation": ("unet_small", (images, images > 0.5)),
    }
    for task, (space, (x, y)) in given.items():
        targets = y.astype(int) if task == "segmentation" else y
        run = tmp_path / task
        slimsearch.search(space, (x, targets), task=task, trials=1, epochs=1, compress="none", run_dir=run, show=False)
        page.goto((run / "report.html").as_uri())
        found = page.locator("svg.scatter circle" if task == "regression" else "img.masks")
        found.first.wait_for()
        assert found.count() == (67 if task == "regression" else 1)
        if task == "regression":
            assert page.get_by_role("heading", name="Largest errors on the test split").is_visible()
        assert page.locator("#curves-title").inner_text().startswith("Validation")
        assert "accuracy" not in page.locator("#curves-title").inner_text()
