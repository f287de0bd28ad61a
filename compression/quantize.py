"""Static quantization to int8 after training."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from slimsearch.compression._network import Network
from slimsearch.compression._stage import Stage, Training, require
from slimsearch.compression._weights import layers_in_order
from slimsearch.compression.export.sensitivity import sensitive_layers
from slimsearch.compression.quantization.bit_allocation import allocate_bits
from slimsearch.compression.quantization.plan import DEPLOYED_BITS, KEPT_FLOAT, STATIC, Quantization
from slimsearch.errors import SlimsearchError

_CALIBRATIONS = ("minmax", "entropy", "percentile")


@dataclass(frozen=True)
class Quantize(Stage):
    """Quantize weights to int8 and activations to uint8; the exported file has QDQ operators.

    Source: integer-only inference (Jacob et al. 2018), implemented by ONNX Runtime's static quantization.

    Attributes:
        calibration: how activation ranges are determined on training images: minmax, entropy or percentile.
        per_channel: one scale per output channel of each weight.
        target: "any" for the same outputs on every x86 processor; "vnni" for finer weights, which need a processor
            with VNNI instructions (on others, sums of products saturate and outputs change).
        keep_float: layers that stay in float32: none, first, last, ends (both), depthwise, or names of layers joined by
            spaces.
        max_drop: in place of `keep_float`: the layers that suffer most stay in float32, as many as it takes so that at
            most these percentage points of the calibration images get another answer than in float32 (see
            `sensitive_layers`). Takes as many exports as there are layers.
        mean_bits: bits of a weight in the file, on average, from 2 to 8: the layers that suffer least get fewer (see
            `allocate_bits`), and are rounded by GPTQ when the file is written. The file computes with int8 all the
            same. Layers of `keep_float` compute in float32, with weights of 8 bits or fewer.
    """

    is_last: ClassVar[bool] = True

    calibration: str = "minmax"
    per_channel: bool = True
    target: str = "any"
    keep_float: str = "none"
    max_drop: float | None = None
    mean_bits: float = 8.0

    def __post_init__(self) -> None:
        calibrations, targets = ", ".join(_CALIBRATIONS), ", ".join(DEPLOYED_BITS)
        require(self.calibration in _CALIBRATIONS, f"calibration '{self.calibration}' is none of {calibrations}")
        require(bool(self.keep_float.strip()), f"keep_float is empty: {', '.join(KEPT_FLOAT)}, or names of layers")
        require(self.target in DEPLOYED_BITS, f"target '{self.target}' is none of {targets}")

        drop = self.max_drop
        require(drop is None or 0 <= drop < 100, f"max_drop {drop} is not in [0, 100) percentage points")
        require(drop is None or self.keep_float == "none", "keep_float and max_drop exclude each other")
        require(2 <= self.mean_bits <= 8, f"mean_bits {self.mean_bits:g} is not in [2, 8]")
        require(drop is None or self.mean_bits == 8, "mean_bits and max_drop exclude each other")

    @property
    def form(self) -> str:
        return STATIC

    def apply(self, network: Network, training: Training) -> Network:
        if self.keep_float not in KEPT_FLOAT:
            known = layers_in_order(network.module, training.calibration[:2])
            for name in self.keep_float.split():
                if name not in known:
                    raise SlimsearchError(f"keep_float: there is no layer '{name}'; layers: {', '.join(known)}")
        plan = Quantization(self.calibration, self.per_channel, self.target, keep_float=self.keep_float)
        if self.max_drop is not None:
            require(
                training.gives_logits,
                "max_drop counts the classes that change, and this task has none: name layers by keep_float",
            )
            names = sensitive_layers(network, training.calibration, plan, self.max_drop / 100)
            plan = replace(plan, keep_float=" ".join(names) or "none")
        elif self.mean_bits < 8:
            bits = allocate_bits(network, training.calibration, self.mean_bits, gives_logits=training.gives_logits)
            kept = self._in_float32(network, training)
            plan = replace(plan, bits={name: own for name, own in bits.items() if own < 8 or name in kept})
        return Network(network.copy_module(), network.structure, plan)

    def _in_float32(self, network: Network, training: Training) -> list[str]:
        """Names of the layers of `keep_float`."""
        order = layers_in_order(network.module, training.calibration[:2])
        layers = {name: network.module.get_submodule(name) for name in order}
        depthwise = [
            name
            for name, layer in layers.items()
            if getattr(layer, "groups", 1) == getattr(layer, "out_channels", 0) > 1
        ]
        named = {
            "none": [], "first": order[:1], "last": order[-1:], "ends": [*order[:1], *order[-1:]],
            "depthwise": depthwise,
        }  # fmt: skip
        return named.get(self.keep_float, self.keep_float.split())
