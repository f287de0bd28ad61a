"""Networks with several inputs or outputs as networks with one of each."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from slimsearch.errors import SlimsearchError
from slimsearch.packed import Named, unpacked


class PackedModule(nn.Module):
    """A network with several inputs or outputs, from one tensor (N, ...) to one tensor (N, ...).

    Several inputs are the arguments of the network's ``forward``, by their names if these are its parameters, else in
    order; a ``forward`` with one parameter gets a dict of them. Several outputs are a dict, or a tuple in the order of
    the names.

    Args:
        network: the network.
        inputs: of an example; (): the network takes the tensor as it is.
        outputs: of an example; (): the network gives one tensor.

    Attributes:
        network: see above.
        separate: whether inputs and outputs are tensors of their own, in the order of `inputs` and `outputs`, as in an
            exported file.
    """

    def __init__(self, network: nn.Module, inputs: Named, outputs: Named) -> None:
        super().__init__()
        self.network, self.inputs, self.outputs = network, inputs, outputs
        self.separate = False
        names = [name for name, _ in inputs]
        parameters = [
            one.name
            for one in inspect.signature(network.forward).parameters.values()
            if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)
        ]
        self._as_dict = len(inputs) > 1 and len(parameters) == 1
        self._order = [one for one in parameters if one in names] if set(names) <= set(parameters) else names

    def forward(self, *inputs: torch.Tensor) -> Any:
        """(N, ...) packed -> (N, ...) packed; of several tensors, what the network gives."""
        if self.separate:
            outputs = self._called(dict(zip((name for name, _ in self.inputs), inputs, strict=True)), inputs)
            return tuple(outputs.values()) if isinstance(outputs, dict) else outputs
        if len(inputs) > 1:
            return self.network(*inputs)
        (values,) = inputs
        outputs = self._called(unpacked(values, self.inputs) if self.inputs else {}, inputs)
        if not isinstance(outputs, dict):
            return outputs
        return torch.cat([output.flatten(1) for output in outputs.values()], dim=1)

    def _called(self, parts: dict[str, torch.Tensor], inputs: tuple[torch.Tensor, ...]) -> Any:
        """The output, or a dict of several outputs in order."""
        if not self.inputs:
            found = self.network(*inputs)
        elif self._as_dict:
            found = self.network(parts)
        else:
            found = self.network(*(parts[name] for name in self._order))
        if not self.outputs:
            return found
        names = [name for name, _ in self.outputs]
        if isinstance(found, tuple | list) and len(found) == len(names):
            found = dict(zip(names, found, strict=True))
        if not isinstance(found, Mapping) or set(found) != set(names):
            given = f"a dict with {', '.join(map(str, found))}" if isinstance(found, Mapping) else type(found).__name__
            raise SlimsearchError(f"forward gives {given}; the task has the outputs {', '.join(names)}")
        for name, shape in self.outputs:
            if tuple(found[name].shape[1:]) != shape:
                raise SlimsearchError(f"output {name} has the shape {tuple(found[name].shape)}, not (N, {shape})")
        return {name: found[name] for name in names}


def packed(network: nn.Module, inputs: Named, outputs: Named) -> nn.Module:
    """`network`, as a `PackedModule` if it has several inputs or outputs; one is not packed again."""
    if not inputs and not outputs:
        return network
    inner = network.network if isinstance(network, PackedModule) else network
    return PackedModule(inner, inputs, outputs).train(network.training)
