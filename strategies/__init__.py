"""Strategies (how a search is driven), one per file; `samplers` propose candidates, `schedulers` stop trials early."""

from slimsearch.strategies._pool.fork_server import begin as begin_workers
from slimsearch.strategies._proposer import Exhausted, Proposer, ProposerSearch
from slimsearch.strategies._strategy import (
    Failure,
    Recorded,
    RunStatus,
    Search,
    Strategy,
    StrategySettings,
    Traits,
    load_strategy,
    traits_of,
)

__all__ = [
    "Exhausted",
    "Failure",
    "Proposer",
    "ProposerSearch",
    "Recorded",
    "RunStatus",
    "Search",
    "Strategy",
    "StrategySettings",
    "Traits",
    "begin_workers",
    "load_strategy",
    "traits_of",
]  # fmt: skip
