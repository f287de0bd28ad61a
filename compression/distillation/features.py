"""Distillation stages and teachers: common options, layer features, and a loss over features."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

from slimsearch.compression._layout import layout_for, set_layout
from slimsearch.compression._network import Network
from slimsearch.compression._plain_module import copy_module
from slimsearch.compression._stage import LossTerm, Part, Training, TrainingStage, check_training, require
from slimsearch.compression.distillation.onnx_teacher import OnnxFeatures
from slimsearch.errors import SlimsearchError, describe_error

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

TEACHERS = ("parent", "best")


@dataclass(frozen=True)
class DistillationStage(TrainingStage):
    """A distillation with its common options; see `slimsearch.compression.distill.Distill`."""

    changes_cost: ClassVar[bool] = False

    teacher: str = "parent"
    weight: float = 0.5
    epochs: int | None = None
    learning_rate: float | None = None

    def __post_init__(self) -> None:
        check_training(self)
        known = self.teacher in TEACHERS or str(self.teacher).endswith(".onnx")
        require(known, f"teacher '{self.teacher}' is none of {', '.join(TEACHERS)}, and no path of an .onnx file")
        require(0 < self.weight <= 1, f"weight {self.weight} is not in (0, 1]")


@dataclass(frozen=True)
class Layerwise(DistillationStage):
    """A distillation of features, with the options of `dynamic_layerwise`; a subclass gives the loss."""

    layers: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        valid = isinstance(self.layers, int) and self.layers >= 1
        require(valid, f"layers {self.layers} is not a whole number above 0")

    def begin(self, network: Network, training: Training) -> Part:
        images = training.calibration[:2]
        teacher: Teacher
        if self.teacher in TEACHERS:
            teacher = ModuleFeatures(training.teacher(self.teacher).copy_module())
        else:
            teacher = OnnxFeatures(Path(self.teacher), images)
        return Part(network, losses=[self.term(teacher, images)])

    @abstractmethod
    def term(self, teacher: Teacher, images: Tensor) -> FeatureLoss:
        """The loss term; `images`, (2, C, H, W), are for a forward pass that finds the layers."""


class Teacher(Protocol):
    """Features of a teacher's layers: a module (`ModuleFeatures`) or a file (`OnnxFeatures`)."""

    def shapes(self, images: Tensor) -> Mapping[str, torch.Size]:
        """Output shapes for `images` by layer name, in the order of the calls, without the logits."""

    def is_convolution(self, name: str) -> bool:
        """Whether the channels are the second dimension of the layer's output, not the last one."""

    def attach(self, names: Collection[str]) -> None:
        """Select the layers whose features `__call__` returns."""

    def __call__(self, images: Tensor) -> Mapping[str, Tensor]:
        """The features of the selected layers, as float32."""

    def detach(self) -> None:
        """Called after the last features."""


class TeacherModule:
    """A module in evaluation mode without gradients, on the device of its images, in its fastest memory layout.

    Args:
        module: changed in place.
        images: (N, C, H, W) float32, for the choice of the layout.

    Raises:
        SlimsearchError: the module fails on the images.
    """

    def __init__(self, module: nn.Module, images: Tensor) -> None:
        self.module = module.eval().requires_grad_(False)

        def run(layout: torch.memory_format) -> list[Tensor]:
            set_layout(self.module, layout)
            self._layout = layout
            return [self(images)]

        try:
            layout = layout_for(run)
        except Exception as error:  # a user's module may raise anything
            raise SlimsearchError(
                f"the teacher fails on the images of the data set: {describe_error(error)}"
            ) from error
        set_layout(self.module, layout)
        self._layout = layout

    def __call__(self, images: Tensor) -> Tensor:
        """What the module gives for (N, C, H, W) float32 `images`."""
        import torch

        if device_of(self.module) != images.device:
            self.module.to(images.device)
        with torch.no_grad():
            outputs = self.module(images.to(memory_format=self._layout))
        if not isinstance(outputs, torch.Tensor):
            raise TypeError(f"its forward returns a {type(outputs).__name__}, not a tensor of logits")
        return outputs


class ModuleFeatures:
    """Features of a module."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._teacher: TeacherModule | None = None
        self._taps: Taps | None = None

    def shapes(self, images: Tensor) -> Mapping[str, torch.Size]:
        self._module.to(images.device)
        self._teacher = TeacherModule(self._module, images)
        return layer_shapes(self._module, images)

    def is_convolution(self, name: str) -> bool:
        import torch

        return isinstance(self._module.get_submodule(name), torch.nn.Conv2d)

    def attach(self, names: Collection[str]) -> None:
        self._taps = Taps(self._module, names, training=False)

    def __call__(self, images: Tensor) -> Mapping[str, Tensor]:
        assert self._teacher is not None, "shapes comes first"
        assert self._taps is not None, "attach comes first"
        self._teacher(images)
        return self._taps.take()

    def detach(self) -> None:
        if self._taps is not None:
            self._taps.remove()
        self._taps = None


class FeatureLoss(LossTerm):
    """The mean distance of features of the student from features of the teacher, in float32.

    Args:
        teacher: the teacher, not shared with other loss terms.
        images: (N, C, H, W), for a forward pass that finds the layers.
        layers: number of layers of the student.
        weight: share of the loss.
    """

    def __init__(self, teacher: Teacher, images: Tensor, layers: int, weight: float) -> None:
        self.weight = weight
        self.layers = layers
        self.links: Mapping[str, Sequence[str]] = {}
        self._teacher, self._images = teacher, images
        self._taps: Taps | None = None

    def attach(self, module: nn.Module) -> Sequence[nn.Parameter]:
        # Not earlier, since a stage that begins later may replace layers of the student.
        self.links = self.link(module, self._teacher, self._images.to(device_of(module)))
        self._teacher.attach({name for names in self.links.values() for name in names})
        self._taps = Taps(module, self.links, training=True)
        return ()

    def __call__(self, images: Tensor, logits: Tensor) -> Tensor:
        import torch

        assert self._taps is not None, "attach comes first"
        with torch.no_grad():
            targets = self._teacher(images)
        features = self._taps.take()
        with torch.autocast(images.device.type, enabled=False):
            distances = [
                self.distance(name, features[name], [targets[other] for other in others])
                for name, others in self.links.items()
            ]
            return torch.stack(distances).mean()

    def detach(self) -> None:
        self._teacher.detach()
        if self._taps is not None:
            self._taps.remove()
        self._taps = None

    @abstractmethod
    def link(self, student: nn.Module, teacher: Teacher, images: Tensor) -> Mapping[str, Sequence[str]]:
        """Names of the student's layers, each with the names of the teacher's layers to compare it with.

        Raises:
            SlimsearchError: a layer cannot be compared.
        """

    @abstractmethod
    def distance(self, name: str, feature: Tensor, targets: Sequence[Tensor]) -> Tensor:
        """Distance of the student's feature of layer `name` from the teacher's features, in the order of `links`."""


class Taps:
    """Records the latest outputs of layers of `module`, as float32, while its training mode is `training`.

    The mode excludes outputs of the student's validation; a teacher is always in evaluation mode.
    """

    def __init__(self, module: nn.Module, names: Collection[str], *, training: bool) -> None:
        self._found: dict[str, Tensor] = {}
        self._hooks = [
            module.get_submodule(name).register_forward_hook(self._hook(module, name, training)) for name in names
        ]

    def _hook(self, module: nn.Module, name: str, training: bool) -> Callable[[nn.Module, object, Tensor], None]:
        import torch

        found, tapped = self._found, module.get_submodule(name)

        def remember(layer: nn.Module, inputs: object, output: Tensor) -> None:
            # A copy of the module shares this function; its outputs are not recorded.
            if layer is tapped and module.training is training:
                # A copy: the next layer may work in place (ReLU).
                found[name] = output.to(torch.float32, copy=True)

        return remember

    def take(self) -> dict[str, Tensor]:
        """The recorded outputs; clears the record."""
        taken = dict(self._found)
        self._found.clear()
        return taken

    def remove(self) -> None:
        """Remove the hooks."""
        for hook in self._hooks:
            hook.remove()
        self._found.clear()


def layer_shapes(module: nn.Module, images: Tensor, also: Collection[str] = ()) -> dict[str, torch.Size]:
    """Output shapes of Conv2d and Linear layers for `images`, by name, in the order of their last calls.

    Without the last layer, which gives the logits.

    Args:
        module: stays unchanged; a copy runs.
        images: (N, C, H, W).
        also: names of modules of other kinds to include, if they exist.
    """
    import torch

    # A copy, so that running means and observers of quantization do not change.
    probe = copy_module(module).eval()
    shapes: dict[str, torch.Size] = {}

    def hook(name: str) -> Callable[[nn.Module, object, object], None]:
        def remember(layer: nn.Module, inputs: object, output: object) -> None:
            shapes.pop(name, None)
            if isinstance(output, torch.Tensor):
                shapes[name] = output.shape

        return remember

    for name, layer in probe.named_modules():
        if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear) or name in also:
            layer.register_forward_hook(hook(name))
    with torch.no_grad():
        probe(images)
    if shapes:
        shapes.popitem()
    return shapes


def evenly(names: Sequence[str], count: int) -> list[str]:
    """The last name of each of `count` equal sections of `names`; all if there are fewer."""
    count = min(count, len(names))
    return [names[(section + 1) * len(names) // count - 1] for section in range(count)]


def device_of(module: nn.Module) -> torch.device:
    """The device of the parameters of `module`."""
    import torch

    return next((parameter.device for parameter in module.parameters()), torch.device("cpu"))
