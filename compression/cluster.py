"""Weight clustering: each weight becomes one of a few values of its layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from slimsearch.compression._network import Network
from slimsearch.compression._stage import AfterStep, Part, Training, TrainingStage, check_training, require
from slimsearch.compression._weights import parameters
from slimsearch.compression.quantization.plan import CODEBOOK, Quantization
from slimsearch.errors import SlimsearchError

if TYPE_CHECKING:
    from torch import Tensor, nn

_ITERATIONS = 300
_LEAST_WEIGHTS = 4  # per value of the codebook; smaller tensors stay unchanged


@dataclass(frozen=True)
class Cluster(TrainingStage):
    """Cluster the weights of each layer to 2^bits values by k-means, and fine-tune the values. For storage only.

    The runtime converts the file to float32 on loading, so its latency stays the same. The file has one byte per
    weight; `packed_kib` is the size of the packed file, which has at most `bits` per weight and which no runtime reads.

    Source: Deep Compression (Han et al. 2016): linear initialization, k-means, then centroids that follow the summed
    gradients of their weights. Difference: every weight takes the optimizer's step and then the mean of its cluster.
    Weights of exactly zero have their own centroid, which stays zero, so that pruned weights stay pruned.

    Attributes:
        bits: a tensor gets 2^bits values (255 for 8 bits), in [1, 8].
        epochs: length of the fine-tuning; by default that of the network's training, 0 for none.
        learning_rate: peak of the fine-tuning's schedule; by default that of the evaluator.
    """

    is_last: ClassVar[bool] = True

    bits: int = 5
    epochs: int | None = None
    learning_rate: float | None = None

    def __post_init__(self) -> None:
        check_training(self, least_epochs=0)
        require(self.bits in range(1, 9), f"bits {self.bits} is not in 1 to 8")

    @property
    def form(self) -> str:
        return CODEBOOK

    def begin(self, network: Network, training: Training) -> Part:
        module = network.copy_module()
        least = _LEAST_WEIGHTS << self.bits
        chosen = {n: p for n, p in parameters(module).items() if p.ndim > 1 and p.numel() >= least}
        if not chosen:
            raise SlimsearchError(
                f"no layer has {least} weights or more, the least for which {1 << self.bits} values pay"
            )
        shared = SharedValues({name: _assign(weight.detach(), self.bits) for name, weight in chosen.items()})
        shared(module, 0, 0)
        return Part(Network(module, network.structure), after_step=[shared], finish=_finish)


def _finish(network: Network) -> Network:
    return Network(network.module, network.structure, Quantization(form=CODEBOOK))


class SharedValues(AfterStep):
    """Sets every weight to the mean of its cluster; cluster 0 is zero, and weights that become zero join it.

    Args:
        clusters: the cluster of every weight by parameter name, in the parameter's shape, uint8.
    """

    def __init__(self, clusters: Mapping[str, Tensor]) -> None:
        self._clusters = dict(clusters)

    def __call__(self, module: nn.Module, step: int, steps: int) -> None:
        import torch

        known = parameters(module)
        with torch.no_grad():
            for name, clusters in self._clusters.items():
                weight = known[name]
                own = self._clusters[name] = clusters.to(weight.device)
                own.masked_fill_(weight == 0, 0)  # pruned by another stage of the same training
                flat = own.flatten().int()
                sums, counts = torch.bincount(flat, weight.flatten().double()), torch.bincount(flat)
                means = (sums / counts.clamp_min(1)).to(weight.dtype)
                means[0] = 0
                weight.copy_(means[flat].view(own.shape))

    def state(self) -> dict[str, Any]:
        return {name: clusters.clone() for name, clusters in self._clusters.items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._clusters = dict(state)


def _assign(weight: Tensor, bits: int) -> Tensor:
    """The cluster of each weight, uint8: 0 for zeros, then by ascending value."""
    import numpy as np
    import torch

    array = weight.cpu().numpy()
    nonzero = array[array != 0]
    number = min((1 << bits) - int(nonzero.size < array.size), 255)
    clusters = np.zeros(array.shape, np.uint8)
    if nonzero.size:
        centroids = k_means(nonzero, number)
        clusters[array != 0] = 1 + np.searchsorted((centroids[1:] + centroids[:-1]) / 2, nonzero)
    return torch.from_numpy(clusters)


def k_means(values: Any, number: int) -> Any:
    """Ascending centroids of `number` clusters of scalars; fewer if there are fewer distinct values.

    Centroids begin at equal distances between the extremes; if a cluster is empty, the one with the largest error is
    split. Lloyd's algorithm on sorted values: a cluster is a range, and its mean a difference of cumulative sums. Takes
    0.1 s for two million weights and 32 clusters (scikit-learn: 19 s).
    """
    import numpy as np

    ordered = np.sort(values, axis=None).astype(np.float64)
    different = np.unique(ordered)
    if len(different) <= number:
        return different
    sums, squares = (np.concatenate([[0.0], power.cumsum()]) for power in (ordered, ordered**2))
    centroids = np.linspace(ordered[0], ordered[-1], number)
    for _ in range(_ITERATIONS):
        inner = np.searchsorted(ordered, (centroids[1:] + centroids[:-1]) / 2)
        bounds = np.unique(np.concatenate([[0], inner, [len(ordered)]]))  # without the empty ones
        counts = np.diff(bounds)
        means = np.diff(sums[bounds]) / counts
        if len(means) == number and np.allclose(means, centroids, rtol=1e-6, atol=0):
            break
        errors = np.maximum(np.diff(squares[bounds]) - counts * means**2, 0)
        split = np.argsort(errors)[len(errors) - min(number - len(means), len(errors)) :]
        spread = np.sqrt(errors[split] / counts[split])
        centroids = np.sort(np.concatenate([np.delete(means, split), means[split] - spread, means[split] + spread]))
    return centroids
