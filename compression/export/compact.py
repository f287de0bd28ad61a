"""Short names and shared constants in an ONNX file: names are a third of a small int8 file."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def compact(model: onnx.ModelProto) -> None:
    """Give all values and tensors short names, remove names of nodes, and store equal tensors once, in place.

    Inputs and outputs of the graph keep their names. A model with graphs inside of operators stays unchanged.
    """
    graph = model.graph
    if any(attribute.HasField("g") or attribute.graphs for node in graph.node for attribute in node.attribute):
        return
    ends = {value.name for value in (*graph.input, *graph.output)}
    names: dict[str, str] = {"": "", **{name: name for name in ends}}
    taken = set(ends)
    number = 0

    def short(name: str) -> str:
        nonlocal number
        while name not in names:
            candidate = _name(number)
            number += 1
            if candidate not in taken:
                names[name] = candidate
        return names[name]

    by_content: dict[bytes, str] = {}
    kept = []
    for tensor in graph.initializer:
        name = tensor.name
        tensor.name = ""
        content = tensor.SerializeToString(deterministic=True)
        if name not in ends and content in by_content:
            names[name] = by_content[content]
            continue
        tensor.name = by_content[content] = short(name)
        kept.append(tensor)
    for node in graph.node:
        node.name = ""
        node.input[:] = [short(name) for name in node.input]
        node.output[:] = [short(name) for name in node.output]
    del graph.initializer[:], graph.value_info[:]
    graph.initializer.extend(kept)


def _name(number: int) -> str:
    """``a`` to ``Z``, then ``aa`` and so on."""
    first, rest = divmod(number, len(_LETTERS))
    return (_name(first - 1) if first else "") + _LETTERS[rest]
