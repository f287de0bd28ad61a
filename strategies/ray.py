"""Ray Tune: evaluates trials on the workers of a Ray cluster, and shows them in its dashboard."""

from __future__ import annotations

import itertools
import math
import os
import secrets
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from slimsearch.errors import SlimsearchError, describe_error
from slimsearch.evaluators import Evaluator
from slimsearch.strategies._pool.fork_server import SIGNALS, environment
from slimsearch.strategies._proposer import ProposerSearch
from slimsearch.strategies._ray.cluster import cluster, node_lost
from slimsearch.strategies._ray.tune_proposer import TuneProposer, tune_searcher
from slimsearch.strategies._strategy import Search, StrategySettings, TaskSource, Traits, space_of
from slimsearch.temporary import process_folder

if TYPE_CHECKING:
    from slimsearch.strategies._ray.tune_tasks import TaskSearcher

_SECONDS_TO_START = 60.0
_RESTARTS = 3
"""Maximum number of successive restarts of Tune without a finished task."""
_RESUME = "finished trials are kept, continue with --resume"

# Disables Tune's logs, checkpoints and Ctrl-C handler (see `_interruptible`).
_TUNE = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "TUNE_GLOBAL_CHECKPOINT_S": "1000000000", "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0", "TUNE_DISABLE_SIGINT_HANDLER": "1",
}  # fmt: skip


class Ray:
    """Evaluates as many trials at a time as the Ray cluster has room for, or `workers`.

    Each trial is a named Ray task in its own process; Tune's actors, which are reused, wait for these tasks. A local
    cluster is started and stopped with the run, and its dashboard is reachable from this machine only. On a running
    cluster, the package and the files of tasks are sent to nodes that do not see the run directory.

    Args:
        settings: if `sampler` names a searcher of Tune, that proposes the candidates; without a run directory, all
            nodes must see every path of a task.

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
            SlimsearchError: the cluster does not exist or has no room for a trial, or Ray, Tune or the searcher fails.
            KeyboardInterrupt: after the trials were stopped.
        """
        tasks: TaskSource = search
        settings = self.settings
        if self._searcher is not None:
            space = space_of(self._searcher.__name__, evaluator)
            tasks = ProposerSearch(
                search, TuneProposer(self._searcher, space, settings.objectives, settings.seed), space
            )
        from ray.exceptions import RayError

        cpus = max(os.cpu_count() or 1, math.ceil((settings.workers or 0) * settings.cpus_per_trial))
        with cluster(settings.ray_address, cpus, keep=settings.keep_dashboard) as resources:
            limit = self._room(resources)
            try:
                # By default, Tune starts one actor at a time for a searcher that it does not know.
                with environment(_TUNE | {"TUNE_MAX_PENDING_TRIALS_PG": str(limit)}):
                    self._tune(tasks, evaluator, limit)
            except RayError as error:
                raise SlimsearchError(f"the Ray cluster failed: {describe_error(error)}; {_RESUME}") from error

    def _room(self, resources: Mapping[str, float]) -> int:
        """Number of concurrent trials.

        Raises:
            SlimsearchError: the cluster has no room for a trial.
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

    def _tune(self, tasks: TaskSource, evaluator: Evaluator, limit: int) -> None:
        import ray
        from ray import tune

        from slimsearch.strategies._ray.evaluation import PROCESS, RunContext, warm_up
        from slimsearch.strategies._ray.metrics import Metrics
        from slimsearch.strategies._ray.tune_tasks import TASK, TaskSearcher, TaskTrainable

        settings = self.settings
        name = settings.run_directory.name if settings.run_directory is not None else ""
        resources = {"CPU": settings.cpus_per_trial, "GPU": settings.gpus_per_trial}
        with (
            self._driver() as (mailbox, files),
            tempfile.TemporaryDirectory(prefix="slimsearch-tune-", dir=process_folder()) as folder,
        ):
            run = ray.put(RunContext.of(name, evaluator, files, mailbox))
            # Warm up processes with all imports before the first trial; Ray reuses them.
            begin = ray.remote(warm_up).options(
                name=f"{name}: a process starts", num_cpus=settings.cpus_per_trial, num_gpus=settings.gpus_per_trial,
                max_retries=0, runtime_env=PROCESS,
            )  # fmt: skip
            ray.wait([begin.remote(run) for _ in range(limit)], num_returns=limit, timeout=_SECONDS_TO_START)
            searcher = TaskSearcher(tasks, mailbox, limit, Metrics(name, tasks, limit), node_lost)
            trainable = tune.with_resources(
                tune.with_parameters(
                    TaskTrainable, run=[run], name=name, root=files.root, mailbox=mailbox, resources=resources,
                    timeout=settings.trial_timeout,
                ),
                tune.PlacementGroupFactory([{}, {name: amount for name, amount in resources.items() if amount > 0}]),
            )  # fmt: skip

            def tuner(attempt: int) -> tune.Tuner:
                return tune.Tuner(
                    trainable,
                    tune_config=tune.TuneConfig(
                        search_alg=searcher, num_samples=-1, reuse_actors=True,
                        trial_name_creator=lambda trial: f"trial-{trial.config[TASK].number}",
                        trial_dirname_creator=lambda trial: trial.trial_id,
                    ),
                    run_config=tune.RunConfig(
                        name=f"tune-{attempt}", storage_path=folder, verbose=0,
                        failure_config=tune.FailureConfig(max_failures=0),
                        checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
                    ),
                )  # fmt: skip

            _run_tune(lambda attempt: tuner(attempt).fit(), searcher)

    @contextmanager
    def _driver(self) -> Iterator[tuple[Any, Any]]:
        """The mailbox and the run's files, served from the driver's node, so that no other node can lose them."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        from slimsearch.strategies._ray.evaluation import Mailbox
        from slimsearch.strategies._ray.run_files import FileServer, NodeFolder

        node = ray.get_runtime_context().get_node_id()
        options: dict[str, Any] = {
            "num_cpus": 0, "enable_task_events": False, "max_restarts": -1, "max_task_retries": -1,
            "scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False),
        }  # fmt: skip
        mailbox = ray.remote(Mailbox).options(**options, max_concurrency=10_000).remote()
        folder = self.settings.run_directory
        if folder is None:
            yield mailbox, NodeFolder()
            return
        server = ray.remote(FileServer).options(**options).remote(folder)
        token = folder / f".ray-{secrets.token_hex(8)}"
        token.touch()
        try:
            yield mailbox, NodeFolder(folder, token.name, server)
        finally:
            token.unlink(missing_ok=True)


def keep_until_interrupted() -> None:
    """Wait for Ctrl-C, with the cluster of this process and its dashboard, if there is one."""
    import ray

    if not ray.is_initialized():
        return
    with suppress(KeyboardInterrupt):
        threading.Event().wait()
    ray.shutdown()


def _run_tune(fit: Callable[[int], Any], searcher: TaskSearcher) -> None:
    """Run Tune until the search has ended.

    If Ray kills one of Tune's actors for lack of memory, Tune ends with an unknown error and is restarted.

    Args:
        fit: runs Tune once; its argument is the number of earlier runs.
        searcher: of all runs.

    Raises:
        SlimsearchError: Tune ran out of memory too often without finishing a task, or it ended early.
        KeyboardInterrupt: Ctrl-C was pressed.
    """
    from ray.exceptions import OutOfMemoryError

    restarts = 0
    with _interruptible() as pressed:
        for attempt in itertools.count():
            finished = searcher.finished
            try:
                fit(attempt)
                break
            except RuntimeError as error:
                if not isinstance(error.__cause__, OutOfMemoryError):
                    raise
                searcher.lost()
                if pressed.is_set():
                    break
                restarts = 0 if searcher.finished > finished else restarts + 1
                if restarts > _RESTARTS:
                    raise SlimsearchError(
                        f"Ray has killed Ray Tune's own processes for lack of memory {restarts} times in a row, and no "
                        f"trial was finished in between: free memory or use fewer --workers; {_RESUME}"
                    ) from error
    if searcher.error is not None:
        raise searcher.error
    if pressed.is_set():
        raise KeyboardInterrupt
    if not searcher.ended:
        raise SlimsearchError(f"Ray Tune ended before the search did, without an error; {_RESUME}")


@contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """Context in which Ctrl-C ends Tune by SIGUSR1, which Tune handles; yields an event that is set by Ctrl-C.

    SIGTERM and SIGHUP do the same, unless they are ignored, as by nohup.

    Tune's own handler does not tell that Ctrl-C was pressed, and stays installed. A second Ctrl-C, or one before Tune
    handles SIGUSR1, raises KeyboardInterrupt at once.
    """
    pressed = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # only the main thread can handle signals
        yield pressed
        return
    before = {number: signal.getsignal(number) for number in (*SIGNALS, signal.SIGUSR1)}

    def interrupt(number: int, frame: Any) -> None:
        again = pressed.is_set()
        if again and number != signal.SIGINT:
            return
        pressed.set()
        if again or signal.getsignal(signal.SIGUSR1) == before[signal.SIGUSR1]:
            raise KeyboardInterrupt
        signal.raise_signal(signal.SIGUSR1)

    for number in SIGNALS:
        if before[number] is not signal.SIG_IGN:
            signal.signal(number, interrupt)
    try:
        yield pressed
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
