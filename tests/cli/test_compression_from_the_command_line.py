"""Recipes by name, from a file and with joined stages, from the command line to the report."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
import yaml

from tests.conftest import VARIOUS, Run, recorded

SMALL = [
    "--space",
    VARIOUS,
    "--dataset",
    "digits",
    "--epochs",
    "3",
    "--trials",
    "1",
    "--top-k",
    "1",
    "--max-drop",
    "60",
]


def _models(folder: Path) -> list[dict[str, object]]:
    models: list[dict[str, object]] = json.loads((folder / "run" / "top_models.json").read_text())
    return models


@pytest.mark.slow
def test_a_shipped_recipe_for_new_processors(run: Run, tmp_path: Path) -> None:
    done = run(*SMALL, "--compress", "fused", "--int8-target", "vnni", "--run-dir", "run")
    assert done.returncode == 0, done.stderr
    trials = recorded(tmp_path / "run")
    assert len(trials) == 2, "one training run for all three stages"
    settings = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert settings["int8_target"] == "vnni"
    assert settings["compress"].startswith("prune:sparsity=0.5:importance=taylor:schedule=agp+dynamic_layerwise+qat:")
    small = next(model for model in _models(tmp_path) if model["recipe"])
    assert small["recipe"]["+qat"] == {"target": "vnni"}
    file = onnx.load(str(tmp_path / "run" / str(small["artifact"])))
    notes = {entry.key: entry.value for entry in file.metadata_props}
    assert "VNNI" in notes["quantization"]
    resumed = run("--resume", "run")
    assert resumed.returncode == 0, resumed.stderr
    assert recorded(tmp_path / "run").keys() == trials.keys()


@pytest.mark.slow
def test_a_recipe_file_that_is_gone_when_the_run_is_resumed(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("level: {sparsity: 0.8}\n+cluster: {bits: 3}\n")
    done = run(*SMALL, "--compress", "mine.yaml", "--run-dir", "run")
    assert done.returncode == 0, done.stderr
    assert "storage only: packed" in done.stdout
    small = next(model for model in _models(tmp_path) if model["recipe"])
    assert small["metrics"]["packed_kib"] < small["metrics"]["size_kib"]
    packed = (tmp_path / "run" / str(small["artifact"])).parent / "packed.bin"
    assert packed.stat().st_size / 1024 == small["metrics"]["packed_kib"]
    (tmp_path / "mine.yaml").unlink()
    resumed = run("--resume", "run")
    assert resumed.returncode == 0, resumed.stderr


@pytest.mark.slow
def test_a_stage_and_an_importance_of_ones_own(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from slimsearch.compression.pruning.importances import Importance\n"
        "from slimsearch.compression.weight_only import WeightOnly\n\n\n"
        "class Last(Importance):\n"
        "    def scores(self, weights):\n"
        "        return {name: weight.abs() + 1 for name, weight in weights.items()}\n\n\n"
        "class Halves(WeightOnly):\n"
        "    def apply(self, network, training):\n"
        "        return WeightOnly('fp16').apply(network, training)\n"
    )
    done = run(*SMALL, "--compress", "prune:importance=mine.py:Last,mine.py:Halves", "--run-dir", "run")
    assert done.returncode == 0, done.stderr
    elsewhere = run("--resume", str(tmp_path / "run"))
    assert elsewhere.returncode == 0, elsewhere.stderr
    recipes = [model["recipe"] for model in _models(tmp_path)]
    assert any(str(tmp_path / "mine.py") in json.dumps(recipe) for recipe in recipes)


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ("gone.yaml", "'gone.yaml'"),
        ("broken.yaml", "broken.yaml"),
    ],
)
def test_mistakes_are_one_line(recipe: str, said: str, run: Run, tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text("- prune\n- quantize\n")
    done = run(*SMALL, "--compress", recipe, "--run-dir", "run")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert said in line


def test_a_missing_teacher_is_refused_beforehand(run: Run, tmp_path: Path) -> None:
    done = run(*SMALL, "--compress", "prune,distill:teacher=none.onnx", "--run-dir", "run")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "none.onnx" in line
    assert not (tmp_path / "run").exists()
