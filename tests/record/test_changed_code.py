"""Resuming a run whose space, evaluation or classes have changed since it was begun."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import slimsearch
from slimsearch.source import fingerprint, own_files
from tests.conftest import Run, environment

NET = """
import torch
from blocks import Stem
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from torch import nn


class Net(ModelSpace):
    def __init__(self, in_channels, num_classes):
        super().__init__()
        self.stem = Stem(in_channels, 4)
        self.act = LayerChoice([nn.ReLU(), nn.Tanh(), nn.SiLU()], label="act")
        self.head = nn.Linear(4, num_classes)

    def forward(self, x):
        return self.head(self.act(self.stem(x)).mean((2, 3)))
"""
BLOCKS = """
from layers.sizes import KERNEL
from torch import nn


class Stem(nn.Sequential):
    def __init__(self, channels, width):
        super().__init__(nn.Conv2d(channels, width, KERNEL, padding=1))
"""
EVALUATE = """
def cost(candidate):
    return {"cost": float(candidate["act"])}
"""
FILES = {"net.py": NET, "blocks.py": BLOCKS, "layers/__init__.py": "", "layers/sizes.py": "KERNEL = 3\n"}
RUN = (
    "--space", "code/net.py:Net", "--dataset", "digits", "--evaluator", "code/evaluate.py:cost", "--objectives",
    "cost:min", "--workers", "1", "--sampler", "random", "--run-dir", "run",
)  # fmt: skip


@pytest.fixture
def code(tmp_path: Path) -> Path:
    for name, text in {**FILES, "evaluate.py": EVALUATE}.items():
        file = tmp_path / "code" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return tmp_path / "code"


def begin(run: Run) -> None:
    done = run(*RUN, "--trials", "1")
    assert done.returncode == 0, done.stderr


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 2, done.stdout + done.stderr
    (line,) = done.stderr.splitlines()
    return line


@pytest.mark.parametrize(
    ("file", "before", "after", "named"),
    [
        ("net.py", "nn.SiLU()", "nn.GELU()", "net.py"),
        ("blocks.py", "KERNEL, padding=1", "KERNEL, padding=0", "blocks"),
        ("layers/sizes.py", "3", "5", "layers.sizes"),
        ("evaluate.py", "float(", "2 * float(", "evaluate.py"),
    ],
)
def test_edited_code_is_refused_and_accepted(
    run: Run, code: Path, file: str, before: str, after: str, named: str
) -> None:
    begin(run)
    text = (code / file).read_text()
    assert before in text
    (code / file).write_text(text.replace(before, after))
    journal = (code.parent / "run" / "study.journal").read_bytes()
    line = one_line(run("--resume", "run", "--trials", "2"))
    assert named in line
    assert "--accept-changes" in line
    assert (code.parent / "run" / "study.journal").read_bytes() == journal
    (code / file).write_text(text)
    assert run("--resume", "run", "--trials", "2").returncode == 0, "as it was"
    (code / file).write_text(text.replace(before, after))
    done = run("--resume", "run", "--trials", "3", "--accept-changes")
    assert done.returncode == 0, done.stderr
    assert run("--resume", "run").returncode == 0, "what was accepted is the run's code from then on"


def test_comments_and_files_of_others_may_change(run: Run, code: Path) -> None:
    begin(run)
    (code / "net.py").write_text(
        f'"""About it."""\n# A comment.\n{NET}\n\nif __name__ == "__main__":\n    print(Net)\n'
    )
    (code / "other.py").write_text("1\n")
    done = run("--resume", "run", "--trials", "2")
    assert done.returncode == 0, done.stderr
    assert "--accept-changes" in one_line(run(*RUN[:-1], "other", "--accept-changes"))[:40]


def test_renamed_classes_are_refused_and_accepted(run: Run, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for label in ("ant", "bee"):
        (tmp_path / "images" / label).mkdir(parents=True)
        for i in range(30):
            image = rng.integers(0, 100, (8, 8)) + 100 * (label == "bee")
            Image.fromarray(image.astype(np.uint8)).save(tmp_path / "images" / label / f"{i}.png")
    words = ("--space", "tiny_cnn", "--dataset", "./images", "--epochs", "1", "--trials", "1", "--workers", "1")
    done = run(*words, "--compress", "none", "--run-dir", "run")
    assert done.returncode == 0, done.stderr
    (tmp_path / "images" / "bee").rename(tmp_path / "images" / "wasp")
    line = one_line(run("--resume", "run"))
    assert "'bee'" in line
    assert "'wasp'" in line
    done = run("--resume", "run", "--accept-changes")
    assert done.returncode == 0, done.stderr
    assert json.loads(json.loads((tmp_path / "run" / "environment.json").read_text())["dataset"]["classes"]) == [
        "ant",
        "wasp",
    ]


def test_a_function_from_python_is_known_by_its_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def function(factor: int) -> Callable[..., dict[str, float]]:
        text = f"def f(candidate):\n    return {{'loss': {factor} * candidate['a']}}\n"
        (tmp_path / "own_evaluation.py").write_text(text)
        sys.modules.pop("own_evaluation", None)
        importlib.invalidate_caches()
        shutil.rmtree(tmp_path / "__pycache__", ignore_errors=True)
        return importlib.import_module("own_evaluation").f  # type: ignore[no-any-return]

    monkeypatch.syspath_prepend(str(tmp_path))
    space, path = {"a": [1, 2, 3]}, tmp_path / "run"
    slimsearch.search(space, evaluate=function(1), objectives="loss:min", trials=1, workers=1, run_dir=path, show=False)
    with pytest.raises(slimsearch.SlimsearchError, match="own_evaluation"):
        slimsearch.resume(path, space=space, evaluate=function(2), trials=2, show=False)
    slimsearch.resume(path, space=space, evaluate=function(1), trials=2, show=False)
    slimsearch.resume(path, space=space, evaluate=function(2), trials=3, show=False, accept_changes=True)


SCRIPT = """
import sys
from pathlib import Path
import slimsearch

FACTOR = 1


def scaled(value):
    return FACTOR * value


def evaluate(candidate):
    return {"loss": float(scaled(candidate["a"]))}


if __name__ == "__main__":
    options = {"evaluate": evaluate, "trials": 1, "show": False}
    space = {"a": [1, 2, 3]}
    if Path("run").exists():
        slimsearch.resume("run", space=space, **options)
    else:
        slimsearch.search(space, objectives="loss:min", workers=1, run_dir="run", **options)
"""


def test_a_function_of_a_script_is_known_with_what_it_uses(tmp_path: Path) -> None:
    def run_script(*changes: tuple[str, str]) -> subprocess.CompletedProcess[str]:
        text = SCRIPT
        for before, after in changes:
            text = text.replace(before, after)
        (tmp_path / "script.py").write_text(text)
        command = [sys.executable, "script.py"]
        return subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=240)

    assert run_script().returncode == 0
    done = run_script(('"trials": 1', '"trials": 2'), ("import sys\n", "# A comment.\n"))
    assert done.returncode == 0, done.stderr
    for change in (("FACTOR = 1", "FACTOR = 2"), ("FACTOR * value", "value")):
        assert "--accept-changes" in run_script(change).stderr.splitlines()[-1]


def test_one_process_reads_edited_files_anew(code: Path) -> None:
    def size() -> int:
        network = slimsearch.build(f"{code}/net.py:Net", {"act": 0}, input_shape=(1, 8, 8))
        return sum(weight.numel() for weight in network.parameters())

    sizes = [size()]
    for file, before, after in (
        ("net.py", "in_channels, 4)", "in_channels, 8)"),
        ("blocks.py", "width, KERNEL", "width, 2 * KERNEL"),
        ("layers/sizes.py", "3", "1"),
    ):  # in less than a second, and to files of the same size
        (code / file).write_text((code / file).read_text().replace(before, after).replace("Linear(4,", "Linear(8,"))
        sizes.append(size())
    assert sizes == [90, 170, 170 + 8 * 27, 170 + 8 * (4 - 9)]


def test_neighbors_of_the_same_name_are_told_apart(code: Path, tmp_path: Path) -> None:
    other = shutil.copytree(code, tmp_path / "other")
    (other / "blocks.py").write_text(BLOCKS.replace("KERNEL, padding=1", "1"))
    found = []
    for folder in (code, other, code):
        network = slimsearch.build(f"{folder}/net.py:Net", {"act": 0}, input_shape=(1, 8, 8))
        found.append(next(network.parameters()).shape[-1])
    assert found == [3, 1, 3]


def test_installed_packages_are_no_files_of_the_user(code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(code))
    assert list(own_files(str(code / "net.py"))) == ["net.py", "blocks", "layers", "layers.sizes"]


STATEMENTS = ("x = 1", "y = x + 2", "def f(a, b=3):\n    return a * b", "class C:\n    size = 4", "print('x', 1)")


@settings(deadline=None)
@given(st.lists(st.sampled_from(STATEMENTS), min_size=1, max_size=4), st.data())
def test_formatting_changes_no_fingerprint_and_code_does(statements: list[str], data: st.DataObject) -> None:
    source = "\n".join(statements)
    spaced = "\n\n# a comment\n".join(statements).replace(" = ", "  =  ").replace("'x'", '"x"')
    spaced = spaced.replace("def f(a, b=3):\n", 'def f(\n    a,\n    b=3,\n):\n    """About it."""\n')
    assert fingerprint(source.encode()) == fingerprint(f'"""A module."""\n{spaced}\n'.encode())
    digits = [i for i, letter in enumerate(source) if letter.isdigit()]
    place = data.draw(st.sampled_from(digits)) if digits else None
    if place is not None:
        edited = f"{source[:place]}{(int(source[place]) + 1) % 10}{source[place + 1 :]}"
        assert fingerprint(source.encode()) != fingerprint(edited.encode())
    assert fingerprint(b"x = 1") != fingerprint(b"x = '1'")
