"""What evaluates one task somewhere on a Ray cluster: a Ray task of its own, by the trial's name."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from slimsearch.errors import describe_error
from slimsearch.evaluators import Evaluator, Outcome, Task, use_one_thread
from slimsearch.strategies._pool import worker as _worker
from slimsearch.strategies._ray.place import Place, Sender, pack
from slimsearch.strategies._ray.post import Handle, Report
from slimsearch.strategies._strategy import Failure

PROCESS = {"env_vars": {"SLIMSEARCH_TRIALS": "1"}}
"""The environment of processes for trials, so that no actor of Tune's takes one that has been warmed up."""

# The evaluator of the last run that this process worked for, and the bytes it came as.
_kept: tuple[bytes, Evaluator] | None = None


@dataclass(frozen=True)
class Run:
    """What all tasks of a run have in common, as it travels to the nodes.

    Attributes:
        name: of the run.
        imports: where the driver imports from, for what only has a name.
        evaluator: packed.
        place: of its files.
        post: to the driver.
    """

    name: str
    imports: tuple[str, ...]
    evaluator: bytes
    place: Place
    post: Handle

    @classmethod
    def of(cls, name: str, evaluator: Evaluator, place: Place, post: Handle) -> Run:
        """The run of this driver."""
        return cls(name, tuple(entry for entry in sys.path if entry), pack(evaluator, place.root), place, post)


def evaluate(run: Run, task: bytes, title: str, key: str) -> Outcome | Failure:
    """The outcome of a packed task; what it reports goes by post under `key`, and a line of it to this process's log.

    Args:
        run: whose evaluator is kept as long as it is the same, with the data that it has read.
        task: packed.
        title: of the task.
        key: of its post.
    """
    use_one_thread()
    print(f"{title} begins", flush=True)
    run.post.begin.remote(key)
    try:
        evaluator = _evaluator(run)
    except Exception as error:  # what belongs to the user may not load here
        return Failure(f"a worker cannot load the evaluator: {describe_error(error)}")
    here: Task = run.place.load(task, own=lambda loaded: loaded.directory)
    sender = run.place.sender(here.directory)
    with open(os.dup(1), "w", buffering=1, encoding="utf-8") as log:  # before it is redirected to the task's log
        result = _worker.evaluated(evaluator, here, _Reporter(run.post, key, here, sender, log))
    if sender is not None:
        sender.send()
    said = result.error if isinstance(result, Failure) else _text(result.metrics)
    print(f"trial {here.number} ended: {said}", flush=True)
    return result


def warm_up(run: Run) -> None:
    """Have the evaluator loaded in this process before it is needed, with all that it imports."""
    use_one_thread()
    with contextlib.suppress(Exception):  # the trials will say it
        _evaluator(run)


def _evaluator(run: Run) -> Evaluator:
    global _kept
    if _kept is None or _kept[0] != run.evaluator:
        sys.path += [entry for entry in run.imports if entry not in sys.path]
        _kept = run.evaluator, run.place.load(run.evaluator)
    return _kept[1]


def name(run: str, task: Task) -> str:
    """The run, the trial's number and, in short, what it is."""
    values = " ".join(f"{label}={value}" for label, value in task.candidate.architecture.items())
    recipe = "".join(f" + {stage}" for stage in task.candidate.recipe)
    return f"{f'{run}, ' if run else ''}trial {task.number}: {values}{recipe}"


class _Reporter:
    def __init__(self, post: Handle, key: str, task: Task, sender: Sender | None, log: Any) -> None:
        self._post, self._key, self._task, self._sender, self._log = post, key, task, sender, log

    def __call__(self, epoch: int, metrics: Mapping[str, float]) -> bool:
        import ray

        print(f"trial {self._task.number}, epoch {epoch}: {_text(metrics)}", file=self._log)
        if self._sender is not None:
            self._sender.send()  # with the checkpoint, from which the trial goes on if this node is lost
        return bool(ray.get(self._post.report.remote(Report(self._key, epoch, dict(metrics)))))


def _text(metrics: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
