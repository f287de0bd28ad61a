"""A trained network in, a smaller one out: one stage per file, and the export to the deploy runtime."""

from compression._export import export
from compression._network import Network, Quantization
from compression._recipe import Recipe, apply, changes_cost, groups, parse, remainder, stages
from compression._stage import AfterStep, LossTerm, Stage, Training, TrainingStage, train_together

__all__ = [
    "AfterStep", "LossTerm", "Network", "Quantization", "Recipe", "Stage", "Training", "TrainingStage",
    "apply", "changes_cost", "export", "groups", "parse", "remainder", "stages", "train_together",
]  # fmt: skip
