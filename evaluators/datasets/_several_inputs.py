"""Data sets whose examples have several inputs, such as an image and a row of numbers: packed side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from slimsearch.errors import SlimsearchError, describe_error
from slimsearch.evaluators.datasets._conversion import Unsuitable, array_of, is_pil
from slimsearch.evaluators.datasets._fields import Field
from slimsearch.evaluators.datasets._image_files import pixels_of

Array = np.ndarray[Any, np.dtype[Any]]


def fields_of(value: Any) -> tuple[Field, ...]:
    """The inputs of the examples of a split; none where an example has one.

    Args:
        value: ``(inputs, targets)``, whose inputs are a dict of arrays (N, ...), or a sequence of pairs, whose inputs
            are dicts of arrays, or tuples of arrays, which are called ``input0``, ``input1`` and so on.

    Raises:
        SlimsearchError: an input is no array of numbers.
    """
    if _is_whole(value):
        return tuple(_field(name, one[:1]) for name, one in _arrays(value[0]).items())
    try:
        item = value[0]
    except (Exception, SystemExit):  # of a user's class, and said by what reads it
        return ()
    named = _named(item[0]) if isinstance(item, tuple | list) and len(item) >= 2 else None
    return () if named is None else tuple(_field(name, _values(name, one)[None]) for name, one in named.items())


def packed(value: Any, fields: Sequence[Field]) -> Any:
    """A split with one input (F,) float32 for each example, the values of `fields` side by side."""
    if not _is_whole(value):
        return _PackedItems(value, fields)
    arrays = _arrays(value[0])
    if set(arrays) != {field.name for field in fields} or len({len(one) for one in arrays.values()}) > 1:
        lengths = ", ".join(f"{name} {one.shape}" for name, one in arrays.items())
        raise SlimsearchError(f"the inputs of a split are not one for each example: {lengths}")
    return np.concatenate([_flat(arrays[field.name], field) for field in fields], axis=1), value[1]


def input_of(arrays: Mapping[str, Array], fields: Sequence[Field]) -> Array:
    """(N, F) float32: new examples, packed.

    Raises:
        SlimsearchError: an input is missing, or of another shape.
    """
    if missing := [field.name for field in fields if field.name not in arrays]:
        raise SlimsearchError(f"the input {missing[0]} is missing; needed: {', '.join(one.name for one in fields)}")
    inputs: Array = packed(({field.name: arrays[field.name] for field in fields}, None), fields)[0]
    return inputs


class _PackedItems:
    """Pairs whose input is packed."""

    def __init__(self, data: Any, fields: Sequence[Field]) -> None:
        self._data, self._fields = data, fields
        if hasattr(data, "classes"):
            self.classes = data.classes

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: int) -> tuple[Array, Any]:
        given, target, *_ = self._data[index]
        named = _named(given)
        if named is None or set(named) != {field.name for field in self._fields}:
            raise SlimsearchError(f"item {index} of the data set has other inputs than item 0")
        try:
            parts = [_flat(_values(field.name, named[field.name])[None], field)[0] for field in self._fields]
        except SlimsearchError as error:
            raise SlimsearchError(f"item {index} of the data set: {error}") from error
        return np.concatenate(parts), target


def _is_whole(value: Any) -> bool:
    return isinstance(value, tuple | list) and len(value) == 2 and isinstance(value[0], Mapping)


def _named(given: Any) -> dict[str, Any] | None:
    """The inputs of an item by their names; None: it has one."""
    if isinstance(given, Mapping):
        return {str(name): value for name, value in given.items()}
    arrays = isinstance(given, tuple) and len(given) > 1 and all(hasattr(one, "shape") or is_pil(one) for one in given)
    return {f"input{number}": value for number, value in enumerate(given)} if arrays else None


def _arrays(given: Mapping[Any, Any]) -> dict[str, Array]:
    return {str(name): _values(str(name), value) for name, value in given.items()}


def _values(name: str, value: Any) -> Array:
    try:
        found = pixels_of(value) if is_pil(value) else array_of(value)
    except Unsuitable as error:
        raise SlimsearchError(f"the input {name}: {error}") from error
    except (Exception, SystemExit) as error:  # of a user's class
        raise SlimsearchError(f"the input {name} is not an array: {describe_error(error)}") from error
    if found.dtype.kind not in "buif":
        raise SlimsearchError(f"the input {name} is {found.dtype}; needed: numbers")
    return found


def _field(name: str, values: Array) -> Field:
    """The field of some examples (N, ...)."""
    if not name.isidentifier():
        raise SlimsearchError(f"'{name}' is not a name of an input: letters, digits and _")
    is_bytes = values.dtype == np.uint8 and values.ndim > 2
    shape: tuple[int, ...] = values.shape[1:] or (1,)
    if is_bytes and len(shape) == 2:
        shape = (1, *shape)
    elif is_bytes and _channels_last(shape):
        shape = (shape[2], *shape[:2])
    return Field(name, tuple(map(int, shape)), is_bytes)


def _flat(values: Array, field: Field) -> Array:
    """(N, ...) -> (N, values of the field) float32; bytes in [0, 1].

    Raises:
        SlimsearchError: the values have another shape.
    """
    if _field(field.name, values) != field:
        raise SlimsearchError(
            f"the input {field.name} is {values.dtype} of the shape {values.shape[1:]}, and {field.shape} in the first "
            "example"
        )
    if field.is_bytes and values.ndim == 4 and _channels_last(values.shape[1:]):
        values = values.transpose(0, 3, 1, 2)
    found = values.reshape(len(values), -1).astype(np.float32)
    return found / np.float32(255) if field.is_bytes else found


def _channels_last(shape: Sequence[int]) -> bool:
    return len(shape) == 3 and shape[0] not in (1, 3) and shape[2] in (1, 3)
