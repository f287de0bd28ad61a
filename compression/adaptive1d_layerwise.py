"""Distillation of features between layers of different widths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from compression._features import FeatureLoss, Layerwise, evenly, layer_shapes
from slimsearch_errors import SlimsearchError

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Adaptive1dLayerwise(Layerwise):
    """Train layers towards the teacher's features, through a linear map between their channels.

    Source: `Adaptive1dLayerwiseDistiller` of NNI 3.0, an idea of FitNets (Romero et al. 2015): the output of a
    student's layer is mapped to the width of the teacher's layer of the same name by a linear map that is trained
    along and dropped afterwards; the loss is the mean squared error.

    Different from it: the map is over the channels, which for a convolution are not the last dimension; where the
    widths are equal it is not left out but begins as the identity, since channels that pruning sets to zero keep their
    place during the training. The error of a layer is divided by the mean square of the teacher's features, so that
    layers of any scale count alike, and the losses of the layers are averaged, not added up. The cross entropy with
    the labels has the weight ``1 - weight``.

    Attributes:
        teacher: "parent", the network that the recipe began with, or "best", the most accurate one of the run.
        layers: how many of the Conv2d and Linear layers whose names both networks have, evenly over the order in which
            they run; the one that gives the logits is never among them.
        weight: share of the features in the loss, in (0, 1].
        epochs: length of the training, by default as long as the network was trained; next to another stage that
            trains, the longer of the two counts.
        learning_rate: peak of the schedule; by default that of the evaluator.
    """

    def term(self, teacher: nn.Module, images: Tensor) -> FeatureLoss:
        return MappedFeatures(teacher, images, self.layers, self.weight)


class MappedFeatures(FeatureLoss):
    """The loss term of `Adaptive1dLayerwise`.

    Attributes:
        maps: from the student's channels to the teacher's, by the name of the layer.
    """

    def __init__(self, teacher: nn.Module, images: Tensor, layers: int, weight: float) -> None:
        super().__init__(teacher, images, layers, weight)
        self.maps: dict[str, nn.Module] = {}

    def attach(self, module: nn.Module) -> Sequence[nn.Parameter]:
        super().attach(module)
        return [parameter for channels in self.maps.values() for parameter in channels.parameters()]

    def detach(self) -> None:
        super().detach()
        self.maps = {}

    def state(self) -> dict[str, Any]:
        return {name: channels.state_dict() for name, channels in self.maps.items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        for name, channels in self.maps.items():
            channels.load_state_dict(state[name])

    def link(self, student: nn.Module, teacher: nn.Module, images: Tensor) -> Mapping[str, Sequence[str]]:
        import torch

        others = layer_shapes(teacher, images)
        # A layer that was replaced by several keeps its name: that of the Sequential around them.
        own = layer_shapes(student, images, also=others)
        names = evenly([name for name in others if name in own], self.layers)
        if not names:
            raise SlimsearchError(
                "adaptive1d_layerwise: the network and its teacher have no layer of the same name, except perhaps the "
                "one that gives the logits"
            )
        for name in names:
            convolution = isinstance(teacher.get_submodule(name), torch.nn.Conv2d)
            ours, theirs = list(own[name]), list(others[name])
            channel = 1 if convolution and len(ours) == len(theirs) else -1
            before, after = ours.pop(channel), theirs.pop(channel)
            if ours != theirs:
                raise SlimsearchError(
                    f"adaptive1d_layerwise: layer '{name}' gives {tuple(own[name][1:])} for an image, and the "
                    f"teacher's {tuple(others[name][1:])}: only the number of channels may differ"
                )
            self.maps[name] = _channel_map(before, after, convolution=convolution).to(images.device)
        return {name: [name] for name in names}

    def distance(self, name: str, feature: Tensor, targets: Sequence[Tensor]) -> Tensor:
        import torch.nn.functional as F

        (target,) = targets
        scale = target.square().mean().clamp_min(1e-8)  # a layer may be silent
        return F.mse_loss(self.maps[name](feature), target) / scale


def _channel_map(before: int, after: int, *, convolution: bool) -> nn.Module:
    import torch

    made = torch.nn.Conv2d(before, after, 1) if convolution else torch.nn.Linear(before, after)
    if before == after:
        with torch.no_grad():
            made.weight.copy_(torch.eye(after).reshape(made.weight.shape))
            torch.nn.init.zeros_(made.bias)  # type: ignore[arg-type]
    return made
