"""Quantization plans, which stages attach to networks: how an exported file stores and runs the weights."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

DEPLOYED_BITS = {"any": 7, "vnni": 8}
"""Bits of the weights of an int8 file, by its target: sums of two 8-bit products can saturate without VNNI."""

KEPT_FLOAT = ("none", "first", "last", "ends", "depthwise")
"""Keywords for layers that stay in float32; a plan may name layers instead."""

STATIC, WEIGHTS_INT8, WEIGHTS_FP16, CODEBOOK = "static", "weights-int8", "weights-fp16", "codebook"


@dataclass(frozen=True)
class LearnedRange:
    """The integer grids of one layer.

    Attributes:
        weight_scales: one per output channel, or a single one; the layer's weights are integer multiples of it.
        weight_bits: the integers are in ``[1 - 2^(bits - 1), 2^(bits - 1) - 1]``.
        input_scale, input_zero_point: of the layer's input as uint8; None: the input is calibrated.
    """

    weight_scales: tuple[float, ...]
    weight_bits: int
    input_scale: float | None = None
    input_zero_point: int | None = None


@dataclass(frozen=True)
class Quantization:
    """How the exported file stores and runs the weights; the module itself stays in float32.

    Attributes:
        form: "static": int8 weights and uint8 activations with QDQ operators. "weights-int8", "weights-fp16" and
            "codebook" (indices into the distinct values of each tensor): the runtime converts to float32 on loading.
        calibration: how activation ranges are determined: "minmax", "entropy" or "percentile".
        per_channel: one scale per output channel of a weight, not one per tensor.
        target: "any" gives the same outputs on every x86 processor (weights of 7 bits, so that sums of products in 16
            bits do not saturate); "vnni" uses all 8 bits and needs a processor with VNNI instructions.
        learned: ranges learned in training, by layer name; other layers are calibrated.
        keep_float: layers that compute in float32: one of `KEPT_FLOAT`, or names joined by spaces.
        bits: of the weights of layers that are rounded to fewer bits than those of the form on export, by layer name; a
            layer of `keep_float` with an entry stores its weights in so many bits.
    """

    calibration: str = "minmax"
    per_channel: bool = True
    target: str = "any"
    form: str = STATIC
    learned: Mapping[str, LearnedRange] = field(default_factory=dict)
    keep_float: str = "none"
    bits: Mapping[str, int] = field(default_factory=dict)

    @property
    def names_layers(self) -> bool:
        """Whether layers are found by the names of their weights, which the exporter's folding changes."""
        return bool(self.learned or self.bits) or self.keep_float not in KEPT_FLOAT

    @property
    def fewer_bits(self) -> bool:
        """Whether learned weights have fewer bits than the file computes with."""
        deployed = DEPLOYED_BITS[self.target]
        return self.form == STATIC and any(own.weight_bits < deployed for own in self.learned.values())

    @property
    def clips(self) -> bool:
        """Whether activation ranges leave out large values on purpose, so that outputs may differ by any amount."""
        return self.form == STATIC and self.calibration == "entropy"

    def weight_bits(self, layer: str) -> int:
        """Bits of the weights of a layer that is quantized."""
        if layer in self.bits or layer in self.learned:
            return self.bits.get(layer) or self.learned[layer].weight_bits
        return DEPLOYED_BITS[self.target] if self.form == STATIC else 16 if self.form == WEIGHTS_FP16 else 8

    @property
    def kind(self) -> str:
        """The arithmetic of the file.

        "int8" for integer arithmetic, also of weights that are stored in fewer bits; "weights only" and "storage only"
        for weights that the runtime converts to float32 on loading.
        """
        if self.form == STATIC:
            return "int8"
        return "storage only" if self.form == CODEBOOK else "weights only"

    @property
    def note(self) -> str:
        """A note for the file's metadata."""
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
        """The plan as plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Quantization:
        """The plan from `values` of `to_json`, also of an earlier version."""
        learned = {
            name: LearnedRange(**{**known, "weight_scales": tuple(known["weight_scales"])})
            for name, known in values.get("learned", {}).items()
        }
        return cls(**{**values, "learned": learned})
