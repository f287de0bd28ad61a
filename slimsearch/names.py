"""Finding a class by the name a user writes: a built-in's file name, a path to a file, or a module.

A built-in is a module of one of the packages whose name has no leading underscore. It is found with
``pkgutil`` and imported only when chosen, so that listing the names costs nothing.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import importlib.util
import inspect
import pkgutil
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from types import ModuleType
from typing import Any

from slimsearch.errors import SlimsearchError, describe_error

# Version 0.1 installed these packages under names of their own, which configurations of its runs may hold.
_MOVED = {
    "compression.importances": "slimsearch.compression.pruning.importances",
    "compression.schedules": "slimsearch.compression.pruning.schedules",
    "compression": "slimsearch.compression",
    "evaluators": "slimsearch.evaluators",
    "experiments.loggers": "slimsearch.report.loggers",
    "search_spaces": "slimsearch.search_spaces",
    "strategies": "slimsearch.strategies",
}

_data_only: ContextVar[Path | None] = ContextVar("_data_only", default=None)


@contextlib.contextmanager
def no_code_from(folder: Path) -> Iterator[None]:
    """Have names taken from a run directory, which anybody may have written: none of what lies in it is run.

    Inside, a file is named by its whole path and is elsewhere, and a module is one that Python would find anyway: the
    current folder, which may be where somebody's run directory was unpacked, is not searched for it.
    """
    token = _data_only.set(folder.resolve())
    try:
        yield
    finally:
        _data_only.reset(token)


def built_in_names(package: str) -> list[str]:
    """Names of the built-ins in `package`, sorted, without importing any of them."""
    return list(_built_in_names(package))


@functools.cache  # recipes are made again for each point that a sampler looks at
def _built_in_names(package: str) -> tuple[str, ...]:
    root, *folders = package.split(".")
    spec = importlib.util.find_spec(root)  # imports nothing; that of a package in another imports the other
    if spec is None or spec.submodule_search_locations is None:
        return ()
    modules = pkgutil.iter_modules([str(Path(place, *folders)) for place in spec.submodule_search_locations])
    return tuple(sorted(module.name for module in modules if not module.name.startswith("_") and not module.ispkg))


def load_class(kind: str, name: str, package: str) -> type[Any]:
    """The class that `name` stands for.

    Args:
        kind: what is looked for, for the error message ("space", "sampler", ...).
        name: a built-in of `package`, ``path/to/file.py:Class`` or ``package.module:Class``.
        package: where the built-ins of this kind live.

    Raises:
        SlimsearchError: nothing has that name; the line lists what there is.
    """
    if ":" in name:
        named: type[Any] = _attribute(kind, name)
        return named
    known = built_in_names(package)
    module_name = name.replace("-", "_")
    if module_name not in known:
        raise SlimsearchError(f"unknown {kind} '{name}'; known: {', '.join(known)}, or path/to/file.py:ClassName")
    module = importlib.import_module(f"{package}.{module_name}")
    wanted = module_name.replace("_", "")
    for member in vars(module).values():
        if inspect.isclass(member) and member.__module__ == module.__name__ and member.__name__.lower() == wanted:
            found: type[Any] = member
            return found
    raise SlimsearchError(f"{module.__name__} has no class called like its file")


def load_function(kind: str, name: str) -> Any:
    """The function or object behind ``path/to/file.py:name`` or ``package.module:name``."""
    if ":" not in name:
        raise SlimsearchError(f"{kind} '{name}' is not of the form path/to/file.py:name or package.module:name")
    return _attribute(kind, name, any_object=True)


def absolute(name: str) -> str:
    """`name` with the path of a ``path/to/file.py:Class`` made absolute, so that it means the same elsewhere."""
    path, colon, attribute = name.rpartition(":")
    return f"{Path(path).expanduser().resolve()}:{attribute}" if colon and path.endswith(".py") else name


def _attribute(kind: str, name: str, any_object: bool = False) -> Any:
    location, _, attribute = name.rpartition(":")
    module = _module_from_file(kind, Path(location)) if location.endswith(".py") else _module(kind, location)
    if not hasattr(module, attribute):
        wanted = callable if any_object else inspect.isclass
        own = [n for n, v in vars(module).items() if wanted(v) and getattr(v, "__module__", "") == module.__name__]
        kinds = "functions" if any_object else "classes"
        raise SlimsearchError(f"{location} has no '{attribute}'; its {kinds}: {', '.join(own) or 'none'}")
    found = getattr(module, attribute)
    if not any_object and not inspect.isclass(found):
        raise SlimsearchError(f"{kind} '{name}' is a {type(found).__name__}, not a class")
    return found


def _module(kind: str, location: str) -> ModuleType:
    data = _data_only.get()
    if data is None and str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # as for python -m
    location = _current_name(location)
    if data is not None:
        _refuse_module_in(data, kind, location)
    try:
        return importlib.import_module(location)
    except Exception as error:  # a user's module may raise anything while it is imported
        raise SlimsearchError(f"{kind}: cannot import '{location}': {describe_error(error)}") from error


def _current_name(location: str) -> str:
    """The name that a module of an old version has today, unless a package of the user's has a module of that name."""
    old = next((name for name in _MOVED if f"{location}.".startswith(f"{name}.")), None)
    if old is None:
        return location
    package, _, rest = location.partition(".")
    try:
        spec = importlib.util.find_spec(package)  # of a package itself: runs nothing
    except (ImportError, ValueError):
        spec = None
    ours = Path(__file__).parent
    for folder in map(Path, (spec.submodule_search_locations or ()) if spec is not None else ()):
        module = folder.joinpath(*rest.split("."))
        if (module.is_dir() or module.with_suffix(".py").is_file()) and folder.resolve() != (ours / package).resolve():
            return location
    return _MOVED[old] + location.removeprefix(old)


def _refuse_module_in(data: Path, kind: str, location: str) -> None:
    package = location.partition(".")[0]
    try:
        spec = importlib.util.find_spec(package) if package else None  # of a package itself: runs nothing
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        raise SlimsearchError(
            f"{kind}: no module '{package}' is installed; where a run is resumed, the current folder is not searched "
            "for it: name the folder in PYTHONPATH"
        )
    places = [Path(place).resolve() for place in (spec.origin, *(spec.submodule_search_locations or ())) if place]
    if any(place.is_relative_to(data) for place in places):
        raise SlimsearchError(f"{kind}: module '{location}' lies in '{data}': a run directory is data, and is not run")


def _module_from_file(kind: str, path: Path) -> ModuleType:
    data = _data_only.get()
    if data is not None and not path.is_absolute():
        raise SlimsearchError(f"{kind}: '{path}' is not a whole path: a run directory names no other files")
    path = path.expanduser().resolve()
    if data is not None and path.is_relative_to(data):
        raise SlimsearchError(f"{kind}: '{path}' lies in '{data}': a run directory is data, and is not run")
    if not path.is_file():
        raise SlimsearchError(f"{kind}: there is no file '{path}'")
    # The module's name is made from the path, so that two files called model.py do not replace each other.
    module_name = f"slimsearch_user_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if module_name in sys.modules:
        return sys.modules[module_name]
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise SlimsearchError(f"{kind}: '{path}' is not a Python file")
    module = importlib.util.module_from_spec(spec)
    folder = str(path.parent)
    if folder not in sys.path:
        sys.path.append(folder)  # the file's neighbours can be imported, as they could if it were run
    sys.modules[module_name] = module
    import cloudpickle

    cloudpickle.register_pickle_by_value(module)  # no other process can import it by its name
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[module_name]
        if isinstance(error, KeyboardInterrupt):
            raise
        line = _line_in(error, str(path))
        where = f"{path}, line {line}" if line else str(path)
        raise SlimsearchError(f"{kind}: {where}: {describe_error(error)}") from error
    return module


def _line_in(error: BaseException, path: str) -> int | None:
    if isinstance(error, SyntaxError):
        return error.lineno
    line = None
    traceback = error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == path:
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    return line
