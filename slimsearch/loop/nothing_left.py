"""Why a search has ended without a candidate to offer."""

from __future__ import annotations

from slimsearch.errors import SlimsearchError
from slimsearch.record.ranking import Ranking
from slimsearch.record.record import Record
from slimsearch.record.trial import COMPLETE, FAILED, PAUSED, SEARCH, SUBNET


def refuse_if_nothing_is_left(ranking: Ranking, record: Record) -> None:
    """Explain a search that ended without a single candidate to offer.

    Raises:
        SlimsearchError: every trial failed, or no candidate keeps the limits; the line says how near they came.
    """
    trials = [t for t in record.standing if t.kind == SEARCH]
    if ranking.feasible(trials):
        return
    trials = trials or [t for t in record.trials if t.kind == SUBNET]  # none of which came so far as to be trained
    if not trials:
        raise SlimsearchError("no candidate was begun: --timeout was over before the first one")
    failed = [t for t in trials if t.state == FAILED]
    if len(failed) == len(trials):
        raise SlimsearchError(f"all {len(failed)} trials failed; the first one: {failed[0].error}")
    if any(t.state == PAUSED for t in trials) and not any(t.state == COMPLETE for t in trials):
        raise SlimsearchError("no candidate was trained to the end: --timeout was over before; go on with --resume")
    for limit in ranking.limits:
        values = [t.metrics[limit.metric] for t in trials if limit.metric in t.metrics]
        if values and all(limit.broken({limit.metric: value}) for value in values):
            best = min(values) if limit.upper else max(values)
            raise SlimsearchError(
                f"no candidate meets {limit.flag} {limit.bound:g}: the best of {len(values)} has "
                f"{limit.metric} {best:.6g}"
            )
    flags = " and ".join(f"{limit.flag} {limit.bound:g}" for limit in ranking.limits)
    raise SlimsearchError(f"no candidate meets {flags} at once ({len(trials)} tried)")
