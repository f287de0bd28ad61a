"""Weight-only quantization of the stored file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from slimsearch.compression._network import Network
from slimsearch.compression._stage import Stage, Training, require
from slimsearch.compression.quantization.plan import WEIGHTS_FP16, WEIGHTS_INT8, Quantization

_FORMS = {"int8": WEIGHTS_INT8, "fp16": WEIGHTS_FP16}


@dataclass(frozen=True)
class WeightOnly(Stage):
    """Store the weights in int8 or fp16; the runtime converts them to float32 on loading.

    The file shrinks to a quarter or a half; latency and memory are those of the float32 file. Int8 is symmetric and
    rounded to nearest, with one scale per output channel. Activations stay in float32, so there is no calibration.

    Attributes:
        dtype: "int8" or "fp16".
    """

    is_last: ClassVar[bool] = True

    dtype: str = "int8"

    def __post_init__(self) -> None:
        require(self.dtype in _FORMS, f"dtype '{self.dtype}' is none of {', '.join(_FORMS)}")

    def apply(self, network: Network, training: Training) -> Network:
        return Network(network.copy_module(), network.structure, Quantization(form=_FORMS[self.dtype]))
