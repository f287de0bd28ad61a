"""A search talks to nobody: no process of it, whatever it is written in, calls another machine or waits for one."""

from __future__ import annotations

import contextlib
import importlib.util
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT, RUNTIMES, TINY, environment

SMALL = (
    "--space", TINY, "--dataset", "digits", "--epochs", "1", "--trials", "2", "--workers", "1", "--top-k", "1",
    "--run-dir", "run",
)  # fmt: skip
ADDRESS = re.compile(r"(connect|bind|sendto|sendmsg|sendmmsg)\(.*?inet_(?:addr\(|pton\(AF_INET6, )\"([^\"]+)\"")
HERE = re.compile(r"127\.|::1$|::ffff:127\.")


def addresses(trace: Path) -> dict[str, set[str]]:
    """By the system call that names them."""
    found: dict[str, set[str]] = {}
    for line in trace.read_text(errors="replace").splitlines():
        if match := ADDRESS.search(line):
            found.setdefault(match[1], set()).add(match[2])
    return found


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize(
    "options",
    [
        pytest.param(("--compress", "quantize"), id="optuna"),
        *(
            pytest.param(
                ("--runtime", runtime, "--compress", "prune" if runtime == "executorch" else "quantize"), id=runtime,
                marks=pytest.mark.skipif(importlib.util.find_spec(RUNTIMES[runtime]) is None, reason="not installed"),
            )
            for runtime in ("openvino", "litert", "executorch")
        ),
        pytest.param(("--strategy", "ray", "--compress", "quantize"), id="ray", marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_every_connection_is_to_this_machine(options: tuple[str, ...], tmp_path: Path) -> None:
    trace, kept = tmp_path / "trace.txt", environment()
    for name in ("RAY_USAGE_STATS_ENABLED", "ORT_DISABLE_TELEMETRY", "CI"):  # of which some are quiet by themselves
        kept.pop(name, None)
    calls = "trace=connect,bind,sendto,sendmsg,sendmmsg"
    done = subprocess.run(
        ["strace", "-f", "--seccomp-bpf", "-qq", "-e", calls, "-o", str(trace),
         sys.executable, str(ROOT / "experiments" / "run.py"), *SMALL, *options],
        cwd=tmp_path, env=kept, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    if "ptrace" in done.stderr and done.returncode:
        pytest.skip("this machine lets no process be traced")
    assert done.returncode == 0, done.stderr
    found = addresses(trace)
    elsewhere = {call: {place for place in places if not HERE.match(place)} for call, places in found.items()}
    assert {call: places for call, places in elsewhere.items() if places} == {}
    if "ray" in options:
        assert found["connect"] and found["bind"], "the trace saw Ray's own processes"  # noqa: PT018


def test_the_dashboard_of_a_run_is_on_this_machine_alone(small_run: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "slimsearch.cli.main", "dashboard", str(small_run), "--port", str(port)]
    with serving(words, tmp_path) as process:
        page = _answer(f"http://127.0.0.1:{port}/", process)
        listening = _listening(port)
    assert "<html" in page.lower()
    assert listening == {"0100007F"}, "127.0.0.1, as the kernel writes it"


def test_ctrl_c_during_a_request_ends_the_dashboard(small_run: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "slimsearch.cli.main", "dashboard", str(small_run), "--port", str(port)]
    ended = threading.Event()

    def ask() -> None:
        while not ended.is_set():
            with (
                contextlib.suppress(OSError),
                urllib.request.urlopen(f"http://127.0.0.1:{port}/api/studies", timeout=5) as answer,
            ):
                answer.read()

    with serving(words, tmp_path) as process:
        _answer(f"http://127.0.0.1:{port}/", process)
        threads = [threading.Thread(target=ask, daemon=True) for _ in range(4)]
        for thread in threads:
            thread.start()
        _answer(f"http://127.0.0.1:{port}/api/studies", process)
    ended.set()
    for thread in threads:
        thread.join()
    assert process.returncode == 130


@contextlib.contextmanager
def serving(words: list[str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    with (folder / "said.txt").open("wb") as said:
        process = subprocess.Popen(words, cwd=folder, env=environment(), stdout=said, stderr=said)
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(30)
            finally:
                process.kill()


def _answer(url: str, process: subprocess.Popen[bytes]) -> str:
    for _ in range(600):
        assert process.poll() is None
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as page:
            return str(page.read().decode())
        time.sleep(0.1)
    raise AssertionError(f"nothing answers at {url}")


def _listening(port: int) -> set[str]:
    """Addresses on which something listens at `port`."""
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    return {row[1].partition(":")[0] for row in rows if row[3] == "0A" and int(row[1].partition(":")[2], 16) == port}
