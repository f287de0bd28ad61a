"""Training, compression, export and latency of networks, as runs and the public API do them."""

from __future__ import annotations

import contextlib
import functools
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from slimsearch import compression
from slimsearch.compression import Network, check_plan, convert, runtime_of
from slimsearch.errors import described
from slimsearch.evaluators.datasets import Dataset
from slimsearch.evaluators.deployed.deployed_model import onnx_of
from slimsearch.evaluators.latency.boards import Board, BoardMeasurements, Boards, BoardsAway
from slimsearch.evaluators.latency.energy import measure_energy
from slimsearch.evaluators.latency.measurement import (
    Latency,
    LatencyDevice,
    Measured,
    MeasurementSettings,
    ThisMachine,
)
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
from slimsearch.files import atomic
from slimsearch.runtimes import SUFFIXES

if TYPE_CHECKING:
    from torch import Tensor, nn

# For a latency that is needed during the work on a network; seconds to wait for a calm machine.
_QUICK_BLOCKS, _QUICK_PATIENCE = 6, 0.1
# Seconds to wait for boards that do not answer before a latency is predicted.
_WAIT, _WAIT_TO_MEASURE = 15.0, 600.0
# Files measured on boards that correct predictions; with --latency predicted, no more are measured.
_CORRECTIONS = 10

Cached = Callable[[compression.Recipe, Callable[[], Network]], Network]
"""A network after a recipe: from a cache, or from the function that makes it."""


@dataclass(frozen=True)
class LatencySettings:
    """How files run, and how their latency is determined.

    Attributes:
        batch: examples per call.
        threads: per call.
        runtime: one of `slimsearch.runtimes.RUNTIMES`.
        how: "measured"; "predicted", see `LatencyPredictor`; or "auto": measured, and predicted if other processes of
            Slimsearch cannot be paused. What boards that do not answer would measure is predicted in any case.
        energy: whether the energy of final files is measured too, see `measure_energy`.
        boards: that measure, in place of this machine.
        board_measurements: see `BoardMeasurements`; None: predictions are not corrected.
        early: whether latency is determined before a training too, because it may end the trial.
    """

    batch: int = 1
    threads: int = 1
    runtime: str = "onnxruntime"
    how: str = "auto"
    energy: bool = False
    boards: tuple[Board, ...] = ()
    board_measurements: Path | None = None
    early: bool = True

    @property
    def suffix(self) -> str:
        """The suffix of the files that run."""
        return SUFFIXES.get(self.runtime, ".onnx")

    def device(self, meter: Meter, wait: float) -> LatencyDevice:
        """Where files are measured.

        Args:
            meter: of this process.
            wait: seconds to wait for boards that do not answer.
        """
        return Boards(self.boards, wait, meter) if self.boards else ThisMachine(meter)

    def measurement(
        self, input_shape: tuple[int, ...], patience: float, patience_beside_others: float | None = None,
        **blocks: int,
    ) -> MeasurementSettings:  # fmt: skip
        """How a `LatencyDevice` measures; the same patience beside others if that is None."""
        others = patience if patience_beside_others is None else patience_beside_others
        return MeasurementSettings(
            input_shape, self.batch, self.threads, self.runtime, patience=patience, patience_beside_others=others,
            **blocks,
        )  # fmt: skip


class FileLatencies:
    """Determines the latency of exported files, and learns from measurements to predict.

    Args:
        settings: how files run, and how their latency is determined.
        meter: pauses other processes of Slimsearch.

    Attributes:
        suffix: of the files.
    """

    def __init__(self, settings: LatencySettings, meter: Meter) -> None:
        self._settings, self._meter = settings, meter
        self.suffix = settings.suffix
        self._predictor: LatencyPredictor | None = None
        first = os.getpid() % max(1, len(settings.boards))  # processes spread over the boards
        spread = replace(settings, boards=settings.boards[first:] + settings.boards[:first])
        self._device = spread.device(meter, _WAIT_TO_MEASURE if settings.how == "measured" else _WAIT)
        measurements = settings.board_measurements
        self._measurements = None if measurements is None else BoardMeasurements(measurements)
        self._corrections: dict[Path, float] = {}  # measurements of boards that the predictor knows

    def quick(self, path: Path, input_shape: tuple[int, ...]) -> Latency:
        """The latency of a file that is not final, in little time."""
        return self._found([path], input_shape, _QUICK_PATIENCE, final=False, blocks=_QUICK_BLOCKS)[0][0]

    def of(
        self, paths: list[Path], input_shape: tuple[int, ...], patience: float
    ) -> tuple[list[Latency], dict[str, float]]:
        """Latencies of files, measured together, and metrics that say how and where; the energy of the first file."""
        latencies, metrics = self._found(paths, input_shape, patience, final=True)
        if self._settings.energy:
            (energy,) = measure_energy(paths[:1], self._settings.measurement(input_shape, patience), self._meter)
            metrics = {**metrics, **energy.metrics()}
        return latencies, metrics

    def _found(
        self, paths: list[Path], input_shape: tuple[int, ...], patience: float, *, final: bool, **blocks: int
    ) -> tuple[list[Latency], dict[str, float]]:
        settings = self._settings
        if settings.how == "predicted" and not (final and self._would_correct(paths)):
            return self._predicted(paths), {"latency_predicted": 1.0}
        can_predict = settings.how == "auto" and (settings.runtime == "onnxruntime" or bool(settings.boards))
        # While another process does not pause, the measurement is unreliable and the machine does not get calm.
        how = settings.measurement(input_shape, patience, 0.0 if can_predict else None, **blocks)
        try:
            measured = self._device.measure(paths, how)
        except BoardsAway:
            return self._predicted(paths), {"latency_predicted": 1.0, "latency_away": 1.0}
        if can_predict and not measured.alone:
            ms = measured.latencies[0].median_ms
            return self._predicted(paths), {**measured.metrics(), "latency_predicted": 1.0, "latency_measured_ms": ms}
        if final or not settings.boards:
            self._remember(paths, measured)
        return measured.latencies, measured.metrics()

    def _would_correct(self, paths: list[Path]) -> bool:
        """Whether boards are to measure files because few were measured, and these differ from them."""
        if self._measurements is None or len(self._measurements.read(_CORRECTIONS)) >= _CORRECTIONS:
            return False
        predictor = self._corrected_predictor()
        return not all(predictor.is_sure(path) for path in paths)

    def _remember(self, paths: list[Path], measured: Measured) -> None:
        """Let the measured latencies correct predictions."""
        for path, latency in zip(paths, measured.latencies, strict=True):
            if self._measurements is not None:
                self._measurements.add(path, latency.median_ms)
            elif self._predictor is not None and latency.calm:
                self._predictor.correct(path, latency.median_ms)

    def _predicted(self, paths: list[Path]) -> list[Latency]:
        predictor = self._corrected_predictor()
        return [Latency.predicted(predictor.predict(path).ms) for path in paths]

    def _corrected_predictor(self) -> LatencyPredictor:
        """The predictor, which knows the latest measurements of boards."""
        boards = self._settings.boards
        if self._predictor is None:
            slowness = sum(board.slowness for board in boards) / len(boards) if boards else None
            self._predictor = LatencyPredictor(
                self._settings.batch, self._settings.threads, meter=self._meter, slowness=slowness
            )
        measured = {} if self._measurements is None else self._measurements.read(_CORRECTIONS)
        for path, ms in measured.items():
            if self._corrections.get(path) != ms:
                self._predictor.correct(path, ms)
                self._corrections[path] = ms
        return self._predictor


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
        """Write the file of a network, int8 where its recipe says so, with what reads its input and output.

        Args:
            network: the network.
            path: see `write_file`.

        Raises:
            SlimsearchError: the network cannot be expressed in such a file.
        """
        write_file(network, path, self.network_training().calibration, self.data.metadata())
        return path

    @contextlib.contextmanager
    def exported(self, network: Network) -> Iterator[Path]:
        """A temporary file of a network that is not final."""
        with contextlib.ExitStack() as opened:
            folder = self.scratch or Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="slimsearch-")))
            path = (folder / "temporary").with_suffix(".onnx" if self.latencies is None else self.latencies.suffix)
            for file in {path, onnx_of(path)}:
                opened.callback(file.unlink, missing_ok=True)
            write_file(network, path, self.network_training().calibration)
            yield path

    def latency_ms(self, network: Network) -> float:
        """The latency of a network's file, for stages that compress to a target."""
        latencies = self.latencies or FileLatencies(LatencySettings(how="measured"), self.meter)
        with self.exported(network) as path:
            return latencies.quick(path, self.data.input_shape).median_ms


def write_file(network: Network, path: Path, images: Tensor, metadata: Mapping[str, str] | None = None) -> None:
    """Write the file of a network.

    Args:
        network: the network.
        path: of the ONNX file; or of a converted file, by its suffix (see `SUFFIXES`), beside which the ONNX file is
            written too: it has the metadata.
        images, metadata: see `compression.export_onnx`.

    Raises:
        SlimsearchError: the network cannot be expressed in such a file.
    """
    runtime = runtime_of(path)
    if runtime is not None:
        check_plan(network.quantization, runtime)
    with described("export to ONNX failed", Exception):
        compression.export_onnx(network, onnx_of(path), images, metadata)
    if runtime is not None:
        with atomic(path) as temporary:
            convert(network, temporary, images)


def _applied(group: compression.StageGroup, network: Network, training: NetworkTraining) -> Network:
    with described(f"{' + '.join(stage.key for stage in group.stages)} failed", StoppedEarly):
        return group.apply(network, training)
