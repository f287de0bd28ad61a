"""Inputs for commands: how many are tried, and the law that a mistake is one clear line and changes nothing."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import signal
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings

from slimsearch.cli.main import main

INPUTS_TRIED: Counter[str] = Counter()
"""Number of inputs by kind, in this session."""

_SECONDS = 300

Effort = Callable[..., settings]


def few(few: int, many: int) -> settings:
    """A few inputs, the same in each run."""
    return _settings(max_examples=few, derandomize=True)


def many(few: int, many: int) -> settings:
    """Many inputs, different in each run; inputs that failed before come first."""
    return _settings(max_examples=many)


def _settings(**chosen: Any) -> settings:
    return settings(deadline=None, suppress_health_check=list(HealthCheck), print_blob=True, **chosen)


def command(kind: str, *words: object) -> tuple[int, str]:
    """Exit code and standard error of a command: 0, or 2 with one line.

    An exception that leaves `main` fails the test.
    """
    INPUTS_TRIED[kind] += 1
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), deadline():
        try:
            code = main([*map(str, words)])
        except SystemExit as end:  # of the parser
            code = int(end.code or 0)
    said = err.getvalue()
    assert "Traceback" not in said + out.getvalue(), said
    if code:
        assert code == 2, (code, said)
        assert said.startswith("error: "), said
        assert said.count("\n") == 1, said
        assert len(said) > len("error: x\n"), said
        assert said[:-1].isprintable(), said
    return code, said


class Hangs(BaseException):
    """A command took too long; no handler of a command catches this exception."""


@contextlib.contextmanager
def deadline() -> Iterator[None]:
    """Fails after five minutes; a second would do."""

    def late(number: int, frame: object) -> None:
        raise Hangs(f"not done after {_SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def content(folder: Path) -> dict[str, str]:
    """Hash of every file below a folder, without the lock."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in sorted(folder.rglob("*"))
        if path.name != "lock"
    }


def forged(line: dict[str, Any]) -> bytes:
    """A line of a journal with a correct checksum, as an attacker would write it."""
    text = json.dumps({name: value for name, value in line.items() if name != "crc32"}, separators=(",", ":")).encode()
    return b'%s,"crc32":"%08x"}\n' % (text[:-1], zlib.crc32(text))
