"""Ranking of trials by objectives, limits and weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import Limit, Metrics, Objective, WeightedProduct, front, leading_metric, select
from slimsearch.options.configuration import Configuration, pairs
from slimsearch.record.trial import (
    AUXILIARY,
    COMPLETE,
    COMPRESSION,
    PAUSED,
    REPEAT,
    RULED_OUT,
    RUNNING,
    STEP,
    Trial,
)
from slimsearch.strategies.samplers import History, Observation

TARGETS_FROM = 10
"""Number of trials whose medians become the targets of the weighted product."""

SCORE = Objective("score", "maximize")
_ACCURACY = Objective("val_accuracy", "maximize")


@dataclass(frozen=True)
class Ranking:
    """Ranks trials by their recorded metrics.

    Attributes:
        objectives: in order; the first one breaks ties.
        limits: hard limits.
        weighted: rank by the weighted product instead of the Pareto front.
        weights, targets: of the product.
    """

    objectives: tuple[Objective, ...]
    limits: tuple[Limit, ...] = ()
    weighted: bool = False
    weights: Metrics | None = None
    targets: Metrics | None = None

    @classmethod
    def of(cls, configuration: Configuration) -> Ranking:
        """The ranking of a configuration.

        Raises:
            SlimsearchError: objectives, weights or targets are invalid.
        """
        objectives = tuple(Objective.parse(text) for text in configuration.objectives.split(",") if text.strip())
        names = [objective.metric for objective in objectives]
        if not objectives or len(set(names)) != len(names):
            raise SlimsearchError(f"--objectives '{configuration.objectives}': give one or more different metrics")
        minimized = [o.metric for o in objectives if o.direction == "minimize"]
        weights, targets = pairs("weights", configuration.weights), pairs("targets", configuration.targets)
        for flag, given in (("--weights", weights), ("--targets", targets)):
            for name, value in given.items():
                if name not in minimized:
                    raise SlimsearchError(f"{flag} names '{name}'; minimized objectives: {', '.join(minimized)}")
                if flag == "--targets" and value <= 0:
                    raise SlimsearchError(f"--targets {name}={value:g} is not above 0")
        limits = (
            ("latency_ms", configuration.max_latency_ms, True, "--max-latency-ms"),
            ("size_kib", configuration.max_size_kib, True, "--max-size-kib"),
            ("ram_kib", configuration.max_ram_kib, True, "--max-ram-kib"),
            ("flash_kib", configuration.max_flash_kib, True, "--max-flash-kib"),
            ("params", configuration.max_params, True, "--max-params"),
            ("macs", configuration.max_macs, True, "--max-macs"),
            (leading_metric(names) or _ACCURACY.metric, configuration.min_accuracy, False, "--min-accuracy"),
        )
        return cls(
            objectives,
            tuple(Limit(metric, bound, upper, flag) for metric, bound, upper, flag in limits if bound is not None),
            configuration.objective == "weighted",
            weights,
            targets if set(targets) == set(minimized) else None,
        )

    @property
    def leading(self) -> Objective:
        """The metric that says how good a network is: the first objective on the validation split, or accuracy."""
        name = leading_metric(objective.metric for objective in self.objectives)
        return next((objective for objective in self.objectives if objective.metric == name), _ACCURACY)

    def broken(self, metrics: Metrics) -> str | None:
        """A message about the first hard limit that `metrics` violate, or None."""
        return next((reason for limit in self.limits if (reason := limit.broken(metrics))), None)

    def violations(self, metrics: Metrics) -> list[float]:
        """The excess over each limit, as a fraction of the limit; 0 or less where it is met."""
        return [limit.excess(metrics) for limit in self.limits]

    def violation(self, metrics: Metrics) -> float:
        """The total excess over all limits; 0 for none. Relative, so that limits of different units count alike."""
        return sum(max(0.0, excess) for excess in self.violations(metrics))

    def feasible(self, trials: Sequence[Trial]) -> list[Trial]:
        """Complete trials that meet every limit. Excludes subnet, repeat and step trials."""
        return [t for t in trials if t.state == COMPLETE and t.kind not in AUXILIARY and self.broken(t.metrics) is None]

    def front(self, trials: Sequence[Trial]) -> list[Trial]:
        """Feasible trials that are not dominated, the best in the first objective first."""
        found = self.feasible(trials)
        on_front = [found[i] for i in front(self.objectives, [t.metrics for t in found])]
        return sorted(on_front, key=lambda t: (self.objectives[0].loss(t.metrics), t.number))

    def run_front(self, trials: Sequence[Trial]) -> list[Trial]:
        """The Pareto front of a run, as every report shows it, with final metrics.

        It consists of finalists; until these are measured, of the feasible trials so far.
        """
        measured = self.feasible([t.with_final_metrics() for t in trials if t.final])
        return self.front(measured or trials)

    def select(self, trials: Sequence[Trial], count: int) -> list[Trial]:
        """The best `count` feasible trials, the best first."""
        found = self.feasible(trials)
        chosen = select(self.objectives, [t.metrics for t in found], count, self.product(trials))
        return [found[i] for i in chosen]

    def product(self, trials: Sequence[Trial]) -> WeightedProduct | None:
        """The weighted product, or None; until its targets are fixed, they are medians of the complete trials."""
        if not self.weighted:
            return None
        targets = self.targets or self._medians(trials)
        if targets is None:
            return None
        return WeightedProduct(self.objectives, targets, self.weights or {})

    def with_targets(self, trials: Sequence[Trial]) -> Ranking:
        """The ranking with fixed targets, once enough trials are complete."""
        if not self.weighted or self.targets is not None or len(_first_complete(trials)) < TARGETS_FROM:
            return self
        return replace(self, targets=self._medians(trials))

    def _medians(self, trials: Sequence[Trial]) -> dict[str, float] | None:
        first = _first_complete(trials)
        if not first:
            return None
        # 1 in place of a median of 0, which would divide by zero.
        return {
            o.metric: median(t.metrics[o.metric] for t in first) or 1.0
            for o in self.objectives
            if o.direction == "minimize"
        }

    def sampler_objectives(self) -> tuple[Objective, ...]:
        """The objectives that a sampler optimizes: those of the run, or the score of the weighted product."""
        return (SCORE,) if self.weighted else self.objectives

    def observation(self, trial: Trial, product: WeightedProduct | None) -> Observation:
        """A search trial as a sampler sees it; `product` is that of all trials."""
        losses: tuple[float, ...] | None = None
        violation, curve = 0.0, dict[int, float]()
        if trial.state == COMPLETE and product is None:
            first = self.objectives[0]
            points = trial.curve if trial.candidate.recipe else trial.curve[-1:]
            curve = {int(known["epoch"]): first.loss(known) for known in points if first.metric in known}
        if trial.state == COMPLETE:
            losses = (
                (-product.score(trial.metrics),)
                if product is not None
                else tuple(objective.loss(trial.metrics) for objective in self.objectives)
            )
        if trial.state in (COMPLETE, RULED_OUT):
            violation = self.violation(trial.metrics)
        running = trial.state in (RUNNING, PAUSED)
        return Observation(trial.point, losses, violation, running, curve, trial.fidelity)

    def history(self, trials: Sequence[Trial], kind: str) -> History:
        """The trials of `kind` as a sampler sees them."""
        product = self.product(trials)
        return History(self.observation(trial, product) for trial in trials if trial.kind == kind)


def _first_complete(trials: Sequence[Trial]) -> list[Trial]:
    return [t for t in trials if t.kind not in (COMPRESSION, REPEAT, STEP) and t.state == COMPLETE][:TARGETS_FROM]
