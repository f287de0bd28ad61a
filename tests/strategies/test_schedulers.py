"""Schedulers: what every one of them must keep, the papers' arithmetic, and that what could win is not ended."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import moocore
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slimsearch.errors import SlimsearchError
from slimsearch.names import built_in_names
from slimsearch.strategies.schedulers import (
    Combined,
    Decision,
    Scheduler,
    TrialProgress,
    combine,
    epsilon_net,
    load_scheduler,
    order,
)
from slimsearch.strategies.schedulers._rungs import rungs
from slimsearch.strategies.schedulers.asha import Asha
from slimsearch.strategies.schedulers.dominated import Dominated
from slimsearch.strategies.schedulers.full import Full
from slimsearch.strategies.schedulers.hyperband import Hyperband
from slimsearch.strategies.schedulers.median import Median
from slimsearch.strategies.schedulers.successive_halving import SuccessiveHalving

BUILT_IN = built_in_names("slimsearch.strategies.schedulers")
COMBINATIONS = [f"{name}+dominated:min_complete=5:warm_up=0" for name in BUILT_IN if name not in ("dominated", "pbt")]
HALVING = ["asha", "hyperband", "successive_halving", COMBINATIONS[0], "successive_halving:cohort=7:eta=2"]

Curves = list[tuple[tuple[float, ...], ...]]


def learning_curves(count: int, epochs: int, objectives: int, seed: int) -> Curves:
    """Error after each epoch, and costs: slow and fast starters, noise, a few that never learn, larger ones better."""
    rng = np.random.default_rng(seed)
    curves = []
    for _ in range(count):
        size = rng.uniform(0.1, 1)
        dead = rng.random() < 0.05
        final = 0.9 if dead else 0.02 + 0.05 * (1 - size) + 0.02 * rng.exponential()
        left = np.exp(-rng.uniform(2, 6) * np.arange(1, epochs + 1) / epochs)
        left = (left - left[-1]) / (1 - left[-1])
        errors = final + (0.9 - final) * left + 0.003 * rng.standard_normal(epochs)
        costs = [size, size * rng.uniform(0.5, 2)][: objectives - 1]
        curves.append(tuple((float(error), *costs) for error in errors))
    return curves


@dataclass
class Run:
    """A driver on a clock of its own: what it asked and was told, and what became of the trials."""

    curves: Curves
    budget: int
    epochs: int
    log: list[tuple[object, ...]] = field(default_factory=list)
    states: dict[int, str] = field(default_factory=dict)
    lengths: dict[int, int] = field(default_factory=dict)
    trained: int = 0

    def trials(self) -> list[TrialProgress]:
        return [
            TrialProgress(number, self.curves[number][: self.lengths[number]], state)  # type: ignore[arg-type]
            for number, state in self.states.items()
            if state != "failed"
        ]

    def numbers(self, state: str) -> list[int]:
        return [number for number, is_state in self.states.items() if is_state == state]

    def reached(self, epoch: int, first: int = 0, last: int | None = None) -> int:
        return sum(length >= epoch for length in list(self.lengths.values())[first:last])


def drive(
    scheduler: Callable[[], Scheduler],
    curves: Curves,
    workers: int = 1,
    failing: float = 0.0,
    seed: int = 0,
    budget: int | None = None,
) -> Run:
    """Run a search to its end; `scheduler` is called anew for each question."""
    run = Run(curves, budget or len(curves), len(curves[0]))
    clock = random.Random(seed)
    due: list[tuple[float, int]] = []
    now = 0.0
    while True:
        while len(due) < workers:
            number = scheduler().resume(run.trials(), run.epochs, len(run.states) < run.budget)
            if number is not None:
                assert run.states[number] == "paused", f"{number} is not paused"
                run.log.append(("resume", number))
            elif scheduler().may_begin(run.trials(), run.epochs, len(run.states) < run.budget):
                number = len(run.states)
                assert number < run.budget, "begins more trials than there are"
                run.lengths[number] = 0
                run.log.append(("begin", number))
            else:
                break
            run.states[number] = "running"
            due.append((now + clock.random(), number))
        if not due:
            assert len(run.states) == run.budget, "waits for ever"
            return run
        now, number = min(due)
        due.remove((now, number))
        if clock.random() < failing:
            run.states[number] = "failed"
            run.log.append(("failed", number))
            continue
        run.lengths[number] += 1
        run.trained += 1
        trials = run.trials()
        trial = next(t for t in trials if t.number == number)
        decision = scheduler().after_epoch(trial, trials, run.epochs)
        run.log.append((decision, number))
        if trial.epochs == run.epochs:
            assert decision is Decision.CONTINUE
            run.states[number] = "complete"
        elif decision is Decision.CONTINUE:
            due.append((now + clock.random(), number))
        else:
            run.states[number] = "paused" if decision is Decision.PAUSE else "stopped"


def fixed(scheduler: Scheduler) -> Callable[[], Scheduler]:
    return lambda: scheduler


@pytest.mark.parametrize("name", [*BUILT_IN, *COMBINATIONS, *HALVING[-1:]])
@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize(("objectives", "failing"), [(1, 0.0), (2, 0.03), (3, 0.1)])
class TestContract:
    def test_the_budget_is_used_and_something_completes(
        self, name: str, workers: int, objectives: int, failing: float
    ) -> None:
        for budget, epochs in ((1, 9), (4, 5), (60, 9), (45, 1)):
            curves = learning_curves(budget, epochs, objectives, seed=budget)
            run = drive(fixed(load_scheduler(name)), curves, workers, failing, seed=workers)
            assert not run.numbers("running")
            assert run.numbers("complete") or (failing and budget < 5)

    def test_a_decision_follows_from_the_trials_alone(
        self, name: str, workers: int, objectives: int, failing: float
    ) -> None:
        curves = learning_curves(30, 9, objectives, seed=1)
        kept = drive(fixed(load_scheduler(name)), curves, workers, failing)
        rebuilt = drive(lambda: load_scheduler(name), curves, workers, failing)
        assert kept.log == rebuilt.log


@pytest.mark.parametrize("name", HALVING)
@pytest.mark.parametrize("objectives", [1, 2])
def test_halving_trains_far_less(name: str, objectives: int) -> None:
    curves = learning_curves(81, 27, objectives, seed=3)
    run = drive(fixed(load_scheduler(name)), curves, workers=2)
    assert run.trained < 0.4 * 81 * 27
    if objectives == 1:  # and finds a good one
        finals = sorted(curve[-1] for curve in curves)
        assert min(curves[number][-1] for number in run.numbers("complete")) <= finals[8]


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from([*BUILT_IN, *COMBINATIONS]),
    workers=st.integers(1, 5),
    eta=st.integers(2, 4),
    epochs=st.integers(1, 12),
    budget=st.integers(1, 40),
    failing=st.sampled_from([0.0, 0.2, 0.6]),
    seed=st.integers(0, 999),
)
def test_no_search_hangs(
    name: str, workers: int, eta: int, epochs: int, budget: int, failing: float, seed: int
) -> None:
    options = {} if name.startswith(("dominated", "none", "median", "pbt")) else {"eta": eta}
    curves = learning_curves(budget, epochs, 2, seed)
    run = drive(fixed(load_scheduler(name, **options)), curves, workers, failing, seed)
    assert failing or run.numbers("complete")


@pytest.mark.parametrize("name", BUILT_IN)
@pytest.mark.parametrize("before", BUILT_IN)
def test_what_another_scheduler_left_paused_does_not_block(name: str, before: str) -> None:
    """A run goes on with another scheduler than it had, or with other rungs."""
    curves = learning_curves(40, 16, 2, seed=5)
    options = {} if before in ("dominated", "none", "median", "pbt") else {"eta": 2, "min_epochs": 1}
    first = drive(fixed(load_scheduler(before, **options)), curves, budget=20)
    scheduler = load_scheduler(name)
    trials = first.trials()
    for _ in range(1000):
        number = scheduler.resume(trials, 16, more=False)
        if number is None:
            break
        position = next(i for i, t in enumerate(trials) if t.number == number)
        while True:  # one worker: trained until it pauses again or ends
            length = trials[position].epochs + 1
            trials[position] = TrialProgress(number, curves[number][:length], "running")
            decision = scheduler.after_epoch(trials[position], trials, 16)
            if length == 16 or decision is not Decision.CONTINUE:
                break
        state = "complete" if length == 16 else "paused" if decision is Decision.PAUSE else "stopped"
        trials[position] = TrialProgress(number, curves[number][:length], state)  # type: ignore[arg-type]
    assert scheduler.resume(trials, 16, more=False) is None
    assert scheduler.may_begin(trials, 16, more=True)
    if name == "none":
        assert all(t.state in ("complete", "stopped") for t in trials)


class TestRungs:
    def test_are_those_of_the_papers(self) -> None:
        assert rungs(81, 3, 1) == [1, 3, 9, 27]
        assert rungs(64, 4, 1) == [1, 4, 16]

    def test_start_from_the_top(self) -> None:
        assert rungs(10, 3, 1) == [1, 3]  # and not 9
        assert rungs(20, 3, 1) == [2, 7]
        assert rungs(20, 3, 3) == [7]
        assert rungs(1, 3, 1) == rungs(2, 3, 1) == rungs(20, 3, 8) == []

    @given(epochs=st.integers(1, 500), eta=st.integers(2, 5), least=st.integers(1, 20))
    def test_rise_below_the_full_number(self, epochs: int, eta: int, least: int) -> None:
        steps = [*rungs(epochs, eta, least), epochs]
        assert steps == sorted(set(steps))
        assert steps[0] >= min(least, epochs)


class TestSuccessiveHalving:
    def test_counts_of_the_paper(self) -> None:
        run = drive(fixed(SuccessiveHalving()), learning_curves(81, 81, 1, seed=0))
        assert [run.reached(epoch) for epoch in (1, 3, 9, 27, 81)] == [81, 27, 9, 3, 1]
        assert run.trained == 81 + 27 * 2 + 9 * 6 + 3 * 18 + 1 * 54  # trained on, not again

    def test_the_best_of_each_rung_go_on(self) -> None:
        curves = learning_curves(27, 9, 1, seed=4)
        run = drive(fixed(SuccessiveHalving(cohort=27)), curves, workers=3)
        first = sorted(range(27), key=lambda n: curves[n][0])[:9]
        assert sorted(n for n, length in run.lengths.items() if length >= 3) == sorted(first)
        second = sorted(first, key=lambda n: curves[n][2])[:3]
        assert sorted(run.numbers("complete")) == sorted(second)

    def test_cohorts_follow_each_other_and_the_last_is_halved_with_what_it_has(self) -> None:
        run = drive(fixed(SuccessiveHalving(cohort=9)), learning_curves(25, 9, 1, seed=0), workers=2)
        for first, last, expected in ((0, 9, [9, 3, 1]), (9, 18, [9, 3, 1]), (18, 25, [7, 2, 1])):
            assert [run.reached(epoch, first, last) for epoch in (1, 3, 9)] == expected
        begun = run.log.index(("begin", 9))
        assert all(("begin", n) in run.log[:begun] for n in range(9))
        assert run.log.index((Decision.CONTINUE, run.numbers("complete")[0])) < begun

    def test_waits_for_the_rung(self) -> None:
        scheduler = SuccessiveHalving(cohort=3)
        trials = [
            TrialProgress(0, ((0.1,),), "paused"),
            TrialProgress(1, ((0.2,),), "paused"),
            TrialProgress(2, (), "running"),
        ]
        assert scheduler.resume(trials, 3, more=True) is None
        assert not scheduler.may_begin(trials, 3, more=True)
        assert scheduler.may_begin(trials[:2], 3, more=True), "the last one failed: another takes its place"
        assert scheduler.resume(trials[:2], 3, more=False) == 0, "or there is none to come"

    def test_the_last_to_come_goes_on_without_a_pause_if_it_is_the_best(self) -> None:
        others = [TrialProgress(0, ((0.1,),), "paused"), TrialProgress(1, ((0.2,),), "paused")]
        best, worst = (TrialProgress(2, ((loss,),), "running") for loss in (0.05, 0.3))
        assert SuccessiveHalving(cohort=3).after_epoch(best, [*others, best], 3) is Decision.CONTINUE
        assert SuccessiveHalving(cohort=3).after_epoch(worst, [*others, worst], 3) is Decision.PAUSE


class TestHyperband:
    def test_brackets_of_the_paper(self) -> None:
        plan = [(cohort.size, cohort.rungs) for cohort in Hyperband().plan(81)]
        assert plan == [(81, (1, 3, 9, 27)), (34, (3, 9, 27)), (15, (9, 27)), (8, (27,)), (5, ())]

    def test_counts_in_each_bracket(self) -> None:
        run = drive(fixed(Hyperband()), learning_curves(143, 81, 1, seed=0))
        counts = [
            [run.reached(epoch, first, last) for epoch in (1, 3, 9, 27, 81)]
            for first, last in ((0, 81), (81, 115), (115, 130), (130, 138), (138, 143))
        ]
        assert counts == [
            [81, 27, 9, 3, 1],
            [34, 34, 11, 3, 1],
            [15, 15, 15, 5, 1],
            [8, 8, 8, 8, 2],
            [5, 5, 5, 5, 5],
        ]

    def test_begins_again_after_the_last_bracket(self) -> None:
        run = drive(fixed(Hyperband()), learning_curves(17 + 9, 9, 1, seed=0))  # 9, 5 and 3 trials
        assert [run.reached(epoch, 17) for epoch in (1, 3, 9)] == [9, 3, 1]


class TestAsha:
    @pytest.mark.parametrize("workers", [1, 3])
    @pytest.mark.parametrize("eta", [2, 3])
    def test_promotes_as_algorithm_2(self, workers: int, eta: int) -> None:
        curves = learning_curves(60, 27 if eta == 3 else 16, 1, seed=7)
        epochs = len(curves[0])
        steps = [*rungs(epochs, eta, 1), epochs]
        run = drive(fixed(Asha(eta=eta)), curves, workers)

        # The paper's get_job, fed with the order in which rungs were reached.
        rung: list[list[int]] = [[] for _ in steps]
        promoted: list[set[int]] = [set() for _ in steps]
        lengths = dict.fromkeys(range(60), 0)
        begun = 0

        def get_job() -> tuple[str, int]:
            for k in range(len(steps) - 2, -1, -1):
                ranked = sorted(rung[k], key=lambda n: curves[n][steps[k] - 1])
                for number in ranked[: len(rung[k]) // eta]:
                    if number not in promoted[k]:
                        promoted[k].add(number)
                        return "resume", number
            return "begin", begun

        waiting: list[object] = []
        for event, number in run.log:
            assert isinstance(number, int)
            if event in ("resume", "begin"):
                if begun == 60 and event == "begin":
                    break
                expected = get_job()
                assert (event, number) == expected
                begun += event == "begin"
                continue
            lengths[number] += 1
            if lengths[number] not in steps:
                assert event is Decision.CONTINUE
                continue
            k = steps.index(lengths[number])
            rung[k].append(number)
            if k + 1 < len(steps) and event is Decision.CONTINUE:  # the free worker would get the same trial
                assert get_job() == ("resume", number)
            waiting.append(number)
        assert waiting
        assert begun == 60

    def test_too_few_trials_for_a_promotion_still_give_a_complete_one(self) -> None:
        curves = learning_curves(2, 27, 1, seed=0)
        run = drive(fixed(Asha()), curves, workers=2)
        assert run.numbers("complete") == [min((0, 1), key=lambda n: curves[n][0])]

    def test_several_objectives_promote_from_the_front(self) -> None:
        losses = [(0.5, 0.5), (0.6, 0.6), (0.1, 0.9), (0.9, 0.1), (0.7, 0.7), (0.8, 0.8)]
        trials = [TrialProgress(number, (pair,), "paused") for number, pair in enumerate(losses)]
        promoted = []
        while (number := Asha(eta=2).resume(trials, 2, more=True)) is not None:
            promoted.append(number)
            trials[number] = TrialProgress(number, trials[number].losses, "running")
        assert promoted == [2, 3, 0]

    def test_one_that_breaks_a_limit_is_behind(self) -> None:
        trials = [
            TrialProgress(0, ((0.1,),), "paused", 2.0),
            TrialProgress(1, ((0.9,),), "paused"),
            TrialProgress(2, (), "running"),
        ]
        assert Asha(eta=2).resume(trials, 2, more=True) == 1

    def test_one_that_was_ended_counts_in_the_rung_it_was_on_its_way_to(self) -> None:
        trials = [TrialProgress(n, ((0.1,), (0.1 + n,), (0.1 + n,)), "paused") for n in range(2)]
        ended = TrialProgress(2, ((0.1,), (0.1,)), "stopped")
        assert Asha().resume(trials, 9, more=True) is None
        assert Asha().resume([*trials, ended], 9, more=True) == 0


def points(objectives: int) -> st.SearchStrategy[list[tuple[float, ...]]]:
    value = st.one_of(st.integers(0, 4).map(float), st.floats(-1e3, 1e3), st.just(float("inf")))
    return st.lists(st.tuples(*[value] * objectives), min_size=1, max_size=25)


class TestOrder:
    @settings(max_examples=150)
    @given(data=st.data(), objectives=st.integers(1, 3))
    def test_fronts_come_one_after_the_other(self, data: st.DataObject, objectives: int) -> None:
        losses = data.draw(points(objectives))
        violations = data.draw(
            st.lists(st.sampled_from([0.0, 0.0, 1.0, 2.5]), min_size=len(losses), max_size=len(losses))
        )
        found = order(losses, violations)
        assert sorted(found) == list(range(len(losses)))
        broken = [violations[i] for i in found]
        assert broken == sorted(broken)
        kept = [losses[i] for i in found if violations[i] == 0]
        for earlier, first in enumerate(kept):
            for second in kept[earlier + 1 :]:
                assert not (all(np.less_equal(second, first)) and second != first), "comes after what it dominates"

    @settings(max_examples=100)
    @given(losses=points(2))
    def test_the_net_always_takes_the_farthest(self, losses: list[tuple[float, ...]]) -> None:
        values = np.array(losses)
        values[~np.isfinite(values)] = 1e3
        found = epsilon_net(values)
        assert sorted(found) == list(range(len(values)))
        span = np.ptp(values, axis=0)
        scaled = values / np.where(span > 0, span, 1)
        for count in range(1, len(found)):
            distances = np.linalg.norm(scaled[:, None] - scaled[found[:count]], axis=2).min(axis=1)
            assert distances[found[count]] >= distances.max() - 1e-9

    def test_the_net_spreads(self) -> None:
        front = [(i / 8, 1000 * (1 - i / 8)) for i in range(9)]  # of very different scales
        assert order(front, [0.0] * 9)[:3] == [0, 8, 4]
        assert sorted(order(front, [0.0] * 9)[:5]) == [0, 2, 4, 6, 8]

    def test_what_is_not_a_number_is_the_worst(self) -> None:
        assert order([(float("nan"),), (2.0,), (1.0,)], [0.0] * 3) == [2, 1, 0]
        assert order([(float("nan"), 1.0), (2.0, 1.0), (float("inf"), 2.0)], [0.0] * 3) == [1, 0, 2]


def complete(number: int, *errors: float, cost: float = 1.0, violation: float = 0.0) -> TrialProgress:
    return TrialProgress(number, tuple((error, cost) for error in errors), "complete", violation)


class TestMedian:
    # Averages after two epochs: .75, .65, .55, .45, .35; their median is .55.
    HISTORY = tuple(complete(n, 0.9 - 0.1 * n, 0.6 - 0.1 * n, 0.1) for n in range(5))

    def after(self, *losses: float, cost: float = 1.0, others: Sequence[TrialProgress] = HISTORY) -> Decision:
        trial = TrialProgress(9, tuple((loss, cost) for loss in losses), "running")
        return Median().after_epoch(trial, [*others, trial], 3)

    def test_one_whose_best_is_worse_than_the_median_is_ended(self) -> None:
        assert self.after(0.9, 0.56) is Decision.STOP
        assert self.after(0.9, 0.54) is Decision.CONTINUE
        assert self.after(0.54, 0.9) is Decision.CONTINUE

    def test_what_is_cheaper_goes_on(self) -> None:
        assert self.after(0.9, 0.9, cost=0.99) is Decision.CONTINUE
        expensive = [complete(n, 0.1, 0.1, 0.1, cost=0.7) for n in range(5)]  # .7 thrice, averaged, is not .7
        assert self.after(0.9, 0.9, cost=0.7 - 1e-12, others=expensive) is Decision.CONTINUE
        assert self.after(0.9, 0.9, cost=0.7, others=expensive) is Decision.STOP

    def test_nothing_is_ended_with_fewer_than_five_complete(self) -> None:
        assert self.after(0.9, 0.9, others=self.HISTORY[:4]) is Decision.CONTINUE

    def test_those_that_break_a_limit_or_diverge_end_nobody(self) -> None:
        broken = [complete(n, 0.1, 0.1, 0.1, violation=1.0) for n in range(5)]
        assert self.after(0.9, 0.9, others=broken) is Decision.CONTINUE
        diverged = [complete(n, *[float("nan")] * 3) for n in range(5)]
        assert self.after(0.9, 0.9, others=diverged) is Decision.CONTINUE

    def test_it_saves_training_and_keeps_the_best(self) -> None:
        for seed in range(12):
            curves = learning_curves(60, 9, 1, seed)
            run = drive(fixed(Median()), curves, workers=2)
            assert run.trained < 0.6 * 60 * 9
            finals = sorted(curve[-1] for curve in curves)
            assert min(curves[number][-1] for number in run.numbers("complete")) <= finals[4]


class TestDominated:
    FIVE = Dominated(min_complete=5)
    HISTORY = tuple(complete(n, 0.5, 0.3, 0.2, 0.1 + 0.01 * n) for n in range(5))  # gains .1 at most after 3 of 4

    def after(self, trial: TrialProgress, *others: TrialProgress, scheduler: Dominated = FIVE) -> Decision:
        return scheduler.after_epoch(trial, [*others, trial], 4)

    def test_a_hopeless_one_is_ended(self) -> None:
        dead = TrialProgress(9, ((0.9, 1.0),) * 3, "running")
        assert self.after(dead, *self.HISTORY) is Decision.STOP

    def test_nothing_is_ended_with_fewer_than_five_complete(self) -> None:
        dead = TrialProgress(9, ((0.9, 1.0),) * 3, "running")
        assert self.after(dead, *self.HISTORY[:4]) is Decision.CONTINUE
        others = [TrialProgress(n, t.losses[:3], "running") for n, t in enumerate(self.HISTORY, start=20)]
        assert self.after(dead, *self.HISTORY[:4], *others) is Decision.CONTINUE

    def test_nothing_is_ended_while_the_learning_rate_rises(self) -> None:
        dead = TrialProgress(9, ((0.9, 1.0),), "running")
        assert self.after(dead, *self.HISTORY) is Decision.CONTINUE
        assert self.after(dead, *self.HISTORY, scheduler=Dominated(min_complete=5, warm_up=0)) is Decision.STOP

    def test_what_is_cheaper_than_all_goes_on(self) -> None:
        cheap = TrialProgress(9, ((0.9, 0.99),) * 3, "running")
        assert self.after(cheap, *self.HISTORY) is Decision.CONTINUE

    def test_the_largest_gain_seen_is_granted_and_the_margin_on_top(self) -> None:
        spread = np.std([0.1, 0.09, 0.08, 0.07, 0.06], ddof=1)
        for loss, decision in ((0.2 + spread - 1e-6, Decision.CONTINUE), (0.2 + spread + 1e-6, Decision.STOP)):
            trial = TrialProgress(9, ((0.5, 1.0), (0.4, 1.0), (float(loss), 1.0)), "running")
            assert self.after(trial, *self.HISTORY) is decision

    def test_a_bad_epoch_after_a_good_one_is_forgiven(self) -> None:
        trial = TrialProgress(9, ((0.5, 1.0), (0.2, 1.0), (0.9, 1.0)), "running")
        assert self.after(trial, *self.HISTORY) is Decision.CONTINUE

    def test_one_that_breaks_a_limit_dominates_nothing(self) -> None:
        broken = [complete(n, 0.5, 0.3, 0.2, 0.1, violation=1.0) for n in range(5)]
        assert self.after(TrialProgress(9, ((0.9, 1.0),) * 3, "running"), *broken) is Decision.CONTINUE

    def test_diverged_ones_do_no_harm(self) -> None:
        nan = float("nan")
        history = [*self.HISTORY, complete(7, nan, nan, nan, nan, cost=0.1), complete(8, nan, nan, 0.3, 0.2)]
        assert self.after(TrialProgress(9, ((0.15, 1.0),) * 3, "running"), *history) is Decision.CONTINUE
        assert self.after(TrialProgress(9, ((nan, 1.0),) * 3, "running"), *history) is Decision.STOP

    @pytest.mark.parametrize("objectives", [1, 2, 3])
    def test_what_would_have_been_on_the_front_is_almost_never_ended(self, objectives: int) -> None:
        on_front, lost, behind, trained = 0, 0, 0.0, 0
        for seed in range(12):
            curves = learning_curves(60, 9, objectives, seed)
            run = drive(fixed(Dominated()), curves, workers=2)
            finals = np.array([curve[-1] for curve in curves])
            front = np.flatnonzero(moocore.pareto_rank(finals) == 0)
            on_front += len(front)
            lost += len(set(front.tolist()) & set(run.numbers("stopped")))
            behind += min(finals[run.numbers("complete"), 0]) - min(finals[:, 0])
            trained += run.trained
        assert lost <= (0.01 * on_front if objectives > 1 else 1)
        assert behind / 12 < 5e-4  # of an error of .02 to .9
        assert trained < 0.97 * 12 * 60 * 9

    def test_a_hopeless_paused_trial_is_not_resumed_beside_another_scheduler(self) -> None:
        both = combine(self.FIVE, Asha(eta=2))
        paused = [TrialProgress(n, ((0.5, 1.0), (0.9 - n / 100, 1.0)), "paused") for n in (10, 11)]
        assert Asha(eta=2).resume(paused, 4, more=False) is not None
        assert both.resume([*self.HISTORY, *paused], 4, more=False) is None


class TestLoading:
    def test_every_file_is_a_scheduler(self) -> None:
        assert BUILT_IN == ["asha", "dominated", "hyperband", "median", "none", "pbt", "successive_halving"]

    def test_names_and_options(self) -> None:
        assert load_scheduler("none") == load_scheduler("full") == Full()
        assert load_scheduler("asha:eta=4:min-epochs=2") == Asha(eta=4, min_epochs=2)
        assert load_scheduler("successive-halving") == SuccessiveHalving()

    @pytest.mark.parametrize("text", ["asha:eta=3:min_epochs=1+dominated:margin=1.0e+0", "dominated:margin=1.0 + asha"])
    def test_combined_in_any_order(self, text: str) -> None:
        assert load_scheduler(text) == Combined(Asha(), (Dominated(margin=1.0),))

    def test_dominated_alone_trains_the_rest_to_the_end(self) -> None:
        assert load_scheduler("none+dominated") == load_scheduler("dominated") == Combined(Full(), (Dominated(),))

    def test_options_from_python_go_to_those_that_have_them(self) -> None:
        found = load_scheduler("asha:eta=4+dominated", eta=2, min_epochs=3, margin=2.0)
        assert found == Combined(Asha(eta=4, min_epochs=3), (Dominated(margin=2.0),))

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("pbt+dominated", "scheduler 'Pbt' cannot be combined: it ends trials by itself"),
            ("pbt:quantile=0.6", "quantile=0.6 is above 0.5"),
            ("pbt:interval=0", "interval=0 is not a whole number of at least 1"),
            (
                "bohb",
                "unknown scheduler 'bohb'; known: asha, dominated, hyperband, median, none, pbt, successive_halving",
            ),
            ("", "unknown scheduler ''"),
            ("asha+", "unknown scheduler ''"),
            ("asha:gamma=2", "scheduler 'asha' has no option 'gamma'; it has eta, min_epochs"),
            ("none:eta=3", "scheduler 'none' has no option 'eta'; it has none"),
            ("asha:eta", "option 'eta' of scheduler 'asha' is not of the form name=value"),
            ("asha:eta=1", "eta=1 is not a whole number of at least 2"),
            ("asha:eta=x", "eta=x is not a whole number"),
            ("asha:eta=[", "cannot read '['"),
            ("successive_halving:cohort=0", "cohort=0"),
            ("dominated:margin=-1", "margin=-1 is not a number of at least 0"),
            ("dominated:warm_up=1", "warm_up=1 is not below 1"),
            ("asha+hyperband", "'Asha' and 'Hyperband' cannot be combined"),
            ("no/such/file.py:Mine", "there is no file"),
            ("slimsearch.strategies.schedulers:TrialProgress", "has no method after_epoch, resume, may_begin"),
        ],
    )
    def test_mistakes_take_one_line(self, text: str, words: str) -> None:
        with pytest.raises(SlimsearchError) as error:
            load_scheduler(text)
        assert words in str(error.value)
        assert "\n" not in str(error.value)

    def test_an_unknown_option_from_python(self) -> None:
        with pytest.raises(SlimsearchError, match="no option 'gamma'; it has eta, margin, min_complete, min_epochs"):
            load_scheduler("asha+dominated", gamma=1)

    @pytest.fixture
    def own(self, tmp_path: Path) -> str:
        (tmp_path / "mine.py").write_text(
            "from slimsearch.strategies.schedulers import Decision\n"
            "class Halfway:\n"
            "    def __init__(self, share=0.5):\n"
            "        self.share = share\n"
            "    def after_epoch(self, trial, trials, epochs):\n"
            "        return Decision.STOP if self.share * epochs <= trial.epochs < epochs else Decision.CONTINUE\n"
            "    def resume(self, trials, epochs, more):\n"
            "        return None\n"
            "    def may_begin(self, trials, epochs, more):\n"
            "        return more\n"
        )
        return f"{tmp_path}/mine.py:Halfway"

    def test_ones_own(self, own: str) -> None:
        run = drive(fixed(load_scheduler(f"{own}:share=0.75+dominated")), learning_curves(3, 4, 1, seed=0))
        assert set(run.lengths.values()) == {3}
        with pytest.raises(SlimsearchError, match="has no option 'part'; it has share"):
            load_scheduler(f"{own}:part=2")
