"""The conditions of choices: which of them a function asks for at a point, learned from calls of the function."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from slimsearch.errors import SlimsearchError
from slimsearch.search_spaces._functions.trial import check_same
from slimsearch.search_spaces._space import Choice, Point

RULED_OUT = ""
"""Stands among the labels of a call for a point that the function rules out."""

# Random points at which the function is called, the seconds after which no more are, and how many are called twice.
_RANDOM, _SECONDS, _TWICE = 128, 30.0, 8
# Values of a choice that are tried one by one: the first, the last, and some between them.
_FLIPPED = 24
_REMEMBERED = 50_000  # calls


class Conditions:
    """Choices, and the other choices that decide whether each of them is active.

    Whether a label is active follows from the values of its parents; it is looked up by calling the function with these
    values and the first value of every other choice. Where another call contradicts this, the choice that made the
    difference becomes a parent. So points that were never called are judged in microseconds.

    Args:
        call: gives the choices that the function asks for at a point, in order, with `RULED_OUT` as a label if it rules
            the point out. Labels without a value in the point have the first one.
        choices: known beforehand, and always active.

    Attributes:
        choices: found until now, in the order in which they are asked for.
        examples: a point at which each choice is active.
        revision: number of changes.
    """

    def __init__(self, call: Callable[[Point], Mapping[str, Choice | None]], choices: Iterable[Choice] = ()) -> None:
        self._call = call
        self.choices: dict[str, Choice] = {}
        self.examples: dict[str, dict[str, Any]] = {}
        self.revision = 0
        self._own_parents: dict[str, set[str]] = {}
        self._parents: dict[str, tuple[str, ...]] = {}  # with their parents
        self._active: dict[str, dict[tuple[int, ...], bool]] = {}
        self._calls: dict[frozenset[tuple[str, int]], frozenset[str]] = {}
        self._new: deque[str] = deque()
        self._searching = False
        self._surprises: list[Point] = []  # points of look-ups at which there are unknown choices
        for choice in choices:
            self._add(choice.label, choice, {}, next(reversed(self.choices), None))
            self._active[choice.label][()] = True
        self._new.clear()

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_calls": {}}

    @classmethod
    def found(cls, name: str, call: Callable[[Point], Mapping[str, Choice | None]]) -> Conditions:
        """The choices that a function asks for: at the point of all first values, at every point that differs in one
        value from one at which a choice was found, and at random points.

        Raises:
            SlimsearchError: `name`, the function, asks for other choices when it is called again with the same answers,
                or for other values of the same choice.
        """
        conditions = cls(call)
        conditions._searching = True
        conditions.learn({})
        conditions._same_again(name, {})
        conditions._flip()
        rng, until = np.random.default_rng(0), time.monotonic() + _SECONDS
        for number in range(_RANDOM):
            if time.monotonic() > until or not conditions.choices:
                break
            point = {c.label: c.values[int(rng.integers(len(c.values)))] for c in conditions.choices.values()}
            conditions.learn(point)
            if number < _TWICE:
                conditions._same_again(name, point)
            conditions._flip()
        conditions._searching = False
        return conditions

    def active(self, point: Point) -> set[str]:
        """The labels that are active at `point`, and `RULED_OUT` if it is ruled out; `point` has known values only."""
        return {label for label in self._parents if self._is_active(label, point)}

    def parents(self, label: str) -> tuple[str, ...]:
        """The labels that decide whether `label` is active."""
        return self._parents[label]

    def learn(self, point: Point) -> frozenset[str]:
        """The labels that the function asks for at `point`, called there and remembered."""
        asked = self._asked(point)
        if not asked <= self._parents.keys():
            before = None
            for label, choice in self._call(point).items():
                if label not in self._parents:
                    self._add(label, choice, point, before)
                before = label
            asked = self._asked(point)
        while (wrong := self._contradicted(point, asked)) is not None:
            self._own_parents[wrong].add(self._deciding(wrong, point, wrong in asked))
            self._changed()
        return asked

    def _contradicted(self, point: Point, asked: frozenset[str]) -> str | None:
        """A label that is not looked up as it was `asked` for at `point`."""
        return next((label for label in self._parents if self._is_active(label, point) != (label in asked)), None)

    def _flip(self) -> None:
        """Call the function with each value of every new choice, where that was found."""
        while self._new or self._surprises:
            if self._surprises:
                self.learn(self._surprises.pop())
                continue
            label = self._new.popleft()
            values = self.choices[label].values
            for position in sorted({round(i) for i in np.linspace(0, len(values) - 1, min(len(values), _FLIPPED))}):
                self.learn({**self.examples[label], label: values[position]})

    def _same_again(self, name: str, point: Point) -> None:
        before, again = self._asked(point), frozenset(self._call(point))
        if before != again:
            different = min(before ^ again) or "a point that it rules out"
            raise SlimsearchError(
                f"{name} asks for different choices when it is called again with the same answers ('{different}'): it "
                "may not choose by random numbers"
            )

    def _asked(self, point: Point) -> frozenset[str]:
        """The labels that the function asks for at `point`, unknown ones included."""
        key = frozenset(
            (label, index)
            for label, value in point.items()
            if label in self.choices and (index := self.choices[label].index(value)) > 0
        )
        complete = all(label in self.choices for label in point)
        if complete and key in self._calls:
            return self._calls[key]
        found = self._call(point)
        for label, choice in found.items():
            if choice is not None and label in self.choices:
                check_same(self.choices[label], choice)
        if complete:
            if len(self._calls) >= _REMEMBERED:
                self._calls.clear()
            self._calls[key] = frozenset(found)
            if self._searching and not found.keys() <= self._parents.keys():
                self._surprises.append(dict(point))
        return frozenset(found)

    def _add(self, label: str, choice: Choice | None, point: Point, before: str | None) -> None:
        """Add a choice behind the one that was asked for `before`, or at the beginning."""
        self._own_parents[label] = set()
        if choice is not None:
            listed = list(self.choices.values())
            position = 0 if before is None else listed.index(self.choices[before]) + 1
            listed.insert(position, choice)
            self.choices = {one.label: one for one in listed}
            self.examples[label] = dict(point)
            self._new.append(label)
        self._changed()

    def _changed(self) -> None:
        """Forget what follows from the parents, where these have changed."""
        self.revision += 1
        for label in self._own_parents:
            found: dict[str, None] = {}
            waiting = sorted(self._own_parents[label])
            while waiting:
                parent = waiting.pop(0)
                if parent not in found:
                    found[parent] = None
                    waiting += sorted(self._own_parents[parent])
            parents = tuple(found)
            if self._parents.get(label) != parents:
                self._parents[label], self._active[label] = parents, {}

    def _is_active(self, label: str, point: Point) -> bool:
        parents, table = self._parents[label], self._active[label]
        key = tuple(self.choices[p].index(point[p]) if p in point else 0 for p in parents)
        found = table.get(key)
        if found is None:
            values = {p: self.choices[p].values[index] for p, index in zip(parents, key, strict=True)}
            found = table[key] = label in self._asked(values)
        return found

    def _deciding(self, label: str, point: Point, active: bool) -> str:
        """A choice that is no parent of `label`, and whose value in `point` changes whether `label` is active."""
        parents = self._parents[label]
        start = {p: point[p] for p in parents if p in point}
        # Choices that differ between this call and that which the parents have been looked up with.
        others = [n for n, c in self.choices.items() if n in point and n not in parents and c.index(point[n]) > 0]
        if not others:
            raise SlimsearchError(
                f"'{label}' is asked for only sometimes, with the same answers: no choice may depend on random numbers"
            )
        low, high = 0, len(others)  # with the first `low` of them, `label` is not as in `point`; with `high` it is
        while high - low > 1:
            middle = (low + high) // 2
            there = label in self._asked({**start, **{n: point[n] for n in others[:middle]}})
            low, high = (low, middle) if there == active else (middle, high)
        return others[high - 1]
