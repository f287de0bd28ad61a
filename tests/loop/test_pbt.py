"""Population based training: real runs, in which the worst go on as copies of the best."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from slimsearch.strategies.schedulers import TrialProgress, load_scheduler
from tests.conftest import TINY, Run, recorded

WORDS = (
    "--space",
    TINY,
    "--dataset",
    "digits",
    "--epochs",
    "6",
    "--trials",
    "4",
    "--compress",
    "none",
    "--run-dir",
    "run",
)
PBT = ("--scheduler", "pbt:interval=2", "--search-hyperparameters")


def test_the_worst_go_on_as_copies_of_the_best(run: Run, tmp_path: Path) -> None:
    done = run(*WORDS, *PBT)
    assert done.returncode == 0, done.stderr
    trials = recorded(tmp_path / "run")
    ended = {n: t for n, t in trials.items() if t["result"]["state"] == "stopped early"}
    copies = [n for n in trials if n >= 4]
    assert len(ended) == len(copies) == 2, "one of four at each of two rungs"
    for trial in ended.values():
        assert "goes on in its place" in trial["result"]["reason"]
        assert len(trial["curve"]) in (2, 4)
    import optuna

    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(tmp_path / "run" / "study.journal"))
    )
    study = optuna.load_study(study_name=None, storage=storage)
    for number in copies:
        parent = study.trials[number].user_attrs["parent"]
        begun = min(
            len(t["curve"]) for t in ended.values() if f"trial {number}, a copy of {parent}," in t["result"]["reason"]
        )
        curve, before = trials[number]["curve"], trials[parent]["curve"]
        assert [curve[e] for e in range(1, begun + 1)] == [before[e] for e in range(1, begun + 1)]
        assert len(curve) == 6
        for label in ("act", "width"):
            assert trials[number]["params"].get(label) == trials[parent]["params"].get(label)
        trained = [json.loads(study.trials[n].user_attrs["training"]) for n in (number, parent)]
        assert trained[0] != trained[1]
    assert sum(t["result"]["state"] == "complete" for t in trials.values()) == 4
    again = run("--resume", "run")
    assert again.returncode == 0, again.stderr
    assert recorded(tmp_path / "run") == trials


@pytest.mark.slow
def test_an_interrupted_run_has_as_many_copies(run: Run, tmp_path: Path) -> None:
    done = run(*WORDS, *PBT, "--timeout", "0.05")
    assert done.returncode == 2
    done = run("--resume", "run", "--timeout", "1000")
    assert done.returncode == 0, done.stderr
    trials = recorded(tmp_path / "run")
    assert sum(t["result"]["state"] == "complete" for t in trials.values()) == 4
    assert len(trials) == 6


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "--scheduler pbt:interval=2 varies training hyper-parameters: it needs --search-hyperparameters"),
        (
            ("--search-hyperparameters", "--storage", "sqlite:///study.db"),
            "has one driver: it does not go with --storage",
        ),
        (("--search-hyperparameters", "--co-search", "default"), "use asha, median or dominated"),
    ],
)
def test_what_it_needs_is_one_line(words: tuple[str, ...], said: str, run: Run) -> None:
    done = run(*WORDS, "--scheduler", "pbt:interval=2", *words)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def at(number: int, loss: float, epochs: int = 2, state: str = "paused") -> TrialProgress:
    return TrialProgress(number, ((1.0,),) * (epochs - 1) + ((loss,),), state)  # type: ignore[arg-type]


def test_a_kill_between_two_copies_changes_nothing() -> None:
    """As many are replaced at a rung as a quarter of the population, however often it is asked."""
    pbt = load_scheduler("pbt:interval=2")
    population = [at(n, loss) for n, loss in enumerate([0.5, 0.1, 0.9, 0.3, 0.8, 0.2, 0.6, 0.4])]
    assert pbt.exploit(population, 6, True) is None, "others are still to begin"
    assert pbt.exploit([*population[:-1], at(7, 0.4, 1, "running")], 6, False) is None
    assert pbt.exploit(population, 6, False) == (2, 1)
    after_one = [*(t for t in population if t.number != 2), at(2, 0.9, 2, "stopped"), at(8, 0.1)]
    assert pbt.exploit(after_one, 6, False) == (4, 5)
    after_two = [*(t for t in after_one if t.number != 4), at(4, 0.8, 2, "stopped"), at(9, 0.2)]
    assert pbt.exploit(after_two, 6, False) is None
    assert pbt.resume(after_two, 6, False) == 0
    begun = [at(0, 0.5, 2, "running") if t.number == 0 else t for t in after_two]
    assert pbt.exploit(begun, 6, False) is None
    assert pbt.resume(begun, 6, False) == 1
