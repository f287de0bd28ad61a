"""Metrics of a run as Ray metrics, which Prometheus collects from each node and Grafana plots."""

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

_OF_A_TRIAL = {"train_loss", "val_accuracy", "latency_ms"}


class Metrics:
    """Ray gauges, updated from the driver; Ray exports their last values until the driver ends.

    Args:
        run: name of the run, a tag of every series.
        search: gives the state of the run.
        workers: number of concurrent trials.
        interval: least seconds between two updates.
    """

    def __init__(self, run: str, search: TaskSource, workers: int, interval: float = 2.0) -> None:
        from ray.util.metrics import Gauge

        self._search, self._workers, self._interval = search, workers, interval
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
        self._updated = -float("inf")

    def begin(self, task: Task) -> None:
        """Record the start of a task."""
        self._pass()
        self._running[task.number] = {"epoch": float(task.epochs_done)}

    def report(self, task: Task, epoch: int, metrics: Mapping[str, float]) -> None:
        """Record an epoch of a task, or its costs before the first epoch."""
        known = {name: value for name, value in metrics.items() if name in _OF_A_TRIAL}
        self._running.setdefault(task.number, {}).update({"epoch": float(epoch), **known})
        self.refresh()

    def end(self, task: Task, event: Outcome | Failure) -> None:
        """Record the end of a task."""
        self._pass()
        self._running.pop(task.number, None)
        if isinstance(event, Outcome):
            self._latency = event.metrics.get("latency_ms", self._latency)

    def refresh(self) -> None:
        """Update the gauges, at most once in `interval`."""
        if time.monotonic() - self._updated < self._interval:
            return
        self._updated = time.monotonic()
        self._pass()
        status = self._search.status()
        for state, count in status.states.items():
            self._set("slimsearch_trials", count, state=state)
        for metric, value in status.best.items():
            self._set("slimsearch_best", value, metric=metric)
        if status.hypervolume is not None:
            self._set("slimsearch_hypervolume", status.hypervolume)
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
        """Add the time since the last call to the busy time."""
        now = time.monotonic()
        self._busy += len(self._running) * (now - self._changed)
        self._changed = now

    def _set(self, name: str, value: float, **tags: str) -> None:
        self._gauges[name].set(float(value), tags=tags)
