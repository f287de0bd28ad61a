"""Data sets in NumPy files: an .npz file, or a folder of .npy files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators.datasets._array_on_disk import (
    ArrayOnDisk,
    array_in_archive,
    array_in_file,
    described_damage,
)
from slimsearch.evaluators.datasets._dataset import Array

_SPLITS = {"training": "", "validation": "_val", "test": "_test"}  # endings of the names of arrays
_GROUPS = "groups"
_KNOWN = frozenset((*(f"{letter}{ending}" for letter in "xy" for ending in _SPLITS.values()), _GROUPS))
_EXPECTED = "needed: arrays x and y, and for splits of your own x_val and y_val, x_test and y_test"


def is_array_file(path: Path) -> bool:
    """Whether a path is an .npz file or a folder with ``x.npy``."""
    return path.suffix.lower() == ".npz" if path.is_file() else (path / "x.npy").is_file()


def read_array_file(path: Path) -> tuple[dict[str, tuple[Array | ArrayOnDisk, Array]], Array | None]:
    """Inputs and targets of each split, and the groups of the training examples if there are some.

    Large inputs are not read yet.

    Args:
        path: an .npz file with ``x`` and ``y``, and where there are such splits ``x_val`` and ``y_val``, ``x_test`` and
            ``y_test``; and where examples belong together ``groups``. Or a folder of .npy files of these names.

    Raises:
        SlimsearchError: arrays are missing, cannot be read or hold Python objects, which are never unpickled.
    """
    arrays = _arrays(path, on_disk=True)
    found: dict[str, tuple[Array | ArrayOnDisk, Array]] = {}
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
    arrays = _arrays(path, on_disk=False)
    if "x" not in arrays:
        raise SlimsearchError(f"'{path}' has no array x")
    found: Array = arrays["x"]
    return found


def read_named_inputs(path: Path, names: Sequence[str]) -> dict[str, Array]:
    """New examples of several inputs: the arrays of these names in an .npz file, as far as it has them.

    Raises:
        SlimsearchError: it cannot be read, or holds Python objects, which are never unpickled.
    """
    archive = _loaded(path)
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise SlimsearchError(
            f"'{path}' is not an .npz file with the arrays {', '.join(names)}: save it with numpy.savez"
        )
    with archive, described_damage(path):
        return {name: archive[name] for name in names if name in archive.files}


def _arrays(path: Path, *, on_disk: bool) -> dict[str, Any]:
    """The arrays of known names, in lower case.

    Args:
        path: the file or folder.
        on_disk: whether large inputs are left on disk.
    """
    found: dict[str, Any] = {}
    if path.is_dir():
        for file in sorted(path.glob("*.npy")):
            if (name := file.stem.lower()) in _KNOWN:
                large = array_in_file(file) if on_disk and name.startswith("x") else None
                found[name] = _array(file) if large is None else large
        return found
    archive = _loaded(path)
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise SlimsearchError(f"'{path}' is not an .npz file: save it with numpy.savez")
    with archive, described_damage(path):
        for name in archive.files:
            if name.lower() in _KNOWN:
                large = None
                if on_disk and name.lower().startswith("x") and archive.zip is not None:
                    large = array_in_archive(path, archive.zip, name)
                found[name.lower()] = archive[name] if large is None else large
    return found


def _array(path: Path) -> Array:
    found = _loaded(path)
    if not isinstance(found, np.ndarray):
        raise SlimsearchError(f"'{path}' is not an .npy file: save it with numpy.save")
    return found


def _loaded(path: Path) -> Any:
    with described_damage(path):
        return np.load(path, allow_pickle=False)
