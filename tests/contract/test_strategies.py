"""The laws of strategies, kept by every built-in.

One-shot strategies need images to begin, and have tests of their own.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import Evaluator
from slimsearch.names import built_in_names, load_class
from slimsearch.strategies import Search, StrategySettings, Traits, load_strategy, traits_of
from slimsearch.testing import ProposingStrategyContract, WorkerStrategyContract
from slimsearch.testing.strategies import NamedBehavior, ScriptedSearch

TRAITS = {
    name: getattr(load_class("strategy", name, "slimsearch.strategies"), "traits", Traits())
    for name in built_in_names("slimsearch.strategies")
}
ONE_SHOT = [name for name, traits in TRAITS.items() if traits.proposes and traits.needs_networks]
MULTI_TRIAL = [name for name, traits in TRAITS.items() if traits.proposes and not traits.needs_networks]
# Where time counts, one stands for all that are driven by the same code: `nni_evolution` for NNI's multi-trial
# strategies, `optuna` for `supernet` where there is nothing to prepare.
ALIKE = ("nni_grid", "nni_random", "nni_tpe", "supernet")


class TestLocal(WorkerStrategyContract):
    strategy = tuple(name for name in TRAITS if name not in (*ONE_SHOT, *ALIKE, "ray", "nni_evolution"))


class TestNni(WorkerStrategyContract, ProposingStrategyContract):
    strategy = "nni_evolution"


@pytest.mark.slow
class TestNniAlike(WorkerStrategyContract):
    strategy = ALIKE


class TestNniProposals(ProposingStrategyContract):
    strategy = tuple(name for name in MULTI_TRIAL if name != "nni_evolution")


@pytest.mark.slow  # tests/strategies/test_ray.py has what is tested always
class TestRay(WorkerStrategyContract):
    strategy = "ray"
    trial_timeout = 8  # Ray starts a process for each trial, which counts

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def ended_cluster(cls) -> Iterator[None]:
        yield
        import ray

        ray.shutdown()

    @pytest.fixture(autouse=True)
    def cluster(self, request: pytest.FixtureRequest) -> None:
        """One cluster for all tests but the one that is about its end: to start one takes seconds."""
        import ray

        if request.node.originalname == "test_workers_are_gone_afterwards":
            ray.shutdown()
        elif not ray.is_initialized():
            ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)


def test_strategies_that_propose_say_so() -> None:
    proposing = {name for name, traits in TRAITS.items() if traits.proposes}
    assert set(ONE_SHOT) < proposing == {name for name in TRAITS if name.startswith("nni_")}


def test_supernet_without_anything_to_prepare(tmp_path: Path) -> None:
    """`supernet` is as `optuna` where the evaluator has no supernet."""
    search = ScriptedSearch(tmp_path, ["fine", "raise", "stop"])
    assert not hasattr(NamedBehavior(), "prepare")
    load_strategy("supernet", StrategySettings(workers=1, run_directory=tmp_path)).run(search, NamedBehavior())
    assert [number for number, _ in search.results] == [0, 1, 2]
    assert not (tmp_path / "supernet").exists()


def test_other_classes_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "class Without: ...\n\nclass Old:\n    def __init__(self, workers, seed): ...\n    def run(self): ...\n"
    )
    with pytest.raises(SlimsearchError, match=r"Without' has no method run\(search, evaluator\)"):
        load_strategy(f"{file}:Without", StrategySettings())
    with pytest.raises(SlimsearchError, match=r"Old' cannot be constructed: TypeError: .*missing 1 required"):
        load_strategy(f"{file}:Old", StrategySettings())


def test_traits_have_a_default_and_a_type() -> None:
    class Own:
        def run(self, search: Search, evaluator: Evaluator) -> None: ...

    own: Any = Own()
    assert traits_of(own) == Traits()
    own.traits = {"proposes": True}
    with pytest.raises(SlimsearchError, match=r"Own.traits is not a slimsearch.strategies.Traits: \{'proposes'"):
        traits_of(own)


def test_published_names_stand_for_files_of_other_names() -> None:
    """Configurations of earlier runs name `optuna`, whose class holds local workers."""
    names = built_in_names("slimsearch.strategies")
    assert {"optuna", "supernet"} < set(names)
    assert not {"local", "weight_sharing"} & set(names)
    assert load_class("strategy", "optuna", "slimsearch.strategies").__name__ == "Local"
    assert load_class("strategy", "local", "slimsearch.strategies").__name__ == "Local"
    with pytest.raises(SlimsearchError, match=r"known: .*, optuna, ray, supernet, or path"):
        load_class("strategy", "optune", "slimsearch.strategies")
