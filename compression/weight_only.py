"""Small weights in the file alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from slimsearch.compression._network import Network
from slimsearch.compression._stage import Stage, Training, require
from slimsearch.compression.quantization.plan import WEIGHTS_FP16, WEIGHTS_INT8, Quantization

_FORMS = {"int8": WEIGHTS_INT8, "fp16": WEIGHTS_FP16}


@dataclass(frozen=True)
class WeightOnly(Stage):
    """Plan a file of small weights that the runtime turns into float32 when it loads it.

    The size falls to a quarter or a half; latency and memory are those of the float32 file. Int8 is symmetric and
    rounded to the nearest, with one scale for each output channel; activations are not touched, nothing is calibrated.

    Attributes:
        dtype: "int8" or "fp16".
    """

    is_last: ClassVar[bool] = True

    dtype: str = "int8"

    def __post_init__(self) -> None:
        require(self.dtype in _FORMS, f"dtype '{self.dtype}' is none of {', '.join(_FORMS)}")

    def apply(self, network: Network, training: Training) -> Network:
        return Network(network.copy_module(), network.structure, Quantization(form=_FORMS[self.dtype]))
