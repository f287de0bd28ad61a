"""Spaces of functions ``define(trial)``, which return a network and are written as for Optuna."""

from __future__ import annotations

import inspect
from typing import Any

from slimsearch.search_spaces._functions.conditions import Conditions
from slimsearch.search_spaces._functions.function_space import FunctionSpace
from slimsearch.search_spaces._functions.trial import Trial

_TRIAL = "trial"


class DefinedSpace(FunctionSpace):
    """The networks that a function ``define(trial)`` returns.

    The function asks by ``trial.suggest_categorical``, ``suggest_int`` and ``suggest_float``, in branches and loops as
    it likes; the same answers give the same network. It may raise `optuna.TrialPruned` for answers that do not go
    together. Parameters called ``in_channels``, ``image_size``, ``input_shape`` or ``num_classes`` get these from the
    data.

    Difference from Optuna: the choices are found before the search, by calls on the meta device, see
    `Conditions.found`. A choice that appears for a rare combination only is taken in with the first trial that has it.

    Args:
        code: the function, or a class with such a constructor.
        input_shape: (C, H, W) of one image.
        num_classes: number of logits of the networks.
    """

    def _answered(self, trial: Trial) -> Any:
        parameters = dict(list(inspect.signature(self.code).parameters.items())[1:])
        return self.code(trial, **self._offered(parameters))

    def _find_choices(self) -> Conditions:
        return Conditions.found(self.name, self._asked_at)


def takes_a_trial(code: Any) -> bool:
    """Whether the first parameter of a function or class is called ``trial``."""
    try:
        return next(iter(inspect.signature(code).parameters), None) == _TRIAL
    except (TypeError, ValueError):  # written in C
        return False
