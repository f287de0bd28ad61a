"""A network between compression stages, stored as JSON (structure) and safetensors (weights)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimsearch.compression._dead_taps import LiveTaps, live_taps, remove_taps
from slimsearch.compression._plain_module import copy_module, fold_parametrizations, has_parametrizations, unwrapped
from slimsearch.compression._replaced import ATTENTION, IDENTITY, make_replacement, replace_layer
from slimsearch.compression.quantization.plan import Quantization
from slimsearch.errors import SlimsearchError, described, escaped, first_line
from slimsearch.files import atomic, write_json
from slimsearch.html_table import facts_table
from slimsearch.reading import mismatch, read_json

if TYPE_CHECKING:
    from torch import Tensor, nn

# Attributes of layers that pruning can change.
_WIDTHS = (
    "in_channels", "out_channels", "groups", "in_features", "out_features", "num_features", "num_channels",
    "num_groups", "normalized_shape", "embed_dim", "kdim", "vdim", "head_dim", "num_heads",
)  # fmt: skip

# Largest difference of results without dead taps, relative to the largest result: other kernels round differently.
_ROUNDING = 1e-4


@dataclass(frozen=True, repr=False)
class Network:
    """A module with the description that rebuilds it.

    Attributes:
        module: (N, C, H, W) float32 -> (N, num_classes) logits; without `torch.compile` and DataParallel, which are
            removed from the one that is given.
        structure: changes to the module by stages, as JSON values; empty for a network as its space builds it.
            "replaced" has the kinds of the replaced layers (see `make_replacement`), "widths" the shape of every layer,
            "dropout" the rates of the dropout layers, "taps" what remains of kernels for an input shape (see
            `LiveTaps`), "pruned" the "share" of all channels that the last pruning removed and the one "asked" for;
            "folded" is true if weights that were computed from others, as by a weight norm, are plain now.
        quantization: how `export_onnx` stores and runs the weights, or None for a float32 file.

    Raises:
        SlimsearchError: the module, or a part of it, is a TorchScript module.
    """

    module: nn.Module
    structure: Mapping[str, Any] = field(default_factory=dict)
    quantization: Quantization | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "module", unwrapped(self.module))

    def __repr__(self) -> str:
        kind = "" if self.quantization is None else ", quantized in its file"
        return f"<Network: {escaped(type(self.module).__name__)}, {self.params:,} parameters{kind}>"

    def _repr_html_(self) -> str:
        layers = [layer for layer in self.module.modules() if list(layer.parameters(recurse=False))]
        kinds = Counter(type(layer).__name__ for layer in layers)
        size = sum(parameter.numel() * parameter.element_size() for parameter in self.module.parameters())
        pruned = self.structure.get("pruned", {}).get("share")
        facts = [
            ("network", type(self.module).__name__),
            ("parameters", f"{self.params:,}"),
            ("size in PyTorch", f"{size / 1024:,.1f} KiB"),
            ("layers with parameters", ", ".join(f"{count} {kind}" for kind, count in kinds.items())),
            ("pruned", "" if pruned is None else f"{100 * pruned:.0f}% of the channels, by the last pruning"),
            ("quantized in its file", "" if self.quantization is None else self.quantization.kind),
        ]
        return facts_table(facts)

    @classmethod
    def of(cls, module: Any) -> Network:
        """A copy of a user's module, on the CPU, in float32 and in evaluation mode.

        Raises:
            SlimsearchError: it is no module, cannot be copied, or has layers that cannot be changed.
        """
        import torch

        if not isinstance(module, torch.nn.Module):
            what = f"the class {module.__name__}" if isinstance(module, type) else f"a {type(module).__name__}"
            raise SlimsearchError(f"a model is a torch.nn.Module or a slimsearch Network, not {what}")
        for name, layer in module.named_modules():
            if any(torch.nn.parameter.is_lazy(parameter) for parameter in layer.parameters(recurse=False)):
                raise SlimsearchError(f"layer '{name}' has no sizes yet; call the model on a batch of images first")
        copied = copy_module(unwrapped(module))
        try:
            return cls(copied.cpu().float().eval())
        except NotImplementedError as error:  # on the meta device
            raise SlimsearchError(f"the model cannot be copied: {first_line(error)}") from error

    def copy_module(self) -> nn.Module:
        """A copy of the module for a stage to change."""
        return copy_module(self.module)

    def folded(self) -> Network:
        """This network, with plain weights in place of those that are computed from others, as by a weight norm."""
        if not has_parametrizations(self.module):
            return self
        module = self.copy_module()
        fold_parametrizations(module)
        return Network(module, {**self.structure, "folded": True}, self.quantization)

    def without_dead_taps(self, input_shape: Sequence[int]) -> Network:
        """This network without the taps of kernels that only meet padding (see `live_taps`), which gives the same.

        Layers keep all taps in a network that fails on such an input, gives other results without the taps, since it
        uses a weight in another way too, or has replaced layers other than skipped blocks and attention.

        Args:
            input_shape: (C, H, W) of all inputs.

        Raises:
            SlimsearchError: taps were removed for another shape.
        """
        import torch

        known = self.structure.get("taps")
        if known is not None and list(known["input_shape"]) != list(input_shape):
            made, asked = ("x".join(map(str, shape)) for shape in (known["input_shape"], input_shape))
            raise SlimsearchError(f"the network was compressed for inputs of {made}, not {asked}")
        kinds = self.structure.get("replaced", {}).values()
        if known is not None or not all(kind == IDENTITY or kind.startswith(ATTENTION) for kind in kinds):
            return self
        device = next((tensor.device for tensor in self.module.parameters()), torch.device("cpu"))
        generator = None if device.type == "meta" else torch.Generator(device).manual_seed(0)
        images = torch.randn(2, *input_shape, device=device, generator=generator)
        module = self.copy_module().eval()
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                live = live_taps(module, images)
                if not live:
                    return self
                expected = module(images)
                remove_taps(module, live)
                outputs = module(images)
                if not expected.is_meta:
                    difference, largest = float((outputs - expected).abs().max()), float(expected.abs().max())
                    if not difference <= _ROUNDING * max(1.0, largest):
                        return self
        except Exception:  # a user's module may raise anything, and is reported where it is trained or exported
            return self
        taps = {"input_shape": list(input_shape), "layers": {name: own.to_json() for name, own in live.items()}}
        return Network(module, {**self.structure, "taps": taps}, self.quantization)

    @property
    def params(self) -> int:
        """Number of parameters of the module."""
        return sum(parameter.numel() for parameter in self.module.parameters())

    def macs(self, images: Tensor) -> int:
        """Multiply-accumulates for one image, in convolutions and matrix products, counted by PyTorch.

        Args:
            images: (N, C, H, W) float32; only the shape of one image matters.

        Raises:
            SlimsearchError: the network fails on a single image.
        """
        import torch
        from torch.utils.flop_counter import FlopCounterMode

        counter = FlopCounterMode(display=False)
        with described("the network fails on one input"), torch.no_grad(), counter:
            self.module.eval()(torch.zeros_like(images[:1]))
        return int(counter.get_total_flops()) // 2

    def save(self, directory: str | Path) -> None:
        """Write ``network.json`` and ``weights.safetensors`` into `directory`, which is created if missing.

        Raises:
            SlimsearchError: they cannot be written.
        """
        from safetensors.torch import save_model

        plan = self.quantization.to_json() if self.quantization else None
        try:
            directory = Path(directory)
            directory.mkdir(parents=True, exist_ok=True)
            with atomic(directory / "weights.safetensors") as temporary:
                save_model(self.module, str(temporary))
            write_json(directory / "network.json", {"structure": dict(self.structure), "quantization": plan})
        except Exception as error:  # safetensors and the file system raise many kinds
            raise SlimsearchError(f"cannot save the network in '{directory}': {first_line(error)}") from error

    @classmethod
    def load(cls, fresh: nn.Module, directory: str | Path) -> Network:
        """The network saved in `directory`; `fresh` is the module of its architecture as its space builds it.

        Raises:
            SlimsearchError: files are missing or damaged, or belong to another architecture.
        """
        from safetensors.torch import load_model

        try:
            directory = Path(directory)
            description = read_json(directory / "network.json")
            wrong = mismatch(description, _DESCRIPTION, "network.json")
            if wrong is not None:
                raise SlimsearchError(wrong)
            structure, plan = description["structure"], description["quantization"]
            _refuse_too_large(structure, directory / "weights.safetensors")
            quantization = Quantization.from_json(plan) if plan else None
            module = copy_module(unwrapped(fresh))
            if structure.get("folded"):
                fold_parametrizations(module)
            taps = structure.get("taps", {}).get("layers", {})
            remove_taps(module, {name: LiveTaps.from_json(own) for name, own in taps.items()})
            for name, kind in structure.get("replaced", {}).items():
                replace_layer(module, name, make_replacement(kind, module.get_submodule(name)))
            module = resize(module, structure.get("widths", {}))
            for name, rate in structure.get("dropout", {}).items():
                module.get_submodule(name).p = rate
            load_model(module, str(directory / "weights.safetensors"))
        except Exception as error:  # safetensors and torch raise many kinds
            raise SlimsearchError(f"cannot load the network in '{directory}': {first_line(error)}") from error
        return cls(module.eval(), structure, quantization)


# The schema of network.json.
_DESCRIPTION = {
    "structure": {
        "replaced?": {str: str}, "widths?": {str: {"shapes": {str: [int]}}}, "dropout?": {str: float}, "folded?": bool,
        "pruned?": {"share": float, "asked?": float},
        "taps?": {"input_shape": [int], "layers": {str: {"taps": [[int]], "padding": [int]}}},
    },
    "quantization": dict | None,
}  # fmt: skip


def _refuse_too_large(structure: Mapping[str, Any], weights: Path) -> None:
    """Reject a description with more numbers than the weights file has bytes, which could take all memory."""
    stored = weights.stat().st_size
    shapes = [shape for layer in structure.get("widths", {}).values() for shape in layer["shapes"].values()]
    asked = sum(math.prod(map(abs, shape)) for shape in shapes)
    if asked > stored:
        raise SlimsearchError(f"network.json asks for {asked:,} numbers, weights.safetensors has {stored:,} bytes")


def widths(module: nn.Module) -> dict[str, dict[str, Any]]:
    """The shape of every layer of `module`: attributes, and the shapes of its parameters and buffers."""
    found = {}
    for name, layer in module.named_modules():
        tensors = {**dict(layer.named_parameters(recurse=False)), **dict(layer.named_buffers(recurse=False))}
        sizes = {a: v for a in _WIDTHS if isinstance(v := getattr(layer, a, None), int | tuple)}
        if not tensors and "num_heads" not in sizes:
            continue
        found[name] = {**sizes, "shapes": {label: list(tensor.shape) for label, tensor in tensors.items()}}
    return found


def changed_layers(structure: Mapping[str, Any], module: nn.Module) -> dict[str, Any]:
    """`structure`, with the widths and the dropout rates of `module`."""
    return {**structure, "widths": widths(module), "dropout": dropout_rates(module)}


def dropout_rates(module: nn.Module) -> dict[str, float]:
    """The rate of every dropout layer of `module`; further training depends on it."""
    import torch

    kinds = torch.nn.Dropout | torch.nn.Dropout1d | torch.nn.Dropout2d
    return {name: layer.p for name, layer in module.named_modules() if isinstance(layer, kinds)}


def resize(module: nn.Module, recorded: Mapping[str, Mapping[str, Any]]) -> nn.Module:
    """A copy of `module` whose layers have the recorded shapes, with zeros in the tensors whose shapes changed."""
    import torch

    module = copy_module(module)
    layers = dict(module.named_modules())
    for name, sizes in recorded.items():
        if name not in layers:
            raise SlimsearchError(f"the architecture has no layer '{name}'")
        layer = layers[name]
        for attribute in _WIDTHS:
            if attribute in sizes:
                value = sizes[attribute]
                setattr(layer, attribute, tuple(value) if isinstance(value, list) else value)
        for label, shape in sizes["shapes"].items():
            tensor = getattr(layer, label)
            if list(tensor.shape) == shape:
                continue
            new = torch.zeros(shape, dtype=tensor.dtype)
            if isinstance(tensor, torch.nn.Parameter):
                setattr(layer, label, torch.nn.Parameter(new))
            else:
                layer.register_buffer(label, new)
    return module
