"""Searches of a table, ours and those of others as they are installed, each as the rows that it evaluates.

Whoever proposes a row again pays for it again, as a user would whose networks are trained anew: so do all but ours,
which never propose twice, and NNI's, which leave out what they have tried (its TPE walks the grid from its first
repeat on). All begin with the same random rows, but for NNI's strategies, which can not be given any. What the space
knows before an evaluation (parameters, latency) only ours can be told. A point that the table lacks is a failed trial
to whoever proposed it, and costs nothing; after ten in a row, the nearest row that was not evaluated stands for it.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Generator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import Objective
from slimsearch.loop.proposals import Proposals
from slimsearch.names import built_in_names
from slimsearch.search_spaces import Candidate, Point, Space
from slimsearch.strategies import StrategySettings
from slimsearch.strategies.samplers import History, Observation, distribution, load_sampler

if TYPE_CHECKING:
    import optuna

    from slimsearch.strategies._nni.drive import MultiTrial

START = 10
"""Random rows with which a search begins."""

# So many points in a row that the table lacks fail: a model that does not learn from failures may repeat itself.
_PATIENCE = 10

Directions = Sequence[Literal["minimize"]]
Rows = Generator[int, None, None]
"""Evaluated rows, one after the other; ends by itself where the search has nothing more to propose."""


@dataclass(frozen=True, eq=False)
class Problem:
    """A table to search.

    Attributes:
        space: its points.
        objectives: of which `losses` has a column each; the first one is learned.
        points: (rows,) canonical.
        losses: (rows, objectives) what a search is told, less is better.
    """

    space: Space
    objectives: tuple[Objective, ...]
    points: Sequence[Point]
    losses: np.ndarray[Any, np.dtype[np.float64]]

    def row(self, point: Point) -> int | None:
        """Where `point` is in the table, if it is."""
        try:
            return self._rows.get(Candidate(self.space.canonical(point)).key)
        except SlimsearchError:
            return None

    def told(self, row: int) -> tuple[float, ...]:
        """The losses of a row."""
        return tuple(float(value) for value in self.losses[row])

    def nearest(self, point: Point, evaluated: Set[int]) -> int:
        """The row not in `evaluated` that has most values in common with `point`, any row where all are."""
        texts = np.array([choice.text(point[choice.label]) for choice in self.space.choices])
        common = (self._texts == texts).sum(axis=1)
        if len(evaluated) < len(common):
            common[list(evaluated)] = -1
        return int(common.argmax())

    @cached_property
    def _texts(self) -> np.ndarray[Any, np.dtype[np.str_]]:
        return np.array([[c.text(point[c.label]) for c in self.space.choices] for point in self.points])

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {Candidate(point).key: row for row, point in enumerate(self.points)}


class _Answers:
    """Which rows the points are that one of the others proposes."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._evaluated: set[int] = set()
        self._missed = 0

    def row(self, point: Point) -> int | None:
        """None where the table lacks `point`, and not too often in a row."""
        found = self._problem.row(point)
        if found is None:
            self._missed += 1
            if self._missed <= _PATIENCE:
                return None
            found = self._problem.nearest(point, self._evaluated)
        self._missed = 0
        self._evaluated.add(found)
        return found


def start(problem: Problem, seed: int) -> list[int]:
    """Different random rows, for every search with this seed."""
    count = min(START, len(problem.points))
    return [int(row) for row in np.random.default_rng([seed, 0]).choice(len(problem.points), count, replace=False)]


@dataclass(frozen=True)
class Searched:
    """What one search evaluated.

    Attributes:
        rows: in order.
        ended: by itself: there was nothing more to propose.
        seconds: that it took.
    """

    rows: list[int]
    ended: bool
    seconds: float


def is_peer(name: str) -> bool:
    """Whether a searcher is what ours are compared with."""
    return name in PEERS or name == "random"


def search(name: str, problem: Problem, seed: int, first: Sequence[int]) -> Rows:
    """The rows that the searcher called `name` evaluates.

    Args:
        name: a peer, or a sampler of ours or of the user's.
        problem: what is searched.
        seed: of the searcher's random numbers.
        first: rows with which it begins, if it can be given any.

    Raises:
        SlimsearchError: there is no such searcher, or it failed.
    """
    return PEERS.get(name, _ours_called(name))(problem, seed, first)


def ours() -> list[str]:
    """Names of our samplers; ``random`` among them is the plain one that others are compared with."""
    return built_in_names("slimsearch.strategies.samplers")


def _ours_called(name: str) -> Callable[[Problem, int, Sequence[int]], Rows]:
    """What a run does that is given this sampler and has one worker."""

    def rows(problem: Problem, seed: int, first: Sequence[int]) -> Rows:
        proposals = Proposals(problem.space, load_sampler(name), problem.objectives, seed)
        history = History()
        for row in first:
            history.add(Observation(problem.points[row], problem.told(row)))
            yield row
        while (candidate := proposals.next(history, len(history.observations))) is not None:
            found = problem.row(candidate.architecture)
            assert found is not None, "the space is the table's"
            history.add(Observation(candidate.architecture, problem.told(found)))
            yield found

    return rows


def _optuna(make: Callable[[int, Directions], optuna.Study]) -> Callable[[Problem, int, Sequence[int]], Rows]:
    """By ask and tell; the first rows are enqueued."""

    def rows(problem: Problem, seed: int, first: Sequence[int]) -> Rows:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        study = make(seed, ["minimize"] * len(problem.objectives))
        distributions: dict[str, Any] = {choice.label: distribution(choice) for choice in problem.space.choices}
        for row in first:
            study.enqueue_trial(_texts(problem, row))
        answers = _Answers(problem)
        while True:
            trial = study.ask(fixed_distributions=distributions)
            found = answers.row(_point(trial.params))
            if found is None:
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
                continue
            yield found
            study.tell(trial, list(problem.told(found)))

    return rows


def _texts(problem: Problem, row: int) -> dict[str, str]:
    """A row as Optuna records it: JSON text, so that every value is a category."""
    return {choice.label: choice.text(problem.points[row][choice.label]) for choice in problem.space.choices}


def _point(texts: Mapping[str, str]) -> dict[str, Any]:
    return {label: json.loads(text) for label, text in texts.items()}


def _default(seed: int, directions: Directions) -> optuna.Study:
    """The sampler that a study has if none is named; made anew, since it takes no seed otherwise."""
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


def _ray(problem: Problem, seed: int, first: Sequence[int]) -> Rows:
    """Tune's searcher with its defaults, asked without Tune around it."""
    import logging

    from ray.tune.search.optuna import OptunaSearch

    logging.getLogger("optuna").setLevel(logging.ERROR)
    names = [objective.metric for objective in problem.objectives]
    several = len(names) > 1
    searcher = OptunaSearch(
        space={choice.label: distribution(choice) for choice in problem.space.choices},
        metric=names if several else names[0],
        mode=["min"] * len(names) if several else "min",
        points_to_evaluate=[_texts(problem, row) for row in first],
        seed=seed,
    )
    answers = _Answers(problem)
    for number in itertools.count():
        suggested = searcher.suggest(str(number))
        assert suggested is not None, "only a searcher that limits concurrency gives nothing"
        found = answers.row(_point(suggested))
        if found is None:
            searcher.on_trial_complete(str(number), error=True)
            continue
        yield found
        searcher.on_trial_complete(str(number), result=dict(zip(names, problem.told(found), strict=True)))


def _nni(make: Callable[[int], MultiTrial]) -> Callable[[Problem, int, Sequence[int]], Rows]:
    """As in a run with one worker; more is better to NNI, and it takes one number."""

    def rows(problem: Problem, seed: int, first: Sequence[int]) -> Rows:
        from slimsearch.strategies._nni import proposals as _nni_proposals

        strategy = make(seed)
        mutables, point_of = _nni_proposals.mutables(problem.space)
        proposals = _nni_proposals.proposals(strategy.NAME, strategy._strategy(mutables), mutables, point_of)
        answers = _Answers(problem)
        number = 0
        try:
            point = next(proposals, None)
            while point is not None:
                found = answers.row(point)
                score = None
                if found is not None:
                    yield found
                    score = -problem.told(found)[0]
                try:
                    point = proposals.send([(number, score)])
                except StopIteration:
                    break
                number += 1
        finally:
            proposals.close()

    return rows


def _nni_evolution(seed: int) -> MultiTrial:
    from slimsearch.strategies.nni_evolution import NniEvolution

    return NniEvolution(StrategySettings(workers=1, seed=seed))


def _nni_tpe(seed: int) -> MultiTrial:
    from slimsearch.strategies.nni_tpe import NniTpe

    return NniTpe(StrategySettings(workers=1, seed=seed))


PEERS: dict[str, Callable[[Problem, int, Sequence[int]], Rows]] = {
    "optuna-default": _optuna(_default),
    "optuna-tpe": _optuna(_tpe),
    "optuna-nsga2": _optuna(_nsga2),
    "optuna-gp": _optuna(_gp),
    "nni-evolution": _nni(_nni_evolution),
    "nni-tpe": _nni(_nni_tpe),
    "ray-optuna": _ray,
}
"""Searchers of others, with their own defaults but for what the name says."""

SINGLE = ("nni-evolution", "nni-tpe")
"""Those that search for one objective only."""
SLOW = ("gp", "optuna-gp", "ray-optuna")
"""Those that are given fewer seeds and evaluations."""
