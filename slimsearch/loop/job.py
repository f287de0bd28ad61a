"""A run from its configuration to its report: the one place where all parts meet."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import itertools
import logging
import platform
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import NetworkEvaluator, WeightSharingEvaluator
from slimsearch.loop.compression_phase import CompressionPhase
from slimsearch.loop.fidelity import Fidelity
from slimsearch.loop.finalists import Measured, finalists, measure_finalists
from slimsearch.loop.nothing_left import refuse_if_nothing_is_left
from slimsearch.loop.parts import Evaluate, Parts, make_parts
from slimsearch.loop.problem import NETWORK_METRICS, named
from slimsearch.loop.repeat_phase import RepeatPhase
from slimsearch.loop.search import ArchitectureSearch, Budget
from slimsearch.loop.sequence import Phase, Phases
from slimsearch.loop.step_phase import StepPhase
from slimsearch.loop.supernet_phase import FinalistTraining, rank_correlation
from slimsearch.names import absolute, no_code_from
from slimsearch.options.configuration import RESUMABLE, Configuration, flag
from slimsearch.options.initial_weights import TORCHVISION
from slimsearch.record import environment
from slimsearch.record.artifacts import teacher
from slimsearch.record.integrity import refuse_damage
from slimsearch.record.lineage import repetitions
from slimsearch.record.record import Record
from slimsearch.record.result import Result
from slimsearch.record.run_directory import RunDirectory
from slimsearch.record.shared.driver import Driver
from slimsearch.record.shared.storage import is_local, is_loopback, masked, normalised, one_line, without_password
from slimsearch.record.shared.study import SharedStudy
from slimsearch.record.shared.terms import terms
from slimsearch.record.trial import SUBNET, Trial
from slimsearch.report import report
from slimsearch.report.display import Display, Silent
from slimsearch.report.figures import figures
from slimsearch.report.tables import shown
from slimsearch.report.watchers import watched

if TYPE_CHECKING:
    import optuna

_FILE = re.compile(r"[^:+]+\.py:[^:+]+")  # in a scheduler's text, before its options and the next one

IN_MEMORY = "<python>"
"""Stands in config.yaml for a class or data set that was handed over from Python."""


def start(
    configuration: Configuration,
    *,
    space: Any = None,
    data: Any = None,
    evaluate: Evaluate | None = None,
    display: Display | None = None,
) -> Result:
    """Begin a new run and carry it to its end.

    Args:
        configuration: the options.
        space: an NNI ModelSpace class, in place of ``configuration.space``; with `evaluate` also a dict of choices.
        data: arrays or a PyTorch data set, in place of ``configuration.dataset``.
        evaluate: a function from a candidate to named numbers, in place of ``configuration.evaluator``.
        display: told of every change; silent by default.

    Raises:
        SlimsearchError: something is wrong; nothing has been written if it could be seen beforehand.
    """
    configuration = configuration.replace(
        space=named(space, IN_MEMORY) if space is not None else absolute(configuration.space),
        strategy=absolute(configuration.strategy),
        sampler=absolute(configuration.sampler),
        scheduler=_FILE.sub(lambda found: absolute(found[0]), configuration.scheduler),
        evaluator=IN_MEMORY if evaluate is not None else _absolute_file(configuration.evaluator),
        metrics=_with_absolute_paths(configuration.metrics),
        dataset=IN_MEMORY if data is not None else _absolute_folder(configuration.dataset),
        init=_absolute_weights(configuration.init),
        data_root=str(Path(configuration.data_root).expanduser().resolve()) if configuration.data_root else None,
    )
    display = watched(display or Silent(), configuration)
    path = Path(configuration.run_dir) if configuration.run_dir else default_directory(configuration.space)
    shared = None
    if configuration.storage is not None:  # before anything that takes time: it may not be reachable
        shared = _database(configuration, path)
        configuration = configuration.replace(storage=without_password(shared.url), study=shared.name)
    parts = make_parts(configuration, space, data, evaluate, path.expanduser().resolve())
    if shared is not None:
        _join(shared, parts, display)
    with RunDirectory(path, create=True) as directory:
        directory.write_json("environment.json", parts.environment)
        parts.configuration.replace(run_dir=None).write(directory.config)  # from here on it is a run
        return _carry_out(parts, directory, display, shared)


def resume(
    path: Path,
    changes: Mapping[str, Any] | None = None,
    *,
    space: Any = None,
    data: Any = None,
    evaluate: Evaluate | None = None,
    display: Display | None = None,
) -> Result:
    """Go on with a run: its running trials are run again, its finished ones stay as they are.

    Args:
        path: of the run directory.
        changes: other values of the options in `RESUMABLE`.
        space, data, evaluate: again, where the run was begun with them from Python.
        display: told of every change; silent by default.

    Raises:
        SlimsearchError: it cannot be resumed; nothing has been changed.
    """
    display = display or Silent()
    # Whoever made the run directory did not thereby make its user run anything that lies in it.
    with RunDirectory(path, create=False) as directory, no_code_from(directory.path):
        for name in changes or {}:
            if name not in RESUMABLE:
                allowed = ", ".join(flag(option) for option in RESUMABLE)
                raise SlimsearchError(f"{flag(name)} cannot change when a run is resumed; what can: {allowed}")
        configuration = Configuration.read(directory.config).replace(**(changes or {}))
        _refuse_other_machines(configuration, changes or {}, path)
        display = watched(display, configuration)
        shared = None
        if configuration.storage is not None:
            if configuration.study is None:
                raise SlimsearchError(f"--storage: '{path}' was begun without it, its study is in its own folder")
            shared = _database(configuration, path)
            configuration = configuration.replace(storage=without_password(shared.url))
            shared.reopen()
        if IN_MEMORY in configuration.space and space is None:
            raise SlimsearchError(f"'{path}' was begun from Python with a class; resume it there with that class")
        if configuration.evaluator == IN_MEMORY and evaluate is None:
            raise SlimsearchError(f"'{path}' was begun from Python with a function; resume it there with that function")
        if configuration.dataset == IN_MEMORY and data is None:
            raise SlimsearchError(f"'{path}' was begun from Python with its data; resume it there with that data")
        before = environment.read(directory.path)
        # What the processor is used for was chosen once, and is recorded: it stays.
        pinned = {"device": before["device"], "precision": before["precision"]}
        parts = make_parts(configuration.replace(**pinned), space, data, evaluate, directory.path)
        if before["dataset"].get("fingerprint") != parts.environment["dataset"].get("fingerprint"):
            raise SlimsearchError(f"the data set is not the one that '{path}' was begun with: its hash differs")
        if before.get("initial_weights") != parts.environment.get("initial_weights"):
            raise SlimsearchError(f"--init: the weights are not those that '{path}' was begun with: their hash differs")
        if before["choices"] != parts.environment["choices"]:
            labels = environment.changed_choices(before, parts.environment)
            raise SlimsearchError(f"the space is not the one that '{path}' was begun with: {labels}")
        study = directory.look_at_study(parts.ranking.objectives) if shared is None else None
        if study is not None:  # before anything is written
            _record(parts, study, Silent())
        for line in environment.differences(before, parts.environment):
            display.warn(f"the environment has changed: {line}")
        configuration.write(directory.config)
        return _carry_out(parts, directory, display, shared)


def _refuse_other_machines(configuration: Configuration, changes: Mapping[str, Any], path: Path) -> None:
    """Whom a run directory names, its user has not called: connecting tells them who asks, and hands over passwords."""
    storage, cluster = configuration.storage, configuration.ray_address
    for name, place, near in (
        ("storage", storage, storage is None or is_local(storage)),
        ("ray_address", cluster, cluster is None or cluster == "auto" or is_loopback(_host(cluster))),
    ):
        if not near and name not in changes:
            raise SlimsearchError(
                f"'{path}' is about another machine, {flag(name)} {masked(str(place))}: name it again with --resume"
            )


def _host(address: str) -> str:
    return address.rpartition(":")[0] or address


def _database(configuration: Configuration, path: Path) -> SharedStudy:
    """Of ``--storage``, which can be reached."""
    assert configuration.storage is not None
    return SharedStudy(normalised(configuration.storage), configuration.study or path.name, configuration.heartbeat)


def _join(shared: SharedStudy, parts: Parts, display: Display) -> None:
    """Take part in a study, or begin it."""
    agreed = shared.join(parts.ranking.objectives, terms(parts.configuration, parts.environment))
    for line in environment.differences(agreed["environment"], parts.environment):
        display.warn(f"not as where the study was begun: {line}")


def _carry_out(parts: Parts, directory: RunDirectory, display: Display, shared: SharedStudy | None) -> Result:
    """A run from its record to its report."""
    ranking = parts.ranking

    def opened(study: optuna.Study, driver: Driver | None = None) -> Record:
        return _record(parts, study, display, driver)

    if shared is None:
        record = opened(directory.open_study(ranking.objectives))
        if directory.torn:
            display.warn("the last line of study.journal was torn, as by a kill; it is in study.journal.torn now")
        return _run(parts, directory, display, record, None)
    host = f"{platform.node()}, {parts.environment['processor']}"
    advice = f"; what was finished is kept, go on with --resume {shown(directory.path)}"
    with one_line(shared.url, advice), Driver(shared, directory.identity(), host, directory.path) as driver:
        return _run(parts, directory, display, opened(shared.study, driver), shared)


def _record(parts: Parts, study: optuna.Study, display: Display, driver: Driver | None = None) -> Record:
    """The record in a study, made sure that it is of this run."""
    problem, objectives = parts.problem, parts.ranking.objectives
    record = Record(study, problem.space, objectives, display.update, driver)
    measured = NETWORK_METRICS if problem.data is not None else ()
    refuse_damage(record, problem.space, parts.recipe, [*(o.metric for o in objectives), *measured])
    return record


def _run(parts: Parts, directory: RunDirectory, display: Display, record: Record, shared: SharedStudy | None) -> Result:
    """Search, compress, measure the finalists, report; also after Ctrl-C, with what there is."""
    configuration, ranking, problem = parts.configuration, parts.ranking, parts.problem
    evaluator = problem.evaluator(directory)

    def fix_targets(targets: Mapping[str, float]) -> Mapping[str, float]:
        if shared is not None:
            targets = shared.agree("targets", dict(targets))
        text = ",".join(f"{name}={value!r}" for name, value in targets.items())
        Configuration.read(directory.config).replace(targets=text).write(directory.config)
        return targets

    deadline = time.monotonic() + configuration.timeout if configuration.timeout is not None else None
    budget = Budget(configuration.trials, configuration.epochs, deadline, configuration.retries)
    fidelity = None
    if parts.scheduler is not None:
        fidelity = Fidelity(parts.scheduler, ranking, configuration.epochs, problem.costs)
    search = ArchitectureSearch(
        problem.space, parts.sampler, ranking, record, directory, budget,
        seed=configuration.seed, stopping=None if parts.inheriting else parts.stopping,
        proposing=parts.proposing and not parts.inheriting, on_targets=fix_targets, fidelity=fidelity,
    )  # fmt: skip
    first = search
    rest: list[Callable[[], Phase]] = []
    if parts.inheriting:
        assert isinstance(evaluator, NetworkEvaluator)
        evaluator = WeightSharingEvaluator(
            evaluator, directory.path / "supernet", configuration.supernet_epochs, configuration.supernet_sampling,
            configuration.seed,
        )  # fmt: skip
        first = ArchitectureSearch(
            problem.space, parts.sampler, ranking, record, directory, replace(budget, trials=configuration.subnets),
            seed=configuration.seed, stopping=parts.stopping, on_targets=fix_targets, kind=SUBNET,
        )  # fmt: skip

        def finalist_training() -> Phase:
            search.rank_by(first.ranking)
            display.phase("search", configuration.trials, record.trials, search.ranking)
            return FinalistTraining(search, first.ranking, record)

        rest.append(finalist_training)

    def compression_phase() -> Phase:
        assert problem.data is not None
        phase = CompressionPhase(
            parts.recipe, top_k=configuration.top_k, max_drop=configuration.max_drop, ranking=search.ranking,
            record=record, directory=directory, data=problem.data, seed=configuration.seed,
            retries=configuration.retries,
        )  # fmt: skip
        display.phase("compression", phase.length, record.trials, search.ranking)
        return phase

    def repeat_phase() -> Phase:
        phase = RepeatPhase(
            finalists(search.ranking, record, configuration.top_k), configuration.repeats, record=record,
            directory=directory, seed=configuration.seed, retries=configuration.retries,
            teacher=None if problem.data is None else teacher(search.ranking, record, directory),
        )  # fmt: skip
        display.phase("repeats", phase.length, record.trials, search.ranking)
        return phase

    def step_phase() -> Phase:
        phase = StepPhase(
            finalists(search.ranking, record, configuration.top_k), record=record, directory=directory,
            seed=configuration.seed, retries=configuration.retries, teacher=teacher(search.ranking, record, directory),
        )  # fmt: skip
        display.phase("steps", phase.length, record.trials, search.ranking)
        return phase

    if problem.data is not None:
        rest.append(compression_phase if configuration.co_search is None else step_phase)
    if configuration.repeats > 1:
        rest.append(repeat_phase)
    with display.open(directory.path), _notes_of_what_is_logged(display):
        try:
            length = configuration.subnets if parts.inheriting else configuration.trials
            name = "subnets" if parts.inheriting else "search"
            display.phase(name, min(length, problem.space.size), record.trials, search.ranking)
            phases = Phases(first, iter(rest), lambda: figures(search.ranking, record.trials), record.wait)
            parts.strategy.run(phases, evaluator)
            if first.exhausted:
                display.note("every candidate of the space has been tried")
            if parts.stopping.reason is not None:
                display.note(f"the search ended: {parts.stopping.reason}")
            correlation = rank_correlation(record.trials) if parts.inheriting else None
            if correlation is not None:
                display.note(
                    "inherited and trained accuracy: rank correlation (Spearman) {:.2f} over {} networks".format(
                        *correlation
                    )
                )
            refuse_if_nothing_is_left(search.ranking, record)
            chosen = finalists(search.ranking, record, configuration.top_k)
            for trial in chosen:
                record.fetch(trial)
            again = [repeated for trial in chosen for repeated in repetitions(trial, record.trials)]
            for trial in again:
                record.fetch(trial)
            both = [*chosen, *again]
            if problem.data is None:
                record.finalise({trial.number: trial.metrics for trial in both})
            elif {trial.number for trial in both} != record.finalists:
                latency = problem.latency

                def measured() -> Measured:
                    assert problem.data is not None
                    display.note(f"measuring {len(chosen)} finalists together, and reading the test split")
                    took = sum(trial.seconds for trial in record.trials)
                    return measure_finalists(chosen, again, directory, problem.data, latency, took)

                found = _once(shared, directory, both, measured, display)
                record.finalise(found.metrics, found.confusions)
        except KeyboardInterrupt:
            display.warn(f"interrupted; go on with --resume {shown(directory.path)}")
            raise
        finally:
            models = report.write(directory, record, search.ranking, configuration, parts.environment)
    result = Result(directory.path, tuple(record.trials), tuple(models))
    display.result(result, search.ranking)
    return result


def _once(
    shared: SharedStudy | None, directory: RunDirectory, chosen: Sequence[Trial], measured: Callable[[], Measured],
    display: Display,
) -> Measured:  # fmt: skip
    """What `measured` gives, here or at the driver that came to the end of the study first."""
    if shared is None:
        return measured()
    name = f"finalists {','.join(str(trial.number) for trial in chosen)}"
    waiting = "another driver measures the finalists; waiting for what it finds"
    found = shared.once(
        name, directory.identity(), lambda: dataclasses.asdict(measured()), lambda: display.note(waiting)
    )
    return Measured(*({int(number): one for number, one in found[part].items()} for part in ("metrics", "confusions")))


@contextlib.contextmanager
def _notes_of_what_is_logged(display: Display) -> Iterator[None]:
    """What is logged about what is no trial, the training of a supernet for one, is shown."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            show = display.warn if record.levelno >= logging.WARNING else display.note
            show(record.getMessage())

    handler = Handler(logging.INFO)
    levels = {name: logging.getLogger(name).level for name in ("slimsearch.strategies", "slimsearch.record.record")}
    for name in levels:
        logging.getLogger(name).addHandler(handler)
        logging.getLogger(name).setLevel(logging.INFO)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).removeHandler(handler)
            logging.getLogger(name).setLevel(level)


def _with_absolute_paths(metrics: str | None) -> str | None:
    parts = [part.partition("=") for part in (metrics or "").split(",")]
    return ",".join(f"{name}{equals}{absolute(location.strip())}" for name, equals, location in parts) or None


def _absolute_weights(name: str | None) -> str | None:
    """The path of a file made absolute; ``torchvision:...`` is none."""
    if name is None or name.startswith(TORCHVISION):
        return name
    return str(Path(name).expanduser().resolve())


def _absolute_file(name: str) -> str:
    return str(Path(name).expanduser().resolve()) if name.endswith(".csv") else absolute(name)


def _absolute_folder(name: str) -> str:
    folder = Path(name).expanduser()
    return str(folder.resolve()) if ("/" in name or "\\" in name) and folder.is_dir() else name


def default_directory(space: str) -> Path:
    """runs/<space>-<date>-<time>, with a number where two runs begin in the same second."""
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    name = f"{re.split('[:.]', space)[-1]}-{stamp}"
    paths: Iterator[Path] = itertools.chain(
        [Path("runs") / name], (Path("runs") / f"{name}-{i}" for i in itertools.count(2))
    )
    return next(path for path in paths if not path.exists())
