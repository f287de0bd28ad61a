"""The space around a trained network: fewer channels and fewer blocks of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from slimsearch.errors import SlimsearchError
from slimsearch.search_spaces._fixed_model import FixedModel
from slimsearch.search_spaces._space import Candidate, Choice, Point


class Width(Protocol):
    """A choice of how many channels remain.

    Attributes:
        label: of the choice.
        blocks: of each group of channels, the block that it is inside of, or None.
        widths: by share of the channels, the width of each group.
    """

    @property
    def label(self) -> str: ...
    @property
    def blocks(self) -> Sequence[str | None]: ...
    @property
    def widths(self) -> Mapping[float, Sequence[int]]: ...


class Depth(Protocol):
    """A choice of how many blocks are skipped.

    Attributes:
        label: of the choice.
        skipped: by number of blocks, their names.
    """

    @property
    def label(self) -> str: ...
    @property
    def skipped(self) -> Mapping[int, Sequence[str]]: ...


class ElasticSpace(FixedModel):
    """The networks that a trained network becomes without some of its channels and blocks.

    The architecture of a candidate has the choices in which it differs from the given network, which has none. Widths
    that are all inside of skipped blocks are inactive. `build` gives the given network: whoever trains or loads a
    candidate cuts it.

    Args:
        model: the given network.
        depths, widths: the choices; the first value of each leaves the network whole.
    """

    def __init__(self, model: FixedModel, depths: Iterable[Depth], widths: Iterable[Width]) -> None:
        super().__init__(model.make, model.input_shape, model.num_classes, model.weights)
        self._skipped = {one.label: {number: tuple(names) for number, names in one.skipped.items()} for one in depths}
        self._widths = {
            one.label: (tuple(one.blocks), {share: tuple(sizes) for share, sizes in one.widths.items()})
            for one in widths
        }
        values: dict[str, tuple[Any, ...]] = {label: tuple(skipped) for label, skipped in self._skipped.items()}
        values |= {label: tuple(sizes) for label, (_, sizes) in self._widths.items()}
        self._by_label = {label: Choice(label, own) for label, own in values.items()}

    @property
    def choices(self) -> tuple[Choice, ...]:
        return tuple(self._by_label.values())

    def canonical(self, point: Point) -> dict[str, Any]:
        unknown = [label for label in point if label not in self._by_label]
        if unknown:
            raise SlimsearchError(f"unknown label '{unknown[0]}'; the space has {', '.join(self._by_label)}")
        found: dict[str, Any] = {}
        skipped: set[str | None] = set()
        for label, choice in self._by_label.items():
            sizes = self._sizes(label, skipped) if label in self._widths else {}
            if label in self._widths and not any(sizes.values()):
                continue
            if label not in point:
                raise SlimsearchError(f"label '{label}' is missing")
            value = choice.values[choice.index(point[label])]
            if label in self._skipped:
                skipped.update(self._skipped[label][value])
            else:  # other values may give the same widths of the remaining blocks
                value = next(other for other in choice.values if sizes[other] == sizes[value])
            found[label] = value
        return found

    def _sizes(self, label: str, skipped: set[str | None]) -> dict[float, tuple[int, ...]]:
        """By value, the widths of the groups outside of skipped blocks."""
        blocks, widths = self._widths[label]
        return {
            share: tuple(size for size, block in zip(sizes, blocks, strict=True) if block not in skipped)
            for share, sizes in widths.items()
        }

    def sample(self, rng: np.random.Generator) -> dict[str, Any]:
        """A random point: each choice leaves the network whole with a probability that is random itself.

        Points that are uniform over all combinations would nearly all be very small networks.
        """
        whole = rng.random()
        return self.canonical(
            {
                label: choice.values[0 if rng.random() < whole else int(rng.integers(1, len(choice.values)))]
                for label, choice in self._by_label.items()
            }
        )

    def candidate(self, point: Point) -> Candidate:
        chosen = self.canonical(point)
        whole = {label: choice.values[0] for label, choice in self._by_label.items()}
        return Candidate({label: value for label, value in chosen.items() if value != whole[label]})

    def point(self, candidate: Candidate) -> dict[str, Any]:
        return self.canonical(self.complete(candidate.architecture))

    def reference(self) -> Point | None:
        return self.point(Candidate({}))
