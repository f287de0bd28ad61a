"""Base class of contracts: runs each law on every implementation that a test class names."""

from __future__ import annotations

import functools
import inspect
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any, ClassVar

import cloudpickle

from slimsearch.errors import SlimsearchError

try:
    import pytest
except ImportError as error:
    raise SlimsearchError("slimsearch.testing needs pytest: pip install 'slimsearch[test]'") from error

for _name in ("datasets", "samplers", "spaces", "stages", "storages", "strategies", "tasks"):
    pytest.register_assert_rewrite(f"slimsearch.testing.{_name}")


class Contract:
    """Laws as test methods.

    A test class sets the attribute that `subject` names to an implementation or a list of them. Laws have an argument
    of that name.
    """

    subject: ClassVar[str]

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Parametrize a law with the implementations."""
        if self.subject not in metafunc.fixturenames:
            return
        if not hasattr(self, self.subject):
            pytest.fail(f"{type(self).__name__} has no attribute '{self.subject}'", pytrace=False)
        # `getattr` would turn a function into a method.
        named = inspect.getattr_static(type(self), self.subject)
        found = tuple(named) if isinstance(named, list | tuple) else [named]
        values = [getattr(value, "__func__", value) for value in found]
        metafunc.parametrize(self.subject, values, ids=_identifier, scope="class")


def _identifier(value: object) -> str | None:
    """The identifier of a test; None for pytest's default."""
    if isinstance(value, str):
        return value.rpartition("/")[2]
    return getattr(value, "__name__", None)


def in_another_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """The result of `function` in another Python process, which all calls share."""
    return _other_process().submit(_call, cloudpickle.dumps((function, arguments))).result()


@functools.cache
def _other_process() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))


def _call(pickled: bytes) -> Any:
    function, arguments = cloudpickle.loads(pickled)
    return function(*arguments)
