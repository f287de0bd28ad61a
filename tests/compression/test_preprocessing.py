"""Preprocessing inside ONNX files: the same outputs from pixels, with as few operators as can be."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from slimsearch import compression
from slimsearch.compression import EXACT, Network, embed_preprocessing, exact_error, export_onnx
from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import DeployedModel

GRAY = ((0.13,), (0.31,))
RGB = ((0.49, 0.48, 0.45), (0.25, 0.24, 0.26))
ALIKE = ((0.5, 0.4, 0.3), (0.25, 0.25, 0.25))


def body(channels: int, **options: object) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels, 6, 3, **options), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 5)
    )  # fmt: skip


class Twice(nn.Module):
    """Two operators read the images."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.first(x) * self.second(x)).mean((2, 3))


@dataclass
class _Calibration:
    calibration: torch.Tensor


def first_operators(model: onnx.ModelProto, count: int) -> list[str]:
    """From the input on, as long as one operator reads the values."""
    found, name = [], model.graph.input[0].name
    while len(found) < count:
        (reader,) = (node for node in model.graph.node if name in node.input)
        found.append(reader.op_type)
        name = reader.output[0]
    return found


CASES = {
    "padded": (body(3, padding=1), RGB, "", ["Cast", "Add", "Conv"]),
    "not padded": (body(3), RGB, "", ["Cast", "Conv"]),
    "without bias": (body(3, bias=False), RGB, "", ["Cast", "Conv"]),
    "depthwise": (body(3, groups=3), RGB, "", ["Cast", "Conv"]),
    "depthwise, padded": (body(3, groups=3, padding=1), RGB, "", ["Cast", "Add", "Conv"]),
    "gray": (body(1, stride=2), GRAY, "", ["Cast", "Conv"]),
    "linear": (nn.Sequential(nn.Flatten(), nn.Linear(192, 5)), RGB, "", ["Cast", "Add", "Mul"]),
    "two readers": (Twice(), RGB, "", ["Cast", "Add", "Mul"]),
    "int8, gray": (body(1, padding=1), GRAY, "quantize", ["Cast", "Add", "QuantizeLinear"]),
    "int8, values between integers": (body(3), ALIKE, "quantize", ["Cast", "Div", "Sub", "Div"]),
    "int8, other deviations": (body(3), RGB, "quantize", ["Cast", "Div", "Sub", "Div"]),
    "small weights": (body(3), RGB, "weight_only", ["Cast", "Add", "Mul"]),
}


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("name", CASES)
def test_outputs_of_pixels_are_those_of_normalized_images(name: str, layout: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, (mean, std), recipe, operators = CASES[name]
    pixels = np.random.default_rng(0).integers(0, 256, (64, len(mean), 8, 8), dtype=np.uint8)
    images = (pixels / np.float32(255) - np.float32(mean).reshape(-1, 1, 1)) / np.float32(std).reshape(-1, 1, 1)
    network = Network(module.eval())
    calibration = torch.from_numpy(images)
    if recipe:
        network = compression.Recipe.parse(recipe).apply(network, _Calibration(calibration))  # type: ignore[arg-type]
    plain, embedded = tmp_path / "plain.onnx", tmp_path / "embedded.onnx"
    export_onnx(network, plain, calibration, {"input": "pixel / 255"})
    made = embed_preprocessing(onnx.load(str(plain)), mean, std, layout)
    onnx.save(made, str(embedded))
    read = np.ascontiguousarray(pixels.transpose(0, 2, 3, 1)) if layout == "nhwc" else pixels
    expected, found = DeployedModel(plain)(images), DeployedModel(embedded)(read)
    assert exact_error(expected, found) < EXACT / 10
    assert (expected.argmax(1) == found.argmax(1)).all()
    if recipe == "quantize":
        assert np.array_equal(expected, found), "all bytes are quantized as before"
    in_front = ["Transpose"] if layout == "nhwc" else []
    assert first_operators(made, len(in_front) + len(operators)) == in_front + operators
    assert DeployedModel(embedded)(read[:1]).shape == (1, expected.shape[1])


def test_probabilities_and_labels(tmp_path: Path) -> None:
    import onnxruntime

    file = tmp_path / "model.onnx"
    torch.manual_seed(0)
    export_onnx(Network(body(1).eval()), file, torch.randn(8, 1, 8, 8))
    classes = ["ant", "bee", "cat", "dög", "eel"]
    onnx.save(embed_preprocessing(onnx.load(str(file)), *GRAY, "nhwc", classes), str(file))
    pixels = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 1), dtype=np.uint8)
    probabilities, labels = onnxruntime.InferenceSession(str(file)).run(None, {"pixels": pixels})
    assert probabilities.sum(axis=1) == pytest.approx(1)
    assert labels.tolist() == [classes[best] for best in probabilities.argmax(axis=1)]
    assert np.array_equal(DeployedModel(file)(pixels), probabilities)


def test_a_file_that_takes_no_images_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    export_onnx(Network(nn.Linear(4, 2).eval()), file, torch.randn(8, 4))
    with pytest.raises(SlimsearchError, match="one input of images"):
        embed_preprocessing(onnx.load(str(file)), *GRAY, "nchw")
