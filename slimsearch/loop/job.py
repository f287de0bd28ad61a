"""Start and resume of a run, with the checks that a run directory needs."""

from __future__ import annotations

import contextlib
import datetime
import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import Board, connected_boards
from slimsearch.files import write_json
from slimsearch.interrupts import interrupted, interruptible
from slimsearch.loop.python_objects import PythonObjects
from slimsearch.loop.run import carry_out, open_record
from slimsearch.loop.setup import Setup, set_up
from slimsearch.names import no_code_from
from slimsearch.options.configuration import RESUMABLE, Configuration, device_hosts, flag
from slimsearch.options.device_profiles import with_target
from slimsearch.progress import progress
from slimsearch.record import environment
from slimsearch.record.run_directory import RunDirectory, read_study, refuse_existing
from slimsearch.record.shared.storage import (
    check_reachable,
    is_local,
    is_loopback,
    masked,
    normalised,
    without_password,
)
from slimsearch.record.shared.study import SharedStudy, study_settings
from slimsearch.report.display import Display, Silent
from slimsearch.report.loggers import with_loggers
from slimsearch.report.result import Result
from slimsearch.report.tables import shown

_NO_OBJECTS = PythonObjects()


def start(
    configuration: Configuration, objects: PythonObjects = _NO_OBJECTS, *, display: Display | None = None
) -> Result:
    """Start a new run and finish it.

    Args:
        configuration: the options.
        objects: passed from Python.
        display: receives the events of the run; silent by default.

    Raises:
        SlimsearchError: an option is invalid (nothing is written then), or the run fails.
        KeyboardInterrupt: Ctrl-C was pressed; the run can be resumed.
    """
    return interruptible(lambda: _start(configuration, objects, display or Silent()))


def _start(configuration: Configuration, objects: PythonObjects, display: Display) -> Result:
    configuration = with_target(objects.named_in(configuration).absolute())
    missing = objects.missing(configuration)  # options may come from a run that was started from Python
    if missing is not None:
        what, argument = missing
        raise SlimsearchError(f"{flag(argument)} was {what}, given from Python: begin this run there, with it")
    path = Path(configuration.run_dir) if configuration.run_dir else default_directory(configuration.subject)
    refuse_existing(path)
    if configuration.storage is not None:
        check_reachable(normalised(configuration.storage))
    named = _naming(configuration, path)
    boards = _boards(configuration, named)
    display = with_loggers(display, named)
    with progress("preparing the run"):
        setup = set_up(named, objects, path.expanduser().resolve(), boards)
    shared = _shared_study(configuration, path, create=True)
    if shared is not None:
        agreed = shared.join(setup.ranking.objectives, study_settings(setup.configuration, setup.environment))
        for line in environment.differences(agreed["environment"], setup.environment):
            display.warn(f"unlike on the machine that started the study: {line}")
    with RunDirectory(path, create=True) as directory:
        write_json(directory.path / "environment.json", setup.environment, indent=2)
        setup.configuration.replace(run_dir=None).write(directory.config)  # from here on it is a run
        with _resumable(directory, display):
            return carry_out(setup, directory, display, shared)


def resume(
    path: Path,
    changes: Mapping[str, Any] | None = None,
    objects: PythonObjects = _NO_OBJECTS,
    *,
    display: Display | None = None,
    accept_changes: bool = False,
) -> Result:
    """Resume a run: trials that were running are run again, finished ones are kept.

    Args:
        path: the run directory.
        changes: new values of options in `RESUMABLE`.
        objects: those passed from Python when the run was started.
        display: receives the events of the run; silent by default.
        accept_changes: continue although code was edited or classes were renamed since the run was started.

    Raises:
        SlimsearchError: the run cannot be resumed (nothing is changed then), or it fails.
        KeyboardInterrupt: Ctrl-C was pressed; the run can be resumed.
    """
    return interruptible(
        lambda: _resume(path, changes or {}, objects, display or Silent(), accept_changes=accept_changes)
    )


def _resume(
    path: Path, changes: Mapping[str, Any], objects: PythonObjects, display: Display, *, accept_changes: bool
) -> Result:
    # A run directory is untrusted: no code in it is run.
    with RunDirectory(path, create=False) as directory, no_code_from(directory.path), _resumable(directory, display):
        _check_changes(changes)
        first = Configuration.read(directory.config)
        stored = first.replace(**changes)
        _check_machines(stored, changes, path)
        _check_study(stored, path)
        _check_objects(stored, objects, path)
        _check_boards(first, stored, path)
        configuration = _naming(stored, path).replace(device_host=first.device_host)
        boards = _boards(stored, first)
        display = with_loggers(display, configuration)
        shared = _shared_study(stored, path, create=False)
        if shared is not None:
            shared.reopen()
        before = environment.read(directory.path)
        # Device and precision were chosen when the run was started.
        chosen = configuration.replace(device=before["device"], precision=before["precision"])
        with progress("preparing the run"):
            setup = set_up(chosen, objects, directory.path, boards)
        for check in (_check_data, _check_initial_weights, _check_choices):
            check(before, setup.environment, path)
        changed = environment.changed_meaning(before, setup.environment)
        if changed is not None and not accept_changes:
            raise SlimsearchError(
                f"'{path}' was started with others: {changed}; continue with the current ones by --accept-changes"
            )
        if shared is None:
            _check_record(setup, directory)
        if changed is not None:
            display.warn(f"the run goes on with changes in {changed}")
            _accept(before, setup.environment, directory)
        for line in environment.differences(before, setup.environment):
            display.warn(f"the environment has changed: {line}")
        configuration.write(directory.config)
        return carry_out(setup, directory, display, shared)


@contextlib.contextmanager
def _resumable(directory: RunDirectory, display: Display) -> Iterator[None]:
    """A context in which one line says how to go on after Ctrl-C or on a full disk.

    Raises:
        SlimsearchError: a file cannot be written or read.
        KeyboardInterrupt: after Ctrl-C, whatever libraries made of it.
    """
    again = f"continue with --resume {shown(directory.path)}"
    try:
        yield
    except BaseException as error:
        if interrupted() or isinstance(error, KeyboardInterrupt):
            display.warn(f"interrupted; {again}")
            if isinstance(error, KeyboardInterrupt):
                raise
            raise KeyboardInterrupt from error
        if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
            raise SlimsearchError(f"{error}; finished trials are kept, {again}") from error
        raise


def default_directory(subject: str) -> Path:
    """``runs/<subject>-<date>-<time>``, with a number added if that exists."""
    name = f"{subject}-{datetime.datetime.now().strftime('%Y%m%d-%H%M%S')}"
    paths: Iterator[Path] = itertools.chain(
        [Path("runs") / name], (Path("runs") / f"{name}-{i}" for i in itertools.count(2))
    )
    return next(path for path in paths if not path.exists())


def _shared_study(configuration: Configuration, path: Path, *, create: bool) -> SharedStudy | None:
    """The study in ``--storage``, or None if the study is in the run directory."""
    if configuration.storage is None:
        return None
    name = configuration.study or path.name
    return SharedStudy(normalised(configuration.storage), name, configuration.heartbeat, create=create)


def _naming(configuration: Configuration, path: Path) -> Configuration:
    """The options to store: with the study's name, without the password of its database and addresses of boards."""
    if configuration.device_host is not None:
        configuration = configuration.replace(device_host=",".join(device_hosts(configuration.device_host)))
    if configuration.storage is None:
        return configuration
    storage = without_password(normalised(configuration.storage))
    return configuration.replace(storage=storage, study=configuration.study or path.name)


def _boards(configuration: Configuration, named: Configuration) -> tuple[Board, ...]:
    """The boards of ``--device-host``, numbered as in the stored options `named`."""
    with progress("reaching the boards"):
        return connected_boards(
            device_hosts(configuration.device_host), configuration.runtime, configuration.latency_threads,
            (named.device_host or "").split(","),
        )  # fmt: skip


def _check_boards(before: Configuration, now: Configuration, path: Path) -> None:
    if before.device_host is None and now.device_host is not None:
        raise SlimsearchError(f"--device-host cannot be added to '{path}': its latencies were measured on this machine")
    if before.device_host is None:
        return
    names = before.device_host.split(",")
    if now.device_host is None:
        raise SlimsearchError(f"'{path}' measures latency on {', '.join(names)}: --device-host none is for new runs")
    for name in device_hosts(now.device_host):
        if name not in names:
            raise SlimsearchError(
                f"'{path}' measures latency on {', '.join(names)}, not on {name}: give --device-host NAME=user@board"
            )


def _check_changes(changes: Mapping[str, Any]) -> None:
    for name in changes:
        if name not in RESUMABLE:
            allowed = ", ".join(flag(option) for option in RESUMABLE)
            raise SlimsearchError(f"{flag(name)} cannot change when a run is resumed; options that can: {allowed}")


def _check_machines(configuration: Configuration, changes: Mapping[str, Any], path: Path) -> None:
    """Refuse to connect to machines that only the run directory names, since that may reveal a password."""
    if configuration.device_host is not None and "device_host" not in changes:
        names = configuration.device_host.split(",")
        again = ",".join(
            "user@board" if name == f"board {n}" else f"{name}=user@board" for n, name in enumerate(names, 1)
        )
        raise SlimsearchError(
            f"'{path}' measures latency on {', '.join(names)}, whose address is not stored: "
            f"add --device-host {again} to --resume"
        )
    storage, cluster = configuration.storage, configuration.ray_address
    for name, address, is_near in (
        ("storage", storage, storage is None or is_local(storage)),
        ("ray_address", cluster, cluster is None or cluster == "auto" or is_loopback(_host(cluster))),
    ):
        if not is_near and name not in changes:
            raise SlimsearchError(
                f"'{path}' is about another machine, {flag(name)} {masked(str(address))}: name it again with --resume"
            )


def _host(address: str) -> str:
    return address.rpartition(":")[0] or address


def _check_study(configuration: Configuration, path: Path) -> None:
    if configuration.storage is not None and configuration.study is None:
        raise SlimsearchError(f"--storage cannot be added to '{path}': its study is in the run directory")


def _check_objects(configuration: Configuration, objects: PythonObjects, path: Path) -> None:
    missing = objects.missing(configuration)
    if missing is not None:
        what, argument = missing
        if argument == "model":
            raise SlimsearchError(f"'{path}' was begun by slimsearch.compress with {what}: compress it there again")
        raise SlimsearchError(
            f"'{path}' was begun from Python with {what}; resume it there: "
            f"slimsearch.resume('{path}', {argument}=...) with the same"
        )


def _check_data(before: Mapping[str, Any], now: Mapping[str, Any], path: Path) -> None:
    if before["dataset"].get("fingerprint") != now["dataset"].get("fingerprint"):
        raise SlimsearchError(f"the data set is not that of '{path}': its hash differs")


def _check_initial_weights(before: Mapping[str, Any], now: Mapping[str, Any], path: Path) -> None:
    if before.get("initial_weights") != now.get("initial_weights"):
        raise SlimsearchError(f"the weights are not those that '{path}' was begun with: their hash differs")


def _check_choices(before: Mapping[str, Any], now: Mapping[str, Any], path: Path) -> None:
    if before["choices"] != now["choices"]:
        labels = environment.changed_choices(dict(before), dict(now))
        raise SlimsearchError(f"the space is not that of '{path}': {labels}")


def _accept(before: dict[str, Any], now: Mapping[str, Any], directory: RunDirectory) -> None:
    """Write the current code and names of classes to environment.json."""
    classes = {name: value for name, value in now["dataset"].items() if name == "classes"}
    accepted = {**before, "code": now["code"], "dataset": {**before["dataset"], **classes}}
    write_json(directory.path / "environment.json", accepted, indent=2)


def _check_record(setup: Setup, directory: RunDirectory) -> None:
    """Reject a damaged record before anything is written."""
    study = read_study(directory.path, setup.ranking.objectives)
    if study is not None:
        open_record(setup, study, Silent())
