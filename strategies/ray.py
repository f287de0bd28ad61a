"""Ray Tune: the tasks are evaluated on the workers of a Ray cluster, and seen in its dashboard."""

from __future__ import annotations

import logging
import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

from evaluators import Evaluator
from slimsearch_errors import SlimsearchError
from strategies import _workers
from strategies._strategy import Search

_log = logging.getLogger(__name__)

# What Tune would do beside running trials: logs and checkpoints of its own, which nobody reads.
_TUNE = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "TUNE_GLOBAL_CHECKPOINT_S": "1000000000", "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}  # fmt: skip


@dataclass
class Ray:
    """Keeps a Ray cluster busy: as many trials at a time as it has room for, or `workers`.

    Each trial is a Ray task named after it, in a process of its own; Tune's actors, which are used again, wait for
    them. A local cluster is started and stopped with the run, its dashboard on this machine only.

    Attributes:
        workers: trials at the same time; 0: as many as the cluster has room for.
        trial_timeout: seconds after which a task is ended and counts as failed; None: never.
        ray_address: of a running cluster, ``auto`` for the one that is running on this machine; None: a local one.
        cpus_per_trial, gpus_per_trial: what each trial takes, fractions too.
        name: of the run, in the names of its tasks.
    """

    FILLS: ClassVar[bool] = True
    """Without a number of workers as many as there is room for, wherever that is."""

    workers: int = 0
    trial_timeout: float | None = None
    ray_address: str | None = None
    cpus_per_trial: float = 1.0
    gpus_per_trial: float = 0.0
    name: str = ""

    def __post_init__(self) -> None:
        _workers.check(max(1, self.workers), self.trial_timeout)

    def run(self, search: Search, evaluator: Evaluator) -> None:
        """Evaluate everything that `search` asks for.

        Raises:
            SlimsearchError: there is no such cluster, or no node of it has room for a trial.
            KeyboardInterrupt: after the trials were stopped.
        """
        with _environment(_TUNE), self._cluster() as resources:
            limit = self._room(resources)
            self._tune(search, evaluator, limit)

    @contextmanager
    def _cluster(self) -> Iterator[Mapping[str, float]]:
        import ray

        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "ignore_reinit_error": True}
        if self.ray_address is None:
            cpus = max(os.cpu_count() or 1, math.ceil(self.workers * self.cpus_per_trial))
            options |= {"address": "local", "num_cpus": cpus, "include_dashboard": True, "dashboard_host": "127.0.0.1"}
        else:
            options["address"] = self.ray_address
        before = ray.is_initialized()
        try:
            context = ray.init(**options)
        except Exception as error:
            where = self.ray_address or "on this machine"
            raise SlimsearchError(f"no Ray cluster {where}: {type(error).__name__}: {_line(error)}") from error
        try:
            url = context.dashboard_url
            if url:
                _log.info("Ray dashboard: http://%s (the token that it asks for: ray get-auth-token)", url)
            yield ray.cluster_resources()  # type: ignore[no-untyped-call]
        finally:
            if not before:
                ray.shutdown()

    def _room(self, resources: Mapping[str, float]) -> int:
        """How many trials there is room for.

        Raises:
            SlimsearchError: not for one.
        """
        wanted = {"CPU": self.cpus_per_trial, "GPU": self.gpus_per_trial}
        room = min(int(resources.get(name, 0) / amount + 1e-9) for name, amount in wanted.items() if amount > 0)
        if room < 1:
            has = ", ".join(f"{resources.get(name, 0):g} {name}" for name in wanted)
            raise SlimsearchError(
                f"a trial takes {self.cpus_per_trial:g} CPU and {self.gpus_per_trial:g} GPU, and the Ray cluster has "
                f"{has} (--cpus-per-trial, --gpus-per-trial)"
            )
        return min(room, self.workers) if self.workers else room

    def _tune(self, search: Search, evaluator: Evaluator, limit: int) -> None:
        import ray
        from ray import tune

        from strategies._ray_evaluation import packed
        from strategies._ray_post import Post
        from strategies._ray_searcher import TaskSearcher
        from strategies._ray_trial import TASK, Trial

        post = ray.remote(Post).options(num_cpus=0, max_concurrency=10_000, enable_task_events=False).remote()
        searcher = TaskSearcher(search, post, limit)
        resources = {"CPU": self.cpus_per_trial, "GPU": self.gpus_per_trial}
        trainable = tune.with_resources(
            tune.with_parameters(
                Trial, evaluator=[ray.put(packed(evaluator))], post=post, run=self.name,
                resources=resources, timeout=self.trial_timeout,
            ),
            tune.PlacementGroupFactory([{}, {name: amount for name, amount in resources.items() if amount > 0}]),
        )  # fmt: skip
        with tempfile.TemporaryDirectory(prefix="slimsearch-tune-") as folder:  # the run has its own record
            tune.Tuner(
                trainable,
                tune_config=tune.TuneConfig(
                    search_alg=searcher, num_samples=-1, reuse_actors=True,
                    trial_name_creator=lambda trial: f"trial-{trial.config[TASK].number}",
                    trial_dirname_creator=lambda trial: trial.trial_id,
                ),
                run_config=tune.RunConfig(
                    name="tune", storage_path=folder, verbose=0,
                    failure_config=tune.FailureConfig(max_failures=0),
                    checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
                ),
            ).fit()  # fmt: skip
        if searcher.error is not None:
            raise searcher.error
        if not searcher.ended:
            raise KeyboardInterrupt


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
