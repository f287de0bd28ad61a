"""What to cut: how much each weight, or each channel, is worth; one criterion per file."""

from slimsearch.compression.pruning.importances._importance import Importance

__all__ = ["Importance"]
