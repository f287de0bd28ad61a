"""Arguments of the public functions that are of another kind than needed: one line says which."""

from __future__ import annotations

import functools
import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

import slimsearch
from slimsearch.evaluators.datasets import Dataset

ODD = [None, 5, 1.5, True, "missing", Path("missing"), b"x", [1], {"a": 1}, object(), np.zeros(2), nn.ReLU(), int]
FITTING = {"bool": bool, "str": str, "str | Path": (str, Path), "str | Path | Compressed": (str, Path)}
FUNCTIONS = [name for name in slimsearch.__all__ if inspect.isfunction(getattr(slimsearch, name))]


@functools.cache
def digits() -> Dataset:
    return slimsearch.load_dataset("digits")


def odd_arguments() -> list[tuple[str, str, Any]]:
    """Functions, names of arguments, and values that are of another kind."""
    found = []
    for function in FUNCTIONS:
        for name, parameter in inspect.signature(getattr(slimsearch, function)).parameters.items():
            kind = str(parameter.annotation)
            plain = kind.removesuffix(" | None")
            if plain in FITTING or plain in ("Dataset", "Split"):
                values = [value for value in ODD if not isinstance(value, FITTING.get(plain, ()))]
                found += [(function, name, value) for value in values if value is not None or plain == kind]
    return found


@pytest.mark.parametrize(("function", "name", "value"), odd_arguments())
def test_another_kind_of_argument_is_one_line(function: str, name: str, value: Any) -> None:
    call = getattr(slimsearch, function)
    needed = [
        known
        for known, parameter in inspect.signature(call).parameters.items()
        if parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD
    ]
    # The first wrong argument is named, so that those before it are right.
    fits = {"model": "m.onnx", "dataset": digits(), "run_dir": "r", "kind": "front", "path": "p"}
    with pytest.raises(slimsearch.SlimsearchError) as caught:
        call(**{known: fits.get(known, digits().validation) for known in needed} | {name: value})
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{name} is ")
    assert "needed" in line


def test_a_result_of_compress_is_measured_like_its_file(tmp_path: Path) -> None:
    data = digits()
    network = slimsearch.train(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), data, epochs=1)
    found = slimsearch.compress(network, "quantize", data, run_dir=tmp_path / "run", show=False)
    assert slimsearch.accuracy(found, data, data.validation) == slimsearch.accuracy(found.path, data, data.validation)
