"""The tasks of a search in Ray Tune: a searcher that gives Tune the tasks, and a trainable that runs them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.search import Searcher

from slimsearch.errors import SlimsearchError, describe_error
from slimsearch.evaluators import Outcome, Task
from slimsearch.running_time import running_seconds
from slimsearch.strategies._ray import evaluation as _evaluation
from slimsearch.strategies._ray.evaluation import EpochReport
from slimsearch.strategies._ray.metrics import Metrics
from slimsearch.strategies._ray.run_files import ActorHandle, pack
from slimsearch.strategies._strategy import Failure, TaskSource

TASK, EVENT = "task", "event"
"""Keys: of the task in a Tune configuration; of an `EpochReport`, `Outcome`, `Failure` or `OutOfMemory` in a result."""


class OutOfMemory:
    """Ray killed the process of a task because its node ran out of memory."""


class TaskSearcher(Searcher):
    """Gives the search's tasks to Tune as configurations, and Tune's results to the search.

    If a node runs out of memory, Ray kills processes there, not always the largest one. A task that was killed waits
    until no other task is left, and then runs alone; if it is killed again, it has failed.

    Args:
        search: called from the thread of Tune's loop.
        mailbox: for the answers to reports.
        limit: number of concurrent tasks; asking later lets the sampler know more results.
        metrics: updated at every event.
        node_lost: whether the driver's own node is lost; trials are then not to blame for their end.

    Attributes:
        finished: number of tasks that have ended without losing their process or actor.
        ended: whether the search has no task left and none is running.
        error: exception of the search, which ends it.
    """

    def __init__(
        self, search: TaskSource, mailbox: ActorHandle, limit: int, metrics: Metrics, node_lost: Callable[[], bool]
    ) -> None:
        super().__init__()
        self._search, self._mailbox, self._limit, self._metrics = search, mailbox, limit, metrics
        self._node_lost = node_lost
        self._running: dict[str, Task] = {}
        self._short_of_memory: set[int] = set()  # trials killed for lack of memory, which must run alone
        self._postponed: list[Task] = []  # their tasks that wait
        self._alone = False  # whether the running task must run alone
        self.finished = 0
        self.ended = False
        self.error: BaseException | None = None

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles it to restore experiments; a run is restored from its study instead.
        return {}

    def __deepcopy__(self, memo: dict[int, Any]) -> TaskSearcher:
        return self

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
        """The next configuration, None if there is none now, or `FINISHED`."""
        self._metrics.refresh()
        if self.error is not None or self.ended:
            return str(Searcher.FINISHED)
        if len(self._running) >= self._limit or self._alone:
            return None
        try:
            task = self._next()
        except BaseException as error:
            self.error = error
            return str(Searcher.FINISHED)
        if task is None and self._postponed and not self._running:
            task = self._postponed.pop(0)
            self._alone = True
        if task is not None:
            self._running[trial_id] = task
            self._metrics.begin(task)
            return {TASK: task}
        if self._running:
            return None
        self.ended = True
        return str(Searcher.FINISHED)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Pass a report to the search, and answer it."""
        report, task = result.get(EVENT), self._running.get(trial_id)
        if task is None or not isinstance(report, EpochReport):
            return
        go_on = False
        try:
            go_on = self._search.report(task.number, report.epoch, report.metrics)
        except BaseException as error:
            self.error = error
        self._mailbox.answer.remote(report.key, go_on)
        self._metrics.report(task, report.epoch, report.metrics)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Pass the result of a task to the search; without a result its actor was lost."""
        task = self._running.pop(trial_id, None)
        if task is None or self.error is not None:
            return
        event = (result or {}).get(EVENT) if not error else None
        if isinstance(event, OutOfMemory):
            event = self._out_of_memory(task)
        self.finished += isinstance(event, Outcome) or (isinstance(event, Failure) and not event.worker_died)
        if not isinstance(event, Outcome | Failure):
            event = Failure("its Ray actor was lost", worker_died=True, blameless=True)
        self._alone = False
        self._metrics.end(task, event)
        if isinstance(event, Failure) and event.worker_died and self._node_lost():
            self.error = SlimsearchError(
                "this machine's Ray node (its raylet) was lost; finished trials are kept, continue with --resume"
            )
            return
        try:
            self._search.tell(task.number, event)
        except BaseException as raised:
            self.error = raised

    def lost(self) -> None:
        """Record that Tune has ended early, and the running tasks with it."""
        for trial_id in list(self._running):
            self.on_trial_complete(trial_id, error=True)

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the study is the only record."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing, see `save`."""

    def _next(self) -> Task | None:
        while True:
            task = self._search.ask()
            if task is None or task.number not in self._short_of_memory:
                return task
            self._postponed.append(task)

    def _out_of_memory(self, task: Task) -> Failure:
        if self._alone:
            self._short_of_memory.discard(task.number)
            return Failure("its node ran out of memory, with no other trial beside it")
        self._short_of_memory.add(task.number)
        return Failure("its node ran out of memory", worker_died=True, blameless=True)


class TaskTrainable(tune.Trainable):
    """An actor that runs one task after the other, each as a Ray task with its own resources and process.

    Each step waits for the next event of the task. The actor is reused for further trials and holds only references.
    Lack of memory or a signal kills the Ray task, not the actor, which reports it.
    """

    def setup(  # type: ignore[override]
        self, config: dict[str, Any], run: list[Any], name: str, root: Path | None, mailbox: ActorHandle,
        resources: dict[str, float], timeout: float | None,
    ) -> None:  # fmt: skip
        """Begin the first task.

        Args:
            config: holds the task.
            run: a list with a reference to the `RunContext`; Ray does not fetch references in a list.
            name, root, mailbox: of the run.
            resources: CPUs and GPUs of each task.
            timeout: seconds after which a task is stopped; None for no limit.
        """
        self._run, self._name, self._root, self._mailbox = run[0], name, root, mailbox
        self._resources, self._timeout = resources, timeout
        self._running: Any = None
        self._evaluate = ray.remote(_evaluation.evaluate)  # once, since Ray distributes the function each time
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begin another trial."""
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Wait for the next event of the task; "done" is true when the task has ended."""
        event = self._next()
        if isinstance(event, EpochReport):
            return {EVENT: event, "done": False}
        self._running = None
        self._mailbox.forget.remote(self._key)
        return {EVENT: event, "done": True}

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        """Do nothing: evaluators write checkpoints to the task's folder."""
        return {}

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Do nothing, see `save_checkpoint`."""

    def cleanup(self) -> None:
        """Cancel the running task."""
        if self._running is not None:
            ray.cancel(self._running, force=True)
            self._running = None

    def _begin(self, config: dict[str, Any]) -> None:
        task: Task = config[TASK]
        # Unique, even if the trial is continued.
        self._key = f"{task.number}-{task.epochs_done}-{time.monotonic_ns()}"
        self._deadline: float | None = None
        title = _evaluation.name(self._name, task)
        evaluate = self._evaluate.options(
            name=title, num_cpus=self._resources["CPU"],
            num_gpus=self._resources.get("GPU", 0), max_retries=0, runtime_env=_evaluation.PROCESS,
        )  # fmt: skip
        self._running = evaluate.remote(self._run, pack(task, self._root), title, self._key)
        self._report = self._mailbox.next.remote(self._key)

    def _next(self) -> EpochReport | Outcome | Failure | OutOfMemory:
        while True:
            left = None if self._deadline is None else max(0.0, self._deadline - running_seconds())
            ready, _ = ray.wait([self._report, self._running], timeout=left)
            if not ready and self._deadline is not None and running_seconds() < self._deadline:
                continue  # this process was suspended
            if self._report not in ready:
                break
            report: EpochReport | None = ray.get(self._report)
            self._report = self._mailbox.next.remote(self._key)
            if report is not None:
                return report
            # The time limit starts now that the task has resources and a process.
            self._deadline = None if self._timeout is None else running_seconds() + self._timeout
        if not ready:
            ray.cancel(self._running, force=True)
            return Failure(f"took longer than --trial-timeout {self._timeout:g} s")
        try:
            result: Outcome | Failure = ray.get(self._running)
            return result
        except ray.exceptions.OutOfMemoryError:
            return OutOfMemory()
        except ray.exceptions.RayError as error:
            blameless = isinstance(error, ray.exceptions.NodeDiedError)
            lost = f"its worker was lost ({describe_error(error)})"
            return Failure(lost, worker_died=True, blameless=blameless)
