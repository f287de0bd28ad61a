"""The documentation as a site: built without the network, and looked at in a real browser.

`--keep-screenshots` renews the pictures of its front page in docs/images.
"""

from __future__ import annotations

import functools
import http.server
import importlib
import re
import shutil
import subprocess
import sys
import threading
import types
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

import pytest

from tests.conftest import ROOT, environment

ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
WIDTHS = {"site-narrow": 400, "site-wide": 1280}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built with a proxy that nobody runs: whatever was asked for would fail."""
    pytest.importorskip("zensical", reason="needs the extra 'docs'")
    folder = tmp_path_factory.mktemp("documentation")
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    text = text.replace("docs_dir: build/docs", "docs_dir: pages").replace("paths: [.]", f"paths: ['{ROOT}']")
    (folder / "mkdocs.yml").write_text(text, encoding="utf-8")
    nowhere = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")
    for command in (
        [str(ROOT / "docs" / "prepare.py"), str(folder / "pages")],
        ["-m", "zensical", "build", "--strict"],
    ):
        done = subprocess.run(
            [sys.executable, *command], cwd=folder, env={**environment(), **nowhere}, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
    return folder / "site"


def pages(site: Path) -> list[str]:
    """Their addresses below the site's."""
    return sorted(f"{page.parent.relative_to(site)}/".removeprefix("./") for page in site.glob("**/index.html"))


def test_it_is_whole_and_loads_nothing_from_elsewhere(site: Path) -> None:
    found = pages(site)
    assert {"", "start/", "coming-from-nni/", "notebooks/hello_nas/", "reference/commands/"} <= set(found)
    assert len(found) >= len(list((ROOT / "docs").glob("*.md"))) + 10
    assert not list(site.rglob("*.py"))
    for path in found:
        html = (site / path / "index.html").read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|img|iframe|source)\b[^>]*\bsrc=\"?([^\s\">]+)", html)
        loaded += re.findall(r"<link\b[^>]*\brel=\"?(?:stylesheet|icon|preconnect)[^>]*\bhref=\"?([^\s\">]+)", html)
        assert not [address for address in loaded if re.match(r"(https?:)?//", address)], path
        assert "<!-- shown:" not in html, path
        assert not re.search(r"\|\s?---", html), f"{path} has a table that is not shown as one"
    known = re.sub(r"<[^>]+>", "", (site / "reference" / "commands" / "index.html").read_text(encoding="utf-8"))
    assert "--sampler SAMPLER" in known
    assert "slimsearch predict" in known


class Page(HTMLParser):
    """The anchors of a page, and the addresses that it links to or shows."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors, self.addresses = set[str](), set[str]()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id" and value:
                self.anchors.add(value)
            elif (tag, name) in (("a", "href"), ("img", "src")) and value:
                self.addresses.add(value)


def test_every_page_is_in_the_navigation_and_every_link_leads_somewhere(site: Path) -> None:
    found = {path: Page((site / path / "index.html").read_text(encoding="utf-8")) for path in pages(site)}
    listed = {urljoin(f"http://site/{path}", one) for path in ("", "start/") for one in found[path].addresses}
    for path, page in found.items():
        assert f"http://site/{path}" in listed, f"{path} is not in the navigation"
        for address in page.addresses:
            target = urlsplit(urljoin(f"http://site/{path}", address))
            if target.netloc != "site":
                continue
            other = unquote(target.path).removeprefix("/")
            assert (site / other).exists(), f"{path}: {address}"
            if other in found and target.fragment:
                assert unquote(target.fragment) in found[other].anchors, f"{path}: {address}"


PUBLIC = (
    "slimsearch", "slimsearch.search_spaces", "slimsearch.compression", "slimsearch.evaluators",
    "slimsearch.evaluators.datasets", "slimsearch.evaluators.tasks", "slimsearch.strategies",
    "slimsearch.strategies.samplers", "slimsearch.strategies.schedulers", "slimsearch.testing",
)  # fmt: skip


@pytest.mark.parametrize("package", PUBLIC)
def test_every_public_name_is_in_the_reference(package: str, site: Path) -> None:
    name = "slimsearch" if package == "slimsearch" else package.split(".")[1]
    page = Page((site / "reference" / name / "index.html").read_text(encoding="utf-8"))
    module = importlib.import_module(package)
    names = {public for public in module.__all__ if not isinstance(getattr(module, public), types.ModuleType)}
    assert {f"{package}.{public}" for public in names} - page.anchors == set()


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    """Of a server on the loopback address."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the extra 'browser'")
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("needs Chromium")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=found, args=ARGUMENTS)
        yield started
        started.close()


@pytest.mark.browser
@pytest.mark.parametrize("name", WIDTHS)
def test_every_page_in_a_browser(name: str, site: Path, address: str, browser: Any) -> None:
    said: list[str] = []
    asked: list[str] = []
    page = browser.new_page(viewport={"width": WIDTHS[name], "height": 900})
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("response", lambda answer: said.append(f"{answer.status} {answer.url}") if answer.status >= 400 else None)
    page.on("request", lambda request: asked.append(request.url))
    for path in pages(site):
        page.goto(address + path, wait_until="networkidle")
        assert page.locator("h1").count() == 1, path
        assert page.evaluate("document.documentElement.scrollWidth") <= WIDTHS[name], f"{path} is too wide"
        missing = "[...document.images].filter(i => !i.complete || i.naturalWidth == 0).map(i => i.src)"
        page.wait_for_function("[...document.images].every(i => i.complete || i.loading == 'lazy')")
        assert page.evaluate(missing) == [], path
    assert said == []
    assert len(asked) > len(pages(site))
    assert not [url for url in asked if not url.startswith((address, "data:", f"blob:{address}"))]
    page.close()


@pytest.mark.browser
def test_it_is_searched_without_anybody_else(address: str, browser: Any) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    page.locator(".md-search__button").click()
    page.get_by_placeholder("Search").first.wait_for()
    page.keyboard.type("hypervolume")
    page.locator("a", has_text="of each prefix").first.wait_for()  # the function's docstring
    assert not [url for url in asked if not url.startswith((address, "data:", f"blob:{address}"))]
    page.close()


@pytest.mark.browser
@pytest.mark.parametrize("name", WIDTHS)
def test_the_front_page_is_photographed(
    name: str, address: str, browser: Any, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    folder = ROOT / "docs" / "images" if request.config.getoption("--keep-screenshots") else tmp_path
    page = browser.new_page(viewport={"width": WIDTHS[name], "height": 900})
    page.goto(address, wait_until="networkidle")
    page.screenshot(path=folder / f"{name}.png")
    assert (folder / f"{name}.png").stat().st_size > 10_000
    colours = []
    for scheme in ("light", "dark"):  # as the system has it
        page.emulate_media(color_scheme=scheme)
        page.wait_for_timeout(500)
        colours.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert colours[0] != colours[1]
    page.close()
