"""Ray Tune's searchers as proposers."""

from __future__ import annotations

import inspect
import json
from typing import Any

from slimsearch.errors import SlimsearchError, describe_error
from slimsearch.names import load_class
from slimsearch.search_spaces import Point, Space
from slimsearch.strategies._proposer import Exhausted


def tune_searcher(sampler: str) -> type[Any] | None:
    """The class that `sampler` names if it is a searcher of Tune, else None.

    Raises:
        SlimsearchError: there is no such class.
    """
    if ":" not in sampler:
        return None
    found = load_class("sampler", sampler, "slimsearch.strategies.samplers")
    if not any(base.__module__.startswith("ray.tune.search") for base in found.__mro__):
        return None
    from ray.tune.search import Searcher
    from ray.tune.search.basic_variant import BasicVariantGenerator

    if not issubclass(found, Searcher | BasicVariantGenerator):
        raise SlimsearchError(f"sampler '{sampler}' is neither a Searcher of Ray Tune nor its BasicVariantGenerator")
    return found


class TuneProposer:
    """A searcher of Ray Tune as a `Proposer`; each choice becomes a categorical of texts.

    A searcher whose argument `metric` accepts a list, such as OptunaSearch, gets all objectives; others get the first.

    Args:
        searcher: constructed with the seed, if it accepts one, and without other arguments.
        space: of the points.
        objectives: number of objectives.
        seed: of the run.

    Raises:
        SlimsearchError: the searcher cannot be constructed, or rejects the space.
    """

    def __init__(self, searcher: type[Any], space: Space, objectives: int, seed: int) -> None:
        from ray import tune

        self.name = searcher.__name__
        self._labels = [choice.label for choice in space.choices]
        domains = {choice.label: tune.choice([choice.text(v) for v in choice.values]) for choice in space.choices}
        known = inspect.signature(searcher).parameters
        several = objectives > 1 and "list" in str(getattr(known.get("metric"), "annotation", "")).lower()
        self._metrics = [f"objective_{position}" for position in range(objectives if several else 1)]
        seeds = {name: seed for name in ("seed", "random_state") if name in known}
        try:
            self._searcher = searcher(**seeds)
            if hasattr(self._searcher, "suggest"):
                metric, mode = (self._metrics, ["min"] * objectives) if several else (self._metrics[0], "min")
                taken = self._searcher.set_search_properties(metric, mode, domains)
            else:
                self._add_variants(domains)
                taken = True
        except Exception as error:  # it may need arguments, or a package that is not installed
            raise SlimsearchError(f"searcher {self.name}: {describe_error(error)}") from error
        if not taken:
            raise SlimsearchError(f"searcher {self.name} does not take a space by set_search_properties")

    def propose(self, key: str) -> Point | None:
        """See `Proposer`."""
        try:
            if hasattr(self._searcher, "suggest"):
                found = self._searcher.suggest(key)
            else:
                variant = self._searcher.next_trial()
                found = "FINISHED" if variant is None else variant.config
        except Exception as error:
            raise SlimsearchError(f"searcher {self.name} failed: {describe_error(error)}") from error
        if found == "FINISHED":
            raise Exhausted
        return None if found is None else {label: json.loads(found[label]) for label in self._labels}

    def tell(self, key: str, losses: tuple[float, ...] | None, *, failed: bool = False) -> None:
        """See `Proposer`. Tune's searchers know trials without a result that are no errors, such as stopped ones."""
        result = None if losses is None else {**dict(zip(self._metrics, losses, strict=False)), "training_iteration": 1}
        try:
            self._searcher.on_trial_complete(key, result=result, error=failed)
        except Exception as error:
            raise SlimsearchError(f"searcher {self.name} failed: {describe_error(error)}") from error

    def close(self) -> None:
        """See `Proposer`."""

    def _add_variants(self, domains: dict[str, Any]) -> None:
        from ray.tune.experiment import Experiment

        # The generator needs an experiment, whose function never runs.
        endless = Experiment("variants", run=lambda config: {}, config=domains, num_samples=1_000_000_000)
        self._searcher.add_configurations([endless])
