"""The search loop's state, with a record on disk and no training."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import Limit, Objective, Outcome
from slimsearch.loop.search import ArchitectureSearch, Budget
from slimsearch.loop.stopping import refuse_if_nothing_is_left
from slimsearch.options.configuration import Configuration
from slimsearch.record.ranking import Ranking
from slimsearch.record.record import Record
from slimsearch.record.run_directory import RunDirectory
from slimsearch.record.trial import COMPLETE, RULED_OUT
from slimsearch.search_spaces import Candidate, ChoiceSpace, JointSpace, ModelSpace, RecipeSpace, Space
from slimsearch.strategies import Failure
from slimsearch.strategies.samplers import Sampler, load_sampler

RANKING = Ranking((Objective("val_accuracy", "maximize"), Objective("size_kib", "minimize")))


@pytest.fixture(scope="module")
def lenet() -> ModelSpace:
    return ModelSpace.load("lenet", (1, 28, 28), 10)


@pytest.fixture(scope="module")
def mnist_cnn() -> ModelSpace:
    return ModelSpace.load("mnist_cnn", (1, 28, 28), 10)


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[RunDirectory]:
    with RunDirectory(tmp_path / "run", create=True) as found:
        yield found


def make(
    directory: RunDirectory,
    space: Space,
    sampler: str | Sampler = "tpe",
    ranking: Ranking = RANKING,
    **options: object,
) -> tuple[ArchitectureSearch, Record]:
    record = Record(directory.open_study(ranking.objectives), space, ranking.objectives)
    fields = {"trials": 30, "epochs": 1, **{k: v for k, v in options.items() if k in Budget.__dataclass_fields__}}
    others = {k: v for k, v in options.items() if k not in fields}
    search = ArchitectureSearch(
        space,
        load_sampler(sampler) if isinstance(sampler, str) else sampler,
        ranking,
        record,
        directory,
        Budget(**fields),
        seed=0,
        **others,
    )
    return search, record


def outcome(space: ModelSpace, candidate: Candidate) -> Outcome:
    """Metrics that the encoding decides: equal in every process."""
    code = space.encode(candidate.architecture)
    return Outcome(
        {"val_accuracy": float(np.sin(code * np.arange(len(code))).mean()), "size_kib": float(code.argmax())}
    )


def drive(search: ArchitectureSearch, space: ModelSpace, count: int | None = None) -> int:
    done = 0
    while done != count and (task := search.ask()) is not None:
        if search.report(task.number, 0, outcome(space, task.candidate).metrics):
            search.report(task.number, 1, {"val_accuracy": 0.5})
        search.tell(task.number, outcome(space, task.candidate))
        done += 1
    return done


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random", "grid"])
def test_no_candidate_twice_and_all_of_a_small_space(sampler: str, directory, mnist_cnn: ModelSpace) -> None:
    search, record = make(directory, mnist_cnn, sampler, trials=100)
    assert drive(search, mnist_cnn) == 18
    assert search.exhausted
    assert len({t.candidate for t in record.trials}) == 18


def test_a_stubborn_sampler_cannot_make_it_repeat(directory, lenet: ModelSpace) -> None:
    class Stubborn:
        def propose(self, space, objectives, history, rng):
            return lenet.complete({})

    search, record = make(directory, lenet, Stubborn())
    assert drive(search, lenet) == 30
    assert len({t.candidate for t in record.trials}) == 30


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random", "grid"])
@pytest.mark.parametrize("interrupted_at", [3, 17])
def test_a_resumed_run_proposes_what_an_uninterrupted_one_would(
    sampler: str, interrupted_at: int, tmp_path: Path, lenet: ModelSpace
) -> None:
    with RunDirectory(tmp_path / "whole", create=True) as directory:
        search, record = make(directory, lenet, sampler)
        drive(search, lenet)
        expected = [t.candidate for t in record.trials]
        seeds = [t.seed for t in record.trials]
    with RunDirectory(tmp_path / "cut", create=True) as directory:
        directory.config.write_text("format: 1")
        search, _ = make(directory, lenet, sampler)
        drive(search, lenet, interrupted_at)
        task = search.ask()  # and never told: as after a kill
        assert task is not None
    with RunDirectory(tmp_path / "cut", create=False) as directory:
        search, record = make(directory, lenet, sampler)
        again = search.ask()
        assert again is not None
        assert (again.number, again.candidate, again.seed) == (task.number, task.candidate, task.seed)
        search.tell(again.number, outcome(lenet, again.candidate))
        drive(search, lenet)
        assert [t.candidate for t in record.trials] == expected
        assert [t.seed for t in record.trials] == seeds


def test_what_breaks_a_limit_is_never_trained_and_costs_no_trial(directory, lenet: ModelSpace) -> None:
    ranking = Ranking(RANKING.objectives, (Limit("size_kib", 1.0, True, "--max-size-kib"),))
    search, record = make(directory, lenet, "random", ranking, trials=10)
    drive(search, lenet)
    states = [t.state for t in record.trials]
    assert states.count(COMPLETE) == 10
    ruled_out = [t for t in record.trials if t.state == RULED_OUT]
    assert ruled_out
    assert all(t.metrics["size_kib"] > 1 and not t.curve for t in ruled_out)
    assert "exceeds --max-size-kib 1" in (ruled_out[0].reason or "")


def test_what_is_known_of_a_trial_is_never_less_than_before(directory, mnist_cnn: ModelSpace) -> None:
    search, record = make(directory, mnist_cnn)
    task = search.ask()
    assert task is not None
    for told in ({"size_kib": 3.0, "latency_ms": 0.3}, {"size_kib": 3.0}):  # it goes on, and is measured again later
        assert search.report(task.number, 0, told)
        assert record.trials[0].known == {"size_kib": 3.0, "latency_ms": 0.3}
    again = Record(directory.open_study(RANKING.objectives), mnist_cnn, RANKING.objectives)
    assert again.trials[0].known == {"size_kib": 3.0, "latency_ms": 0.3}


def test_a_disturbed_latency_rules_nothing_out(directory, mnist_cnn: ModelSpace) -> None:
    objectives = (Objective("val_accuracy", "maximize"), Objective("latency_ms", "minimize"))
    ranking = Ranking(objectives, (Limit("latency_ms", 0.1, True, "--max-latency-ms"),))
    search, _ = make(directory, mnist_cnn, ranking=ranking)
    for calm, goes_on in ((0.0, True), (1.0, False)):
        task = search.ask()
        assert task is not None
        assert search.report(task.number, 0, {"latency_ms": 0.3, "latency_calm": calm}) is goes_on
        search.tell(task.number, Outcome({"val_accuracy": 0.5, "latency_ms": 0.05, "latency_calm": 1.0}))


def test_a_limit_that_nothing_meets_ends_and_says_so(directory, mnist_cnn: ModelSpace) -> None:
    ranking = Ranking(RANKING.objectives, (Limit("size_kib", -1.0, True, "--max-size-kib"),))
    search, record = make(directory, mnist_cnn, "tpe", ranking, trials=10)
    assert drive(search, mnist_cnn) == 18
    with pytest.raises(SlimsearchError, match="no candidate meets --max-size-kib -1: the best of 18 has size_kib"):
        refuse_if_nothing_is_left(ranking, record)


def test_a_trial_that_is_lost_with_its_machine_is_not_to_blame(directory, lenet: ModelSpace) -> None:
    search, record = make(directory, lenet, retries=0, trials=1)
    task = search.ask()
    assert task is not None
    for _ in range(10):
        search.tell(task.number, Failure("its Ray actor was lost", worker_died=True, blameless=True))
        again = search.ask()
        assert again is not None
        assert again.number == task.number
    search.tell(task.number, Failure("its Ray actor was lost", worker_died=True, blameless=True))
    assert search.ask() is None
    assert record.trials[0].error == "its Ray actor was lost"


def test_a_dead_workers_trial_is_tried_again_and_no_more_often_than_asked(directory, lenet: ModelSpace) -> None:
    search, record = make(directory, lenet, retries=2, trials=1)
    task = search.ask()
    assert task is not None
    for _ in range(2):
        search.tell(task.number, Failure("its worker process died", worker_died=True))
        again = search.ask()
        assert again is not None
        assert again.number == task.number
    search.tell(task.number, Failure("its worker process died", worker_died=True))
    assert search.ask() is None
    assert record.trials[0].error == "its worker process died"
    with pytest.raises(SlimsearchError, match="all 1 trials failed; the first one: its worker process died"):
        refuse_if_nothing_is_left(RANKING, record)


def test_an_error_is_not_tried_again(directory, lenet: ModelSpace) -> None:
    search, _ = make(directory, lenet, retries=2, trials=2)
    for _ in range(2):
        task = search.ask()
        assert task is not None
        search.tell(task.number, Failure("ValueError: no"))
    assert search.ask() is None


def test_a_deadline_ends_the_asking(directory, lenet: ModelSpace) -> None:
    search, record = make(directory, lenet, deadline=time.monotonic() - 1)
    assert search.ask() is None
    with pytest.raises(SlimsearchError, match="no candidate was begun"):
        refuse_if_nothing_is_left(RANKING, record)


def test_files_of_trained_networks_are_scored_after_the_deadline(directory, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("slimsearch.loop.search.running_seconds", lambda: now[0])
    space = JointSpace(
        ChoiceSpace({"width": [8, 16, 24, 32]}),
        RecipeSpace({"prune": {"use": [True, False]}, "quantize": {"use": [True, False]}}),
        lambda recipe: [({stage: options}, float(stage == "prune")) for stage, options in recipe.items()],
    )
    search, record = make(directory, space, "random", deadline=10.0)
    first = search.ask()
    assert first is not None
    now[0] = 11.0
    assert search.ask() is None
    search.tell(first.number, Outcome({"val_accuracy": 0.5, "size_kib": 1.0}))
    while (task := search.ask()) is not None:
        assert task.candidate.architecture == first.candidate.architecture
        assert record.trials[task.number].parent == first.number
        search.tell(task.number, Outcome({"val_accuracy": 0.5, "size_kib": 1.0}))
    assert len({json.dumps(trial.candidate.recipe) for trial in record.trials}) == len(record.trials) == 2


def test_targets_are_the_medians_of_the_first_ten(directory, lenet: ModelSpace) -> None:
    told: list[dict[str, float]] = []

    def tell(targets: Mapping[str, float]) -> Mapping[str, float]:
        told.append(dict(targets))
        return targets

    ranking = Ranking(RANKING.objectives, weighted=True)
    search, record = make(directory, lenet, "tpe", ranking, on_targets=tell)
    drive(search, lenet)
    first = [t.metrics["size_kib"] for t in record.trials[:10]]
    assert told == [{"size_kib": float(np.median(first)) or 1.0}]
    assert search.ranking.targets == told[0]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"objectives": ","}, "one or more different metrics"),
        ({"objectives": "val_accuracy,val_accuracy"}, "one or more different metrics"),
        ({"weights": "size=1"}, "--weights names 'size'; minimized objectives: latency_ms, size_kib"),
        ({"targets": "latency_ms=0"}, "--targets latency_ms=0 is not above 0"),
        ({"targets": "latency_ms"}, "--targets 'latency_ms' is not of the form metric=number"),
    ],
)
def test_rankings_that_make_no_sense(options: dict[str, str], said: str) -> None:
    with pytest.raises(SlimsearchError, match=said):
        Ranking.of(Configuration(space="lenet", **options))
