"""Mapping of the parameters of a network to slices of the shared weights of its space."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from slimsearch.errors import SlimsearchError, describe_error
from slimsearch.search_spaces import NniSpace

if TYPE_CHECKING:
    from torch import Tensor, nn

_CONVOLUTION = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_TRANSPOSED = ("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation")
_NORMALIZATIONS = frozenset({"batch_norm", "layer_norm", "group_norm", "instance_norm", "prelu"})


@dataclass(frozen=True)
class Slot:
    """A slice of a shared tensor: the first `shape` entries of each dimension of the tensor at `key`."""

    key: str
    shape: tuple[int, ...]


def slots_of(space: NniSpace, architecture: Mapping[str, Any], module: nn.Module) -> dict[str, Slot]:
    """The slot of each parameter of `module`, the network of `architecture`, by name.

    Raises:
        SlimsearchError: the network fails on images of the space.
    """
    parameters = dict(module.named_parameters())
    uses = _uses(space, architecture, module, parameters.values())
    slots = {}
    for name, parameter in parameters.items():
        shape = tuple(parameter.shape)
        use = uses.get(id(parameter), _exactly(shape))
        slots[name] = Slot(f"{_origin(space.template, architecture, name)}{use}", shape)
    return slots


def _origin(template: Any, architecture: Mapping[str, Any], name: str) -> str:
    """The path in the space of the parameter that is called `name` in a network.

    NNI replaces a `LayerChoice` by the chosen branch, and moves the blocks of a `Repeat` one level up.
    """
    *labels, leaf = name.split(".")
    node, path = _chosen(template, architecture, [])
    edge: list[str] = []
    last: Any = template
    for position, label in enumerate(labels):
        if _is(node, "Repeat"):
            node, path = node.blocks, [*path, "blocks"]
        elif _is(node, "Cell") and label == "ops":
            row, column = map(int, labels[position + 1 : position + 3])
            edge.append(f"from{architecture.get(node.inputs[row][column].label)}")
        child = getattr(node, "_modules", {}).get(label)
        last = child if _is(child, "MutableModule") else last
        node, path = _chosen(child, architecture, [*path, label])
        if node is None:
            # A module that the space creates only for a given network: shared between equal choices only.
            choices = sorted(choice for choice in last.simplify() if choice in architecture)
            edge.append(json.dumps({choice: architecture[choice] for choice in choices}))
            path += labels[position + 1 :]
            break
    return ".".join([*path, *edge, leaf])


def _chosen(node: Any, architecture: Mapping[str, Any], path: list[str]) -> tuple[Any, list[str]]:
    """The branch chosen at `node`, through nested choices, and its path."""
    while _is(node, "LayerChoice"):
        value = architecture[node.label]
        node, path = node[value], [*path, str(value)]
    return node, path


def _is(node: Any, name: str) -> bool:
    """Whether `node` is an instance of NNI's class `name` (without importing NNI)."""
    return any(kind.__name__ == name and kind.__module__.startswith("nni.") for kind in type(node).__mro__)


def _uses(
    space: NniSpace, architecture: Mapping[str, Any], module: nn.Module, parameters: Iterable[Tensor]
) -> dict[int, str]:
    """How each parameter is used, by its id; part of its key. Found by one forward pass on zeros."""
    import torch
    from torch.overrides import TorchFunctionMode

    trace = _UseTrace(parameters)

    class Mode(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            trace.record(getattr(func, "__name__", ""), args, kwargs or {}, out)
            return out

    module.eval()
    try:
        with torch.no_grad(), Mode():
            module(torch.zeros(2, *space.input_shape))
    except Exception as error:  # a user's module may raise anything
        raise SlimsearchError(
            f"{space.name} {dict(architecture)} fails on images of "
            f"{'x'.join(map(str, space.input_shape))}: {describe_error(error)}"
        ) from error
    return trace.uses


class _UseTrace:
    """Records every PyTorch call of a forward pass: how parameters are used, and the composition of their inputs.

    The composition of a tensor's second dimension is a text: empty for plain channels or features, ``*25`` for channels
    of 25 positions each, ``+(16,8)`` for the concatenated channels of two tensors.
    """

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        self.uses: dict[int, str] = {}
        self._parameters = {id(parameter) for parameter in parameters}
        # The reference to the tensor prevents a reuse of its id.
        self._compositions: dict[int, tuple[Tensor, str]] = {}

    def record(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> None:
        """Record a call of PyTorch's function `name`, which returned `out`."""
        import torch

        tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)]
        own = [tensor for tensor in tensors if id(tensor) in self._parameters]
        use = self._use(name, args, kwargs) if own else None
        if use is not None:
            for tensor in own:
                positioned = name in _NORMALIZATIONS and tensor.ndim > 1  # one weight per position
                self.uses.setdefault(id(tensor), _exactly(tensor.shape) if positioned else use)
        if isinstance(out, torch.Tensor) and out.ndim > 1 and id(out) not in self._parameters:
            is_plain = own and name not in _NORMALIZATIONS
            self._compositions[id(out)] = out, "" if is_plain else self._compose(name, args, kwargs, tensors, out)

    def _composition(self, tensor: Tensor) -> str:
        return self._compositions[id(tensor)][1] if id(tensor) in self._compositions else ""

    def _use(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str | None:
        images = args[0] if args else kwargs.get("input")
        if images is None:
            return None
        if name == "linear":
            return self._composition(images) if images.ndim == 2 else ""
        if name in _NORMALIZATIONS:
            return self._composition(images)
        if not name.startswith("conv"):
            return None
        names = _TRANSPOSED if "transpose" in name else _CONVOLUTION
        given = {"groups": 1, "dilation": 1, **dict(zip(names, args, strict=False)), **kwargs}
        weight, groups = given["weight"], given["groups"]
        spread = given["dilation"] if isinstance(given["dilation"], tuple | list) else (given["dilation"],)
        kernel = f"@{_text(weight.shape[2:])}" + (f"/{_text(spread)}" if set(spread) != {1} else "")
        if groups == 1:
            return kernel + self._composition(images)
        if groups == images.shape[1]:  # depthwise: the outputs of one channel are adjacent
            return f"{kernel}:{weight.shape[0] // groups} a channel{self._composition(images)}"
        return f"{kernel}:{groups} groups{_exactly(weight.shape)}"

    def _compose(
        self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], tensors: Sequence[Tensor], out: Tensor
    ) -> str:
        if name in ("cat", "concat", "concatenate"):
            joined = args[0] if args else kwargs["tensors"]
            along = args[1] if len(args) > 1 else kwargs.get("dim", kwargs.get("axis", 0))
            if len(joined) > 1 and along % out.ndim == 1:
                return "+(" + ",".join(f"{one.shape[1]}{self._composition(one)}" for one in joined) + ")"
            return ""
        for tensor in tensors:
            if tensor.ndim > out.ndim == 2 and tensor.numel() == out.numel():  # flattened
                positions = out.shape[1] // max(1, tensor.shape[1])
                return self._composition(tensor) + (f"*{positions}" if positions > 1 else "")
            if tensor.ndim > 1 and tensor.shape[1] == out.shape[1] and self._composition(tensor):
                return self._composition(tensor)
        return ""


def _exactly(shape: Iterable[int]) -> str:
    return f"={_text(shape)}"


def _text(sizes: Iterable[int]) -> str:
    return "x".join(map(str, sizes))
