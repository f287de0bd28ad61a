"""Spaces that tests search: small, and odd in one way each."""

from __future__ import annotations

import nni
import torch
from nni.mutable import ExpressionConstraint
from nni.nas.nn.pytorch import (
    Cell,
    InputChoice,
    LayerChoice,
    ModelSpace,
    MutableBatchNorm2d,
    MutableConv2d,
    MutableLinear,
    Repeat,
)
from nni.nas.space import model_context
from torch import nn


class Tiny(ModelSpace):
    """Six networks for 8x8 grey digits that train in a second."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        width = nni.choice("width", [8, 16, 24])
        self.conv = MutableConv2d(1, width, 3)
        self.act = LayerChoice([nn.ReLU(), nn.Tanh()], label="act")
        self.pool = nn.AdaptiveAvgPool2d(3)
        self.fc = MutableLinear(width * 9, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.flatten(self.pool(self.act(self.conv(x))), 1))


class Dozen(ModelSpace):
    """As `Tiny`, with twelve networks."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        width = nni.choice("width", [8, 10, 12, 16, 20, 24])
        self.conv = MutableConv2d(1, width, 3)
        self.act = LayerChoice([nn.ReLU(), nn.Tanh()], label="act")
        self.pool = nn.AdaptiveAvgPool2d(3)
        self.fc = MutableLinear(width * 9, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.flatten(self.pool(self.act(self.conv(x))), 1))


class Various(ModelSpace):
    """What stages of compression meet in real networks: normalisation, residual, depthwise and linear layers."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        width = nni.choice("width", [16, 32])
        self.stem, self.norm1, self.act1 = nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()
        self.wide, self.norm2, self.act2 = MutableConv2d(16, width, 3, padding=1), MutableBatchNorm2d(width), nn.ReLU()
        self.back, self.norm3, self.act3 = MutableConv2d(width, 16, 1), nn.BatchNorm2d(16), nn.ReLU()
        self.depthwise, self.act4 = nn.Conv2d(16, 16, 3, stride=2, groups=16), nn.Hardswish()
        self.drop, self.hidden, self.act5 = nn.Dropout(0.1), nn.Linear(16 * 9, 32), nn.ReLU()
        self.head = nn.Linear(32, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.act1(self.norm1(self.stem(x)))
        y = self.act2(self.norm2(self.wide(x)))
        x = self.act3(x + self.norm3(self.back(y)))
        x = torch.flatten(self.act4(self.depthwise(x)), 1)
        return self.head(self.act5(self.hidden(self.drop(x))))


class Branch(nn.Module):
    """A branch with a choice of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = LayerChoice([nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, padding=1)], label="kernel")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.kernel(x)


class Nested(ModelSpace):
    """``kernel`` is active only where ``branch`` is 1; ``depth`` repeats a block; ``inputs`` picks two of three."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.branch = LayerChoice([nn.Identity(), Branch()], label="branch")
        self.body = Repeat(lambda index: nn.Conv2d(4, 4, 3, padding=1), nni.choice("depth", [1, 2]))
        self.inputs = InputChoice(3, 2, label="inputs")
        self.fc = nn.Linear(4, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        y = self.body(self.branch(x))
        return self.fc(self.inputs([x, y, x + y]).mean(dim=(2, 3)))


class WithCell(ModelSpace):
    """A cell in which each operation chooses its input."""

    def __init__(self) -> None:
        super().__init__()
        operations = {
            "conv": lambda node, op, source: nn.Conv2d(4, 4, 3, padding=1),
            "skip_connect": lambda node, op, source: nn.Identity(),
        }
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.cell = Cell(operations, num_nodes=2, num_ops_per_node=2, num_predecessors=1, label="cell")
        self.fc = nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.cell([self.stem(x)]).mean(dim=(2, 3)))


class Constrained(ModelSpace):
    """Widths by arithmetic on choices, of which not all go together."""

    def __init__(self) -> None:
        super().__init__()
        width, factor = nni.choice("width", [4, 8, 16]), nni.choice("factor", [1, 2, 3])
        self.add_mutable(ExpressionConstraint(width * factor <= 24, label="narrow"))
        self.wide = MutableConv2d(1, width * factor, 3)
        self.back = MutableConv2d(width * factor, width, 1)
        self.fc = MutableLinear(width, 10)

    def freeze(self, sample: dict[str, object]) -> nn.Module:
        with model_context(sample):
            return type(self)()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.relu(self.back(torch.relu(self.wide(x)))).mean(dim=(2, 3)))


class NotASpace:
    """Has nothing to do with NNI."""


class NoChoices(ModelSpace):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.flatten(x, 1))


class WrongOutput(Tiny):
    """Gives seven logits, whatever is asked for."""

    def __init__(self) -> None:
        super().__init__(num_classes=7)


class FailsToBuild(ModelSpace):
    def __init__(self) -> None:
        super().__init__()
        raise RuntimeError("the constructor gave up")


class FailsToRun(Tiny):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("the forward pass gave up")


class SometimesFails(Tiny):
    """Networks of width 16 raise when they are trained, never when they are checked."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training and self.fc.in_features == 16 * 9:
            raise RuntimeError("width 16 gave up")
        return super().forward(x)


class GoesWrong(Tiny):
    """In training one network raises, one kills its process and one never comes to an end."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            what = self.fc.in_features // 9, type(self.act)
            if what == (16, nn.ReLU):
                raise RuntimeError("width 16 gave up")
            if what == (16, nn.Tanh):
                import os
                import signal

                os.kill(os.getpid(), signal.SIGKILL)
            if what == (24, nn.Tanh):
                import time

                time.sleep(3600)
        return super().forward(x)


class Diverges(Tiny):
    """The loss is NaN from the first step on."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * float("nan")


class _Head(nn.Module):
    def __init__(self, fault: str, num_classes: int) -> None:
        super().__init__()
        self.fault, self.fc = fault, nn.Linear(8 * 36, num_classes)
        if fault == "nan":
            self.fc.weight.data.fill_(float("nan"))

    def forward(self, x: torch.Tensor) -> object:
        logits = self.fc(x.view(x.size(0), -1))
        if self.fault == "detached":
            return logits.detach()
        if self.fault == "auxiliary" and self.training:
            return logits, x
        return logits[:, :3] if self.fault == "narrow" and self.training else logits


class OneOfManyFaults(ModelSpace):
    """The usual flattening, an auxiliary head, and networks that cannot be trained, each for one reason."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3)
        faults = ("view", "auxiliary", "detached", "narrow", "nan")
        self.head = LayerChoice({fault: _Head(fault, num_classes) for fault in faults}, label="fault")

    def forward(self, x: torch.Tensor) -> object:
        return self.head(torch.relu(self.conv(x)))


class Viewed(Tiny):
    """As `Tiny`, with images and maps that are flattened in place, which needs contiguous memory."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.act(self.conv(x.view(-1).view(x.shape)))
        return self.fc(self.pool(x.view(x.size(0), -1).view(x.shape)).view(x.size(0), -1))
