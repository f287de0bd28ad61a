"""Users' source code: the files that their modules consist of, and fingerprints that formatting does not change."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import inspect
import json
import sys
import sysconfig
import textwrap
from collections.abc import Iterable, Iterator
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

_INSTALLED = ("site-packages", "dist-packages")
_PLAIN = (int, float, str, bytes, bool, tuple, list, dict, set, frozenset, type(None))


def own_files(location: str) -> dict[str, Path]:
    """The files of a user's module: its own, and those of the modules it imports that are not installed packages.

    Nothing is imported. Imports that are no import statements are not seen.

    Args:
        location: the path of a Python file, or the dotted name of a module.

    Returns:
        name of each module to its file, the given one first; the name of a file given by its path ends in ``.py``.
    """
    path = Path(location)
    found = {path.name: path} if location.endswith(".py") else _located(location)
    waiting = list(found.items())
    while waiting:
        name, file = waiting.pop()
        for imported in _imports(name, file):
            for module, its_file in _located(imported).items():
                if module not in found and its_file not in found.values():
                    found[module] = its_file
                    waiting.append((module, its_file))
    return found


def bound_names(tree: ast.Module) -> dict[str, bool] | None:
    """The names that a module binds, and whether as a class or function; None if more may be bound while it runs."""
    found: dict[str, bool] = {}
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop(0)
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if node.name == "__getattr__":
                return None
            found[node.name] = True
        elif isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                if alias.name == "*":
                    return None
                found.setdefault((alias.asname or alias.name).partition(".")[0], False)
        else:
            if isinstance(node, ast.Name):
                if node.id in ("globals", "exec", "setattr", "vars", "locals"):
                    return None
                if isinstance(node.ctx, ast.Store):
                    found.setdefault(node.id, False)
            waiting += ast.iter_child_nodes(node)
    return found


def fingerprints(locations: Iterable[str]) -> dict[str, str]:
    """A hash of each of the `own_files` of several modules, by name; see `fingerprint`."""
    files = {file: name for location in locations for name, file in own_files(location).items()}
    found: dict[str, str] = {}
    for file, name in files.items():
        free = name if name not in found else f"{file.parent.name}/{name}"
        found[free] = fingerprint(_content(file))
    return dict(sorted(found.items()))


def fingerprint(source: bytes) -> str:
    """A hash of Python code, without comments, formatting, docstrings and ``if __name__ == "__main__"``."""
    try:
        found = json.dumps(_canonical(ast.parse(source))).encode()
    except (SyntaxError, ValueError, RecursionError):
        found = source
    return hashlib.sha256(found).hexdigest()[:16]


def object_fingerprints(found: Any) -> dict[str, str]:
    """`fingerprints` of a class, function or callable object from Python; empty if its source is not known.

    Of a script or notebook, these are the class and what it refers to, as the rest has other purposes.
    """
    found = getattr(found, "func", found)  # of a functools.partial
    if not (inspect.isclass(found) or inspect.isroutine(found)):
        found = type(found)
    if getattr(found, "__module__", None) != "__main__":
        return fingerprints(_locations(found))
    sources: dict[str, str] = {}
    modules: dict[str, None] = {}
    waiting = [found]
    while waiting:
        one = waiting.pop()
        name = getattr(one, "__qualname__", type(one).__name__)
        if name in sources:
            continue
        source = _source(one)
        if source is None:
            continue
        sources[name] = fingerprint(source.encode())
        for used, value in _used(source):
            if getattr(value, "__module__", None) == "__main__" and (
                inspect.isclass(value) or inspect.isroutine(value)
            ):
                waiting.append(value)
            elif type(value) in _PLAIN:
                sources[used] = hashlib.sha256(repr(value).encode("utf-8", "replace")).hexdigest()[:16]
            else:
                modules |= dict.fromkeys(_locations(value))
    return {**fingerprints(modules), **sources}


def _locations(value: Any) -> list[str]:
    """The location of the module of an object, or of a module."""
    module = value if isinstance(value, ModuleType) else sys.modules.get(getattr(value, "__module__", None) or "")
    file = getattr(module, "__file__", None)
    if module is None or file is None or not file.endswith(".py") or not _is_own(Path(file)):
        return []
    return [module.__name__] if _located(module.__name__) else [file]


def _source(value: Any) -> str | None:
    try:
        return textwrap.dedent(inspect.getsource(value))
    except (OSError, TypeError):  # a class of a notebook has no file, but its methods have
        pass
    methods = (
        [_source(one) for one in vars(value).values() if inspect.isfunction(one)] if inspect.isclass(value) else []
    )
    return "\n".join(filter(None, methods)) or None


def _used(source: str) -> Iterator[tuple[str, Any]]:
    """The global names of ``__main__`` that `source` uses, with their values."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return
    known = vars(sys.modules["__main__"])
    for name in dict.fromkeys(node.id for node in ast.walk(tree) if isinstance(node, ast.Name)):
        if name in known:
            yield name, known[name]


def _imports(name: str, file: Path) -> Iterator[str]:
    """The dotted names that a file may import."""
    try:
        tree = ast.parse(_content(file))
    except (SyntaxError, ValueError, RecursionError):
        return
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            try:
                base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            except ImportError:  # a relative import outside a package
                continue
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _located(name: str) -> dict[str, Path]:
    """The user's files of a module and of the packages around it, by name; empty for installed ones."""
    top, *rest = name.split(".")
    if top in sys.stdlib_module_names or top == "slimsearch":
        return {}
    try:
        spec = PathFinder.find_spec(top) or importlib.util.find_spec(top)  # both import nothing
    except (ImportError, ValueError, AttributeError):
        spec = None
    if spec is None:
        return {}
    found = {top: Path(spec.origin)} if spec.origin is not None and spec.has_location else {}
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    name = top
    for part in rest:
        name = f"{name}.{part}"
        files = (path for folder in folders for path in (folder / part / "__init__.py", folder / f"{part}.py"))
        file = next((path for path in files if path.is_file()), None)
        if file is not None:
            found[name] = file
        folders = [folder / part for folder in folders if (folder / part).is_dir()]
    return {module: file.resolve() for module, file in found.items() if file.suffix == ".py" and _is_own(file)}


def _is_own(file: Path) -> bool:
    path = file.resolve()
    if any(part in _INSTALLED for part in path.parts) or path.is_relative_to(sysconfig.get_path("stdlib")):
        return False
    return not path.is_relative_to(Path(__file__).resolve().parent)


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b""


def _canonical(node: Any) -> Any:
    """A syntax tree as plain values, the same in every version of Python."""
    if isinstance(node, list):
        return [_canonical(one) for one in node if not _is_without_effect(one)]
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = {
        name: value
        for name, value in ast.iter_fields(node)
        if value not in (None, []) and name not in ("ctx", "kind", "type_comment")
    }
    return [type(node).__name__, {name: _canonical(value) for name, value in fields.items()}]


def _is_without_effect(node: Any) -> bool:
    """Whether a statement is a docstring or the part of a script that is not run when it is imported."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)
    if not isinstance(node, ast.If) or not isinstance(node.test, ast.Compare):
        return False
    return isinstance(node.test.left, ast.Name) and node.test.left.id == "__name__"
