"""Spaces of functions whose parameters are the choices."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from slimsearch.errors import SlimsearchError, describe_error
from slimsearch.search_spaces._functions.conditions import Conditions
from slimsearch.search_spaces._functions.function_space import HYPERPARAMETER_OF, FunctionSpace
from slimsearch.search_spaces._functions.trial import Trial
from slimsearch.search_spaces._model_space import name_of


class ParameterSpace(FunctionSpace):
    """The networks that a function makes of one value for each of its parameters; all choices are independent.

    Parameters called ``in_channels``, ``image_size``, ``input_shape`` or ``num_classes`` get these from the data.

    Args:
        code: the function, or a class.
        values: those of each parameter, by name. Those of a training hyper-parameter are not given to the function.
        input_shape: (C, H, W) of one image.
        num_classes: number of logits of the networks.

    Raises:
        SlimsearchError: the values of a parameter are no list, not unique or not plain JSON.
    """

    def __init__(
        self,
        code: Any,
        values: Mapping[str, Sequence[Any]],
        input_shape: tuple[int, ...] | Mapping[str, tuple[int, ...]],
        num_classes: int,
    ) -> None:
        super().__init__(code, input_shape, num_classes)
        self._values = {str(label): listed for label, listed in values.items()}
        self._ask(Trial({}))  # checks the values

    @classmethod
    def of(
        cls, values: Any, build: Any, input_shape: tuple[int, ...] | Mapping[str, tuple[int, ...]], num_classes: int
    ) -> ParameterSpace:
        """The networks that `build` makes of a dict from label to values.

        Raises:
            SlimsearchError: one of the two is missing, or of another type.
        """
        if build is None:
            raise SlimsearchError("a dict of choices needs build=..., a function that makes the network of its values")
        if not isinstance(values, Mapping):
            raise SlimsearchError(f"build=... makes the networks of a dict of choices, and the space is {values!r}")
        if not callable(build):
            raise SlimsearchError(f"build={build!r} is not a function")
        return cls(build, values, input_shape, num_classes)

    def _answered(self, trial: Trial) -> Any:
        given = self._ask(trial)
        return self.code(**{**self._offered(inspect.signature(self.code).parameters), **given})

    def _ask(self, trial: Trial) -> dict[str, Any]:
        answers = {label: trial.suggest_categorical(label, listed) for label, listed in self._values.items()}
        return {label: answers[label] for label in answers if label not in HYPERPARAMETER_OF}

    def _find_choices(self) -> Conditions:
        trial = Trial({})
        self._ask(trial)
        self._hyperparameters = {label: c for label, c in trial.asked.items() if label in HYPERPARAMETER_OF}
        return Conditions(self._asked_at, (c for label, c in trial.asked.items() if label not in HYPERPARAMETER_OF))


def annotated_values(code: Any) -> dict[str, tuple[Any, ...]]:
    """The values of each parameter of a function or class that is annotated with them: ``width: Literal[8, 16, 32]``.

    Raises:
        SlimsearchError: the annotations cannot be resolved.
    """
    function = code.__init__ if inspect.isclass(code) else code
    try:
        hints = typing.get_type_hints(getattr(function, "func", function))
    except Exception as error:  # annotations are any code
        raise SlimsearchError(
            f"the annotations of '{name_of(code)}' cannot be read: {describe_error(error)}"
        ) from error
    return {name: typing.get_args(hint) for name, hint in hints.items() if typing.get_origin(hint) is Literal}
