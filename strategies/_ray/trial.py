"""A trial as Ray Tune knows it: an actor that has one task after the other evaluated, each by a Ray task of its own."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import ray
from ray import tune

from slimsearch.errors import describe_error
from slimsearch.evaluators import Outcome, Task
from slimsearch.strategies._ray import evaluation as _ray_evaluation
from slimsearch.strategies._ray.place import pack
from slimsearch.strategies._ray.post import Handle, Report
from slimsearch.strategies._strategy import Failure

TASK, EVENT = "task", "event"
"""In a configuration of Tune's: the task; in a result: a `Report`, an `Outcome`, a `Failure` or `OutOfMemory`."""


class OutOfMemory:
    """How a task ended: Ray killed its process, memory being short on its node, whoever took it."""


class Trial(tune.Trainable):
    """Each step waits for the next thing that happens to the task, which has resources and a process of its own.

    The actor is used again for further trials and holds nothing but references. What makes a worker's process die,
    be it memory or a signal, kills the Ray task and not the actor, which says so.
    """

    def setup(  # type: ignore[override]
        self, config: dict[str, Any], run: list[Any], name: str, root: Path | None, post: Handle,
        resources: dict[str, float], timeout: float | None,
    ) -> None:  # fmt: skip
        """Begin; arguments but the first are the same for all tasks of a run.

        Args:
            config: has the task.
            run: a list with a reference to the `Run`, so that it is not fetched here.
            name, root, post: of the run.
            resources: of each task: CPUs and GPUs.
            timeout: seconds after which a task is ended; None: never.
        """
        self._run, self._name, self._root, self._post = run[0], name, root, post
        self._resources, self._timeout = resources, timeout
        self._running: Any = None
        self._evaluate = ray.remote(_ray_evaluation.evaluate)  # made once: Ray sends it round each time it is made
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begin another trial."""
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Wait; the result is done with the task's end."""
        event = self._next()
        if isinstance(event, Report):
            return {EVENT: event, "done": False}
        self._running = None
        self._post.forget.remote(self._key)
        return {EVENT: event, "done": True}

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        """Nothing: an evaluator keeps its checkpoints in the task's folder."""
        return {}

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing, likewise."""

    def cleanup(self) -> None:
        """End what is running."""
        if self._running is not None:
            ray.cancel(self._running, force=True)
            self._running = None

    def _begin(self, config: dict[str, Any]) -> None:
        task: Task = config[TASK]
        # Also of a trial that is continued, no two tasks have the same.
        self._key = f"{task.number}-{task.epochs_done}-{time.monotonic_ns()}"
        self._deadline: float | None = None
        title = _ray_evaluation.name(self._name, task)
        evaluate = self._evaluate.options(
            name=title, num_cpus=self._resources["CPU"],
            num_gpus=self._resources.get("GPU", 0), max_retries=0, runtime_env=_ray_evaluation.PROCESS,
        )  # fmt: skip
        self._running = evaluate.remote(self._run, pack(task, self._root), title, self._key)
        self._report = self._post.next.remote(self._key)

    def _next(self) -> Report | Outcome | Failure | OutOfMemory:
        while True:
            left = None if self._deadline is None else max(0.0, self._deadline - time.monotonic())
            ready, _ = ray.wait([self._report, self._running], timeout=left)
            if self._report not in ready:
                break
            report: Report | None = ray.get(self._report)
            self._report = self._post.next.remote(self._key)
            if report is not None:
                return report
            # To find room and to start a process takes none of its time.
            self._deadline = None if self._timeout is None else time.monotonic() + self._timeout
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
