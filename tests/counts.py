"""Counts of what tests survived or tried, shown in pytest's summary."""

from __future__ import annotations

from collections import Counter


class Counts:
    """Numbers by name, such as the number of kills that runs survived.

    A test adds to a number after its assertions: failures do not count.
    """

    def __init__(self) -> None:
        self._found: Counter[str] = Counter()

    def add(self, name: str, number: int = 1) -> None:
        """Add `number` to the count of `name`, a plural such as "inputs tried"."""
        self._found[name] += number

    def lines(self) -> list[str]:
        """One line for each name, in the order of the first `add`."""
        return [f"{number:>9,} {name}" for name, number in self._found.items()]
