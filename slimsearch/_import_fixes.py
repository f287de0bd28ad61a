"""Import hooks for two dependencies that cannot be imported as they are.

- torchvision: an ordinary build beside a CPU build of torch fails with "operator torchvision::nms does not exist", and
  takes torchmetrics, pytorch_lightning and with them `nni.nas` down. Nothing here uses torchvision's compiled
  operators: declaring their schemas, with no implementation, is enough for the import to succeed.
- typeguard: NNI requires a version before 4.1.3, which imports `ast.Str`. Python 3.14 removed that name. typeguard uses
  it on Python 3.7 only; the hook defines it as `ast.Constant` while typeguard is imported.

Each hook waits until its module is imported, so that installing the hooks imports nothing.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType
from typing import Any

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_libraries: list[Any] = []  # torch removes the declarations of a Library that is garbage-collected


class _DeclareBeforeTorchvision(MetaPathFinder):
    module = "torchvision"

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == self.module:
            sys.meta_path.remove(self)
            _declare_missing_operators()
        return None


class _LendStrToTypeguard(MetaPathFinder):
    module = "typeguard._transformer"

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path) if fullname == self.module else None
        if spec and spec.origin:
            sys.meta_path.remove(self)
            spec.loader = _WithStr(fullname, spec.origin)
        return spec


class _WithStr(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        if hasattr(ast, "Str"):
            super().exec_module(module)
            return
        vars(ast)["Str"] = ast.Constant
        try:
            super().exec_module(module)
        finally:
            del vars(ast)["Str"]


def install() -> None:
    """Install the hook of each module that is not imported yet."""
    for hook in (_DeclareBeforeTorchvision, _LendStrToTypeguard):
        if hook.module not in sys.modules and not any(isinstance(finder, hook) for finder in sys.meta_path):
            sys.meta_path.insert(0, hook())


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
            pass  # built for another torch: the reason for this hook
    declaration = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for schema in _SCHEMAS:
        if not hasattr(torch.ops.torchvision, schema.partition("(")[0]):
            declaration.define(schema)  # type: ignore[no-untyped-call]
    _libraries.append(declaration)
