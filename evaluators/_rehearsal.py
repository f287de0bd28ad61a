"""A recipe applied without training: what its file will weigh and how long it will run is known beforehand."""

from __future__ import annotations

from collections.abc import Sequence

from compression import AfterStep, LossTerm, Network
from evaluators._training import ImageTraining


class Rehearsal(ImageTraining):
    """A `compression.Training` that trains nothing: widths, ranks and number formats come out as they will."""

    def fit(
        self,
        network: Network,
        *,
        epochs: int,
        learning_rate: float | None = None,
        losses: Sequence[LossTerm] = (),
        after_step: Sequence[AfterStep] = (),
    ) -> Network:
        """A copy of `network` as it is."""
        return Network(network.copy_module().eval(), network.structure, network.quantization)
