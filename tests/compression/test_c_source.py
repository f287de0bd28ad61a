"""C files of networks: the decisions of ONNX Runtime, static memory as declared, a valid memory plan."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from slimsearch.compression import CompiledNetwork, Network, Quantization, c_compiler, export_onnx, memory_kib, write_c
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


JOINED: dict[str, tuple[Callable[[torch.Tensor, torch.Tensor], torch.Tensor], int]] = {
    "average": (lambda a, b: F.avg_pool2d(b, 3, 2, 1, count_include_pad=False), 6 * 16),
    "padded average": (lambda a, b: F.avg_pool2d(b, 3, 1, 1), 6 * 64),
    "padded maximum": (lambda a, b: F.max_pool2d(b, 3, 1, 1), 6 * 64),
    "hard-swish": (lambda a, b: F.hardswish(b), 6 * 64),
    "tanh, concatenated": (lambda a, b: torch.cat([a[:, :4], b[:, 2:].tanh()], 1), 8 * 64),
    "sum of a stack": (lambda a, b: torch.stack([a, b, a * b]).sum(0), 6 * 64),
    "norm": (lambda a, b: F.layer_norm((a - b).flatten(2).transpose(1, 2), (6,)).softmax(-1), 6 * 64),
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


def check(module: nn.Module, form: str, images: tuple[torch.Tensor, torch.Tensor], folder: Path) -> None:
    """Export, compile, and compare with ONNX Runtime on the validation images."""
    export_onnx(Network(module, {}, PLANS[form]), folder / "model.onnx", images[0])
    write_c(folder / "model.onnx", folder / "model.c", "digits")
    found = CompiledNetwork(folder / "model.c", "digits", folder)(images[1].numpy())
    expected = DeployedModel(folder / "model.onnx")(images[1].numpy())
    assert np.array_equal(found.argmax(1), expected.argmax(1))
    assert np.allclose(found, expected, rtol=1e-4, atol=1e-5)
    if form == "int8":
        assert np.array_equal(found, expected)


@needs_compiler
@pytest.mark.parametrize("form", PLANS)
def test_decisions_are_those_of_onnx_runtime(
    form: str, images: tuple[torch.Tensor, torch.Tensor], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    check(trained_like(Residual(), images[0]), form, images, tmp_path)


@needs_compiler
@pytest.mark.parametrize("form", ["float", "int8"])
@pytest.mark.parametrize("name", JOINED)
def test_operators(name: str, form: str, images: tuple[torch.Tensor, torch.Tensor], tmp_path: Path) -> None:
    torch.manual_seed(0)
    if (name, form) == ("norm", "int8"):
        with pytest.raises(SlimsearchError, match="a C file cannot have the operator QLinearSoftmax"):
            check(Two(*JOINED[name]).eval(), form, images, tmp_path)
        return
    check(Two(*JOINED[name]).eval(), form, images, tmp_path)


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
    module = nn.Sequential(nn.ConvTranspose2d(1, 2, 3), nn.Flatten(), nn.Linear(200, 10)).eval()
    export_onnx(Network(module), tmp_path / "model.onnx", images[0])
    with pytest.raises(SlimsearchError, match="cannot have the operator ConvTranspose; it has Abs, "):
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
