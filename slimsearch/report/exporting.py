"""Export of trained networks of a run as files, each checked against its network."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimsearch.compression import EXACT, Network, exact_error
from slimsearch.errors import SlimsearchError, first_line
from slimsearch.evaluators import DeployedModel
from slimsearch.files import atomic, write_json
from slimsearch.options.chosen import models
from slimsearch.record import environment
from slimsearch.report.networks import stored_network

if TYPE_CHECKING:
    from torch import Tensor

_IMAGES = 16
_SUFFIX = {"onnx": ".onnx", "torch-export": ".pt2", "torchscript": ".ts"}
FORMATS = tuple(_SUFFIX)
_NORMALISATION = ("input", "mean", "std", "classes")


@dataclass(frozen=True)
class Exported:
    """An exported file.

    Attributes:
        trial: number of the trial.
        path: of the file; a ``.json`` file of the same name describes the model and its input.
        error: difference of its logits from the network's, relative to the largest; None for an int8 file, which the
            run has checked.
        note: a remark for the user, or None.
    """

    trial: int
    path: Path
    error: float | None
    note: str | None


def export(run_dir: Path, numbers: Sequence[int], form: str, folder: Path) -> Iterator[Exported]:
    """Export models into `folder`, lazily.

    Args:
        run_dir: the run directory.
        numbers: trials of finalists; empty: those on the front.
        form: one of `FORMATS`.
        folder: created if missing.

    Raises:
        SlimsearchError: there is no such model, or its file and its network disagree.
    """
    found = {int(model["trial"]): model for model in models(str(run_dir)) if "trial" in model}
    unknown = [number for number in numbers if number not in found]
    if unknown:
        raise SlimsearchError(f"--models {unknown[0]} is not one of the finalists: {', '.join(map(str, found))}")
    chosen = [found[number] for number in numbers] or [model for model in found.values() if model.get("on_front")]
    data = environment.read(run_dir)["dataset"]
    folder.mkdir(parents=True, exist_ok=True)
    for model in chosen:
        path = folder / f"{run_dir.resolve().name}-{model['trial']}{_SUFFIX[form]}"
        network = stored_network(run_dir, model)
        with atomic(path) as temporary:
            error, note = _WRITERS[form](network, run_dir / model["artifact"], _images(data), temporary)
        facts = {**model, "dataset": data["name"], **{name: data[name] for name in _NORMALISATION if name in data}}
        write_json(path.with_suffix(".json"), facts)
        yield Exported(model["trial"], path, error, note)


def _images(data: Mapping[str, Any]) -> Tensor:
    """(16, C, H, W) float32, distributed like normalized images; the data set may not be on this machine."""
    import torch

    return torch.randn(_IMAGES, *data["input_shape"], generator=torch.Generator().manual_seed(0))


def _onnx(network: Network, file: Path, images: Tensor, path: Path) -> tuple[float | None, str | None]:
    try:
        shutil.copyfile(file, path)
    except FileNotFoundError:
        raise SlimsearchError(f"there is no file '{file}'") from None
    model = DeployedModel(path)
    if network.quantization is not None:
        model(images.numpy())  # checks that the file runs
        return None, None
    return _checked(network, images, lambda batch: model(batch.numpy()), path), None


def _torch_export(network: Network, file: Path, images: Tensor, path: Path) -> tuple[float | None, str | None]:
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            batch = torch.export.Dim("batch", min=1, max=1 << 16)
            program = torch.export.export(network.module.eval(), (images,), dynamic_shapes=({0: batch},))
            torch.export.save(program, str(path))
            again = torch.export.load(str(path)).module()
        except Exception as error:  # torch.export raises exceptions of many types
            raise SlimsearchError(f"torch.export cannot express it: {first_line(error)}") from error
    return _checked(network, images, again, path), _float_note(network, file)


def _torchscript(network: Network, file: Path, images: Tensor, path: Path) -> tuple[float | None, str | None]:
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that TorchScript is deprecated
        try:
            traced = torch.jit.trace(network.module.eval(), images, check_trace=False)  # type: ignore[no-untyped-call]
            torch.jit.save(traced, str(path))
            again = torch.jit.load(str(path))  # type: ignore[no-untyped-call]
        except Exception as error:  # torch.jit raises exceptions of many types
            raise SlimsearchError(f"TorchScript cannot express it: {first_line(error)}") from error
    return _checked(network, images, again, path), _float_note(network, file)


def _float_note(network: Network, file: Path) -> str | None:
    if network.quantization is None:
        return None
    return f"float32: the network that was quantized to make '{file}', whose accuracy, latency and size differ"


def _checked(network: Network, images: Tensor, run: Callable[[Tensor], Any], path: Path) -> float:
    import torch

    largest = 0.0
    with torch.no_grad():
        for batch in (images, images[:1]):  # the batch size is variable
            expected = network.module.eval()(batch).numpy()
            largest = max(largest, exact_error(expected, torch.as_tensor(run(batch)).numpy()))
    if not largest <= EXACT:
        path.unlink(missing_ok=True)
        raise SlimsearchError(
            f"the exported file disagrees with the network: logits differ by {largest:.3g} of their size, allowed "
            f"{EXACT:.3g}"
        )
    return largest


_WRITERS = {"onnx": _onnx, "torch-export": _torch_export, "torchscript": _torchscript}
