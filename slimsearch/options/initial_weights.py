"""Weights of a trained network: for the networks of a space (``--init``), and for the network that has them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimsearch.errors import SlimsearchError, first_line, reason
from slimsearch.options.configuration import TORCHVISION
from slimsearch.search_spaces import ModelSpace

if TYPE_CHECKING:
    from torch import Tensor, nn


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

    state = _read(source, "--init", download)
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


def trained_weights(source: str, module: nn.Module, classes: int, *, download: bool) -> bytes:
    """All weights of `module`, which were trained before, as safetensors.

    Args:
        source: as for `initial_weights`; torchvision's weights can have a name, ``torchvision:resnet18:IMAGENET1K_V1``.
            Files may be checkpoints with the weights under "state_dict" or "model", and names may begin with
            "module.", as of `torch.nn.DataParallel`.
        module: the network.
        classes: of the data set.
        download: let torchvision download a missing file.

    Raises:
        SlimsearchError: the file is missing or invalid, lacks weights of `module`, or has others.
    """
    import torch
    from safetensors.torch import save

    state = _read(source, "--weights", download)
    own = module.state_dict()
    state = _without_prefix(state, own)
    what = f"--weights {source}"
    shapes = {name: (tuple(state[name].shape), tuple(own[name].shape)) for name in own if name in state}
    other = {name: pair for name, pair in shapes.items() if pair[0] != pair[1]}
    if other:
        name, (found, wanted) = next(iter(other.items()))
        if all(now[:1] == (classes,) and was[1:] == now[1:] for was, now in other.values()):
            raise SlimsearchError(
                f"{what}: the network was trained for {found[0]} classes ('{name}' is {found}), the data set has "
                f"{classes}: train it on this data set before it is compressed"
            )
        raise SlimsearchError(f"{what}: '{name}' is {found}, and {wanted} in the model")
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    unknown = [name for name in state if name not in own]
    for names, problem in ((missing, "lack {}of the model"), (unknown, "have {}that the model lacks")):
        if names:
            others = f" and {len(names) - 1} more " if len(names) > 1 else " "
            raise SlimsearchError(f"{what}: they " + problem.format(f"'{names[0]}'{others}"))
    whole = {name: torch.as_tensor(state.get(name, value)).to(value.dtype) for name, value in own.items()}
    content: bytes = save({name: value.detach().clone().contiguous() for name, value in whole.items()})
    return content


def torchvision_weights(source: str, option: str) -> Any:
    """The trained weights that torchvision has under a name such as ``torchvision:resnet18:IMAGENET1K_V1``.

    `option` is that of the command line, for messages.

    Raises:
        SlimsearchError: there are none.
    """
    import torchvision

    name, _, version = source.removeprefix(TORCHVISION).partition(":")
    try:
        every = torchvision.models.get_model_weights(name)
        return every[version] if version else every.DEFAULT
    except KeyError as error:
        known = ", ".join(one.name for one in every)
        raise SlimsearchError(f"{option}: torchvision's '{name}' has no weights '{version}'; it has {known}") from error
    except (ValueError, AttributeError) as error:
        raise SlimsearchError(f"{option} {source}: torchvision has no trained '{name}'") from error


def _without_prefix(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """`state` without what wrappers such as DataParallel and torch.compile add before each name."""
    while state and not state.keys() & own.keys():
        first = next(iter(state)).partition(".")[0] + "."
        if not all(name.startswith(first) for name in state):
            break
        state = {name.removeprefix(first): value for name, value in state.items()}
    return state


def _read(source: str, option: str, download: bool) -> Mapping[str, Tensor]:
    """The weights of `option`, a file or torchvision's."""
    import torch
    from safetensors.torch import load_file

    path = Path(source)
    if source.startswith(TORCHVISION):
        weights = torchvision_weights(source, option)
        path = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
        if not path.is_file():
            if not download:
                raise SlimsearchError(f"{option} {source}: there is no file '{path}'; --download fetches it")
            try:
                torch.hub.load_state_dict_from_url(weights.url, progress=False, check_hash=True)
            except Exception as error:  # the network and the file system each have their own
                raise SlimsearchError(f"{option} {source}: cannot fetch {weights.url}: {first_line(error)}") from error
    try:
        if path.suffix == ".safetensors":
            found: Any = load_file(str(path))
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch, safetensors and the file system each have their own
        why = "it is no file in which torch.save stored tensors alone, such as model.state_dict()"
        if isinstance(error, OSError) or path.suffix == ".safetensors":
            why = reason(error)
        raise SlimsearchError(f"{option}: cannot read the weights '{path}': {why}") from error
    for name in ("state_dict", "model"):
        if isinstance(found, dict) and isinstance(found.get(name), dict):
            found = found[name]
    if not isinstance(found, dict) or not all(isinstance(value, torch.Tensor) for value in found.values()):
        raise SlimsearchError(f"{option}: '{path}' has no weights: it is not a mapping from names to tensors")
    return found


def _without_foreign_head(state: Mapping[str, Tensor], num_classes: int) -> dict[str, Tensor]:
    last = next((name for name in reversed(list(state)) if state[name].ndim == 2), None)
    if last is None or state[last].shape[0] == num_classes:
        return dict(state)
    head = last.rpartition(".")[0]
    return {name: value for name, value in state.items() if name.rpartition(".")[0] != head}
