"""Nothing phones home, and no name from the data becomes more than text in a report."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evaluators.datasets import Dataset
from tests.conftest import ROOT, TINY, Run, environment

# In every Python process that a run starts: whom it would connect to, or ask the address of.
WATCH = """
import ipaddress, os, socket, sys


def watch(event, arguments):
    if event == "socket.connect" or event == "socket.sendto":
        address = arguments[1]
        host = address[0] if isinstance(address, tuple) else None
    elif event == "socket.getaddrinfo":
        host = arguments[0]
    else:
        return
    if isinstance(host, bytes):
        host = host.decode()
    if host in (None, "", "localhost", socket.gethostname()):
        return
    try:
        near = ipaddress.ip_address(host).is_loopback
    except ValueError:
        near = False
    if not near:
        with open(os.environ["WATCHED"], "a") as file:
            file.write(f"{event} {host} by {sys.argv[:2]}\\n")


sys.addaudithook(watch)
"""


@pytest.mark.parametrize("strategy", ["optuna", "ray"])
def test_nobody_elsewhere_is_asked(strategy: str, tmp_path: Path) -> None:
    (tmp_path / "watch").mkdir()
    (tmp_path / "watch" / "sitecustomize.py").write_text(WATCH)
    watched = tmp_path / "watched"
    around = environment()
    around |= {"PYTHONPATH": f"{tmp_path / 'watch'}{os.pathsep}{ROOT}", "WATCHED": str(watched)}
    around.pop("RAY_USAGE_STATS_ENABLED", None)
    program = (
        "import urllib.request\ntry:\n    urllib.request.urlopen('http://192.0.2.1', timeout=0.1)\nexcept OSError: pass"
    )
    subprocess.run([sys.executable, "-c", program], env=around, check=True)
    assert "192.0.2.1" in watched.read_text(), "it sees what it is to see"
    watched.write_text("")
    words = [
        "--space",
        TINY,
        "--dataset",
        "digits",
        "--epochs",
        "1",
        "--trials",
        "2",
        "--top-k",
        "1",
        "--run-dir",
        "run",
    ]
    done = subprocess.run(
        [sys.executable, str(ROOT / "experiments" / "run.py"), "--strategy", strategy, *words],
        cwd=tmp_path, env=around, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert watched.read_text() == ""


class Page(HTMLParser):
    """What a browser would load or run."""

    def __init__(self) -> None:
        super().__init__()
        self.scripts, self.loaded = 0, list[str]()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        for name, value in attributes:
            assert not name.startswith("on"), (tag, name)
            if (value or "").startswith("data:"):
                continue
            if name in ("src", "srcset", "data", "action", "background") or (name == "href" and tag != "a"):
                self.loaded.append(f"{tag} {name}={value}")


def test_names_from_the_data_are_text_in_the_report(run: Run, tmp_path: Path, digits: Dataset) -> None:
    names = ["<script>alert(1)<", "</script><img src=x onerror=alert(1)>".replace("/", "∕"), "\"'&lt;", "plain"]
    for position, name in enumerate(names):
        folder = tmp_path / "images <b>" / name
        folder.mkdir(parents=True)
        for i in range(20):
            pixels = digits.train.images[position * 20 + i, 0]
            Image.fromarray(np.ascontiguousarray(pixels)).save(folder / f"{i}'\"<i>.png")
    words = (
        "--space",
        TINY,
        "--dataset",
        tmp_path / "images <b>",
        "--epochs",
        "1",
        "--trials",
        "2",
        "--compress",
        "none",
    )
    done = run(*words, "--run-dir", "run <s>")
    assert done.returncode == 0, done.stderr
    page = Page()
    text = (tmp_path / "run <s>" / "report.html").read_text()
    page.feed(text)
    assert page.loaded == []
    plain = Page()
    assert run(*words, "--dataset", "digits", "--run-dir", "plain").returncode == 0
    plain.feed((tmp_path / "plain" / "report.html").read_text())
    assert page.scripts == plain.scripts
    for scheme in ("http://", "https://", "url(", "@import", "fetch(", "XMLHttpRequest", "WebSocket"):
        assert scheme not in text.replace("http://www.w3.org/", ""), scheme
    data = json.loads(text.split('<script id="data"')[1].split(">", 1)[1].split("</script>")[0])
    assert json.loads(data["dataset"]["classes"]) == sorted(names)
