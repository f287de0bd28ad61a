"""C files of networks: the decisions of ONNX Runtime, static memory as declared, a valid memory plan."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from torch import nn

from slimsearch.compression import (
    CompiledNetwork,
    Network,
    Quantization,
    c_compiler,
    embed_preprocessing,
    export_onnx,
    memory_kib,
    write_c,
)
from slimsearch.compression.export.c_source.program import Buffer, Kernel, Program, Step, plan_memory
from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import DeployedModel
from slimsearch.evaluators.datasets import load_dataset

needs_compiler = pytest.mark.skipif(c_compiler() is None, reason="there is no C compiler")

PLANS = {
    "float": None,
    "int8": Quantization(),
    "weights-int8": Quantization(form="weights-int8"),
    "weights-fp16": Quantization(form="weights-fp16"),
}


class Two(nn.Module):
    """Two convolutions, and a function of both."""

    def __init__(self, joined: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], outputs: int) -> None:
        super().__init__()
        self.joined = joined
        self.first = nn.Conv2d(1, 6, 3, padding=1)
        self.second = nn.Conv2d(6, 6, (3, 5), padding=2, dilation=(2, 1), groups=3)
        self.head = nn.Linear(outputs, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = self.first(x).relu()
        return self.head(torch.flatten(self.joined(a, self.second(a)), 1))


class Residual(nn.Module):
    """With a strided depthwise convolution, batch normalization, squeeze-and-excitation and a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU6())
        self.body = nn.Sequential(
            nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 1)
        )
        self.weight = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 4, 1), nn.ReLU(), nn.Conv2d(4, 8, 1))
        self.head = nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        y = F.max_pool2d(x, 2) + self.body(x)
        return self.head((y * self.weight(y).sigmoid()).mean((2, 3)))


class Shortcuts(nn.Module):
    """Products of the input, added to what layers compute."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(64, 12), nn.Linear(12, 12), nn.Linear(12, 10)])
        self.shortcut = nn.Linear(64, 12, bias=False)
        self.matrix = nn.Parameter(torch.randn(64, 10) / 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.flatten(x, 1)
        y = (self.layers[1](self.layers[0](x).relu()) + self.shortcut(x)).relu()
        return torch.addmm(self.layers[2](y), x, self.matrix)


class Decoder(nn.Module):
    """A map (N, 6, 8, 8), enlarged."""

    def __init__(self, enlarge: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 6, 3, padding=1)
        self.enlarge = enlarge
        self.last = nn.LazyConv2d(2, 3)
        self.head = nn.LazyLinear(10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.last(self.enlarge(self.first(x).relu())).flatten(1))


class Attention(nn.Module):
    """A transformer's layer over the rows of an image, with a token of its own for the classes."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.token = nn.Linear(8, 12), nn.Parameter(torch.randn(1, 1, 12))
        self.queries, self.last = nn.Linear(12, 36), nn.Linear(12, 12)
        self.norms = nn.ModuleList(nn.LayerNorm(12) for _ in range(2))
        self.body = nn.Sequential(nn.Linear(12, 24), nn.GELU(), nn.Linear(24, 12))
        self.head = nn.Linear(12, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.cat([self.token.expand(len(x), 1, 12), self.embedding(x[:, 0])], 1)  # (N, 9, 12)
        q, k, v = self.queries(self.norms[0](x)).view(-1, 9, 3, 2, 6).permute(2, 0, 3, 1, 4)  # each (N, 2, 9, 6)
        weighted = (q @ k.transpose(-1, -2) / 6**0.5).softmax(-1) @ v
        x = x + self.last(weighted.transpose(1, 2).reshape(-1, 9, 12))
        return self.head((x + self.body(self.norms[1](x)))[:, 0])


ENLARGED: dict[str, Callable[[], Callable[[torch.Tensor], torch.Tensor]]] = {
    "transposed": lambda: nn.ConvTranspose2d(6, 4, 2, stride=2),
    "transposed in groups": lambda: nn.ConvTranspose2d(
        6, 4, (3, 4), (2, 3), padding=(1, 2), output_padding=(1, 0), dilation=(2, 1), groups=2
    ),
    "transposed lines": lambda: nn.Sequential(
        nn.Flatten(2), nn.ConvTranspose1d(6, 4, 5, 3, padding=1), nn.Unflatten(2, (12, 16))
    ),
    "nearest": lambda: nn.Upsample(scale_factor=2),
    "nearest, other size": lambda: nn.Upsample((13, 5)),
    "nearest lines": lambda: nn.Sequential(nn.Flatten(2), nn.Upsample(scale_factor=2), nn.Unflatten(2, (8, 16))),
    "linear": lambda: nn.Upsample(scale_factor=2, mode="bilinear"),
    "linear, other size": lambda: nn.Upsample((13, 5), mode="bilinear"),
    "linear, corners": lambda: nn.Upsample((11, 17), mode="bilinear", align_corners=True),
}

JOINED: dict[str, tuple[Callable[[torch.Tensor, torch.Tensor], torch.Tensor], int]] = {
    "average": (lambda a, b: F.avg_pool2d(b, 3, 2, 1, count_include_pad=False), 6 * 16),
    "padded average": (lambda a, b: F.avg_pool2d(b, 3, 1, 1), 6 * 64),
    "padded maximum": (lambda a, b: F.max_pool2d(b, 3, 1, 1), 6 * 64),
    "hard-swish": (lambda a, b: F.hardswish(b), 6 * 64),
    "tanh, concatenated": (lambda a, b: torch.cat([a[:, :4], b[:, 2:].tanh()], 1), 8 * 64),
    "sum of a stack": (lambda a, b: torch.stack([a, b, a * b]).sum(0), 6 * 64),
    "norm": (lambda a, b: F.layer_norm((a - b).flatten(2).transpose(1, 2), (6,)).softmax(-1), 6 * 64),
    "normalized channels": (lambda a, b: F.group_norm(F.instance_norm(a) + b, 2), 6 * 64),
    "shares of channels": (lambda a, b: (a - b).softmax(1), 6 * 64),
    "logarithms of shares": (lambda a, b: (a * b).log_softmax(1), 6 * 64),
    "unit vectors": (lambda a, b: F.normalize(torch.flatten(a + b, 2), dim=1), 6 * 64),
    "largest": (lambda a, b: torch.cat([a.amax((2, 3)), b.amax(1).flatten(1)], 1), 6 + 64),
    "padding, slices": (lambda a, b: F.pad(F.leaky_relu(b)[:, ::2, 1:], (1, 0, -2, 2)), 3 * 63),
}


def trained_like(module: nn.Module, images: torch.Tensor) -> nn.Module:
    """`module` with statistics of its own, for evaluation."""
    module.train()
    with torch.no_grad():
        for _ in range(3):
            module(images)
    return module.eval()


@pytest.fixture(scope="module")
def images() -> tuple[torch.Tensor, torch.Tensor]:
    """Training images of digits, and those of the validation split."""
    data = load_dataset("digits")
    return tuple(
        next(data.batches(split, size=size))[0] for split, size in ((data.train, 128), (data.validation, 10**6))
    )


def check(
    module: nn.Module, form: str, images: tuple[torch.Tensor, torch.Tensor], folder: Path, *, norms: bool = False
) -> None:
    """Export, compile, and compare with ONNX Runtime on the validation images.

    Norms are computed in float32, so that a number beside the middle of two integers may be rounded either way.
    """
    export_onnx(Network(module, {}, PLANS[form]), folder / "model.onnx", images[0])
    write_c(folder / "model.onnx", folder / "model.c", "digits")
    found = CompiledNetwork(folder / "model.c", "digits", folder)(images[1].numpy())
    expected = DeployedModel(folder / "model.onnx")(images[1].numpy())
    assert np.array_equal(found.argmax(1), expected.argmax(1))
    assert np.allclose(found, expected, rtol=1e-4, atol=0.01 if norms and form == "int8" else 1e-5)
    if form == "int8" and not norms:
        assert np.array_equal(found, expected)


@needs_compiler
@pytest.mark.parametrize("form", PLANS)
def test_decisions_are_those_of_onnx_runtime(
    form: str, images: tuple[torch.Tensor, torch.Tensor], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    check(trained_like(Residual(), images[0]), form, images, tmp_path)


@needs_compiler
@pytest.mark.parametrize("form", PLANS)
def test_products_that_are_added(form: str, images: tuple[torch.Tensor, torch.Tensor], tmp_path: Path) -> None:
    torch.manual_seed(0)
    check(Shortcuts().eval(), form, images, tmp_path)


@needs_compiler
@pytest.mark.parametrize("form", ["float", "int8"])
@pytest.mark.parametrize("name", JOINED)
def test_operators(name: str, form: str, images: tuple[torch.Tensor, torch.Tensor], tmp_path: Path) -> None:
    torch.manual_seed(0)
    check(Two(*JOINED[name]).eval(), form, images, tmp_path, norms=name == "norm")


@needs_compiler
@pytest.mark.parametrize(
    ("name", "form"),
    [
        *((name, "float") for name in ENLARGED),
        *((name, "int8") for name in ("transposed", "transposed in groups", "nearest, other size", "linear")),
        ("transposed in groups", "weights-int8"),
    ],
)
def test_enlarged_maps(name: str, form: str, images: tuple[torch.Tensor, torch.Tensor], tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Decoder(ENLARGED[name]()).eval()
    module(images[0])
    check(module, form, images, tmp_path)


@needs_compiler
@pytest.mark.parametrize("form", ["float", "int8"])
def test_attention(form: str, images: tuple[torch.Tensor, torch.Tensor], tmp_path: Path) -> None:
    torch.manual_seed(0)
    check(Attention().eval(), form, images, tmp_path, norms=True)


@needs_compiler
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("form", ["float", "int8"])
def test_pixels(form: str, layout: str, tmp_path: Path) -> None:
    """A C file of pixels is that of its ONNX file; bytes are quantized by a table for each channel."""
    torch.manual_seed(0)
    mean, std = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)
    module = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(384, 5)).eval()
    pixels = np.random.default_rng(0).integers(0, 256, (32, 3, 8, 8), dtype=np.uint8)
    center, deviation = (np.float32(values).reshape(-1, 1, 1) for values in (mean, std))
    images = torch.from_numpy((pixels / np.float32(255) - center) / deviation)
    export_onnx(Network(module, {}, PLANS[form]), tmp_path / "plain.onnx", images, {"input": "pixel / 255"})
    model = embed_preprocessing(onnx.load(str(tmp_path / "plain.onnx")), mean, std, layout)
    onnx.save(model, str(tmp_path / "model.onnx"))
    write_c(tmp_path / "model.onnx", tmp_path / "model.c", "camera")
    inputs = np.ascontiguousarray(pixels.transpose(0, 2, 3, 1)) if layout == "nhwc" else pixels
    found = CompiledNetwork(tmp_path / "model.c", "camera", tmp_path)(inputs)
    expected = DeployedModel(tmp_path / "model.onnx")(inputs)
    assert "uint8_t *camera_input(void)" in (tmp_path / "model.h").read_text()
    if form == "int8":
        assert np.array_equal(found, expected)
        assert (
            memory_kib(tmp_path / "model.onnx")["ram_kib"] * 1024 == 192 + 384
        )  # bytes of pixels and of the first map
    else:
        assert np.allclose(found, expected, rtol=1e-4, atol=1e-5)


@needs_compiler
@pytest.mark.parametrize("constant_first", [False, True])
@pytest.mark.parametrize(
    ("operator", "shape", "parameters"),
    [
        *(("QLinearAdd", shape, (0.0128, 135, 0.0136, 253, 0.0112, 213)) for shape in ((256, 256), (256, 1), (1, 256))),
        ("QLinearMul", (256, 256), (0.0308, 44, 0.0016, 149, 0.0048, 75)),
    ],
)
def test_pairs_of_bytes_are_rounded_as_in_onnx_runtime(
    operator: str, shape: tuple[int, int], parameters: tuple[float, ...], constant_first: bool, tmp_path: Path
) -> None:
    """All pairs, with scales and zero points for which many results are close to the middle of two integers."""
    scale_a, zero_a, scale_b, zero_b, scale_y, zero_y = parameters
    every = np.arange(256, dtype=np.uint8)
    numbers = {
        "one": np.float32(1), "zero": np.uint8(0), "b": np.resize(every, shape),
        "scale_a": np.float32(scale_a), "zero_a": np.uint8(zero_a), "scale_b": np.float32(scale_b),
        "zero_b": np.uint8(zero_b), "scale_y": np.float32(scale_y), "zero_y": np.uint8(zero_y),
    }  # fmt: skip
    operands = [["a", "scale_a", "zero_a"], ["b", "scale_b", "zero_b"]]
    first, second = operands[::-1] if constant_first else operands
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "one", "zero"], ["a"]),
        helper.make_node(operator, [*first, *second, "scale_y", "zero_y"], ["result"], domain="com.microsoft"),
        helper.make_node("DequantizeLinear", ["result", "one", "zero"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 256, 256]) for name in "xy"]
    constants = [numpy_helper.from_array(np.array(value), name) for name, value in numbers.items()]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    graph = helper.make_graph(nodes, "pairs", ends[:1], ends[1:], constants)
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), str(tmp_path / "model.onnx"))
    write_c(tmp_path / "model.onnx", tmp_path / "model.c", "pairs")
    rows = np.arange(256, dtype=np.float32)[None, None].repeat(256, 1)
    x = rows if shape[1] == 1 else np.ascontiguousarray(rows.transpose(0, 2, 1))
    found = CompiledNetwork(tmp_path / "model.c", "pairs", tmp_path)(x)
    expected = DeployedModel(tmp_path / "model.onnx")(x)
    assert np.array_equal(found, expected.reshape(1, -1))


@pytest.mark.parametrize("form", PLANS)
def test_memory_is_what_the_header_declares(
    form: str, images: tuple[torch.Tensor, torch.Tensor], tmp_path: Path
) -> None:
    export_onnx(Network(Residual().eval(), {}, PLANS[form]), tmp_path / "model.onnx", images[0])
    write_c(tmp_path / "model.onnx", tmp_path / "model.c", "digits")
    declared = dict(re.findall(r"DIGITS_(\w+)_BYTES (\d+)", (tmp_path / "model.h").read_text()))
    found = memory_kib(tmp_path / "model.onnx")
    assert {name: int(size) / 1024 for name, size in declared.items()} == {
        "RAM": found["ram_kib"], "FLASH": found["flash_kib"]
    }  # fmt: skip
    # Stem and its result: 64 and 8 x 64 numbers; smaller layers fit beside it.
    least = 8 * 64 * (1 if form == "int8" else 4)
    assert least <= int(declared["RAM"]) <= 2 * least
    source = (tmp_path / "model.c").read_text()
    assert "malloc" not in source
    if (compiler := c_compiler()) is not None:
        words = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", "-O2", "-c", "model.c", "-o", "model.o"]
        subprocess.run([compiler, *words], cwd=tmp_path, check=True)


def test_an_operator_without_a_c_function_is_named(images: tuple[torch.Tensor, torch.Tensor], tmp_path: Path) -> None:
    module = Two(lambda a, b: (a + b).cumsum(1), 6 * 64).eval()
    export_onnx(Network(module), tmp_path / "model.onnx", images[0])
    with pytest.raises(SlimsearchError, match="cannot have the operator CumSum; it has Abs, "):
        memory_kib(tmp_path / "model.onnx")


@st.composite
def programs(draw: st.DrawFn) -> Program:
    """Steps that each read up to two earlier buffers and write a new one, some of them in place."""
    buffers = [Buffer(draw(st.sampled_from(["float", "uint8_t"])), draw(st.integers(1, 40)))]
    steps = []
    for _ in range(draw(st.integers(1, 12))):
        read = draw(st.lists(st.sampled_from(buffers), min_size=1, max_size=2, unique=True))
        written = Buffer(draw(st.sampled_from(["float", "uint8_t"])), draw(st.integers(1, 40)))
        in_place = tuple(read[:1]) if draw(st.booleans()) else ()
        steps.append(Step(Kernel("f", "f.c"), (*read, written), written, in_place))
        buffers.append(written)
    return Program(steps, buffers[0], buffers[-1], (1,), (1,), {})


@settings(max_examples=60, deadline=None)
@given(programs())
def test_a_memory_plan_keeps_what_is_read_later(program: Program) -> None:
    plan = plan_memory(program)
    memory: list[tuple[Buffer, int] | None] = [None] * plan.bytes

    def write(buffer: Buffer) -> None:
        start = plan.offsets[buffer]
        memory[start : start + buffer.bytes] = [(buffer, i) for i in range(buffer.bytes)]
        assert len(memory) == plan.bytes

    def intact(buffer: Buffer) -> bool:
        start = plan.offsets[buffer]
        return memory[start : start + buffer.bytes] == [(buffer, i) for i in range(buffer.bytes)]

    write(program.input)
    for step in program.steps:
        assert all(intact(buffer) for buffer in step.reads)
        write(step.writes)
        destroyed = [buffer for buffer in step.reads if not intact(buffer)]
        assert all(b in step.in_place and plan.offsets[b] == plan.offsets[step.writes] for b in destroyed)
    assert intact(program.output)
