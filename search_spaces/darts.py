"""DARTS: cells of operations between intermediate tensors."""

from __future__ import annotations

from typing import Any

import torch
from nni.nas.hub import pytorch as hub
from nni.nas.nn.pytorch import Cell
from nni.nas.space import current_model
from torch import nn

from slimsearch.search_spaces._nni.layers import check_size, stem_pooling, with_in_channels, with_out_features
from slimsearch.search_spaces._nni.nni_space import FromSample


class DARTS(FromSample, hub.DARTS):  # type: ignore[misc]
    """About 10^23 networks (10^18 pairs of cells): a normal and a reduction cell of four nodes, depth and width.

    Each node is the sum of two of seven operations, each on one of the preceding tensors. The image is halved at the
    start of the second and the third stage. Images from 64 pixels are max-pooled behind the stem, to 32 to 63 pixels.

    Networks have no auxiliary head and no drop path. Cells and layers whose outputs are unused are left out.

    Source: DARTS (Liu et al. 2019), depths and widths of Radosavovic et al. 2019, as in NNI's hub. Difference: channels
    and classes fit the data.

    Args:
        in_channels, num_classes, image_size: of the data.
        width: channels of an operation in the first stage: several values to choose from, or one.
        num_cells: number of cells: several values, or one.
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
            self.stem[0] = with_in_channels(self.stem[0], in_channels)
        self.stem.extend(stem_pooling(image_size))
        self.num_labels = num_classes
        self.classifier: Any = with_out_features(self.classifier, num_classes)
        if current_model() is not None:
            _drop_unused(self.stages)


class Unused(nn.Module):
    """Placeholder for a cell whose output is unused."""

    def forward(self, outputs: list[torch.Tensor]) -> list[torch.Tensor]:
        """The outputs of the last two cells -> the last one, twice."""
        return [outputs[1], outputs[1]]


def _drop_unused(stages: Any) -> None:
    """Remove the cells and preprocessing layers that the last cell does not depend on, in place."""
    positions = [(stage, position) for stage in stages for position in range(len(stage))]
    used = {len(positions) - 1}
    for number in reversed(range(len(positions))):
        stage, position = positions[number]
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
    """Tensors that the operations of a cell use; 0 and 1 are the outputs of the two previous cells."""
    return {source for node in cell.inputs for chosen in node for source in chosen.chosen}
