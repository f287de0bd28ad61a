"""The import contract that keeps private modules private: no package imports another package's ``_module``."""

from __future__ import annotations

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, output


class PrivateImports(Contract):
    """A module below ``slimsearch.a`` or ``experiments`` imports no module of another of them that has a ``_`` name."""

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        found = [
            (importer, imported)
            for imported in sorted(graph.modules)
            if (package := _private_to(imported)) is not None
            for importer in sorted(graph.find_modules_that_directly_import(imported))
            if importer != package and not importer.startswith(f"{package}.")
        ]
        return ContractCheck(kept=not found, metadata={"found": found})

    def render_broken_contract(self, check: ContractCheck) -> None:
        for importer, imported in check.metadata["found"]:
            output.print_error(f"{importer} imports {imported}")


def _private_to(module: str) -> str | None:
    """The package that alone may import `module`; None: anything may."""
    names = module.split(".")
    depth = 2 if names[0] == "slimsearch" else 1
    return ".".join(names[:depth]) if any(name.startswith("_") for name in names[depth:]) else None
