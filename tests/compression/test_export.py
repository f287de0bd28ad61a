"""The exported file: one file, nothing in it that does not belong there, the network's own answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from slimsearch import compression
from slimsearch.compression import Network, Quantization
from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import DeployedModel
from tests.conftest import ROOT


class Small(nn.Module):
    """With everything that exporters fold: batch normalisation, dropout, residual."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8), nn.ReLU6())
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        return self.head(self.drop((x + self.body(x)).mean(dim=(2, 3))))


@pytest.fixture
def network() -> Network:
    torch.manual_seed(0)
    module = Small()
    for _ in range(3):
        module(torch.randn(32, 1, 12, 12) * 2 + 1)  # gives the normalisation statistics of its own
    return Network(module.eval())


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(100, 1, 12, 12, generator=torch.Generator().manual_seed(1))


def test_answers_like_the_network_at_every_batch_size(network: Network, images: torch.Tensor, tmp_path: Path) -> None:
    compression.export_onnx(network, tmp_path / "model.onnx", images)
    model = DeployedModel(tmp_path / "model.onnx")
    for size in (1, 2, 64):
        with torch.no_grad():
            expected = network.module(images[:size]).numpy()
        assert np.allclose(model(images[:size].numpy()), expected, atol=1e-5)


@pytest.mark.parametrize("plan", [None, Quantization()])
def test_one_file_with_nothing_of_this_machine_in_it(
    plan: Quantization | None, network: Network, images: torch.Tensor, tmp_path: Path
) -> None:
    path = tmp_path / "model.onnx"
    compression.export_onnx(Network(network.module, {}, plan), path, images, {"mean": "[0.5]"})
    assert list(tmp_path.iterdir()) == [path]
    content = path.read_bytes()
    for foreign in (str(ROOT), "site-packages", ".py", str(tmp_path), "Small"):
        assert foreign.encode() not in content
    model = onnx.load(str(path))
    assert {entry.key: entry.value for entry in model.metadata_props} == {
        "mean": "[0.5]",
        **({"quantization": plan.note} if plan else {}),
    }
    assert not any(t.data_location == onnx.TensorProto.EXTERNAL for t in model.graph.initializer)


def test_int8_is_int8(network: Network, images: torch.Tensor, tmp_path: Path) -> None:
    compression.export_onnx(Network(network.module, {}, Quantization()), tmp_path / "int8.onnx", images)
    model = onnx.load(str(tmp_path / "int8.onnx"))
    assert {"QuantizeLinear", "DequantizeLinear"} <= {node.op_type for node in model.graph.node}
    weights = [t for t in model.graph.initializer if t.data_type == onnx.TensorProto.INT8 and len(t.dims) > 1]
    assert len(weights) == 3
    with torch.no_grad():
        expected = network.module(images).numpy()
    found = DeployedModel(tmp_path / "int8.onnx")(images.numpy())
    assert np.mean(found.argmax(axis=1) == expected.argmax(axis=1)) > 0.9


@pytest.mark.parametrize(("target", "largest"), [("any", 64), ("vnni", 127)])
def test_the_target_decides_about_the_range_of_weights(
    target: str, largest: int, network: Network, images: torch.Tensor, tmp_path: Path
) -> None:
    compression.export_onnx(Network(network.module, {}, Quantization(target=target)), tmp_path / "m.onnx", images)
    weights = [
        onnx.numpy_helper.to_array(t)
        for t in onnx.load(str(tmp_path / "m.onnx")).graph.initializer
        if t.data_type == onnx.TensorProto.INT8 and len(t.dims) > 1
    ]
    assert max(int(np.abs(w.astype(int)).max()) for w in weights) == largest


def test_what_cannot_be_exported_says_so_and_leaves_no_file(images: torch.Tensor, tmp_path: Path) -> None:
    with pytest.raises(SlimsearchError, match=r"export to ONNX failed: .*RuntimeError"):
        compression.export_onnx(Network(_Raises().eval()), tmp_path / "model.onnx", images)
    assert list(tmp_path.iterdir()) == []


class _Raises(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("not while tracing")


def test_nothing_is_printed_of_what_only_the_newer_exporter_knows(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(64, 10)).eval()
    compression.export_onnx(Network(module), tmp_path / "model.onnx", torch.randn(4, 1, 17, 17))
    assert capfd.readouterr() == ("", "")


class _Flat(nn.Module):
    """A convolution, something done with the size of the batch, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 8, 3, stride=2), nn.Linear(8 * 25, 10)
        self.token = nn.Parameter(torch.randn(1, 8, 5, 5))


class _Length(_Flat):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.conv(x).relu().reshape(len(x), -1))


class _Number(_Flat):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.conv(x).relu().view(int(x.shape[0]), -1))


class _Expanded(_Flat):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc((self.conv(x) + self.token.expand(len(x), -1, -1, -1)).flatten(1))


class _Picked(_Flat):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x).flatten(1)
        return self.fc(x[torch.arange(len(x)).flip(0)]).flip(0)


class _Pooled(_Flat):
    """Only the newer exporter knows its pooling."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.nn.functional.adaptive_avg_pool2d(self.conv(nn.functional.pad(x, (0, 3, 0, 3))), 5)
        return self.fc(x.reshape(x.size(0), -1))


class _Shaped(_Flat):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.conv(x).reshape(x.shape[0], -1))


@pytest.mark.parametrize("kind", [_Length, _Number, _Expanded, _Picked, _Pooled, _Shaped])
def test_one_file_for_every_batch_size_and_the_same_runtimes(
    kind: type[nn.Module], images: torch.Tensor, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    module, path = kind().eval(), tmp_path / "model.onnx"
    compression.export_onnx(Network(module), path, images)
    assert capfd.readouterr() == ("", "")
    file, model = onnx.load(str(path)), DeployedModel(path)
    assert (file.ir_version, {entry.domain: entry.version for entry in file.opset_import}) == (8, {"": 18})
    for size in (1, 2, 7, 64):
        with torch.no_grad():
            assert np.allclose(model(images[:size].numpy()), module(images[:size]).numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "form"), [(_Length, "static"), (_Shaped, "static"), (_Shaped, "weights-int8"), (_Shaped, "codebook")]
)
def test_derived_files_have_every_batch_size_too(
    kind: type[nn.Module], form: str, images: torch.Tensor, tmp_path: Path
) -> None:
    module, path = kind().eval(), tmp_path / "model.onnx"
    compression.export_onnx(Network(module, {}, Quantization(form=form)), path, images)
    file, model = onnx.load(str(path)), DeployedModel(path)
    assert (file.ir_version, {entry.domain: entry.version for entry in file.opset_import}) == (8, {"": 18})
    with torch.no_grad():
        expected = module(images).numpy()
    found = np.concatenate([model(images[i : i + 3].numpy()) for i in range(0, 100, 3)])  # the last one is alone
    assert np.mean(found.argmax(axis=1) == expected.argmax(axis=1)) > 0.9


class _OneByOne(_Flat):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([self.fc(image) for image in self.conv(x).flatten(1)])


class _Branch(_Flat):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.conv(x).flatten(1)) * (1 if x.shape[0] == 2 else 2)


class _Pairs(_Flat):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.conv(x).reshape(x.shape[0] // 2, 2, -1).flip(1).reshape(x.shape[0], -1))


@pytest.mark.parametrize(
    ("kind", "said"), [(_OneByOne, "batches of 2"), (_Branch, "batches of 2"), (_Pairs, "fails on a batch of 1")]
)
def test_a_network_for_one_batch_size_is_refused(
    kind: type[nn.Module], said: str, images: torch.Tensor, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SlimsearchError, match=said) as caught:
        compression.export_onnx(Network(kind().eval()), tmp_path / "model.onnx", images)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")
