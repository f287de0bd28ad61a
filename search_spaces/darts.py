"""The cells of DARTS."""

from __future__ import annotations

from typing import Any

import torch
from nni.nas.hub import pytorch as hub
from nni.nas.nn.pytorch import Cell
from nni.nas.space import current_model
from torch import nn

from slimsearch.search_spaces._nni.from_sample import FromSample
from slimsearch.search_spaces._nni.hub import check_size, for_channels, for_classes, shrinking


class DARTS(FromSample, hub.DARTS):  # type: ignore[misc]
    """About 10^23 networks (10^18 pairs of cells): a normal and a reduction cell of four nodes, depth and width.

    Each node adds up two operations of seven, each on one of the tensors before it. The image is halved at the start of
    the second and the third part of the cells. Images from 64 pixels on are max-pooled after the stem, to 32 to 63
    pixels; all others are seen as they are.

    A network gives its logits alone: the hub's auxiliary head and drop path are left out. Cells whose outputs nothing
    uses, and such layers, are not made.

    Source: DARTS (Liu et al. 2019), depths and widths after Radosavovic et al. 2019, as in NNI's hub. What differs:
    channels and classes are those of the data.

    Args:
        in_channels, num_classes, image_size: of the data.
        width: numbers of channels of an operation in the first part, among which to choose, or one.
        num_cells: numbers of cells, likewise.
    """

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 10,
        image_size: int = 32,
        width: tuple[int, ...] | int = (16, 24, 32),
        num_cells: tuple[int, ...] | int = (4, 8, 12, 16, 20),
    ) -> None:
        check_size("darts", image_size)
        super().__init__(width=width, num_cells=num_cells)
        if in_channels != 3:
            self.stem[0] = for_channels(self.stem[0], in_channels)
        self.stem.extend(shrinking(image_size))
        self.num_labels = num_classes
        self.classifier: Any = for_classes(self.classifier, num_classes)
        if current_model() is not None:
            _drop_unused(self.stages)


class Unused(nn.Module):
    """In the place of a cell whose output nothing uses."""

    def forward(self, outputs: list[torch.Tensor]) -> list[torch.Tensor]:
        """Outputs of the last two cells -> the same list of two, the second in the place of this cell's own."""
        return [outputs[1], outputs[1]]


def _drop_unused(stages: Any) -> None:
    """Take out, in place, what the last cell does not depend on."""
    places = [(stage, position) for stage in stages for position in range(len(stage))]
    used = {len(places) - 1}
    for number in reversed(range(len(places))):
        stage, position = places[number]
        if number not in used:
            stage[position] = Unused()
            continue
        cell = stage[position]
        sources = _sources(cell)
        if 0 not in sources:
            cell.preprocessor.pre0 = nn.Identity()
        if 1 not in sources:
            cell.preprocessor.pre1 = nn.Identity()
        used |= {number - 2 + source for source in sources if source < 2}


def _sources(cell: Cell) -> set[int]:
    """The tensors that the operations of a cell use: 0 and 1 are the outputs of the two cells before."""
    return {source for node in cell.inputs for chosen in node for source in chosen.chosen}
