"""Ranking and removal of the channels of coupled layers."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from slimsearch.compression._plain_module import copy_module
from slimsearch.compression._weights import contiguous_copy, layers_in_order, make_contiguous
from slimsearch.compression.pruning._torch_pruning import Dependencies, Group, blamed_layers
from slimsearch.compression.pruning.heads import head_groups, remove_heads
from slimsearch.compression.pruning.importances import Importance
from slimsearch.compression.pruning.silencing import Cut, end_silence, silence
from slimsearch.errors import SlimsearchError, describe_error

if TYPE_CHECKING:
    from torch import Tensor, nn

_log = logging.getLogger(__name__)

_WIDE = 4  # a layer with at least this many times the rounding unit gets a round width
_COMPARED = 16  # images on which a network without channels is compared with the one that has them at zero
_TRIALS = 100  # most cuts tried in the search for the groups that fail
# Largest difference of outputs from rounding, relative to their spread over the images and to the largest of them.
_OF_SPREAD, _OF_LARGEST = 5e-4, 1e-5


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

    @property
    def per_block(self) -> int:
        return self.width // self.blocks

    @property
    def units(self) -> int:
        """Number of single channels, or heads, of a block that can be removed."""
        return self.per_block // self.unit

    @property
    def unit(self) -> int:
        """Number of channels in a row that are removed together."""
        return self.group.head or 1

    @property
    def step(self) -> int:
        """Number of channels that are removed together."""
        return self.blocks * self.unit

    def channels(self, units: Sequence[int]) -> tuple[int, ...]:
        """The channels of `units`, in all blocks."""
        size = self.unit
        return tuple(
            block * self.per_block + unit * size + i
            for block in range(self.blocks)
            for unit in units
            for i in range(size)
        )

    def unit_of(self, channel: int) -> int:
        """The unit that `channel` is in."""
        return channel % self.per_block // self.unit


@dataclass(frozen=True)
class CoupledChannels:
    """Channels of several layers that are cut together.

    Attributes:
        layer: name of the group's root.
        width: number of channels of the root.
        written: names of the layers that produce the channels.
        members: names of the layers that produce or read them.
        heads: whether they are the heads of an attention layer, the root.
    """

    layer: str
    width: int
    written: tuple[str, ...]
    members: tuple[str, ...]
    heads: bool = False


class Channels:
    """The groups of channels of a module that can be removed.

    Args:
        module: stays unchanged.
        images: (N, C, H, W) float32, real ones: inputs for the analysis and for the comparison of outputs.
        round_to: layers with at least four times as many channels get a multiple of it.

    Raises:
        SlimsearchError: no channel of the module can be removed; the message has the reason.
    """

    def __init__(self, module: nn.Module, images: Tensor, round_to: int = 1) -> None:
        import torch

        self._images = contiguous_copy(images[:_COMPARED])
        self._round_to = round_to
        self._module = copy_module(module).eval().float()
        self._shadow = copy_module(self._module)  # its weights become scores
        make_contiguous(self._shadow)
        for parameter in self._shadow.parameters():
            parameter.requires_grad_(True)  # the analysis follows gradients
        order = layers_in_order(self._shadow, self._images[:2])
        if not order:
            raise SlimsearchError("this network has neither a Linear nor a Conv2d layer to prune")
        self._order = {layer: position for position, layer in enumerate(order)}
        self._last = order[-1]
        self._names = {layer: name for name, layer in self._shadow.named_modules()}
        try:
            last = self._shadow.get_submodule(self._last)
            heads, writers = head_groups(self._shadow)
            with torch.enable_grad():
                groups, lost = Dependencies(self._shadow, self._images[:2]).groups(last, writers)
        except Exception as error:  # torch-pruning raises whatever its analysis runs into
            layers = " and ".join(repr(layer) for layer in blamed_layers(error, self._names)[:3])
            raise SlimsearchError(
                "this network cannot be pruned: its channels cannot be followed through an operation"
                f"{' after ' if layers else ''}{layers} ({describe_error(error)})"
            ) from error
        self._whole: list[str] = []  # layers that keep all channels, with the reasons
        self._keep([self._names[layer] for layer in lost], "they cannot be followed to the layers that read them")
        ranked = [one for one in map(self._ranked, (*groups, *heads)) if one.units > 1]
        tied = _tied_layers(self._shadow)
        self._groups = [group for group in ranked if not tied & set(self._member_names(group))]
        self._keep([group.layer for group in ranked if group not in self._groups],
                   f"layers share a weight: {', '.join(sorted(tied))}")  # fmt: skip
        if not self._groups:
            self._refuse()

    def _keep(self, layers: Sequence[str], reason: str) -> None:
        """Report layers that keep all channels, in one line."""
        if not layers:
            return
        names = ", ".join(f"'{layer}'" for layer in layers)
        self._whole.append(f"{names} ({reason})")
        _log.warning("%s and the layers that depend on %s keep all channels: %s", names,
                     "it" if len(layers) == 1 else "them", reason)  # fmt: skip

    def count(self, module: nn.Module) -> int:
        """Number of output channels of the convolutions and Linear layers of `module`, without the last layer."""
        import torch

        last = module.get_submodule(self._last)
        return sum(
            int(layer.out_channels if isinstance(layer, torch.nn.modules.conv._ConvNd) else layer.out_features)
            for layer in module.modules()
            if isinstance(layer, torch.nn.Linear | torch.nn.modules.conv._ConvNd) and layer is not last
        )

    def report(self, pruned: Mapping[str, float]) -> None:
        """Report the removed share of the channels, see `Network.structure`: a warning if layers keep all of theirs."""
        asked = f", {pruned['asked']:.0%} asked" if "asked" in pruned else ""
        level = logging.WARNING if self._whole else logging.INFO
        _log.log(level, "%.0f%% of all channels are removed%s", 100 * pruned["share"], asked)

    def _refuse(self) -> NoReturn:
        reasons = "; ".join(self._whole) or f"no layer before '{self._last}' has two channels"
        raise SlimsearchError(f"this network cannot be pruned: {reasons}")

    def _ranked(self, group: Group) -> _Ranked:
        layers = {member.layer for member in group.members}
        parameters = sum(
            parameter.numel()
            for layer in layers
            if hasattr(layer, "parameters")
            for parameter in layer.parameters(recurse=False)
        )
        blocks = math.lcm(group.blocks, *(_blocks(layer) for layer in layers))
        return _Ranked(group, self._names[group.layer], blocks, parameters / group.width)

    def exclude_failing(self, cuts: Sequence[Cut] | None = None, module: nn.Module | None = None) -> list[Cut]:
        """Exclude the groups that cannot be cut, found by bisection; a line of the log names each.

        Args:
            cuts: of groups; by default a random half of each group's channels.
            module: the module to cut, which stays unchanged; by default the analyzed one.

        Returns:
            the cuts that can be made.

        Raises:
            SlimsearchError: no group is left; the message names the layers and the reasons.
        """
        cuts = [self._half(group) for group in self._groups] if cuts is None else cuts
        failing = _Failing(lambda tried: self.cut(copy_module(module or self._module), tried)).among(cuts)
        for one, reason in failing:
            self._keep([one.layer], reason)
        gone = {one.layer for one, _ in failing}
        self._groups = [group for group in self._groups if group.layer not in gone]
        if not self._groups:
            self._refuse()
        return [one for one in cuts if one.layer not in gone]

    def _half(self, group: _Ranked) -> Cut:
        return self._cut(group, group.channels(sorted(random.Random(0).sample(range(group.units), group.units // 2))))

    def choose(
        self,
        importance: Importance,
        scores: Mapping[str, Tensor],
        ratios: Sequence[float],
        *,
        together: bool,
        by_cost: bool = False,
        first: Sequence[Cut] = (),
    ) -> list[Cut]:
        """The least important channels, about the given shares.

        Args:
            importance: converts scores of weights to one number per channel.
            scores: of weights, by parameter name.
            ratios: share of channels to remove, for all layers; or n shares, each for one n-th of the layers in the
                order of their calls.
            together: rank the channels of all layers together, for the first of the ratios.
            by_cost: with `together`, rank by importance divided by the number of parameters per channel.
            first: cuts whose channels are less important than all others.

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
            values = found.view(group.blocks, group.units, -1).mean(dim=(0, 2))  # (units of a block,)
            if not bool(torch.isfinite(values).all()):
                raise SlimsearchError(f"the importance of '{group.layer}' is not finite")
            gone = [channel for cut in first if cut.layer == group.layer for channel in cut.channels]
            values[[group.unit_of(channel) for channel in gone]] = -math.inf
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
            mean = values[values.isfinite()].mean().clamp_min(1e-12)
            value = values / mean if not by_cost else values / group.cost
            comparable.append(value)
        counts = torch.cat([torch.full_like(v, g.step) for (g, _), v in zip(ranked, comparable, strict=True)])
        pooled, order = torch.cat(comparable).sort()
        removed = counts[order].cumsum(0) <= ratio * float(counts.sum())
        threshold = float(pooled[removed][-1]) if bool(removed.any()) else -math.inf
        return [group.step * int((v > threshold).sum()) for (group, _), v in zip(ranked, comparable, strict=True)]

    def _section(self, group: _Ranked, count: int) -> int:
        """Index of the group's section, if the groups are divided into `count` equal sections in order."""
        positions = sorted(self._position(other) for other in self._groups)
        return positions.index(self._position(group)) * count // len(positions)

    def _position(self, group: _Ranked) -> int:
        return min((self._order[layer] for layer in self._layers(group) if layer in self._order), default=0)

    def _member_names(self, group: _Ranked) -> list[str]:
        return [self._names[member.layer] for member in group.group.members if member.layer in self._names]

    def _layers(self, group: _Ranked) -> list[str]:
        """Names of the layers that produce the channels of a group or, if there are none, that read them."""
        named = [(self._names.get(member.layer), member.outputs) for member in group.group.members]
        produced = [name for name, outputs in named if name is not None and outputs]
        return produced or [name for name, _ in named if name is not None]

    def _least(self, group: _Ranked, values: Tensor, width: float) -> Cut | None:
        round_to = self._round_to if group.width >= _WIDE * self._round_to and not group.group.head else 1
        step = math.lcm(round_to, group.step)
        if step >= group.width:
            step = group.step
        # Wide layers get the nearest multiple; narrow ones, and heads, the width of the ratio, rounded up.
        rounded = round(width / step) * step if round_to > 1 else math.ceil(width / step - 1e-6) * step
        gone = group.units - max(rounded, step) // group.step
        if gone <= 0:
            return None
        return self._cut(group, group.channels(values.argsort(stable=True)[:gone].sort().values.tolist()))

    def _cut(self, group: _Ranked, channels: tuple[int, ...]) -> Cut:
        """The cut of these channels, with the corresponding ones of all layers of the group."""
        chosen = set(channels)
        written: dict[str, tuple[int, ...]] = {}
        read: dict[str, tuple[int, ...]] = {}
        for member in group.group.members:
            name = self._names.get(member.layer)
            if name is None or not member.roots:
                continue
            found = written if member.outputs else read
            own = (i for i, root in zip(member.channels, member.roots, strict=True) if root in chosen)
            found[name] = tuple(sorted({*found.get(name, ()), *own}))
        return Cut(group.layer, group.group.outputs, channels, written, read, bool(group.group.head))

    def cut(self, module: nn.Module, cuts: Sequence[Cut]) -> dict[str, tuple[int, ...]]:
        """Remove channels from `module`, see `remove_channels`."""
        return remove_channels(module, cuts, self._images)

    @property
    def cuttable(self) -> list[CoupledChannels]:
        """The groups of channels that can be cut, in the order of their layers."""
        return [
            CoupledChannels(
                group.layer, group.width, tuple(dict.fromkeys(self._layers(group))),
                tuple(dict.fromkeys(self._member_names(group))), bool(group.group.head),
            )
            for group in sorted(self._groups, key=self._position)
        ]  # fmt: skip

    @property
    def kept_whole(self) -> tuple[str, ...]:
        """The layers that keep all channels, with the reasons."""
        return tuple(self._whole)


def remove_channels(module: nn.Module, cuts: Sequence[Cut], images: Tensor) -> dict[str, tuple[int, ...]]:
    """Remove channels from `module`, in place.

    Args:
        module: the network.
        cuts: the channels, found by `Channels` for this network.
        images: (N, C, H, W) float32, real ones, on which the outputs are compared.

    Returns:
        the removed output channels of each layer, by name.

    Raises:
        SlimsearchError: the network fails without them, or its outputs differ from those with the channels at zero.
    """
    import torch

    images = images[:_COMPARED]
    end_silence(module.eval())
    make_contiguous(module)
    trained = {name: parameter.requires_grad for name, parameter in module.named_parameters()}
    for parameter in module.parameters():
        parameter.requires_grad_(True)
    try:
        silenced = copy_module(module)
        silence(silenced, cuts)()
        with torch.enable_grad():
            dependencies = Dependencies(module, images[:2])
            for one in cuts:
                if not one.head:
                    dependencies.remove(module.get_submodule(one.layer), one.channels, outputs=one.output)
        _keep_attention(module, silenced, cuts)
        for one in cuts:
            if one.head:
                remove_heads(module, one.layer, one.channels)
        _check_widths(module, silenced, cuts)
        with torch.no_grad():
            expected, outputs = silenced(images), module(images)
        _check_equal(module, expected, outputs)
    except SlimsearchError:
        raise
    except Exception as error:  # torch-pruning raises whatever its analysis runs into
        raise SlimsearchError(f"the network fails without the channels: {describe_error(error)}") from error
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(trained[name])
        parameter.grad = None
    return {layer: channels for one in cuts for layer, channels in one.silenced.items()}


class _Failing:
    """The search for the cuts that fail.

    Args:
        cut: applies cuts to a copy of the network; raises `SlimsearchError` if the result is wrong.
    """

    def __init__(self, cut: Callable[[Sequence[Cut]], object]) -> None:
        self._cut, self._trials = cut, 0
        self._found: list[tuple[Cut, str]] = []

    def among(self, cuts: Sequence[Cut]) -> list[tuple[Cut, str]]:
        """The cuts without which the others can be made together, each with its reason."""
        self._grow([], list(cuts))
        return self._found

    def _grow(self, good: list[Cut], cuts: list[Cut]) -> list[Cut]:
        """`good`, which can be made together, and those of `cuts` that can be made too."""
        if self._trials >= _TRIALS:
            self._found += [(one, f"not tried, after {_TRIALS} trials of other layers") for one in cuts]
            return good
        self._trials += 1
        try:
            self._cut([*good, *cuts])
        except SlimsearchError as error:
            if len(cuts) == 1:
                self._found.append((cuts[0], str(error)))
                return good
        else:
            return [*good, *cuts]
        half = len(cuts) // 2
        return self._grow(self._grow(good, cuts[:half]), cuts[half:])


def _check_equal(module: nn.Module, expected: Tensor, outputs: Tensor) -> None:
    """Compare the outputs without channels with `expected`, those with the channels at zero.

    Raises:
        SlimsearchError: they differ by more than rounding, or a layer has no channels left.
    """
    if outputs.shape != expected.shape:
        raise SlimsearchError(f"pruning changed the output from {tuple(expected.shape)} to {tuple(outputs.shape)}")
    empty = next((name for name, parameter in module.named_parameters() if parameter.numel() == 0), None)
    if empty is not None:
        raise SlimsearchError(f"nothing is left of '{empty}'")
    difference, largest = float((outputs - expected).abs().max()), float(expected.abs().max())
    spread = float((expected - expected.mean(dim=0)).abs().max()) if len(expected) > 1 else largest
    if not difference <= _OF_SPREAD * spread + _OF_LARGEST * largest:
        raise SlimsearchError(
            f"without the channels, outputs differ by up to {difference:.2g} from those with the channels at zero"
        )


def _check_widths(module: nn.Module, before: nn.Module, cuts: Sequence[Cut]) -> None:
    """Raise a `SlimsearchError` if a layer has lost more channels than the chosen ones, as others depend on them."""
    import torch

    chosen: dict[str, int] = {}
    for one in cuts:
        for name, channels in one.silenced.items():
            chosen[name] = chosen.get(name, 0) + len(channels)
    for name, count in chosen.items():
        layer = before.get_submodule(name)
        if isinstance(layer, torch.nn.modules.conv._ConvNd | torch.nn.Linear):
            label = "out_features" if isinstance(layer, torch.nn.Linear) else "out_channels"
            gone = getattr(layer, label) - getattr(module.get_submodule(name), label)
            if gone != count:
                raise SlimsearchError(
                    f"with {count} channels of '{name}', {gone} are removed, as others depend on them"
                )


def _keep_attention(module: nn.Module, before: nn.Module, cuts: Sequence[Cut]) -> None:
    """Scale the queries of attention layers, which divide by the root of their width, to give the same attention."""
    import torch

    for name in {name for one in cuts for name in one.silenced}:
        layer, wide = module.get_submodule(name), before.get_submodule(name)
        if isinstance(layer, torch.nn.MultiheadAttention) and isinstance(wide, torch.nn.MultiheadAttention):
            factor = math.sqrt(layer.head_dim / wide.head_dim)
            with torch.no_grad():
                layer.in_proj_weight[: layer.embed_dim] *= factor
                if layer.in_proj_bias is not None:
                    layer.in_proj_bias[: layer.embed_dim] *= factor


def _tied_layers(module: nn.Module) -> set[str]:
    """Names of the layers that share a parameter with another layer."""
    owners: dict[int, set[str]] = {}
    for name, layer in module.named_modules():
        for parameter in layer.parameters(recurse=False):
            owners.setdefault(id(parameter), set()).add(name)
    return {name for names in owners.values() if len(names) > 1 for name in names}


def _channel_importance(group: Group, importance: Importance) -> Tensor | None:
    """Importance of each channel of a group's root, (width,): the mean over the scored layers.

    None if the importance scores none of the layers.
    """
    import torch

    members = [member for member in group.members if member.is_filters] if importance.of_filters else []
    total, layers = torch.zeros(group.width), 0
    for member in members or group.members:
        rows = member.weights()
        scores = None if rows is None else importance.channels(member.layer, rows)
        if scores is not None:
            total.scatter_add_(0, torch.tensor(member.roots), scores.float())
            layers += 1
    return total / layers if layers else None


def _blocks(layer: Any) -> int:
    """Number of equal blocks of a layer's channels: groups of convolutions and norms, or attention heads."""
    import torch

    if isinstance(layer, torch.nn.modules.conv._ConvNd):
        return 1 if layer.groups == layer.out_channels else layer.groups
    if isinstance(layer, torch.nn.GroupNorm):
        return layer.num_groups
    if isinstance(layer, torch.nn.MultiheadAttention):
        return int(layer.num_heads)
    return 1
