"""How often tests did what they are for; pytest says it at its end."""

from __future__ import annotations

from collections import Counter


class Counts:
    """Numbers by name: what stands behind a promise, such as how many kills were survived.

    A test adds to them after it has looked at what came of it, so that what failed counts for nothing.
    """

    def __init__(self) -> None:
        self._found: Counter[str] = Counter()

    def add(self, name: str, number: int = 1) -> None:
        """`number` more of `name`, which is in the plural: "inputs tried"."""
        self._found[name] += number

    def lines(self) -> list[str]:
        """A line for each name, in the order in which they came."""
        return [f"{number:>9,} {name}" for name, number in self._found.items()]
