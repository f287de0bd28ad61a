"""Optuna's samplers as functions of the history: each proposal builds a study from it."""

from __future__ import annotations

import datetime
import json
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from slimsearch.evaluators import Objective
from slimsearch.search_spaces import Choice, Point, Space
from slimsearch.strategies.samplers._sampler import History, Observation, new_point

if TYPE_CHECKING:
    import optuna

# Maximum number of draws from the sampler for one proposal; each builds a study.
_DRAWS = 3
_EPOCH = datetime.datetime(2000, 1, 1)


class OptunaSampler(ABC):
    """A sampler of Optuna after random draws; replaces a tried proposal by another one, in the end by a neighbor."""

    STARTUP: ClassVar[int] = 0
    """Number of finished trials before the sampler proposes."""

    @abstractmethod
    def make(self, seed: int) -> optuna.samplers.BaseSampler:
        """A new Optuna sampler, for one proposal."""

    def generation(self, position: int) -> dict[str, Any]:
        """System attributes of the finished trial at `position`, for samplers that use them."""
        return {}

    def propose(
        self, space: Space, objectives: Sequence[Objective], history: History, rng: np.random.Generator
    ) -> Point:
        if history.finished_count < self.STARTUP:
            return new_point(space, history, lambda: space.sample(rng), rng)
        return new_point(space, history, lambda: self._suggest(space, objectives, history, rng), rng, _DRAWS)

    def _suggest(
        self, space: Space, objectives: Sequence[Objective], history: History, rng: np.random.Generator
    ) -> Point:
        """The sampler's suggestion from a study of `history`.

        Every choice becomes a categorical over the JSON texts of its values. Finished trials are COMPLETE, running ones
        RUNNING.
        """
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sampler = self.make(int(rng.integers(2**31)))
            study = optuna.create_study(directions=["minimize"] * len(objectives), sampler=sampler)
            distributions = {choice.label: distribution(choice) for choice in space.choices}
            position = 0
            for observation in history.observations:
                if observation.losses is None and not observation.running:
                    continue
                attributes = self.generation(position) if observation.losses is not None else {}
                position += observation.losses is not None
                study.add_trial(_frozen(space, distributions, observation, attributes))
            trial = study.ask(fixed_distributions=dict(distributions))
        return {label: json.loads(text) for label, text in trial.params.items()}


def distribution(choice: Choice) -> optuna.distributions.CategoricalDistribution:
    """The distribution of a choice in an Optuna study."""
    from optuna.distributions import CategoricalDistribution

    return CategoricalDistribution(tuple(choice.text(value) for value in choice.values))


def _frozen(
    space: Space, distributions: dict[str, Any], observation: Observation, attributes: dict[str, Any]
) -> optuna.trial.FrozenTrial:
    import optuna

    # Multivariate samplers also need a value for each inactive choice; a constant one carries no information.
    point = space.complete(observation.point)
    constraints = {"constraints": [observation.violation]} if observation.losses is not None else {}
    return optuna.trial.FrozenTrial(
        number=-1,
        trial_id=-1,
        state=optuna.trial.TrialState.RUNNING if observation.running else optuna.trial.TrialState.COMPLETE,
        value=None,
        values=list(observation.losses) if observation.losses is not None else None,
        datetime_start=_EPOCH,
        datetime_complete=None if observation.running else _EPOCH,
        params={choice.label: choice.text(point[choice.label]) for choice in space.choices},
        distributions=distributions,
        user_attrs={},
        system_attrs={**constraints, **attributes},
        intermediate_values={},
    )
