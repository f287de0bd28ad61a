"""Schedulers (how many epochs each trial is trained), one algorithm per file."""

from __future__ import annotations

import inspect
import re
from typing import Any

from slimsearch.errors import SlimsearchError, describe_error, did_you_mean
from slimsearch.names import load_class
from slimsearch.reading import yaml_value
from slimsearch.strategies.schedulers._cohorts import Cohorts
from slimsearch.strategies.schedulers._combined import Combined, combine
from slimsearch.strategies.schedulers._rungs import epsilon_net, order
from slimsearch.strategies.schedulers._scheduler import Decision, Exploiting, Scheduler, TrialProgress

__all__ = [
    "Combined",
    "Decision",
    "Exploiting",
    "Scheduler",
    "TrialProgress",
    "combine",
    "compares_groups",
    "epsilon_net",
    "load_scheduler",
    "order",
]  # fmt: skip

_JOINED = re.compile(r"\+(?!\d)")  # not that of a number such as 1e+3
_METHODS = ("after_epoch", "resume", "may_begin")


def load_scheduler(text: str, **options: Any) -> Scheduler:
    """The scheduler that `text` stands for.

    Args:
        text: a name with its options, ``asha:eta=3:min_epochs=1``; several joined by ``+``, ``asha+dominated``; "none"
            for `Full`. A name is that of a built-in, ``path/to/file.py:Class`` or ``package.module:Class``.
        options: defaults for the options of each scheduler in `text`.

    Raises:
        SlimsearchError: an unknown name or option, a wrong value, or two that cannot be combined.
    """
    parsed = [_parse(word) for word in _JOINED.split(text)]
    classes = [_class(name) for name, _ in parsed]
    known = [_options(found) for found in classes]
    for option in options:
        if not any(option in own for own in known):
            every = sorted({option for own in known for option in own})
            raise SlimsearchError(f"scheduler '{text}' has no option '{option}'; {_listed(every)}")
    return combine(*(
        _make(name, found, {**{o: v for o, v in options.items() if o in own}, **given})
        for (name, given), found, own in zip(parsed, classes, known, strict=True)
    ))  # fmt: skip


def compares_groups(scheduler: Scheduler) -> bool:
    """Whether a scheduler compares groups of a fixed size, in which every trial trains a network."""
    leader = scheduler.leader if isinstance(scheduler, Combined) else scheduler
    return isinstance(leader, Cohorts | Exploiting)


def _parse(text: str) -> tuple[str, dict[str, Any]]:
    """The name and the options of one scheduler."""
    name, *pieces = (piece.strip() for piece in text.split(":"))
    if pieces and "=" not in pieces[0] and ("." in name or "/" in name):  # path/to/file.py:Class, package.module:Class
        name = f"{name}:{pieces.pop(0)}"
    options: dict[str, Any] = {}
    for piece in pieces:
        label, equals, value = (word.strip() for word in piece.partition("="))
        if not equals:
            raise SlimsearchError(f"option '{piece}' of scheduler '{name}' is not of the form name=value")
        try:
            options[label.replace("-", "_")] = yaml_value(value)
        except SlimsearchError:
            raise SlimsearchError(f"option '{label}' of scheduler '{name}': cannot read '{value}'") from None
    return name, options


def _class(name: str) -> type[Any]:
    known = name if ":" in name else name.lower().replace("-", "_")
    found = load_class("scheduler", known, "slimsearch.strategies.schedulers")
    missing = [method for method in _METHODS if not callable(getattr(found, method, None))]
    if missing:
        raise SlimsearchError(f"scheduler '{name}' has no method {', '.join(missing)}")
    return found


def _options(found: type[Any]) -> list[str]:
    parameters = inspect.signature(found).parameters.values()
    return [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]


def _make(name: str, found: type[Any], options: dict[str, Any]) -> Scheduler:
    known = _options(found)
    for option in options:
        if option not in known:
            similar = did_you_mean(option, known)
            raise SlimsearchError(f"scheduler '{name}' has no option '{option}'; {_listed(known)}{similar}")
    try:
        return found(**options)  # type: ignore[no-any-return]
    except SlimsearchError as error:
        raise SlimsearchError(f"scheduler '{name}': {error}") from None
    except Exception as error:  # a user's class may raise anything
        raise SlimsearchError(f"scheduler '{name}' with {options}: {describe_error(error)}") from error


def _listed(options: list[str]) -> str:
    return f"it has {', '.join(options)}" if options else "it has none"
