"""A candidate in, named numbers out: data, training, the deployed file's accuracy, latency and size."""

from evaluators._artifact import DeployedModel, Latency, measure_latency, size_kib
from evaluators._gate import PairedDrop, Verdict, judge
from evaluators._meter import Meter
from evaluators._network_evaluator import (
    CHECKPOINT,
    MODEL,
    Architectures,
    LatencySettings,
    NetworkEvaluator,
    UserMetric,
    load_predictions,
)
from evaluators._objective import (
    DIRECTIONS,
    Limit,
    Metrics,
    Objective,
    WeightedProduct,
    finite,
    front,
    hypervolume,
    losses,
    ranks,
    select,
)
from evaluators._processor import device_for, precision_for, use_one_thread
from evaluators._task import Artifact, Evaluator, Outcome, Report, Task
from evaluators._training import ImageTraining, TrainingSettings

__all__ = [
    "CHECKPOINT", "DIRECTIONS", "MODEL", "Architectures", "Artifact", "DeployedModel", "Evaluator", "ImageTraining",
    "Latency", "LatencySettings", "Limit", "Meter", "Metrics", "NetworkEvaluator", "Objective", "Outcome", "PairedDrop",
    "Report", "Task", "TrainingSettings", "UserMetric", "Verdict", "WeightedProduct", "device_for", "finite", "front",
    "hypervolume", "judge", "load_predictions", "losses", "measure_latency", "precision_for", "ranks", "select",
    "size_kib", "use_one_thread",
]  # fmt: skip
