"""What operators cost on this machine, kept in a file that all processes of the user share."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from slimsearch.evaluators.training.processor import processor
from slimsearch.files import write_json


@dataclass(frozen=True)
class Cost:
    """Milliseconds of an operator in a network, and of a call of a model that has nothing else."""

    ms: float
    overhead_ms: float


class OperatorCosts:
    """Costs by the key of the operator; None of one that cannot be measured alone.

    Args:
        batch, threads: with which they are measured.
        folder: where they are kept; None: ``slimsearch`` in the user's cache.
    """

    def __init__(self, batch: int, threads: int, folder: Path | None = None) -> None:
        import onnxruntime

        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "slimsearch"
        machine = [*processor(), onnxruntime.__version__, batch, threads]
        name = hashlib.sha256(json.dumps(machine).encode()).hexdigest()[:16]
        self.path = (folder or cache) / f"operators-{name}.json"

    def read(self) -> dict[str, Cost | None]:
        """What is known; nothing where the file is missing or damaged."""
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
            return {key: None if cost is None else _checked(**cost) for key, cost in found.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}

    def add(self, costs: Mapping[str, Cost | None]) -> dict[str, Cost | None]:
        """Everything known, these included; what another process has found first stays."""
        from filelock import FileLock

        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{self.path}.lock"):
            known = {**costs, **self.read()}
            write_json(
                self.path, {key: None if cost is None else asdict(cost) for key, cost in known.items()}, indent=0
            )
        return known


def _checked(ms: float, overhead_ms: float) -> Cost:
    if not (0 <= ms < float("inf") and 0 <= overhead_ms < float("inf")):
        raise ValueError("no cost")
    return Cost(ms, overhead_ms)
