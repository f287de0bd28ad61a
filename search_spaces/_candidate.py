"""What is tried: an architecture and the recipe by which it is compressed, both plain dicts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Candidate:
    """A canonical point of the space.

    Attributes:
        architecture: label to value, inactive labels left out, e.g. ``{"conv2": 0, "feature": 64}``.
        recipe: compression stages in the order in which they are applied, each with its options, e.g.
            ``{"prune": {"sparsity": 0.5}, "quantize": {}}``; empty for a network as trained.
        training: hyper-parameters of its training, where they are searched.
    """

    architecture: Mapping[str, Any]
    recipe: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """A short hash, equal for equal candidates in every process."""
        # The order of labels says nothing, the order of the stages does.
        parts: list[Any] = [sorted(self.architecture.items()), [[s, sorted(o.items())] for s, o in self.recipe.items()]]
        if self.training:
            parts.append(sorted(self.training.items()))
        text = json.dumps(parts)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Candidate) and self.key == other.key
