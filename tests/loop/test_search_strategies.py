"""Schedulers, the supernet, NNI's strategies, tables and functions of one's own in real, small runs."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

import slimsearch
from slimsearch.cli.main import main
from tests.conftest import TINY, Run, environment, recorded

FAST = {"workers": 1, "compress": "none", "show": False, "run_dir": "run"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def tiny(**options: Any) -> Any:
    return slimsearch.search(TINY, "digits", **{**FAST, **options})


def of_kind(kind: str, run_dir: str = "run") -> dict[int, dict[str, Any]]:
    return {number: t for number, t in recorded(Path(run_dir)).items() if t["kind"] == kind}


def study(run_dir: str = "run") -> Any:
    import optuna

    backend = optuna.storages.journal.JournalFileBackend(f"{run_dir}/study.journal")
    return optuna.load_study(study_name=None, storage=optuna.storages.JournalStorage(backend))


def test_continued_trial_ends_as_one_that_was_never_paused(folder: Path) -> None:
    options = {"trials": 4, "epochs": 4, "sampler": "random"}
    halved = tiny(**options, scheduler="asha:eta=2", run_dir="halved")
    whole = tiny(**options, run_dir="whole")
    assert [t.candidate for t in halved.trials] == [t.candidate for t in whole.trials]
    assert {t.state for t in halved.trials} == {"complete", "stopped early"}
    assert sum(len(t.curve) for t in halved.trials) < 4 * 4
    continued = [t.number for t in study("halved").trials if t.state.name == "COMPLETE" and "paused" in t.user_attrs]
    assert continued
    for number in continued:
        ours, other = halved.trials[number], whole.trials[number]
        assert ours.curve == other.curve
        assert ours.metrics["val_accuracy"] == other.metrics["val_accuracy"]
        for name in ("model.onnx", "weights.safetensors"):
            file = f"trials/{number:05d}/{name}"
            assert (folder / "halved" / file).read_bytes() == (folder / "whole" / file).read_bytes()
    for trial in halved.trials:  # what was stopped early has been as the other one was
        assert trial.curve == whole.trials[trial.number].curve[: len(trial.curve)]
        assert not (folder / "halved" / f"trials/{trial.number:05d}/training.pt").exists()
    assert {m["trial"] for m in halved.top_models(9)} <= {t.number for t in halved.trials if t.state == "complete"}


def test_supernet(capfd: pytest.CaptureFixture[str]) -> None:
    options = {"strategy": "supernet", "supernet_epochs": 2, "subnets": 4, "trials": 3, "epochs": 1, "show": True}
    result = tiny(**options)
    subnets, trained = of_kind("subnet"), of_kind("search")
    assert len(subnets) == 4
    assert len(trained) == 3
    assert all(t["curve"] == {} for t in subnets.values())
    assert all(list(t["curve"]) == [1] for t in trained.values())
    models = json.loads(Path("run/top_models.json").read_text())
    assert models
    assert {model["trial"] for model in models} <= trained.keys()
    assert {model["trial"] for model in result.top_models(9)} <= trained.keys()
    said = capfd.readouterr().out
    assert "supernet, epoch 2: " in said
    assert re.search(r"inherited and trained accuracy: rank correlation \(Spearman\) -?\d\.\d\d over 3 networks", said)


@pytest.mark.slow
def test_supernet_killed_among_its_subnets(run: Run) -> None:
    words = ["--space", TINY, "--dataset", "digits", "--epochs", "1", "--workers", "1", "--compress", "none"]
    words += ["--strategy", "supernet", "--supernet-epochs", "2", "--subnets", "6", "--trials", "2", "--run-dir", "run"]
    process = subprocess.Popen(
        [sys.executable, "-m", "slimsearch.cli.main", "run", *words],
        env=environment(), stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("[2/6]"):
            break
    process.kill()
    process.wait()
    before, supernet = recorded(Path("run")), Path("run/supernet")
    assert len(before) >= 2
    files = {path: path.stat().st_mtime_ns for path in supernet.iterdir()}
    time.sleep(1)  # its workers notice within half a second
    again = run("--resume", "run")
    assert again.returncode == 0, again.stderr
    after = recorded(Path("run"))
    assert {number: after[number] for number in before} == before
    assert {path: path.stat().st_mtime_ns for path in supernet.iterdir()} == files, "the supernet is as it was"
    assert [len(of_kind("subnet")), len(of_kind("search"))] == [6, 2]


@pytest.mark.parametrize("strategy", ["nni-evolution", "nni-random-oneshot"])
def test_strategies_of_nni(strategy: str) -> None:
    options = {"strategy": strategy, "epochs": 1, "objectives": "val_accuracy,size_kib"}
    tiny(**options, trials=2)
    first = of_kind("search")
    assert len(first) == 2
    assert {t["state"] for t in first.values()} == {"COMPLETE"}
    architectures = Path("run/supernet/architectures.json")
    text = architectures.read_text() if architectures.exists() else None
    resumed = slimsearch.resume("run", trials=4, show=False)
    assert {number: of_kind("search")[number] for number in first} == first
    assert len(resumed.trials) == len({t.candidate for t in resumed.trials}) == 4
    assert text is None or architectures.read_text() == text


def write_table(path: Path) -> None:
    rows = ["width,act,val_accuracy@1,val_accuracy@2,val_accuracy@3,val_accuracy@4,val_accuracy,params"]
    for i, (width, act) in enumerate(itertools.product((8, 16, 24, 32), ("relu", "tanh", "gelu"))):
        best = 0.5 + 0.03 * i
        curve = [round(best * share, 4) for share in (0.4, 0.7, 0.9, 1)]
        rows.append(f"{width},{act},{','.join(map(str, curve))},{curve[-1]},{width * 100}")
    path.write_text("\n".join(rows) + "\n")


@pytest.mark.parametrize("objectives", ["val_accuracy,params", "val_accuracy"])
@pytest.mark.parametrize("scheduler", ["none", "asha:eta=2"])
def test_table(objectives: str, scheduler: str, folder: Path) -> None:
    write_table(folder / "table.csv")
    options = {"evaluator": "table.csv", "objectives": objectives, "scheduler": scheduler, "epochs": 4}
    first = tiny(**options, trials=6)  # the space is the table's
    assert len(first.trials) == 6
    before = recorded(Path("run"))
    second = slimsearch.resume("run", trials=100, show=False)
    after = recorded(Path("run"))
    assert {number: after[number] for number in before} == before
    assert len(second.trials) == 12, "all of the table"
    assert {t.state.name for t in study().trials} <= {"COMPLETE", "PRUNED"}
    best = second.top_models(1)[0]
    found = {tuple(t.candidate.architecture.items()): t.metrics for t in second.trials}
    assert best["metrics"]["val_accuracy"] == found[tuple(best["architecture"].items())]["val_accuracy"]
    if scheduler == "none":
        assert best["architecture"] == {"act": "gelu", "width": 32}
        assert all(list(t["curve"]) == [1, 2, 3, 4] for t in after.values())


def test_function_in_a_script_without_a_main_guard(folder: Path) -> None:
    (folder / "script.py").write_text(
        textwrap.dedent(
            """
            import slimsearch

            print("this line runs once")

            def evaluate(candidate, epochs, report):
                for epoch in range(1, epochs + 1):
                    if not report(epoch, {"score": candidate["a"] + candidate["b"] - 1 / epoch}):
                        return {}
                return {"score": candidate["a"] + candidate["b"]}

            for scheduler in ("none", "asha:eta=2"):
                result = slimsearch.search(
                    {"a": [1, 2, 3], "b": [0.5, 0.25]}, evaluate=evaluate, objectives="score:max", trials=6, epochs=4,
                    scheduler=scheduler, run_dir=scheduler.partition(":")[0], show=False,
                )
                print(scheduler, len(result.trials), result.top_models(1)[0]["architecture"])
            """
        )
    )
    done = subprocess.run(
        [sys.executable, "script.py"], env=environment(), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("this line runs once") == 1
    assert "none 6 {'a': 3, 'b': 0.5}" in done.stdout
    assert re.search(r"asha:eta=2 6 \{'a': \d, 'b': 0\.\d+\}", done.stdout)
    assert "RUNNING" not in [t.state.name for t in study("asha").trials]


@pytest.mark.parametrize(
    ("options", "count", "said"),
    [
        ({"stop_at": "val_accuracy=0.5"}, 1, "has reached --stop-at val_accuracy=0.5"),
        ({"patience": 1, "objectives": "params"}, None, r"no better one in the last 1 trials \(--patience 1\)"),
        ({"patience": 2, "objectives": "val_accuracy,params"}, None, None),
    ],
)
def test_enough(
    options: dict[str, Any], count: int | None, said: str | None, capfd: pytest.CaptureFixture[str]
) -> None:
    result = tiny(**options, trials=6, epochs=1, sampler="random", show=True)
    assert count in (None, len(result.trials))
    output = capfd.readouterr().out
    if said is not None:
        assert len(result.trials) < 6
        assert re.search(f"the search ended: .*{said}", output)
    size = os.path.getsize("run/study.journal")
    slimsearch.resume("run", show=False)
    assert os.path.getsize("run/study.journal") == size, "it is enough also when it is resumed"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--scheduler", "ashaa"], "unknown scheduler 'ashaa'; known: .*asha"),
        (["--scheduler", "asha:eta=1"], "scheduler 'asha': eta=1 is not a whole number of at least 2"),
        (["--strategy", "supernet", "--evaluator", "table.csv"], "--strategy supernet trains networks"),
        (["--strategy", "nni-darts", "--evaluator", "table.csv"], "--strategy nni_darts trains networks"),
        (["--evaluator", "missing.csv"], "cannot read the table '.*missing.csv'"),
        (["--evaluator", "table.csv", "--objectives", "latency_ms"], "'latency_ms' is not recorded; known: params"),
        (["--stop-at", "nonsense"], "--stop-at 'nonsense' is not of the form metric=number"),
        (["--stop-at", "energy=1"], "--stop-at names 'energy'"),
        (["--patience", "0"], "--patience 0 is less than 1"),
        (["--strategy", "supernet", "--subnets", "0"], "--subnets 0 is less than 1"),
        (["--supernet-sampling", "best"], "--supernet-sampling 'best' is none of sandwich, fair, random"),
    ],
)  # fmt: skip
def test_mistakes_are_one_clear_line(
    words: list[str], said: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_table(folder / "table.csv")
    objectives = [] if "--objectives" in words else ["--objectives", "val_accuracy,params"]
    code = main(["run", "--space", TINY, "--dataset", "digits", *objectives, *words])
    output = capsys.readouterr()
    assert code == 2
    assert re.search(said, output.err), output.err
    assert len(output.err.strip().splitlines()) == 1
    assert output.err.startswith("error: ")
    assert [entry.name for entry in folder.iterdir()] == ["table.csv"], "nothing was written"
