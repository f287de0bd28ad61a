"""What the README shows, run as it stands there (with smaller budgets)."""

from __future__ import annotations

import ast
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import compression
from evaluators.datasets import Dataset
from experiments.configuration import Configuration
from experiments.recipe_choices import recipe_choices
from tests.conftest import ROOT, Run, environment

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.S)
PYTHON = [text for language, text in BLOCKS if language == "python"]
COMMANDS = [
    line.removeprefix("python experiments/run.py ")
    for language, text in BLOCKS
    if language == "sh"
    for line in text.splitlines()
    if line.startswith("python experiments/run.py ")
]
REPRODUCED = ("lenet_prune", "lenet_qat", "resnet18_fused", "hello_nas")
SMALL = ["--epochs", "1", "--trials", "2", "--top-k", "1"]


@pytest.fixture
def folder(tmp_path: Path, digits: Dataset) -> Path:
    """Where a reader would be: their model file and their images are there."""
    (tmp_path / "my_net.py").write_text(next(text for text in PYTHON if text.startswith("# my_net.py")))
    for i in range(60):
        images = tmp_path / "path" / "to" / "images" / str(i % 3)
        images.mkdir(parents=True, exist_ok=True)
        Image.fromarray(digits.train.images[i, 0]).save(images / f"{i}.png")
    table = Path("experiments/benchmarks/results/lenet_mnist5k.csv")
    (tmp_path / table).parent.mkdir(parents=True)
    shutil.copy(ROOT / table, tmp_path / table)
    return tmp_path


def test_there_are_examples() -> None:
    assert len(COMMANDS) == 7
    assert len(PYTHON) == 5


@pytest.mark.parametrize("command", [c for c in COMMANDS if "RUN_DIR" not in c])
def test_commands(command: str, run: Run, folder: Path) -> None:
    words = [
        word if not word.startswith("prune:") else word.replace("epochs=5", "epochs=1") for word in shlex.split(command)
    ]
    done = run(*words, *SMALL, "--run-dir", "run")
    if "--min-accuracy" in words and done.returncode == 2:
        assert "no candidate meets" in done.stderr  # one epoch may not be enough
    else:
        assert done.returncode == 0, done.stderr
        again = run("--resume", "run")
        assert again.returncode == 0, again.stderr


def test_recipe_choices(tmp_path: Path, digits: Dataset) -> None:
    text = next(text for language, text in BLOCKS if language == "yaml" and "use: [true, false]" in text)
    (tmp_path / "recipes.yaml").write_text(text)
    configuration = Configuration(space="lenet", co_search=str(tmp_path / "recipes.yaml"))
    found = recipe_choices(configuration, digits)
    assert found is not None
    assert {"prune.use", "prune.epochs", "training.learning_rate"} <= {choice.label for choice in found.choices}


def test_python(tmp_path: Path) -> None:
    script = next(text for text in PYTHON if "slimsearch.search(Mlp" in text)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "model.onnx" in done.stdout
    scoring = next(text for text in PYTHON if "trials/00000" in text).replace("mnist5k", "digits")
    done = subprocess.run(
        [sys.executable, "-c", scoring], cwd=tmp_path / "runs" / "mlp", env=environment(), capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert 0 <= float(done.stdout) <= 1


def test_an_evaluation_of_ones_own(tmp_path: Path) -> None:
    script = next(text for text in PYTHON if "def evaluate(" in text)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "'trees':" in done.stdout


def test_a_model_of_ones_own(tmp_path: Path) -> None:
    script = next(text for text in PYTHON if "slimsearch.compress(" in text)
    script = script.replace("mnist5k", "digits").replace("32 * 16", "32").replace(", 5, stride=2", ", 3, stride=2")
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    accuracy, params = done.stdout.split()
    assert 0.3 < float(accuracy) <= 1
    assert int(params) > 100


def test_flags_and_names_in_the_text_exist() -> None:
    from experiments.main import commands
    from slimsearch_names import built_in_names

    flags = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", README)) - {"--resume"}
    known = "".join(module.parser("slimsearch").format_help() for module in commands().values())
    for script in (
        "compare_compression.py",
        "benchmarks/zero_cost.py",
        "benchmarks/search_quality.py",
        "benchmarks/overhead.py",
        "benchmarks/supernet.py",
        "benchmarks/headline.py",
        *(f"reproduce/{name}.py" for name in REPRODUCED),
    ):
        text = (ROOT / "experiments" / script).read_text() + (
            ROOT / "experiments" / "reproduce" / "_table.py"
        ).read_text()
        known += text
    assert not [flag for flag in flags if flag not in known]
    for package in (
        "search_spaces", "evaluators.datasets", "strategies.samplers", "compression", "compression.importances",
        "compression.schedules", "strategies.schedulers", "evaluators.scores",
    ):  # fmt: skip
        for name in built_in_names(package):
            assert f"`{name}`" in README, name
    for name in built_in_names("strategies"):
        assert f"`{name.replace('_', '-')}`" in README, name
    for name in compression.shipped():
        assert f"`{name}`" in README, name


def test_tests_that_are_named_exist() -> None:
    """What the README promises is held by tests: files, and functions or classes in them."""
    named = re.findall(r"\b(tests/[\w/.-]*\w)(?:::(\w+))?(?:::(\w+))?", README)
    for path, *names in named:
        assert (ROOT / path).exists(), path
        body = ast.parse((ROOT / path).read_text()).body if path.endswith(".py") else []
        for name in filter(None, names):
            kinds = ast.FunctionDef | ast.ClassDef
            found = next((node for node in body if isinstance(node, kinds) and node.name == name), None)
            assert found is not None, f"{path}::{name}"
            body = found.body


def test_scripts_that_are_shown_take_what_is_shown() -> None:
    lines = [line for language, text in BLOCKS if language == "sh" for line in text.splitlines()]
    shown = [line for line in lines if "reproduce/" in line or "compare_compression" in line]
    assert len(shown) == 5
    for line in shown:
        _, script, *words = shlex.split(line)
        done = subprocess.run(
            [sys.executable, str(ROOT / script), "--help"],
            capture_output=True,
            text=True,
            check=True,
            env=environment(),
        )
        assert not [word for word in words if word.startswith("--") and word not in done.stdout]
