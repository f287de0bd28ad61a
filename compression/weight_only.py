"""Weight-only quantization of the stored file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from slimsearch.compression._network import Network
from slimsearch.compression._stage import Stage, Training, require
from slimsearch.compression.quantization.bit_allocation import allocate_bits
from slimsearch.compression.quantization.plan import WEIGHTS_FP16, WEIGHTS_INT8, Quantization

_FORMS = {"int8": WEIGHTS_INT8, "fp16": WEIGHTS_FP16}


@dataclass(frozen=True)
class WeightOnly(Stage):
    """Store the weights in int8 or fp16; the runtime converts them to float32 on loading.

    The file shrinks to a quarter or a half; latency and memory are those of the float32 file. Int8 is symmetric and
    rounded to nearest, with one scale per output channel. Activations stay in float32, so there is no calibration.

    Attributes:
        dtype: "int8" or "fp16".
        mean_bits: of int8: bits of a weight in the file, on average, from 2 to 8: the layers that suffer least get
            fewer (see `allocate_bits`), and are rounded by GPTQ when the file is written.
    """

    is_last: ClassVar[bool] = True

    dtype: str = "int8"
    mean_bits: float = 8.0

    def __post_init__(self) -> None:
        require(self.dtype in _FORMS, f"dtype '{self.dtype}' is none of {', '.join(_FORMS)}")
        require(2 <= self.mean_bits <= 8, f"mean_bits {self.mean_bits:g} is not in [2, 8]")
        require(self.mean_bits == 8 or self.dtype == "int8", "mean_bits are those of dtype int8")

    @property
    def form(self) -> str:
        return _FORMS[self.dtype]

    def apply(self, network: Network, training: Training) -> Network:
        plan = Quantization(form=self.form)
        if self.mean_bits < 8:
            bits = allocate_bits(network, training.calibration, self.mean_bits, gives_logits=training.gives_logits)
            plan = replace(plan, bits={name: own for name, own in bits.items() if own < 8})
        return Network(network.copy_module(), network.structure, plan)
