"""Searchers of a table: our samplers and those of other packages, each as the rows that it evaluates.

A row that is proposed again is paid for again, since a user would train the network again. Our samplers never repeat a
proposal, and NNI's strategies leave out what they have tried (NNI's TPE walks the grid after its first repeat). All
searchers begin with the same random rows, but for NNI's strategies, which take none. Only our samplers know costs
(parameters, latency) before an evaluation. A point that the table lacks is a failed trial for the searcher and costs
nothing; after ten in a row, the nearest row that was not evaluated takes its place.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from experiments.benchmarks._trained_tables import LookupTable
from slimsearch.loop.proposals import Proposals
from slimsearch.names import built_in_names
from slimsearch.search_spaces import Point
from slimsearch.strategies import Exhausted, StrategySettings, load_strategy
from slimsearch.strategies.samplers import History, Observation, distribution, load_sampler

if TYPE_CHECKING:
    import optuna

    from slimsearch.strategies import Proposer

START = 10
"""Number of random rows at the beginning of a search."""

# Number of points in a row that may fail because the table lacks them: some models repeat themselves for ever.
_PATIENCE = 10

Directions = Sequence[Literal["minimize"]]
Rows = Generator[int, None, None]
"""Evaluated rows in order; ends when the searcher has nothing more to propose."""


class _Answers:
    """Maps the points that a peer proposes to rows."""

    def __init__(self, table: LookupTable) -> None:
        self._table = table
        self._evaluated: set[int] = set()
        self._missed = 0

    def row(self, point: Point) -> int | None:
        """The row of `point`; None if the table lacks it, but for the nearest row after `_PATIENCE` times in a row."""
        found = self._table.row(point)
        if found is None:
            self._missed += 1
            if self._missed <= _PATIENCE:
                return None
            found = self._table.nearest(point, self._evaluated)
        self._missed = 0
        self._evaluated.add(found)
        return found


def start(table: LookupTable, seed: int) -> list[int]:
    """Distinct random rows, the same for all searches with this seed."""
    count = min(START, len(table.points))
    return [int(row) for row in np.random.default_rng([seed, 0]).choice(len(table.points), count, replace=False)]


@dataclass(frozen=True)
class SearchTrace:
    """The evaluations of one search.

    Attributes:
        rows: of the table, in the order of evaluation.
        ended: whether the searcher had nothing more to propose.
        seconds: duration.
    """

    rows: list[int]
    ended: bool
    seconds: float


def is_peer(name: str) -> bool:
    """Whether a searcher is one that our samplers are compared with."""
    return name in PEERS or name == "random"


def search(name: str, table: LookupTable, seed: int, first: Sequence[int]) -> Rows:
    """The rows that the searcher called `name` evaluates.

    Args:
        name: a peer, a built-in sampler or a sampler of the user.
        table: to search.
        seed: of the searcher.
        first: rows to begin with; NNI's strategies ignore them.

    Raises:
        SlimsearchError: there is no such searcher, or it failed.
    """
    return PEERS.get(name, _ours_called(name))(table, seed, first)


def ours() -> list[str]:
    """Names of our samplers, with the baseline ``random``."""
    return built_in_names("slimsearch.strategies.samplers")


def _ours_called(name: str) -> Callable[[LookupTable, int, Sequence[int]], Rows]:
    """Proposes as a run with this sampler and one worker does."""

    def rows(table: LookupTable, seed: int, first: Sequence[int]) -> Rows:
        proposals = Proposals(table.space, load_sampler(name), table.objectives, seed)
        history = History()
        for row in first:
            history.add(Observation(table.points[row], table.told(row)))
            yield row
        while (candidate := proposals.next(history, len(history.observations))) is not None:
            point = table.space.point(candidate)
            found = table.row(point)
            assert found is not None, "the space is the table's"
            history.add(Observation(point, table.told(found)))
            yield found

    return rows


def _optuna(make: Callable[[int, Directions], optuna.Study]) -> Callable[[LookupTable, int, Sequence[int]], Rows]:
    """A study of Optuna, by ask and tell; the first rows are enqueued."""

    def rows(table: LookupTable, seed: int, first: Sequence[int]) -> Rows:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        study = make(seed, ["minimize"] * len(table.objectives))
        distributions: dict[str, Any] = {choice.label: distribution(choice) for choice in table.space.choices}
        for row in first:
            study.enqueue_trial(_texts(table, row))
        answers = _Answers(table)
        while True:
            trial = study.ask(fixed_distributions=distributions)
            found = answers.row(_point(trial.params))
            if found is None:
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
                continue
            yield found
            study.tell(trial, list(table.told(found)))

    return rows


def _texts(table: LookupTable, row: int) -> dict[str, str]:
    """A row as Optuna records it: JSON text, so that each value is a category."""
    return {choice.label: choice.text(table.points[row][choice.label]) for choice in table.space.choices}


def _point(texts: Mapping[str, str]) -> dict[str, Any]:
    return {label: json.loads(text) for label, text in texts.items()}


def _default(seed: int, directions: Directions) -> optuna.Study:
    """The default sampler of a study, constructed again with the seed."""
    import optuna

    study = optuna.create_study(directions=directions)
    study.sampler = type(study.sampler)(seed=seed)  # type: ignore[call-arg]
    return study


def _tpe(seed: int, directions: Directions) -> optuna.Study:
    import optuna

    return optuna.create_study(directions=directions, sampler=optuna.samplers.TPESampler(multivariate=True, seed=seed))


def _nsga2(seed: int, directions: Directions) -> optuna.Study:
    import optuna

    return optuna.create_study(directions=directions, sampler=optuna.samplers.NSGAIISampler(seed=seed))


def _gp(seed: int, directions: Directions) -> optuna.Study:
    import optuna

    return optuna.create_study(directions=directions, sampler=optuna.samplers.GPSampler(seed=seed))


def _ray(table: LookupTable, seed: int, first: Sequence[int]) -> Rows:
    """Ray Tune's searcher with its defaults, without Tune."""
    import logging

    from ray.tune.search.optuna import OptunaSearch

    logging.getLogger("optuna").setLevel(logging.ERROR)
    names = [objective.metric for objective in table.objectives]
    several = len(names) > 1
    searcher = OptunaSearch(
        space={choice.label: distribution(choice) for choice in table.space.choices},
        metric=names if several else names[0],
        mode=["min"] * len(names) if several else "min",
        points_to_evaluate=[_texts(table, row) for row in first],
        seed=seed,
    )
    answers = _Answers(table)
    for number in itertools.count():
        suggested = searcher.suggest(str(number))
        assert suggested is not None, "only a searcher that limits concurrency gives nothing"
        found = answers.row(_point(suggested))
        if found is None:
            searcher.on_trial_complete(str(number), error=True)
            continue
        yield found
        searcher.on_trial_complete(str(number), result=dict(zip(names, table.told(found), strict=True)))


def _nni(name: str) -> Callable[[LookupTable, int, Sequence[int]], Rows]:
    """As in a run with one worker; NNI takes one number."""

    def rows(table: LookupTable, seed: int, first: Sequence[int]) -> Rows:
        strategy: Any = load_strategy(name, StrategySettings(workers=1, seed=seed))
        proposer: Proposer = strategy.proposer(table.space)
        answers = _Answers(table)
        with closing(proposer), suppress(Exhausted):
            for number in itertools.count():
                point = proposer.propose(str(number))
                if point is None:  # it waits for results, and has all
                    return
                found = answers.row(point)
                if found is not None:
                    yield found
                proposer.tell(str(number), None if found is None else table.told(found))

    return rows


PEERS: dict[str, Callable[[LookupTable, int, Sequence[int]], Rows]] = {
    "optuna-default": _optuna(_default),
    "optuna-tpe": _optuna(_tpe),
    "optuna-nsga2": _optuna(_nsga2),
    "optuna-gp": _optuna(_gp),
    "nni-evolution": _nni("nni_evolution"),
    "nni-tpe": _nni("nni_tpe"),
    "ray-optuna": _ray,
}
"""Searchers of other packages, with their defaults unless the name says otherwise."""

SINGLE = ("nni-evolution", "nni-tpe")
"""Searchers for one objective only."""
SLOW = ("optuna-gp", "ray-optuna")
"""Searchers with fewer seeds and evaluations."""
