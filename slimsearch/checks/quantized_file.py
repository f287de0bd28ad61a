"""Why a quantized file lost: the error of each layer, and what each would cost in float32."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from slimsearch.compression import LayerFiles, Network, read_onnx
from slimsearch.errors import SlimsearchError, described
from slimsearch.evaluators import MODEL, DeployedModel, Meter, NetworkPipeline, PairedDrop
from slimsearch.evaluators.datasets import Dataset
from slimsearch.evaluators.network_pipeline import FileLatencies
from slimsearch.loop.evaluation_settings import latency_settings
from slimsearch.loop.problem import given_network, networks
from slimsearch.loop.python_objects import PythonObjects
from slimsearch.names import no_code_from
from slimsearch.options.configuration import Configuration
from slimsearch.options.existing_networks import stored_network
from slimsearch.progress import counted
from slimsearch.report.stored_run import StoredRun, refuse_unread, stored_run
from slimsearch.runtimes import SUFFIXES

if TYPE_CHECKING:
    from torch import Tensor

_PATIENCE = 10.0  # seconds to wait for a calm machine
_EXAMPLES = 128  # of the validation split, for errors of results

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class InFloat32:
    """What changes if a layer stays in float32, against the quantized file.

    Attributes:
        gained: of the leading metric, in the unit of `PairedDrop`.
        size_kib, latency_ms: more than the quantized file; the latency is measured.
    """

    gained: float
    size_kib: float
    latency_ms: float


@dataclass(frozen=True)
class QuantizedLayer:
    """A layer of a quantized file.

    Attributes:
        name: of the layer.
        bits: of its weights.
        sqnr_db: signal to quantization noise of its results in the quantized file: of the layer and of all before it;
            None: unknown.
        lost: of the leading metric if this layer alone is quantized, in the unit of `PairedDrop`.
        error: mean squared error of the outputs if this layer alone is quantized, relative to their variance.
        in_float32: None: not measured.
    """

    name: str
    bits: int
    sqnr_db: float | None
    lost: float
    error: float
    in_float32: InFloat32 | None = None


@dataclass(frozen=True)
class QuantizedFile:
    """A quantized file beside its network in float32, on the validation split.

    Attributes:
        file: the path.
        metric: the leading metric.
        examples: of the validation split.
        float32, quantized: the metric, ``size_kib`` and ``latency_ms`` of both files, made again here.
        lost: of the metric, with its 95% interval.
        same: share of the predictions of `file` that are those of the quantized file made here.
        layers: those that lose most alone first; of equal ones, those with the largest error.
    """

    file: str
    metric: str
    examples: int
    float32: Mapping[str, float]
    quantized: Mapping[str, float]
    lost: PairedDrop
    same: float
    layers: tuple[QuantizedLayer, ...]


def explained(path: Path, most: int, storage: str | None = None) -> QuantizedFile:
    """Measure the layers of a quantized file of a run.

    Args:
        path: of the file, or of its trial's folder in a run directory.
        most: layers for which a file with the layer in float32 is measured: those that lose most alone.
        storage: URL of the database of the run, see `stored_run`.

    Raises:
        SlimsearchError: it is no quantized file of a run, its record cannot be read, or its data set has changed.
    """
    file = path / MODEL if path.is_dir() else path
    folder = file.resolve().parent
    run_dir = folder.parent.parent
    if (path / "config.yaml").is_file():
        raise SlimsearchError(f"'{path}' is a run directory: name a trial in it, such as {path}/trials/00007")
    read_onnx(file)
    if not (run_dir / "config.yaml").is_file() or not folder.name.isdecimal():
        raise SlimsearchError(
            f"'{path}' is not in a run directory, which has the network in float32: name a trial of a run, such as "
            "runs/NAME/trials/00007"
        )
    run = stored_run(run_dir, storage=storage)
    refuse_unread([run])
    if run.configuration.runtime in SUFFIXES:
        raise SlimsearchError(f"layers are measured in ONNX files, and '{run_dir}' ran in {run.configuration.runtime}")
    network = _network(run, folder)
    data = _data(run)
    with tempfile.TemporaryDirectory(prefix="slimsearch-") as temporary:
        return _Measurements(file, run.configuration, network, data, Path(temporary)).of_all(most)


def _network(run: StoredRun, folder: Path) -> Network:
    trial = next((trial for trial in run.trials if trial.number == int(folder.name)), None)
    if trial is None:
        raise SlimsearchError(f"'{run.path}' has no trial {int(folder.name)}")
    entry = {
        "architecture": dict(trial.candidate.architecture),
        "artifact": str((folder / MODEL).relative_to(run.path.resolve())),
    }
    network = stored_network(run.path.resolve(), entry)
    plan = network.quantization
    if plan is None:
        raise SlimsearchError(f"trial {trial.number} of '{run.path}' is in float32: nothing is lost by quantization")
    if plan.kind == "storage only":
        raise SlimsearchError(f"trial {trial.number} of '{run.path}' stores the values of its network: nothing is lost")
    return network


def _data(run: StoredRun) -> Dataset:
    with no_code_from(run.path):
        objects = PythonObjects()
        missing = objects.missing(run.configuration)
        if missing is not None:
            raise SlimsearchError(f"'{run.path}' was begun from Python with {missing[0]}, which is not in it")
        of_given = run.configuration.model is not None
        data = given_network(run.configuration, objects).data if of_given else networks(run.configuration, objects)[1]
    if run.environment["dataset"].get("fingerprint") != data.fingerprint:
        raise SlimsearchError(f"the data set is not that of '{run.path}': its hash differs")
    return data.without_test()


class _Measurements:
    """Files of one network with other layers in float32, and their measurements.

    Args:
        file: the quantized file.
        options: of the run.
        network: with its plan.
        data: of the run; its validation split is measured.
        folder: for files.
    """

    def __init__(self, file: Path, options: Configuration, network: Network, data: Dataset, folder: Path) -> None:
        import onnx

        assert network.quantization is not None
        self._file, self._data, self._folder, self._plan = file, data, folder, network.quantization
        self._latencies = FileLatencies(replace(latency_settings(options), how="measured", energy=False), Meter())
        model = onnx.load_model_from_string(read_onnx(file))
        self._metadata = {entry.key: entry.value for entry in model.metadata_props}
        calibration = NetworkPipeline(data).network_training().calibration
        with described("the network cannot be exported", Exception):
            network = network.without_dead_taps(data.input_shape)
            self._files = LayerFiles(network, calibration, self._plan, folder)

    def of_all(self, most: int) -> QuantizedFile:
        """All layers alone, and `most` of them in float32."""
        task, validation = self._data.task, self._data.validation
        names, noise = self._files.layers, self._files.signal_to_noise(self._inputs())
        original, whole = self._written(names, "float32"), self._written((), "quantized")
        exact, rounded = self._examples(original), self._examples(whole)
        outputs = DeployedModel(original)(self._inputs().numpy())
        layers = []
        for name in counted("quantizing one layer at a time", names, len(names)):
            alone = self._written([other for other in names if other != name], "alone")
            difference = np.square(DeployedModel(alone)(self._inputs().numpy()) - outputs).mean()
            lost = PairedDrop.of(task, exact, self._examples(alone)).points
            error = float(difference / max(float(outputs.var()), 1e-12))
            layers.append(QuantizedLayer(name, self._plan.weight_bits(name), noise.get(name), lost, error))
        layers.sort(key=lambda layer: (-layer.lost, -layer.error))
        kept = [self._written([layer.name], f"kept-{number}") for number, layer in enumerate(layers[:most])]
        paths = [original, whole, *kept]
        latencies, _ = self._latencies.of(paths, self._data.input_shape, _PATIENCE)
        costs = [
            {"size_kib": path.stat().st_size / 1024, "latency_ms": latency.median_ms}
            for path, latency in zip(paths, latencies, strict=True)
        ]
        for number, path in enumerate(kept):
            more = {name: costs[number + 2][name] - costs[1][name] for name in costs[1]}
            gained = -PairedDrop.of(task, rounded, self._examples(path)).points
            layers[number] = replace(layers[number], in_float32=InFloat32(gained, **more))
        predictions = [DeployedModel(path).predict(self._data, validation) for path in (whole, self._file)]
        metric = task.leading()[0]
        return QuantizedFile(
            str(self._file), metric, len(validation), {metric: task.leading_value(exact), **costs[0]},
            {metric: task.leading_value(rounded), **costs[1]}, PairedDrop.of(task, exact, rounded),
            float(np.mean(predictions[0] == predictions[1])), tuple(layers),
        )  # fmt: skip

    def _inputs(self) -> Tensor:
        return self._data.normalise(self._data.validation.inputs[:_EXAMPLES])

    def _written(self, in_float32: Collection[str], name: str) -> Path:
        return self._files.finished(in_float32, self._folder / f"{name}.onnx", self._metadata)

    def _examples(self, path: Path) -> Array:
        examples = DeployedModel(path).examples(self._data, self._data.validation)
        return examples[:, : self._data.task.paired]
