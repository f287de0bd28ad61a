"""Optuna's samplers as functions of the history: a study is made from it for each proposal."""

from __future__ import annotations

import datetime
import json
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from slimsearch.evaluators import Objective
from slimsearch.search_spaces import Choice, Point, Space
from slimsearch.strategies.samplers._sampler import History, Observation, new_point

if TYPE_CHECKING:
    import optuna

_EPOCH = datetime.datetime(2000, 1, 1)


def propose(
    make: Callable[[int], optuna.samplers.BaseSampler],
    space: Space,
    objectives: Sequence[Objective],
    history: History,
    rng: np.random.Generator,
    generation: Callable[[int], dict[str, Any]] = lambda position: {},
) -> Point:
    """What the sampler that `make` builds from a seed suggests after `history`.

    Args:
        make: a fresh sampler from a seed: none keeps anything from one proposal to the next.
        space: every choice becomes a categorical over the JSON texts of its values.
        objectives: their losses are minimised.
        history: finished trials are COMPLETE in the study, running ones RUNNING.
        rng: gives the seed.
        generation: system attributes of the finished trial at a position, for samplers that keep state there.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sampler = make(int(rng.integers(2**31)))
        study = optuna.create_study(directions=["minimize"] * len(objectives), sampler=sampler)
        distributions = {choice.label: distribution(choice) for choice in space.choices}
        position = 0
        for observation in history.observations:
            if observation.losses is None and not observation.running:
                continue
            attributes = generation(position) if observation.losses is not None else {}
            position += observation.losses is not None
            study.add_trial(_frozen(space, distributions, observation, attributes))
        trial = study.ask(fixed_distributions=dict(distributions))
    return {label: json.loads(text) for label, text in trial.params.items()}


def propose_new(
    make: Callable[[int], optuna.samplers.BaseSampler],
    space: Space,
    objectives: Sequence[Objective],
    history: History,
    rng: np.random.Generator,
    *,
    startup: int,
    draws: int = 3,
    generation: Callable[[int], dict[str, Any]] = lambda position: {},
) -> Point:
    """What `propose` gives, drawn again where it was tried, in the end a neighbour; at first uniform draws.

    Args:
        make, space, objectives, history, rng, generation: as for `propose`.
        startup: so many finished trials come first.
        draws: each of them makes a study from the history.
    """
    if history.finished_count < startup:
        return new_point(space, history, lambda: space.sample(rng), rng)
    return new_point(space, history, lambda: propose(make, space, objectives, history, rng, generation), rng, draws)


def distribution(choice: Choice) -> optuna.distributions.CategoricalDistribution:
    """A choice as Optuna records it."""
    from optuna.distributions import CategoricalDistribution

    return CategoricalDistribution(tuple(choice.text(value) for value in choice.values))


def _frozen(
    space: Space, distributions: dict[str, Any], observation: Observation, attributes: dict[str, Any]
) -> optuna.trial.FrozenTrial:
    import optuna

    # Samplers that look at all choices together need a value for the inactive ones too: always the same, so that
    # it carries no information.
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
