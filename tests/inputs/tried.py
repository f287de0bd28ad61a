"""How many inputs were tried, and what each of them may do: nothing, or say one line and change nothing."""

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
"""By kind, of this session."""

_SECONDS = 300

Effort = Callable[..., settings]


def few(few: int, many: int) -> settings:
    """So many inputs, the same every time."""
    return _settings(max_examples=few, derandomize=True)


def many(few: int, many: int) -> settings:
    """So many inputs, others every time; what was found wrong before comes first."""
    return _settings(max_examples=many)


def _settings(**chosen: Any) -> settings:
    return settings(deadline=None, suppress_health_check=list(HealthCheck), print_blob=True, **chosen)


def command(kind: str, *words: object) -> tuple[int, str]:
    """Exit code and standard error of a command that was given something odd: 0, or 2 with one line.

    An exception that gets out of `main` is the test's failure.
    """
    INPUTS_TRIED[kind] += 1
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), soon():
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
    """Which no handler of a command's takes for something else."""


@contextlib.contextmanager
def soon() -> Iterator[None]:
    """What takes five minutes, where a second would do, hangs."""

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
    """Everything below a folder by its hash; the lock, which is there while it is looked at, does not count."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in sorted(folder.rglob("*"))
        if path.name != "lock"
    }


def forged(line: dict[str, Any]) -> bytes:
    """A line of a journal with the checksum that belongs to it, as whoever knows how it is made would write it."""
    text = json.dumps({name: value for name, value in line.items() if name != "crc32"}, separators=(",", ":")).encode()
    return b'%s,"crc32":"%08x"}\n' % (text[:-1], zlib.crc32(text))
