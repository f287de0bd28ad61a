"""A run, from opening its record to writing its report; its phases are listed as data."""

from __future__ import annotations

import contextlib
import functools
import logging
import platform
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from slimsearch.evaluators import COSTS, Evaluator, NetworkEvaluator, WeightSharingEvaluator, wilson
from slimsearch.evaluators.tasks import Classification
from slimsearch.loop.compression_phase import CompressionPhase
from slimsearch.loop.fidelity import Fidelity
from slimsearch.loop.finalist_phases import IntermediateScores, RepeatPhase
from slimsearch.loop.finalists import FinalMeasurement
from slimsearch.loop.phases import Phase, Phases
from slimsearch.loop.search import ArchitectureSearch, Budget
from slimsearch.loop.setup import Setup
from slimsearch.loop.stopping import refuse_if_nothing_is_left
from slimsearch.loop.supernet_phase import FinalistTraining, rank_correlation
from slimsearch.options.configuration import Configuration
from slimsearch.progress import progress
from slimsearch.record.lineage import check_record, teacher
from slimsearch.record.ranking import Ranking
from slimsearch.record.record import Record
from slimsearch.record.run_directory import RunDirectory
from slimsearch.record.shared.driver import Driver
from slimsearch.record.shared.storage import database_errors
from slimsearch.record.shared.study import SharedStudy
from slimsearch.record.trial import COMPLETE, SUBNET, Trial
from slimsearch.report.display import Display
from slimsearch.report.report_files import write_reports
from slimsearch.report.result import Result
from slimsearch.report.run_summary import run_status
from slimsearch.report.tables import shown
from slimsearch.running_time import running_seconds

if TYPE_CHECKING:
    import optuna


_SHOWN_LOGGERS = ("slimsearch.strategies", "slimsearch.record.record", "slimsearch.evaluators.latency.boards")
_FEW = 100
"""Validation splits of fewer examples get a warning."""

# For the time left: export and measurement, as a share of a trial of the search, and the measurement of a finalist.
_BESIDES_TRAINING, _SECONDS_OF_A_FINALIST = 0.2, 2.0


@dataclass(frozen=True)
class RunContext:
    """Objects that all phases of a run use.

    Attributes:
        setup: the components of the run.
        directory, record: of the run.
        display: receives the events of the run.
        shared: the study of several drivers, or None.
        search: trains candidates.
        subnets: scores candidates with weights of a supernet before that; None: the strategy has no supernet.
    """

    setup: Setup
    directory: RunDirectory
    record: Record
    display: Display
    shared: SharedStudy | None
    search: ArchitectureSearch
    subnets: ArchitectureSearch | None

    @property
    def configuration(self) -> Configuration:
        return self.setup.configuration

    @property
    def ranking(self) -> Ranking:
        """The current ranking: the search fixes the targets of the weighted product."""
        return self.search.ranking

    @property
    def first(self) -> ArchitectureSearch:
        """The search that begins the run."""
        return self.search if self.subnets is None else self.subnets

    @property
    def final(self) -> FinalMeasurement:
        """The measurement of the finalists, according to the current ranking."""
        return FinalMeasurement(
            self.ranking, self.configuration.top_k, self.setup.problem, self.record, self.directory, self.display,
            self.shared,
        )  # fmt: skip


@dataclass(frozen=True)
class PhaseDescription:
    """A phase of a run.

    Attributes:
        name: as the display shows it.
        needed: whether a run has this phase.
        begin: constructs the phase, once the previous ones are over.
    """

    name: str
    needed: Callable[[RunContext], bool]
    begin: Callable[[RunContext], Phase]


def _finalist_training(run: RunContext) -> Phase:
    assert run.subnets is not None
    run.search.rank_by(run.subnets.ranking)
    return FinalistTraining(run.search, run.subnets.ranking, run.record)


def _compression(run: RunContext) -> Phase:
    assert run.setup.problem.data is not None
    return CompressionPhase(
        run.setup.recipe, top_k=run.configuration.top_k, max_drop=run.configuration.max_drop, ranking=run.ranking,
        record=run.record, directory=run.directory, task=run.setup.problem.data.task, seed=run.configuration.seed,
        retries=run.configuration.retries,
    )  # fmt: skip


def _intermediate_scores(run: RunContext) -> Phase:
    return IntermediateScores(
        run.final.finalists(), record=run.record, directory=run.directory, seed=run.configuration.seed,
        retries=run.configuration.retries, teacher=teacher(run.ranking, run.record, run.directory),
    )  # fmt: skip


def _repeats(run: RunContext) -> Phase:
    networks = run.setup.problem.data is not None
    return RepeatPhase(
        run.final.finalists(), run.configuration.repeats, record=run.record, directory=run.directory,
        seed=run.configuration.seed, retries=run.configuration.retries,
        teacher=teacher(run.ranking, run.record, run.directory) if networks else None,
    )  # fmt: skip


PHASES = (
    PhaseDescription("subnets", lambda run: run.subnets is not None, lambda run: run.first),
    PhaseDescription("search", lambda run: run.subnets is None, lambda run: run.first),
    PhaseDescription("search", lambda run: run.subnets is not None, _finalist_training),
    PhaseDescription(
        "compression",
        lambda run: run.setup.problem.data is not None and run.configuration.co_search is None,
        _compression,
    ),
    PhaseDescription(
        "steps",
        lambda run: run.setup.problem.data is not None and run.configuration.co_search is not None,
        _intermediate_scores,
    ),
    PhaseDescription("repeats", lambda run: run.configuration.repeats > 1, _repeats),
)
"""The phases of a run, in order."""


def carry_out(setup: Setup, directory: RunDirectory, display: Display, shared: SharedStudy | None) -> Result:
    """Open the record of a run, run all phases and write the reports."""
    if shared is None:
        record = open_record(setup, directory.open_study(setup.ranking.objectives), display)
        if directory.torn:
            display.warn("the last line of study.journal was torn, as by a kill; it is in study.journal.torn now")
        return _run(_context(setup, directory, record, display, None))
    host = f"{platform.node()}, {setup.environment['processor']}"
    advice = f"; finished trials are kept, continue with --resume {shown(directory.path)}"
    with database_errors(shared.url, advice), Driver(shared, directory.identity(), host, directory.path) as driver:
        record = open_record(setup, shared.study, display, driver)
        return _run(_context(setup, directory, record, display, shared))


def open_record(setup: Setup, study: optuna.Study, display: Display, driver: Driver | None = None) -> Record:
    """The record in a study.

    Raises:
        SlimsearchError: a trial does not belong to this run.
    """
    problem, objectives = setup.problem, setup.ranking.objectives
    record = Record(study, problem.space, objectives, _BoardNotices(display), driver)
    measured = () if problem.data is None else (f"val_{problem.data.task.leading()[0]}", *COSTS)
    check_record(record, problem.space, setup.recipe, [*(o.metric for o in objectives), *measured])
    return record


class _BoardNotices:
    """Shows changed trials, and says when boards stop answering and when they answer again."""

    def __init__(self, display: Display) -> None:
        self._display, self._away = display, False

    def __call__(self, trial: Trial) -> None:
        self._display.update(trial)
        where = "latency_away" in trial.metrics, "latency_board" in trial.metrics
        if any(where) and where[0] != self._away:
            self._away = where[0]
            if self._away:
                self._display.warn(
                    f"no board of --device-host answers: the latency of trial {trial.number} is predicted, and so are "
                    "others until one answers"
                )
            else:
                self._display.note(f"a board answers again: it measured trial {trial.number}")


def _context(
    setup: Setup, directory: RunDirectory, record: Record, display: Display, shared: SharedStudy | None
) -> RunContext:
    configuration, ranking, problem = setup.configuration, setup.ranking, setup.problem
    deadline = running_seconds() + configuration.timeout if configuration.timeout is not None else None
    budget = Budget(configuration.trials, configuration.epochs, deadline, configuration.retries)
    fidelity = None
    if setup.scheduler is not None:
        fidelity = Fidelity(setup.scheduler, ranking, configuration.epochs, problem.costs)
    fix_targets = functools.partial(_fix_targets, directory, shared)
    traits = setup.traits
    search = ArchitectureSearch(
        problem.space, setup.sampler, ranking, record, directory, budget, seed=configuration.seed, fidelity=fidelity,
        stopping=None if traits.shares_weights else setup.stopping,
        proposing=not (traits.proposes or traits.shares_weights),
        on_targets=fix_targets,
    )  # fmt: skip
    subnets = None
    if traits.shares_weights:
        subnets = ArchitectureSearch(
            problem.space, setup.sampler, ranking, record, directory, replace(budget, trials=configuration.subnets),
            seed=configuration.seed, stopping=setup.stopping, on_targets=fix_targets, kind=SUBNET,
        )  # fmt: skip
    return RunContext(setup, directory, record, display, shared, search, subnets)


def _fix_targets(
    directory: RunDirectory, shared: SharedStudy | None, targets: Mapping[str, float]
) -> Mapping[str, float]:
    """Write the targets of the weighted product, which all drivers of a study share, to config.yaml."""
    agreed = targets if shared is None else shared.agree("targets", dict(targets))
    text = ",".join(f"{name}={value!r}" for name, value in agreed.items())
    Configuration.read(directory.config).replace(targets=text).write(directory.config)
    return agreed


def _run(run: RunContext) -> Result:
    """Run all phases, measure the finalists, and write the reports, also after Ctrl-C."""
    with run.display.open(run.directory.path), _log_lines_shown(run.display):
        for note in run.setup.problem.notes:
            run.display.note(note)
        data = run.setup.problem.data
        if data is not None and len(data.validation) < _FEW:
            run.display.warn(
                f"the validation split has only {len(data.validation)} examples: one of them is "
                f"{100 / len(data.validation):.1f} points of accuracy, and small differences are noise"
            )
        try:
            _search(run)
            refuse_if_nothing_is_left(run.ranking, run.record)
            run.final.finish()
        finally:
            with progress("writing the report"):
                models = write_reports(run.directory, run.record, run.ranking, run.configuration, run.setup.environment)
    result = Result(run.directory.path, tuple(run.record.trials), tuple(models))
    run.display.result(result, run.ranking)
    return result


def _search(run: RunContext) -> None:
    """Run all phases with the strategy."""
    phases = _phases(run)
    next(phases)  # run.first
    search = Phases(run.first, phases, lambda: run_status(run.ranking, run.record.trials), run.record.wait)
    run.setup.strategy.run(search, _evaluator(run))
    _warn_of_chance(run)
    if run.first.exhausted:
        run.display.note("every candidate of the space has been tried")
    if run.setup.stopping.reason is not None:
        run.display.note(f"the search ended: {run.setup.stopping.reason}")
    correlation = rank_correlation(run.record.trials, run.ranking.leading.metric) if run.subnets is not None else None
    if correlation is not None:
        run.display.note(
            "inherited and trained accuracy: rank correlation (Spearman) {:.2f} over {} networks".format(*correlation)
        )


def _warn_of_chance(run: RunContext) -> None:
    """Warn if a given network does not do better than chance, as with wrong weights or another order of classes."""
    data = run.setup.problem.data
    given = next((trial for trial in run.record.trials if trial.given and trial.state == COMPLETE), None)
    if data is None or given is None or not isinstance(data.task, Classification):
        return
    accuracy = given.metrics["val_accuracy"]
    if wilson(accuracy, len(data.validation))[0] <= 1 / len(data.classes):
        run.display.warn(
            f"the network as given is right on {100 * accuracy:.1f}% of the validation images, no better than chance: "
            "are these the weights, the normalization and the order of classes that it was trained with?"
        )


def _phases(run: RunContext) -> Iterator[Phase]:
    for description in PHASES:
        if description.needed(run):
            phase = description.begin(run)
            following, seconds = _following(run, description.name)
            run.display.phase(description.name, phase.length, run.record.trials, run.ranking, following, seconds)
            yield phase


def _following(run: RunContext, phase: str) -> tuple[float, float]:
    """Expected length of the phases after `phase`, in trials of it, and seconds of the measurement of the finalists."""
    configuration, recipe = run.configuration, run.setup.recipe
    if run.setup.problem.data is None:
        return 0.0, 0.0
    compressed = configuration.co_search is None
    groups = recipe.steps(configuration.epochs) if compressed else []
    chosen = 1 if configuration.model is not None and compressed else configuration.top_k
    trials = 0.0
    if phase == "search":
        trials += chosen * sum(share + _BESIDES_TRAINING for _, share in groups)
    if phase in ("search", "compression"):
        trials += (configuration.repeats - 1) * chosen * (1 + len(groups))
    return trials, _SECONDS_OF_A_FINALIST * chosen * (1 + len(groups))


def _evaluator(run: RunContext) -> Evaluator:
    evaluator = run.setup.problem.evaluator(run.directory)
    if run.subnets is None:
        return evaluator
    assert isinstance(evaluator, NetworkEvaluator)
    return WeightSharingEvaluator(
        evaluator, run.directory.path / "supernet", run.configuration.supernet_epochs,
        run.configuration.supernet_sampling, run.configuration.seed,
    )  # fmt: skip


@contextlib.contextmanager
def _log_lines_shown(display: Display) -> Iterator[None]:
    """Shows log lines on the display, such as those of the training of a supernet."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            show = display.warn if record.levelno >= logging.WARNING else display.note
            show(record.getMessage())

    handler = Handler(logging.INFO)
    levels = {name: logging.getLogger(name).level for name in _SHOWN_LOGGERS}
    for name in levels:
        logging.getLogger(name).addHandler(handler)
        logging.getLogger(name).setLevel(logging.INFO)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).removeHandler(handler)
            logging.getLogger(name).setLevel(level)
