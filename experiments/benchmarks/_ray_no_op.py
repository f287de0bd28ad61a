"""Trials that evaluate nothing: those of ``--strategy ray``, recorded on disk, and Ray Tune's own.

Each function is for a process of its own, and starts a cluster on this machine there.
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

# Read when Tune is imported: its new output also comes where none is asked for.
_OLD = "0"
_CHOICES = {"a": list(range(100)), "b": list(range(100))}


@dataclass(frozen=True)
class Times:
    """When trials were run.

    Attributes:
        start: seconds from the call to the beginning of the first trial: the cluster, imports, the engine.
        first: from there to its end: the first processes.
        all: from there to the end of the last trial.
    """

    start: float
    first: float
    all: float


def ours(trials: int) -> Times:
    """`slimsearch.search` with a function that returns at once; everything else is as ever."""
    begun = time.time()
    with tempfile.TemporaryDirectory() as folder:
        result = slimsearch.search(
            _CHOICES, evaluate=_nothing, objectives="score:max", strategy="ray", trials=trials, show=False,
            run_dir=str(Path(folder) / "run"),
        )  # fmt: skip
    first = min(trial.started for trial in result.trials)
    ends = [trial.ended for trial in result.trials]
    return Times(first - begun, min(ends) - first, max(ends) - first)


def defaults(trials: int) -> Times:
    """Ray Tune as it is, but that it writes to a temporary folder and prints nothing."""
    return _tuned(lambda config: {"score": 1.0}, trials)


def reusing(trials: int) -> Times:
    """The same with actors that are used again."""
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


def _tuned(trainable: Any, trials: int, **options: Any) -> Times:
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
    # As the strategy starts its own.
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
    return Times(clock.begun - called, clock.ends[0] - clock.begun, clock.ends[-1] - clock.begun)
