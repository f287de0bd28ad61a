"""Evaluators: data, training, and the accuracy, latency and size of the deployed file."""

from slimsearch.evaluators.deployed.deployed_model import DeployedModel, outputs_of, runtime_version, size_kib
from slimsearch.evaluators.deployed.predictor import Prediction, Predictor
from slimsearch.evaluators.deployed.statistics import (
    PairedDrop,
    confusion,
    judge,
    scores,
    significantly_different,
    wilson,
)
from slimsearch.evaluators.function_evaluator import FunctionEvaluator
from slimsearch.evaluators.latency.boards import Board, BoardsAway, check_boards, connected_boards
from slimsearch.evaluators.latency.measurement import Latency, measure_latency
from slimsearch.evaluators.latency.meter import Meter
from slimsearch.evaluators.latency.predictor import LatencyPredictor
from slimsearch.evaluators.network_evaluator import (
    CHECKPOINT,
    IMPORTS,
    MODEL,
    Architectures,
    Given,
    NetworkEvaluator,
    UserMetric,
    load_arrays,
    load_examples,
    save_arrays,
)
from slimsearch.evaluators.network_pipeline import LatencySettings, NetworkPipeline
from slimsearch.evaluators.objective import (
    COSTS,
    DIRECTIONS,
    Limit,
    Metrics,
    Objective,
    WeightedProduct,
    finite_numbers,
    front,
    hypervolume,
    hypervolumes,
    leading_metric,
    select,
)
from slimsearch.evaluators.supernet.weight_sharing import WeightSharingEvaluator
from slimsearch.evaluators.table_evaluator import TableEvaluator
from slimsearch.evaluators.task import Artifact, Evaluator, Outcome, ReportEpoch, Task
from slimsearch.evaluators.training.function_training import FunctionTraining
from slimsearch.evaluators.training.hardware import device_for, precision_for, processor, use_one_thread
from slimsearch.evaluators.training.network_training import (
    DryRunTraining,
    NetworkTraining,
    StoppedEarly,
    TrainingSettings,
)

__all__ = [
    "CHECKPOINT",
    "COSTS",
    "DIRECTIONS",
    "IMPORTS",
    "MODEL",
    "Architectures",
    "Artifact",
    "Board",
    "BoardsAway",
    "DeployedModel",
    "DryRunTraining",
    "Evaluator",
    "FunctionEvaluator",
    "FunctionTraining",
    "Given",
    "Latency",
    "LatencyPredictor",
    "LatencySettings",
    "Limit",
    "Meter",
    "Metrics",
    "NetworkEvaluator",
    "NetworkPipeline",
    "NetworkTraining",
    "Objective",
    "Outcome",
    "PairedDrop",
    "Prediction",
    "Predictor",
    "ReportEpoch",
    "StoppedEarly",
    "TableEvaluator",
    "Task",
    "TrainingSettings",
    "UserMetric",
    "WeightSharingEvaluator",
    "WeightedProduct",
    "check_boards",
    "confusion",
    "connected_boards",
    "device_for",
    "finite_numbers",
    "front",
    "hypervolume",
    "hypervolumes",
    "judge",
    "leading_metric",
    "load_arrays", "load_examples",
    "measure_latency",
    "outputs_of",
    "precision_for",
    "processor",
    "runtime_version",
    "save_arrays", "scores",
    "select",
    "significantly_different",
    "size_kib",
    "use_one_thread",
    "wilson",
]  # fmt: skip
