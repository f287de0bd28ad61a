"""``slimsearch explain``: what it says of the layers of a file is what files with these layers in float32 show."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

import slimsearch
from slimsearch.compression import LayerFiles, Network, Quantization
from slimsearch.evaluators import DeployedModel
from slimsearch.evaluators.datasets import Dataset
from slimsearch.report.stored_run import stored_run
from tests.conftest import Run, quantized_trial

Finished = tuple[Path, "subprocess.CompletedProcess[str]"]


@pytest.mark.usefixtures("calm")
def test_layers_of_a_file_of_a_run(finished: Finished, run: Run, digits: Dataset) -> None:
    folder = quantized_trial(finished[0])
    done = run(folder, "--top", "2", "--json", "found.json", command="explain")
    assert done.returncode == 0, done.stderr
    assert "SQNR" in done.stdout
    found = json.loads(Path("found.json").read_text())
    assert found["same"] == 1, "the file made again is another one"
    model = DeployedModel(folder / "model.onnx")
    right = model.predict(digits, digits.validation) == digits.validation.targets
    assert found["quantized"]["accuracy"] == pytest.approx(right.mean())
    assert found["quantized"]["size_kib"] == pytest.approx((folder / "model.onnx").stat().st_size / 1024)
    lost = [(layer["lost"], layer["error"]) for layer in found["layers"]]
    assert lost == sorted(lost, reverse=True)
    assert [layer["in_float32"] is not None for layer in found["layers"]] == [n < 2 for n in range(len(lost))]

    architecture = next(
        t for t in stored_run(finished[0]).trials if t.number == int(folder.name)
    ).candidate.architecture
    entry = {"architecture": dict(architecture), "artifact": f"trials/{folder.name}/model.onnx"}
    module = slimsearch.load_network(finished[0], entry)
    for layer in found["layers"][:2]:
        weights = module.get_submodule(layer["name"]).weight.numel()
        assert layer["in_float32"]["size_kib"] == pytest.approx(weights * 3 / 1024, abs=1.5)

    Path("copy.onnx").write_bytes((folder / "model.onnx").read_bytes())
    for path, message in (
        ("copy.onnx", "is not in a run directory"),
        ("nowhere.onnx", "there is no file 'nowhere.onnx'"),
        (finished[0] / "trials" / "00000", "is in float32"),
    ):
        done = run(path, command="explain")
        assert done.returncode == 2
        assert message in done.stderr


def test_the_noise_of_a_layer_is_that_of_its_weights(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(1, 8, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(288, 10)
    )
    images = torch.randn(64, 1, 8, 8)
    for form in ("weights-int8", "static"):
        files = LayerFiles(Network(module.eval()), images, Quantization(form=form), tmp_path)
        assert files.layers == ["0", "3"]
        noise = files.signal_to_noise(images)
        outputs = DeployedModel(files.write())(images.numpy())
        with torch.no_grad():
            expected = module(images).numpy()
        ratio = 10 * np.log10(np.square(expected).sum() / np.square(expected - outputs).sum())
        assert noise["3"] == pytest.approx(ratio, abs=0.2)
        assert 25 < noise["0"] < 60
        alone = onnx.load(files.alone("0"))
        assert any(tensor.name.startswith("3.weight") and tensor.data_type == 1 for tensor in alone.graph.initializer)
