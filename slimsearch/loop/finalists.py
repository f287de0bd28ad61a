"""Finalists: their selection, the measurement of their latencies together, and their metrics on the test split."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from slimsearch.errors import SlimsearchError, escaped
from slimsearch.evaluators import (
    BoardsAway,
    DeployedModel,
    LatencySettings,
    Meter,
    confusion,
    scores,
    size_kib,
)
from slimsearch.evaluators.datasets import Dataset
from slimsearch.evaluators.latency.energy import measure_energy
from slimsearch.evaluators.tasks import Classification
from slimsearch.loop.problem import Problem
from slimsearch.progress import counted
from slimsearch.record.lineage import repetitions
from slimsearch.record.ranking import Ranking
from slimsearch.record.record import Record
from slimsearch.record.run_directory import RunDirectory
from slimsearch.record.shared.study import SharedStudy
from slimsearch.record.trial import AUXILIARY, COMPLETE, COMPRESSION, SEARCH, Trial
from slimsearch.report import example_predictions
from slimsearch.report.display import Display

_BLOCKS = 45
# Seconds to wait for an idle machine: the limits, and the share of the time of all trials.
_LEAST_PATIENCE, _PATIENCE, _LONGEST_PATIENCE = 0.3, 0.05, 60.0
_BOARD_WAIT = 600.0  # seconds to wait for a board that does not answer
# Recorded cells of a confusion matrix besides its diagonal: those with the most images.
_MOST_CELLS = 4000

Cells = list[tuple[int, int, int]]


@dataclass
class Measurements:
    """Measurements of finalists, by trial number.

    Attributes:
        metrics: see `measure_finalists`; with those of the test split, such as ``test_accuracy`` on ``test_images``.
        confusions: on the test split: (true class, predicted class, images), most images first.
    """

    metrics: dict[int, dict[str, float]] = field(default_factory=dict)
    confusions: dict[int, Cells] = field(default_factory=dict)


@dataclass(frozen=True)
class FinalMeasurement:
    """The selection and measurement of the finalists of a run.

    Of several drivers of a `shared` study, the first to get here measures for all.

    Attributes:
        ranking: of the trials.
        top_k: number of search trials that are finalists in any case.
        problem, record, directory, display, shared: of the run.
    """

    ranking: Ranking
    top_k: int
    problem: Problem
    record: Record
    directory: RunDirectory
    display: Display
    shared: SharedStudy | None

    def finalists(self) -> list[Trial]:
        """The finalists, measured together, unless an earlier process has done so.

        Measured latencies differ from those of the search. A trial that is on the front because of that is measured
        too, together with all others, until the front consists of finalists.
        """
        chosen, more = self._chosen(), set[int]()
        while not chosen <= self.record.finalists:
            if more:
                numbers = ", ".join(map(str, sorted(more)))
                self.display.note(f"with the latencies measured together, these trials are on the front too: {numbers}")
            self._measure(chosen)
            more = self._chosen() - chosen
            chosen |= more
        found = [t for t in self.record.trials if t.final and t.kind not in AUXILIARY]
        for trial in found:
            self.record.fetch(trial)  # another driver may have measured them
        return found

    def finish(self) -> None:
        """Measure the finalists, and test their repetitions with other seeds."""
        found = self.finalists()
        again = [repetition for trial in found for repetition in repetitions(trial, self.record.trials)]
        if not {trial.number for trial in again} <= self.record.finalists:
            self._record("repetitions", again, lambda data: self._test(again, data))

    def _chosen(self) -> set[int]:
        """The Pareto front of all trials, the best search trials, and their compressed networks."""
        trials, ranking = [t.with_final_metrics() for t in self.record.trials], self.ranking
        searched = [t for t in self.record.trials if t.kind == SEARCH]
        compressed = ranking.feasible([t for t in self.record.trials if t.kind == COMPRESSION])
        before = ranking.front(self.record.trials)
        given = [t for t in searched if t.given and t.state == COMPLETE]
        chosen = (*given, *before, *ranking.front(trials), *ranking.select(searched, self.top_k), *compressed)
        return {t.number for t in chosen}

    def _measure(self, numbers: set[int]) -> None:
        chosen = [self.record.trials[number] for number in sorted(numbers)]
        took = sum(trial.seconds for trial in self.record.trials)

        def measure(data: Dataset) -> Measurements:
            self.display.note(f"measuring {len(chosen)} finalists together, and reading the test split")
            measured = self._test(chosen, data)
            latencies = measure_finalists(chosen, self.directory, data, self.problem.latency, took)
            for board in self.problem.latency.boards:
                if any(metrics.get("latency_board") == board.number for metrics in latencies.values()):
                    self.display.note(
                        f"the finalists were measured on {board.name}, {escaped(board.facts['processor'])}"
                    )
            return replace(measured, metrics={n: {**latencies[n], **found} for n, found in measured.metrics.items()})

        self._record("finalists", chosen, measure)

    def _test(self, trials: Sequence[Trial], data: Dataset) -> Measurements:
        measurements = Measurements()
        for trial in counted("testing the finalists", trials, len(trials)):
            tested, cells = _test(trial, self.directory, data, self.problem.latency.runtime)
            measurements.metrics[trial.number] = tested
            if cells:
                measurements.confusions[trial.number] = cells
        return measurements

    def _record(self, name: str, trials: Sequence[Trial], measure: Callable[[Dataset], Measurements]) -> None:
        """Record the measurements of finalists or of repetitions, in place of earlier ones of the same kind.

        Another driver may have measured them; without a data set, they are the recorded metrics.
        """
        for trial in trials:
            self.record.fetch(trial)
        if self.problem.data is None:
            found = Measurements({trial.number: dict(trial.metrics) for trial in trials})
        elif self.shared is None:
            found = measure(self.problem.data)
        else:
            found = self._agreed(self.shared, f"{name} {_numbers(trials)}", measure, self.problem.data)
        kept = [t for t in self.record.trials if t.final and (t.kind in AUXILIARY or trials[0].kind in AUXILIARY)]
        self.record.record_final(
            {**{t.number: t.final for t in kept}, **found.metrics},
            {**{t.number: t.confusion for t in kept if t.confusion}, **found.confusions},
        )

    def _agreed(
        self, shared: SharedStudy, key: str, measure: Callable[[Dataset], Measurements], data: Dataset
    ) -> Measurements:
        agreed = shared.once(
            key, self.directory.identity(), lambda: dataclasses.asdict(measure(data)),
            lambda: self.display.note("another driver measures the finalists; waiting for its results"),
        )  # fmt: skip
        # JSON in the database turns trial numbers into text.
        return Measurements(
            *({int(number): one for number, one in agreed[name].items()} for name in ("metrics", "confusions"))
        )


def _numbers(trials: Sequence[Trial]) -> str:
    return ",".join(str(trial.number) for trial in trials)


def measure_finalists(
    chosen: Sequence[Trial], directory: RunDirectory, data: Dataset, latency: LatencySettings, took: float
) -> dict[int, dict[str, float]]:
    """Measure the latencies of all finalists, interleaved.

    Args:
        chosen: the finalists.
        directory: of the run.
        data: the data set.
        latency: threads, batch size, runtime and boards.
        took: seconds of all trials; a longer run waits longer for an idle machine.

    Returns:
        ``latency_ms`` and, if asked for, ``energy_mj`` with their intervals, and ``size_kib``, by number of the trial.

    Raises:
        SlimsearchError: no board answers.
    """
    paths = [directory.path / trial.artifacts["model"] for trial in chosen]
    patience = min(_LONGEST_PATIENCE, max(_LEAST_PATIENCE, _PATIENCE * took))
    meter = Meter()
    meter.owner = str(directory.path)
    try:
        found = latency.device(meter, _BOARD_WAIT).measure(
            paths, latency.measurement(data.input_shape, patience, blocks=_BLOCKS)
        )
    except BoardsAway as error:
        raise SlimsearchError(
            f"{error}, and finalists are always measured; finished trials are kept, continue with --resume"
        ) from None
    measured = {
        trial.number: {**one.metrics(), **found.metrics(), "size_kib": size_kib(path)}
        for trial, path, one in zip(chosen, paths, found.latencies, strict=True)
    }
    if latency.energy:
        energies = measure_energy(paths, latency.measurement(data.input_shape, patience), meter)
        for trial, energy in zip(chosen, energies, strict=True):
            measured[trial.number].update(energy.metrics())
    return measured


def _test(trial: Trial, directory: RunDirectory, data: Dataset, runtime: str) -> tuple[dict[str, float], Cells]:
    """Metrics on the test split, which is read once, and the confusion matrix of a classification.

    Results of an earlier process are reused.
    """
    if data.test is None:
        return {}, []
    tested = {name: value for name, value in trial.final.items() if name.startswith("test_")}
    if tested:
        return tested, list(trial.confusion)
    model = DeployedModel(directory.path / trial.artifacts["model"], runtime=runtime)
    examples = model.examples(data, data.test)
    cells: Cells = []
    example_predictions.store(model, data, data.test, examples, directory.trial_directory(trial.number))
    if isinstance(data.task, Classification):
        every = confusion(examples[:, 1].astype(int), examples[:, 2].astype(int))
        cells = [cell for rank, cell in enumerate(every) if rank < _MOST_CELLS or cell[0] == cell[1]]
    counted = {"test_images": float(len(examples))} if len(examples) > 1 else {}
    return {**scores(data.task, examples, "test"), **counted}, cells
