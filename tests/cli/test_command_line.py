"""The command line: real runs."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import slimsearch
from slimsearch.cli.commands import run as run_command
from slimsearch.cli.run_options import GROUPS
from slimsearch.evaluators import DeployedModel
from slimsearch.evaluators.datasets import Dataset
from slimsearch.options.configuration import Configuration
from tests.conftest import DOZEN, ROOT, SPACES, TINY, Run, environment, recorded

FAST = ("--dataset", "digits", "--epochs", "2", "--workers", "2")


def test_a_run_leaves_what_the_readme_says(finished: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    directory, process = finished
    names = {entry.name for entry in directory.iterdir()}
    assert names >= {
        "config.yaml", "environment.json", "study.journal", "trials", "top_models.json", "pareto.csv", "report.html",
        "trials.csv",
    }  # fmt: skip
    assert not [name for name in names if name.startswith(".") or ".part" in name]
    assert "[6/6]" in process.stdout
    assert process.stderr == ""


def test_top_models_are_what_they_say(finished: tuple[Path, subprocess.CompletedProcess[str]], digits: Dataset) -> None:
    directory, process = finished
    models = json.loads((directory / "top_models.json").read_text())
    assert any(model["on_front"] for model in models)
    assert digits.test is not None
    for model in models:
        file = directory / model["artifact"]
        assert slimsearch.accuracy(file, digits, digits.test) == model["metrics"]["test_accuracy"]
        assert slimsearch.accuracy(file, digits, digits.validation) == model["metrics"]["val_accuracy"]
        assert file.stat().st_size / 1024 == model["metrics"]["size_kib"]
        network = slimsearch.build(TINY, model["architecture"], input_shape=(1, 8, 8))
        if "prune" not in model["recipe"]:
            assert sum(p.numel() for p in network.parameters()) == model["metrics"]["params"]
        assert {"latency_ms", "macs"} <= model["metrics"].keys()
        trained = slimsearch.load_network(directory, model)
        assert sum(p.numel() for p in trained.parameters()) == model["metrics"]["params"]
        if "quantize" not in model["recipe"]:
            logits = trained(digits.normalise(digits.test.inputs)).detach().numpy()
            found = DeployedModel(file)(digits.normalise(digits.test.inputs).numpy())
            assert np.allclose(logits, found, atol=1e-4)
    printed = [line for line in process.stdout.splitlines() if line.startswith("{")]
    dicts = [eval(line) for line in printed]
    assert dicts == [model["architecture"] for model in models if model["on_front"]]


def test_no_two_trials_are_alike(finished: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    import optuna

    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(finished[0] / "study.journal"))
    )
    study = optuna.load_study(study_name=None, storage=storage)
    searched = [t for t in study.trials if t.user_attrs["kind"] == "search"]
    assert len({json.dumps(t.params, sort_keys=True) for t in searched}) == len(searched) == 6
    for trial in searched:
        assert list(trial.intermediate_values) == list(range(1, 9))
    stages = [t for t in study.trials if t.user_attrs["kind"] == "compression"]
    assert len(stages) == 6
    assert all(t.user_attrs["result"]["reason"] for t in stages)


def test_the_report_is_one_page_that_loads_nothing(finished: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    page = (finished[0] / "report.html").read_text()
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", page)
    data = json.loads(re.search(r'<script id="data"[^>]*>(.*?)</script>', page, re.S).group(1))
    assert len(data["trials"]) == 12
    assert len(page) < 500_000


def test_resuming_a_finished_run_changes_nothing(
    finished: tuple[Path, subprocess.CompletedProcess[str]], run_apart: Run
) -> None:
    directory, _ = finished
    before = {name: (directory / name).read_text() for name in ("top_models.json", "pareto.csv")}
    size = (directory / "study.journal").stat().st_size
    again = run_apart("--resume", str(directory))
    assert again.returncode == 0, again.stderr
    assert {name: (directory / name).read_text() for name in before} == before
    assert (directory / "study.journal").stat().st_size == size


def test_trials_that_fail_are_recorded_and_the_search_goes_on(run: Run, tmp_path: Path) -> None:
    words = ("--run-dir", "run", "--compress", "none", "--retries", "0", "--trial-timeout", "20")
    done = run("--space", f"{SPACES}:GoesWrong", *FAST, *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("failed:") == 3
    for said in (
        "RuntimeError: width 16 gave up", "its worker process died", "took longer than --trial-timeout 20 s",
    ):  # fmt: skip
        assert done.stdout.count(said) == 1
    states = [t["state"] for t in recorded(tmp_path / "run").values()]
    assert sorted(states) == ["COMPLETE"] * 3 + ["FAIL"] * 3


def test_limits_and_the_weighted_objective(run: Run, tmp_path: Path) -> None:
    limits = ("--max-params", "1600", "--objective", "weighted", "--objectives", "val_accuracy,size_kib,macs")
    done = run("--space", TINY, *FAST, "--run-dir", "run", "--compress", "quantize", *limits)
    assert done.returncode == 0, done.stderr
    assert "2410 exceeds --max-params 1600" in done.stdout
    models = json.loads((tmp_path / "run" / "top_models.json").read_text())
    assert all(model["metrics"]["params"] <= 1600 for model in models)


@pytest.mark.slow
def test_the_targets_of_the_weighted_objective_are_written_down(run: Run, tmp_path: Path) -> None:
    # One worker: which ten candidates are the first does not depend on who finishes first.
    words = ("--space", DOZEN, "--dataset", "digits", "--epochs", "1", "--trials", "11")
    more = ("--compress", "none", "--objective", "weighted", "--sampler", "random", "--workers", "1")
    done = run(*words, *more, "--run-dir", "run")
    assert done.returncode == 0, done.stderr
    targets = re.search(r"^targets: (.*)$", (tmp_path / "run" / "config.yaml").read_text(), re.M).group(1)
    found = {name: float(value) for name, value in (part.split("=") for part in targets.split(","))}
    first = [t["result"]["metrics"] for number, t in recorded(tmp_path / "run").items() if number < 10]
    assert found == {name: float(np.median([m[name] for m in first])) for name in ("latency_ms", "size_kib")}


def test_metrics_of_ones_own(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "def nodes(path, data):\n"
        "    import onnx\n"
        "    assert data.test is None\n"
        "    return len(onnx.load(str(path)).graph.node)\n"
    )
    words = ("--metrics", "nodes=mine.py:nodes", "--objectives", "val_accuracy,nodes:min", "--trials", "2")
    done = run("--space", TINY, *FAST, *words, "--compress", "none", "--run-dir", "run")
    assert done.returncode == 0, done.stderr
    models = json.loads((tmp_path / "run" / "top_models.json").read_text())
    assert all(model["metrics"]["nodes"] == 5 for model in models)
    assert f"nodes={tmp_path / 'mine.py'}:nodes" in (tmp_path / "run" / "config.yaml").read_text()


def test_names_that_look_like_markup(run: Run, tmp_path: Path) -> None:
    """Square brackets mean something to the library that prints."""
    done = run("--space", TINY, *FAST, "--trials", "1", "--compress", "none", "--run-dir", "[bold][a] [red]/x")
    assert done.returncode == 0, done.stderr
    assert "run directory: [bold][a] [red]/x" in done.stdout
    assert "[bold][a] [red]/x/report.html" in done.stdout


def test_an_image_folder_of_ones_own(run: Run, tmp_path: Path, digits: Dataset) -> None:
    from PIL import Image

    for i in range(400):
        folder = tmp_path / "images" / f"digit {digits.train.targets[i]}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(digits.train.inputs[i, 0]).save(folder / f"{i}.png")
    words = ("--epochs", "3", "--trials", "2", "--run-dir", "run", "--compress", "quantize", "--top-k", "1")
    done = run("--space", TINY, "--dataset", "images", *words)
    assert done.returncode == 0, done.stderr
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert json.loads(environment["dataset"]["classes"])[3] == "digit 3"


def test_every_option_of_a_run_has_one_heading_in_the_help() -> None:
    names = [name for daily, rare in GROUPS.values() for name in (*daily, *rare)]
    assert sorted(names) == sorted(option.name for option in dataclasses.fields(Configuration))
    parser = run_command.parser("slimsearch run")
    daily = re.findall(r"^  (--\S+)", parser.format_help(), re.M)
    every = re.findall(r"^  (--\S+)", parser.format_help_all(), re.M)
    assert {"--space", "--dataset", "--resume", "--help-all"} <= set(daily) < set(every)
    assert len(daily) <= 26  # --help-all is one of them
    assert {flag for action in parser._actions for flag in action.option_strings} == {"-h", "--help", *every}


def test_help_is_there_in_under_half_a_second() -> None:
    words = [sys.executable, str(ROOT / "experiments" / "run.py"), "--help"]
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        # Processor time: wall time on a machine where nothing else runs.
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < 0.5
    for word in ("mnist_cnn", "mnist5k", "tpe", "--resume", "--max-latency-ms", "examples:"):
        assert word in done.stdout


@pytest.mark.parametrize("words", [[], ["run"], ["check"], ["retrain"], ["export"]])
def test_help_imports_no_large_package(words: list[str]) -> None:
    script = (
        "import sys; from slimsearch.cli.main import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "print({'torch', 'nni', 'ray', 'numpy', 'optuna'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *words, "--help"], env=environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout
    assert done.stderr == "set()\n"


def test_the_dashboard_serves_a_run_on_the_loopback_address(finished: tuple[Path, object]) -> None:
    import socket
    import urllib.request

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "slimsearch.cli.main", "dashboard", str(finished[0]), "--port", str(port)],
        env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        answer, deadline = None, time.monotonic() + 120
        while answer is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                pytest.fail(f"the dashboard ended with exit code {process.wait(0.1)}")
            assert time.monotonic() < deadline
            with contextlib.suppress(OSError):
                answer = urllib.request.urlopen(f"http://127.0.0.1:{port}/api/studies", timeout=30).read()
        assert json.loads(answer)["study_summaries"][0]["study_name"] == finished[0].name
    finally:
        process.terminate()
        process.wait()


def test_a_dashboard_of_nothing(run: Run) -> None:
    done = run("nowhere", command="dashboard")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "'nowhere'" in line


@pytest.mark.parametrize(("command", "code"), [("rum", 2), ("--help", 0)])
def test_commands(command: str, code: int, run: Run) -> None:
    done = run(command=command)
    assert done.returncode == code
    assert "dashboard" in done.stdout + done.stderr
