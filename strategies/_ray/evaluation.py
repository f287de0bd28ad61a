"""Evaluation of a task in a Ray task, and the mailbox between the task and the driver."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from slimsearch.errors import describe_error
from slimsearch.evaluators import Evaluator, Outcome, Task, use_one_thread
from slimsearch.strategies._pool import worker as _worker
from slimsearch.strategies._pool.trial_log import candidate_line, metrics_line
from slimsearch.strategies._ray.run_files import ActorHandle, NodeFolder, Uploader, pack
from slimsearch.strategies._strategy import Failure

PROCESS = {"env_vars": {"SLIMSEARCH_TRIALS": "1"}}
"""Runtime environment of trials, so that Tune's actors do not take the warmed-up processes."""

# The evaluator of this process's last run, and its packed bytes.
_cached: tuple[bytes, Evaluator] | None = None


@dataclass(frozen=True)
class EpochReport:
    """A finished epoch of the task with this key, which waits for an answer."""

    key: str
    epoch: int
    metrics: Mapping[str, float]


class Mailbox:
    """An actor with a queue of reports and a queue of answers for each running task."""

    def __init__(self) -> None:
        self._reports: dict[str, asyncio.Queue[EpochReport | None]] = defaultdict(asyncio.Queue)
        self._answers: dict[str, asyncio.Queue[bool]] = defaultdict(asyncio.Queue)

    async def begin(self, key: str) -> None:
        """Announce that the task has a process and begins."""
        await self._reports[key].put(None)

    async def report(self, report: EpochReport) -> bool:
        """Send a report and wait for the answer: whether the task continues."""
        await self._reports[report.key].put(report)
        return await self._answers[report.key].get()

    async def next(self, key: str) -> EpochReport | None:
        """Wait for the next report; the first one is None and means that the task begins."""
        return await self._reports[key].get()

    async def answer(self, key: str, go_on: bool) -> None:
        """Answer a report: whether the task continues."""
        await self._answers[key].put(go_on)

    async def forget(self, key: str) -> None:
        """Remove the queues of an ended task, and release the calls that wait for them."""
        if reports := self._reports.pop(key, None):
            reports.put_nowait(None)
        if answers := self._answers.pop(key, None):
            answers.put_nowait(False)


@dataclass(frozen=True)
class RunContext:
    """The common data of all tasks of a run, sent to the nodes.

    Attributes:
        name: of the run.
        imports: the driver's `sys.path`, for modules that are pickled by name.
        evaluator: packed, see `pack`.
        folder: of the run's files.
        mailbox: between tasks and driver.
    """

    name: str
    imports: tuple[str, ...]
    evaluator: bytes
    folder: NodeFolder
    mailbox: ActorHandle

    @classmethod
    def of(cls, name: str, evaluator: Evaluator, folder: NodeFolder, mailbox: ActorHandle) -> RunContext:
        """The context of the run that this process drives."""
        return cls(name, tuple(entry for entry in sys.path if entry), pack(evaluator, folder.root), folder, mailbox)


def evaluate(run: RunContext, task: bytes, title: str, key: str) -> Outcome | Failure:
    """Evaluate a packed task, with reports to the mailbox and to this process's log.

    Args:
        run: the run, whose evaluator this process caches with its data.
        task: packed, see `pack`.
        title: name of the task in the log.
        key: key of the task in the mailbox.
    """
    use_one_thread()
    print(f"{title} begins", flush=True)
    run.mailbox.begin.remote(key)
    try:
        evaluator = _evaluator(run)
    except Exception as error:  # user code may fail to load
        return Failure(f"a worker cannot load the evaluator: {describe_error(error)}")
    loaded: Task = run.folder.load(task, own=lambda loaded: loaded.directory)
    uploader = run.folder.uploader(loaded.directory)
    with open(os.dup(1), "w", buffering=1, encoding="utf-8") as log:  # before it is redirected to the task's log
        result = _worker.evaluated(evaluator, loaded, _Reporter(run.mailbox, key, loaded, uploader, log))
    if uploader is not None:
        uploader.send()
    summary = result.error if isinstance(result, Failure) else metrics_line(result.metrics)
    print(f"trial {loaded.number} ended: {summary}", flush=True)
    return result


def warm_up(run: RunContext) -> None:
    """Load the evaluator and its imports in this process ahead of the first trial."""
    use_one_thread()
    with contextlib.suppress(Exception):  # the trials report it
        _evaluator(run)


def _evaluator(run: RunContext) -> Evaluator:
    global _cached
    if _cached is None or _cached[0] != run.evaluator:
        sys.path += [entry for entry in run.imports if entry not in sys.path]
        _cached = run.evaluator, run.folder.load(run.evaluator)
    return _cached[1]


def name(run: str, task: Task) -> str:
    """The name of a trial's Ray task: the run, the trial's number and its candidate."""
    return f"{f'{run}, ' if run else ''}trial {task.number}: {candidate_line(task.candidate)}"


class _Reporter:
    def __init__(self, mailbox: ActorHandle, key: str, task: Task, uploader: Uploader | None, log: Any) -> None:
        self._mailbox, self._key, self._task, self._uploader, self._log = mailbox, key, task, uploader, log

    def __call__(self, epoch: int, metrics: Mapping[str, float]) -> bool:
        import ray

        print(f"trial {self._task.number}, epoch {epoch}: {metrics_line(metrics)}", file=self._log)
        if self._uploader is not None:
            self._uploader.send()  # including the checkpoint, from which a retry continues if this node is lost
        return bool(ray.get(self._mailbox.report.remote(EpochReport(self._key, epoch, dict(metrics)))))
