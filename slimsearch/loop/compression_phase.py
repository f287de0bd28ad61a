"""Compression of the best networks after the search; each group of stages is kept or rejected."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from slimsearch import compression
from slimsearch.evaluators import Outcome, PairedDrop, judge, load_examples
from slimsearch.evaluators.tasks import LearningTask
from slimsearch.loop.phases import PlannedPhase
from slimsearch.record.lineage import teacher
from slimsearch.record.ranking import Ranking
from slimsearch.record.record import Record
from slimsearch.record.run_directory import RunDirectory
from slimsearch.record.trial import COMPLETE, COMPRESSION, REJECTED, RUNNING, SEARCH, Trial
from slimsearch.search_spaces import Candidate

_SIZES = ("size_kib", "ram_kib", "flash_kib")


class CompressionPhase(PlannedPhase):
    """Evaluates the `top_k` best architectures again, with a recipe, starting from their trained networks.

    Each group of stages is a trial: its file is scored and compared with the file that it started from. A rejected
    network stays in the record; the next group starts from the last accepted network.

    Args:
        recipe: stages in order; may be empty.
        top_k: number of search trials to compress.
        max_drop: in percentage points, see `slimsearch.evaluators.judge`; None: all groups are kept.
        ranking: of the trials, with the targets of the finished search.
        record, directory, seed, retries: see `PlannedPhase`.
        task: what is learned.
    """

    kind = COMPRESSION

    def __init__(
        self,
        recipe: compression.Recipe,
        *,
        top_k: int,
        max_drop: float | None,
        ranking: Ranking,
        record: Record,
        directory: RunDirectory,
        task: LearningTask,
        seed: int,
        retries: int = 1,
    ) -> None:
        super().__init__(record, directory, seed, teacher(ranking, record, directory), retries)
        self._groups = recipe.groups
        self._max_drop = max_drop
        self._ranking = ranking
        self._learned = task
        searched = [t for t in record.trials if t.kind == SEARCH]
        # A given network is compressed even if it breaks a limit.
        given = [t for t in searched if t.given and t.state == COMPLETE]
        self._parents = (given or ranking.select(searched, top_k)) if self._groups else []

    @property
    def length(self) -> int:
        """Number of trials of the phase."""
        return len(self._parents) * len(self._groups)

    def _begin(self) -> Trial | None:
        # Networks whose last group is still running have no next group.
        for parent in self._parents:
            current, group = self._position(parent)
            if group is None:
                continue
            recipe = {**current.candidate.recipe, **group.to_dict()}
            return self._record.start(
                replace(current.candidate, recipe=recipe),
                kind=COMPRESSION,
                fidelity=current.fidelity,
                seed=self._seed,
                parent=current.number,
            )
        return None

    def _finish(self, number: int, outcome: Outcome) -> None:
        """Keep or reject the network."""
        trial = self._record.trials[number]
        assert trial.parent is not None
        parent = self._record.trials[trial.parent]
        recipe, before = (compression.Recipe.from_dict(t.candidate.recipe) for t in (trial, parent))
        start = {k.removeprefix("start_"): v for k, v in outcome.metrics.items() if k.startswith("start_")}
        verdict = judge(
            {**parent.metrics, **start},
            outcome.metrics,
            PairedDrop.of(self._learned, self._examples(parent.number), self._examples(number)),
            max_drop=math.inf if self._max_drop is None else self._max_drop,
            # A limit that the parent breaks may be met by a later group.
            limits=[limit for limit in self._ranking.limits if limit.broken(parent.metrics) is None],
            product=self._ranking.product(self._record.trials),
            changes_cost=recipe.remainder(before).changes_cost,
            size_counts=any(one.metric in _SIZES for one in self._ranking.objectives)
            or any(one.metric in _SIZES for one in self._ranking.limits),
        )
        self._record.finish(
            number,
            outcome,
            state=COMPLETE if verdict.kept or self._max_drop is None else REJECTED,
            reason=verdict.reason + _pruned(outcome.metrics, parent.metrics),
            violations=self._ranking.violations(outcome.metrics),
        )

    def _examples(self, number: int) -> np.ndarray[Any, np.dtype[Any]]:
        return load_examples(self._directory.trial_directory(number))

    def _position(self, parent: Trial) -> tuple[Trial, compression.StageGroup | None]:
        """The last accepted network, and its next group; None if all groups are done, or one is running."""
        current = parent
        for group in self._groups:
            wanted = replace(current.candidate, recipe={**current.candidate.recipe, **group.to_dict()})
            trial = self._find(current.number, wanted)
            if trial is None:
                return current, group
            if trial.state == RUNNING:
                return current, None
            if trial.state == COMPLETE:
                current = trial
        return current, None

    def _find(self, parent: int, candidate: Candidate) -> Trial | None:
        trials: Sequence[Trial] = self._record.standing
        return next((t for t in trials if t.parent == parent and t.candidate == candidate), None)


def _pruned(metrics: Mapping[str, float], before: Mapping[str, float]) -> str:
    """The share of channels that a pruning has removed, and the one asked for."""
    if "channels_removed" not in metrics or metrics["channels_removed"] == before.get("channels_removed"):
        return ""
    asked = f", {metrics['channels_asked']:.0%} asked" if "channels_asked" in metrics else ""
    return f"; {metrics['channels_removed']:.0%} of the channels removed{asked}"
