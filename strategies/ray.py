"""Ray Tune: the tasks are evaluated on the workers of a Ray cluster, and seen in its dashboard."""

from __future__ import annotations

import itertools
import math
import os
import secrets
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from slimsearch.errors import SlimsearchError, describe_error
from slimsearch.evaluators import Evaluator
from slimsearch.strategies._ray.cluster import cluster, environment, node_lost
from slimsearch.strategies._ray.proposals import Proposals, tune_searcher
from slimsearch.strategies._strategy import Search, StrategySettings, Traits, space_of

_SECONDS_TO_START = 60.0

# What Tune would do beside running trials: logs and checkpoints of its own, which nobody reads.
_TUNE = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "TUNE_GLOBAL_CHECKPOINT_S": "1000000000", "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}  # fmt: skip


class Ray:
    """Keeps a Ray cluster busy: as many trials at a time as it has room for, or `workers`.

    Each trial is a Ray task named after it, in a process of its own; Tune's actors, which are used again, wait for
    them. A local cluster is started and stopped with the run, its dashboard on this machine only. On a cluster that is
    running, this code and what the tasks need of the run directory are sent to nodes that do not see them.

    Args:
        settings: where `sampler` names a searcher of Tune's, it proposes the candidates; without a run directory, all
            nodes see every path of a task.

    Attributes:
        traits: depend on `sampler`.
    """

    def __init__(self, settings: StrategySettings) -> None:
        self.settings = settings
        if (settings.ray_address or "").startswith("ray://"):
            raise SlimsearchError(
                f"--ray-address {settings.ray_address} is for clients outside the cluster; run on a node of the "
                "cluster, with --ray-address auto (ray start --address=HOST:PORT --num-cpus=0 makes this machine one)"
            )
        self._searcher = tune_searcher(settings.sampler)
        proposes = self._searcher is not None
        self.traits = Traits(proposes=proposes, runs_sampler=proposes, remote_workers=True)

    def run(self, search: Search, evaluator: Evaluator) -> None:
        """Evaluate everything that `search` asks for.

        Raises:
            SlimsearchError: there is no such cluster, no room for a trial on it, or it or a searcher of Tune's fails.
            KeyboardInterrupt: after the trials were stopped.
        """
        proposals, settings = None, self.settings
        if self._searcher is not None:
            space = space_of(self._searcher.__name__, evaluator)
            proposals = Proposals(self._searcher, space, settings.objectives, settings.seed)
        from ray.exceptions import RayError

        cpus = max(os.cpu_count() or 1, math.ceil((settings.workers or 0) * settings.cpus_per_trial))
        with cluster(settings.ray_address, cpus) as resources:
            limit = self._room(resources)
            try:
                # Of a searcher that it does not know Tune would otherwise start one actor after the other.
                with environment(_TUNE | {"TUNE_MAX_PENDING_TRIALS_PG": str(limit)}):
                    self._tune(search, evaluator, proposals, limit)
            except RayError as error:
                raise SlimsearchError(
                    f"the Ray cluster failed: {describe_error(error)}; what was finished is kept, go on with --resume"
                ) from error

    def _room(self, resources: Mapping[str, float]) -> int:
        """How many trials there is room for.

        Raises:
            SlimsearchError: not for one.
        """
        settings = self.settings
        wanted = {"CPU": settings.cpus_per_trial, "GPU": settings.gpus_per_trial}
        room = min(int(resources.get(name, 0) / amount + 1e-9) for name, amount in wanted.items() if amount > 0)
        if room < 1:
            has = ", ".join(f"{resources.get(name, 0):g} {name}" for name in wanted)
            raise SlimsearchError(
                f"a trial takes {settings.cpus_per_trial:g} CPU and {settings.gpus_per_trial:g} GPU, and the Ray "
                f"cluster has {has} (--cpus-per-trial, --gpus-per-trial)"
            )
        return min(room, settings.workers or room)

    def _tune(self, search: Search, evaluator: Evaluator, proposals: Proposals | None, limit: int) -> None:
        import ray
        from ray import tune
        from ray.exceptions import OutOfMemoryError

        from slimsearch.strategies._ray.evaluation import PROCESS, Run, warm_up
        from slimsearch.strategies._ray.metrics import Metrics
        from slimsearch.strategies._ray.searcher import TaskSearcher
        from slimsearch.strategies._ray.trial import TASK, Trial

        settings = self.settings
        name = settings.run_directory.name if settings.run_directory is not None else ""
        resources = {"CPU": settings.cpus_per_trial, "GPU": settings.gpus_per_trial}
        with self._driver() as (post, place), tempfile.TemporaryDirectory(prefix="slimsearch-tune-") as folder:
            run = ray.put(Run.of(name, evaluator, place, post))
            # Processes that have imported everything before a trial is begun: they are used again.
            begin = ray.remote(warm_up).options(
                name=f"{name}: a process starts", num_cpus=settings.cpus_per_trial, num_gpus=settings.gpus_per_trial,
                max_retries=0, runtime_env=PROCESS,
            )  # fmt: skip
            ray.wait([begin.remote(run) for _ in range(limit)], num_returns=limit, timeout=_SECONDS_TO_START)
            searcher = TaskSearcher(search, post, limit, Metrics(name, search, limit), node_lost, proposals)
            trainable = tune.with_resources(
                tune.with_parameters(
                    Trial, run=[run], name=name, root=place.root, post=post, resources=resources,
                    timeout=settings.trial_timeout,
                ),
                tune.PlacementGroupFactory([{}, {name: amount for name, amount in resources.items() if amount > 0}]),
            )  # fmt: skip
            for attempt in itertools.count():
                tuner = tune.Tuner(
                    trainable,
                    tune_config=tune.TuneConfig(
                        search_alg=searcher, num_samples=-1, reuse_actors=True,
                        trial_name_creator=lambda trial: f"trial-{trial.config[TASK].number}",
                        trial_dirname_creator=lambda trial: trial.trial_id,
                    ),
                    run_config=tune.RunConfig(  # the run has its own record
                        name=f"tune-{attempt}", storage_path=folder, verbose=0,
                        failure_config=tune.FailureConfig(max_failures=0),
                        checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
                    ),
                )  # fmt: skip
                try:
                    tuner.fit()
                except RuntimeError as error:
                    # An actor of Tune's that Ray kills where memory is short ends Tune, which knows no such error.
                    if not isinstance(error.__cause__, OutOfMemoryError):
                        raise
                    searcher.lost()
                else:
                    break
        if searcher.error is not None:
            raise searcher.error
        if not searcher.ended:
            raise KeyboardInterrupt

    @contextmanager
    def _driver(self) -> Iterator[tuple[Any, Any]]:
        """What belongs to the driver and must not be lost with another node: the post, and the run's files."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        from slimsearch.strategies._ray.place import Files, Place
        from slimsearch.strategies._ray.post import Post

        node = ray.get_runtime_context().get_node_id()
        options: dict[str, Any] = {
            "num_cpus": 0, "enable_task_events": False, "max_restarts": -1, "max_task_retries": -1,
            "scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False),
        }  # fmt: skip
        post = ray.remote(Post).options(**options, max_concurrency=10_000).remote()
        folder = self.settings.run_directory
        if folder is None:
            yield post, Place()
            return
        files = ray.remote(Files).options(**options).remote(folder)
        token = folder / f".ray-{secrets.token_hex(8)}"
        token.touch()
        try:
            yield post, Place(folder, token.name, files)
        finally:
            token.unlink(missing_ok=True)
