"""The options of a run, with the same names on the command line, in YAML and in Python."""

from __future__ import annotations

import dataclasses
import enum
import math
import numbers
import operator
import os
import re
import reprlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from slimsearch.errors import SlimsearchError, did_you_mean
from slimsearch.files import write_text
from slimsearch.names import absolute as absolute_code
from slimsearch.names import published
from slimsearch.reading import mismatch, read_yaml
from slimsearch.runtimes import ON_ONNX, RUNTIMES, SUFFIXES

FORMAT = 1
"""Version of the layout of a run directory."""

# Options that may change when a run is resumed.
RESUMABLE = (
    "trials", "timeout", "repeats", "workers", "trial_timeout", "retries", "stop_at", "patience", "ray_address",
    "cpus_per_trial", "gpus_per_trial", "keep_dashboard", "storage", "log", "prefer", "device_host",
)  # fmt: skip

# An address must not look like an option of ssh.
_ADDRESS, _BOARD_NAME = re.compile(r"[^-\s][^\s\x00-\x1f]*"), re.compile(r"\w[\w .-]{0,39}")
# Removed options, and the values with which runs of older versions can be resumed.
_REMOVED = {"early_resolution": 1.0, "zero_cost": "none", "inherit_weights": False}


FROM_PYTHON = "<python>"
"""Placeholder for an object passed from Python; for a space, ``:`` and its name follow."""
CHOICES, SPACE_OBJECT = "choices", "space"
"""Names of spaces passed from Python that are not classes."""
TORCHVISION, TIMM, EXPORTED = "torchvision:", "timm:", ".pt2"
"""Prefixes of the names of torchvision's and timm's models, and the suffix of programs of torch.export."""
OF_DATASET = "dataset"
"""Value of ``--mean`` and ``--std`` for those of the training images."""
HUGGING_FACE = "hf:"
"""Prefix of the names of data sets of Hugging Face."""
DATA_FILES = (".npz", ".npy", ".csv", ".tsv", ".parquet")
"""Endings of the files of data sets."""

BUILT_INS = {
    "space": "slimsearch.search_spaces",
    "strategy": "slimsearch.strategies",
    "sampler": "slimsearch.strategies.samplers",
    "scheduler": "slimsearch.strategies.schedulers",
    "dataset": "slimsearch.evaluators.datasets",
    "task": "slimsearch.evaluators.tasks",
    "log": "slimsearch.report.loggers",
}
"""Packages of the built-ins that options name."""
# Options whose whole value may be the name of a built-in, and not that of a folder.
_ONE_NAME = ("space", "strategy", "sampler", "scheduler", "task")

FINE_TUNING: dict[str, Any] = {"learning_rate": 1e-3, "normalise": "none"}
"""Defaults for a network that is trained already: small steps, and no layers are inserted."""


def _path(text: str) -> str:
    return str(Path(text).expanduser().resolve())


def _code_or_table(text: str) -> str:
    return _path(text) if text.endswith(".csv") else absolute_code(text)


def _code_in_schedulers(text: str) -> str:
    # A path ends at the options of its scheduler, or at the next scheduler.
    return re.sub(r"[^:+]+\.py:[^:+]+", lambda found: absolute_code(found[0]), text)


def _code_in_augmentation(text: str) -> str:
    return "+".join(absolute_code(step.strip()) for step in text.split("+"))


def _code_of_metrics(text: str) -> str:
    pairs = (entry.partition("=") for entry in text.split(","))
    return ",".join(f"{name}{equals}{absolute_code(location.strip())}" for name, equals, location in pairs)


def _data(text: str) -> str:
    is_file = text.lower().endswith(DATA_FILES) and Path(text).expanduser().is_file()
    is_folder = ("/" in text or "\\" in text) and Path(text).expanduser().is_dir()
    if text.startswith(HUGGING_FACE):
        return text
    return _path(text) if is_file or is_folder else absolute_code(text)


def _file_or_name(text: str) -> str:
    return _path(text) if text.endswith((".yaml", ".yml")) else text


def _file_or_torchvision(text: str) -> str:
    return text if text.startswith(TORCHVISION) else _path(text)


def run_and_trial(model: str) -> tuple[str, int] | None:
    """The run directory and the number of the trial of a model such as ``runs/x:7``; None for other models."""
    directory, _, number = model.rpartition(":")
    return (directory, int(number)) if directory and number.isdecimal() else None


class ModelKind(enum.Enum):
    """Where the network of ``--model`` comes from."""

    PYTHON = "passed from Python"
    RUN = "a trial of a run"
    TORCHVISION = "torchvision"
    TIMM = "timm"
    PROGRAM = "a program of torch.export"
    CODE = "a function or class of the user's"

    @classmethod
    def of(cls, model: str) -> ModelKind:
        """The kind of the network called `model`, by its name alone."""
        if model.partition(":")[0] == FROM_PYTHON:
            return cls.PYTHON
        if run_and_trial(model) is not None:
            return cls.RUN
        if model.startswith((TORCHVISION, TIMM)):
            return cls.TORCHVISION if model.startswith(TORCHVISION) else cls.TIMM
        return cls.PROGRAM if model.endswith(EXPORTED) else cls.CODE


def _model(text: str) -> str:
    kind = ModelKind.of(text)
    if kind is ModelKind.RUN:
        directory, _, number = text.rpartition(":")
        return f"{_path(directory)}:{number}"
    if kind is ModelKind.PROGRAM:
        return _path(text)
    return absolute_code(text) if kind is ModelKind.CODE else text


def _option(default: Any, text: str, absolute: Callable[[str], str] | None = None, *, values: bool = False) -> Any:
    """A field with its help line.

    Args:
        default: of the field.
        text: the help.
        absolute: makes the paths in a value absolute.
        values: whether the text has several values, separated by commas.
    """
    return field(default=default, metadata={"help": text, "absolute": absolute, "values": values})


DEFAULT_OBJECTIVES = "val_accuracy,latency_ms,size_kib"
"""With another task than classification, its leading metric is in place of the accuracy."""


@dataclass(frozen=True)
class Configuration:
    """The resolved options of a run."""

    space: str = _option(
        "",
        "a built-in space, or path/to/file.py:name or package.module:name of a function (define(trial), or with "
        "choices as parameters) or of an NNI ModelSpace",
        absolute_code,
    )
    architectures: str | None = _option(
        None,
        "train only these architectures: a run directory, a top_models.json, or a file with dicts from choice to value",
    )
    strategy: str = _option("optuna", "engine that drives the search", absolute_code)
    sampler: str = _option(
        "graph_gp",
        "sampler that proposes candidates: a built-in, a class of Optuna, or path/to/file.py:Class",
        absolute_code,
    )
    scheduler: str = _option(
        "none",
        "ends unpromising trainings early; with options such as asha:eta=3, several joined by +",
        _code_in_schedulers,
    )
    evaluator: str = _option(
        "network",
        "network (train and export), table.csv, or path/to/file.py:function, which returns the metrics of a candidate",
        _code_or_table,
    )
    model: str | None = _option(None, "a trained network in place of --space, see slimsearch compress", _model)
    elastic: bool = _option(False, "also search the numbers of channels and blocks of the given network")
    dataset: str = _option(
        "mnist5k",
        "a built-in data set, an image folder, an .npz file, a table (.csv, .tsv, .parquet), hf:NAME (Hugging Face), "
        "or path/to/file.py:function",
        _data,
    )
    target_column: str | None = _option(
        None, "of a table or hf:NAME: the column to predict, or several, comma separated", values=True
    )
    group_by: str | None = _option(
        None, "of a table or hf:NAME: a column such as the patient; rows with the same value are in the same split"
    )
    data_root: str | None = _option(None, "folder with the files of mnist, fashion_mnist or cifar10", _path)
    download: bool = _option(False, "download the data set into --data-root if it is not there")
    image_size: str | None = _option(None, "resize every image: side of a square in pixels, or WIDTHxHEIGHT")
    task: str = _option("classification", "learning task, or path/to/file.py:Class", absolute_code)
    input_kind: str = _option(
        "auto", "kind of arrays: image, signal (channels, length), table, or auto (by shape and values)"
    )
    fit: str | None = _option(
        None, "a function fit(model, epochs, report) that trains networks: path/to/file.py:name", absolute_code
    )
    score: str | None = _option(
        None,
        "of --fit or --lightning: a function score(predict) that returns the metrics: path/to/file.py:name",
        absolute_code,
    )
    lightning: str | None = _option(
        None, "a function that returns a LightningModule and data for a network: path/to/file.py:name",
        absolute_code,
    )  # fmt: skip
    class_weights: str = _option(
        "none", "class weights in the loss: none, or balanced, so that rare classes count as much as others"
    )
    label_smoothing: float = _option(
        0.0, "of --task classification: share of the target probability spread over all classes"
    )
    drop_duplicates: bool = _option(
        False, "drop copies of other images from training, and copies of test images from validation"
    )
    mean: str | None = _option(
        None,
        "normalization of images: mean of pixel / 255, one number or one per channel; by default the data set's",
        values=True,
    )
    std: str | None = _option(None, "normalization of images: standard deviation, as for --mean", values=True)
    objectives: str = _option(
        DEFAULT_OBJECTIVES,
        "one or more metrics, comma separated; your own with a direction, such as energy:min",
        values=True,
    )
    objective: str = _option("pareto", "pareto (a front), or weighted (the product of MnasNet)")
    weights: str | None = _option(
        None, "exponents of the weighted product, such as latency_ms=-0.07,size_kib=-0.07", values=True
    )
    targets: str | None = _option(
        None,
        "targets of the weighted product, such as latency_ms=0.1; by default medians of the first ten candidates",
        values=True,
    )
    max_latency_ms: float | None = _option(None, "hard limit on the latency of the file")
    max_size_kib: float | None = _option(None, "hard limit on the size of the file")
    max_ram_kib: float | None = _option(None, "hard limit on the static memory of the C file, for its activations")
    max_flash_kib: float | None = _option(None, "hard limit on the constants of the C file: weights, scales, tables")
    target: str | None = _option(
        None,
        "target device: cortex-m4, cortex-m7, raspberry-pi-4 or a YAML file; sets limits on RAM and flash, "
        "--latency-threads, and the default format of slimsearch export",
        _file_or_name,
    )
    device_host: str | None = _option(
        None,
        "measure latency on a board over SSH: user@board or NAME=user@board, several comma separated, or none (this "
        "machine); addresses are not stored",
        values=True,
    )
    max_params: float | None = _option(None, "hard limit on the number of parameters")
    max_macs: float | None = _option(None, "hard limit on multiply-accumulates for one image")
    min_accuracy: float | None = _option(
        None, "minimum validation accuracy, between 0 and 1, or minimum of another leading metric"
    )
    prefer: str = _option(
        "balanced",
        "the model of the front that is recommended: balanced (the knee), or the best in one objective: accuracy, "
        "small or fast",
    )
    metrics: str | None = _option(
        None,
        "your own metrics, such as energy=path/to/file.py:function (called with the exported file and the data set)",
        _code_of_metrics,
        values=True,
    )
    trials: int = _option(20, "candidates to train; recipes that need no further training are not counted")
    timeout: float | None = _option(None, "seconds after which no more candidates are started")
    stop_at: str | None = _option(None, "end the search when a candidate reaches this goal, such as val_accuracy=0.99")
    patience: int | None = _option(None, "end the search after this many trials without a gain in hypervolume")
    epochs: int = _option(5, "epochs of training for each candidate")
    subnets: int = _option(
        200, "of --strategy supernet: number of subnets that are scored before --trials of them are trained"
    )
    supernet_epochs: int = _option(25, "of --strategy supernet: epochs of the supernet's training")
    supernet_sampling: str = _option("sandwich", "of --strategy supernet: sandwich, fair or random")
    seed: int = _option(0, "seed of the run")
    workers: int = _option(0, "worker processes; 0: cores divided by --training-threads")
    ray_address: str | None = _option(
        None, "of --strategy ray: address of a running cluster, or auto; by default a local one is started"
    )
    cpus_per_trial: float = _option(1.0, "of --strategy ray: CPUs per trial, see --training-threads")
    gpus_per_trial: float = _option(0.0, "of --strategy ray: GPUs per trial; fractions are allowed")
    trial_timeout: float | None = _option(None, "seconds after which a trial is stopped and counts as failed")
    retries: int = _option(1, "retries of a trial after its worker process died")
    top_k: int = _option(5, "number of the best candidates that are compressed after the search")
    compress: str = _option(
        "prune,distill,quantize",
        "stages after the search, with options such as prune:sparsity=0.6:epochs=4,distill,quantize; or none",
        values=True,
    )
    int8_target: str = _option(
        "any",
        "of int8 files: any (the same results on every x86 processor) or vnni (finer weights, for newer processors)",
    )
    max_drop: float | None = _option(
        0.5,
        "maximum loss of validation accuracy (or of the task's leading metric) of a kept stage, in percentage points",
    )
    co_search: str | None = _option(
        None,
        "search compression recipes together with architectures, in place of --compress: default, precision (number "
        "formats only), or a YAML file with the choices",
    )
    search_hyperparameters: bool = _option(
        False, "also search the learning rate, augmentation and warm-up of the training"
    )
    repeats: int = _option(1, "trainings of each finalist in total, with different seeds; mean and spread are reported")
    device: str = _option("auto", "device for training: auto, cpu or cuda; files are deployed on the CPU")
    precision: str = _option(
        "auto", "of training: fp32, bf16, mixed (the faster one for each network), or auto (mixed where there is bf16)"
    )
    training_threads: int = _option(
        1, "threads per training; more than 1 helps if there are fewer candidates than cores"
    )
    batch_size: int = _option(64, "images per training step")
    learning_rate: float | None = _option(
        None,
        "peak learning rate of the one-cycle schedule; by default 0.01, up to 0.03 for networks with fewer than 10,000 "
        "parameters",
    )
    warm_up: float = _option(0.25, "share of the training in which the learning rate rises to its peak")
    weight_decay: float = _option(0.01, "weight decay of AdamW, for weights with more than one dimension")
    init: str | None = _option(
        None,
        "initial weights of every network, where they fit: a .safetensors or .pth file, or torchvision:resnet18 from "
        "torchvision's cache (--download fetches it)",
        _file_or_torchvision,
    )
    epoch_images: int | None = _option(
        None,
        "images per epoch; by default the training split. With fewer, --scheduler decides sooner",
    )
    normalise: str = _option(
        "folded",
        "folded: train with batch normalization after layers that have none and then fold it into them, which needs "
        "fewer epochs; or none",
    )
    augment: str = _option(
        "auto",
        "augmentation: none, shift, shift-flip, or auto (by data set); add others with +, such as auto+cutout: "
        "randaugment, cutout, mixup, cutmix, noise, mask (of signals), or path/to/file.py:function",
        _code_in_augmentation,
    )
    latency_batch: int = _option(1, "images per call when latency is measured")
    latency_threads: int = _option(1, "threads when latency is measured")
    latency: str = _option(
        "auto",
        "latency in the search: measured, predicted (from operators measured once per machine), or auto: measured, "
        "or predicted if other processes cannot be paused. Finalists are always measured",
    )
    runtime: str = _option(
        "onnxruntime",
        f"runtime of the files, for accuracy, latency and size: {RUNTIMES[0]}; or, with the extra of that name, "
        f"{', '.join(RUNTIMES[1:])}",
    )
    keep_dashboard: bool = _option(
        False, "of --strategy ray: leave Ray's dashboard open at the end of the run, until Ctrl-C"
    )
    storage: str | None = _option(
        None,
        "a database for drivers on several machines, such as postgresql://user@host/database; by default the study is "
        "in the run directory. Passwords are not stored: use PGPASSWORD or ~/.pgpass",
    )
    study: str | None = _option(
        None, "of --storage: name of the study, the same for all drivers; by default the name of the run directory"
    )
    heartbeat: int = _option(
        60, "of --storage: seconds between heartbeats; a driver counts as lost after twice as long"
    )
    log: str | None = _option(
        None, "also log to tensorboard or mlflow (install the package), or to both: tensorboard,mlflow", values=True
    )
    run_dir: str | None = _option(None, "run directory; by default runs/<space>-<date>-<time>")

    def __post_init__(self) -> None:
        """Validate the options, without reading files.

        Raises:
            SlimsearchError: an option is invalid.
        """
        size: object = self.image_size
        if isinstance(size, int) and not isinstance(size, bool):  # as in older files, and from Python
            object.__setattr__(self, "image_size", str(size))
        for option in dataclasses.fields(self):
            object.__setattr__(self, option.name, _plain(option, getattr(self, option.name)))
        for name in _ONE_NAME:
            object.__setattr__(self, name, published(getattr(self, name), BUILT_INS[name]))
        if self.device_host == "none":
            object.__setattr__(self, "device_host", None)
        for name, allowed in _ALLOWED.items():
            if getattr(self, name) not in allowed:
                similar = did_you_mean(getattr(self, name), allowed)
                raise SlimsearchError(f"{flag(name)} '{getattr(self, name)}' is none of {', '.join(allowed)}{similar}")
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise SlimsearchError(f"{flag(name)} {value} is less than {least}")
        for name in _ABOVE_ZERO:
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise SlimsearchError(f"{flag(name)} {value:g} is not above 0")
        for name in ("weights", "targets", "stop_at"):
            pairs(name, getattr(self, name))
        for name in ("mean", "std"):
            if getattr(self, name) not in (None, OF_DATASET):
                channels(name, getattr(self, name))
        if self.augment != "auto":
            # Not above, since it imports NumPy, which --help can do without.
            from slimsearch.evaluators.training.augmentation import check_augmentation

            check_augmentation(self.augment)
        for wrong, message in _CONFLICTS:
            if wrong(self):
                raise SlimsearchError(message.format_map(vars(self)))

    @property
    def subject(self) -> str:
        """What the run is about, in one word: the space or the given network."""
        if self.model is None:
            return re.split("[:.]", self.space)[-1]
        kind = ModelKind.of(self.model)
        if kind is ModelKind.RUN:
            directory, _, number = self.model.rpartition(":")
            return f"{Path(directory).name}-{number}"
        return Path(self.model).stem if kind is ModelKind.PROGRAM else re.split("[:.]", self.model)[-1]

    @property
    def worker_count(self) -> int:
        """Number of worker processes to start."""
        if self.workers:
            return self.workers
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return max(1, cores // self.training_threads)

    def flag(self, name: str) -> str:
        """The option's name in the command of the run: that of ``slimsearch compress`` for a given network."""
        return flag(name if self.model is None else _OF_COMPRESS.get(name, name))

    def replace(self, **changes: Any) -> Configuration:
        """A copy with changed options.

        Raises:
            SlimsearchError: an option is unknown or invalid.
        """
        known = [f.name for f in dataclasses.fields(self)]
        for name in changes:
            if name not in known:
                similar = did_you_mean(name, known)
                raise SlimsearchError(f"there is no option '{name}'; options: {', '.join(known)}{similar}")
        return dataclasses.replace(self, **changes)

    def absolute(self) -> Configuration:
        """The same options with absolute paths."""
        changes = {}
        for option in dataclasses.fields(self):
            make_absolute, value = option.metadata["absolute"], getattr(self, option.name)
            if make_absolute is not None and value:
                changes[option.name] = make_absolute(value)
        return self.replace(**changes)

    def write(self, path: Path) -> None:
        """Write the options as YAML, atomically."""
        values = {"format": FORMAT, **dataclasses.asdict(self)}
        write_text(path, yaml.safe_dump(values, sort_keys=False, allow_unicode=True))

    @classmethod
    def read(cls, path: Path) -> Configuration:
        """Read the options from a file of `write`.

        Raises:
            SlimsearchError: the file is damaged, or of another version.
        """
        try:
            values = read_yaml(path, exponents=False)
        except FileNotFoundError:
            check_run_directory(path.parent)
            raise SlimsearchError(f"'{path.parent}' is not a run directory: it has no {path.name}") from None
        if not isinstance(values, dict) or "format" not in values:
            raise SlimsearchError(f"'{path}' is damaged: it has no format")
        found = values.pop("format")
        if found != FORMAT:
            shown = reprlib.repr(found)
            raise SlimsearchError(f"'{path.parent}' has the format {shown}; this version of Slimsearch reads {FORMAT}")
        values.setdefault("normalise", "none")  # missing in early runs
        for name, default in _REMOVED.items():
            if name in values and values.pop(name) != default:
                raise SlimsearchError(f"'{path}' uses {flag(name)}, which this version of Slimsearch does not have")
        unknown = set(values) - {f.name for f in dataclasses.fields(cls)}
        if unknown:
            raise SlimsearchError(f"'{path}' has unknown options: {', '.join(sorted(map(str, unknown)))}")
        try:
            return cls(**values)
        except SlimsearchError as error:
            raise SlimsearchError(f"'{path}' is damaged: {error}") from None


_ALLOWED: dict[str, tuple[str, ...]] = {
    "objective": ("pareto", "weighted"),
    "prefer": ("balanced", "accuracy", "small", "fast"),
    "runtime": RUNTIMES,
    "latency": ("auto", "measured", "predicted"),
    "device": ("auto", "cpu", "cuda"),
    "precision": ("auto", "fp32", "bf16", "mixed"),
    "int8_target": ("any", "vnni"),
    "normalise": ("folded", "none"),
    "supernet_sampling": ("sandwich", "fair", "random"),
    "class_weights": ("none", "balanced"),
    "input_kind": ("auto", "image", "signal", "table"),
}
_LEAST = {
    "trials": 1, "epochs": 1, "subnets": 1, "supernet_epochs": 1, "seed": 0, "workers": 0, "retries": 0, "top_k": 0,
    "repeats": 1, "batch_size": 2, "latency_batch": 1, "latency_threads": 1, "max_drop": 0, "gpus_per_trial": 0,
    "heartbeat": 1, "training_threads": 1, "epoch_images": 2, "patience": 1, "weight_decay": 0,
}  # fmt: skip
_ABOVE_ZERO = (
    "timeout", "trial_timeout", "max_latency_ms", "max_size_kib", "max_ram_kib", "max_flash_kib", "max_params",
    "max_macs", "learning_rate", "cpus_per_trial",
)  # fmt: skip
# Conditions on several options, and messages as format strings over the options.
_CONFLICTS: tuple[tuple[Callable[[Configuration], bool], str], ...] = (
    (
        lambda c: c.latency == "predicted" and c.runtime != "onnxruntime" and c.device_host is None,
        "--latency predicted is for --runtime onnxruntime, not {runtime}",
    ),
    (
        lambda c: c.device_host is not None and c.runtime in SUFFIXES,
        f"--device-host measures files of --runtime {' or '.join(ON_ONNX)}, not {{runtime}}",
    ),
    (
        lambda c: c.latency_batch > 1 and c.runtime in SUFFIXES,
        "--latency-batch {latency_batch}: files of --runtime {runtime} take one input at a time",
    ),
    (
        lambda c: c.device_host is not None and c.evaluator != "network" and c.model is None,
        "--device-host measures files, and --evaluator {evaluator} has none",
    ),
    (
        lambda c: c.min_accuracy is not None and not 0 <= c.min_accuracy <= 1 and "val_accuracy" in c.objectives,
        "--min-accuracy {min_accuracy:g} is not between 0 and 1 (0.98 stands for 98%)",
    ),
    (lambda c: not 0 <= c.label_smoothing < 1, "--label-smoothing {label_smoothing:g} is not from 0 to below 1"),
    (lambda c: not 0 < c.warm_up < 1, "--warm-up {warm_up:g} is not between 0 and 1"),
    (
        lambda c: c.keep_dashboard and c.strategy != "ray",
        "--keep-dashboard is for --strategy ray, not {strategy}",
    ),
    (
        lambda c: c.keep_dashboard and c.ray_address is not None,
        "--keep-dashboard is for a cluster that the run starts; the one of --ray-address stays open anyway",
    ),
    (
        lambda c: c.study is not None and c.storage is None,
        "--study '{study}' is the name of a study in --storage, which is missing",
    ),
    (
        lambda c: not c.space and c.model is None and not c.evaluator.endswith(".csv"),
        "--space is missing: a built-in space, or path/to/file.py:name",
    ),
    (
        lambda c: c.model is not None and (bool(c.space) or c.evaluator != "network"),
        "'{model}' is the only network of its run: leave out --space and --evaluator",
    ),
    (
        lambda c: c.model is not None and c.architectures is not None,
        "'{model}' is the only network of its run: leave out --architectures",
    ),
    (lambda c: c.elastic and c.model is None, "--elastic is for a trained network, see slimsearch compress"),
    (
        lambda c: (c.mean is None) != (c.std is None),
        "--mean and --std are given together, such as --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225",
    ),
)
# Options that ``slimsearch compress`` calls otherwise.
_OF_COMPRESS = {"init": "weights", "compress": "recipe", "co_search": "recipe_space"}
_TYPES: dict[str, Any] = {"str": str, "int": int, "float": float, "bool": bool}


def _plain(option: dataclasses.Field[Any], value: Any) -> Any:
    """The value of an option as a plain value of its type.

    Raises:
        SlimsearchError: it has another type, or is not a finite number or not UTF-8 text.
    """
    kind, may_be_none = option_type(option), "None" in str(option.type)
    if isinstance(value, os.PathLike) and kind is str:
        value = os.fspath(value)
    elif not isinstance(value, int | float) and isinstance(value, numbers.Real):  # NumPy's
        value = operator.index(value) if isinstance(value, numbers.Integral) else float(value)
    wrong = mismatch(value, kind | None if may_be_none else kind, flag(option.name))
    if wrong is not None:
        raise SlimsearchError(wrong)
    if isinstance(value, int | float) and not _representable(value):
        raise SlimsearchError(f"{flag(option.name)} {reprlib.repr(value)} is not a finite number")
    if isinstance(value, str) and ("\0" in value or value != value.encode("utf-8", "ignore").decode()):
        shown = "" if option.name == "storage" else f" {reprlib.repr(value)}"  # it may have a password
        raise SlimsearchError(f"{flag(option.name)}{shown} is not UTF-8 text")
    return value


def _representable(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer above the largest float
        return False


def check_run_directory(path: Path) -> None:
    """Refuse a path that is not a run directory.

    Raises:
        SlimsearchError: it is none.
    """
    if not (path / "config.yaml").is_file():
        missing = "it has no config.yaml" if path.is_dir() else "there is no such folder"
        raise SlimsearchError(f"'{path}' is not a run directory: {missing}")


def option_type(option: dataclasses.Field[Any]) -> type[Any]:
    """Type of an option's value other than None: str, int, float or bool."""
    found: type[Any] = _TYPES[str(option.type).partition(" | ")[0]]
    return found


def flag(name: str) -> str:
    """The option's name on the command line."""
    return "--" + name.replace("_", "-")


def space_from_python(name: str) -> str | None:
    """Description of the space passed from Python, if `name` is its placeholder; else None."""
    python, _, kind = name.partition(":")
    if python != FROM_PYTHON:
        return None
    return {CHOICES: "a dict of choices", SPACE_OBJECT: "a Space object"}.get(kind, f"the space {kind}")


def device_hosts(text: str | None) -> dict[str, str]:
    """The addresses of ``--device-host``, by name of the board; without a name, ``board 1`` and so on.

    Raises:
        SlimsearchError: an address is invalid, or a name is given twice.
    """
    found: dict[str, str] = {}
    for position, entry in enumerate([] if text is None else text.split(","), start=1):
        name, equals, address = (part.strip() for part in entry.rpartition("="))
        name = name if equals else f"board {position}"
        if not _ADDRESS.fullmatch(address) or not _BOARD_NAME.fullmatch(name):
            raise SlimsearchError(
                f"--device-host {reprlib.repr(entry)} is not of the form user@board or NAME=user@board"
            )
        if name in found:
            raise SlimsearchError(f"--device-host has two boards with the name {name}")
        found[name] = address
    return found


def channels(name: str, text: str) -> list[float]:
    """Parse the numbers of ``--mean`` or ``--std``.

    Raises:
        SlimsearchError: they are no numbers.
    """
    try:
        return [float(one) for one in text.split(",")]
    except ValueError:
        raise SlimsearchError(f"{flag(name)} '{text}' is neither a number nor one number per channel") from None


def pairs(name: str, text: str | None) -> dict[str, float]:
    """Parse numbers such as ``latency_ms=0.1,size_kib=40``.

    Raises:
        SlimsearchError: `text` does not have that form.
    """
    found: dict[str, float] = {}
    for entry in (text or "").split(","):
        if not entry.strip():
            continue
        label, equals, value = entry.partition("=")
        try:
            if not equals:
                raise ValueError
            found[label.strip()] = float(value)
        except ValueError:
            raise SlimsearchError(f"{flag(name)} '{entry}' is not of the form metric=number") from None
    return found
