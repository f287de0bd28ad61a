"""What the distillations share: options, the layers to compare, their outputs, and a loss over them."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

from slimsearch.compression._network import Network
from slimsearch.compression._stage import LossTerm, Part, Training, TrainingStage, check_training, require
from slimsearch.compression.distillation.onnx_teacher import OnnxFeatures

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

TEACHERS = ("parent", "best")


@dataclass(frozen=True)
class DistillationStage(TrainingStage):
    """The options of every distillation; see `slimsearch.compression.distill.Distill`."""

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
    """The options of a distillation of features, those of `dynamic_layerwise`; a subclass gives the loss."""

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
        """The loss; `images`, (2, C, H, W), serve to find the layers."""


class Teacher(Protocol):
    """The features of a teacher's layers: of a module (`ModuleFeatures`) or of a file (`OnnxFeatures`)."""

    def shapes(self, images: Tensor) -> Mapping[str, torch.Size]:
        """The shape of each layer's output for `images`, by name, in running order, without the logits."""

    def is_convolution(self, name: str) -> bool:
        """Whether the layer's channels are the second dimension of its output; otherwise they are the last."""

    def attach(self, names: Collection[str]) -> None:
        """Set the layers whose features are wanted."""

    def __call__(self, images: Tensor) -> Mapping[str, Tensor]:
        """The features of those layers, as float32."""

    def detach(self) -> None:
        """Called when no more features are wanted."""


class ModuleFeatures:
    """The layers of a module, which is set to evaluation mode and moved to the device of the images."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module.eval().requires_grad_(False)
        self._taps: Taps | None = None

    def shapes(self, images: Tensor) -> Mapping[str, torch.Size]:
        move_to(self._module, images.device)
        return layer_shapes(self._module, images)

    def is_convolution(self, name: str) -> bool:
        import torch

        return isinstance(self._module.get_submodule(name), torch.nn.Conv2d)

    def attach(self, names: Collection[str]) -> None:
        self._taps = Taps(self._module, names, training=False)

    def __call__(self, images: Tensor) -> Mapping[str, Tensor]:
        assert self._taps is not None, "attach comes first"
        self._module(images)
        return self._taps.take()

    def detach(self) -> None:
        if self._taps is not None:
            self._taps.remove()
        self._taps = None


class FeatureLoss(LossTerm):
    """The mean, over layers of the student, of a distance in float32 from features of the teacher.

    Args:
        teacher: the term's own.
        images: (N, C, H, W), to find the layers with.
        layers: how many layers of the student.
        weight: share of the loss.
    """

    def __init__(self, teacher: Teacher, images: Tensor, layers: int, weight: float) -> None:
        self.weight = weight
        self.layers = layers
        self.links: Mapping[str, Sequence[str]] = {}
        self._teacher, self._images = teacher, images
        self._taps: Taps | None = None

    def attach(self, module: nn.Module) -> Sequence[nn.Parameter]:
        # Not before: a stage that begins later may replace layers of the student.
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
        """Names of the student's layers, each with those of the teacher's that it is compared with.

        Raises:
            SlimsearchError: a layer cannot be compared.
        """

    @abstractmethod
    def distance(self, name: str, feature: Tensor, targets: Sequence[Tensor]) -> Tensor:
        """Of the feature of the student's layer `name` from those of the teacher's layers, in the order of `links`."""


class Taps:
    """The newest outputs of layers of `module`, as float32, for as long as its training mode is `training`.

    So the student's outputs are recorded while it trains and not while it is validated; a teacher never trains.
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
        """Leave the module as it was."""
        for hook in self._hooks:
            hook.remove()
        self._found.clear()


def layer_shapes(module: nn.Module, images: Tensor, also: Collection[str] = ()) -> dict[str, torch.Size]:
    """The output shape of each Conv2d and Linear for `images`, in the order in which they run.

    The last layer, which gives the logits, is left out. A layer that runs more than once counts at its last run.

    Args:
        module: stays as it is; a copy runs.
        images: (N, C, H, W).
        also: names of modules of other kinds to include, if the module has them.
    """
    import torch

    # Evaluating a copy changes neither running means nor what quantization observes.
    probe = copy.deepcopy(module).eval()
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
    """The last of each of `count` equal parts of `names`; all of them where there are fewer."""
    count = min(count, len(names))
    return [names[(part + 1) * len(names) // count - 1] for part in range(count)]


def device_of(module: nn.Module) -> torch.device:
    """The device of the parameters of `module`."""
    import torch

    return next((parameter.device for parameter in module.parameters()), torch.device("cpu"))


def move_to(teacher: nn.Module, device: torch.device) -> None:
    """Move `teacher` to `device`, with its convolutions in the layout of the images."""
    import torch

    teacher.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
