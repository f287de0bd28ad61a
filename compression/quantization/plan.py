"""Quantization plans: how an exported file stores and runs the weights; stages make them, networks carry them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

DEPLOYED_BITS = {"any": 7, "vnni": 8}
"""Bits of the weights of an int8 file, by its target: sums of two 8-bit products can saturate without VNNI."""

KEPT_FLOAT = ("none", "first", "last", "ends", "depthwise")
"""Words for the layers that stay in float32; a plan may name layers instead."""

STATIC, WEIGHTS_INT8, WEIGHTS_FP16, CODEBOOK = "static", "weights-int8", "weights-fp16", "codebook"


@dataclass(frozen=True)
class LearnedRange:
    """The integers of one layer as a training learned them.

    Attributes:
        weight_scales: one for each output channel, or a single one; the layer's weights are whole multiples of it.
        weight_bits: the multiples are in ``[1 - 2^(bits - 1), 2^(bits - 1) - 1]``.
        input_scale, input_zero_point: of the layer's input as uint8.
    """

    weight_scales: tuple[float, ...]
    weight_bits: int
    input_scale: float
    input_zero_point: int


@dataclass(frozen=True)
class Quantization:
    """How `export` is to store and run the weights; the module itself stays in float32.

    Attributes:
        form: "static", int8 weights and uint8 activations as QDQ operators; "weights-int8" and "weights-fp16", small
            weights that the runtime turns into float32 when it loads the file; "codebook", indices into the few
            values that each weight tensor has, likewise.
        calibration: how activation ranges are found: "minmax", "entropy" or "percentile".
        per_channel: one scale for each output channel of a weight, not one for the tensor.
        target: "any" answers alike on every x86 processor (weights of 7 bits, so that products added in 16 bits
            do not saturate); "vnni" uses all 8 bits and needs a processor with those instructions.
        learned: ranges of layers, by name, that a training found; the others are calibrated.
        keep_float: of the static form, layers that stay in float32: one of `KEPT_FLOAT`, or names joined by spaces.
    """

    calibration: str = "minmax"
    per_channel: bool = True
    target: str = "any"
    form: str = STATIC
    learned: Mapping[str, LearnedRange] = field(default_factory=dict)
    keep_float: str = "none"

    @property
    def kind(self) -> str:
        """The arithmetic of the running file.

        "int8" for integer arithmetic, "simulated" for fewer bits than it has, "weights only" and "storage only" for
        weights that the runtime turns into float32 when it loads the file.
        """
        if self.form == STATIC:
            deployed = DEPLOYED_BITS[self.target]
            return "simulated" if any(own.weight_bits < deployed for own in self.learned.values()) else "int8"
        return "storage only" if self.form == CODEBOOK else "weights only"

    @property
    def note(self) -> str:
        """A line for users who deploy the file."""
        if self.form != STATIC:
            return "small weights that the runtime turns into float32 when it loads the file"
        if self.target == "any":
            return "int8, weights within 7 bits: the same answers on every x86 processor"
        return "int8, weights of 8 bits: for processors with VNNI; elsewhere sums may saturate and answers differ"

    def without_channels(self, layer: str, channels: Collection[int]) -> Quantization:
        """The plan after `layer` has lost output channels."""
        if layer not in self.learned or len(self.learned[layer].weight_scales) == 1:
            return self
        known = self.learned[layer]
        scales = tuple(scale for index, scale in enumerate(known.weight_scales) if index not in channels)
        return replace(self, learned={**self.learned, layer: replace(known, weight_scales=scales)})

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Quantization:
        """The plan of which `to_json` of this or an earlier version gave `values`."""
        learned = {
            name: LearnedRange(**{**known, "weight_scales": tuple(known["weight_scales"])})
            for name, known in values.get("learned", {}).items()
        }
        return cls(**{**values, "learned": learned})
