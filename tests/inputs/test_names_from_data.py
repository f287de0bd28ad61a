"""Names that come from data are text, and lead nowhere."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from slimsearch.strategies._ray.run_files import FileServer
from tests.conftest import TINY
from tests.inputs.tried import command

NAMES = [
    "<script>alert(1)<|script>", "<|script><img src=x onerror=alert(1)>", "\"'><b>", "{{7*7}}", "a&amp;b",
    "<!--<script>", "-->", "\u2028", "$(touch x)", "%2e%2e%2f",
]  # fmt: skip
"""Of folders, where a name has no slash; the report would be given them as they are."""

LOADING = {"src", "href", "srcset", "data", "action", "formaction", "poster", "background", "xlink:href"}


class Page(HTMLParser):
    """What a page has: tags, attributes that load something, and the text of its scripts and styles."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.inside: dict[str, list[str]] = {"script": [], "style": []}
        self.handlers: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [value or "" for name, value in attrs if name in LOADING]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] in self.inside:
            self.inside[self.tags[-1]].append(data)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """On images in folders of such names, in a run directory of such a name, with a space whose labels are such."""
    folder = tmp_path_factory.mktemp("names")
    rng = np.random.default_rng(0)
    for name in NAMES:
        (folder / "images" / name).mkdir(parents=True)
        for number in range(8):
            picture = Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8))
            picture.save(folder / "images" / name / f"<img src=x>{number}.png")
    path = folder / "<script>alert(2)<|script>"
    code, said = command(
        "names", "run", "--space", TINY, "--dataset", folder / "images", "--epochs", "1", "--trials", "1", "--workers",
        "1", "--compress", "none", "--run-dir", path,
    )  # fmt: skip
    assert (code, said) == (0, "")
    assert {entry.name for entry in folder.iterdir()} == {"images", path.name}, "nothing was written elsewhere"
    return path


def test_the_report_has_them_as_text(run: Path) -> None:
    text = (run / "report.html").read_text()
    page = Page()
    page.feed(text)
    assert page.tags.count("script") == 2, "the data, and what draws it"
    assert page.handlers == []
    assert "img" not in page.tags
    assert "alert(" not in re.sub(r'<script id="data".*?</script>', "", text, flags=re.S).replace(
        "&lt;script&gt;alert(2)", ""
    )
    data = json.loads(page.inside["script"][0])
    assert sorted(json.loads(data["dataset"]["classes"])) == sorted(NAMES)
    assert data["name"] == run.name


def test_the_report_loads_nothing(run: Path) -> None:
    page = Page()
    text = (run / "report.html").read_text()
    page.feed(text)
    assert [place for place in page.loads if not place.startswith(("data:", "#", "./trials/", "./trials.csv"))] == []
    assert "default-src 'none'" in text
    style = "".join(page.inside["style"])
    assert re.findall(r"@import|url\(\s*['\"]?(?!data:|#)", style) == []
    code = page.inside["script"][1]
    assert re.findall(r"\bfetch\(|XMLHttpRequest|importScripts|\bimport\(|WebSocket|EventSource|sendBeacon", code) == []
    assert re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", code) == []
    others = set(re.findall(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}[^\s\"'`)]*", code))
    assert others <= {"http://www.w3.org/2000/svg"}, "a name, which is not loaded"


def test_the_files_of_a_node_stay_in_the_run_directory(tmp_path: Path) -> None:
    (tmp_path / "run" / "trials" / "00000").mkdir(parents=True)
    files, content = FileServer(tmp_path / "run"), np.frombuffer(b"x", np.uint8)
    for relative, name in [("trials/00000", "../../../out"), ("trials/00000", str(tmp_path / "out")), ("../", "out")]:
        with pytest.raises(ValueError, match="leaves"):
            files.write(relative, {name: content}, [name])
    with pytest.raises(ValueError, match="leaves"):
        files.read("../..")
    assert not (tmp_path / "out").exists()


EVALUATOR = """
def evaluate(candidate):
    if candidate["act"]:
        raise ValueError("</script><script>alert(3)</script>")
    return {"accuracy": 0.5}
"""


def test_what_a_trial_failed_of_is_text(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(EVALUATOR)
    words = ["--space", TINY, "--dataset", "digits", "--evaluator", f"{tmp_path / 'own.py'}:evaluate", "--objectives"]
    made = command(
        "names", "run", *words, "accuracy:max", "--trials", "6", "--workers", "1", "--run-dir", tmp_path / "r"
    )
    assert made == (0, "")
    page = Page()
    page.feed((tmp_path / "r" / "report.html").read_text())
    assert page.tags.count("script") == 2
    errors = [trial["error"] for trial in json.loads(page.inside["script"][0])["trials"]]
    assert errors.count("ValueError: </script><script>alert(3)</script>") == 3
