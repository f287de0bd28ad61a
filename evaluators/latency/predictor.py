"""Latency of an exported file foretold from its operators, each of which is measured once on a machine."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from slimsearch.evaluators.latency.meter import Meter
from slimsearch.evaluators.latency.operator_costs import Cost, OperatorCosts
from slimsearch.evaluators.latency.operators import Operator, measure, operators_of

# How many pairs the prior weighs as much as: that the costs of the operators add up, times one.
_PRIOR = 1.0
# Relative errors beyond which a measured pair counts less: it was disturbed, or the network is of another kind.
_OUTLIER = 0.1
_ROUNDS = 20
# To wait for calm, for all operators of a file together; and for a while after it was waited for in vain.
_PATIENCE_SECONDS, _IMPATIENT_SECONDS, _REMEMBERED_SECONDS = 5.0, 0.5, 60.0


@dataclass(frozen=True)
class Predicted:
    """What is foretold of one file.

    Attributes:
        ms: milliseconds for one call.
        measured_operators: how many operators had to be measured for it, now.
        guessed_operators: how many could not be measured alone and count with a cost by their sizes.
    """

    ms: float
    measured_operators: int
    guessed_operators: int

    @property
    def known(self) -> bool:
        """Whether all of its operators have been measured."""
        return self.guessed_operators == 0


class LatencyPredictor:
    """Milliseconds that ONNX Runtime takes for a call of a file on this machine's CPU.

    The file is optimised as the runtime does it when it loads it. The operators that are left (fused, in blocked
    layouts) are measured alone, each kind and shape once on a machine, and their costs add up. Pairs of files and
    measured latencies correct the overhead of a call and the scale of the sum.

    Args:
        batch: images in a call.
        threads: of the runtime.
        folder: where costs are kept; None: ``slimsearch`` in the user's cache.
        meter: this process's part in the protocol of who measures; None: one of its own, for a process that does not
            compute.
    """

    def __init__(
        self, batch: int = 1, threads: int = 1, folder: Path | None = None, meter: Meter | None = None
    ) -> None:
        self._meter = meter or Meter()
        self._batch, self._threads = batch, threads
        self._costs = OperatorCosts(batch, threads, folder)
        self._pairs: dict[Path, tuple[float, float, float]] = {}
        self._impatient_until = 0.0

    def predict(self, path: Path) -> Predicted:
        """What a call of the file at `path` takes; measures operators that are new to this machine.

        Raises:
            SlimsearchError: the file cannot be loaded.
        """
        overhead, total, measured, guessed = self._sum(path)
        base, scale = self._corrections()
        return Predicted(base * overhead + scale * total, measured, guessed)

    def correct(self, path: Path, ms: float) -> None:
        """Learn that a call of the file at `path` takes `ms` milliseconds; the last word on a file counts.

        Raises:
            SlimsearchError: the file cannot be loaded.
        """
        overhead, total, _, _ = self._sum(path)
        self._pairs[path] = overhead, total, ms

    def _sum(self, path: Path) -> tuple[float, float, int, int]:
        """Milliseconds of a call without operators, and of all operators; operators measured now, and guessed."""
        with tempfile.TemporaryDirectory(prefix="slimsearch-") as folder:
            operators = operators_of(path, self._batch, self._threads, Path(folder))
        known = self._costs.read()
        new = {operator.key: operator for operator in operators if operator.key not in known}
        if new:
            impatient = time.monotonic() < self._impatient_until
            with self._meter.exclusive() as alone:
                # Beside somebody who does not pause there is no calm to wait for.
                patience = 0.0 if not alone else _IMPATIENT_SECONDS if impatient else _PATIENCE_SECONDS
                found, calm = measure(list(new.values()), self._threads, patience)
            if alone:
                self._impatient_until = 0.0 if calm else time.monotonic() + _REMEMBERED_SECONDS
            # What was disturbed serves once; the next one who needs it measures it again.
            known = self._costs.add(found) if alone and calm else {**known, **found}
        costs = [known[operator.key] for operator in operators]
        measured = [cost for cost in costs if cost is not None]
        total = sum(
            _guess(operator, operators, costs) if cost is None else cost.ms
            for operator, cost in zip(operators, costs, strict=True)
        )
        overhead = float(np.median([cost.overhead_ms for cost in measured])) if measured else 0.0
        return overhead, total, len(new), len(costs) - len(measured)

    def _corrections(self) -> tuple[float, float]:
        """Factors of the overhead and of the sum: least squares of relative errors, outliers weighed down."""
        found = np.ones(2)
        if not self._pairs:
            return 1.0, 1.0
        pairs = np.array(list(self._pairs.values()))
        rows = pairs[:, :2] / pairs[:, 2:]
        weights = np.ones(len(rows))
        # The prior pulls each factor to one, in units of its share in a typical call.
        prior = _PRIOR * np.diag(np.median(rows, axis=0) ** 2 + 1e-6)
        for _ in range(_ROUNDS):
            weighted = rows.T * weights
            found = np.linalg.solve(weighted @ rows + prior, weighted.sum(axis=1) + prior.sum(axis=1))
            errors = np.abs(rows @ found - 1)
            weights = np.minimum(1, max(_OUTLIER, float(np.median(errors))) / np.maximum(errors, 1e-12))
        base, scale = np.maximum(found, 0.0)
        return float(base), float(scale)


def _guess(operator: Operator, operators: Sequence[Operator], costs: Sequence[Cost | None]) -> float:
    """By the bytes that it reads and writes, at the pace of the other operators of the network."""
    others = [(other.bytes, cost.ms) for other, cost in zip(operators, costs, strict=True) if cost is not None]
    moved = sum(size for size, _ in others)
    return operator.bytes * sum(ms for _, ms in others) / moved if moved else 0.0
