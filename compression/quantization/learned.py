"""What all methods that train with simulated integers share: where quantizers go, and what becomes of them."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from slimsearch.compression._network import Network
from slimsearch.compression._stage import Part, Training, TrainingStage
from slimsearch.compression._weights import layers_in_order
from slimsearch.compression.quantization.plan import DEPLOYED_BITS, Quantization

if TYPE_CHECKING:
    from torch import Tensor

    from slimsearch.compression.quantization.fake_quantization import InputQuantizer, Seen, WeightQuantizer


@dataclass(frozen=True)
class LearnedQuantization(TrainingStage):
    """Train with simulated integers, then hand the ranges that were learned to the file.

    Weights of all convolutions and linear layers, and their inputs, are quantized; inputs to 8 bits, since that is
    what the deployed file computes with. BatchNorm stays as it is and is folded when the file is made. Below 8
    bits the file still holds and computes int8, on the coarser grid; what it would weigh packed is `packed_kib`.

    Attributes:
        bits: of weights, 2 to 8; below 8 the first and the last layer keep 8.
        per_channel: one scale an output channel of each weight.
        target: "any" for a file that answers alike on every x86 processor (8 bits then means 7, so that sums of
            two products do not saturate), "vnni" for the finer weights that need a processor with those instructions.
        epochs: length of the training, by default as long as the network was trained.
        learning_rate: peak of its schedule; by default a fifth of the evaluator's usual 5e-3.
    """

    is_last: ClassVar[bool] = True

    bits: int = 8
    per_channel: bool = True
    target: str = "any"
    epochs: int | None = None
    learning_rate: float | None = 1e-3

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 8:
            raise ValueError(f"bits {self.bits} is not between 2 and 8")
        if self.target not in DEPLOYED_BITS:
            raise ValueError(f"target '{self.target}' is none of {', '.join(DEPLOYED_BITS)}")
        if self.epochs is not None and self.epochs < 1:
            raise ValueError(f"epochs {self.epochs} is less than 1")

    @abstractmethod
    def weight_quantizer(self, weight: Tensor, bits: int) -> WeightQuantizer:
        """For a layer's weight (C_out, ...), as it is before the training."""

    @abstractmethod
    def input_quantizer(self, seen: Seen) -> InputQuantizer:
        """For a tensor that layers read."""

    @final
    def begin(self, network: Network, training: Training) -> Part:
        from slimsearch.compression.quantization.fake_quantization import attach

        module, images = network.copy_module().eval(), training.calibration
        order = layers_in_order(module, images[:2])
        ends = (order[0], order[-1]) if order else ()
        deployed = DEPLOYED_BITS[self.target]

        def weight(name: str, value: Tensor) -> WeightQuantizer:
            return self.weight_quantizer(value, deployed if name in ends else min(self.bits, deployed))

        attach(module, images, weight, self.input_quantizer)
        return Part(Network(module, network.structure, network.quantization), finish=self._finish)

    def _finish(self, network: Network) -> Network:
        from slimsearch.compression.quantization.fake_quantization import detach

        module = network.copy_module()
        learned = detach(module)
        return Network(
            module, network.structure, Quantization("minmax", self.per_channel, self.target, learned=learned)
        )
