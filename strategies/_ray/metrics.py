"""Metrics of a run in Ray's own metrics, which Prometheus collects from each node and Grafana draws."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from slimsearch.evaluators import Outcome, Task
from slimsearch.strategies._strategy import Failure, TaskSource

NAMES = {
    "slimsearch_trials": "Trials of the run by state",
    "slimsearch_best": "Best value of each objective among the trials that keep every limit",
    "slimsearch_hypervolume": "Share of the box between the best and the worst trials' objectives that is dominated",
    "slimsearch_trial_epoch": "Last finished epoch of each trial",
    "slimsearch_trial_train_loss": "Training loss of each trial in its last epoch",
    "slimsearch_trial_val_accuracy": "Validation accuracy of each trial after its last epoch",
    "slimsearch_trial_latency_ms": "Latency of each trial's untrained network, in milliseconds",
    "slimsearch_latency_ms": "Latency of the last finished trial's file, in milliseconds",
    "slimsearch_workers": "Trials that may run at the same time",
    "slimsearch_workers_busy": "Trials that run now",
    "slimsearch_worker_utilisation": "Share of the workers' time since the run began in which they had a trial",
}
"""Metric -> description; Ray puts ``ray_`` in front of each."""

_EVERY = 2.0  # seconds between two updates
_OF_A_TRIAL = {"train_loss", "val_accuracy", "latency_ms"}


class Metrics:
    """Updates the gauges from the driver; Ray exports the last value of each until the driver ends.

    Args:
        run: its name, a tag of every series.
        search: whose figures are shown.
        workers: trials at the same time.
    """

    def __init__(self, run: str, search: TaskSource, workers: int) -> None:
        from ray.util.metrics import Gauge

        self._search, self._workers = search, workers
        tags = {"slimsearch_trials": ("state",), "slimsearch_best": ("metric",)}
        self._gauges: dict[str, Any] = {}
        for name, text in NAMES.items():
            own = tags.get(name, ("trial",) if name.startswith("slimsearch_trial_") else ())
            self._gauges[name] = Gauge(name, text, tag_keys=("run", *own))
            self._gauges[name].set_default_tags({"run": run})
        self._running: dict[int, dict[str, float]] = {}
        self._latency: float | None = None
        self._began = self._changed = time.monotonic()
        self._busy = 0.0
        self._looked = -float("inf")

    def begin(self, task: Task) -> None:
        """A task begins."""
        self._pass()
        self._running[task.number] = {"epoch": float(task.epochs_done)}

    def report(self, task: Task, epoch: int, metrics: Mapping[str, float]) -> None:
        """A task has finished an epoch, or reports its costs before the first."""
        known = {name: value for name, value in metrics.items() if name in _OF_A_TRIAL}
        self._running.setdefault(task.number, {}).update({"epoch": float(epoch), **known})
        self.refresh()

    def end(self, task: Task, event: Outcome | Failure) -> None:
        """A task has ended."""
        self._pass()
        self._running.pop(task.number, None)
        if isinstance(event, Outcome):
            self._latency = event.metrics.get("latency_ms", self._latency)

    def refresh(self) -> None:
        """Update the gauges, unless they were updated just now."""
        if time.monotonic() - self._looked < _EVERY:
            return
        self._looked = time.monotonic()
        self._pass()
        figures = self._search.figures()
        for state, count in figures.states.items():
            self._set("slimsearch_trials", count, state=state)
        for metric, value in figures.best.items():
            self._set("slimsearch_best", value, metric=metric)
        if figures.hypervolume is not None:
            self._set("slimsearch_hypervolume", figures.hypervolume)
        for number, known in self._running.items():
            for name, value in known.items():
                self._set(f"slimsearch_trial_{name}", value, trial=str(number))
        if self._latency is not None:
            self._set("slimsearch_latency_ms", self._latency)
        self._set("slimsearch_workers", self._workers)
        self._set("slimsearch_workers_busy", len(self._running))
        passed = self._workers * (self._changed - self._began)
        self._set("slimsearch_worker_utilisation", self._busy / passed if passed else 0.0)

    def _pass(self) -> None:
        """Count the time since the last change."""
        now = time.monotonic()
        self._busy += len(self._running) * (now - self._changed)
        self._changed = now

    def _set(self, name: str, value: float, **tags: str) -> None:
        self._gauges[name].set(float(value), tags=tags)
