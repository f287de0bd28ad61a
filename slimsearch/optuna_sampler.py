"""The default sampler for studies of plain Optuna."""

from __future__ import annotations

import copy
import json
import math
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import Objective
from slimsearch.loop.proposals import Proposals
from slimsearch.search_spaces import ChoiceSpace, Point, Space
from slimsearch.strategies.samplers import History, Observation, load_sampler

# Most values of one choice: each is a column of the sampler's features.
_MOST_VALUES = 1024


class GraphGPSampler(BaseSampler):
    """Slimsearch's sampler `graph_gp` as an Optuna sampler, for one objective or several.

    >>> import optuna
    >>> sampler = GraphGPSampler({"width": range(8, 65, 8), "activation": ["relu", "gelu"]})
    >>> study = optuna.create_study(sampler=sampler)  # doctest: +SKIP

    The objective asks for the labels of the space with ``trial.suggest_categorical``, ``suggest_int``, or
    ``suggest_float`` with a ``step``. Labels outside the space get random values. If a trial did not ask for a label,
    the same point with another value of this label is not tried; a `Space` with conditions knows this beforehand.

    Args:
        space: label to values, label to Optuna distribution, or a `Space` of Slimsearch. A metric that `Space.known`
            gives is used before the evaluation if it is among ``study.metric_names``.
        seed: seed of the proposals, which depend only on it, the trials of the study, and the number of the trial.

    Raises:
        SlimsearchError: a float has no step, a choice has more than 1,024 values, or the space is empty.
    """

    def __init__(self, space: Space | Mapping[str, Any], seed: int | None = None) -> None:
        if isinstance(space, Space):
            self._space = space
        else:
            self._space = _AskedSpace({label: _values(label, values) for label, values in space.items()})
        self._seed = int(np.random.default_rng(seed).integers(2**31))
        self._random = RandomSampler(seed=seed)
        self.__setstate__({})

    def __getstate__(self) -> dict[str, Any]:
        return {"_space": self._space, "_seed": self._seed, "_random": self._random}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._studies: dict[str, _StudyHistory] = {}
        self._points: dict[tuple[str, int], dict[str, Any]] = {}  # of running trials, by study and number
        self._lock = threading.Lock()

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {}

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        name = study.study_name
        with self._lock:  # with n_jobs above 1, threads share the sampler
            if name not in self._studies:
                self._studies[name] = _StudyHistory(self._space, study, self._seed)
            running = {number: point for (of, number), point in self._points.items() if of == name}
            self._points[name, trial.number] = self._studies[name].propose(study, trial.number, running)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        with self._lock:
            self._points.pop((study.study_name, trial.number), None)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        point = self._points.get((study.study_name, trial.number), {})
        if param_name not in point:
            return self._random.sample_independent(study, trial, param_name, param_distribution)
        value = point[param_name]
        try:
            create_trial(value=0.0, params={param_name: value}, distributions={param_name: param_distribution})
        except (TypeError, ValueError):
            raise SlimsearchError(
                f"'{param_name}' can be {value!r} in the sampler's space, but not in {param_distribution}"
            ) from None
        return value

    def reseed_rng(self) -> None:
        self._random.reseed_rng()


class _AskedSpace(ChoiceSpace):
    """Choices of which some trials asked for only a part."""

    def __init__(self, choices: Mapping[str, Sequence[Any]]) -> None:
        super().__init__(choices)
        self._asked: dict[tuple[str, ...], set[str]] = {}

    def learn(self, asked: Point) -> bool:
        """Note the values that a finished trial asked for; returns whether this changes `canonical`."""
        labels = tuple(choice.label for choice in self.choices if choice.label in asked)
        if len(labels) == len(self.choices):
            return False
        known = self._asked.setdefault(labels, set())
        before = len(known)
        known.add(_text(asked, labels))
        return len(known) > before

    def canonical(self, point: Point) -> dict[str, Any]:
        """The point; labels that a trial with these values did not ask for have their first value."""
        complete = super().canonical(point)
        for labels, known in self._asked.items():
            if _text(complete, labels) in known:
                return self.complete({label: complete[label] for label in labels})
        return complete


def _text(point: Point, labels: Sequence[str]) -> str:
    return json.dumps([point[label] for label in labels])


class _StudyHistory:
    """The trials of a study as the history of a sampler.

    Args:
        space: of the points.
        study: its directions and names of metrics become the objectives.
        seed: of the proposals.
    """

    def __init__(self, space: Space, study: Study, seed: int) -> None:
        names = study.metric_names or [f"value {position}" for position in range(len(study.directions))]
        self._objectives = [
            Objective(name, "maximize" if direction == StudyDirection.MAXIMIZE else "minimize")
            for name, direction in zip(names, study.directions, strict=True)
        ]
        self._space = space = copy.deepcopy(space) if isinstance(space, _AskedSpace) else space
        self._proposals = Proposals(space, load_sampler("graph_gp"), self._objectives, seed)
        self._history, self._numbers = History(), list[int]()
        self._learned: set[int] = set()

    def propose(self, study: Study, number: int, running: Mapping[int, Point]) -> dict[str, Any]:
        """The point of trial `number`; `running` has the points of running trials of this process."""
        trials = [trial for trial in study.get_trials(deepcopy=False) if trial.number != number]
        if sum(self._learn(trial) for trial in trials):  # all of them, not only up to the first
            self._history, self._numbers = History(), []
        found = {trial.number: self._observation(trial, running.get(trial.number, {})) for trial in trials}
        self._update({number: observation for number, observation in found.items() if observation is not None})
        candidate = self._proposals.next(self._history, number)
        if candidate is None:  # all points were tried
            return self._space.sample(np.random.default_rng(number))
        return self._space.point(candidate)

    def _learn(self, trial: FrozenTrial) -> bool:
        """Whether the trial shows that some labels are not always asked for, which was not known."""
        if (
            not isinstance(self._space, _AskedSpace)
            or trial.state != TrialState.COMPLETE
            or trial.number in self._learned
        ):
            return False
        self._learned.add(trial.number)
        return self._space.learn(trial.params)

    def _update(self, found: Mapping[int, Observation]) -> None:
        """Change and extend the history; start a new one if a trial has another point or was inserted."""
        known = zip(self._numbers, self._history.observations, strict=True)
        numbers = sorted(found)
        if numbers[: len(self._numbers)] != self._numbers or any(found[n].point != o.point for n, o in known):
            self._history, self._numbers = History(), []
        for row, number in enumerate(self._numbers):
            if found[number] != self._history.observations[row]:
                self._history.change(row, found[number])
        for number in numbers[len(self._numbers) :]:
            self._history.add(found[number])
        self._numbers = numbers

    def _observation(self, trial: FrozenTrial, proposed: Point) -> Observation | None:
        """The observation of a trial; None if its point is unknown, or not in the space."""
        labels = {choice.label for choice in self._space.choices}
        point = {**proposed, **{label: value for label, value in trial.params.items() if label in labels}}
        ended = trial.state.is_finished()
        if not ended and len(point) < len(labels) and not proposed:
            return None  # another process has not asked for all labels yet
        try:
            point = self._space.canonical(self._space.complete(point))
        except SlimsearchError:  # a trial of another space, or one that was enqueued
            return None
        if trial.state != TrialState.COMPLETE or not all(map(math.isfinite, trial.values)):
            return Observation(point, running=not ended)
        metrics = {o.metric: value for o, value in zip(self._objectives, trial.values, strict=True)}
        return Observation(point, tuple(o.loss(metrics) for o in self._objectives))


def _values(label: str, given: Any) -> Any:
    """The values of a distribution; anything else is returned as it is."""
    if isinstance(given, CategoricalDistribution):
        return given.choices
    if isinstance(given, FloatDistribution) and given.step is None:
        raise SlimsearchError(f"'{label}' is a float without a step: give it one, or list its values")
    if isinstance(given, IntDistribution | FloatDistribution):
        step = given.step or 1
        count = int((given.high - given.low) / step + 1e-9) + 1
        if count <= _MOST_VALUES:
            return [type(given.low)(given.low + i * step) for i in range(count)]
    elif not isinstance(given, Sequence) or len(given) <= _MOST_VALUES:
        return given
    raise SlimsearchError(f"'{label}' has more than {_MOST_VALUES:,} values: give it a larger step")
