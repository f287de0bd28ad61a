"""Trials without evaluation: those of ``--strategy ray``, recorded on disk, and those of Ray Tune.

Call each function in a process of its own: it starts a cluster on this machine.
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import slimsearch

OURS, DEFAULTS, REUSED = "--strategy ray", "Ray Tune's defaults", "Ray Tune, reuse_actors=True"

# Read when Tune is imported: its new output cannot be turned off.
_OLD = "0"
_CHOICES = {"a": list(range(100)), "b": list(range(100))}


@dataclass(frozen=True)
class NoOpTimes:
    """Durations of a search in seconds.

    Attributes:
        start: from the call to the begin of the first trial: cluster, imports, engine.
        first: from the begin to the end of the first trial: the first processes.
        all: from the begin of the first trial to the end of the last one.
    """

    start: float
    first: float
    all: float


def ours(trials: int) -> NoOpTimes:
    """`slimsearch.search` with a function that returns at once."""
    begun = time.time()
    with tempfile.TemporaryDirectory() as folder:
        result = slimsearch.search(
            _CHOICES, evaluate=_nothing, objectives="score:max", strategy="ray", trials=trials, show=False,
            run_dir=str(Path(folder) / "run"),
        )  # fmt: skip
    first = min(trial.started for trial in result.trials)
    ends = [trial.ended for trial in result.trials]
    return NoOpTimes(first - begun, min(ends) - first, max(ends) - first)


def defaults(trials: int) -> NoOpTimes:
    """Ray Tune with its defaults, in a temporary folder and without output."""
    return _tuned(lambda config: {"score": 1.0}, trials)


def reusing(trials: int) -> NoOpTimes:
    """Ray Tune with actors that are reused."""
    os.environ["RAY_AIR_NEW_OUTPUT"] = _OLD
    from ray import tune

    class Nothing(tune.Trainable):
        def setup(self, config: dict[str, Any]) -> None:
            pass

        def step(self) -> dict[str, Any]:
            return {"score": 1.0, "done": True}

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            return True

        def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
            return {}

    return _tuned(Nothing, trials, reuse_actors=True)


def _nothing(candidate: Mapping[str, Any]) -> dict[str, float]:
    return {"score": float(candidate["a"] * candidate["b"] % 97)}


def _tuned(trainable: Any, trials: int, **options: Any) -> NoOpTimes:
    os.environ["RAY_AIR_NEW_OUTPUT"] = _OLD
    import ray
    from ray import tune

    @dataclass
    class Clock(tune.Callback):
        begun: float = 0.0
        ends: list[float] = field(default_factory=list)

        def setup(self, stop: Any = None, num_samples: Any = None, total_num_samples: Any = None, **info: Any) -> None:
            self.begun = time.time()

        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            self.ends.append(time.time())

    clock = Clock()
    called = time.time()
    # With the options of the strategy.
    ray.init(
        address="local", num_cpus=os.cpu_count(), include_dashboard=True, dashboard_host="127.0.0.1",
        log_to_driver=False, logging_level=logging.ERROR,
    )  # fmt: skip
    try:
        with tempfile.TemporaryDirectory() as folder:
            tune.Tuner(
                trainable,
                tune_config=tune.TuneConfig(num_samples=trials, **options),
                run_config=tune.RunConfig(storage_path=folder, verbose=0, callbacks=[clock]),
            ).fit()
    finally:
        ray.shutdown()
    if len(clock.ends) != trials:
        raise RuntimeError(f"Ray Tune ended {len(clock.ends)} of {trials} trials")
    return NoOpTimes(clock.begun - called, clock.ends[0] - clock.begun, clock.ends[-1] - clock.begun)
