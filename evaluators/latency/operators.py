"""Operators of an optimized ONNX file, and measurement of the cost of each.

An operator takes a few microseconds, less than the overhead of a call. It is measured in two models: one contains it
once, the other several times in parallel on the same input, each copy with its own weights; the difference is its cost.
The runtime runs these models without optimization, since their operators are already optimized.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from slimsearch.compression import read_onnx, session_options
from slimsearch.errors import SlimsearchError, first_line
from slimsearch.evaluators.latency.reference import CallTimes, Reference, pinned, preemptions

Array = np.ndarray[Any, np.dtype[Any]]

KINDS = ("convolution", "pointwise convolution", "depthwise convolution", "matrix product", "other")
"""Kinds of operators, whose costs differ between devices by different factors."""

_MOST_COPIES = 16
_COPIES_SECONDS = 150e-6  # duration of a call of the model with copies
_BLOCK_SECONDS = 0.0006
_BLOCKS = 12
_WARM_UP_RUNS = 5


@dataclass(frozen=True)
class Cost:
    """Milliseconds of an operator, and of a call of a model without operators."""

    ms: float
    overhead_ms: float


@dataclass(frozen=True, eq=False)
class Operator:
    """One operator of an optimized network.

    Attributes:
        key: a hash of kind, attributes, types and shapes: equal keys have equal costs.
        node: an ``onnx.NodeProto``.
        constants: initializers that it reads (``onnx.TensorProto``), by name.
        inputs: its other inputs, by name, with the values of a call of the whole network.
        opsets: domains and versions of the operator sets of the file.
        bytes: read and written.
        kind: one of `KINDS`.
    """

    key: str
    node: Any
    constants: dict[str, Any]
    inputs: dict[str, Array]
    opsets: tuple[tuple[str, int], ...]
    bytes: int
    kind: str


def operators_of(path: Path, batch: int, threads: int, folder: Path) -> list[Operator]:
    """Operators of the file at `path` after the runtime's optimization, in order.

    Args:
        path: of the ONNX file.
        batch: images per call.
        threads: of the runtime.
        folder: for temporary files.

    Raises:
        SlimsearchError: the file cannot be loaded.
    """
    import onnx
    import onnxruntime

    optimized = folder / "optimized.onnx"
    options = session_options(threads)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.optimized_model_filepath = str(optimized)
    try:
        session = onnxruntime.InferenceSession(read_onnx(path), options, providers=["CPUExecutionProvider"])
        model = onnx.load(str(optimized))
        images = {entry.name: _images(entry.shape, batch) for entry in session.get_inputs()}
        values = _values(model, images, threads)
    except Exception as error:  # onnxruntime raises many kinds
        raise SlimsearchError(f"ONNX Runtime cannot load '{path}': {first_line(error)}") from error
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    opsets = tuple((entry.domain, entry.version) for entry in model.opset_import)
    return [_operator(node, constants, values, opsets) for node in model.graph.node]


def work_of(path: Path) -> dict[str, float]:
    """What a call of a file with one example computes before the runtime optimizes it.

    Multiply-accumulates of convolutions and matrix products by their kinds, output values of other operators by their
    names, and the number of all operators.

    Raises:
        SlimsearchError: the file cannot be read.
    """
    import onnx

    model = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(read_onnx(path)))
    graph = model.graph
    shapes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.value_info, *graph.input, *graph.output):
        shapes[value.name] = [size.dim_value or 1 for size in value.type.tensor_type.shape.dim]
    found: dict[str, float] = {"operators": float(len(graph.node))}
    for node in graph.node:
        values = float(np.prod(shapes.get(node.output[0], [0])))
        weights = shapes.get(node.input[1], []) if len(node.input) > 1 else []
        kind = _kind(node, {node.input[1]: weights}) if weights else "other"
        if kind == "matrix product":
            values = float(np.prod(weights))
        elif kind != "other":
            values *= float(np.prod(weights[1:]))
        name = node.op_type if kind == "other" else kind
        found[name] = found.get(name, 0.0) + values
    return found


def measure(operators: Sequence[Operator], threads: int, patience: float) -> tuple[dict[str, Cost | None], bool]:
    """Measure the cost of each operator; call it within `Meter.exclusive`.

    Disturbed blocks are discarded and repeated, as in `measure_latency`.

    Args:
        operators: to measure.
        threads: of the runtime.
        patience: total seconds to wait for a calm machine.

    Returns:
        cost by key, None for an operator that cannot run alone; and whether the measurement was undisturbed.
    """
    costs: dict[str, Cost | None] = {}
    calm = True
    with pinned(threads):
        reference = Reference(threads)
        until = time.monotonic() + patience
        for operator in operators:
            started = time.monotonic()
            calls = _once_and_several(operator, threads)
            until += time.monotonic() - started  # patience is spent on disturbances only
            if calls is None:
                costs[operator.key] = None
                continue
            once, several, copies = calls
            times, until = _blocks([once, several], reference, until)
            calm = calm and all(reference.calm(nearby) for *_, nearby in times)
            one, many = np.median([(first, second) for first, second, _ in times], axis=0) * 1000
            ms = max(0.0, float(many - one) / (copies - 1))
            costs[operator.key] = Cost(ms, max(0.0, float(one) - ms))
        reference.store()
    return costs, calm


def _once_and_several(operator: Operator, threads: int) -> tuple[Callable[[], Any], Callable[[], Any], int] | None:
    """Warm functions that run the operator once and several times, and how many; None if it cannot run alone."""
    try:
        once = _call(operator, 1, threads)
        copies = int(np.clip(_COPIES_SECONDS / _seconds(once, _WARM_UP_RUNS), 2, _MOST_COPIES))
        several = _call(operator, copies, threads)
        _seconds(several, _WARM_UP_RUNS)
    except Exception:  # it reads values of an enclosing graph, or the runtime cannot run it alone
        return None
    return once, several, copies


def _blocks(
    calls: Sequence[Callable[[], Any]], reference: Reference, until: float
) -> tuple[list[tuple[float, float, CallTimes]], float]:
    """Alternating blocks of both calls: seconds per call of each and of the reference; the least disturbed ones.

    Also returns `until` plus the undisturbed time.
    """
    # The fastest of some calls, since one that was interrupted would make all blocks short.
    runs = [max(1, int(_BLOCK_SECONDS / min(_seconds(call, 1) for _ in range(3)))) for call in calls]
    times: list[tuple[float, float, CallTimes]] = []
    before = reference.time()
    while True:
        started, switches = time.monotonic(), preemptions()
        first, second = (_seconds(call, count) for call, count in zip(calls, runs, strict=True))
        after = reference.time()
        nearby = reference.around(before, after, switches)
        times.append((first, second, nearby))
        before = after
        if reference.calm(nearby):
            until += time.monotonic() - started
        times.sort(key=lambda block: reference.disturbance(block[2]))
        enough = len(times) >= _BLOCKS
        if enough and (reference.calm(times[_BLOCKS - 1][2]) or time.monotonic() >= until):
            return times[:_BLOCKS], until
        if not reference.calm(after) and reference.wait(until):
            before = reference.time()


def _seconds(call: Callable[[], Any], runs: int) -> float:
    start = time.perf_counter()
    for _ in range(runs):
        call()
    return (time.perf_counter() - start) / runs


def _call(operator: Operator, copies: int, threads: int) -> Callable[[], Any]:
    """A function that runs a model with `copies` of the operator; the first copy gives the model's output."""
    import onnx

    nodes, constants = [], []
    for copy in range(copies):
        node = onnx.NodeProto()
        node.CopyFrom(operator.node)
        node.name = f"copy{copy}"
        names = {name: f"{name}:{copy}" for name in operator.constants}
        for name, tensor in operator.constants.items():
            own = onnx.TensorProto()
            own.CopyFrom(tensor)
            own.name = names[name]
            constants.append(own)
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [f"{name}:{copy}" if name else "" for name in node.output]
        nodes.append(node)
    inputs = [
        onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for name, value in operator.inputs.items()
    ]
    output = next(name for name in nodes[0].output if name)
    graph = onnx.helper.make_graph(nodes, "operator", inputs, [onnx.ValueInfoProto(name=output)], constants)
    session = _unoptimized_session(_model(graph, operator.opsets), threads)
    feeds = operator.inputs
    return lambda: session.run([output], feeds)


def _values(model: Any, images: dict[str, Array], threads: int) -> dict[str, Array]:
    """All tensors that a call of an optimized network computes, by name."""
    import onnx

    all_outputs = onnx.ModelProto()
    all_outputs.CopyFrom(model)
    outputs = {entry.name for entry in all_outputs.graph.output}
    names = [name for node in all_outputs.graph.node for name in node.output if name]
    all_outputs.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in outputs)
    session = _unoptimized_session(all_outputs, threads)
    return {**images, **dict(zip(names, session.run(names, images), strict=True))}


def _operator(node: Any, constants: dict[str, Any], values: dict[str, Array], opsets: Any) -> Operator:
    import onnx

    own = {name: constants[name] for name in node.input if name in constants}
    inputs = {name: values[name] for name in node.input if name in values}
    described: list[Any] = [node.domain, node.op_type]
    for name in node.input:
        if name in own:
            described.append(["constant", own[name].data_type, list(own[name].dims)])
        elif name in inputs:
            described.append([str(inputs[name].dtype), list(inputs[name].shape), name == node.input[0]])
        else:
            described.append(None)
    # Two inputs that are the same tensor are read once.
    described.append([list(node.input).index(name) for name in node.input])
    outputs = [values[name] for name in node.output if name]
    described.append([[str(value.dtype), list(value.shape)] for value in outputs])
    attributes = sorted(node.attribute, key=lambda attribute: attribute.name)
    described.append([attribute.SerializeToString().hex() for attribute in attributes])
    moved = sum(value.nbytes for value in (*inputs.values(), *outputs))
    moved += sum(onnx.numpy_helper.to_array(tensor).nbytes for tensor in own.values())
    text = json.dumps([described, [list(opset) for opset in opsets if opset[0] == node.domain]])
    key = f"{node.op_type} {hashlib.sha256(text.encode()).hexdigest()[:16]}"
    return Operator(key, node, own, inputs, opsets, moved, _kind(node, {n: list(t.dims) for n, t in own.items()}))


def _kind(node: Any, constants: dict[str, list[int]]) -> str:
    """One of `KINDS`, by the shapes of the node's constants."""
    if "Conv" not in node.op_type:
        return "matrix product" if "Gemm" in node.op_type or "MatMul" in node.op_type else "other"
    groups = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
    weights = next((shape for shape in constants.values() if len(shape) > 2), [])
    if groups > 1:
        return "depthwise convolution"
    return "pointwise convolution" if weights and set(weights[2:]) == {1} else "convolution"


def _images(shape: Sequence[Any], batch: int) -> Array:
    sizes = (batch, *(size if isinstance(size, int) else 1 for size in shape[1:]))
    return np.random.default_rng(0).standard_normal(sizes, dtype=np.float32)


def _model(graph: Any, opsets: Sequence[tuple[str, int]]) -> Any:
    import onnx

    model = onnx.ModelProto(ir_version=8)
    model.graph.CopyFrom(graph)
    model.opset_import.extend(onnx.OperatorSetIdProto(domain=domain, version=version) for domain, version in opsets)
    return model


def _unoptimized_session(model: Any, threads: int) -> Any:
    """A session that runs the model without optimizing it."""
    import onnxruntime

    options = session_options(threads)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
