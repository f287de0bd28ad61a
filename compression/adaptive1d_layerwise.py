"""Distillation of features between layers of different widths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from slimsearch.compression.distillation.features import (
    FeatureLoss,
    Layerwise,
    ModuleFeatures,
    Teacher,
    evenly,
    layer_shapes,
)
from slimsearch.errors import SlimsearchError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    Pair = tuple[str, torch.Size, str, torch.Size]  # a layer and its shape, the teacher's and its shape


@dataclass(frozen=True)
class Adaptive1dLayerwise(Layerwise):
    """Train layers towards the teacher's features, through a linear map between their channels.

    Source: `Adaptive1dLayerwiseDistiller` of NNI 3.0, after FitNets (Romero et al. 2015): a linear map, trained with
    the student and dropped afterwards, maps the output of a student's layer to the width of the teacher's layer of the
    same name; the loss is the mean squared error.

    Differences: the map is over the channels, which are not the last dimension of a convolution's output. For equal
    widths there is also a map, which begins as the identity, since gradual pruning zeroes channels without moving them.
    The error of a layer is divided by the mean square of the teacher's features, so that layers of any scale have the
    same influence, and the losses of the layers are averaged, not summed. The cross entropy with the labels has the
    weight ``1 - weight``.

    An ONNX file has no reliable layer names, so positions decide: a layer of the network is compared with the file's
    layer of nearest relative depth, among those of its kind (Conv; Gemm or MatMul for a Linear) with the same sizes
    except the channels. The file's layers are the outputs of these operators whose weight is in the file, except the
    last one, which gives the logits. BatchNorm is usually folded into the preceding Conv, whose output is then already
    normalized; the linear map learns to do the same.

    Attributes:
        teacher: "parent", the network that the recipe began with; "best", the most accurate one of the run; or the path
            of an ONNX file (``.onnx``) that takes the same normalized images, run by ONNX Runtime on the CPU.
        layers: number of Conv2d and Linear layers to compare, spread evenly over the layers with a common name (with a
            file: over all of the network's), without the one that gives the logits.
        weight: share of the features in the loss, in (0, 1].
        epochs: length of the training, by default that of the network's training; stages that share a training run
            use the longest.
        learning_rate: peak of the schedule; by default that of the evaluator.
    """

    def term(self, teacher: Teacher, images: Tensor) -> FeatureLoss:
        return MappedFeatures(teacher, images, self.layers, self.weight)


class MappedFeatures(FeatureLoss):
    """The loss term of `Adaptive1dLayerwise`.

    Attributes:
        maps: from the student's channels to the teacher's, by the name of the layer.
    """

    def __init__(self, teacher: Teacher, images: Tensor, layers: int, weight: float) -> None:
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

    def link(self, student: nn.Module, teacher: Teacher, images: Tensor) -> Mapping[str, Sequence[str]]:
        pairs = _by_name if isinstance(teacher, ModuleFeatures) else _by_depth
        links = {}
        for name, before, other, after in pairs(student, teacher, images, self.layers):
            convolution = teacher.is_convolution(other)
            channel = _channel_axis(convolution)
            mapping = _channel_map(before[channel], after[channel], convolution=convolution)
            self.maps[name] = mapping.to(images.device)
            links[name] = [other]
        return links

    def distance(self, name: str, feature: Tensor, targets: Sequence[Tensor]) -> Tensor:
        import torch.nn.functional as F

        (target,) = targets
        scale = target.square().mean().clamp_min(1e-8)  # a layer may output only zeros
        return F.mse_loss(self.maps[name](feature), target) / scale


def _by_name(student: nn.Module, teacher: Teacher, images: Tensor, count: int) -> list[Pair]:
    """Pairs of layers of the same name."""
    others = teacher.shapes(images)
    # The Sequential that replaces a layer has the layer's name.
    own = layer_shapes(student, images, also=others)
    names = evenly([name for name in others if name in own], count)
    if not names:
        raise SlimsearchError(
            "adaptive1d_layerwise: the network and its teacher have no layer of the same name, except perhaps the "
            "one that gives the logits"
        )
    for name in names:
        convolution = teacher.is_convolution(name)
        if _sizes(own[name], convolution) != _sizes(others[name], convolution):
            raise SlimsearchError(_differ(name, own[name], "the teacher's", others[name]))
    return [(name, own[name], name, others[name]) for name in names]


def _by_depth(student: nn.Module, teacher: Teacher, images: Tensor, count: int) -> list[Pair]:
    """Layers of the student, each with the comparable layer of the teacher of nearest relative depth."""
    from torch.nn import Conv2d

    own, others = layer_shapes(student, images), teacher.shapes(images)
    if not own:
        raise SlimsearchError("adaptive1d_layerwise: the network has no layer but the one that gives the logits")
    depths = {name: (number + 1) * len(others) for number, name in enumerate(own)}
    other_depths = {name: (number + 1) * len(own) for number, name in enumerate(others)}
    pairs = []
    for name in evenly([*own], count):
        convolution = isinstance(student.get_submodule(name), Conv2d)
        by_distance = sorted(others, key=lambda other, here=depths[name]: abs(other_depths[other] - here))  # type: ignore[misc]
        for other in by_distance:
            alike = _sizes(own[name], convolution) == _sizes(others[other], convolution)
            if alike and teacher.is_convolution(other) == convolution:
                pairs.append((name, own[name], other, others[other]))
                break
        else:
            kind, nearest = "Conv" if convolution else "Gemm or MatMul", by_distance[0]
            whose = f"no {kind} of the teacher's file has such sizes; the nearest in depth, '{nearest}', gives"
            raise SlimsearchError(_differ(name, own[name], whose, others[nearest]))
    return pairs


def _channel_axis(convolution: bool) -> int:
    return 1 if convolution else -1


def _sizes(shape: Sequence[int], convolution: bool) -> list[int]:
    """All of `shape` except the channels."""
    sizes = list(shape)
    del sizes[_channel_axis(convolution)]
    return sizes


def _differ(name: str, own: Sequence[int], whose: str, other: Sequence[int]) -> str:
    return (
        f"adaptive1d_layerwise: layer '{name}' gives {tuple(own[1:])} for an image, and {whose} {tuple(other[1:])}: "
        "only the number of channels may differ"
    )


def _channel_map(before: int, after: int, *, convolution: bool) -> nn.Module:
    import torch

    mapping = torch.nn.Conv2d(before, after, 1) if convolution else torch.nn.Linear(before, after)
    if before == after:
        with torch.no_grad():
            mapping.weight.copy_(torch.eye(after).reshape(mapping.weight.shape))
            torch.nn.init.zeros_(mapping.bias)  # type: ignore[arg-type]
    return mapping
