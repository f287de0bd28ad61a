"""Classes by name: the file name of a built-in, ``path/to/file.py:Class`` or ``package.module:Class``.

Built-ins are the modules of a package whose names have no leading underscore. They are listed without being imported.
"""

from __future__ import annotations

import ast
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
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

from slimsearch.errors import SlimsearchError, describe_error, did_you_mean
from slimsearch.source import bound_names, own_files

# Top-level packages of version 0.1, which configurations of its runs may name.
_MOVED = {
    "compression.importances": "slimsearch.compression.pruning.importances",
    "compression.schedules": "slimsearch.compression.pruning.schedules",
    "compression": "slimsearch.compression",
    "evaluators": "slimsearch.evaluators",
    "experiments.loggers": "slimsearch.report.loggers",
    "search_spaces": "slimsearch.search_spaces",
    "strategies": "slimsearch.strategies",
}

# Published names of built-ins that differ from the names of their files; both are accepted.
_ALIASES = {
    "slimsearch.strategies": {"optuna": "local", "supernet": "weight_sharing"},
    "slimsearch.strategies.schedulers": {"none": "full"},
}

# Folders of users' files in `sys.path`, the latest first, and hashes of their neighbors when they were last imported.
_folders: list[str] = []
_neighbor_contents: dict[Path, bytes] = {}

_data_only: ContextVar[Path | None] = ContextVar("_data_only", default=None)


@contextlib.contextmanager
def no_code_from(folder: Path) -> Iterator[None]:
    """A context in which names come from an untrusted run directory: no code in `folder` is run.

    Files must have absolute paths outside `folder`. Modules must be installed or in PYTHONPATH: the current folder is
    not searched, as the run directory may have been unpacked there.
    """
    token = _data_only.set(folder.resolve())
    try:
        yield
    finally:
        _data_only.reset(token)


def built_in_names(package: str) -> list[str]:
    """Sorted names of the built-ins in `package`, without importing them."""
    return list(_built_in_names(package))


@functools.cache  # called for each point that a sampler considers
def _built_in_names(package: str) -> tuple[str, ...]:
    root, *folders = package.split(".")
    spec = importlib.util.find_spec(root)  # imports nothing, unlike `find_spec` of a subpackage
    if spec is None or spec.submodule_search_locations is None:
        return ()
    modules = pkgutil.iter_modules([str(Path(path, *folders)) for path in spec.submodule_search_locations])
    published = {file: name for name, file in _ALIASES.get(package, {}).items()}
    files = (module.name for module in modules if not module.name.startswith("_") and not module.ispkg)
    return tuple(sorted(published.get(file, file) for file in files))


def published(name: str, package: str) -> str:
    """The name of a built-in of `package` in its one published spelling: ``nni_darts`` for ``nni-darts``.

    Other names, such as those of a user's classes, are returned as they are.
    """
    spelled = name.replace("-", "_")
    spelled = {file: alias for alias, file in _ALIASES.get(package, {}).items()}.get(spelled, spelled)
    return spelled if spelled in _built_in_names(package) else name


def load_class(kind: str, name: str, package: str) -> type[Any]:
    """Import the class `name`.

    Args:
        kind: "space", "sampler", ..., for error messages.
        name: a built-in of `package`, ``path/to/file.py:Class`` or ``package.module:Class``.
        package: of the built-ins.

    Raises:
        SlimsearchError: there is no such class; the message lists the built-ins.
    """
    if ":" in name:
        named: type[Any] = _attribute(kind, name)
        return named
    module_name = _built_in(kind, name, package)
    module = importlib.import_module(f"{package}.{module_name}")
    wanted = module_name.replace("_", "")
    for member in vars(module).values():
        if inspect.isclass(member) and member.__module__ == module.__name__ and member.__name__.lower() == wanted:
            found: type[Any] = member
            return found
    raise SlimsearchError(f"{module.__name__} has no class named like its file")


def check_name(kind: str, name: str, package: str = "") -> None:
    """Check that `load_class` or `load_function` can find `name`, without importing anything.

    Raises:
        SlimsearchError: there is no such built-in, file or module, or the file cannot be parsed or binds no such name.
    """
    location, colon, attribute = name.rpartition(":")
    if not colon:
        _refuse_file(kind, name)
        if package:
            _built_in(kind, name, package)
        return
    if not location.endswith(".py"):
        if _data_only.get() is None:
            _check_module(kind, _current_name(location))
        return
    bound = _names_in(kind, location)
    if bound is not None and attribute not in bound:
        defined = [name for name, is_defined in bound.items() if is_defined]
        similar = did_you_mean(attribute, bound)
        raise SlimsearchError(
            f"{location} has no '{attribute}'; its classes and functions: {', '.join(defined) or 'none'}{similar}"
        )


def _names_in(kind: str, location: str) -> dict[str, bool] | None:
    """The `bound_names` of a user's file, which is not run."""
    path = _file(kind, Path(location))
    try:
        return bound_names(ast.parse(path.read_bytes()))
    except (OSError, ValueError, SyntaxError, RecursionError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
        raise SlimsearchError(f"{kind}: {path}{line}: {describe_error(error)}") from error


def _built_in(kind: str, name: str, package: str) -> str:
    """The module of a built-in in `package`."""
    known, aliases = built_in_names(package), _ALIASES.get(package, {})
    module_name = name.replace("-", "_")
    module_name = aliases.get(module_name, module_name)
    _refuse_file(kind, name)
    if module_name not in known and module_name not in aliases.values():
        similar = did_you_mean(name, known)
        raise SlimsearchError(f"unknown {kind} '{name}'; known: {', '.join(known)}, or path/to/file.py:name{similar}")
    return module_name


def _refuse_file(kind: str, name: str) -> None:
    if not name.endswith(".py"):
        return
    defined = [own for own, is_defined in (_names_in(kind, name) or {}).items() if is_defined]
    raise SlimsearchError(
        f"{kind} '{name}' is a file: add the name of a class or function in it, as in {name}:"
        + (defined[0] if len(defined) == 1 else f"NAME; it has {', '.join(defined) or 'none'}")
    )


def _check_module(kind: str, location: str) -> None:
    package = location.partition(".")[0]
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # as for python -m
    try:
        found = package in sys.modules or importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        found = False
    if not found:
        raise SlimsearchError(f"{kind}: cannot import '{location}': there is no module '{package}'")


def load_function(kind: str, name: str) -> Any:
    """Import the function or object ``path/to/file.py:name`` or ``package.module:name``."""
    if ":" not in name:
        raise SlimsearchError(f"{kind} '{name}' is not of the form path/to/file.py:name or package.module:name")
    return _attribute(kind, name, any_object=True)


def absolute(name: str) -> str:
    """``path/to/file.py:Class`` with its absolute path; other names are unchanged."""
    path, colon, attribute = name.rpartition(":")
    return f"{Path(path).expanduser().resolve()}:{attribute}" if colon and path.endswith(".py") else name


def _attribute(kind: str, name: str, any_object: bool = False) -> Any:
    location, _, attribute = name.rpartition(":")
    module = _module_from_file(kind, Path(location)) if location.endswith(".py") else _module(kind, location)
    if not hasattr(module, attribute):
        wanted = callable if any_object else inspect.isclass
        # With those of the modules of a package, which it may import for its users.
        own = [
            name
            for name, value in vars(module).items()
            if wanted(value) and str(getattr(value, "__module__", "")).startswith(module.__name__)
        ]
        kinds = "functions" if any_object else "classes"
        similar = did_you_mean(attribute, own)
        raise SlimsearchError(f"{location} has no '{attribute}'; its {kinds}: {', '.join(own) or 'none'}{similar}")
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
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a user's module may raise anything while it is imported
        raise SlimsearchError(f"{kind}: cannot import '{location}': {describe_error(error)}") from error


def _current_name(location: str) -> str:
    """The current name of a module of version 0.1, unless the user's own package has a module of that name."""
    old = next((name for name in _MOVED if f"{location}.".startswith(f"{name}.")), None)
    if old is None:
        return location
    package, _, rest = location.partition(".")
    try:
        spec = importlib.util.find_spec(package)  # of a top-level package: runs nothing
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
        spec = importlib.util.find_spec(package) if package else None  # of a top-level package: runs nothing
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        raise SlimsearchError(
            f"{kind}: no module '{package}' is installed; resuming a run does not search the current folder: add it to "
            "PYTHONPATH"
        )
    paths = [Path(path).resolve() for path in (spec.origin, *(spec.submodule_search_locations or ())) if path]
    if any(path.is_relative_to(data) for path in paths):
        raise SlimsearchError(f"{kind}: module '{location}' is in '{data}': code in a run directory is not run")


def _file(kind: str, path: Path) -> Path:
    """The resolved path of a user's file, if it may be run."""
    data = _data_only.get()
    if data is not None and not path.is_absolute():
        raise SlimsearchError(f"{kind}: '{path}' is not an absolute path, as run directories need")
    path = path.expanduser().resolve()
    if data is not None and path.is_relative_to(data):
        raise SlimsearchError(f"{kind}: '{path}' is in '{data}': code in a run directory is not run")
    if not path.is_file():
        raise SlimsearchError(f"{kind}: there is no file '{path}'{_similar_file(path)}")
    return path


def _similar_file(path: Path) -> str:
    try:
        return did_you_mean(path.name, [entry.name for entry in path.parent.glob("*.py")])
    except OSError:
        return ""


def _module_from_file(kind: str, path: Path) -> ModuleType:
    path = _file(kind, path)
    _search_beside(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SlimsearchError(f"{kind}: cannot read '{path}': {error.strerror}") from error
    # The module name includes a hash of the path, so that two files named model.py do not replace each other, and of
    # the content with that of its neighbors, so that an edited file is read again.
    key = hashlib.sha256(str(path).encode("utf-8", "surrogateescape") + content + _neighbors(path))
    module_name = f"slimsearch_user_{path.stem}_{key.hexdigest()[:8]}"
    if module_name in sys.modules:
        return sys.modules[module_name]
    loader = SourceFileLoader(module_name, str(path))
    spec = importlib.util.spec_from_file_location(module_name, path, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    import cloudpickle

    cloudpickle.register_pickle_by_value(module)  # other processes cannot import it by name
    try:
        exec(loader.source_to_code(content, str(path)), vars(module))  # not from a cache, which goes by time and size
    except BaseException as error:
        del sys.modules[module_name]
        if isinstance(error, KeyboardInterrupt):
            raise
        line = _line_in(error, str(path))
        where = f"{path}, line {line}" if line else str(path)
        raise SlimsearchError(f"{kind}: {where}: {describe_error(error)}") from error
    return module


def _search_beside(path: Path) -> None:
    """Let a file import its neighbors, as in a script; the folders of earlier files are searched after its own."""
    importlib.invalidate_caches()
    folder = str(path.parent)
    if folder in sys.path and folder not in _folders:
        return
    others = [other for other in _folders if other != folder]
    sys.path[:] = [*(other for other in sys.path if other not in _folders), folder, *others]
    _folders[:] = [folder, *others]


def _neighbors(path: Path) -> bytes:
    """A hash of the user's modules that a file imports.

    Where one was edited since it was imported, or is another file with the same name, all are imported anew.
    """
    files = {name: file for name, file in own_files(str(path)).items() if file != path}
    contents = {file: hashlib.sha256(file.read_bytes()).digest() for file in files.values() if file.is_file()}
    edited = [file for file, content in contents.items() if _neighbor_contents.get(file, content) != content]
    imported = {name: getattr(sys.modules[name], "__file__", None) for name in files if name in sys.modules}
    if edited or any(file is not None and Path(file).resolve() != files[name] for name, file in imported.items()):
        for name in imported:
            del sys.modules[name]
        for file in edited:
            with contextlib.suppress(OSError):  # it goes by time and size
                Path(importlib.util.cache_from_source(str(file))).unlink(missing_ok=True)
    _neighbor_contents.update(contents)
    return b"".join(sorted(contents.values()))


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
