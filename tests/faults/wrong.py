"""A space in which a trial goes wrong in each way that there is, but for what goes right."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
import time

import torch
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from torch import nn

GIGABYTE = 2**30


class Wrong(nn.Module):
    """Does something in its first step of training, and is no layer otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.done = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training and not self.done:
            self.done = True
            self.go_wrong()
        return x

    def go_wrong(self) -> None:
        pass


class Raises(Wrong):
    def go_wrong(self) -> None:
        raise RuntimeError("it gave up\nand has more to say")


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise ValueError("there are no words")


class RaisesBadly(Wrong):
    def go_wrong(self) -> None:
        raise Unspeakable


class Exits(Wrong):
    def go_wrong(self) -> None:
        sys.exit("enough")


class Interrupts(Wrong):
    def go_wrong(self) -> None:
        raise KeyboardInterrupt


class Hangs(Wrong):
    def go_wrong(self) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(3600)


class NotANumber(Wrong):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * float("nan") if self.training else x


class OutOfMemory(Wrong):
    """Under a limit, so that it is this process alone that runs out of it."""

    def go_wrong(self) -> None:
        with open("/proc/self/statm", encoding="ascii") as file:
            now = int(file.read().split()[0]) * resource.getpagesize()
        before = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (now + 2**28, before[1]))
        try:
            taken = [torch.zeros(2**24)]
            while True:
                taken.append(torch.zeros(2**24))
        finally:
            resource.setrlimit(resource.RLIMIT_AS, before)


class KilledForMemory(Wrong):
    """As the kernel does it to whoever has most."""

    def go_wrong(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class Crashes(Wrong):
    def go_wrong(self) -> None:
        ctypes.string_at(0)


class ForksAndExits(Wrong):
    """The copy goes on with the training, as if it were the worker."""

    def go_wrong(self) -> None:
        if os.fork():
            os._exit(0)


class ClosesItsPipe(Wrong):
    def go_wrong(self) -> None:
        os.closerange(3, 1024)


class Prints(Wrong):
    """A gigabyte, and then all is well."""

    def go_wrong(self) -> None:
        print("the first line", flush=True)
        block = b"x" * 1023 + b"\n"
        for _ in range(GIGABYTE // 2**20):
            os.write(1, block * 512)
            sys.stderr.write((block * 512).decode())
        print("the last line", flush=True)


class NotExported(Wrong):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 0 * torch.special.bessel_j0(x.detach())


class Ways(ModelSpace):
    """One network for each way."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3)
        self.way = LayerChoice(
            {
                "well": nn.ReLU(), "raises": Raises(), "badly": RaisesBadly(), "exits": Exits(),
                "interrupts": Interrupts(), "hangs": Hangs(), "nan": NotANumber(), "memory": OutOfMemory(),
                "killed": KilledForMemory(), "crashes": Crashes(), "forks": ForksAndExits(),
                "closes": ClosesItsPipe(), "prints": Prints(), "export": NotExported(), "also_well": nn.Tanh(),
            },
            label="way",
        )  # fmt: skip
        self.pool = nn.AdaptiveAvgPool2d(3)
        self.fc = nn.Linear(72, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.flatten(self.pool(self.way(self.conv(x))), 1))
