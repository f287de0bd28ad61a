"""Samplers (which candidate to try next), one algorithm per file."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from slimsearch.errors import SlimsearchError, describe_error
from slimsearch.names import load_class
from slimsearch.strategies.samplers._optuna import OptunaSampler, distribution
from slimsearch.strategies.samplers._sampler import History, Observation, Sampler, keeps_limits

if TYPE_CHECKING:
    import optuna

__all__ = ["History", "Observation", "Sampler", "distribution", "keeps_limits", "load_sampler"]


# In configurations of older runs.
_REPLACED = {
    "bananas": "graph_gp", "gp": "optuna.samplers:GPSampler", "nsga3": "optuna.samplers:NSGAIIISampler",
    "quasi_random": "optuna.samplers:QMCSampler",
}  # fmt: skip


def load_sampler(name: str) -> Sampler:
    """The sampler called `name`: a built-in, a user's class, or a class of Optuna (``optuna.samplers:QMCSampler``).

    Raises:
        SlimsearchError: it does not exist, or cannot be constructed without arguments.
    """
    found = load_class("sampler", _REPLACED.get(name, name), "slimsearch.strategies.samplers")
    if callable(getattr(found, "propose", None)):
        try:
            return found()  # type: ignore[no-any-return]
        except Exception as error:
            raise SlimsearchError(f"sampler '{name}': {describe_error(error)}") from error
    from optuna.samplers import BaseSampler

    if issubclass(found, BaseSampler):
        return _FromOptuna(found)
    if any(base.__module__.startswith("ray.tune") for base in found.__mro__):
        raise SlimsearchError(f"sampler '{name}' is a searcher of Ray Tune: it needs --strategy ray")
    raise SlimsearchError(f"sampler '{name}' has no method propose, and is not a sampler of Optuna")


class _FromOptuna(OptunaSampler):
    """A sampler of any Optuna class that works from a study's trials."""

    def __init__(self, sampler_class: type[Any]) -> None:
        self._class = sampler_class

    def make(self, seed: int) -> optuna.samplers.BaseSampler:
        takes_seed = "seed" in inspect.signature(self._class).parameters
        return self._class(seed=seed) if takes_seed else self._class()  # type: ignore[no-any-return]
