"""Spaces from plain PyTorch that tests search: functions of a trial, and functions of choices."""

from __future__ import annotations

from typing import Any, Literal

import optuna
import torch
from torch import nn


def small(trial: Any) -> nn.Module:
    """Six networks for 8x8 grey digits that train in a second."""
    width = trial.suggest_categorical("width", [8, 16, 24])
    act = {"relu": nn.ReLU, "tanh": nn.Tanh}[trial.suggest_categorical("act", ["relu", "tanh"])]
    return nn.Sequential(nn.Conv2d(1, width, 3), act(), nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(width * 9, 10))


def nested(trial: Any, in_channels: int, num_classes: int) -> nn.Module:
    """A loop, branches in it, and a branch in one of these."""
    layers: list[nn.Module] = []
    channels = in_channels
    for block in range(trial.suggest_int("depth", 1, 3)):
        width = trial.suggest_int(f"width{block}", 4, 8, step=4)
        kind = trial.suggest_categorical(f"kind{block}", ["plain", "expanded"])
        if kind == "expanded":
            factor = trial.suggest_int(f"factor{block}", 1, 2)
            layers += [nn.Conv2d(channels, channels * factor, 1), nn.ReLU()]
            channels *= factor
            if factor == 2 and trial.suggest_categorical(f"norm{block}", [False, True]):
                layers.append(nn.BatchNorm2d(channels))
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
        channels = width
    if trial.suggest_categorical("drop", [False, True]):
        layers.append(nn.Dropout(trial.suggest_float("rate", 0.1, 0.3, step=0.1)))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes))


def constrained(trial: Any, num_classes: int = 10) -> nn.Module:
    """Values of which not all go together."""
    width, factor = trial.suggest_categorical("width", [4, 8, 16]), trial.suggest_int("factor", 1, 3)
    if width * factor > 24:
        raise optuna.TrialPruned
    layers = [nn.Conv2d(1, width * factor, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(width * factor, num_classes))


def with_values(trial: Any) -> nn.Module:
    """Needs real tensors while it makes the network, which the meta device has not."""
    depth = trial.suggest_int("depth", 1, 3)
    rates = torch.linspace(0, trial.suggest_categorical("rate", [0.1, 0.2]), depth).tolist()
    layers = [layer for rate in rates for layer in (nn.Linear(64, 64), nn.ReLU(), nn.Dropout(rate))]
    return nn.Sequential(nn.Flatten(), *layers, nn.Linear(64, 10))


def with_training(trial: Any) -> nn.Module:
    """As `small`, with hyper-parameters of its training."""
    trial.suggest_float("learning_rate", 1e-3, 1e-2, log=True)
    trial.suggest_categorical("batch_size", [32, 64])
    trial.suggest_categorical("augment", ["none", "shift"])
    return small(trial)


def rare(trial: Any) -> nn.Module:
    """A choice that only one of 4,096 combinations has, which no probe finds."""
    digits = [trial.suggest_int(f"digit{i}", 0, 15) for i in range(3)]
    width = trial.suggest_categorical("width", [4, 8]) if digits == [7, 11, 13] else 4
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, width + sum(digits)), nn.ReLU(), nn.Linear(width + sum(digits), 10)
    )


def of_choices(
    width: Literal[8, 16, 24] = 16, act: Literal["relu", "tanh"] = "relu", *, in_channels: int, num_classes: int
) -> nn.Module:
    """Choices as annotated parameters."""
    acts = {"relu": nn.ReLU(), "tanh": nn.Tanh()}
    layers = [nn.Conv2d(in_channels, width, 3), acts[act], nn.AdaptiveAvgPool2d(3), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(width * 9, num_classes))


class OfChoices(nn.Module):
    """A plain module with annotated parameters."""

    def __init__(self, width: Literal[8, 16] = 8, bias: Literal[True, False] = True) -> None:
        super().__init__()
        self.hidden, self.out = nn.Linear(64, width, bias=bias), nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(torch.relu(self.hidden(x.flatten(1))))


def without_choices(trial: Any) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def at_random(trial: Any) -> nn.Module:
    import random

    width = trial.suggest_categorical("width", [8, 16])
    if random.random() < 0.5:
        width = trial.suggest_categorical("other", [8, 16])
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))


def two_meanings(trial: Any) -> nn.Module:
    depth = trial.suggest_int("depth", 1, 3)
    last = trial.suggest_int("last", 0, depth)
    return nn.Sequential(nn.Flatten(), *(nn.Linear(64, 64) for _ in range(last)), nn.Linear(64, 10))


def fails(trial: Any) -> nn.Module:
    trial.suggest_categorical("width", [8, 16])
    raise RuntimeError("the function gave up")


def objective(trial: Any) -> float:
    return float(trial.suggest_float("x", 0, 1))


def asks_for_more(trial: Any) -> nn.Module:
    trial.report(0.5, step=1)
    return small(trial)


def no_space(width: int = 8) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.Linear(width, 10))


def limited(trial: Any) -> nn.Module:
    """Rules out one of 4,096 combinations, which no probe finds."""
    digits = [trial.suggest_int(f"digit{i}", 0, 15) for i in range(3)]
    if digits == [7, 11, 13]:
        raise optuna.TrialPruned
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10 + sum(digits)), nn.ReLU(), nn.Linear(10 + sum(digits), 10))
