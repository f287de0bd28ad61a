"""Training of the best subnets of a supernet, and the correlation of inherited and trained accuracy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from slimsearch.evaluators import Outcome, Task
from slimsearch.loop.search import ArchitectureSearch
from slimsearch.record.ranking import Ranking
from slimsearch.record.record import Record
from slimsearch.record.trial import COMPLETE, SEARCH, SUBNET, Trial
from slimsearch.report.run_summary import spearman
from slimsearch.search_spaces import Candidate
from slimsearch.strategies import Failure


class FinalistTraining:
    """Offers the subnets that are best by `ranking` to a search without a sampler, until its budget is spent."""

    def __init__(self, search: ArchitectureSearch, ranking: Ranking, record: Record) -> None:
        self._search, self._ranking, self._record = search, ranking, record
        self._waiting: list[Candidate] | None = None

    @property
    def length(self) -> int:
        return self._search.length

    def ask(self) -> Task | None:
        task = self._search.ask()
        if self._waiting is None:
            subnets = [replace(t, kind=SEARCH) for t in self._record.trials if t.kind == SUBNET]
            # A subnet is more accurate after its own training than with shared weights.
            limits = tuple(limit for limit in self._ranking.limits if limit.metric != self._ranking.leading.metric)
            best = replace(self._ranking, limits=limits).select(subnets, len(subnets))
            self._waiting = [t.candidate for t in best]
        while task is None and self._waiting:
            answer = self._search.offer(self._waiting[0].architecture)
            if answer is None:
                break
            self._waiting.pop(0)
            if isinstance(answer, Task):
                return answer
        if task is None:
            self._search.close()
            task = self._search.ask()  # without new trials, a paused one may be due
        return task

    def report(self, number: int, epoch: int, metrics: Mapping[str, float]) -> bool:
        return self._search.report(number, epoch, metrics)

    def tell(self, number: int, result: Outcome | Failure) -> None:
        self._search.tell(number, result)

    def waits(self) -> bool:
        return self._search.waits()


def rank_correlation(trials: Iterable[Trial], metric: str) -> tuple[float, int] | None:
    """Spearman's correlation of a metric with inherited and with trained weights, and the number of networks.

    None for fewer than 3.
    """
    recorded = tuple(trials)

    def complete(kind: str) -> dict[str, Trial]:
        return {t.candidate.key: t for t in recorded if t.kind == kind and t.state == COMPLETE}

    inherited, trained = complete(SUBNET), complete(SEARCH)
    both = sorted(inherited.keys() & trained.keys())
    pairs = [(inherited[k].metrics[metric], trained[k].metrics[metric]) for k in both]
    correlation = spearman(pairs)
    return None if correlation is None else (correlation, len(pairs))
