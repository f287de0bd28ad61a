"""Boards that measure latency over SSH, with the user's own OpenSSH client, configuration and keys.

A process on the board runs the same modules as a measurement on this machine, see
`slimsearch.evaluators.latency.board_program`. Names and facts of boards are stored in run directories, addresses never.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import inspect
import json
import logging
import os
import shlex
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from slimsearch.compression.export.untrusted import read_onnx
from slimsearch.errors import SlimsearchError
from slimsearch.evaluators.latency import board_program
from slimsearch.evaluators.latency.measurement import Latency, Measured, MeasurementSettings
from slimsearch.evaluators.latency.meter import Meter
from slimsearch.evaluators.latency.reference import Reference, pinned, reference_models
from slimsearch.progress import progress
from slimsearch.reading import mismatch

_log = logging.getLogger(__name__)

FOLDER = ".cache/slimsearch-device"
"""Virtual environment of `slimsearch device setup`, in the home folder of the user there."""

# A copied agent or port would be of use to whoever rules the board, and a question would wait for ever.
_SSH = (
    "ssh", "-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=5",
    "-o", "ServerAliveCountMax=3", "-o", "ControlMaster=no", "-o", "ClearAllForwardings=yes",
    "-o", "ForwardAgent=no", "-o", "ForwardX11=no", "-o", "LogLevel=ERROR",
)  # fmt: skip
# Without quotes of its own, so that it is one word in every login shell.
_BEGIN = "import sys; exec(sys.stdin.buffer.read(int(sys.stdin.buffer.readline())))"
PROGRAM = (
    f'p="$HOME/{FOLDER}/bin/python"; [ -x "$p" ] || p=python3; exec "$p" -c "{_BEGIN}"'
)  # fmt: skip
"""Shell commands that start the board's program."""

MODULES = (
    "slimsearch.errors",
    "slimsearch.files",
    "slimsearch.packed",
    "slimsearch.progress",
    "slimsearch.running_time",
    "slimsearch.runtimes",
    "slimsearch.temporary",
    "slimsearch.compression.export.converted",
    "slimsearch.compression.export.untrusted",
    "slimsearch.evaluators.deployed.deployed_model",
    "slimsearch.evaluators.latency.meter",
    "slimsearch.evaluators.latency.reference",
    "slimsearch.evaluators.latency.measurement",
)
"""Modules that a board is sent, with all that they import."""
_FACTS = {"processor": str, "cores": int, "platform": str, "python": str, "packages": {str: str}}
_LATENCY = {
    "median_ms": float, "low_ms": float, "high_ms": float, "blocks": int, "discarded": int, "calm": bool
}  # fmt: skip
_LONGEST_FACT, _LONGEST_GREETING = 80, 100
# Seconds for an answer beside the patience of a measurement: other drivers may measure first.
_ANSWER_SECONDS = 900.0
# Seconds between two attempts to reach a board: while it is waited for, and while the search goes on without it.
_BETWEEN, _BETWEEN_AWAY = 2.0, 30.0


class ConnectionLost(Exception):
    """A board does not answer; the message, from SSH, may have names of hosts and users."""


class BoardsAway(SlimsearchError):
    """No board answers."""


@dataclass(frozen=True)
class Board:
    """A board that measures latency.

    Attributes:
        number: from 1, as in the metric ``latency_board``.
        name: as stored and shown.
        address: for ssh, such as user@host; never stored.
        facts: hardware and packages.
        slowness: milliseconds of the reference networks there, relative to this machine.
    """

    number: int
    name: str
    address: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    slowness: float = 1.0

    def described(self, runtime: str) -> dict[str, Any]:
        """What is stored about the board in ``environment.json``."""
        version = self.facts["packages"].get(runtime)
        return {
            "name": self.name, **{name: self.facts[name] for name in ("processor", "cores", "platform", "python")},
            "runtime": f"{runtime} {version}",
        }  # fmt: skip


def ssh_command(address: str, remote: str) -> list[str]:
    """The command that runs shell commands at an address, whichever login shell the user has there."""
    return [*_SSH, "--", address, f"sh -c {shlex.quote(remote)}"]


class BoardConnection:
    """A process on a board.

    Args:
        command: starts the board's program with its input and output, see `PROGRAM`.

    Attributes:
        facts: hardware and packages.

    Raises:
        ConnectionLost: the program does not start.
        SlimsearchError: this machine has no SSH client.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        try:
            # In a session of its own, as Ctrl-C is for this process.
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, start_new_session=True
            )
        except OSError as error:
            self._errors.close()
            raise SlimsearchError(f"cannot start '{command[0]}': {error.strerror}; install an OpenSSH client") from None
        try:
            self.facts = self._begin()
        except ConnectionLost:
            self.close()
            raise

    def _begin(self) -> dict[str, Any]:
        program = inspect.getsource(board_program).encode()
        texts = {name: inspect.getsource(importlib.import_module(name)) for name in MODULES}
        models = reference_models()
        first = {"modules": texts, "shapes": [shape for _, shape in models]}
        found = self._exchange(first, [model for model, _ in models], _ANSWER_SECONDS, b"%d\n" % len(program) + program)
        self._check(found, _FACTS)
        packages = {name: version[:_LONGEST_FACT] for name, version in found["packages"].items()}
        facts = {name: found[name] for name in _FACTS}
        short = {name: fact[:_LONGEST_FACT] for name, fact in facts.items() if isinstance(fact, str)}
        return {**facts, **short, "packages": packages}

    def reference_ms(self, threads: int) -> tuple[list[float], bool]:
        """Milliseconds of the reference networks there, and whether the board was calm.

        Raises:
            ConnectionLost: the board does not answer.
            SlimsearchError: the reference networks cannot run there.
        """
        found = self._exchange({"reference_threads": threads}, [], _ANSWER_SECONDS)
        self._check(found, {"reference_ms": [float], "calm": bool})
        if len(found["reference_ms"]) != len(reference_models()) or not min(found["reference_ms"]) > 0:
            raise ConnectionLost("the answer of the board has no times")
        return found["reference_ms"], found["calm"]

    def measure(self, files: Mapping[str, bytes], settings: MeasurementSettings) -> tuple[list[Latency], bool]:
        """Latencies of files, by name and content, and whether other processes of Slimsearch there paused.

        Raises:
            ConnectionLost: the board does not answer.
            SlimsearchError: a file cannot run there.
        """
        request = {"settings": dataclasses.asdict(settings), "names": list(files)}
        found = self._exchange(request, list(files.values()), _ANSWER_SECONDS + settings.patience)
        self._check(found, {"latencies": [_LATENCY], "alone": bool})
        if len(found["latencies"]) != len(files):
            raise ConnectionLost("an answer has another number of files")
        return [Latency(**{name: one[name] for name in _LATENCY}) for one in found["latencies"]], found["alone"]

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            with contextlib.suppress(OSError):  # what was not sent is lost
                stream.close()
        self._errors.close()

    def _exchange(
        self, message: dict[str, Any], parts: list[bytes], seconds: float, before: bytes = b""
    ) -> dict[str, Any]:
        """Send `before` and a message, and return the answer."""
        sending, receiving = self._process.stdin, self._process.stdout
        assert sending is not None
        assert receiving is not None
        limit = threading.Timer(seconds, self._process.kill)
        limit.daemon = True
        limit.start()
        try:
            sending.write(before)
            board_program.write_message(sending, message, parts)
            if before:
                lines = (receiving.readline() for _ in range(_LONGEST_GREETING))
                if board_program.GREETING not in lines:
                    raise EOFError
            received = board_program.read_message(receiving)
            if received is None:
                raise EOFError
        except (OSError, EOFError, ValueError, TypeError, KeyError) as error:
            raise ConnectionLost(self._reason()) from error
        finally:
            limit.cancel()
        if "error" in received[0]:
            raise SlimsearchError(str(received[0]["error"]))
        return received[0]

    def _check(self, answer: dict[str, Any], wanted: dict[str, Any]) -> None:
        wrong = mismatch(answer, wanted, "the answer of the board")
        if wrong is not None:
            raise ConnectionLost(wrong)

    def _reason(self) -> str:
        """The last line of what SSH and the board have said."""
        self._process.kill()
        self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").split("\n")
        return next((line.strip().rstrip(".") for line in reversed(lines) if line.strip()), "the connection was closed")


def connected_boards(
    hosts: Mapping[str, str], runtime: str, threads: int, names: Sequence[str] = ()
) -> tuple[Board, ...]:
    """Boards that answer and have the runtime.

    Args:
        hosts: address by name.
        runtime, threads: of the files.
        names: of all boards, in the order of their numbers; by default those of `hosts`.

    Raises:
        SlimsearchError: a board does not answer, or lacks the runtime.
    """
    if not hosts:
        return ()
    here, numbered = _reference_ms(threads), list(names or hosts)
    found = []
    for name, address in hosts.items():
        facts, there, _ = _looked_at(address, runtime, threads)
        slowness = float(np.exp(np.log(np.array(there) / here).mean()))
        found.append(Board(numbered.index(name) + 1, name, address, facts, slowness))
    return tuple(found)


def check_boards(hosts: Mapping[str, str], runtime: str, threads: int) -> Iterator[str]:
    """Two lines about each board: hardware and packages, and its times of the reference networks.

    Raises:
        SlimsearchError: a board does not answer, or lacks the runtime.
    """
    here = _reference_ms(threads)
    for name, address in hosts.items():
        facts, there, calm = _looked_at(address, runtime, threads)
        packages = ", ".join(f"{package} {version}" for package, version in facts["packages"].items())
        yield (
            f"{name}: {facts['processor']}, {facts['cores']} cores, {facts['platform']}, Python {facts['python']}, "
            f"{packages}"
        )
        times, own = (" and ".join(f"{ms:.3g}" for ms in one) for one in (there, here))
        state = "calm" if calm else "busy: latencies need longer and are less exact"
        yield f"{name}: reference networks {times} ms, on this machine {own} ms; {state}"


def _reference_ms(threads: int) -> list[float]:
    with Meter().exclusive(), pinned(threads):
        return [1000 * seconds for seconds in Reference(threads).best]


def _looked_at(address: str, runtime: str, threads: int) -> tuple[dict[str, Any], list[float], bool]:
    """Facts of a board, its times of the reference networks, and whether it was calm."""
    try:
        connection = connection_to(address)
        try:
            if runtime not in connection.facts["packages"]:
                option = "" if runtime == "onnxruntime" else f" --runtime {runtime}"
                raise SlimsearchError(f"'{address}' has no {runtime}: slimsearch device setup {address}{option}")
            return connection.facts, *connection.reference_ms(threads)
        finally:
            connection.close()
    except ConnectionLost as error:
        raise SlimsearchError(
            f"'{address}' does not answer: {error}; ssh must reach it without a question: "
            f"ssh -o BatchMode=yes {address}"
        ) from None


def connection_to(address: str) -> BoardConnection:
    """A process on the board at an address; see `BoardConnection`."""
    return BoardConnection(ssh_command(address, PROGRAM))


class Boards:
    """Measures on the first board that answers; the others are for when it does not.

    Args:
        boards: in order of preference.
        wait: seconds to wait for a board when none answers.
        meter: of this process.
    """

    def __init__(self, boards: Sequence[Board], wait: float, meter: Meter) -> None:
        self._boards, self._wait, self._meter = list(boards), wait, meter
        self._connections: dict[int, BoardConnection] = {}
        self._away_until: float | None = None  # a time of time.monotonic; None: a board has answered

    def measure(self, paths: Sequence[Path], settings: MeasurementSettings) -> Measured:
        """See `LatencyDevice.measure`.

        Raises:
            BoardsAway: no board has answered.
        """
        files = {str(number): read_onnx(path) for number, path in enumerate(paths)}
        names = " and ".join(board.name for board in self._boards)
        away, started = f"{names} {'do' if len(self._boards) > 1 else 'does'} not answer", time.monotonic()
        if self._away_until is not None and started < self._away_until:
            raise BoardsAway(away)
        wait = self._wait if self._away_until is None else 0.0
        said = False
        with self._meter.waiting(), progress(f"measuring the latency of {len(paths)} files on {names}"):
            while True:
                for board in list(self._boards):
                    measured = self._on(board, files, settings, paths)
                    if measured is not None:
                        self._away_until = None
                        return measured
                waited = time.monotonic() - started
                if wait and not said:
                    _log.warning("%s; trying again for %.0f s", away, wait)
                    said = True
                if waited >= wait:
                    self._away_until = time.monotonic() + _BETWEEN_AWAY
                    raise BoardsAway(away)
                time.sleep(_BETWEEN)

    def _on(
        self, board: Board, files: Mapping[str, bytes], settings: MeasurementSettings, paths: Sequence[Path]
    ) -> Measured | None:
        """Latencies from one board, or None if it does not answer; a board that answers comes first from then on."""
        try:
            if board.number not in self._connections:
                self._connections[board.number] = connection_to(board.address)
            latencies, alone = self._connections[board.number].measure(files, settings)
        except ConnectionLost:
            self._close(board)
            return None
        except SlimsearchError as error:
            self._close(board)
            of = ", ".join(f"'{path}'" for path in paths)
            raise SlimsearchError(f"{of} cannot be measured on {board.name}: {error}") from None
        self._boards = [board, *(other for other in self._boards if other is not board)]
        return Measured(latencies, alone, board.number)

    def _close(self, board: Board) -> None:
        connection = self._connections.pop(board.number, None)
        if connection is not None:
            connection.close()


class BoardMeasurements:
    """Measured latencies of the files of a run, which all its processes share: they correct predictions.

    Args:
        path: of the file; files are named relative to its folder.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, file: Path, ms: float) -> None:
        """Add the latency of a file."""
        line = json.dumps({"file": os.path.relpath(file, self._path.parent), "ms": ms}) + "\n"
        try:
            with self._path.open("ab", buffering=0) as opened:
                opened.write(line.encode())  # in one piece, beside those of other processes
        except OSError:  # a full disk, or another machine: predictions are less exact
            _log.info("the latency of '%s' is not remembered", file)

    def read(self, most: int) -> dict[Path, float]:
        """The last `most` files that are still there, with their latencies."""
        try:
            lines = self._path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return {}
        found: dict[Path, float] = {}
        for line in reversed(lines):
            try:
                entry = json.loads(line)
            except ValueError:  # torn
                continue
            if mismatch(entry, {"file": str, "ms": float}) is None and 0 < entry["ms"] < float("inf"):
                file = self._path.parent / entry["file"]
                if file.is_file():
                    found.setdefault(file, float(entry["ms"]))
            if len(found) == most:
                break
        return found
