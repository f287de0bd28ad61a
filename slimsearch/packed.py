"""Several inputs or outputs of a network as one array: their values side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from slimsearch.errors import SlimsearchError

Shape = tuple[int, ...]
Named = tuple[tuple[str, Shape], ...]
"""Names and shapes of several inputs or outputs of one example, in order."""


def named(shapes: Any) -> Named:
    """The names and shapes of several inputs or outputs, given as a mapping; none for the shape of one."""
    return tuple((str(name), tuple(shape)) for name, shape in shapes.items()) if isinstance(shapes, Mapping) else ()


def size_of(parts: Named) -> int:
    """Number of values of all parts of an example."""
    return sum(math.prod(shape) for _, shape in parts)


def unpacked(values: Any, parts: Named) -> dict[str, Any]:
    """The parts (N, ...) of packed values (N, F), an array or a tensor.

    Raises:
        SlimsearchError: there are other numbers of values.
    """
    if values.shape[1:] != (size_of(parts),):
        expected = " + ".join(f"{name} {shape}" for name, shape in parts)
        raise SlimsearchError(f"values of the shape {tuple(values.shape)} are not (N, {size_of(parts)}): {expected}")
    found, start = {}, 0
    for name, shape in parts:
        end = start + math.prod(shape)
        found[name] = values[:, start:end].reshape(-1, *shape)
        start = end
    return found


def feeder(inputs: Sequence[tuple[str, Sequence[Any]]]) -> Callable[[Any], dict[str, Any]]:
    """A function from packed values (N, ...), an array, to what a runtime gets.

    Args:
        inputs: name and shape of each input of a file, with the batch in front.

    Raises:
        SlimsearchError: several inputs have dimensions that are not known.
    """
    if len(inputs) == 1:
        name = inputs[0][0]
        return lambda values: {name: values}
    slices, start = [], 0
    for name, (_, *shape) in inputs:
        if not all(isinstance(size, int) and size > 0 for size in shape):
            raise SlimsearchError(f"the file has several inputs, and '{name}' has dimensions that are not known")
        slices.append((name, start, start + math.prod(shape), (-1, *shape)))
        start = slices[-1][2]

    def feed(values: Any) -> dict[str, Any]:
        if values.shape[1:] != (start,):
            names = ", ".join(name for name, *_ in slices)
            raise SlimsearchError(f"the file takes {names}, {start} values in all, not {values.shape[1:]}")
        return {name: values[:, first:last].reshape(shape) for name, first, last, shape in slices}

    return feed


def joined(outputs: Sequence[Any]) -> Any:
    """The packed outputs (N, F) of a file's outputs, arrays; one is as it is."""
    import numpy as np

    if len(outputs) == 1:
        return outputs[0]
    return np.concatenate([output.reshape(len(output), -1) for output in outputs], axis=1)
