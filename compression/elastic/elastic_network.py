"""Elastic networks: what can be left out of a trained network, and the network without it."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from slimsearch.compression._network import Network, changed_layers, dropout_rates
from slimsearch.compression._replaced import IDENTITY
from slimsearch.compression._weights import weights
from slimsearch.compression.elastic.blocks import Block, residual_blocks, skip
from slimsearch.compression.pruning.channels import Channels, CoupledChannels, remove_channels
from slimsearch.compression.pruning.heads import with_plain_attention
from slimsearch.compression.pruning.importances.group_l1 import GroupL1
from slimsearch.compression.pruning.silencing import Cut
from slimsearch.errors import SlimsearchError

if TYPE_CHECKING:
    from torch import Tensor

_log = logging.getLogger(__name__)

_SHARES = (1.0, 0.75, 0.5, 0.25)  # of the channels
_MOST_WIDTHS = 8  # choices of widths; neighboring groups share one
_MOST_DEPTHS = 4  # values of a choice of blocks
_ROUND_TO = 8  # as of pruning
_IMAGES = 64  # for the importance of blocks
COMPARED = 16  # images on which networks are compared


@dataclass(frozen=True)
class ElasticWidth:
    """A choice of how many channels of one or more groups remain.

    Attributes:
        label: of the choice.
        layers: roots of the groups.
        blocks: of each group, the residual block that it is inside of, or None.
        widths: by share of the channels, the width of each group; different for different shares.
        cuts: by share, the channels to remove from each group; None where all remain.
    """

    label: str
    layers: tuple[str, ...]
    blocks: tuple[str | None, ...]
    widths: Mapping[float, tuple[int, ...]]
    cuts: Mapping[float, tuple[Cut | None, ...]]


@dataclass(frozen=True)
class ElasticDepth:
    """A choice of how many residual blocks of equal shape in a row are skipped, at most half of two or more.

    Attributes:
        label: of the choice.
        blocks: their names, the one that changes its input least first (block influence, Men et al. 2024).
        numbers: of skipped blocks, from 0 on.
    """

    label: str
    blocks: tuple[str, ...]
    numbers: tuple[int, ...]

    @property
    def skipped(self) -> dict[int, tuple[str, ...]]:
        """By number of skipped blocks, their names."""
        return {number: self.blocks[:number] for number in self.numbers}


@dataclass(frozen=True)
class ElasticNetwork:
    """A trained network whose widths and depths can be chosen; its most important channels and blocks remain.

    Source: elastic width and depth of Once-for-All (Cai et al. 2020) and BootstrapNAS (Muñoz et al. 2022), but each
    network is made from the given one, without a training of all of them together; channels are ranked as in pruning.

    Attributes:
        widths, depths: the choices.
        whole: layers that keep all channels, with the reasons.
        images: (N, C, H, W) float32, real ones, on which networks are compared.
    """

    widths: tuple[ElasticWidth, ...]
    depths: tuple[ElasticDepth, ...]
    whole: tuple[str, ...]
    images: Tensor = field(repr=False, compare=False)

    @classmethod
    def of(cls, network: Network, images: Tensor) -> ElasticNetwork:
        """The choices of a network.

        Args:
            network: trained, and not quantized.
            images: (N, C, H, W) float32, real ones, normalized for the network.

        Raises:
            SlimsearchError: nothing can be left out of it; the message has the reason.
        """
        network = with_plain_attention(network.folded(), images)
        module = network.copy_module().eval()
        blocks = residual_blocks(module, images[:_IMAGES])
        depths = _depths(blocks)
        try:
            channels = Channels(module, images, _ROUND_TO)
            scores = GroupL1().scores(weights(module))
            narrowest = channels.choose(GroupL1(), scores, [1 - _SHARES[-1]], together=False)
            channels.exclude_failing(narrowest, module)
            # The narrowest network may hide what is wrong with one group: other layers of it may give nothing.
            half = channels.choose(GroupL1(), scores, [0.5], together=False)
            for some in _mixtures(half):
                left = {group.layer for group in channels.cuttable}
                channels.exclude_failing([cut for cut in some if cut.layer in left], module)
        except SlimsearchError as error:
            if not depths:
                raise
            _log.warning("%s", error)
            return cls((), depths, (str(error),), images[:COMPARED])
        cuts = {
            share: {cut.layer: cut for cut in channels.choose(GroupL1(), scores, [1 - share], together=False)}
            for share in _SHARES
        }
        found = _widths(channels.cuttable, cuts, [block.name for block in blocks])
        if not found and not depths:
            raise SlimsearchError("this network cannot get smaller: no layer has channels enough")
        return cls(found, depths, channels.kept_whole, images[:COMPARED])

    def apply(self, network: Network, architecture: Mapping[str, Any]) -> Network:
        """`network` with the chosen widths and depths; labels that are missing stay whole.

        Args:
            network: the given network, which has all channels and blocks.
            architecture: label to value.

        Raises:
            SlimsearchError: the network without the channels gives other outputs than with these at zero.
        """
        if not architecture:
            return network
        skipped = [name for one in self.depths for name in one.skipped[architecture.get(one.label, 0)]]
        network = with_plain_attention(network.folded().without_dead_taps(self.images.shape[1:]), self.images)
        module = network.copy_module().eval()
        cuts = [
            cut
            for one in self.widths
            for cut, block in zip(one.cuts[architecture.get(one.label, 1.0)], one.blocks, strict=True)
            if cut is not None and block not in skipped
        ]
        if cuts:
            remove_channels(module, cuts, self.images)
        skip(module, skipped)
        for name in dropout_rates(module):
            setattr(module.get_submodule(name), "p", 0.0)  # noqa: B010 - torch types every attribute as a tensor
        replaced = {**network.structure.get("replaced", {}), **dict.fromkeys(skipped, IDENTITY)}
        structure = changed_layers({**network.structure, "replaced": replaced}, module)
        return Network(module, structure, network.quantization)


def _mixtures(cuts: Sequence[Cut]) -> list[list[Cut]]:
    """Parts of `cuts`, about half each, so that of any two there is a part with the one and without the other."""
    bits = range(max(1, (len(cuts) - 1).bit_length()))
    parts = [[cut for number, cut in enumerate(cuts) if number >> bit & 1 == own] for bit in bits for own in (0, 1)]
    return [some for some in parts if some]


def _depths(blocks: Sequence[Block]) -> tuple[ElasticDepth, ...]:
    """A choice for each row of blocks of equal shape."""
    rows: list[list[Block]] = []
    for block in blocks:
        if rows and rows[-1][-1].shape == block.shape:
            rows[-1].append(block)
        else:
            rows.append([block])
    labels = _labels("skip", [[block.name for block in row] for row in rows])
    found = []
    for label, row in zip(labels, rows, strict=True):
        order = tuple(block.name for block in sorted(row, key=lambda block: block.change))
        most = max(1, len(row) // 2)
        steps = min(most, _MOST_DEPTHS - 1)
        numbers = [step * most // steps for step in range(steps + 1)]
        found.append(ElasticDepth(label, order, tuple(numbers)))
    return tuple(found)


def _widths(
    groups: Sequence[CoupledChannels], cuts: Mapping[float, Mapping[str, Cut]], blocks: Sequence[str]
) -> tuple[ElasticWidth, ...]:
    """At most `_MOST_WIDTHS` choices for all groups: heads of attention, others inside of blocks, and the others."""

    def width(group: CoupledChannels, share: float) -> int:
        cut = cuts[share].get(group.layer)
        return group.width - (0 if cut is None else len(cut.channels))

    inside = {
        group.layer: next((b for b in blocks if all(name.startswith(f"{b}.") for name in group.members)), None)
        for group in groups
    }
    elastic = [group for group in groups if width(group, _SHARES[-1]) < group.width]
    found = []
    for kind, of_kind in _rows(elastic, {layer for layer, block in inside.items() if block is not None}).items():
        labels = _labels(kind, [[name for group in row for name in group.written] for row in of_kind])
        for label, row in zip(labels, of_kind, strict=True):
            widths_of: dict[float, tuple[int, ...]] = {}
            for share in _SHARES:
                sizes = tuple(width(group, share) for group in row)
                if sizes not in widths_of.values():
                    widths_of[share] = sizes
            found.append(
                ElasticWidth(
                    label, tuple(group.layer for group in row), tuple(inside[group.layer] for group in row), widths_of,
                    {share: tuple(cuts[share].get(group.layer) for group in row) for share in widths_of},
                )
            )  # fmt: skip
    return tuple(found)


def _rows(groups: Sequence[CoupledChannels], inside: Collection[str]) -> dict[str, list[list[CoupledChannels]]]:
    """At most `_MOST_WIDTHS` rows of groups: "heads", "hidden" ones, whose layers are `inside` of a block, and "width".

    While there are more, the two neighbors with the longest common path of modules become one, the shorter ones first.
    """
    rows: dict[str, list[list[CoupledChannels]]] = {"width": [], "hidden": [], "heads": []}
    for group in groups:
        kind = "heads" if group.heads else "hidden" if group.layer in inside else "width"
        rows[kind].append([group])
    while sum(map(len, rows.values())) > _MOST_WIDTHS:
        pairs = [(kind, first) for kind, own in rows.items() for first in range(len(own) - 1)]

        def closeness(pair: tuple[str, int]) -> tuple[int, int]:
            both = [group for row in rows[pair[0]][pair[1] : pair[1] + 2] for group in row]
            return len(_path([name for group in both for name in group.written])), -len(both)

        kind, first = max(pairs, key=closeness)
        rows[kind][first] += rows[kind].pop(first + 1)
    return rows


def _path(names: Sequence[str]) -> list[str]:
    """The modules that all layers are in, from the outermost one."""
    paths = [name.split(".") for name in names]
    return [parts[0] for parts in itertools.takewhile(lambda parts: len(set(parts)) == 1, zip(*paths, strict=False))]


def _labels(kind: str, rows: Sequence[Sequence[str]]) -> list[str]:
    """A label for each row of layers: the modules that they are in, or more of the path of the first one if shared."""
    paths = [_path(names) for names in rows]
    found = []
    for row, (path, names) in enumerate(zip(paths, rows, strict=True)):
        first = names[0].split(".")
        others = [other.split(".") for number, own in enumerate(rows) if number != row for other in own]
        length = next(
            (n for n in range(max(1, len(path)), len(first)) if not any(o[:n] == first[:n] for o in others)), len(first)
        )
        found.append(f"{kind}.{'.'.join(first[:length])}")
    return found
