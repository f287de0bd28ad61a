"""Structured pruning: whole channels are removed, through every layer that depends on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from compression._network import Network, dropout_rates, widths
from compression._stage import Training, TrainingStage
from slimsearch_errors import SlimsearchError

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Prune(TrainingStage):
    """Remove the channels of least norm, then fine-tune.

    Source: filter pruning by L1 norm (Li et al. 2017), with the layers that must be cut together found by DepGraph
    (Fang et al. 2023; torch-pruning): one score for a group of coupled channels, their mean norm.

    Attributes:
        sparsity: share of the channels of each layer that is removed, in (0, 1); the logits' layer stays whole.
        epochs: length of the fine-tuning; by default as long as the network was trained.
        norm: 1 or 2.
        round_to: layers of at least four times as many channels get a width that is a multiple of it, since runtimes
            work on blocks of channels (22 of 32 channels ran slower than all 32); 1 leaves widths as they come.
        dropout: share of the network's dropout rates that the pruned one keeps, in [0, 1]. None by default: less
            capacity needs less of it (Han et al. 2015), and a short fine-tuning did best without.
        learning_rate: peak of the fine-tuning's schedule; by default that of the evaluator.
    """

    sparsity: float = 0.3
    epochs: int | None = None
    norm: int = 1
    round_to: int = 8
    dropout: float = 0.0
    learning_rate: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.sparsity < 1:
            raise ValueError(f"sparsity {self.sparsity} is not between 0 and 1")
        if self.epochs is not None and self.epochs < 1:
            raise ValueError(f"epochs {self.epochs} is less than 1")
        if self.norm not in (1, 2):
            raise ValueError(f"norm {self.norm} is neither 1 nor 2")
        if not 0 <= self.dropout <= 1:
            raise ValueError(f"dropout {self.dropout} is not between 0 and 1")
        if self.round_to < 1:
            raise ValueError(f"round_to {self.round_to} is less than 1")

    def start(self, network: Network, training: Training) -> Network:
        import torch_pruning

        module = network.copy_module().eval()
        images = training.calibration[:2]
        before = module(images).shape
        last = _last_layer(module, images)
        try:
            torch_pruning.pruner.BasePruner(
                module,
                images,
                importance=torch_pruning.importance.MagnitudeImportance(p=self.norm),
                pruning_ratio=self.sparsity,
                pruning_ratio_dict=self._rounded(module),
                ignored_layers=[last],
            ).step()
            after = module(images).shape
        except Exception as error:  # torch-pruning raises whatever its analysis stumbles over
            raise SlimsearchError(f"this network cannot be pruned: {type(error).__name__}: {error}") from error
        if after != before:
            raise SlimsearchError(f"pruning changed the output from {tuple(before)} to {tuple(after)}")
        _scale_dropout(module, self.dropout)
        structure = {**network.structure, "widths": widths(module), "dropout": dropout_rates(module)}
        pruned = Network(module, structure, network.quantization)
        if pruned.params == network.params:
            raise SlimsearchError(f"no layer has a channel to spare at sparsity {self.sparsity}")
        return pruned

    def _rounded(self, module: nn.Module) -> dict[nn.Module, float]:
        """The sparsity of each layer that is wide enough to be given a round width."""
        import torch

        ratios: dict[nn.Module, float] = {}
        for layer in module.modules():
            if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
                width = layer.out_channels if isinstance(layer, torch.nn.Conv2d) else layer.out_features
                if self.round_to > 1 and width >= 4 * self.round_to:
                    kept = round(width * (1 - self.sparsity) / self.round_to) * self.round_to
                    # Half a channel more, so that no rounding error costs a whole one.
                    ratios[layer] = 1 - (max(kept, self.round_to) + 0.5) / width if kept < width else 0.0
        return ratios


def _scale_dropout(module: nn.Module, factor: float) -> None:
    for name, rate in dropout_rates(module).items():
        setattr(module.get_submodule(name), "p", rate * factor)  # noqa: B010 - torch types every attribute as a tensor


def _last_layer(module: nn.Module, images: Tensor) -> nn.Module:
    """The convolution or linear layer that runs last: the one that gives the logits."""
    import torch

    ran: list[nn.Module] = []
    hooks = [
        layer.register_forward_hook(lambda layer, *_: ran.append(layer))
        for layer in module.modules()
        if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d)
    ]
    try:
        with torch.no_grad():
            module(images)
    finally:
        for hook in hooks:
            hook.remove()
    if not ran:
        raise SlimsearchError("this network has neither a Linear nor a Conv2d layer to prune")
    return ran[-1]
