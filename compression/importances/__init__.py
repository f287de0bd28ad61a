"""What to cut: how much each weight, or each channel, is worth; one criterion per file."""

from compression.importances._importance import Importance

__all__ = ["Importance"]
