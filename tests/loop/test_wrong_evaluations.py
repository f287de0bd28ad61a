"""Evaluations that raise or return anything: each is the end of its own trial, and the run goes on and resumes."""

from __future__ import annotations

import asyncio
import itertools
import os
import resource
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import slimsearch
from slimsearch.errors import describe_error, related_errors
from slimsearch.evaluators import Outcome

FINE = {"loss": 1.0}


class Unspeakable(Exception):
    """Fails to describe itself, and to be pickled."""

    def __str__(self) -> str:
        raise SystemExit

    __repr__ = __str__

    def __reduce__(self) -> Any:
        raise self


class Endless(Exception):
    """Has another cause whenever it is asked."""

    @property
    def __cause__(self) -> BaseException:  # type: ignore[override]
        return Endless()


def cyclic() -> BaseException:
    first, second = ValueError("first"), KeyError("second")
    first.__cause__, second.__context__ = second, first
    return first


def own_cause() -> BaseException:
    error = ValueError("its own cause")
    error.__cause__ = error.__context__ = error
    return error


def long() -> BaseException:
    error = ValueError("0")
    for number in range(1, 5000):
        following = ValueError(str(number))
        following.__context__, error = error, following
    return error


def group() -> BaseException:
    inner = ValueError("inner")
    found = BaseExceptionGroup("group", [inner, KeyboardInterrupt()])
    inner.__cause__ = found
    return found


RAISED = {
    "cyclic": cyclic, "own cause": own_cause, "long": long, "group": group, "unspeakable": Unspeakable,
    "endless": Endless, "exit": lambda: SystemExit(3), "generator": GeneratorExit, "interrupt": KeyboardInterrupt,
    "cancelled": asyncio.CancelledError, "control": lambda: ValueError("\x1b[2J\ud800\0"),
    "lines": lambda: ValueError("x" * 10**6), "stop": StopIteration,
}  # fmt: skip
RETURNED = {
    "omitted": {"other": 1.0}, "empty": {}, "none": None, "no number": {"loss": None}, "nan": {"loss": float("nan")},
    "infinite": {"loss": np.inf}, "text": {"loss": "0.5"}, "tensor": {"loss": torch.ones(2)}, "list": [1.0],
    "complex": {"loss": 1j}, "outcome": Outcome({"loss": 1.0}), "shaped": {"loss": np.ones((2, 2))},
    "half a pair": {"loss": 1.0, "\ud800": 1.0}, "control name": {"loss": 1.0, "\x1b[2J": 1.0},
}  # fmt: skip
WELL = {"well": FINE, "tensor of one": {"loss": torch.ones(1)}, "truth": {"loss": True}, "also well": FINE}


def evaluate(candidate: Mapping[str, str], report: Any) -> Any:
    """What `candidate` names."""
    what = candidate["what"]
    if what in RAISED:
        raise RAISED[what]()
    if what == "reported":
        report(1, {"loss": "low"})
    if what == "files":
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        evaluate.kept = [os.open(os.devnull, os.O_RDONLY) for _ in itertools.count()]  # type: ignore[attr-defined]
    return {**RETURNED, **WELL}[what]


def test_each_is_the_end_of_its_trial_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    what = [*itertools.chain(*itertools.zip_longest(WELL, RAISED, RETURNED)), "reported", "files"]
    space = {"what": [name for name in what if name is not None]}
    options: Any = {"objectives": "loss:min", "trials": 100, "sampler": "grid", "run_dir": "run", "workers": 2}
    result = slimsearch.search(space, evaluate=evaluate, **options)
    states = {trial.candidate.architecture["what"]: trial.state for trial in result.trials}
    assert states == {name: "complete" if name in WELL else "failed" for name in space["what"]}
    errors = {trial.candidate.architecture["what"]: trial.error or "" for trial in result.trials}
    assert all(error.isprintable() and len(error) < 600 for error in errors.values())
    assert "'loss' is not among the recorded metrics: other" in errors["omitted"]
    assert errors["cyclic"] == "ValueError: first"
    assert "Too many open files" in errors["files"]
    again = slimsearch.resume("run", evaluate=evaluate, space=space)
    assert [(t.state, t.error, t.metrics) for t in again.trials] == [
        (t.state, t.error, t.metrics) for t in result.trials
    ]


@settings(deadline=None)
@given(st.integers(1, 8), st.data())
def test_chains_of_any_shape_end(count: int, data: st.DataObject) -> None:
    errors: list[BaseException] = [ValueError(str(number)) for number in range(count)]
    position = st.integers(0, count - 1)
    for _ in range(data.draw(st.integers(0, 3))):
        members = data.draw(st.lists(position, min_size=1, max_size=4))
        errors.append(BaseExceptionGroup("group", [errors[number] for number in members]))
    reachable: dict[int, set[int]] = {
        n: {errors.index(e) for e in getattr(one, "exceptions", ())} for n, one in enumerate(errors)
    }
    any_position = st.integers(0, len(errors) - 1)
    for number, error in enumerate(errors):
        for name in data.draw(st.sets(st.sampled_from(["__cause__", "__context__"]))):
            other = data.draw(any_position)
            setattr(error, name, errors[other])
            reachable[number].add(other)
    expected, before = {0}, set()
    while expected != before:
        before = set(expected)
        expected |= {other for number in before for other in reachable[number]}
    found = [errors.index(error) for error in related_errors(errors[0])]
    assert found[0] == 0
    assert sorted(found) == sorted(expected)


@given(st.text())
def test_descriptions_are_one_line_that_prints(text: str) -> None:
    line = describe_error(ValueError(text))
    assert line.startswith("ValueError")
    assert line.isprintable()
