"""A candidate in, named numbers out: data, training, the deployed file's accuracy, latency and size."""

from evaluators._accuracy import confusion, told_apart, wilson
from evaluators._classifier import Classifier, Prediction
from evaluators._deployed import RUNTIMES, DeployedModel, runtime_version, size_kib
from evaluators._function_evaluator import FunctionEvaluator
from evaluators._gate import PairedDrop, Verdict, judge
from evaluators._latency import Latency, measure_latency
from evaluators._latency_predictor import LatencyPredictor, Predicted
from evaluators._meter import Meter, user_folder
from evaluators._network_evaluator import (
    CHECKPOINT,
    IMPORTS,
    MODEL,
    Architectures,
    LatencySettings,
    NetworkEvaluator,
    UserMetric,
    load_predictions,
    load_right,
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
    hypervolumes,
    losses,
    ranks,
    select,
)
from evaluators._parity import EXACT, exact_error
from evaluators._precision import precision_for
from evaluators._processor import device_for, processor, use_one_thread
from evaluators._supernet import SharedWeights, Supernet, SupernetEvaluator, recalibrate
from evaluators._supernet_training import SAMPLINGS, train_supernet
from evaluators._table import TableEvaluator
from evaluators._task import Artifact, Evaluator, Outcome, Report, Task
from evaluators._training import ImageTraining, TrainingSettings
from evaluators._weight_sharing import WeightSharingEvaluator

__all__ = [
    "CHECKPOINT", "DIRECTIONS", "EXACT", "IMPORTS", "MODEL", "RUNTIMES", "SAMPLINGS", "Architectures", "Artifact",
    "Classifier", "DeployedModel", "Evaluator", "FunctionEvaluator", "ImageTraining", "Latency", "LatencyPredictor",
    "LatencySettings", "Limit", "Meter", "Metrics", "NetworkEvaluator", "Objective", "Outcome", "PairedDrop",
    "Predicted", "Prediction", "Report", "SharedWeights", "Supernet", "SupernetEvaluator", "TableEvaluator", "Task",
    "TrainingSettings", "UserMetric", "Verdict", "WeightSharingEvaluator", "WeightedProduct", "confusion", "device_for",
    "exact_error", "finite", "front", "hypervolume", "hypervolumes", "judge", "load_predictions", "load_right",
    "losses", "measure_latency", "precision_for", "processor", "ranks", "recalibrate", "runtime_version", "select",
    "size_kib", "told_apart", "train_supernet", "use_one_thread", "user_folder", "wilson",
]  # fmt: skip
