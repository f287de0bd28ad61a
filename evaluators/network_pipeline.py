"""Training, compression, export and latency of networks, as runs and the public API do them."""

from __future__ import annotations

import contextlib
import functools
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from slimsearch import compression
from slimsearch.compression import Network
from slimsearch.errors import described
from slimsearch.evaluators.datasets import Dataset
from slimsearch.evaluators.latency.measurement import Latency, measure_latency
from slimsearch.evaluators.latency.meter import Meter
from slimsearch.evaluators.latency.predictor import LatencyPredictor
from slimsearch.evaluators.training.function_training import Fit, FunctionTraining
from slimsearch.evaluators.training.network_training import (
    DryRunTraining,
    NetworkTraining,
    OnEpoch,
    StoppedEarly,
    TrainingSettings,
)
from slimsearch.evaluators.training.probe import TrainingProbe

if TYPE_CHECKING:
    from torch import nn

# For a latency that is needed during the work on a network; seconds to wait for a calm machine.
_QUICK_BLOCKS, _QUICK_PATIENCE = 6, 0.1

Cached = Callable[[compression.Recipe, Callable[[], Network]], Network]
"""A network after a recipe: from a cache, or from the function that makes it."""


@dataclass(frozen=True)
class LatencySettings:
    """How files run, and how their latency is determined.

    Attributes:
        batch: examples per call.
        threads: per call.
        runtime: one of `slimsearch.evaluators.RUNTIMES`.
        how: "measured"; "predicted", see `LatencyPredictor`; or "auto": measured, and predicted if other processes of
            Slimsearch cannot be paused.
    """

    batch: int = 1
    threads: int = 1
    runtime: str = "onnxruntime"
    how: str = "auto"


class FileLatencies:
    """Determines the latency of exported files, and learns from measurements to predict.

    Args:
        settings: how files run, and how their latency is determined.
        meter: pauses other processes of Slimsearch.
    """

    def __init__(self, settings: LatencySettings, meter: Meter) -> None:
        self._settings, self._meter = settings, meter
        self._predictor: LatencyPredictor | None = None

    def quick(self, path: Path, input_shape: tuple[int, ...]) -> Latency:
        """The latency of a file that is not final, in little time."""
        return self.of([path], input_shape, _QUICK_PATIENCE, blocks=_QUICK_BLOCKS)[0][0]

    def of(
        self, paths: list[Path], input_shape: tuple[int, ...], patience: float, **effort: int
    ) -> tuple[list[Latency], dict[str, float]]:
        """Latencies of files, measured together, and metrics that say how."""
        settings = self._settings
        if settings.how == "predicted":
            return self._predicted(paths), {"latency_predicted": 1.0}
        with self._meter.exclusive() as alone:
            # While another process does not pause, the measurement is unreliable and the machine does not get calm.
            predicted = not alone and settings.how == "auto" and settings.runtime == "onnxruntime"
            measured = measure_latency(
                paths, input_shape, batch=settings.batch, threads=settings.threads, runtime=settings.runtime,
                patience=0.0 if predicted else patience, **effort,
            )  # fmt: skip
        if predicted:
            return self._predicted(paths), {"latency_predicted": 1.0, "latency_measured_ms": measured[0].median_ms}
        if self._predictor is not None:
            for path, latency in zip(paths, measured, strict=True):
                if latency.calm:
                    self._predictor.correct(path, latency.median_ms)
        return measured, {"latency_alone": float(alone)}

    def _predicted(self, paths: list[Path]) -> list[Latency]:
        if self._predictor is None:
            self._predictor = LatencyPredictor(self._settings.batch, self._settings.threads, meter=self._meter)
        return [Latency.predicted(self._predictor.predict(path).ms) for path in paths]


@dataclass
class NetworkPipeline:
    """Trains, compresses and exports networks on a data set.

    Attributes:
        data: the data set; its test split is not used.
        training: settings of training.
        seed: of everything random.
        epochs: default length of a compression stage's training.
        meter: pauses the work while another process measures latency.
        latencies: determines the latency of files; None: measures.
        on_epoch: called after every epoch of a training; False ends it with `StoppedEarly`.
        checkpoint: file for the state after each epoch, from which an interrupted training continues; None for none.
        scratch: folder for temporary files; None: one of the system.
        fit: a function of the user's that trains networks; None: Slimsearch does, by the loss of the data set's task.
    """

    data: Dataset
    training: TrainingSettings = field(default_factory=TrainingSettings)
    seed: int = 0
    epochs: int = 1
    meter: Meter = field(default_factory=Meter)
    latencies: FileLatencies | None = None
    on_epoch: OnEpoch | None = None
    checkpoint: Path | None = None
    scratch: Path | None = None
    fit: Fit | None = None

    def network_training(
        self, teachers: Mapping[str, Network] | None = None, initial: Callable[[], nn.Module] | None = None
    ) -> NetworkTraining:
        """The training of a network, and of compression stages with their teachers and initial weights."""
        if self.fit is not None:
            return FunctionTraining(
                self.fit, self.data, self.training, self.seed, self.epochs, teachers, self.on_epoch, self.meter,
                initial, self.latency_ms,
            )  # fmt: skip
        return NetworkTraining(
            self.data, self.training, self.seed, self.epochs, teachers, self.on_epoch, self.meter, initial=initial,
            latency=self.latency_ms, checkpoint=self.checkpoint,
        )  # fmt: skip

    def check_outputs(self, network: Network) -> None:
        """Check that a network gives outputs for the data set.

        Raises:
            SlimsearchError: see `TrainingProbe.check_outputs`.
        """
        TrainingProbe(network, self.data).check_outputs()

    def train(self, network: Network, epochs: int) -> Network:
        """A trained copy of `network`.

        Raises:
            SlimsearchError: the network cannot be trained, or the loss is not finite.
            StoppedEarly: `on_epoch` returned False.
        """
        return self.network_training().fit(network, epochs=epochs)

    def compress(
        self, network: Network, recipe: compression.Recipe, *, teachers: Mapping[str, Network],
        initial: Callable[[], nn.Module] | None, cached: Cached = lambda recipe, make: make(),
    ) -> Network:  # fmt: skip
        """`network` after the groups of stages of `recipe`.

        Args:
            network: the start; stays as it is.
            recipe: stages in order.
            teachers: networks for distillation, by name.
            initial: builds the module with the weights that the network's training started from; None: unknown.
            cached: gives the network after the first groups of `recipe`.

        Raises:
            SlimsearchError: a stage cannot be applied to this network.
            StoppedEarly: `on_epoch` returned False.
        """
        training = self.network_training(teachers, initial)
        for position, group in enumerate(recipe.groups, start=1):
            make = functools.partial(_applied, group, network, training)
            network = cached(compression.Recipe(recipe.groups[:position]), make)
        return network

    def dry_run(self, network: Network, recipe: compression.Recipe) -> Network:
        """The untrained `network` after `recipe`, with its final widths, ranks and number formats.

        Raises:
            SlimsearchError: a stage cannot be applied to this network, or needs a trained one.
        """
        training = DryRunTraining(
            self.data, self.training, self.seed, self.epochs, {"parent": network}, meter=self.meter,
            initial=network.copy_module, latency=self.latency_ms,
        )  # fmt: skip
        return recipe.apply(network, training)

    def export(self, network: Network, path: Path) -> Path:
        """Write the ONNX file of a network, int8 where its recipe says so, with what reads its input and output.

        Raises:
            SlimsearchError: it cannot be expressed in ONNX.
        """
        with described("export to ONNX failed", Exception):
            compression.export_onnx(network, path, self.network_training().calibration, self.data.metadata())
        return path

    @contextlib.contextmanager
    def exported(self, network: Network) -> Iterator[Path]:
        """A temporary file of a network that is not final."""
        with contextlib.ExitStack() as opened:
            folder = self.scratch or Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="slimsearch-")))
            path = folder / "temporary.onnx"
            opened.callback(path.unlink, missing_ok=True)
            with described("export to ONNX failed", Exception):
                compression.export_onnx(network, path, self.network_training().calibration)
            yield path

    def latency_ms(self, network: Network) -> float:
        """The latency of a network's file, for stages that compress to a target."""
        latencies = self.latencies or FileLatencies(LatencySettings(how="measured"), self.meter)
        with self.exported(network) as path:
            return latencies.quick(path, self.data.input_shape).median_ms


def _applied(group: compression.StageGroup, network: Network, training: NetworkTraining) -> Network:
    with described(f"{' + '.join(stage.key for stage in group.stages)} failed", StoppedEarly):
        return group.apply(network, training)
