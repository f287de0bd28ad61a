"""The importance of each choice for each objective."""

from __future__ import annotations

import json
import logging
import math
import random
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from slimsearch.evaluators import Objective
from slimsearch.record.trial import COMPLETE, SEARCH, Trial

_log = logging.getLogger(__name__)

LEAST = 10
"""Minimum number of trials for importances."""

# The time of fANOVA is quadratic in the number of trials; above this number, PED-ANOVA is used.
_MOST_FANOVA, _TREES, _SEED = 200, 16, 0
_MOST = 2000
# Each value of a category doubles the time of fANOVA; choices with more values are treated as numbers.
_MOST_VALUES = 8
_INACTIVE = "inactive"


@dataclass(frozen=True)
class Importances:
    """The importance of each choice for one objective, or the reason why it is unknown.

    Attributes:
        metric: the objective.
        shares: by label, most important first; they add up to 1. Empty if unknown.
        method: "fANOVA": share of the variance that a choice explains (Hutter et al. 2014); or "PED-ANOVA": how much a
            choice decides about being among the best tenth (Watanabe et al. 2023).
        trials: number of trials that they were computed from.
        note: why they are unknown.
    """

    metric: str
    shares: Mapping[str, float]
    method: str = ""
    trials: int = 0
    note: str = ""


def importances(trials: Sequence[Trial], objectives: Sequence[Objective]) -> list[Importances]:
    """Importances from the complete trials of the search for each objective, by Optuna's evaluators.

    A choice that is inactive in a candidate has the value "inactive". Compressed networks are excluded, as their size
    does not depend on the choices alone.
    """
    done = [t for t in trials if t.kind == SEARCH and t.state == COMPLETE]
    return [_of(done, objective) for objective in objectives]


def _of(done: Sequence[Trial], objective: Objective) -> Importances:
    metric = objective.metric
    found = [t for t in done if math.isfinite(t.metrics.get(metric, math.nan))]
    if len(found) < LEAST:
        return Importances(metric, {}, note=f"not computed: {len(found)} completed trials are fewer than {LEAST}")
    if len({t.metrics[metric] for t in found}) == 1:
        return Importances(metric, {}, note="not computed: it is equal in all trials")
    fanova = len(found) <= _MOST_FANOVA
    if len(found) > _MOST:
        found = random.Random(_SEED).sample(found, _MOST)
    points = [{label: json.dumps(value) for label, value in t.point.items()} for t in found]
    labels = dict.fromkeys(label for point in points for label in point)
    values = {label: sorted({point.get(label, _INACTIVE) for point in points}, key=_order) for label in labels}
    varied = {label: texts for label, texts in values.items() if len(texts) > 1}
    if not varied:
        return Importances(metric, {}, note="not computed: all trials have the same choices")
    try:
        shares = _shares(found, points, varied, objective, fanova)
    except Exception as error:  # numerical errors of an evaluator must not prevent the report
        _log.debug("importances of %s: %s", metric, error)
        return Importances(metric, {}, note=f"not computed: Optuna's evaluator failed ({type(error).__name__})")
    if not all(map(math.isfinite, shares.values())) or sum(shares.values()) <= 0:
        return Importances(metric, {}, note="not computed: no choice explains any of it")
    whole = dict.fromkeys(values, 0.0) | shares
    ordered = dict(sorted(whole.items(), key=lambda item: (-item[1], item[0])))
    return Importances(metric, ordered, "fANOVA" if fanova else "PED-ANOVA", len(found))


def _order(text: str) -> tuple[bool, float, str]:
    """Sort numbers first and by size, so that neighbors are similar."""
    try:
        return False, float(text), text
    except ValueError:
        return True, 0.0, text


def _shares(
    trials: Sequence[Trial], points: Sequence[Mapping[str, str]], varied: Mapping[str, Sequence[str]],
    objective: Objective, fanova: bool,
) -> dict[str, float]:  # fmt: skip
    import optuna
    from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
    from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator, get_param_importances
    from optuna.study import StudyDirection
    from optuna.trial import create_trial

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # experimental
        study = optuna.create_study(directions=[StudyDirection[objective.direction.upper()]])
        distributions: dict[str, BaseDistribution] = {
            label: IntDistribution(0, len(texts) - 1)
            if len(texts) > _MOST_VALUES
            else CategoricalDistribution(range(len(texts)))
            for label, texts in varied.items()
        }
        indices = {label: {text: index for index, text in enumerate(texts)} for label, texts in varied.items()}
        study.add_trials(
            [
                create_trial(
                    params={label: indices[label][point.get(label, _INACTIVE)] for label in varied},
                    distributions=dict(distributions), value=trial.metrics[objective.metric],
                )
                for trial, point in zip(trials, points, strict=True)
            ]
        )  # fmt: skip
        evaluator = FanovaImportanceEvaluator(n_trees=_TREES, seed=_SEED) if fanova else PedAnovaImportanceEvaluator()
        return {label: float(share) for label, share in get_param_importances(study, evaluator=evaluator).items()}
