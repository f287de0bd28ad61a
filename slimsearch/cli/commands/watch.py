"""``slimsearch watch``: the report of runs while they go on, served on the loopback address."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

from slimsearch.cli.command_parser import CommandParser
from slimsearch.errors import SlimsearchError
from slimsearch.progress import progress

HELP = "show the live report of one or more runs in the browser"
_EXAMPLES = ("runs/mnist_cnn-20260101-120000", "runs/lenet-a runs/lenet-b runs/lenet-c --port 8081")
_NICE = 10


def parser(program: str) -> CommandParser:
    found = CommandParser(HELP, program, _EXAMPLES)
    found.add_argument("runs", nargs="+", metavar="run_dir", help="run directories, running or finished")
    found.add_argument("--storage", help="URL of the study, if it is in a database on another machine")
    found.add_argument("--port", least=0, most=65535, default=0, help="port on the loopback address; 0: a free one")
    return found


def run(options: dict[str, Any]) -> None:
    port = options["port"]
    with progress("reading the runs"):
        from slimsearch.report.page_server import PageServer
        from slimsearch.report.watched_runs import WatchedRuns

        runs = WatchedRuns([Path(path).expanduser() for path in options["runs"]], options["storage"])
    os.nice(_NICE)  # the runs need the processor themselves
    try:
        server = PageServer(runs, port)
    except OSError as error:
        raise SlimsearchError(f"cannot serve on port {port}: {error.strerror}; choose another with --port") from error
    with server:
        # In the main thread, Ctrl-C could end one request in place of the server.
        threading.Thread(target=server.serve_forever, name="watch", daemon=True).start()
        print(f"{server.address}  (Ctrl-C ends)", flush=True)
        threading.Event().wait()
