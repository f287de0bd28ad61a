"""What evaluates one task somewhere on a Ray cluster: a Ray task of its own, by the trial's name."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

import cloudpickle

from evaluators import Evaluator, Outcome, Task, use_one_thread
from strategies import _worker
from strategies._ray_post import Handle, Report
from strategies._strategy import Failure

# The evaluator of the last run that this process worked for, and the reference it came by.
_kept: tuple[bytes, Evaluator] | None = None


def packed(evaluator: Evaluator) -> tuple[list[str], bytes]:
    """The evaluator by value, and where the driver imports from, for what only has a name."""
    return [entry for entry in sys.path if entry], cloudpickle.dumps(evaluator)


def evaluate(evaluator: tuple[list[str], bytes], task: Task, run: str, post: Handle, key: str) -> Outcome | Failure:
    """The outcome of `task`; what it reports goes through `post` under `key`, and a line of it to this process's log.

    Args:
        evaluator: `packed`; kept unpickled as long as it is the same, with the data that it has read.
    """
    global _kept
    use_one_thread()
    print(f"{name(run, task)} begins", flush=True)
    post.begin.remote(key)
    path, pickled = evaluator
    if _kept is None or _kept[0] != pickled:
        sys.path += [entry for entry in path if entry not in sys.path]
        try:
            _kept = pickled, cloudpickle.loads(pickled)
        except Exception as error:  # what belongs to the user may not load here
            return Failure(f"a worker cannot load the evaluator: {type(error).__name__}: {error}")
    with open(os.dup(1), "w", buffering=1, encoding="utf-8") as log:  # before it is redirected to the task's log
        result = _worker.evaluated(_kept[1], task, _Reporter(post, key, task, log))
    said = result.error if isinstance(result, Failure) else _text(result.metrics)
    print(f"trial {task.number} ended: {said}", flush=True)
    return result


def name(run: str, task: Task) -> str:
    """The run, the trial's number and, in short, what it is."""
    values = " ".join(f"{label}={value}" for label, value in task.candidate.architecture.items())
    recipe = "".join(f" + {stage}" for stage in task.candidate.recipe)
    return f"{f'{run}, ' if run else ''}trial {task.number}: {values}{recipe}"


class _Reporter:
    def __init__(self, post: Handle, key: str, task: Task, log: Any) -> None:
        self._post, self._key, self._task, self._log = post, key, task, log

    def __call__(self, epoch: int, metrics: Mapping[str, float]) -> bool:
        import ray

        print(f"trial {self._task.number}, epoch {epoch}: {_text(metrics)}", file=self._log)
        return bool(ray.get(self._post.report.remote(Report(self._key, epoch, dict(metrics)))))


def _text(metrics: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
