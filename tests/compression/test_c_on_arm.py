"""C files of networks on an emulated Cortex-M4.

Debian's packages: gcc-arm-none-eabi, libnewlib-arm-none-eabi, qemu-system-arm.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from slimsearch.compression import Network, Quantization, export_onnx, write_c
from slimsearch.evaluators import DeployedModel
from slimsearch.evaluators.datasets import Dataset

COMPILER, SIZE, EMULATOR = "arm-none-eabi-gcc", "arm-none-eabi-size", "qemu-system-arm"
pytestmark = [
    pytest.mark.arm,
    pytest.mark.skipif(not (shutil.which(COMPILER) and shutil.which(EMULATOR)), reason=f"no {COMPILER} or {EMULATOR}"),
]

LAYOUT = """
MEMORY { flash (rx) : ORIGIN = 0, LENGTH = 1M  ram (rwx) : ORIGIN = 0x20000000, LENGTH = 256K }
ENTRY(reset)
SECTIONS {
  .text : { KEEP(*(.vectors)) *(.text*) *(.rodata*) *(.init*) *(.fini*) } > flash
  .ARM.exidx : { __exidx_start = .; *(.ARM.exidx*) __exidx_end = .; } > flash
  .data : { *(.data*) } > ram
  .bss : { __bss_start__ = .; *(.bss*) *(COMMON) __bss_end__ = .; } > ram
  end = .; __end__ = .;
  PROVIDE(__stack = 0x20040000);
}
"""
START = """
extern void _start(void);
extern char __stack[];
void reset(void)
{
    *(volatile unsigned *)0xE000ED88 |= 0xFu << 20; /* the floating-point unit */
    __asm volatile("dsb\\nisb");
    _start();
}
__attribute__((section(".vectors"), used)) static void (*const vectors[])(void) = {(void (*)(void))__stack, reset};
"""
MAIN = """
#include <stdio.h>
#include "digits.h"
static const float images[][DIGITS_INPUTS] = {
#include "images.inc"
};
int main(void)
{
    for (unsigned i = 0; i < sizeof(images) / sizeof(images[0]); i++) {
        for (int j = 0; j < DIGITS_INPUTS; j++)
            digits_input()[j] = images[i][j];
        const float *outputs = digits_run();
        for (int j = 0; j < DIGITS_OUTPUTS; j++)
            printf("%.9g\\n", outputs[j]);
    }
    return 0;
}
"""


class Small(nn.Module):
    """With a depthwise convolution, a shortcut and squeeze-and-excitation."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.ReLU(), nn.Conv2d(8, 8, 1))
        self.weight = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 8, 1), nn.Sigmoid())
        self.head = nn.Linear(8 * 16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = x + self.body(x)
        return self.head(torch.flatten(nn.functional.max_pool2d(x * self.weight(x), 2), 1))


class Attention(nn.Module):
    """With an enlarged map, products of matrices and softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Upsample(scale_factor=2))
        self.head = nn.Linear(8 * 64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x).flatten(2)  # (N, 8, 64)
        return self.head(torch.flatten((x @ x.transpose(1, 2)).softmax(-1) @ x, 1))


@pytest.mark.parametrize("plan", [None, Quantization()], ids=["float", "int8"])
@pytest.mark.parametrize("module", [Small, Attention])
def test_a_cortex_m4_decides_like_onnx_runtime(
    module: type[nn.Module], plan: Quantization | None, digits: Dataset, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    images = digits.normalise(digits.validation.inputs[:100])
    export_onnx(Network(module().eval(), {}, plan), tmp_path / "model.onnx", images)
    write_c(tmp_path / "model.onnx", tmp_path / "digits.c", "digits")
    numbers = ["{" + ", ".join(f"{number:.9e}f" for number in image.ravel()) + "},\n" for image in images.numpy()]
    for name, text in (("main.c", MAIN), ("start.c", START), ("layout.ld", LAYOUT), ("images.inc", "".join(numbers))):
        (tmp_path / name).write_text(text)
    compiler = [
        COMPILER, "-mcpu=cortex-m4", "-mthumb", "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard", "-O2", "-std=gnu99", "-Wall",
        "-Wextra", "-Werror",
    ]  # fmt: skip
    subprocess.run([*compiler, "-c", "digits.c", "-o", "digits.o"], cwd=tmp_path, check=True)
    program = [*compiler, "--specs=rdimon.specs", "-T", "layout.ld", "start.c", "main.c", "digits.o"]
    subprocess.run([*program, "-o", "digits.elf", "-lm"], cwd=tmp_path, check=True)
    sections = subprocess.run([SIZE, "-A", "digits.o"], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    for section, kind in ((".bss", "RAM"), (".rodata", "FLASH")):
        (measured,) = re.findall(rf"^\{section} +(\d+)", sections, re.MULTILINE)
        (declared,) = re.findall(rf"DIGITS_{kind}_BYTES (\d+)", (tmp_path / "digits.h").read_text())
        assert measured == declared
    emulated = [EMULATOR, "-M", "mps2-an386", "-nographic", "-semihosting", "-kernel", "digits.elf"]
    done = subprocess.run(emulated, cwd=tmp_path, check=True, capture_output=True, text=True, timeout=120)
    found = np.array(done.stdout.split(), np.float32).reshape(len(images), 10)
    expected = DeployedModel(tmp_path / "model.onnx")(images.numpy())
    assert np.array_equal(found.argmax(1), expected.argmax(1))
    assert np.array_equal(found, expected) if plan is not None else np.allclose(found, expected, atol=1e-5)
