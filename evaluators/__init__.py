"""A candidate in, named numbers out: data, training, the deployed file's accuracy, latency and size."""

from slimsearch.evaluators._rehearsal import Rehearsal
from slimsearch.evaluators.deployed.accuracy import confusion, told_apart, wilson
from slimsearch.evaluators.deployed.classifier import Classifier, Prediction
from slimsearch.evaluators.deployed.deployed_model import RUNTIMES, DeployedModel, runtime_version, size_kib
from slimsearch.evaluators.deployed.gate import PairedDrop, Verdict, judge
from slimsearch.evaluators.deployed.parity import EXACT, exact_error
from slimsearch.evaluators.function_evaluator import FunctionEvaluator
from slimsearch.evaluators.latency.measurement import Latency, measure_latency
from slimsearch.evaluators.latency.meter import Meter, user_folder
from slimsearch.evaluators.latency.predictor import LatencyPredictor, Predicted
from slimsearch.evaluators.network_evaluator import (
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
from slimsearch.evaluators.objective import (
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
from slimsearch.evaluators.supernet.supernet import SharedWeights, Supernet, SupernetEvaluator, recalibrate
from slimsearch.evaluators.supernet.training import SAMPLINGS, train_supernet
from slimsearch.evaluators.supernet.weight_sharing import WeightSharingEvaluator
from slimsearch.evaluators.table_evaluator import TableEvaluator
from slimsearch.evaluators.task import Artifact, Evaluator, Outcome, Report, Task
from slimsearch.evaluators.training.image_training import ImageTraining, TrainingSettings
from slimsearch.evaluators.training.precision import precision_for
from slimsearch.evaluators.training.processor import device_for, processor, use_one_thread

__all__ = [
    "CHECKPOINT", "DIRECTIONS", "EXACT", "IMPORTS", "MODEL", "RUNTIMES", "SAMPLINGS", "Architectures", "Artifact",
    "Classifier", "DeployedModel", "Evaluator", "FunctionEvaluator", "ImageTraining", "Latency", "LatencyPredictor",
    "LatencySettings", "Limit", "Meter", "Metrics", "NetworkEvaluator", "Objective", "Outcome", "PairedDrop",
    "Predicted", "Prediction", "Rehearsal", "Report", "SharedWeights", "Supernet", "SupernetEvaluator",
    "TableEvaluator", "Task", "TrainingSettings", "UserMetric", "Verdict", "WeightSharingEvaluator", "WeightedProduct",
    "confusion", "device_for", "exact_error", "finite", "front", "hypervolume", "hypervolumes", "judge",
    "load_predictions", "load_right", "losses", "measure_latency", "precision_for", "processor", "ranks", "recalibrate",
    "runtime_version", "select", "size_kib", "told_apart", "train_supernet", "use_one_thread", "user_folder", "wilson",
]  # fmt: skip
