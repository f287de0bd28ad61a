"""A Ray cluster for a run: one that is running, or one of this machine that is started and ended with it."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from slimsearch.errors import SlimsearchError, describe_error

_log = logging.getLogger(__name__)

# The dashboard asks the addresses of cloud providers which of them it is running at, also where it is to tell nobody:
# by a proxy that is not there.
_NO_CLOUD = {"http_proxy": "http://127.0.0.1:9", "no_proxy": "localhost,127.0.0.1"}


@contextmanager
def cluster(address: str | None, cpus: int) -> Iterator[Mapping[str, float]]:
    """A cluster as long as it is needed, by its resources; one of this process that is there already is left running.

    Args:
        address: of a running one, whose nodes are sent this code; None: one of this machine, which ends afterwards.
        cpus: of one of this machine, and how many trials are expected on any.

    Raises:
        SlimsearchError: there is none at `address`, or none can be started here.
    """
    import ray

    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "ignore_reinit_error": True}
    # What Ray would tell its makers: nothing, unless the user says so. It is read when Ray starts.
    usage = os.environ.get("RAY_USAGE_STATS_ENABLED", "0")
    # More processes than processors, actors included, and Ray ends idle ones, which have just been warmed up.
    kept = {"RAY_num_workers_soft_limit": str(3 * cpus + 4), "RAY_USAGE_STATS_ENABLED": usage}
    alone = _on_loopback() if address is None else nullcontext()
    with tempfile.TemporaryDirectory(prefix="slimsearch-code-") as folder, environment(kept), alone:
        if address is None:
            options |= {
                "address": "local", "num_cpus": cpus, "include_dashboard": True, "dashboard_host": "127.0.0.1",
            }  # fmt: skip
        else:
            options |= {"address": address, "runtime_env": {"working_dir": _code(Path(folder))}}
        before = ray.is_initialized()
        try:
            context = ray.init(**options)
        except Exception as error:
            where = address or "on this machine"
            raise SlimsearchError(f"no Ray cluster {where}: {describe_error(error)}") from error
    try:
        url = context.dashboard_url
        if url:
            _log.info("Ray dashboard: http://%s (the token that it asks for: ray get-auth-token)", url)
        yield ray.cluster_resources()  # type: ignore[no-untyped-call]
    finally:
        if not before and not node_lost():  # nothing answers there, and Ray waits for it until it gives up
            ray.shutdown()


def node_lost() -> bool:
    """Whether the raylet that this process talks to is gone."""
    import ray

    node = ray._private.worker.global_worker.node
    if node is None:
        return True
    with socket.socket(socket.AF_UNIX) as line:
        return line.connect_ex(node.raylet_socket_name) != 0


def _code(folder: Path) -> str:
    """A copy of the package, which the nodes of a cluster import, without what may lie beside it."""
    import slimsearch

    source = Path(slimsearch.__file__).resolve().parent
    shutil.copytree(source, folder / "slimsearch", ignore=shutil.ignore_patterns("__pycache__"))  # follows links
    return str(folder)


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Have a cluster that begins meanwhile be one of this machine: its node has the loopback address.

    Ray does so on macOS and Windows, and elsewhere only if it is told that it is there, by what processes of its own
    read from their environment and this one when it imported Ray. Otherwise it looks for an address that others could
    reach, by way of a public name server's, and its servers listen there.
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


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Variables of this process and of those that it starts meanwhile."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
