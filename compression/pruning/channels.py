"""Ranking, zeroing and removal of the channels of coupled layers."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from slimsearch.compression._weights import contiguous_copy, layers_in_order, make_contiguous, weights
from slimsearch.compression.pruning._torch_pruning import Dependencies, Group, blamed_layers
from slimsearch.compression.pruning.importances import Importance
from slimsearch.errors import SlimsearchError, describe_error

if TYPE_CHECKING:
    from torch import Tensor, nn

_log = logging.getLogger(__name__)

_WIDE = 4  # a layer with at least this many times the rounding unit gets a round width


@dataclass(frozen=True)
class Cut:
    """Channels to remove from a layer and from all layers that depend on it.

    Attributes:
        layer: name of the root of the group.
        output: whether they are output channels of the root.
        channels: their indices.
        silenced: indices of the corresponding output channels in all layers of the group, by name.
    """

    layer: str
    output: bool
    channels: tuple[int, ...]
    silenced: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class _Ranked:
    """A group with the data to rank its channels.

    Attributes:
        group: the coupled layers.
        layer: name of the group's root.
        blocks: number of equal blocks of the channels; all lose the same ones.
        cost: number of parameters per channel.
    """

    group: Group
    layer: str
    blocks: int
    cost: float

    @property
    def width(self) -> int:
        return self.group.width


class Channels:
    """The groups of channels of a module that can be removed.

    Args:
        module: stays unchanged; only its layers and shapes matter.
        images: (N, C, H, W) float32, an input for the analysis.
        round_to: layers with at least four times as many channels get a multiple of it.

    Raises:
        SlimsearchError: no channel of the module can be removed; the message has the reason.
    """

    def __init__(self, module: nn.Module, images: Tensor, round_to: int = 1) -> None:
        self._images = contiguous_copy(images[:2])
        self._round_to = round_to
        self._shadow = copy.deepcopy(module).eval().float()
        make_contiguous(self._shadow)
        for parameter in self._shadow.parameters():
            parameter.requires_grad_(True)  # the analysis follows gradients
        order = layers_in_order(self._shadow, self._images)
        if not order:
            raise SlimsearchError("this network has neither a Linear nor a Conv2d layer to prune")
        self._order = {layer: position for position, layer in enumerate(order)}
        self._last = order[-1]
        self._names = {layer: name for name, layer in self._shadow.named_modules()}
        try:
            found = Dependencies(self._shadow, self._images).groups(self._shadow.get_submodule(self._last))
        except Exception as error:  # torch-pruning raises whatever its analysis runs into
            layers = " and ".join(repr(layer) for layer in blamed_layers(error, self._names)[:3])
            raise SlimsearchError(
                "this network cannot be pruned: its channels cannot be followed through an operation"
                f"{' after ' if layers else ''}{layers} ({describe_error(error)})"
            ) from error
        self._groups = [one for one in map(self._ranked, found) if one.width // one.blocks > 1]
        if not self._groups:
            raise SlimsearchError(f"this network cannot be pruned: no layer before '{self._last}' has two channels")

    def _ranked(self, group: Group) -> _Ranked:
        layers = {member.layer for member in group.members}
        parameters = sum(
            parameter.numel()
            for layer in layers
            if hasattr(layer, "parameters")
            for parameter in layer.parameters(recurse=False)
        )
        blocks = math.lcm(*(_blocks(layer) for layer in layers))
        return _Ranked(group, self._names[group.layer], blocks, parameters / group.width)

    def exclude_failing(self) -> None:
        """Test every group alone on a copy, and exclude the groups whose channels cannot be removed.

        Raises:
            SlimsearchError: no group is left; the message names the layers and the reasons.
        """
        working, reasons = [], []
        for group in self._groups:
            per_block = group.width // group.blocks
            trial = tuple(block * per_block for block in range(group.blocks))
            try:
                self._run([self._cut(group, trial)])
                working.append(group)
            except SlimsearchError as error:
                reasons.append(f"'{group.layer}' ({error})")
                _log.warning("layer '%s' and the layers that depend on it keep all channels: %s", group.layer, error)
        if not working:
            raise SlimsearchError(f"this network cannot be pruned: {'; '.join(reasons)}")
        self._groups = working

    def choose(
        self,
        importance: Importance,
        scores: Mapping[str, Tensor],
        ratios: Sequence[float],
        *,
        together: bool,
        by_cost: bool = False,
    ) -> list[Cut]:
        """The least important channels, about the given shares.

        Args:
            importance: converts scores of weights to one number per channel.
            scores: of weights, by parameter name.
            ratios: share of channels to remove, for all layers; or n shares, each for one n-th of the layers in the
                order of their calls.
            together: rank the channels of all layers together, for the first of the ratios.
            by_cost: with `together`, rank by importance divided by the number of parameters per channel.

        Raises:
            SlimsearchError: an importance is not finite, or there is nothing to rank.
        """
        import torch

        with torch.no_grad():
            for name, parameter in self._shadow.named_parameters():
                if name in scores:
                    parameter.copy_(scores[name])
                elif parameter.ndim:
                    parameter.zero_()
        ranked: list[tuple[_Ranked, Tensor]] = []
        for group in self._groups:
            found = _channel_importance(group.group, importance)
            if found is None:
                continue
            values = found.view(group.blocks, -1).mean(dim=0)  # (channels of a block,)
            if not bool(torch.isfinite(values).all()):
                raise SlimsearchError(f"the importance of '{group.layer}' is not finite")
            ranked.append((group, values))
        if not ranked:
            raise SlimsearchError(f"'{type(importance).__name__.lower()}' finds nothing to rank in this network")
        return [
            cut
            for (group, values), width in zip(ranked, self._widths(ranked, ratios, together, by_cost), strict=True)
            if (cut := self._least(group, values, width)) is not None
        ]

    def _widths(
        self, ranked: Sequence[tuple[_Ranked, Tensor]], ratios: Sequence[float], together: bool, by_cost: bool
    ) -> list[float]:
        """Number of remaining channels of each group, before rounding."""
        import torch

        if not together:
            return [group.width * (1 - ratios[self._section(group, len(ratios))]) for group, _ in ranked]
        ratio = ratios[0]
        comparable = []
        for group, values in ranked:
            value = values / values.mean().clamp_min(1e-12) if not by_cost else values / group.cost
            comparable.append(value)
        counts = torch.cat([torch.full_like(v, g.blocks) for (g, _), v in zip(ranked, comparable, strict=True)])
        pooled, order = torch.cat(comparable).sort()
        removed = counts[order].cumsum(0) <= ratio * float(counts.sum())
        threshold = float(pooled[removed][-1]) if bool(removed.any()) else -math.inf
        return [group.blocks * int((v > threshold).sum()) for (group, _), v in zip(ranked, comparable, strict=True)]

    def _section(self, group: _Ranked, count: int) -> int:
        """Index of the group's section, if the groups are divided into `count` equal sections in order."""
        positions = sorted(self._position(other) for other in self._groups)
        return positions.index(self._position(group)) * count // len(positions)

    def _position(self, group: _Ranked) -> int:
        return min((self._order[layer] for layer in self._layers(group) if layer in self._order), default=0)

    def _layers(self, group: _Ranked) -> list[str]:
        """Names of the layers that produce the channels of a group or, if there are none, that read them."""
        named = [(self._names.get(member.layer), member.outputs) for member in group.group.members]
        produced = [name for name, outputs in named if name is not None and outputs]
        return produced or [name for name, _ in named if name is not None]

    def _least(self, group: _Ranked, values: Tensor, width: float) -> Cut | None:
        unit = self._round_to if group.width >= _WIDE * self._round_to else 1
        step = math.lcm(unit, group.blocks)
        if step >= group.width:
            step = group.blocks
        # Wide layers get the nearest multiple; narrow ones the width of the ratio, rounded up.
        rounded = round(width / step) * step if unit > 1 else math.ceil(width / step - 1e-6) * step
        per_block = max(rounded, step) // group.blocks
        gone = len(values) - per_block
        if gone <= 0:
            return None
        least = values.argsort(stable=True)[:gone].sort().values.tolist()
        return self._cut(group, tuple(block * len(values) + i for block in range(group.blocks) for i in least))

    def _cut(self, group: _Ranked, channels: tuple[int, ...]) -> Cut:
        """The cut of these channels, with the corresponding output channels of all layers of the group."""
        chosen = set(channels)
        silenced: dict[str, tuple[int, ...]] = {}
        for member in group.group.members:
            name = self._names.get(member.layer)
            if name is None or not member.outputs or not member.roots:
                continue
            own = (i for i, root in zip(member.channels, member.roots, strict=True) if root in chosen)
            silenced[name] = tuple(sorted({*silenced.get(name, ()), *own}))
        return Cut(group.layer, group.group.outputs, channels, silenced)

    def cut(self, module: nn.Module, cuts: Sequence[Cut]) -> dict[str, tuple[int, ...]]:
        """Remove the channels from `module`, in place.

        Returns:
            the removed output channels of each layer, by name.

        Raises:
            SlimsearchError: the network fails without them, or its output has another shape.
        """
        import torch

        module.eval()
        make_contiguous(module)
        trained = {name: parameter.requires_grad for name, parameter in module.named_parameters()}
        for parameter in module.parameters():
            parameter.requires_grad_(True)
        try:
            before = module(self._images).shape
            dependencies = Dependencies(module, self._images)
            for one in cuts:
                dependencies.remove(module.get_submodule(one.layer), one.channels, outputs=one.output)
            with torch.no_grad():
                after = module(self._images).shape
        except Exception as error:  # torch-pruning raises whatever its analysis runs into
            raise SlimsearchError(describe_error(error)) from error
        if after != before:
            raise SlimsearchError(f"pruning changed the output from {tuple(before)} to {tuple(after)}")
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(trained[name])
            parameter.grad = None
        return {layer: channels for one in cuts for layer, channels in one.silenced.items()}

    def _run(self, cuts: Sequence[Cut]) -> None:
        self.cut(copy.deepcopy(self._shadow), cuts)


def _channel_importance(group: Group, importance: Importance) -> Tensor | None:
    """Importance of each channel of a group's root, (width,): the mean over the scored layers.

    None if the importance scores none of the layers.
    """
    import torch

    total, layers = torch.zeros(group.width), 0
    for member in group.members:
        rows = member.weights()
        scores = None if rows is None else importance.channels(member.layer, rows)
        if scores is not None:
            total.scatter_add_(0, torch.tensor(member.roots), scores.float())
            layers += 1
    return total / layers if layers else None


def silence(module: nn.Module, cuts: Sequence[Cut]) -> Callable[[], None]:
    """A function that sets the weights and biases that produce the chosen channels of `module` to zero."""
    import torch

    named, targets = weights(module), []
    for one in cuts:
        for layer, channels in one.silenced.items():
            index = torch.tensor(channels, dtype=torch.long)
            for label in ("weight", "bias"):
                tensor = named.get(f"{layer}.{label}")
                if tensor is not None and (not channels or tensor.shape[0] > max(channels)):
                    targets.append((tensor, index.to(tensor.device)))

    def apply() -> None:
        with torch.no_grad():
            for tensor, index in targets:
                tensor.index_fill_(0, index, 0.0)

    return apply


def _blocks(layer: Any) -> int:
    """Number of equal blocks of a layer's channels: groups of convolutions and norms, or attention heads."""
    import torch

    if isinstance(layer, torch.nn.Conv2d):
        return 1 if layer.groups == layer.out_channels else layer.groups
    if isinstance(layer, torch.nn.GroupNorm):
        return layer.num_groups
    if isinstance(layer, torch.nn.MultiheadAttention):
        return int(layer.num_heads)
    return 1
