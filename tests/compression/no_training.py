"""A stand-in for the training of compression stages."""

from __future__ import annotations

import torch

from slimsearch.compression import Network


class NoTraining:
    """Stands where training would be, so that the effect of a stage alone is seen.

    Args:
        shape: of one input; (C, H, W) of an image.
        images: number of inputs.
    """

    seed, epochs, gives_logits = 0, 1, True

    def __init__(self, *shape: int, images: int = 4) -> None:
        self.calibration = torch.randn(images, *shape, generator=torch.Generator().manual_seed(0))
        self.examples = self.calibration, torch.arange(images) % 10

    def fit(self, network: Network, **settings: object) -> Network:
        return network
