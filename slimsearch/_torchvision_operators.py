"""Lets torchvision be imported where its compiled operators are missing.

An ordinary torchvision beside a CPU build of torch fails at import with "operator torchvision::nms does not
exist", and takes torchmetrics, pytorch_lightning and with them ``nni.nas`` down. Nothing here uses those
operators: declaring their schemas, with no implementation, is enough for the import to succeed.

The declaration waits until torchvision is looked for, so that installing the hook imports nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_libraries: list[Any] = []  # a torch Library takes its declarations back when it is garbage


class _DeclareBeforeTorchvision(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == "torchvision":
            sys.meta_path.remove(self)
            _declare_missing_operators()
        return None


def install() -> None:
    """Declare torchvision's missing operators when, and only if, torchvision is imported later."""
    if "torchvision" not in sys.modules and not any(
        isinstance(finder, _DeclareBeforeTorchvision) for finder in sys.meta_path
    ):
        sys.meta_path.insert(0, _DeclareBeforeTorchvision())


def _declare_missing_operators() -> None:
    from pathlib import Path

    import torch

    spec = PathFinder.find_spec("torchvision")
    folders = spec.submodule_search_locations if spec else None
    if not folders:
        return
    for library in Path(next(iter(folders))).glob("_C*.so"):
        try:
            torch.ops.load_library(str(library))  # type: ignore[no-untyped-call]
            return
        except OSError:
            pass  # built for another torch: the reason why this file exists
    declaration = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for schema in _SCHEMAS:
        if not hasattr(torch.ops.torchvision, schema.partition("(")[0]):
            declaration.define(schema)  # type: ignore[no-untyped-call]
    _libraries.append(declaration)
