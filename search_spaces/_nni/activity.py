"""Which choices of an NNI model are active in a sample, found without asking each of its thousands of layers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from slimsearch.search_spaces._space import Point


class _Part(Protocol):
    """Some of a model."""

    def look(self, point: Point, seen: set[str]) -> None:
        """Add to `seen` the labels that matter here, where the choices are those of `point`.

        Raises:
            KeyError: `point` has no value for one of them.
        """


class Activity:
    """The active choices of a sample, as NNI's own `check_contains` would find them.

    The model is walked once: what is left of it are its labels, and which of them depend on a `LayerChoice` or on the
    depth of a `Repeat`. All that NNI or somebody else checks in some other way, such as a constraint, is asked.

    Args:
        template: an NNI model whose choices are open.
    """

    def __init__(self, template: Any) -> None:
        self._root = _part(template)

    def look(self, point: Point) -> tuple[bool, set[str]]:
        """Whether `point`, whose values are allowed ones, is in the space, and the labels that decide about that.

        In a point of the space they are its active ones.
        """
        seen: set[str] = set()
        try:
            self._root.look(point, seen)
        except (KeyError, _Refused):
            return False, seen
        return True, seen


class _Refused(Exception):
    """Something that was asked says that the sample is not in the space."""


@dataclass(frozen=True)
class _All:
    """Labels that always matter, and further parts."""

    labels: frozenset[str]
    parts: tuple[_Part, ...]

    def look(self, point: Point, seen: set[str]) -> None:
        for label in self.labels:
            point[label]
        seen |= self.labels
        for part in self.parts:
            part.look(point, seen)


@dataclass(frozen=True)
class _Branches:
    """Of some parts the one that is chosen."""

    label: str
    parts: dict[Any, _Part]

    def look(self, point: Point, seen: set[str]) -> None:
        value = point[self.label]
        seen.add(self.label)
        self.parts[value].look(point, seen)


@dataclass(frozen=True, eq=False)  # NNI makes an expression of what two of its expressions are compared with
class _Prefix:
    """Of some parts the first ones."""

    depth: Any
    parts: tuple[_Part, ...]

    def look(self, point: Point, seen: set[str]) -> None:
        depth = self.depth if isinstance(self.depth, int) else self.depth.evaluate(point)
        for part in self.parts[:depth]:
            part.look(point, seen)


@dataclass(frozen=True, eq=False)
class _Asked:
    """What says itself whether a sample is in it, and looks at what matters to it."""

    mutable: Any

    def look(self, point: Point, seen: set[str]) -> None:
        looked_at = Recording(point)
        problem = self.mutable.check_contains(looked_at)
        seen |= looked_at.labels
        if problem is not None:
            raise _Refused


class Recording(dict[str, Any]):
    """A sample that remembers which of its labels were looked at."""

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
    """Of a module: `check_contains` is looked up, since whoever writes a space may have written another one."""
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
    """The modules below that have choices, not those below them."""
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
