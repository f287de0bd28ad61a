"""The command line: real runs in processes of their own, and every mistake in one clear line."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import slimsearch
from evaluators import DeployedModel
from evaluators.datasets import Dataset
from tests.conftest import ROOT, SPACES, TINY, Run, environment

FAST = ("--dataset", "digits", "--epochs", "2", "--workers", "2")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A whole run on real digits: all six candidates of the tiny space, and compression."""
    folder = tmp_path_factory.mktemp("finished")
    words = [
        "--space",
        TINY,
        "--strategy",
        "optuna",
        "--dataset",
        "digits",
        "--epochs",
        "8",
        "--top-k",
        "3",
        "--run-dir",
        "run",
    ]
    process = subprocess.run(
        [sys.executable, str(ROOT / "experiments" / "run.py"), *words],
        cwd=folder, env=environment(), capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    return folder / "run", process


def test_a_run_leaves_what_the_readme_says(finished: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    directory, process = finished
    names = {entry.name for entry in directory.iterdir()}
    assert names >= {
        "config.yaml", "environment.json", "study.journal", "trials", "top_models.json", "pareto.csv", "report.html",
    }  # fmt: skip
    assert not [name for name in names if name.startswith(".") or name.endswith(".part")]
    assert "[6/6]" in process.stdout
    assert "every candidate of the space has been tried" in process.stdout
    assert process.stderr == ""


def test_top_models_are_what_they_say(finished: tuple[Path, subprocess.CompletedProcess[str]], digits: Dataset) -> None:
    directory, process = finished
    models = json.loads((directory / "top_models.json").read_text())
    assert sum(model["on_front"] for model in models) >= 2
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
            logits = trained(digits.normalise(digits.test.images)).detach().numpy()
            found = DeployedModel(file)(digits.normalise(digits.test.images).numpy())
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
    finished: tuple[Path, subprocess.CompletedProcess[str]], run: Run
) -> None:
    directory, _ = finished
    before = {name: (directory / name).read_text() for name in ("top_models.json", "pareto.csv")}
    size = (directory / "study.journal").stat().st_size
    again = run("--resume", str(directory))
    assert again.returncode == 0, again.stderr
    assert {name: (directory / name).read_text() for name in before} == before
    assert (directory / "study.journal").stat().st_size == size


def test_kill_9_and_resume_lose_and_repeat_nothing(tmp_path: Path, run: Run) -> None:
    words = ["--space", TINY, "--dataset", "digits", "--epochs", "25", "--run-dir", "run", "--seed", "3"]
    process = subprocess.Popen(
        [sys.executable, "-m", "experiments.main", "run", *words],
        cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("[3/6]"):
            break
    process.kill()
    process.wait()
    before = recorded(tmp_path / "run")
    assert len(before) >= 3
    time.sleep(1)  # its workers notice within half a second
    again = run("--resume", "run")
    assert again.returncode == 0, again.stderr
    after = recorded(tmp_path / "run")
    assert {number: after[number] for number in before} == before
    searched = [t for t in after.values() if t["kind"] == "search"]
    assert len(searched) == len({json.dumps(t["params"], sort_keys=True) for t in searched}) == 6


def test_ctrl_c_and_resume(tmp_path: Path, run: Run) -> None:
    words = ["--space", TINY, "--dataset", "digits", "--epochs", "60", "--run-dir", "run"]
    process = subprocess.Popen(
        [sys.executable, "-m", "experiments.main", "run", *words], cwd=tmp_path, env=environment(), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("[1/6]"):
            break
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the workers get it too
    rest, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors == ""
    assert "interrupted; go on with --resume run" in rest
    assert (tmp_path / "run" / "report.html").is_file()
    before = recorded(tmp_path / "run")
    again = run("--resume", "run")
    assert again.returncode == 0, again.stderr
    after = recorded(tmp_path / "run")
    assert {number: after[number] for number in before} == before
    assert [t["state"] for t in after.values() if t["kind"] == "search"] == ["COMPLETE"] * 6


def recorded(directory: Path) -> dict[int, dict[str, object]]:
    """Finished trials as any Optuna program reads them."""
    import optuna

    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(directory / "study.journal"))
    )
    study = optuna.load_study(study_name=None, storage=storage)
    return {
        t.number: {
            "params": t.params, "values": t.values, "kind": t.user_attrs["kind"], "result": t.user_attrs["result"],
            "curve": t.intermediate_values, "state": t.state.name,
        }
        for t in study.trials
        if t.state.is_finished()
    }  # fmt: skip


@pytest.mark.parametrize(
    ("space", "extra", "failures", "said"),
    [
        ("SometimesFails", (), 2, "RuntimeError: width 16 gave up"),
        ("SometimesDies", ("--retries", "0"), 2, "its worker process died"),
        ("SometimesHangs", ("--trial-timeout", "20"), 1, "took longer than --trial-timeout 20 s"),
    ],
)
def test_a_trial_that_fails_is_recorded_and_the_search_goes_on(
    space: str, extra: tuple[str, ...], failures: int, said: str, run: Run, tmp_path: Path
) -> None:
    done = run("--space", f"{SPACES}:{space}", *FAST, "--run-dir", "run", "--compress", "none", *extra)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("failed:") == failures
    assert said in done.stdout
    states = [t["state"] for t in recorded(tmp_path / "run").values()]
    assert sorted(states) == ["COMPLETE"] * (6 - failures) + ["FAIL"] * failures


def test_limits_and_the_weighted_objective(run: Run, tmp_path: Path) -> None:
    limits = ("--max-params", "1600", "--objective", "weighted", "--objectives", "val_accuracy,size_kib,macs")
    done = run("--space", TINY, *FAST, "--run-dir", "run", "--compress", "quantize", *limits)
    assert done.returncode == 0, done.stderr
    assert "ruled out before training: params 2410 exceeds --max-params 1600" in done.stdout
    assert "score" in done.stdout
    models = json.loads((tmp_path / "run" / "top_models.json").read_text())
    assert all(model["metrics"]["params"] <= 1600 for model in models)


def test_the_targets_of_the_weighted_objective_are_written_down(run: Run, tmp_path: Path) -> None:
    # One worker: which ten candidates are the first does not depend on who finishes first.
    words = ("--space", "lenet", "--dataset", "digits", "--image-size", "20", "--epochs", "1", "--trials", "11")
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


def test_an_image_folder_of_ones_own(run: Run, tmp_path: Path, digits: Dataset) -> None:
    from PIL import Image

    for i in range(400):
        folder = tmp_path / "images" / f"digit {digits.train.labels[i]}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(digits.train.images[i, 0]).save(folder / f"{i}.png")
    done = run("--space", TINY, "--dataset", "images", "--epochs", "3", "--trials", "2", "--run-dir", "run")
    assert done.returncode == 0, done.stderr
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert json.loads(environment["dataset"]["classes"])[3] == "digit 3"


def test_help_is_there_in_under_a_second() -> None:
    words = [sys.executable, str(ROOT / "experiments" / "run.py"), "--help"]
    seconds = []
    for _ in range(3):
        started = time.monotonic()
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        seconds.append(time.monotonic() - started)
    assert min(seconds) < 1
    for word in ("mnist_cnn", "mnist5k", "tpe", "--resume", "--max-latency-ms", "examples:"):
        assert word in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "--space is missing"),
        (["--space", "mnist_cn"], "unknown space 'mnist_cn'; known: lenet, mnist_cnn, or path/to/file.py:ClassName"),
        (["--space", "nowhere.py:Net"], "there is no file '.*nowhere.py'"),
        (["--space", f"{SPACES}:NotASpace"], "'NotASpace' is not an NNI ModelSpace"),
        (["--space", f"{SPACES}:FailsToBuild"], "the constructor gave up"),
        (["--space", f"{SPACES}:WrongOutput"], r"gives \(2, 7\) .*needs \(2, 10\)"),
        (["--space", f"{SPACES}:FailsToRun"], "the forward pass gave up"),
        (["--space", "lenet", "--dataset", "digits"], "lenet needs images of at least 20x20 pixels, not 8x8"),
        (["--space", TINY, "--strategy", "optun"], "unknown strategy 'optun'; known: optuna"),
        (["--space", TINY, "--sampler", "tpee"], "unknown sampler 'tpee'; known: gp, grid, nsga2, random, tpe"),
        (["--space", TINY, "--dataset", "mnits"], "unknown data set 'mnits'; known: .*mnist5k"),
        (["--space", TINY, "--compress", "prun"], "unknown stage 'prun'; known: distill, prune, quantize"),
        (["--space", TINY, "--objectives", "val_accuracy,energy"], "'energy' needs a direction"),
        (["--space", TINY, "--objectives", "val_accuracy,energy:min"], "'energy' is not recorded; known: val_accuracy"),
        (["--space", TINY, "--objective", "best"], "--objective 'best' is none of pareto, weighted"),
        (["--space", TINY, "--max-size-kib", "-3"], "--max-size-kib -3 is not above 0"),
        (["--space", TINY, "--min-accuracy", "98"], r"--min-accuracy 98 is not between 0 and 1 \(0.98 stands"),
        (["--space", TINY, "--trials", "0"], "--trials 0 is less than 1"),
        (["--space", TINY, "--trials", "many"], "trials"),
        (["--space", TINY, "--workers", "-1"], "--workers -1 is less than 0"),
        (["--space", TINY, "--trails", "3"], "trails"),
        (["--space", TINY, "--device", "tpu"], "--device 'tpu' is none of auto, cpu, cuda"),
        (["--space", TINY, "--metrics", "x"], "--metrics 'x' is not of the form"),
        (["--space", TINY, "--dataset", "digits", "--run-dir", "/proc/run"], "cannot make the run directory"),
        (["--resume", "nowhere"], "'nowhere' is no run directory: it has no config.yaml"),
    ],
)  # fmt: skip
def test_mistakes_are_one_clear_line(words: list[str], said: str, run: Run, tmp_path: Path) -> None:
    done = run(*words)
    assert done.returncode == 2
    assert re.search(said, done.stderr), done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert "Traceback" not in done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == [], "nothing was written"


def test_a_limit_that_nothing_can_meet(run: Run, tmp_path: Path) -> None:
    done = run("--space", TINY, *FAST, "--max-size-kib", "1", "--run-dir", "run")
    assert done.returncode == 2
    assert re.fullmatch(r"error: no candidate meets --max-size-kib 1: the best of 6 has size_kib [\d.]+\n", done.stderr)
    assert len(recorded(tmp_path / "run")) == 6, "what was found out is kept"


class TestOfAFinishedRun:
    def refused(self, run: Run, directory: Path, said: str, *extra: str) -> None:
        done = run("--resume", str(directory), *extra)
        assert done.returncode == 2
        assert re.search(said, done.stderr), done.stderr
        assert len(done.stderr.strip().splitlines()) == 1

    @pytest.fixture
    def copy(self, finished: tuple[Path, object], tmp_path: Path) -> Path:
        import shutil

        return Path(shutil.copytree(finished[0], tmp_path / "copy"))

    def test_what_cannot_change(self, run: Run, copy: Path) -> None:
        self.refused(run, copy, "--epochs cannot change when a run is resumed; what can: --trials", "--epochs", "9")

    def test_another_version(self, run: Run, copy: Path) -> None:
        (copy / "config.yaml").write_text((copy / "config.yaml").read_text().replace("format: 1", "format: 99"))
        self.refused(run, copy, "has the format 99; this version of Slimsearch reads 1")

    @pytest.mark.parametrize("text", ["", "a: [", "- 1", "format: 1\nspace: 3\nnonsense: 2", "\x00"])
    def test_a_damaged_configuration(self, run: Run, copy: Path, text: str) -> None:
        (copy / "config.yaml").write_text(text)
        self.refused(run, copy, "config.yaml|unknown options")

    def test_a_damaged_journal(self, run: Run, copy: Path) -> None:
        (copy / "study.journal").write_bytes(b"garbage\n")
        self.refused(run, copy, "study.journal' is damaged in line 1")

    def test_another_data_set(self, run: Run, copy: Path) -> None:
        text = (copy / "environment.json").read_text()
        (copy / "environment.json").write_text(re.sub(r'"fingerprint": "\w+"', '"fingerprint": "0"', text))
        self.refused(run, copy, "the data set is not the one")

    def test_another_space(self, run: Run, copy: Path, tmp_path: Path) -> None:
        changed = SPACES.read_text().replace("[8, 16, 24]", "[8, 16, 32]")
        (tmp_path / "spaces.py").write_text(changed)
        text = (copy / "config.yaml").read_text()
        (copy / "config.yaml").write_text(text.replace(str(SPACES), str(tmp_path / "spaces.py")))
        self.refused(run, copy, "the space is not the one .*: 'width' was 8, 16, 24, is 8, 16, 32")

    def test_in_use(self, run: Run, copy: Path) -> None:
        from experiments.run_directory import RunDirectory

        with RunDirectory(copy, create=False):
            self.refused(run, copy, "in use by another process")

    def test_more_trials(self, run: Run, copy: Path) -> None:
        done = run("--resume", str(copy), "--trials", "50")
        assert done.returncode == 0, done.stderr
        assert "trials: 50" in (copy / "config.yaml").read_text()

    def test_another_version_of_a_package_is_said(self, run: Run, copy: Path) -> None:
        text = (copy / "environment.json").read_text()
        (copy / "environment.json").write_text(re.sub(r'"torch": "[^"]+"', '"torch": "1.0"', text))
        done = run("--resume", str(copy))
        assert done.returncode == 0, done.stderr
        assert "warning: the environment has changed: torch was 1.0" in done.stdout


def test_the_dashboard_serves_a_run_on_the_loopback_address(finished: tuple[Path, object]) -> None:
    import socket
    import urllib.request

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "experiments.main", "dashboard", str(finished[0]), "--port", str(port)],
        env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        for _ in range(150):
            try:
                answer = urllib.request.urlopen(f"http://127.0.0.1:{port}/api/studies", timeout=2).read()
                break
            except OSError:
                assert process.poll() is None
                time.sleep(0.1)
        assert json.loads(answer)["study_summaries"][0]["study_name"] == "slimsearch"
    finally:
        process.terminate()
        process.wait()


def test_a_dashboard_of_nothing(run: Run) -> None:
    done = run("nowhere", command="dashboard")
    assert done.returncode == 2
    assert done.stderr == "error: 'nowhere' is no run directory: it has no study.journal\n"


@pytest.mark.parametrize(("command", "code"), [("rum", 2), ("--help", 0)])
def test_commands(command: str, code: int, run: Run) -> None:
    done = run(command=command)
    assert done.returncode == code
    assert "dashboard" in done.stdout + done.stderr
