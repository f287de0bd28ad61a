"""Every mistake is one clear line, exit code 2, and loses nothing."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from slimsearch.record.run_directory import RunDirectory
from tests.conftest import DEFINED, SPACES, TINY, Run, environment, recorded

FAST = ("--dataset", "digits", "--epochs", "2", "--workers", "2")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "--space"),
        (["--space", "mnist_cn"], "'mnist_cn'.*lenet, .*mnist_cnn"),
        (["--space", "nowhere.py:Net"], "nowhere.py"),
        (["--space", f"{SPACES}:NotASpace"], "NotASpace"),
        (["--space", f"{SPACES}:FailsToBuild"], "the constructor gave up"),
        (["--space", f"{SPACES}:WrongOutput"], r"\(2, 7\).*\(2, 10\)"),
        (["--space", f"{SPACES}:FailsToRun"], "the forward pass gave up"),
        (["--space", "lenet", "--dataset", "digits"], "lenet.*20x20.*8x8"),
        (["--space", TINY, "--strategy", "optun"], "'optun'.*optuna, ray"),
        (["--space", TINY, "--sampler", "tpee"], "'tpee'.*graph_gp.*tpe"),
        (["--space", TINY, "--dataset", "mnits"], "'mnits'.*mnist5k"),
        (["--space", TINY, "--compress", "prun"], "'prun'.*prune.*quantize"),
        (["--space", TINY, "--objectives", "val_accuracy,energy"], "'energy'"),
        (["--space", TINY, "--objectives", "val_accuracy,energy:min"], "'energy'.*val_accuracy"),
        (["--space", TINY, "--objective", "best"], "--objective 'best'.*pareto, weighted"),
        (["--space", TINY, "--training-threads", "0"], "--training-threads 0"),
        (["--space", TINY, "--max-size-kib", "-3"], "--max-size-kib -3"),
        (["--space", TINY, "--min-accuracy", "98"], "--min-accuracy 98.*0.98"),
        (
            ["--space", TINY, "--dataset", "digits", "--objectives", "val_rmse", "--min-accuracy", "0.5"],
            "objective 'val_rmse' is not recorded; known: val_accuracy",
        ),
        (["--space", TINY, "--trials", "0"], "--trials 0"),
        (["--space", TINY, "--trials", "many"], "--trials.*'many'"),
        (["--space", TINY, "--learning-rate", "high"], "--learning-rate.*'high'"),
        (["--space", TINY, "--workers", "-1"], "--workers -1"),
        (["--space", TINY, "--trails", "3"], "--trails"),
        (["--space", TINY, "--device", "tpu"], "--device 'tpu'.*auto, cpu, cuda"),
        (["--space", TINY, "--metrics", "x"], "--metrics 'x'"),
        (["--space", TINY, "--dataset", "digits", "--run-dir", "/proc/run"], "/proc/run"),
        (["--space", f"{DEFINED}:no_space"], r"'no_space' is not a space of networks, .*define\(trial\)"),
        (["--space", f"{DEFINED}:fails", *FAST], r"\(defined.py, line \d+\): RuntimeError: the function gave up"),
        (["--space", f"{DEFINED}:smal", *FAST], "has no 'smal'; .*did you mean 'small'"),
        (["--space", f"{DEFINED}:two_meanings", *FAST], "'last' is asked for with different values"),
        (
            ["--space", f"{DEFINED}:small", "--strategy", "nni-darts", *FAST],
            "nni_darts trains a supernet of an NNI ModelSpace, and small is plain PyTorch: search it by",
        ),
        (["--space", f"{DEFINED}:of_choices", "--strategy", "supernet", *FAST], "is plain PyTorch: search it by"),
        (
            ["--space", TINY, "--device-host", "a", "--device-host", "b"],
            "--device-host is given twice; separate several values by commas: --device-host a,b",
        ),
        (["--space", TINY, "--compress", "prune", "--compress", "quantize"], "--compress prune,quantize"),
        (["--space", str(DEFINED)], "is a file: add the name of a class or function in it, .*defined.py:"),
        (["--resume", "nowhere"], "'nowhere' is not a run directory: there is no such folder"),
        (["--resume", "."], "'.' is not a run directory: it has no config.yaml"),
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


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["--space", "mnist_cn"], "mnist_cnn"),
        (["--space", f"{SPACES}:Tinny"], "Tiny"),
        (["--space", str(SPACES.with_name("space.py")) + ":Tiny"], "spaces.py"),
        (["--space", TINY, "--dataset", "fashion-mnist"], "fashion_mnist"),
        (["--space", TINY, "--strategy", "optun"], "optuna"),
        (["--space", TINY, "--sampler", "tpee"], "tpe"),
        (["--space", TINY, "--scheduler", "ashaa"], "asha"),
        (["--space", TINY, "--scheduler", "asha:etta=3"], "eta"),
        (["--space", TINY, "--compress", "prune,distil"], "distill"),
        (["--space", TINY, "--log", "tensorbord"], "tensorboard"),
        (["--space", TINY, "--objectives", "val_acuracy"], "val_accuracy"),
        (["--space", TINY, "--trails", "3"], "--trials"),
        (["--space", TINY, "--learning_rate", "3"], "--learning-rate"),
        (["--space", TINY, "--co-search", "recipe.yaml"], "quantize"),
        (["--config", "quik"], "quick"),
        (["--config", "mine.yaml"], "learning_rate"),
    ],
)  # fmt: skip
def test_what_was_meant_is_proposed(words: list[str], meant: str, run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("learning-rate: 1e-3\n")
    (tmp_path / "recipe.yaml").write_text("training: {learning_rate: [1e-3, 2e-3]}\nquantise: {use: [true, false]}\n")
    done = run(*words)
    assert done.returncode == 2
    assert re.search(f"did you mean '{meant}'", done.stderr), done.stderr


def test_mistakes_are_answered_before_pytorch_and_nni_are_imported(tmp_path: Path) -> None:
    """Which takes most of a minute on a busy machine."""
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    base = ["run", "--space", "mnist_cnn"]
    tried = [
        ["run", "--space", "mnist_cn"], ["check", "--space", "mnist_cn"], ["run", "--space", f"{SPACES}:Tinny"],
        ["run", "--space", "nowhere.py:Net"], ["run", "--space", "nowhere:Net"], [*base, "--dataset", "mnits"],
        [*base, "--strategy", "optun"], [*base, "--sampler", "tpee"], [*base, "--scheduler", "ashaa"],
        [*base, "--compress", "prune,distil"], [*base, "--metrics", "a=none.py:f"], [*base, "--evaluator", "none.csv"],
        [*base, "--init", "none.pth"], [*base, "--co-search", "none.yaml"], [*base, "--architectures", "none.json"],
        [*base, "--run-dir", "taken"], ["retrain", "taken"], ["run", "--resume", "taken"],
    ]  # fmt: skip
    (tmp_path / "try.py").write_text(
        "import sys\nfrom slimsearch.cli.main import main\n"
        f"for words in {tried!r}:\n    assert main(words) == 2, words\n"
        "    assert not {'torch', 'nni'} & sys.modules.keys(), words\n"
    )
    done = subprocess.run(
        [sys.executable, "try.py"], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stderr.splitlines()) == len(tried), done.stderr


@pytest.mark.parametrize("words", [["report", b"b\xff"], ["run", "--space", b"\xff.py:Net"], ["ls", b"\xff"]])
def test_names_that_are_not_utf_8_are_one_line(words: list[str | bytes], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "slimsearch.cli.main", *words]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=240)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "\\udcff" in line


def test_names_that_control_a_terminal_are_escaped(run: Run, tmp_path: Path) -> None:
    """Of choices, run directories, folders and files."""
    (tmp_path / "table.csv").write_text("a\x1b[31m,loss:min\n1,0.5\n2,0.25\n")
    words = ("--evaluator", "table.csv", "--objectives", "loss:min", "--trials", "2", "--workers", "1")
    for folder in ("runs/b\x1b[31m", "runs/c\x9b1m\x07"):
        done = run(*words, "--run-dir", folder)
        assert done.returncode == 0, done.stderr
        assert "a\\x1b[31m=2" in done.stdout
        shown = [
            done, run(folder, command="report"), run("runs", command="ls"), run("--resume", f"{folder}x"),
            run(*words, "--run-dir", folder), run("--space", "\x1b[31m"), run("--dataset", "\x1b]0;x\x07", *words[:2]),
        ]  # fmt: skip
        for done in shown:
            assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", done.stdout + done.stderr), done


def test_numbers_may_have_exponents(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("trials: 1e1\nlearning_rate: 1e-3\nmax_params: 2E5\nstudy: 1e3\nstorage: a\n")
    done = run(
        "--space", TINY, "--epochs", "2e0", "--config", "mine.yaml", "--print-config", "--storage", "sqlite:///a"
    )
    assert done.returncode == 0, done.stderr
    found = yaml.safe_load(done.stdout)
    assert (found["trials"], found["epochs"], found["learning_rate"], found["max_params"]) == (10, 2, 1e-3, 2e5)
    (tmp_path / "again.yaml").write_text(done.stdout)
    assert run("--config", "again.yaml", "--print-config").stdout == done.stdout, "a text stays a text"
    assert found["study"] == "1e3"
    assert "is not a whole number" in run("--space", TINY, "--trials", "1e-1").stderr


def test_defaults_of_zero_are_shown(run: Run) -> None:
    shown = run("--help-all").stdout.partition("options:")[2]
    for option in ("workers", "seed", "gpus-per-trial"):
        (text,) = re.findall(rf"^  --{option} .*?(?=^  -|\Z)", shown, re.MULTILINE | re.DOTALL)
        assert re.search(r"\(default:\s+0(\.0)?\)", text), text


def test_nothing_else_is_said_in_a_process_of_its_own(run_apart: Run) -> None:
    """Where NNI is imported, which has much to say."""
    done = run_apart("--space", f"{SPACES}:FailsToRun", "--dataset", "digits")
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch("error: .*the forward pass gave up.*\n", done.stderr), done.stderr


def test_a_limit_that_nothing_can_meet(run: Run, tmp_path: Path) -> None:
    done = run("--space", TINY, *FAST, "--max-size-kib", "1", "--run-dir", "run")
    assert done.returncode == 2
    assert re.fullmatch(r"error: .*--max-size-kib 1\b.*\n", done.stderr)
    assert len(recorded(tmp_path / "run")) == 6, "what was found out is kept"


class TestOfAFinishedRun:
    def refused(self, run: Run, directory: Path, said: str, *extra: str) -> None:
        done = run("--resume", str(directory), *extra)
        assert done.returncode == 2
        assert re.search(said, done.stderr), done.stderr
        assert len(done.stderr.strip().splitlines()) == 1

    @pytest.fixture
    def copy(self, finished: tuple[Path, object], tmp_path: Path) -> Path:

        return Path(shutil.copytree(finished[0], tmp_path / "copy"))

    def test_what_cannot_change(self, run: Run, copy: Path) -> None:
        self.refused(run, copy, "--epochs.*--trials", "--epochs", "9")

    def test_another_version(self, run: Run, copy: Path) -> None:
        (copy / "config.yaml").write_text((copy / "config.yaml").read_text().replace("format: 1", "format: 99"))
        self.refused(run, copy, "format 99.*1")

    @pytest.mark.parametrize("text", ["", "a: [", "- 1", "format: 1\nspace: 3\nnonsense: 2", "\x00"])
    def test_a_damaged_configuration(self, run: Run, copy: Path, text: str) -> None:
        (copy / "config.yaml").write_text(text)
        self.refused(run, copy, "config.yaml")

    def test_a_damaged_journal(self, run: Run, copy: Path) -> None:
        (copy / "study.journal").write_bytes(b"garbage\n")
        self.refused(run, copy, "study.journal.*1")

    def test_another_data_set(self, run: Run, copy: Path) -> None:
        text = (copy / "environment.json").read_text()
        (copy / "environment.json").write_text(re.sub(r'"fingerprint": "\w+"', '"fingerprint": "0"', text))
        self.refused(run, copy, "data set")

    def test_another_space(self, run: Run, copy: Path, tmp_path: Path) -> None:
        changed = SPACES.read_text().replace("[8, 16, 24]", "[8, 16, 32]")
        (tmp_path / "spaces.py").write_text(changed)
        text = (copy / "config.yaml").read_text()
        (copy / "config.yaml").write_text(text.replace(str(SPACES), str(tmp_path / "spaces.py")))
        self.refused(run, copy, "'width'.*8, 16, 24.*8, 16, 32")

    def test_in_use(self, run_apart: Run, copy: Path) -> None:

        with RunDirectory(copy, create=False):
            self.refused(run_apart, copy, "in use")

    def test_more_trials(self, run: Run, copy: Path) -> None:
        done = run("--resume", str(copy), "--trials", "50")
        assert done.returncode == 0, done.stderr
        assert "trials: 50" in (copy / "config.yaml").read_text()

    def test_a_file_that_cannot_be_exported_is_no_run_to_resume(self, run: Run, copy: Path) -> None:
        done = run(copy, "--to", "/proc/nowhere", command="export")
        assert done.returncode == 2
        assert "/proc/nowhere" in done.stderr
        assert "--resume" not in done.stderr

    def test_another_version_of_a_package_is_said(self, run: Run, copy: Path) -> None:
        text = (copy / "environment.json").read_text()
        (copy / "environment.json").write_text(re.sub(r'"torch": "[^"]+"', '"torch": "1.0"', text))
        done = run("--resume", str(copy))
        assert done.returncode == 0, done.stderr
        assert "torch was 1.0" in done.stdout


def test_a_least_accuracy_of_a_minimized_metric_is_refused(run: Run, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("x,y\n" + "".join(f"{number},{0.5 * number}\n" for number in range(60)))
    words = ("--task", "regression", "--dataset", str(table), "--target-column", "y", "--objectives", "val_rmse")
    done = run("--space", "mlp", *words, "--min-accuracy", "0.5")
    assert done.returncode == 2
    assert re.search("--min-accuracy.*val_rmse is minimized", done.stderr), done.stderr
