"""An ONNX file of anybody's is read if everything is in it, and otherwise not loaded at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

import slimsearch
from slimsearch.compression import Network, read_onnx
from slimsearch.compression.distill import OnnxLogits
from slimsearch.errors import SlimsearchError
from slimsearch.evaluators.datasets import Dataset

PLACES = [
    "/etc/passwd", "../../../../../../etc/passwd", "weights.bin", "./model.onnx.data", "", "*/_ORT_MEM_ADDR_/*",
    "link.bin",
]  # fmt: skip


def external(place: str, name: str = "weight", length: int = 64 * 10 * 4) -> TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[64, 10], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", place), ("offset", "0"), ("length", str(length))):
        tensor.external_data.add(key=key, value=value)
    return tensor


def write(path: Path, weight: TensorProto, where: str = "initializer") -> None:
    """Logits of 8x8 images by one matrix, wherever the file keeps it."""
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 1, 8, 8])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 10])
    nodes = [
        helper.make_node("Flatten", ["images"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weight"], ["logits"]),
    ]
    initializers = [weight] if where == "initializer" else []
    if where == "attribute":
        nodes.insert(0, helper.make_node("Constant", [], ["weight"], value=weight))
    if where == "subgraph":
        inner = helper.make_graph(
            [helper.make_node("Identity", ["w"], ["out"])], "inner", [],
            [helper.make_tensor_value_info("out", TensorProto.FLOAT, [64, 10])], [weight],
        )  # fmt: skip
        inner.initializer[0].name = "w"
        yes = numpy_helper.from_array(np.array(True), "yes")
        nodes.insert(0, helper.make_node("If", ["yes"], ["weight"], then_branch=inner, else_branch=inner))
        initializers = [yes]
    graph = helper.make_graph(nodes, "g", [images], [logits], initializers)
    path.write_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString())


@pytest.fixture
def student() -> Network:
    return Network(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)).eval())


@pytest.mark.parametrize("where", ["initializer", "attribute", "subgraph"])
@pytest.mark.parametrize("place", PLACES)
def test_weights_in_another_file(place: str, where: str, digits: Dataset, student: Network, tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(bytes(64 * 10 * 4))
    (tmp_path / "model.onnx.data").write_bytes(bytes(64 * 10 * 4))
    (tmp_path / "link.bin").symlink_to("/etc/passwd")
    file = tmp_path / "model.onnx"
    write(file, external(place), where)
    assert digits.test is not None
    with pytest.raises(SlimsearchError, match="in another file") as failure:
        slimsearch.accuracy(file, digits, digits.test)
    assert "\n" not in str(failure.value)
    with pytest.raises(SlimsearchError, match="in another file"):
        OnnxLogits(file, torch.zeros(2, 1, 8, 8), student)
    with pytest.raises(SlimsearchError, match="in another file"):
        slimsearch.compress(student, f"distill:teacher={file}:epochs=1", digits, run_dir=tmp_path / "run", show=False)


@pytest.mark.parametrize("where", ["initializer", "attribute", "subgraph"])
def test_weights_in_the_file_itself(where: str, digits: Dataset, tmp_path: Path) -> None:
    write(tmp_path / "model.onnx", numpy_helper.from_array(np.eye(64, 10, dtype=np.float32), "weight"), where)
    assert digits.test is not None
    assert 0 <= slimsearch.accuracy(tmp_path / "model.onnx", digits, digits.test) <= 1
    pixels = np.random.default_rng(0).integers(0, 256, (60, 8, 8), dtype=np.uint8)
    data = slimsearch.load_dataset((pixels, pixels.reshape(60, 64)[:, :10] / 255), task="regression")
    with pytest.raises(SlimsearchError, match=r"no accuracy; slimsearch\.score gives its r2"):
        slimsearch.accuracy(tmp_path / "model.onnx", data, data.validation)


@pytest.mark.parametrize(
    "content", [b"", b"garbage", b"\x00" * 100, b"\xff" * 100, b"\x08\x00\x00\x00ORTM" + bytes(64)]
)
def test_what_is_no_onnx(content: bytes, digits: Dataset, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    assert digits.test is not None
    with pytest.raises(SlimsearchError) as failure:
        slimsearch.accuracy(tmp_path / "model.onnx", digits, digits.test)
    assert "\n" not in str(failure.value)


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SlimsearchError, match="there is no file"):
        read_onnx(tmp_path / "model.onnx")
    with pytest.raises(SlimsearchError, match="directory"):
        read_onnx(tmp_path)


def test_our_own_files_have_everything_in_them(digits: Dataset, student: Network, tmp_path: Path) -> None:
    content = read_onnx(slimsearch.export(student, tmp_path / "model.onnx", digits))
    assert onnx.load_model_from_string(content).graph.initializer
