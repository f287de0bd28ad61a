"""Active choices of a sample of an NNI model, found without a check of each of its layers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from slimsearch.search_spaces._space import Point


class _Part(Protocol):
    """A part of a model."""

    def look(self, point: Point, active: set[str]) -> None:
        """Add the labels that are active in this part, given the choices of `point`, to `active`.

        Raises:
            KeyError: `point` has no value for one of them.
        """


class Activity:
    """The active choices of a sample, as found by NNI's `check_contains`.

    The model is traversed once and reduced to its labels and their dependence on each `LayerChoice` and on the depth of
    each `Repeat`. Modules with their own check, such as constraints, are asked.

    Args:
        template: an NNI model with open choices.
    """

    def __init__(self, template: Any) -> None:
        self._root = _part(template)

    def look(self, point: Point) -> tuple[bool, set[str]]:
        """Whether `point`, whose values are all allowed, is in the space; and the labels that decide that.

        For a point of the space, these labels are its active ones.
        """
        active: set[str] = set()
        try:
            self._root.look(point, active)
        except (KeyError, _Refused):
            return False, active
        return True, active


class _Refused(Exception):
    """A module's own check rejects the sample."""


@dataclass(frozen=True)
class _All:
    """Labels that are always active, and further parts."""

    labels: frozenset[str]
    parts: tuple[_Part, ...]

    def look(self, point: Point, active: set[str]) -> None:
        for label in self.labels:
            point[label]
        active |= self.labels
        for part in self.parts:
            part.look(point, active)


@dataclass(frozen=True)
class _Branches:
    """Parts of which the chosen one is active."""

    label: str
    parts: dict[Any, _Part]

    def look(self, point: Point, active: set[str]) -> None:
        value = point[self.label]
        active.add(self.label)
        self.parts[value].look(point, active)


@dataclass(frozen=True, eq=False)  # comparing two NNI expressions gives another expression
class _Prefix:
    """Parts of which the first ones are active, as many as `depth`."""

    depth: Any
    parts: tuple[_Part, ...]

    def look(self, point: Point, active: set[str]) -> None:
        depth = self.depth if isinstance(self.depth, int) else self.depth.evaluate(point)
        for part in self.parts[:depth]:
            part.look(point, active)


@dataclass(frozen=True, eq=False)
class _Asked:
    """A module or choice with its own check; the labels that it reads are active."""

    mutable: Any

    def look(self, point: Point, active: set[str]) -> None:
        looked_at = Recording(point)
        problem = self.mutable.check_contains(looked_at)
        active |= looked_at.labels
        if problem is not None:
            raise _Refused


class Recording(dict[str, Any]):
    """A sample that records which of its labels are read."""

    def __init__(self, point: Point) -> None:
        super().__init__(point)
        self.labels: set[str] = set()

    def __getitem__(self, label: str) -> Any:
        self.labels.add(label)
        return super().__getitem__(label)

    def get(self, label: str, default: Any = None) -> Any:
        self.labels.add(label)
        return super().get(label, default)

    def __contains__(self, label: object) -> bool:
        self.labels.add(str(label))
        return super().__contains__(label)


def _part(module: Any) -> _Part:
    """The part of a module, by its `check_contains`, which the author of a space can override."""
    from nni.nas.nn.pytorch import LayerChoice, Repeat
    from nni.nas.nn.pytorch.base import MutableModule

    how = type(module).check_contains if isinstance(module, MutableModule) else None
    if how is None or how is MutableModule.check_contains:
        own = getattr(module, "mutables", []) if how is not None else []
        return _together([*(_part_of_mutable(mutable) for mutable in own), *(_part(m) for m in _nearest(module))])
    if how is LayerChoice.check_contains:
        branches = {name: _part(module[name]) for name in module.names}
        if all(part == _NOTHING for part in branches.values()):
            return _All(frozenset({module.label}), ())
        return _Branches(module.label, branches)
    if how is Repeat.check_contains:
        depth = module.depth_choice
        if isinstance(depth, int):
            return _together([_part(block) for block in module.blocks[:depth]])
        own_part = _part_of_mutable(depth)
        if isinstance(own_part, _Asked):
            return _Asked(module)
        return _together([own_part, _Prefix(depth, tuple(_part(block) for block in module.blocks))])
    return _Asked(module)


def _nearest(module: Any) -> Iterator[Any]:
    """The topmost modules with choices below `module`."""
    from nni.nas.nn.pytorch.base import MutableModule

    for child in module.children():
        if isinstance(child, MutableModule):
            yield child
        else:
            yield from _nearest(child)


def _part_of_mutable(mutable: Any) -> _Part:
    from nni.mutable import Categorical, CategoricalMultiple, MutableExpression, MutableSymbol, Numerical

    known = {kind.check_contains for kind in (Categorical, CategoricalMultiple, Numerical)}
    if isinstance(mutable, MutableSymbol):
        return _All(frozenset({mutable.label}), ()) if type(mutable).check_contains in known else _Asked(mutable)
    if isinstance(mutable, MutableExpression) and type(mutable).check_contains is MutableExpression.check_contains:
        symbols = list(mutable.leaf_symbols())
        if all(isinstance(s, MutableSymbol) and type(s).check_contains in known for s in symbols):
            return _All(frozenset(symbol.label for symbol in symbols), ())
    return _Asked(mutable)


_NOTHING = _All(frozenset(), ())


def _together(parts: list[_Part]) -> _Part:
    labels: set[str] = set()
    others: list[_Part] = []
    for part in parts:
        if isinstance(part, _All):
            labels |= part.labels
            others += part.parts
        else:
            others.append(part)
    distinct: list[_Part] = []
    for part in others:
        if part not in distinct:
            distinct.append(part)
    return _All(frozenset(labels), tuple(distinct))
