"""How much the network computes."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from slimsearch.compression import Network

if TYPE_CHECKING:
    from torch import Tensor, nn


class Macs:
    """Multiply-accumulates of one image through convolutions and matrix products."""

    def score(self, module: nn.Module, images: Tensor, labels: Tensor) -> float:
        return float(Network(copy.deepcopy(module)).macs(images))
