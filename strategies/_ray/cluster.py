"""The Ray cluster of a run: a running one, or a local one that starts and ends with the run."""

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

# The dashboard asks cloud providers' addresses where it runs, even with telemetry disabled: a proxy that does not exist
# prevents it.
_NO_CLOUD = {"http_proxy": "http://127.0.0.1:9", "no_proxy": "localhost,127.0.0.1"}


@contextmanager
def cluster(address: str | None, cpus: int) -> Iterator[Mapping[str, float]]:
    """A cluster's resources, while it is needed; a cluster that this process is connected to already is left running.

    Args:
        address: of a running cluster, whose nodes are sent this code; None: start a local one, and end it afterwards.
        cpus: of a local cluster, and number of trials that are expected on any.

    Raises:
        SlimsearchError: there is no cluster at `address`, or none can be started here.
    """
    import ray

    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "ignore_reinit_error": True}
    # Disables telemetry unless the user enables it; read when Ray starts.
    usage = os.environ.get("RAY_USAGE_STATS_ENABLED", "0")
    # With more processes than processors, actors included, Ray would end idle ones that have just been warmed up.
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
        if not before and not node_lost():  # Ray would wait for a lost node until it gives up
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
    """A copy of the package alone, which the nodes of a cluster import."""
    import slimsearch

    source = Path(slimsearch.__file__).resolve().parent
    shutil.copytree(source, folder / "slimsearch", ignore=shutil.ignore_patterns("__pycache__"))  # follows links
    return str(folder)


@contextmanager
def _on_loopback() -> Iterator[None]:
    """A cluster that starts in this context listens on the loopback address only.

    Ray does so on macOS and Windows; elsewhere only with this environment variable, which its processes read, and this
    constant, which this process set when it imported Ray. Otherwise Ray looks for an address that other machines reach,
    by way of a public name server, and its servers listen there.
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
    """Set environment variables of this process, and of those that it starts in this context."""
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
