"""Export of trained networks of a run as files, each checked against its network."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimsearch.compression import embed_preprocessing, exact_error, parity_error, read_onnx
from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import DeployedModel, outputs_of
from slimsearch.evaluators.deployed.deployed_model import onnx_of
from slimsearch.files import EXPORT_PREFIX, atomic, write_json
from slimsearch.options.chosen import models
from slimsearch.options.configuration import Configuration
from slimsearch.options.device_profiles import device_profile
from slimsearch.options.existing_networks import stored_network
from slimsearch.progress import progress
from slimsearch.record import environment
from slimsearch.report.file_formats import FORMATS, Written, c_file, check_error
from slimsearch.runtimes import SUFFIXES

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    Array = np.ndarray[Any, np.dtype[Any]]

_IMAGES = 32
_VECTORS = ".vectors.npz"
_FROM_ONNX = ("onnx", "c", "openvino")
_NORMALISATION = ("input", "mean", "std", "classes", "task")


@dataclass(frozen=True)
class Exported:
    """An exported file.

    Attributes:
        trial: number of the trial.
        path: of the file; a ``.json`` file of the same name describes the model and its input, and a ``.vectors.npz``
            file has 32 inputs, the file's outputs and, of a classifier, the classes.
        error: difference of its logits from the network's, relative to the largest; those of an int8 file relative to
            their standard deviation, or None if the run has checked it.
        note: a remark for the user, or None.
        lines: a program that runs the file on the inputs of the vectors.
    """

    trial: int
    path: Path
    error: float | None
    note: str | None
    lines: tuple[str, ...]


def default_format(run_dir: Path) -> str:
    """The format of the run's target device; without one, that of the files that were ranked.

    Raises:
        SlimsearchError: there is no run, or no such device any more.
    """
    options = Configuration.read(run_dir / "config.yaml")
    if options.target is not None:
        return device_profile(options.target).format
    return options.runtime if options.runtime in SUFFIXES else "onnx"


@dataclass(frozen=True)
class Pixels:
    """An ONNX or C file that takes pixels, see `slimsearch.compression.embed_preprocessing`.

    Attributes:
        layout: of the pixels.
        labels: whether an ONNX file gives probabilities and the names of classes.
    """

    layout: str
    labels: bool = False


def export(
    run_dir: Path, numbers: Sequence[int], form: str, folder: Path, pixels: Pixels | None = None
) -> Iterator[Exported]:
    """Export models into `folder`, lazily.

    Args:
        run_dir: the run directory.
        numbers: trials of finalists; empty: those on the front.
        form: one of `FORMATS`.
        folder: created if missing.
        pixels: how an ONNX or C file takes pixels; None: it takes normalized images.

    Raises:
        SlimsearchError: there is no such model, its file and its network disagree, or it does not take pixels.
    """
    found = {int(model["trial"]): model for model in models(str(run_dir)) if "trial" in model}
    unknown = [number for number in numbers if number not in found]
    if unknown:
        raise SlimsearchError(f"--models {unknown[0]} is not one of the finalists: {', '.join(map(str, found))}")
    chosen = [found[number] for number in numbers] or [model for model in found.values() if model.get("on_front")]
    data = environment.read(run_dir)["dataset"]
    if "inputs" in data or "outputs" in data:
        raise SlimsearchError(
            f"the networks of '{run_dir}' have several inputs or outputs: deploy {chosen[0]['artifact']} in its folder"
        )
    if pixels is not None:
        _check_pixels(data, form, pixels)
    folder.mkdir(parents=True, exist_ok=True)
    for model in chosen:
        ranked = run_dir / model["artifact"]
        file = ranked if ranked.suffix == FORMATS[form].suffix else onnx_of(ranked)
        path = folder / f"{run_dir.resolve().name}-{model['trial']}{FORMATS[form].suffix}"
        with progress(f"exporting trial {model['trial']}"):
            facts = {**model, "dataset": data["name"], **{name: data[name] for name in _NORMALISATION if name in data}}
            if pixels is None:
                images, network = _images(data), stored_network(run_dir, model)
                checked = FORMATS[form].write(network, file, images, path)
                inputs = images.numpy()
                if form == "onnx" and file != ranked and checked.error is None:  # the run has not compared this file
                    expected = outputs_of(network)(inputs)
                    error = parity_error(expected, checked.outputs, quantized=True, bounded=False)
                    checked = dataclasses.replace(checked, error=error)
            else:
                checked, inputs = _pixels(file, data, pixels, path, form)
                facts["input"] = f"uint8 ({', '.join(pixels.layout.upper())}): pixels"
            write_json(path.with_suffix(".json"), facts)
            _write_vectors(path.with_suffix(_VECTORS), inputs, checked.outputs, classified="task" not in data)
        note = checked.note
        if form in _FROM_ONNX and file != ranked:
            note = f"{f'{note}; ' if note else ''}'{ranked}' was ranked: accuracy, latency and size differ"
        yield Exported(model["trial"], path, checked.error, note, FORMATS[form].lines(path, path.with_suffix(_VECTORS)))


def _check_pixels(data: Mapping[str, Any], form: str, pixels: Pixels) -> None:
    if form not in ("onnx", "c"):
        raise SlimsearchError(f"--embed-preprocessing is for --format onnx and c, not {form}")
    if pixels.labels and form != "onnx":
        raise SlimsearchError(f"--embed-labels is for --format onnx, not {form}")
    if len(data["input_shape"]) != 3 or "pixel / 255" not in data["input"] or "white" in data:
        raise SlimsearchError(f"--embed-preprocessing is for images of bytes, this run's files take {data['input']}")
    if pixels.labels and "task" in data:
        raise SlimsearchError("--embed-labels is for classifiers")


def _images(data: Mapping[str, Any]) -> Tensor:
    """(32, C, H, W) float32, distributed like normalized images; the data set may not be on this machine."""
    import torch

    return torch.randn(_IMAGES, *data["input_shape"], generator=torch.Generator().manual_seed(0))


def _write_vectors(path: Path, inputs: Array, outputs: Array, *, classified: bool) -> None:
    import numpy as np

    classes = {"classes": outputs.argmax(axis=1)} if classified else {}
    with atomic(path) as temporary:
        np.savez(temporary, inputs=inputs, outputs=outputs, **classes)


def _pixels(file: Path, data: Mapping[str, Any], pixels: Pixels, path: Path, form: str) -> tuple[Written, Array]:
    """The file that takes pixels, compared with the ONNX file that takes normalized images; and 32 inputs."""
    import numpy as np
    import onnx

    mean, std = (json.loads(data[name]) for name in ("mean", "std"))
    inputs = np.random.default_rng(0).integers(0, 256, (_IMAGES, *data["input_shape"]), dtype=np.uint8)
    center, deviation = (np.array(values, np.float32).reshape(-1, 1, 1) for values in (mean, std))
    images = (inputs.astype(np.float32) / 255 - center) / deviation
    if pixels.layout == "nhwc":
        inputs = np.ascontiguousarray(inputs.transpose(0, 2, 3, 1))
    model = onnx.load_model_from_string(read_onnx(file))
    expected = DeployedModel(file)(images)
    if pixels.labels:
        exponents = np.exp(expected - expected.max(axis=1, keepdims=True))
        expected = exponents / exponents.sum(axis=1, keepdims=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=EXPORT_PREFIX) as folder:
        changed = Path(folder) / "model.onnx"
        classes = json.loads(data["classes"]) if pixels.labels else ()
        onnx.save(embed_preprocessing(model, mean, std, pixels.layout, classes), str(changed))
        outputs = DeployedModel(changed)(inputs)
        check_error(error := exact_error(expected, outputs))
        if form == "c":
            written = c_file(changed, inputs, path)
            return dataclasses.replace(written, error=max(error, written.error or 0.0)), inputs
        changed.replace(path)
    return Written(outputs, error), inputs
