"""C programs of ONNX files: one C file and its header, with static memory and constant weights."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimsearch.compression.export.c_source.float_operators import FLOAT_OPERATORS, ON_EITHER_TYPE
from slimsearch.compression.export.c_source.graph import LOOK_UP, read_graph
from slimsearch.compression.export.c_source.integer_operators import INTEGER_OPERATORS
from slimsearch.compression.export.c_source.lowering import Lowering
from slimsearch.compression.export.c_source.moving_operators import MOVING_OPERATORS
from slimsearch.compression.export.c_source.program import (
    Argument,
    Buffer,
    Constant,
    Kernel,
    MemoryPlan,
    Position,
    Program,
    number_type,
    plan_memory,
)
from slimsearch.errors import SlimsearchError
from slimsearch.files import write_text

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

_PACKAGE = "slimsearch.compression.export.c_source"
_PER_LINE = 12


def c_program(path: Path) -> Program:
    """The program of an ONNX file.

    Raises:
        SlimsearchError: the file cannot be read, or has an operator that has no C function.
    """
    graph = read_graph(path)
    lowering = Lowering(graph)
    for node in graph.nodes:
        lower = FLOAT_OPERATORS.get(node.kind)
        if lower is not None and node.kind not in ON_EITHER_TYPE:
            _need_floats(lowering, node.kind, node.inputs)
        lower = lower or INTEGER_OPERATORS.get(node.kind) or MOVING_OPERATORS.get(node.kind)
        if lower is None:
            raise SlimsearchError(f"a C file cannot have the operator {node.kind}; it has {', '.join(_names())}")
        try:
            lower(lowering, node)
        except SlimsearchError as error:
            raise SlimsearchError(f"{node.kind} '{node.outputs[0]}': {error}") from error
    first, last = lowering.value(graph.input), lowering.value(graph.output)
    if last.c_type != "float" or not lowering.steps:
        raise SlimsearchError("a C file computes floats")
    assert isinstance(first.base, Buffer)
    assert isinstance(last.base, Buffer)
    return Program(lowering.steps, first.base, last.base, first.shape[1:], last.shape[1:], graph.metadata)


def _need_floats(lowering: Lowering, kind: str, names: Sequence[str]) -> None:
    if names[0] not in lowering.integers and lowering.value(names[0]).c_type != "float":
        raise SlimsearchError(f"a C file has the operator {kind} on floats only")


def _names() -> list[str]:
    return sorted({*FLOAT_OPERATORS, *INTEGER_OPERATORS, *MOVING_OPERATORS} - {LOOK_UP})


def memory_kib(path: Path) -> dict[str, float]:
    """``ram_kib`` and ``flash_kib`` of the C file of an ONNX file: its activations, and its constants.

    Raises:
        SlimsearchError: as for `c_program`.
    """
    program = c_program(path)
    return {"ram_kib": plan_memory(program).bytes / 1024, "flash_kib": program.flash_bytes / 1024}


def write_c(path: Path, file: Path, name: str) -> None:
    """Write the C file and the header of an ONNX file, ``file`` and the same with the suffix ``.h``.

    Args:
        path: of the ONNX file.
        file: ends in ``.c``.
        name: prefix of the C names, an identifier.

    Raises:
        SlimsearchError: as for `c_program`.
    """
    program = c_program(path)
    plan = plan_memory(program)
    header = file.with_suffix(".h")
    write_text(header, _header(program, plan, name))
    write_text(file, _source(program, plan, name, header.name))


def _header(program: Program, plan: MemoryPlan, name: str) -> str:
    upper = name.upper()
    facts = [f"{key}: {_one_line(text)}" for key, text in program.metadata.items() if key != "quantization"]
    return "\n".join([
        "/* A network, written by Slimsearch from an ONNX file.",
        *(f"   {fact}" for fact in facts),
        f"   Input: {program.input.c_type} {_sizes(program.input_shape)}; "
        f"output: float {_sizes(program.output_shape)}. */",
        f"#ifndef {upper}_H",
        f"#define {upper}_H",
        *(["#include <stdint.h>"] if program.input.c_type == "uint8_t" else []),
        "",
        f"#define {upper}_INPUTS {program.input.count}",
        f"#define {upper}_OUTPUTS {program.output.count}",
        "/* Static memory: activations with input and output. */",
        f"#define {upper}_RAM_BYTES {plan.bytes}",
        "/* Constants: weights, scales, tables and sizes. */",
        f"#define {upper}_FLASH_BYTES {program.flash_bytes}",
        "",
        "#ifdef __cplusplus",
        'extern "C" {',
        "#endif",
        f"/* The input. Write all {program.input.count} numbers before each {name}_run, which overwrites them. */",
        f"{program.input.c_type} *{name}_input(void);",
        "/* Runs the network once. The output is valid until the input is written again. */",
        f"const float *{name}_run(void);",
        "#ifdef __cplusplus",
        "}",
        "#endif",
        "#endif",
        "",
    ])  # fmt: skip


def _one_line(text: str) -> str:
    return " ".join(text.replace("*/", "* /").replace("/*", "/ *").split())[:200]


def _sizes(shape: Iterable[int]) -> str:
    return " x ".join(map(str, shape)) or "1"


def _source(program: Program, plan: MemoryPlan, name: str, header: str) -> str:
    constants = {constant: f"{constant.label}{number}" for number, constant in enumerate(program.constants)}

    def argument(value: Argument) -> str:
        if isinstance(value, Position):
            return argument(value.base) + (f" + {value.offset}" if value.offset else "")
        if isinstance(value, Buffer):
            return f"{'FLOATS' if value.c_type == 'float' else 'BYTES'}({plan.offsets[value]})"
        if isinstance(value, Constant):
            single = value.c_type in ("window", "arrangement")
            return f"{'&' if single else ''}constants.{constants[value]}"
        return _float(value) if isinstance(value, float) else str(value)

    calls = [f"    {step.kernel.name}({', '.join(map(argument, step.arguments))});" for step in program.steps]
    used = [*calls, argument(program.input), argument(program.output)]
    texts = dict.fromkeys(text for step in program.steps for text in _texts(step.kernel))
    return "\n".join([
        "/* Written by Slimsearch; see the header. C99, with sqrtf and such from the library of mathematics. */",
        f'#include "{header}"',
        "#include <float.h>",
        "#include <math.h>",
        "#include <stdint.h>",
        "",
        *texts,
        f"static union {{ float first; uint8_t bytes[{plan.bytes}]; }} memory;",
        *(line for kind, line in _ACCESS.items() if any(kind in words for words in used)),
        "",
        "static const struct {",
        *(f"    {_declaration(constant, label)};" for constant, label in constants.items()),
        "} constants = {",
        *(f"    {_initializer(constant)}, /* {label} */" for constant, label in constants.items()),
        "};",
        f"typedef char {name}_constants_are_as_declared[sizeof(constants) == {program.flash_bytes} ? 1 : -1];",
        "",
        f"{program.input.c_type} *{name}_input(void)",
        "{",
        f"    return {argument(program.input)};",
        "}",
        "",
        f"const float *{name}_run(void)",
        "{",
        *calls,
        f"    return {argument(program.output)};",
        "}",
        "",
    ])  # fmt: skip


_ACCESS = {
    "FLOATS": "#define FLOATS(offset) ((float *)(void *)(memory.bytes + (offset)))",
    "BYTES": "#define BYTES(offset) (memory.bytes + (offset))",
}


def _texts(kernel: Kernel) -> list[str]:
    """The texts of what a kernel needs, and of the kernel."""
    return [*(_read(file) for file in kernel.needs), _replaced(_read(kernel.file), kernel.replacements)]


def _read(file: str) -> str:
    return (resources.files(_PACKAGE) / "kernels" / file).read_text()


def _replaced(text: str, replacements: Iterable[tuple[str, str]]) -> str:
    for word, replacement in replacements:
        text = text.replace(f"@{word}@", replacement)
    assert not re.search("@[A-Z_]+@", text)
    return text


def _declaration(constant: Constant, label: str) -> str:
    if constant.c_type == "window":
        return f"window {label}"
    if constant.c_type == "arrangement":
        return f"arrangement {label}"
    return f"{constant.c_type} {label}[{constant.count}]"


def _initializer(constant: Constant) -> str:
    import numpy as np

    array = constant.values().ravel()
    if array.size != constant.count:
        raise SlimsearchError(f"a constant has {array.size} numbers instead of {constant.count}")
    if constant.c_type == "arrangement":
        return "{" + ", ".join("{" + ", ".join(map(str, row)) + "}" for row in array.reshape(3, 4).tolist()) + "}"
    if number_type(constant.c_type) == "float":
        if not np.isfinite(array).all():
            raise SlimsearchError(f"a C file has finite {constant.label} only")
        texts = [_float(number) for number in array.tolist()]
    else:
        texts = [str(number) for number in array.tolist()]
    lines = [", ".join(texts[start : start + _PER_LINE]) for start in range(0, len(texts), _PER_LINE)]
    return "{" + ",\n        ".join(lines) + "}"


def _float(number: float) -> str:
    """A float32 in C, exactly."""
    if number in (float("inf"), float("-inf")):
        return "INFINITY" if number > 0 else "-INFINITY"
    return f"{number:.8e}f"
