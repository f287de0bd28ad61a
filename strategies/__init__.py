"""How a search is driven, one engine per file, and what to try next, one algorithm per file of `samplers`."""

from slimsearch.strategies._pool.fork_server import begin as begin_workers
from slimsearch.strategies._strategy import Failure, Figures, Recorded, Search, Strategy

__all__ = ["Failure", "Figures", "Recorded", "Search", "Strategy", "begin_workers"]
