"""The adapter to torch-pruning, which finds and removes coupled channels; no other file imports that library.

Source: DepGraph (Fang et al. 2023). Used of torch-pruning 1.5 and 1.6:

- its documented API: `DependencyGraph` with `build_dependency`, `module2node`, `get_pruning_group`,
  `get_pruner_of_module`, `get_out_channels`, `get_in_channels` and `is_out_channel_pruning_fn`; a group's items `dep`
  and `idxs` with `dep.layer` and `dep.pruning_fn`; `Group.prune`; the functions ``prune_..._channels``.
- the undocumented `root_idxs` of an item: the channel of the group's root for each of the item's channels.
- `dep.target.type` and the slice's `step`, to recognize slices that take every other channel.
- the function ``index_mapping.update_reshape_index_mapping``, which fails at the channel shuffles of ShuffleNetV2.
- that a LayerNorm whose channels are removed gets a new weight of the last dimension.
- the class `Group` that `get_pruning_group` makes, with `add_dep`, to end a search that would not end.
- the local variable ``node`` of the function in which an analysis fails, to name the layers in the message; without it
  the message has only the reason.
"""

from __future__ import annotations

import contextlib
import traceback
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


# Most channels of all layers in a group: ViT-B has 390,000. The limit is halved with each group that exceeds it.
_MOST_CHANNELS, _LEAST_LIMIT = 1_000_000, 100_000


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

    @property
    def is_filters(self) -> bool:
        """Whether the layer is a convolution or Linear that writes the channels, each by a filter of its own."""
        import torch

        kinds = torch.nn.Linear | torch.nn.modules.conv._ConvNd
        return self.is_scored and self.outputs and isinstance(self.layer, kinds)

    def weights(self) -> Tensor | None:
        """The weights of the channels, (channels, weights per channel); None if there are none."""
        import torch

        if not self.is_scored or self.layer.weight is None:
            return None
        weight: Tensor = self.layer.weight.detach()
        if isinstance(self.layer, torch.nn.Linear | torch.nn.modules.conv._ConvNd):
            if self.outputs == bool(getattr(self.layer, "transposed", False)):
                # The channels are in the second dimension, of each group of a convolution.
                groups: Any = getattr(self.layer, "groups", 1)
                weight = weight.view(groups, -1, *weight.shape[1:]).transpose(1, 2).flatten(0, 1)
            weight = weight.flatten(1)
        elif weight.ndim == 1:
            weight = weight.unsqueeze(1)
        else:
            return None
        return weight[list(self.channels)]


@dataclass(frozen=True)
class Group:
    """Channels of several layers that must be removed together.

    Attributes:
        layer: the root, to whose channels those of all members are mapped.
        outputs: whether they are output channels of the root.
        width: number of channels of the root.
        blocks: number of equal blocks of the root's channels that lose the same ones, as the halves of a gated unit.
        members: all layers, the root first.
        head: number of channels of a head, if the root is an attention layer that loses whole heads; otherwise 0.
    """

    layer: nn.Module
    outputs: bool
    width: int
    blocks: int
    members: tuple[Member, ...]
    head: int = 0


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

        self._most = _MOST_CHANNELS
        self._unmapped: set[Any] = set()  # nodes of operations through which channels cannot be followed
        with warnings.catch_warnings(), self._reshapes():
            warnings.simplefilter("ignore")  # about parameters without a layer, which torch-pruning handles
            self._graph = torch_pruning.DependencyGraph().build_dependency(module, images)

    def groups(self, last: nn.Module, others: Sequence[nn.Module] = ()) -> tuple[list[Group], list[nn.Module]]:
        """The groups whose channels can be followed through the network, and the roots of the others.

        Groups with output channels of the layer `last` are left out, and those whose root would be one of `others`.

        Raises:
            Exception: no group can be found; see `blamed_layers`.
        """
        from torch_pruning.ops import TORCH_CONV, TORCH_LINEAR

        found: list[Group] = []
        lost: list[nn.Module] = []
        grouped: list[Any] = [last, *others]
        failure: Exception | None = None
        for layer in list(self._graph.module2node):
            if not isinstance(layer, TORCH_CONV | TORCH_LINEAR) or layer in grouped:
                continue
            try:
                group = self._pruning_group(layer, range(self._width(layer, outputs=True) or 0))
            except Exception as error:  # torch-pruning raises whatever it runs into
                failure = failure or error
                lost.append(layer)
                continue
            members = tuple(self._member(item) for item in group)
            written = [member.layer for member in members if member.outputs]
            grouped += written
            if any(self._takes_every_other(item) or item.dep.target in self._unmapped for item in group):
                lost.append(layer)
            elif last not in written:
                found.append(self._group(members))
        if failure is not None and not found and not isinstance(failure, _NotFollowedError):
            raise failure
        return found, lost

    def remove(self, root: nn.Module, channels: Sequence[int], *, outputs: bool) -> None:
        """Remove channels of `root`, and those that depend on them, from the module, in place."""
        import torch

        group = self._pruning_group(root, channels, outputs=outputs)
        gone: dict[nn.Module, set[int]] = {}
        for item in group:
            if isinstance(item.dep.layer, torch.nn.LayerNorm):
                gone.setdefault(item.dep.layer, set()).update(map(int, item.idxs))
        weights = {layer: {name: own.detach() for name, own in layer.named_parameters()} for layer in gone}
        group.prune()
        # torch-pruning leaves the channels of a LayerNorm in the order of a set, which need not be ascending.
        for layer, lost in gone.items():
            for name, weight in weights[layer].items():
                kept = [channel for channel in range(weight.shape[-1]) if channel not in lost]
                if getattr(layer, name).shape == weight[..., kept].shape:
                    getattr(layer, name).data = weight[..., kept]

    def _pruning_group(self, layer: nn.Module, channels: Sequence[int], *, outputs: bool = True) -> Any:
        pruner = self._graph.get_pruner_of_module(layer)
        function = pruner.prune_out_channels if outputs else pruner.prune_in_channels
        with self._bounded(), self._reshapes():
            return self._graph.get_pruning_group(layer, function, list(channels))

    def _group(self, members: tuple[Member, ...]) -> Group:
        root = members[0]
        width = self._width(root.layer, outputs=root.outputs)
        assert width is not None
        with_first = {
            int(i)
            for item in self._pruning_group(root.layer, [0])
            if item.dep.layer is root.layer and self._member(item).outputs
            for i in item.idxs
        }
        blocks = len(with_first)
        if width % blocks or with_first != set(range(0, width, width // blocks)):
            blocks = 1
        return Group(root.layer, root.outputs, width, blocks, members)

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

    def _takes_every_other(self, item: Any) -> bool:
        """Whether it is a slice of every other channel, as in ShuffleNet, where removing one shifts all others."""
        from torch_pruning import ops

        target = item.dep.target
        return bool(target.type == ops.OPTYPE.SLICE and target.module.step != 1)

    @contextlib.contextmanager
    def _reshapes(self) -> Iterator[None]:
        """Notes the nodes of reshapes at which torch-pruning divides by zero, as in channel shuffles."""
        from torch_pruning.dependency import index_mapping

        update = index_mapping.update_reshape_index_mapping

        def noted(graph: Any, node: Any) -> None:
            try:
                update(graph, node)
            except ZeroDivisionError:
                self._unmapped.add(node)

        index_mapping.update_reshape_index_mapping = noted
        try:
            yield
        finally:
            index_mapping.update_reshape_index_mapping = update

    @contextlib.contextmanager
    def _bounded(self) -> Iterator[None]:
        """Ends a search for dependent channels that finds more of them than a layer has.

        Unknown operations may appear to have more channels than they have, and some forms of attention ever more, so
        that the search would not end.

        Raises:
            _NotFollowedError: in the context, when it has found too many.
        """
        import torch_pruning

        names = torch_pruning.DependencyGraph.get_pruning_group.__globals__
        unbounded, dependencies = names["Group"], self

        class Bounded(unbounded):  # type: ignore[misc, valid-type]
            found = 0

            def add_dep(self, dep: Any, idxs: Any) -> None:
                self.found += len(idxs)
                outputs = dependencies._graph.is_out_channel_pruning_fn(dep.pruning_fn)
                width = dependencies._width(dep.target, outputs=outputs)
                too_many = width is not None and max((i.idx for i in idxs), default=0) >= width
                if self.found > dependencies._most:
                    dependencies._most = max(dependencies._most // 2, _LEAST_LIMIT)
                    too_many = True
                if too_many:
                    raise _NotFollowedError
                super().add_dep(dep, idxs)

        names["Group"] = Bounded
        try:
            yield
        finally:
            names["Group"] = unbounded


class _NotFollowedError(Exception):
    """The channels of a layer cannot be followed to the layers that read them."""


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
