"""Initial weights of networks from a trained network (``--init``)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimsearch.errors import SlimsearchError, first_line
from slimsearch.options.configuration import TORCHVISION
from slimsearch.search_spaces import ModelSpace

if TYPE_CHECKING:
    from torch import Tensor


def initial_weights(source: str, space: ModelSpace, *, download: bool) -> bytes:
    """The weights of a trained network for the networks of `space`, as safetensors.

    The class of a space may have a function `arranged`, which sorts the channels by importance. A last layer for
    another number of classes is left out.

    Args:
        source: ``torchvision:resnet18``, from torchvision's cache, or the path of a .safetensors file or of a file of
            ``torch.save``, which is read without running code in it.
        space: the searched space.
        download: let torchvision download a missing file.

    Raises:
        SlimsearchError: the file is missing or invalid, or has weights of another kind of network.
    """
    from safetensors.torch import save

    state = _of_torchvision(source, download) if source.startswith(TORCHVISION) else _of_file(Path(source))
    arranged = getattr(space.code, "arranged", None)
    if arranged is not None:
        try:
            state = arranged(state, space.input_shape[0])
        except (KeyError, IndexError, ValueError, RuntimeError) as error:
            name = space.name
            raise SlimsearchError(f"--init {source}: these are not weights of a {name}: {first_line(error)}") from error
    own = space.build(next(space.grid())).state_dict()
    state = _without_foreign_head(state, space.num_classes)
    if not state.keys() & own.keys():
        some = ", ".join(list(own)[:3])
        raise SlimsearchError(f"--init {source}: none of its layers is called like one of the space's ({some}, ...)")
    content: bytes = save({name: value.contiguous() for name, value in state.items()})
    return content


def _of_torchvision(source: str, download: bool) -> Mapping[str, Tensor]:
    import torch
    import torchvision

    name = source.removeprefix(TORCHVISION)
    try:
        weights = torchvision.models.get_model_weights(name).DEFAULT
    except (ValueError, AttributeError) as error:
        raise SlimsearchError(f"--init {source}: torchvision has no trained '{name}'") from error
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
    if not path.is_file():
        if not download:
            raise SlimsearchError(f"--init {source}: there is no file '{path}'; --download fetches it")
        try:
            torch.hub.load_state_dict_from_url(weights.url, progress=False, check_hash=True)
        except Exception as error:  # the network and the file system each have their own
            raise SlimsearchError(f"--init {source}: cannot fetch {weights.url}: {first_line(error)}") from error
    return _of_file(path)


def _of_file(path: Path) -> Mapping[str, Tensor]:
    import torch
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            found: Any = load_file(str(path))
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch, safetensors and the file system each have their own
        raise SlimsearchError(f"--init: cannot read the weights '{path}': {first_line(error)}") from error
    if isinstance(found, dict) and isinstance(found.get("state_dict"), dict):
        found = found["state_dict"]
    if not isinstance(found, dict) or not all(isinstance(value, torch.Tensor) for value in found.values()):
        raise SlimsearchError(f"--init: '{path}' has no weights: it is not a mapping from names to tensors")
    return found


def _without_foreign_head(state: Mapping[str, Tensor], num_classes: int) -> dict[str, Tensor]:
    last = next((name for name in reversed(list(state)) if state[name].ndim == 2), None)
    if last is None or state[last].shape[0] == num_classes:
        return dict(state)
    head = last.rpartition(".")[0]
    return {name: value for name, value in state.items() if name.rpartition(".")[0] != head}
