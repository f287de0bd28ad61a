"""The trained network behind a file of a run, built and loaded without what was pickled by anybody."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from slimsearch.compression import Network
from slimsearch.errors import SlimsearchError
from slimsearch.names import no_code_from
from slimsearch.options.configuration import Configuration
from slimsearch.reading import mismatch, read_json
from slimsearch.search_spaces import ModelSpace


def stored_network(folder: Path, model: Mapping[str, Any], *, space: Any = None) -> Network:
    """The network of an entry of ``top_models.json``; of an int8 file the float32 network that was quantized.

    Args:
        folder: the run directory.
        model: the entry.
        space: an NNI class, where the run was begun with one from Python.

    Raises:
        SlimsearchError: it cannot be built or loaded.
    """
    environment = read_json(folder / "environment.json")
    for given, wanted, what in (
        (environment, {"dataset": {"input_shape": [int], "classes": str}}, f"'{folder / 'environment.json'}'"),
        (model, {"architecture": dict, "artifact": str}, "an entry of top_models.json"),
    ):
        wrong = mismatch(given, wanted)
        if wrong is not None:
            raise SlimsearchError(f"{what} is damaged: {wrong}")
    file = (folder / model["artifact"]).resolve()
    if not file.is_relative_to(folder.resolve()):
        raise SlimsearchError(f"'{model['artifact']}' is not in '{folder}'")
    data = environment["dataset"]
    try:
        classes = len(json.loads(data["classes"]))
    except (ValueError, TypeError, RecursionError) as error:
        raise SlimsearchError(f"'{folder / 'environment.json'}' is damaged: its classes are no list") from error
    with no_code_from(folder):
        named = Configuration.read(folder / "config.yaml").space if space is None else space
        shape = tuple(data["input_shape"])
        made = ModelSpace.load(named, shape, classes) if isinstance(named, str) else ModelSpace(named, shape, classes)
        fresh = made.build(model["architecture"])
    return Network.load(fresh, file.parent)
