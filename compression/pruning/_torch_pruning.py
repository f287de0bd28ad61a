"""The adapter to torch-pruning, which finds and removes coupled channels; no other file imports that library.

Source: DepGraph (Fang et al. 2023). Used of torch-pruning 1.5 and 1.6:

- its documented API: `DependencyGraph` with `build_dependency`, `get_all_groups`, `get_pruning_group`,
  `get_pruner_of_module`, `get_out_channels`, `get_in_channels` and `is_out_channel_pruning_fn`; a group's items `dep`
  and `idxs` with `dep.layer` and `dep.pruning_fn`; `Group.prune`; the functions ``prune_..._channels``.
- the undocumented `root_idxs` of an item: the channel of the group's root for each of the item's channels.
- `dep.target.type` and the slice's `step`, to recognize slices that take every other channel.
- the local variable ``node`` of the function in which an analysis fails, to name the layers in the message; without it
  the message has only the reason.
"""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Member:
    """The channels of one layer in a group.

    Attributes:
        layer: a layer of the network, or torch-pruning's stand-in for an operation or for a parameter without a layer.
        outputs: whether they are output channels of the layer.
        channels: their indices in the layer.
        roots: the corresponding channels of the group's root.
        is_scored: whether the layer's weights rate its channels: a convolution that is not depthwise, a Linear, a
            BatchNorm or a LayerNorm.
    """

    layer: Any
    outputs: bool
    channels: tuple[int, ...]
    roots: tuple[int, ...]
    is_scored: bool

    def weights(self) -> Tensor | None:
        """The weights of the channels, (channels, weights per channel); None if there are none."""
        import torch

        if not self.is_scored or self.layer.weight is None:
            return None
        weight: Tensor = self.layer.weight.detach()
        if isinstance(self.layer, torch.nn.Linear | torch.nn.modules.conv._ConvNd):
            if self.outputs == bool(getattr(self.layer, "transposed", False)):
                weight = weight.transpose(0, 1)
            weight = weight.flatten(1)
            groups: Any = getattr(self.layer, "groups", 1)
            if not self.outputs and groups not in (1, getattr(self.layer, "in_channels", 1)):
                weight = weight.repeat(groups, 1)
        else:
            weight = weight.unsqueeze(1)
        return weight[list(self.channels)]


@dataclass(frozen=True)
class Group:
    """Channels of several layers that must be removed together.

    Attributes:
        layer: the root, to whose channels those of all members are mapped.
        outputs: whether they are output channels of the root.
        width: number of channels of the root.
        members: all layers, the root first.
    """

    layer: nn.Module
    outputs: bool
    width: int
    members: tuple[Member, ...]


class Dependencies:
    """The dependencies between the channels of a module.

    Args:
        module: in evaluation mode, with gradients enabled for its parameters, which the analysis follows.
        images: an input, (N, C, H, W).

    Raises:
        Exception: the analysis fails; see `blamed_layers`.
    """

    def __init__(self, module: nn.Module, images: Tensor) -> None:
        import torch_pruning

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about parameters without a layer, which torch-pruning handles
            self._graph = torch_pruning.DependencyGraph().build_dependency(module, images)

    def groups(self, excluded: nn.Module) -> list[Group]:
        """The groups whose channels can be traced through the network, without those of the layer `excluded`."""
        return [
            self._read(one) for one in self._graph.get_all_groups(ignored_layers=[excluded]) if self._is_traced(one)
        ]

    def remove(self, layer: nn.Module, channels: Sequence[int], *, outputs: bool) -> None:
        """Remove channels of `layer`, and those that depend on them, from the module, in place."""
        pruner = self._graph.get_pruner_of_module(layer)
        function = pruner.prune_out_channels if outputs else pruner.prune_in_channels
        self._graph.get_pruning_group(layer, function, list(channels)).prune()

    def _read(self, group: Any) -> Group:
        members = tuple(self._member(item) for item in group)
        root = members[0]
        width = self._width(root.layer, outputs=root.outputs)
        assert width is not None
        return Group(root.layer, root.outputs, width, members)

    def _member(self, item: Any) -> Member:
        import torch_pruning as tp

        layer, function = item.dep.layer, item.dep.pruning_fn
        scored = (
            tp.prune_conv_out_channels, tp.prune_conv_in_channels, tp.prune_linear_out_channels,
            tp.prune_linear_in_channels, tp.prune_batchnorm_out_channels, tp.prune_layernorm_out_channels,
        )  # fmt: skip
        return Member(
            layer, bool(self._graph.is_out_channel_pruning_fn(function)), tuple(map(int, item.idxs)),
            tuple(map(int, item.root_idxs or ())), function in scored,
        )  # fmt: skip

    def _width(self, layer: Any, *, outputs: bool) -> int | None:
        width = (self._graph.get_out_channels if outputs else self._graph.get_in_channels)(layer)
        return None if width is None else int(width)

    def _is_traced(self, group: Any) -> bool:
        """Whether the analysis traces the channels correctly.

        It does not for slices that take every other channel, as in ShuffleNet, where removing one shifts all others,
        nor for unknown operations, which may appear to have more channels than they have.
        """
        from torch_pruning import ops

        for item in group:
            target = item.dep.target
            if target.type == ops.OPTYPE.SLICE and target.module.step != 1:
                return False
            width = self._width(item.dep.layer, outputs=self._graph.is_out_channel_pruning_fn(item.dep.pruning_fn))
            if width is not None and item.idxs and max(item.idxs) >= width:
                return False
        return True


def blamed_layers(error: Exception, names: dict[nn.Module, str]) -> list[str]:
    """Names of the layers before the operation at which the analysis failed; empty if unknown."""
    frames = list(traceback.walk_tb(error.__traceback__))
    nodes = [frame.f_locals["node"] for frame, _ in reversed(frames) if hasattr(frame.f_locals.get("node"), "inputs")]
    if not nodes:
        return []
    layers, waiting, visited = [], list(nodes[0].inputs), set()
    while waiting:
        node = waiting.pop()
        if node in visited:
            continue
        visited.add(node)
        if names.get(node.module):
            layers.append(names[node.module])
        else:
            waiting += node.inputs
    return sorted(layers)
