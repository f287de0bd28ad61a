"""The operators that ONNX Runtime runs for a file, and what one of them costs alone.

An operator of a few microseconds is less than the overhead of a call. So it is measured in a model that has it once
and in one that has it several times, side by side on the same input, each with weights of its own; the difference is
the cost. The runtime is told to leave these models as they are, which are already optimised.
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

from slimsearch.compression import read_onnx
from slimsearch.errors import SlimsearchError, first_line
from slimsearch.evaluators.latency.operator_costs import Cost
from slimsearch.evaluators.latency.reference import Reference, Taken, pinned, preemptions

Array = np.ndarray[Any, np.dtype[Any]]

_MOST_COPIES = 16
# A model with copies takes about so long.
_SPAN_SECONDS = 150e-6
_BLOCK_SECONDS = 0.0006
_BLOCKS = 12
_WARM_UP_RUNS = 5


@dataclass(frozen=True, eq=False)
class Operator:
    """One operator of an optimised network.

    Attributes:
        key: equal for operators that cost the same: kind, attributes, types and shapes.
        node: as the runtime has it (an ``onnx.NodeProto``).
        constants: initializers that it reads (``onnx.TensorProto``), by name.
        inputs: what else it reads, by name, as it was in a call of the whole network.
        opsets: domain and version of the operators of its file.
        bytes: that it reads and writes.
    """

    key: str
    node: Any
    constants: dict[str, Any]
    inputs: dict[str, Array]
    opsets: tuple[tuple[str, int], ...]
    bytes: int


def operators_of(path: Path, batch: int, threads: int, folder: Path) -> list[Operator]:
    """The operators that are left of a file when the runtime has optimised it, in order; `folder` is for work.

    Raises:
        SlimsearchError: the file cannot be loaded.
    """
    import onnx
    import onnxruntime

    optimised = folder / "optimised.onnx"
    options = _options(threads)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.optimized_model_filepath = str(optimised)
    options.add_session_config_entry("session.load_model_format", "ONNX")
    try:
        session = onnxruntime.InferenceSession(read_onnx(path), options, providers=["CPUExecutionProvider"])
        model = onnx.load(str(optimised))
        images = {entry.name: _images(entry.shape, batch) for entry in session.get_inputs()}
        values = _values(model, images, threads)
    except Exception as error:  # onnxruntime has an exception for every reason
        raise SlimsearchError(f"ONNX Runtime cannot load '{path}': {first_line(error)}") from error
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    opsets = tuple((entry.domain, entry.version) for entry in model.opset_import)
    return [_operator(node, constants, values, opsets) for node in model.graph.node]


def measure(operators: Sequence[Operator], threads: int, patience: float) -> tuple[dict[str, Cost | None], bool]:
    """Cost of each by its key, None of one that does not run alone; and whether nothing disturbed the measurement.

    Call it while nothing else of one's own computes. Blocks beside which the reference was disturbed are thrown away
    and repeated, as in `measure_latency`, for up to `patience` seconds all in all.
    """
    found: dict[str, Cost | None] = {}
    calm = True
    with pinned(threads):
        reference = Reference(threads)
        until = time.monotonic() + patience
        for operator in operators:
            try:
                once = _call(operator, 1, threads)
                copies = int(np.clip(_SPAN_SECONDS / _seconds(once, _WARM_UP_RUNS), 2, _MOST_COPIES))
                several = _call(operator, copies, threads)
                _seconds(several, _WARM_UP_RUNS)
            except Exception:  # of any kind: it reads what is outside of it, or the runtime does not run it so
                found[operator.key] = None
                continue
            times = _blocks([once, several], reference, until)
            calm = calm and all(reference.calm(beside) for *_, beside in times)
            one, many = np.median([(first, second) for first, second, _ in times], axis=0) * 1000
            ms = max(0.0, float(many - one) / (copies - 1))
            found[operator.key] = Cost(ms, max(0.0, float(one) - ms))
        reference.keep()
    return found, calm


def _blocks(calls: Sequence[Callable[[], Any]], reference: Reference, until: float) -> list[tuple[float, float, Taken]]:
    """Seconds for a call of each, in turns, beside what the reference took: those that were disturbed least."""
    runs = [max(1, int(_BLOCK_SECONDS / _seconds(call, 2))) for call in calls]
    times: list[tuple[float, float, Taken]] = []
    before = reference.time()
    while True:
        switches = preemptions()
        first, second = (_seconds(call, count) for call, count in zip(calls, runs, strict=True))
        after = reference.time()
        times.append((first, second, reference.beside(before, after, switches)))
        before = after
        times.sort(key=lambda block: reference.disturbance(block[2]))
        enough = len(times) >= _BLOCKS
        if enough and (reference.calm(times[_BLOCKS - 1][2]) or time.monotonic() >= until):
            return times[:_BLOCKS]
        if not reference.calm(after) and reference.wait(until):
            before = reference.time()


def _seconds(call: Callable[[], Any], runs: int) -> float:
    start = time.perf_counter()
    for _ in range(runs):
        call()
    return (time.perf_counter() - start) / runs


def _call(operator: Operator, copies: int, threads: int) -> Callable[[], Any]:
    """A call of a model that has the operator so many times; the first one's result is the model's."""
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
    session = _unchanged(_model(graph, operator.opsets), threads)
    feeds = operator.inputs
    return lambda: session.run([output], feeds)


def _values(model: Any, images: dict[str, Array], threads: int) -> dict[str, Array]:
    """Everything that a call of an optimised network computes, by name."""
    import onnx

    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    have = {entry.name for entry in shown.graph.output}
    names = [name for node in shown.graph.node for name in node.output if name]
    shown.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in have)
    session = _unchanged(shown, threads)
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
    # Whether two inputs are one, which is one array to read.
    described.append([list(node.input).index(name) for name in node.input])
    outputs = [values[name] for name in node.output if name]
    described.append([[str(value.dtype), list(value.shape)] for value in outputs])
    attributes = sorted(node.attribute, key=lambda attribute: attribute.name)
    described.append([attribute.SerializeToString().hex() for attribute in attributes])
    moved = sum(value.nbytes for value in (*inputs.values(), *outputs))
    moved += sum(onnx.numpy_helper.to_array(tensor).nbytes for tensor in own.values())
    text = json.dumps([described, [list(opset) for opset in opsets if opset[0] == node.domain]])
    key = f"{node.op_type} {hashlib.sha256(text.encode()).hexdigest()[:16]}"
    return Operator(key, node, own, inputs, opsets, moved)


def _images(shape: Sequence[Any], batch: int) -> Array:
    whole = (batch, *(size if isinstance(size, int) else 1 for size in shape[1:]))
    return np.random.default_rng(0).standard_normal(whole, dtype=np.float32)


def _model(graph: Any, opsets: Sequence[tuple[str, int]]) -> Any:
    import onnx

    made = onnx.ModelProto(ir_version=8)
    made.graph.CopyFrom(graph)
    made.opset_import.extend(onnx.OperatorSetIdProto(domain=domain, version=version) for domain, version in opsets)
    return made


def _unchanged(model: Any, threads: int) -> Any:
    """A session that runs the model as it is."""
    import onnxruntime

    options = _options(threads)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _options(threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # it warns that an optimised file is for this machine only, which is meant
    options.add_session_config_entry("session.intra_op.allow_spinning", "0" if threads == 1 else "1")
    return options
