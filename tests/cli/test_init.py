"""Networks that begin with the weights of one that there is already."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from safetensors.torch import load, save_file

import slimsearch
from slimsearch.errors import SlimsearchError
from slimsearch.options.initial_weights import initial_weights, trained_weights
from slimsearch.search_spaces import ModelSpace
from tests.conftest import TINY, Run, recorded

WORDS = ("--space", TINY, "--dataset", "digits", "--epochs", "1", "--compress", "none", "--normalise", "none")


def _results(directory: Path) -> list[dict[str, Any]]:
    found: Any = [trial["result"]["metrics"] for trial in recorded(directory).values()]
    return list(found)


@pytest.mark.slow
def test_a_search_from_the_weights_of_a_file(run: Run, tmp_path: Path) -> None:
    words = ("--architectures", '[{"act": 0, "width": 24}]', "--run-dir", "first")
    assert run(*WORDS, "--epochs", "8", *words).returncode == 0
    weights = tmp_path / "first" / "trials" / "00000" / "weights.safetensors"
    done = run(*WORDS, "--trials", "4", "--init", weights, "--run-dir", "again")
    assert done.returncode == 0, done.stderr
    assert all(metrics["inherited_share"] == 1.0 for metrics in _results(tmp_path / "again"))
    assert run(*WORDS, "--trials", "4", "--run-dir", "drawn").returncode == 0
    begun, drawn = (np.mean([m["val_accuracy"] for m in _results(tmp_path / name)]) for name in ("again", "drawn"))
    assert begun > drawn
    model = json.loads((tmp_path / "again" / "top_models.json").read_text())[0]
    assert slimsearch.load_network(tmp_path / "again", model)  # it is built without them
    trials = recorded(tmp_path / "again")
    assert run("--resume", "again").returncode == 0
    assert recorded(tmp_path / "again") == trials
    save_file({"conv.weight": torch.zeros(24, 1, 3, 3)}, weights)
    (line,) = run("--resume", "again").stderr.splitlines()
    assert "the weights are not those that 'again' was begun with" in line


def test_torchvisions_file_is_taken_from_its_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    space = ModelSpace.load("resnet18", (3, 32, 32), 10)
    with pytest.raises(SlimsearchError, match=r"there is no file '.*resnet18-f37072fd\.pth'; --download fetches it"):
        initial_weights("torchvision:resnet18", space, download=False)
    with pytest.raises(SlimsearchError, match="--weights torchvision:resnet18: there is no file"):
        trained_weights("torchvision:resnet18", torchvision.models.resnet18(), 1000, download=False)
    state = torchvision.models.resnet18().state_dict()
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    torch.save(state, tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth")
    found = load(initial_weights("torchvision:resnet18", space, download=False))
    assert found.keys() == state.keys() - {"fc.weight", "fc.bias"}  # for 1,000 classes, of which there are 10 here
    with pytest.raises(SlimsearchError, match="torchvision has no trained 'resnet19'"):
        initial_weights("torchvision:resnet19", space, download=False)
    with pytest.raises(SlimsearchError, match="none of its layers is called like one of the space's"):
        initial_weights("torchvision:resnet18", ModelSpace.load("tiny_cnn", (1, 28, 28), 10), download=False)


@pytest.mark.slow
def test_a_backbone_is_shrunk(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    (tmp_path / "torch" / "hub" / "checkpoints").mkdir(parents=True)
    torch.save(
        torchvision.models.resnet18().state_dict(),
        tmp_path / "torch" / "hub" / "checkpoints" / "resnet18-f37072fd.pth",
    )
    rng = np.random.default_rng(0)
    for place in range(60):
        folder = tmp_path / "images" / str(place % 3)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / f"{place}.png")
    words = ("--space", "resnet18", "--dataset", "images", "--init", "torchvision:resnet18", "--trials", "2")
    done = run(*words, "--epochs", "1", "--compress", "quantize", "--max-drop", "100", "--run-dir", "made")
    assert done.returncode == 0, done.stderr
    searched = [metrics for metrics in _results(tmp_path / "made") if "inherited_share" in metrics]
    assert len(searched) == 2
    assert all(metrics["inherited_share"] > 0.98 for metrics in searched)


def test_what_is_no_weights(run: Run, tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text("no weights")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"net": {"other.weight": torch.zeros(3)}}, tmp_path / "nested.pth")
    torch.save({"other.weight": torch.zeros(3)}, tmp_path / "other.pth")
    for name, message in (
        ("text.pth", "--init: cannot read the weights"),
        ("list.pth", "has no weights: it is not a mapping"),
        ("nested.pth", "has no weights: it is not a mapping"),
        ("other.pth", "none of its layers is called like one of the space's"),
        ("nothing.safetensors", "--init: cannot read the weights"),
    ):
        done = run(*WORDS, "--trials", "1", "--init", name, "--run-dir", "made")
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert message in line
        assert not (tmp_path / "made").exists()
    done = run(*WORDS, "--strategy", "supernet", "--init", "other.pth", "--run-dir", "made")
    assert done.returncode == 2
