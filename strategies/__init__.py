"""How a search is driven, one engine per file, and what to try next, one algorithm per file of `samplers`."""

from strategies._fork_server import begin as begin_workers
from strategies._strategy import Failure, Figures, Recorded, Search, Strategy

__all__ = ["Failure", "Figures", "Recorded", "Search", "Strategy", "begin_workers"]
