"""The server of the pages of watched runs, on the loopback address, for this machine's browser alone."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, unquote

from slimsearch.errors import SlimsearchError
from slimsearch.report.html_pages import live_page, live_runs_page
from slimsearch.report.report_files import TRIALS
from slimsearch.report.watched_runs import Answer, WatchedRun, WatchedRuns, error_text

LOOPBACK = "127.0.0.1"
_NAMES = (LOOPBACK, "localhost")
_SECONDS = 30
_HTML, _JSON, _CSV, _FILE = (
    "text/html; charset=utf-8", "application/json", "text/csv; charset=utf-8", "application/octet-stream",
)  # fmt: skip
# No other site may frame, embed or read anything, and no browser guesses a type.
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class PageServer(ThreadingHTTPServer):
    """Serves the pages of `runs`: ``/runs/NAME/`` of each, and ``/`` of all.

    Args:
        runs: that are watched.
        port: 0 for a free one.

    Raises:
        OSError: the port is not free.
    """

    daemon_threads = True

    def __init__(self, runs: WatchedRuns, port: int) -> None:
        self.runs = runs
        super().__init__((LOOPBACK, port), _Handler)

    @property
    def address(self) -> str:
        """Of the page of all runs, or of the only one."""
        names = list(self.runs.runs)
        return f"http://{LOOPBACK}:{self.server_port}/" + (f"runs/{quote(names[0])}/" if len(names) == 1 else "")


class _Handler(BaseHTTPRequestHandler):
    server: PageServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "slimsearch", ""
    timeout = _SECONDS

    def do_GET(self) -> None:
        if not self._is_ours():
            # Another site's name may have been pointed at this address, so that its scripts could read the pages.
            self._say(HTTPStatus.FORBIDDEN, "this address is served under 127.0.0.1 and localhost only")
            return
        segments = [unquote(one) for one in self.path.partition("?")[0].split("/")][1:]
        try:
            self._answer(segments)
        except SlimsearchError as error:
            self._send(HTTPStatus.SERVICE_UNAVAILABLE, error_text(error).encode(), _JSON)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _refuse(self) -> None:
        self._say(HTTPStatus.METHOD_NOT_ALLOWED, "only GET is served", Allow="GET")
        self.close_connection = True

    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _refuse

    def log_message(self, format: str, *args: object) -> None:
        """Logs nothing, since every poll would be a line."""

    def _is_ours(self) -> bool:
        port = self.server.server_port
        return self.headers.get("Host", "") in {f"{name}:{port}" for name in _NAMES}

    def _answer(self, segments: list[str]) -> None:
        runs = self.server.runs
        several = len(runs.runs) > 1
        match segments:
            case [""] if several:
                self._send(HTTPStatus.OK, live_runs_page(list(runs.runs)).encode(), _HTML)
            case [""]:
                self._send(HTTPStatus.FOUND, b"", _HTML, Location=f"/runs/{quote(next(iter(runs.runs)))}/")
            case ["data.json"] if several:
                self._send_if_changed(runs.answer)
            case ["runs", name, *rest] if name in runs.runs:
                self._answer_run(runs.runs[name], rest)
            case _:
                self._say(HTTPStatus.NOT_FOUND, "there is no such page")

    def _answer_run(self, run: WatchedRun, rest: list[str]) -> None:
        match rest:
            case [""]:
                self._send(HTTPStatus.OK, live_page(run.name, several=len(self.server.runs.runs) > 1).encode(), _HTML)
            case ["data.json"]:
                self._send_if_changed(run.answer)
            case [name] if name == TRIALS:
                self._send(HTTPStatus.OK, run.csv().encode(), _CSV, **_attachment(f"{run.name}.csv"))
            case _:
                path = run.file("/".join(rest))
                if path is None:
                    self._say(HTTPStatus.NOT_FOUND, "there is no such file")
                else:
                    self._send_file(path)

    def _send_if_changed(self, answer: Callable[[], Answer]) -> None:
        found = answer()
        revision = f'"{quote(found.revision)}"'
        if self.headers.get("If-None-Match") == revision:
            self._send(HTTPStatus.NOT_MODIFIED, b"", _JSON, ETag=revision)
        else:
            self._send(HTTPStatus.OK, found.text.encode(), _JSON, ETag=revision)

    def _send_file(self, path: Path) -> None:
        with _opened(path) as descriptor:
            if descriptor is None:
                self._say(HTTPStatus.NOT_FOUND, "there is no such file")
                return
            size = os.fstat(descriptor).st_size
            self._begin(HTTPStatus.OK, size, _FILE, **_attachment(path.name))
            with open(descriptor, "rb", closefd=False) as file:
                shutil.copyfileobj(file, self.wfile)

    def _say(self, status: HTTPStatus, text: str, **headers: str) -> None:
        self._send(status, f"{text}\n".encode(), "text/plain; charset=utf-8", **headers)

    def _send(self, status: HTTPStatus, body: bytes, kind: str, **headers: str) -> None:
        self._begin(status, len(body), kind, **headers)
        if self.command != "HEAD":
            self.wfile.write(body)

    def _begin(self, status: HTTPStatus, size: int, kind: str, **headers: str) -> None:
        self.send_response(status)
        if status != HTTPStatus.NOT_MODIFIED:
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(size))
        for name, value in {**_HEADERS, **{name.replace("_", "-"): value for name, value in headers.items()}}.items():
            self.send_header(name, value)
        self.end_headers()


def _attachment(name: str) -> dict[str, str]:
    return {"Content_Disposition": f"attachment; filename*=UTF-8''{quote(name)}"}


@contextmanager
def _opened(path: Path) -> Iterator[int | None]:
    """A regular file, opened without following a link that has taken its place; None if it is not one."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        yield None
        return
    try:
        yield descriptor if stat.S_ISREG(os.fstat(descriptor).st_mode) else None
    finally:
        os.close(descriptor)
