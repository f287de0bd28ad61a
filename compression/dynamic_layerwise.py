"""Distillation of features from the teacher's nearest layers."""

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
    the mean squared error of their outputs, and its loss in each step is the least of these.

    Differences: the compared layers are not configured but all Conv2d and Linear layers of the teacher with the same
    output shape; the losses of the layers are averaged, not summed; the cross entropy with the labels has the weight
    ``1 - weight``. As in NNI, features are not scaled, so large ones have more influence.

    The layers of an ONNX file are the outputs of its Conv, Gemm and MatMul operators whose weight is in the file,
    except the last one, which gives the logits. BatchNorm is usually folded into the preceding Conv, whose output is
    then already normalized, while the network's layer is compared before its BatchNorm.

    Attributes:
        teacher: "parent", the network that the recipe began with; "best", the most accurate one of the run; or the path
            of an ONNX file (``.onnx``) that takes the same normalized images, run by ONNX Runtime on the CPU.
        layers: number of the network's Conv2d and Linear layers to compare, spread evenly over all except the one that
            gives the logits.
        weight: share of the features in the loss, in (0, 1].
        epochs: length of the training, by default that of the network's training; stages that share a training run
            use the longest.
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
