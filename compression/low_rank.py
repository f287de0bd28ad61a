"""Low-rank factorization of layers into two or three smaller ones."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from slimsearch.compression._network import Network, dropout_rates, widths
from slimsearch.compression._replaced import FACTORED, make_replacement, replace_layer
from slimsearch.compression._stage import Part, Training, TrainingStage, check_training, require
from slimsearch.compression._weights import layers_in_order
from slimsearch.errors import SlimsearchError, describe_error

if TYPE_CHECKING:
    from torch import Tensor, nn

_ENERGY = 0.9
_ROUNDING = 1e-12  # share of the squared singular values of a float32 weight that may be rounding error
_BISECTIONS = 50


@dataclass(frozen=True)
class LowRank(TrainingStage):
    """Factor every layer where that saves parameters, then fine-tune.

    Linear layers and 1x1 convolutions become two layers by truncated singular value decomposition (Denton et al. 2014).
    Other convolutions become three by Tucker-2 (1x1, a core with the kernel, 1x1): truncated HOSVD of the two channel
    modes (Kim et al. 2016), with ranks from the energy in place of variational Bayes. Grouped convolutions and the
    layer of the logits stay unchanged.

    Attributes:
        energy: share of the squared singular values that a factored layer preserves, in (0, 1]; per mode in Tucker-2.
        params: maximum number of parameters of the network, reached with the largest possible energy; excludes
            `energy`.
        epochs: length of the fine-tuning; by default that of the network's training, 0 for none.
        round_to: ranks are rounded up to a multiple of it.
        learning_rate: peak of the fine-tuning's schedule; by default that of the evaluator.
    """

    energy: float = _ENERGY
    params: int | None = None
    epochs: int | None = None
    round_to: int = 1
    learning_rate: float | None = None

    def __post_init__(self) -> None:
        check_training(self, least_epochs=0)
        require(0 < self.energy <= 1, f"energy {self.energy} is not in (0, 1]")
        require(self.params is None or self.params >= 1, f"params {self.params} is less than 1")
        require(self.params is None or self.energy == _ENERGY, "energy and params exclude each other")
        require(self.round_to >= 1, f"round_to {self.round_to} is less than 1")

    def begin(self, network: Network, training: Training) -> Part:
        import torch

        module, images = network.copy_module().eval(), training.calibration[:2]
        decomposed = _decompose(module, images)
        ranks = self._ranks(decomposed, network.params)
        for name, chosen in ranks.items():
            replace_layer(module, name, decomposed[name].factors(chosen))
        module.eval()
        try:
            with torch.no_grad():
                module(images)
        except Exception as error:  # a module that accesses its layers' attributes may raise anything
            raise SlimsearchError(f"the network does not run with factored layers: {describe_error(error)}") from error
        structure = {
            **network.structure,
            "replaced": {**network.structure.get("replaced", {}), **dict.fromkeys(ranks, FACTORED)},
            "widths": widths(module),
            "dropout": dropout_rates(module),
        }
        plan = network.quantization
        if plan is not None:
            plan = replace(plan, learned={name: own for name, own in plan.learned.items() if name not in ranks})
        return Part(Network(module, structure, plan))

    def _ranks(self, layers: Mapping[str, _Decomposition], params: int) -> dict[str, tuple[int, ...]]:
        """The ranks of all layers that become smaller."""

        def at(energy: float) -> dict[str, tuple[int, ...]]:
            found = {name: layer.ranks(energy, self.round_to) for name, layer in layers.items()}
            return {name: ranks for name, ranks in found.items() if layers[name].saved(ranks) > 0}

        def size(ranks: Mapping[str, tuple[int, ...]]) -> int:
            return params - sum(layers[name].saved(own) for name, own in ranks.items())

        if self.params is None:
            ranks = at(self.energy)
            if not ranks:
                raise SlimsearchError(f"no layer gets smaller by low-rank factors at energy {self.energy}")
            return ranks
        if self.params >= params:
            raise SlimsearchError(f"the network has no more than {self.params} parameters already: it has {params}")
        low, high = 0.0, 1.0
        if size(at(low)) > self.params:
            raise SlimsearchError(
                f"low-rank factors cannot reach {self.params} parameters: the smallest ranks leave {size(at(low))}"
            )
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            low, high = (middle, high) if size(at(middle)) <= self.params else (low, middle)
        return at(low)


class _Decomposition(ABC):
    """The decomposition of a layer's weight.

    Args:
        layer: the layer.
        spectra: squared singular values of each mode, descending, (rank,) float64.
    """

    def __init__(self, layer: nn.Module, spectra: Sequence[Tensor]) -> None:
        self._layer = layer
        self._lengths = [len(spectrum) for spectrum in spectra]
        self._energies = [spectrum.cumsum(0) / spectrum.sum().clamp_min(1e-300) for spectrum in spectra]

    def ranks(self, energy: float, round_to: int) -> tuple[int, ...]:
        """The least ranks that preserve `energy` in each mode."""
        enough = [int((share < energy - _ROUNDING).sum()) + 1 for share in self._energies]
        rounded = [math.ceil(rank / round_to) * round_to for rank in enough]
        return tuple(min(rank, length) for rank, length in zip(rounded, self._lengths, strict=True))

    def saved(self, ranks: tuple[int, ...]) -> int:
        """Number of parameters that the factors save."""
        own: Any = self._layer
        return int(own.weight.numel()) - self._size(ranks)

    def factors(self, ranks: tuple[int, ...]) -> nn.Module:
        """The layers that replace the layer, as a sequence."""
        import torch

        own: Any = self._layer
        layers: Any = make_replacement(FACTORED, own)
        for layer, weight in zip(layers, self._weights(ranks), strict=True):
            kernel = layer.weight.shape[2:]
            layer.weight = torch.nn.Parameter(weight.reshape(*weight.shape[:2], *kernel).to(own.weight).contiguous())
            if isinstance(layer, torch.nn.Linear):
                layer.out_features, layer.in_features = weight.shape
            else:
                layer.out_channels, layer.in_channels = weight.shape[:2]
        if own.bias is not None:
            layers[-1].bias = torch.nn.Parameter(own.bias.detach().clone())
        return layers  # type: ignore[no-any-return]

    @abstractmethod
    def _size(self, ranks: tuple[int, ...]) -> int:
        """Number of parameters of the factors, without the bias."""

    @abstractmethod
    def _weights(self, ranks: tuple[int, ...]) -> Sequence[Tensor]:
        """(out, in, ...) of each factor, in order."""


class _Svd(_Decomposition):
    """Of a Linear or a 1x1 convolution; both factors contain the square roots of the singular values."""

    def __init__(self, layer: nn.Module) -> None:
        import torch

        own: Any = layer
        weight = own.weight.detach().double().flatten(1)  # (out, in)
        self._left, self._values, self._right = torch.linalg.svd(weight, full_matrices=False)
        super().__init__(layer, [self._values.square()])

    def _size(self, ranks: tuple[int, ...]) -> int:
        return ranks[0] * int(self._left.shape[0] + self._right.shape[1])

    def _weights(self, ranks: tuple[int, ...]) -> Sequence[Tensor]:
        (rank,) = ranks
        roots = self._values[:rank].sqrt()
        return roots[:, None] * self._right[:rank], self._left[:, :rank] * roots


class _Tucker(_Decomposition):
    """Of a convolution: bases of its output and its input channels."""

    def __init__(self, layer: nn.Module) -> None:
        import torch

        own: Any = layer
        self._weight = own.weight.detach().double()  # (out, in, kh, kw)
        self._bases, spectra = [], []
        for mode in (0, 1):
            unfolded = self._weight.transpose(0, mode).flatten(1)
            values, vectors = torch.linalg.eigh(unfolded @ unfolded.T)  # ascending
            self._bases.append(vectors.flip(1))
            spectra.append(values.flip(0).clamp_min(0))
        super().__init__(layer, spectra)

    def _size(self, ranks: tuple[int, ...]) -> int:
        outputs, inputs, *kernel = self._weight.shape
        return int(ranks[1] * inputs + math.prod(ranks) * math.prod(kernel) + outputs * ranks[0])

    def _weights(self, ranks: tuple[int, ...]) -> Sequence[Tensor]:
        import torch

        after, before = self._bases[0][:, : ranks[0]], self._bases[1][:, : ranks[1]]  # (channels, rank)
        core = torch.einsum("oihw,or,is->rshw", self._weight, after, before)
        return before.T, core, after


def _decompose(module: nn.Module, images: Tensor) -> dict[str, _Decomposition]:
    """Decompositions of all layers that can be factored, by name."""
    import torch

    uses = Counter(id(parameter) for _, parameter in module.named_parameters(remove_duplicate=False))
    kinds: dict[type, Callable[[nn.Module], _Decomposition]] = {torch.nn.Linear: _Svd, torch.nn.Conv2d: _Tucker}
    found: dict[str, _Decomposition] = {}
    for name in layers_in_order(module, images)[:-1]:
        layer: Any = module.get_submodule(name)
        # A subclass, or another layer with the same weight, may use the weight differently.
        if type(layer) not in kinds or uses[id(layer.weight)] > 1 or getattr(layer, "groups", 1) > 1:
            continue
        is_matrix = type(layer) is torch.nn.Linear or layer.kernel_size == (1, 1)
        found[name] = _Svd(layer) if is_matrix else _Tucker(layer)
    return found
