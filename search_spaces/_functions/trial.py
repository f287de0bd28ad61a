"""The trial that a function ``define(trial)`` asks for its choices, with the methods of Optuna's trials."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from slimsearch.errors import SlimsearchError
from slimsearch.search_spaces._space import Choice

# Values of a range that is not listed: evenly spaced, or evenly spaced in the logarithm.
_EVEN, _LOGARITHMIC = 11, 13
_DIGITS = 3  # significant digits of these values
_MOST = 1000  # values of a range that is listed


class Trial:
    """Answers one call of ``define(trial)``, and remembers what was asked for.

    The methods are those of `optuna.trial.Trial`. As a space has finitely many points, a range becomes a list of
    values, see `suggest_int` and `suggest_float`.

    Args:
        answers: label to value; the answer to another label is its first value.

    Attributes:
        asked: the choices that were asked for, by label, in order.
    """

    def __init__(self, answers: Mapping[str, Any]) -> None:
        self._answers = answers
        self._given: dict[str, Any] = {}
        self.asked: dict[str, Choice] = {}

    @property
    def params(self) -> dict[str, Any]:
        """Label to value of what was asked for until now."""
        return dict(self._given)

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """One of `choices`, which are plain JSON: numbers, text, None, or lists of these."""
        if isinstance(choices, str | bytes | Mapping) or not hasattr(choices, "__iter__"):
            raise SlimsearchError(f"choice '{name}' needs a list of values, not {choices!r}")
        return self._answer(name, list(choices))

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """A whole number from `low` to `high`, both included.

        With `log`, a range of more than 13 numbers becomes 13 of them, evenly spaced in the logarithm.
        """
        for bound, value in (("low", low), ("high", high), ("step", step)):
            if not isinstance(value, int) or isinstance(value, bool):
                raise SlimsearchError(f"choice '{name}': {bound} {value!r} is not a whole number")
        self._check_range(name, low, high, step, log)
        if log and step != 1:
            raise SlimsearchError(f"choice '{name}': log and step exclude each other")
        if log and high - low >= _LOGARITHMIC:
            values = sorted({round(value) for value in _logarithmic(low, high)})
        else:
            self._check_count(name, (high - low) // step + 1)
            values = list(range(low, high + 1, step))
        answer: int = self._answer(name, values)
        return answer

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """A number from `low` to `high`, both included, in steps of `step`.

        Without `step`, one of 11 evenly spaced numbers; with `log`, of 13 that are evenly spaced in the logarithm. They
        have three significant digits, except for `low` and `high`.
        """
        for bound, value in (("low", low), ("high", high), ("step", 1.0 if step is None else step)):
            if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
                raise SlimsearchError(f"choice '{name}': {bound} {value!r} is not a finite number")
        low, high = float(low), float(high)
        self._check_range(name, low, high, 1.0 if step is None else step, log)
        if log and step is not None:
            raise SlimsearchError(f"choice '{name}': log and step exclude each other")
        if step is not None:
            count = int((high - low) / step + 1e-9) + 1
            self._check_count(name, count)
            values = [float(f"{low + number * step:.12g}") for number in range(count)]
        elif log:
            values = _logarithmic(low, high)
        else:
            values = [low + (high - low) * number / (_EVEN - 1) for number in range(_EVEN)]
        if step is None:
            middle = (float(f"{value:.{_DIGITS}g}") for value in values[1:-1])
            values = sorted({low, *(value for value in middle if low < value < high), high})
        answer: float = self._answer(name, values)
        return answer

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise SlimsearchError(
            f"trial has no '{name}': define(trial) returns a network, and asks by suggest_categorical, suggest_int and "
            "suggest_float; it is trained and judged afterwards"
        )

    def _answer(self, name: str, values: list[Any]) -> Any:
        if not isinstance(name, str) or not name:
            raise SlimsearchError(f"the label of a choice is a text that is not empty, not {name!r}")
        choice = _choice(name, values)
        before = self.asked.setdefault(name, choice)
        check_same(before, choice)
        given = self._answers[name] if name in self._answers else choice.values[0]
        answer = values[choice.index(given)]  # as the user wrote it: a tuple, where JSON has a list
        self._given[name] = answer
        return answer

    def _check_range(self, name: str, low: float, high: float, step: float, log: bool) -> None:
        if low > high:
            raise SlimsearchError(f"choice '{name}': low {low} is above high {high}")
        if not step > 0:
            raise SlimsearchError(f"choice '{name}': step {step} is not above 0")
        if log and not low > 0:
            raise SlimsearchError(f"choice '{name}': low {low} is not above 0, as log needs")

    def _check_count(self, name: str, count: int) -> None:
        if count > _MOST:
            raise SlimsearchError(
                f"choice '{name}' has {count:,} values, more than {_MOST:,}: give a larger step, or log"
            )


def check_same(one: Choice, other: Choice) -> None:
    """Check that a label stands for the same values wherever it is asked for.

    Raises:
        SlimsearchError: the values differ.
    """
    if one.texts != other.texts:
        first, second = (f"{', '.join(texts[:6])}{', ...' * (len(texts) > 6)}" for texts in (one.texts, other.texts))
        raise SlimsearchError(
            f"choice '{one.label}' is asked for with different values, {first} and {second}: give each its own label"
        )


def _choice(name: str, values: list[Any]) -> Choice:
    try:
        plain = json.loads(json.dumps(values, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise SlimsearchError(
            f"choice '{name}': {error}; values are plain JSON: choose among names, and look up what they stand for"
        ) from None
    return Choice(name, tuple(plain))


def _logarithmic(low: float, high: float) -> list[float]:
    ratio = high / low
    return [low * ratio ** (number / (_LOGARITHMIC - 1)) for number in range(_LOGARITHMIC)]
