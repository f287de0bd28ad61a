"""Data sets in NumPy files: an .npz file, or a folder of .npy files."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from slimsearch.errors import SlimsearchError, first_line
from slimsearch.evaluators.datasets._dataset import Array

_SPLITS = {"training": "", "validation": "_val", "test": "_test"}  # endings of the names of arrays
_GROUPS = "groups"
_KNOWN = frozenset((*(f"{letter}{ending}" for letter in "xy" for ending in _SPLITS.values()), _GROUPS))
_EXPECTED = "needed: arrays x and y, and for splits of your own x_val and y_val, x_test and y_test"


def is_array_file(path: Path) -> bool:
    """Whether a path is an .npz file or a folder with ``x.npy``."""
    return path.suffix.lower() == ".npz" if path.is_file() else (path / "x.npy").is_file()


def read_array_file(path: Path) -> tuple[dict[str, tuple[Array, Array]], Array | None]:
    """Inputs and targets of each split, and the groups of the training examples if there are some.

    Args:
        path: an .npz file with ``x`` and ``y``, and where there are such splits ``x_val`` and ``y_val``, ``x_test`` and
            ``y_test``; and where examples belong together ``groups``. Or a folder of .npy files of these names.

    Raises:
        SlimsearchError: arrays are missing, cannot be read or hold Python objects, which are never unpickled.
    """
    arrays = _arrays(path)
    found = {}
    for part, ending in _SPLITS.items():
        pair = [name in arrays for name in (f"x{ending}", f"y{ending}")]
        if any(pair) or part == "training":
            if not all(pair):
                listed = ", ".join(sorted(arrays)) or "none of these"
                raise SlimsearchError(f"data set '{path}' has {listed}; {_EXPECTED}")
            found[part] = (arrays[f"x{ending}"], arrays[f"y{ending}"])
    return found, arrays.get(_GROUPS)


def read_inputs(path: Path) -> Array:
    """New examples for a prediction: the array of an .npy file, or ``x`` of an .npz file.

    Raises:
        SlimsearchError: there is none, it cannot be read, or holds Python objects, which are never unpickled.
    """
    if path.suffix.lower() == ".npy":
        return _array(path)
    arrays = _arrays(path)
    if "x" not in arrays:
        raise SlimsearchError(f"'{path}' has no array x")
    return arrays["x"]


def _arrays(path: Path) -> dict[str, Array]:
    """The arrays of known names, in lower case."""
    if path.is_dir():
        files = [file for file in path.glob("*.npy") if file.stem.lower() in _KNOWN]
        return {file.stem.lower(): _array(file) for file in files}
    found = _loaded(path)
    if not isinstance(found, np.lib.npyio.NpzFile):
        raise SlimsearchError(f"'{path}' is no .npz file: save it with numpy.savez")
    with found:
        return {name.lower(): _member(path, found, name) for name in found.files if name.lower() in _KNOWN}


def _array(path: Path) -> Array:
    found = _loaded(path)
    if not isinstance(found, np.ndarray):
        raise SlimsearchError(f"'{path}' is no .npy file: save it with numpy.save")
    return found


def _loaded(path: Path) -> Any:
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise _unreadable(path, error) from error


def _member(path: Path, archive: Any, name: str) -> Array:
    try:
        found: Array = archive[name]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise _unreadable(path, error) from error
    return found


def _unreadable(path: Path, error: Exception) -> SlimsearchError:
    if "pickle" in str(error).lower():
        return SlimsearchError(f"'{path}' holds Python objects, which are not read: save arrays of numbers or texts")
    return SlimsearchError(f"cannot read '{path}': {first_line(error)}")
