"""Prediction of a file's latency from the costs of its operators, each measured once on a machine."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from slimsearch.evaluators.latency.device_correction import DeviceCorrection, FileCost
from slimsearch.evaluators.latency.meter import Meter
from slimsearch.evaluators.latency.operators import KINDS, Cost, Operator, measure, operators_of, work_of
from slimsearch.evaluators.training.hardware import processor
from slimsearch.files import write_json

# Weight of the prior that the costs of the operators simply add up, in measured pairs.
_PRIOR = 1.0
# Relative error above which a pair counts less: it was disturbed, or the network differs from the others.
_OUTLIER = 0.1
_ROUNDS = 20
# After waiting in vain for a calm machine, predictions wait less for a while.
_IMPATIENT_SECONDS, _REMEMBERED_SECONDS = 0.5, 60.0


@dataclass(frozen=True)
class Predicted:
    """The predicted latency of one file.

    Attributes:
        ms: milliseconds per call.
        measured_operators: number of operators that had to be measured for this prediction.
        guessed_operators: number of operators that cannot be measured alone; their cost is estimated from their sizes.
    """

    ms: float
    measured_operators: int
    guessed_operators: int

    @property
    def known(self) -> bool:
        """Whether the costs of all operators are measured."""
        return self.guessed_operators == 0


class OperatorCosts:
    """A file of operator costs that all processes of the user share, by operator key.

    The cost of an operator that cannot be measured alone is None.

    Args:
        batch: images per call.
        threads: of the runtime.
        folder: of the file; None: ``slimsearch`` in the user's cache.
    """

    def __init__(self, batch: int, threads: int, folder: Path | None = None) -> None:
        import onnxruntime

        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "slimsearch"
        machine = [*processor(), onnxruntime.__version__, batch, threads]
        name = hashlib.sha256(json.dumps(machine).encode()).hexdigest()[:16]
        self.path = (folder or cache) / f"operators-{name}.json"

    def read(self) -> dict[str, Cost | None]:
        """All known costs; none if the file is missing or damaged."""
        try:
            entries = json.loads(self.path.read_text(encoding="utf-8"))
            return {key: None if cost is None else _checked(**cost) for key, cost in entries.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}

    def add(self, costs: Mapping[str, Cost | None]) -> dict[str, Cost | None]:
        """Add costs and return all; a cost that another process has added first stays."""
        from filelock import FileLock

        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{self.path}.lock"):
            known = {**costs, **self.read()}
            entries = {key: None if cost is None else asdict(cost) for key, cost in known.items()}
            write_json(self.path, entries, indent=0)
        return known


def _checked(ms: float, overhead_ms: float) -> Cost:
    if not (0 <= ms < float("inf") and 0 <= overhead_ms < float("inf")):
        raise ValueError("a cost is negative or not finite")
    return Cost(ms, overhead_ms)


class LatencyPredictor:
    """Predicts milliseconds per call of a file in ONNX Runtime on this machine's CPU, or on another device.

    The file is optimized as the runtime does on loading. Each of the remaining operators (fused, in blocked layouts) is
    measured alone, once per kind and shape on a machine, and the costs are added up. Pairs of files and measured
    latencies correct the overhead of a call and the scale of the sum; for another device, see `DeviceCorrection`.

    Args:
        batch: images per call.
        threads: of the runtime.
        folder: of the stored costs; None: ``slimsearch`` in the user's cache.
        meter: of this process, if it also trains; None: a new one.
        patience: seconds to wait for a calm machine, for all operators of a file together.
        slowness: milliseconds of another device, whose latencies are predicted, relative to this machine; None: those
            of this machine are.
    """

    def __init__(
        self,
        batch: int = 1,
        threads: int = 1,
        folder: Path | None = None,
        meter: Meter | None = None,
        patience: float = 5.0,
        slowness: float | None = None,
    ) -> None:
        self._meter = meter or Meter()
        self._batch, self._threads, self._patience = batch, threads, patience
        self._costs = OperatorCosts(batch, threads, folder)
        self._correction = None if slowness is None else DeviceCorrection(slowness)
        self._pairs: dict[Path, tuple[float, float, float]] = {}
        self._impatient_until = 0.0

    def predict(self, path: Path) -> Predicted:
        """Latency of the file at `path`; measures operators that are new to this machine.

        Raises:
            SlimsearchError: the file cannot be loaded.
        """
        cost, measured, guessed = self._cost(path)
        if self._correction is not None:
            return Predicted(self._correction.ms(cost), measured, guessed)
        overhead_factor, scale = self._corrections()
        return Predicted(overhead_factor * cost.overhead + scale * sum(cost.by_kind), measured, guessed)

    def is_sure(self, path: Path) -> bool:
        """Whether the files that have corrected predictions for another device are like the one at `path`.

        Raises:
            SlimsearchError: the file cannot be loaded.
        """
        return self._correction is None or self._correction.is_sure(self._cost(path)[0])

    def correct(self, path: Path, ms: float) -> None:
        """Add the measured latency of the file at `path`; it replaces an earlier one of the same file.

        Raises:
            SlimsearchError: the file cannot be loaded.
        """
        cost, _, _ = self._cost(path)
        if self._correction is not None:
            self._correction.add(path, cost, ms)
        else:
            self._pairs[path] = cost.overhead, sum(cost.by_kind), ms

    def _cost(self, path: Path) -> tuple[FileCost, int, int]:
        """The cost of a file on this machine; numbers of measured and guessed operators."""
        with tempfile.TemporaryDirectory(prefix="slimsearch-") as folder:
            operators = operators_of(path, self._batch, self._threads, Path(folder))
        known = self._costs.read()
        new = {operator.key: operator for operator in operators if operator.key not in known}
        if new:
            impatient = time.monotonic() < self._impatient_until
            with self._meter.exclusive() as alone:
                # The machine does not get calm while another process computes.
                patience = min(self._patience, _IMPATIENT_SECONDS) if impatient else self._patience
                costs, calm = measure(list(new.values()), self._threads, patience if alone else 0.0)
            if alone:
                self._impatient_until = 0.0 if calm else time.monotonic() + _REMEMBERED_SECONDS
            # Disturbed costs are used once and not stored.
            known = self._costs.add(costs) if alone and calm else {**known, **costs}
        own = [known[operator.key] for operator in operators]
        measured = [cost for cost in own if cost is not None]
        by_kind = dict.fromkeys(KINDS, 0.0)
        for operator, cost in zip(operators, own, strict=True):
            by_kind[operator.kind] += _guess(operator, operators, own) if cost is None else cost.ms
        overhead = float(np.median([cost.overhead_ms for cost in measured])) if measured else 0.0
        work = {} if self._correction is None else work_of(path)
        return FileCost(overhead, tuple(by_kind.values()), work), len(new), len(own) - len(measured)

    def _corrections(self) -> tuple[float, float]:
        """Factors of the overhead and of the sum: reweighted least squares of relative errors."""
        if not self._pairs:
            return 1.0, 1.0
        factors = np.ones(2)
        pairs = np.array(list(self._pairs.values()))
        rows = pairs[:, :2] / pairs[:, 2:]
        weights = np.ones(len(rows))
        # The prior pulls each factor to 1, in units of its share of a typical call.
        prior = _PRIOR * np.diag(np.median(rows, axis=0) ** 2 + 1e-6)
        for _ in range(_ROUNDS):
            weighted = rows.T * weights
            factors = np.linalg.solve(weighted @ rows + prior, weighted.sum(axis=1) + prior.sum(axis=1))
            errors = np.abs(rows @ factors - 1)
            weights = np.minimum(1, max(_OUTLIER, float(np.median(errors))) / np.maximum(errors, 1e-12))
        overhead_factor, scale = np.maximum(factors, 0.0)
        return float(overhead_factor), float(scale)


def _guess(operator: Operator, operators: Sequence[Operator], costs: Sequence[Cost | None]) -> float:
    """Milliseconds by the bytes that it reads and writes, at the throughput of the other operators."""
    others = [(other.bytes, cost.ms) for other, cost in zip(operators, costs, strict=True) if cost is not None]
    moved = sum(size for size, _ in others)
    return operator.bytes * sum(ms for _, ms in others) / moved if moved else 0.0
