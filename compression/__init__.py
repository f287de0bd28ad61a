"""A trained network in, a smaller one out: one stage per file, and the export to the deploy runtime."""

from compression import _telemetry  # noqa: F401 - before ONNX Runtime is imported anywhere
from compression._export import export
from compression._network import Network
from compression._one_file import read_onnx
from compression._packing import pack, unpack
from compression._plan import LearnedRange, Quantization
from compression._recipe import (
    Recipe,
    apply,
    changes_cost,
    groups,
    parse,
    remainder,
    shipped,
    stages,
    steps,
    text_of,
    with_option,
)
from compression._stage import AfterStep, LossTerm, Part, Stage, Training, TrainingStage, train_together

__all__ = [
    "AfterStep", "LearnedRange", "LossTerm", "Network", "Part", "Quantization", "Recipe", "Stage", "Training",
    "TrainingStage", "apply", "changes_cost", "export", "groups", "pack", "parse", "read_onnx", "remainder", "shipped",
    "stages", "steps", "text_of", "train_together", "unpack", "with_option",
]  # fmt: skip
