"""Active choices of a sample of an NNI model, found without checking every layer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from slimsearch.search_spaces._space import Point


class _Node(Protocol):
    """A node of the tree of dependencies between choices."""

    def look(self, point: Point, active: set[str]) -> None:
        """Add the labels below this node that are active in `point` to `active`.

        Raises:
            KeyError: `point` has no value for one of them.
        """


class Activity:
    """The active choices of a sample, equal to those that NNI's `check_contains` reads.

    The model is traversed once and reduced to its labels and their dependence on each `LayerChoice` and on the depth of
    each `Repeat`. Modules with their own check, such as constraints, are called.

    Args:
        template: an NNI model with open choices.
    """

    def __init__(self, template: Any) -> None:
        self._root = _node(template)

    def look(self, point: Point) -> tuple[bool, set[str]]:
        """Whether `point`, whose values are all allowed, is in the space; and the labels that this depends on.

        For a point of the space, these are its active labels.
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
class _Always:
    """Labels that are always active, and further nodes."""

    labels: frozenset[str]
    children: tuple[_Node, ...]

    def look(self, point: Point, active: set[str]) -> None:
        for label in self.labels:
            point[label]
        active |= self.labels
        for child in self.children:
            child.look(point, active)


@dataclass(frozen=True)
class _Branches:
    """Nodes of which the chosen one is active."""

    label: str
    children: dict[Any, _Node]

    def look(self, point: Point, active: set[str]) -> None:
        value = point[self.label]
        active.add(self.label)
        self.children[value].look(point, active)


@dataclass(frozen=True, eq=False)  # comparing two NNI expressions gives another expression
class _Prefix:
    """Nodes of which the first `depth` are active."""

    depth: Any
    children: tuple[_Node, ...]

    def look(self, point: Point, active: set[str]) -> None:
        depth = self.depth if isinstance(self.depth, int) else self.depth.evaluate(point)
        for child in self.children[:depth]:
            child.look(point, active)


@dataclass(frozen=True, eq=False)
class _OwnCheck:
    """A module or choice with its own check, which reads the active labels."""

    mutable: Any

    def look(self, point: Point, active: set[str]) -> None:
        recording = Recording(point)
        problem = self.mutable.check_contains(recording)
        active |= recording.labels
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


def _node(module: Any) -> _Node:
    """The node of a module, according to its `check_contains`, which a space can override."""
    from nni.nas.nn.pytorch import LayerChoice, Repeat
    from nni.nas.nn.pytorch.base import MutableModule

    how = type(module).check_contains if isinstance(module, MutableModule) else None
    if how is None or how is MutableModule.check_contains:
        own = getattr(module, "mutables", []) if how is not None else []
        return _merged([*(_node_of_mutable(mutable) for mutable in own), *(_node(m) for m in _nearest(module))])
    if how is LayerChoice.check_contains:
        branches = {name: _node(module[name]) for name in module.names}
        if all(child == _NOTHING for child in branches.values()):
            return _Always(frozenset({module.label}), ())
        return _Branches(module.label, branches)
    if how is Repeat.check_contains:
        depth = module.depth_choice
        if isinstance(depth, int):
            return _merged([_node(block) for block in module.blocks[:depth]])
        depth_node = _node_of_mutable(depth)
        if isinstance(depth_node, _OwnCheck):
            return _OwnCheck(module)
        return _merged([depth_node, _Prefix(depth, tuple(_node(block) for block in module.blocks))])
    return _OwnCheck(module)


def _nearest(module: Any) -> Iterator[Any]:
    """The topmost modules with choices below `module`."""
    from nni.nas.nn.pytorch.base import MutableModule

    for child in module.children():
        if isinstance(child, MutableModule):
            yield child
        else:
            yield from _nearest(child)


def _node_of_mutable(mutable: Any) -> _Node:
    from nni.mutable import Categorical, CategoricalMultiple, MutableExpression, MutableSymbol, Numerical

    known = {kind.check_contains for kind in (Categorical, CategoricalMultiple, Numerical)}
    if isinstance(mutable, MutableSymbol):
        return _Always(frozenset({mutable.label}), ()) if type(mutable).check_contains in known else _OwnCheck(mutable)
    if isinstance(mutable, MutableExpression) and type(mutable).check_contains is MutableExpression.check_contains:
        symbols = list(mutable.leaf_symbols())
        if all(isinstance(s, MutableSymbol) and type(s).check_contains in known for s in symbols):
            return _Always(frozenset(symbol.label for symbol in symbols), ())
    return _OwnCheck(mutable)


_NOTHING = _Always(frozenset(), ())


def _merged(children: list[_Node]) -> _Node:
    labels: set[str] = set()
    others: list[_Node] = []
    for child in children:
        if isinstance(child, _Always):
            labels |= child.labels
            others += child.children
        else:
            others.append(child)
    distinct: list[_Node] = []
    for child in others:
        if child not in distinct:
            distinct.append(child)
    return _Always(frozenset(labels), tuple(distinct))
