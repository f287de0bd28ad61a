"""Distillation of features, each layer from whichever of the teacher's is nearest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from slimsearch.compression.distillation.features import FeatureLoss, Layerwise, Teacher, evenly, layer_shapes
from slimsearch.errors import SlimsearchError

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class DynamicLayerwise(Layerwise):
    """Train layers towards the nearest features of the teacher's layers.

    Source: `DynamicLayerwiseDistiller` of NNI 3.0: a layer of the student is compared with several of the teacher by
    the mean squared error of their outputs, and in each step the least of these is its loss.

    Different from it: which layers these are is not configured, every Conv2d and Linear of the teacher whose output
    has the same shape takes part; the losses of the layers are averaged, not added up; and the cross entropy with the
    labels has the weight ``1 - weight``. As there, features are compared as they are: large ones weigh more.

    Of an ONNX file the outputs of its Conv, Gemm and MatMul operators take part, those with a weight that the file
    holds, except the last, which gives the logits. BatchNorm is usually folded into the Conv before it, whose output is
    then already normalised, where the network's own layer is compared before its BatchNorm.

    Attributes:
        teacher: "parent", the network that the recipe began with, "best", the most accurate one of the run, or the path
            of an ONNX file (``.onnx``) that takes the same normalised images. ONNX Runtime runs it, on the CPU.
        layers: how many of the network's Conv2d and Linear layers, evenly over the order in which they run; the one
            that gives the logits is never among them.
        weight: share of the features in the loss, in (0, 1].
        epochs: length of the training, by default as long as the network was trained; next to another stage that
            trains, the longer of the two counts.
        learning_rate: peak of the schedule; by default that of the evaluator.
    """

    def term(self, teacher: Teacher, images: Tensor) -> FeatureLoss:
        return NearestFeatures(teacher, images, self.layers, self.weight)


class NearestFeatures(FeatureLoss):
    """The loss term of `DynamicLayerwise`."""

    def link(self, student: nn.Module, teacher: Teacher, images: Tensor) -> Mapping[str, Sequence[str]]:
        own, others = layer_shapes(student, images), teacher.shapes(images)
        if not own:
            raise SlimsearchError("dynamic_layerwise: the network has no layer but the one that gives the logits")
        links = {
            name: [other for other in others if others[other] == own[name]] for name in evenly([*own], self.layers)
        }
        for name, found in links.items():
            if not found:
                raise SlimsearchError(
                    f"dynamic_layerwise: layer '{name}' gives {tuple(own[name][1:])} for an image, and no layer of the "
                    "teacher does; adaptive1d_layerwise can compare layers of different widths"
                )
        return links

    def distance(self, name: str, feature: Tensor, targets: Sequence[Tensor]) -> Tensor:
        import torch
        import torch.nn.functional as F

        return torch.stack([F.mse_loss(feature, target) for target in targets]).min()
