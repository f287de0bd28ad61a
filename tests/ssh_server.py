"""An SSH server of its own on the loopback address, as a board with a slower runtime."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

HOST = "measuring-board.example"

# The board's ONNX Runtime takes a millisecond longer for each Tanh, which is in no reference network.
SLOWER = """
import time
import onnxruntime

class Slower(onnxruntime.InferenceSession):
    def __init__(self, content, *arguments, **options):
        super().__init__(content, *arguments, **options)
        self.extra = 0.001 * content.count(b"\\x22\\x04Tanh")  # field 4 of a node: its operator

    def run(self, *arguments, **options):
        until = time.perf_counter() + self.extra
        found = super().run(*arguments, **options)
        while self.extra and time.perf_counter() < until:
            pass
        return found

onnxruntime.InferenceSession = Slower
"""


class Server:
    """A server that is running until `stop`; `client` is the folder of an ``ssh`` that knows it as `HOST`.

    Args:
        folder: of its files.
        port: of the server.
        packages: folders of the packages that the board's Python has, with the slower runtime; none: no package.
    """

    def __init__(self, folder: Path, port: int, packages: Sequence[Path]) -> None:
        self.folder, self.port = folder, port
        self.home, self.client, self.key = folder / "home", folder / "client", folder / "key"
        for one in (self.home, self.client, folder / "board", folder / "slower", folder / "temporary"):
            one.mkdir()
        for name in ("key", "host_key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
        shutil.copy(folder / "key.pub", folder / "authorized_keys")
        (folder / "slower" / "sitecustomize.py").write_text(SLOWER)
        path = ":".join(map(str, (folder / "slower", *packages))) if packages else ""
        _script(folder / "board" / "python3", f'PYTHONPATH={path} exec {Path(sys.executable).resolve()} -P "$@"')
        (folder / "sshd_config").write_text(
            f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {folder}/host_key\nPidFile {folder}/pid\n"
            f"AuthorizedKeysFile {folder}/authorized_keys\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n"
            f"KbdInteractiveAuthentication no\nPermitRootLogin yes\n"
            f"SetEnv HOME={self.home} TMPDIR={folder}/temporary PATH={folder}/board:/usr/bin:/bin\n"
        )
        host_key = (folder / "host_key.pub").read_text()
        (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key}")
        (folder / "ssh_config").write_text(
            f"Host {HOST}\nHostName 127.0.0.1\nPort {port}\nUser {getpass.getuser()}\nIdentityFile {self.key}\n"
            f"IdentitiesOnly yes\nUserKnownHostsFile {folder}/known_hosts\n"
        )
        _script(self.client / "ssh", f'exec {shutil.which("ssh")} -F {folder}/ssh_config "$@"')
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server, and wait until it listens."""
        program = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
        assert program is not None
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [program, "-D", "-e", "-f", self.folder / "sshd_config"], stdout=log, stderr=log
            )
        for _ in range(500):
            assert self._process.poll() is None, (self.folder / "log").read_text()
            with socket.socket() as tried:
                if tried.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        raise AssertionError("the server does not listen")

    def cut(self) -> int:
        """Kill the processes of all connections; returns the number of them."""
        assert self._process is not None
        children = psutil.Process(self._process.pid).children(recursive=True)
        for child in children:
            child.send_signal(signal.SIGKILL)
        psutil.wait_procs(children, timeout=10)
        return len(children)

    def stop(self) -> None:
        """Stop the server and cut all connections."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)  # it must not accept another one meanwhile
        self.cut()
        self._process.kill()
        self._process.wait()


def _script(path: Path, line: str) -> None:
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)


@contextmanager
def ssh_server(folder: Path, packages: Sequence[Path] = ()) -> Iterator[Server]:
    """A running server; the test is skipped where Debian's package is missing."""
    if shutil.which("ssh") is None or shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin") is None:
        pytest.skip("needs an SSH client and server: apt-get install openssh-client openssh-server")
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = Server(folder, port, packages)
    server.start()
    try:
        yield server
    finally:
        server.stop()
