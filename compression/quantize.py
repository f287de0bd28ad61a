"""Static quantization to int8 after training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from compression._network import Network
from compression._plan import DEPLOYED_BITS, Quantization
from compression._stage import Stage, Training

_CALIBRATIONS = ("minmax", "entropy", "percentile")


@dataclass(frozen=True)
class Quantize(Stage):
    """Plan int8 weights and uint8 activations; the exported file carries them as QDQ operators.

    Source: integer-only inference (Jacob et al. 2018), as ONNX Runtime's static quantization does it.

    Attributes:
        calibration: how ranges of activations are found on training images: minmax, entropy or percentile.
        per_channel: one scale an output channel of each weight.
        target: "any" for a file that answers alike on every x86 processor, "vnni" for the finer weights that
            need a processor with VNNI instructions (elsewhere sums of products saturate, and answers change).
    """

    is_last: ClassVar[bool] = True

    calibration: str = "minmax"
    per_channel: bool = True
    target: str = "any"

    def __post_init__(self) -> None:
        if self.calibration not in _CALIBRATIONS:
            raise ValueError(f"calibration '{self.calibration}' is none of {', '.join(_CALIBRATIONS)}")
        if self.target not in DEPLOYED_BITS:
            raise ValueError(f"target '{self.target}' is none of {', '.join(DEPLOYED_BITS)}")

    def apply(self, network: Network, training: Training) -> Network:
        plan = Quantization(self.calibration, self.per_channel, self.target)
        return Network(network.copy_module(), network.structure, plan)
