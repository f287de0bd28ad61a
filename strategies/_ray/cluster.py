"""Connection to a running Ray cluster, or a local cluster that starts and ends with the run."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from slimsearch.errors import SlimsearchError, describe_error
from slimsearch.strategies._pool.fork_server import environment
from slimsearch.temporary import process_folder

_log = logging.getLogger(__name__)

# The dashboard queries addresses of cloud providers even with telemetry disabled; a nonexistent proxy prevents that.
_NO_CLOUD = {"http_proxy": "http://127.0.0.1:9", "no_proxy": "localhost,127.0.0.1"}

# Bytes of the temporary folder, in which Ray has sockets such as ray/session_<time>_<pid>/sockets/plasma_store; and
# Ray's own folder where no temporary folder is set.
_LONGEST_FOLDER, _FOLDER = 36, "/tmp/ray"


@contextmanager
def cluster(address: str | None, cpus: int, *, keep: bool) -> Iterator[Mapping[str, float]]:
    """Context of a connection to a cluster; yields its resources. An existing connection of this process stays open.

    Args:
        address: of a running cluster, whose nodes get this code; None to start and stop a local cluster.
        cpus: number of CPUs of a local cluster, and of expected trials on any cluster.
        keep: leave the connection open, and with it a local cluster, unless there is an exception.

    Raises:
        SlimsearchError: there is no cluster at `address`, or a local one cannot be started.
    """
    import ray

    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "ignore_reinit_error": True}
    # Disables telemetry unless the user enables it.
    usage = os.environ.get("RAY_USAGE_STATS_ENABLED", "0")
    # With more processes than processors, actors included, Ray would end the idle ones that were just warmed up.
    variables = {"RAY_num_workers_soft_limit": str(3 * cpus + 4), "RAY_USAGE_STATS_ENABLED": usage}
    loopback = _on_loopback() if address is None else nullcontext()
    with (
        tempfile.TemporaryDirectory(prefix="slimsearch-code-", dir=process_folder()) as folder,
        environment(variables),
        loopback,
    ):
        if address is None:
            options |= {
                "address": "local", "num_cpus": cpus, "include_dashboard": True, "dashboard_host": "127.0.0.1",
            }  # fmt: skip
            if len(os.fsencode(os.environ.get("RAY_TMPDIR", tempfile.gettempdir()))) > _LONGEST_FOLDER:
                options["_temp_dir"] = _FOLDER
        else:
            options |= {"address": address, "runtime_env": {"working_dir": _code(Path(folder))}}
        before = ray.is_initialized()
        handler = signal.getsignal(signal.SIGTERM)
        try:
            context = ray.init(**options)
            if threading.current_thread() is threading.main_thread() and handler is not None:
                signal.signal(signal.SIGTERM, handler)  # Ray's own would end the process without a report
        except Exception as error:
            where = address or "on this machine"
            raise SlimsearchError(f"no Ray cluster {where}: {describe_error(error)}") from error
    left_open = False
    try:
        url = context.dashboard_url
        if url:
            _log.info(
                "Ray dashboard: http://%s/#/jobs/%s (the token that it asks for: ray get-auth-token; the trials: Task "
                "Table, Function or Class Name: evaluate)", url, ray.get_runtime_context().get_job_id(),
            )  # fmt: skip
        yield ray.cluster_resources()  # type: ignore[no-untyped-call]
        left_open = keep
    finally:
        if not before and not left_open and not node_lost():  # Ray would wait for a lost node
            ray.shutdown()


def node_lost() -> bool:
    """Whether the raylet of this process's node has ended."""
    import ray

    node = ray._private.worker.global_worker.node
    if node is None:
        return True
    with socket.socket(socket.AF_UNIX) as line:
        return line.connect_ex(node.raylet_socket_name) != 0


def _code(folder: Path) -> str:
    """A copy of the package in `folder`, for import on the nodes of a cluster."""
    import slimsearch

    source = Path(slimsearch.__file__).resolve().parent
    shutil.copytree(source, folder / "slimsearch", ignore=shutil.ignore_patterns("__pycache__"))  # follows links
    return str(folder)


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Context in which a new cluster listens on the loopback address only.

    Ray does so by default on macOS and Windows; elsewhere it needs this environment variable for its processes and this
    constant for the current process. Otherwise Ray finds the machine's public address by way of a public name server,
    and its servers listen there.
    """
    with environment({"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}):
        from ray._private import ray_constants, services

        before, start = ray_constants.ENABLE_RAY_CLUSTER, services.start_ray_process

        def started(command: list[str], process_type: str, *rest: Any, **options: Any) -> Any:
            if process_type == ray_constants.PROCESS_TYPE_DASHBOARD:
                options["env_updates"] = {**(options.get("env_updates") or {}), **_NO_CLOUD}
            return start(command, process_type, *rest, **options)

        ray_constants.ENABLE_RAY_CLUSTER, services.start_ray_process = False, started
        try:
            yield
        finally:
            ray_constants.ENABLE_RAY_CLUSTER, services.start_ray_process = before, start
