"""Nothing that a stranger could hand over is run by being read."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import slimsearch
from slimsearch.compression import Network
from slimsearch.errors import SlimsearchError
from slimsearch.evaluators.datasets import Dataset
from slimsearch.temporary import user_folder
from tests.conftest import ROOT, SPACES, TINY, Run, environment
from tests.inputs.tried import command, content, forged


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """What is not there as long as nothing was run."""
    return tmp_path / "it-was-run"


def plant(file: Path, mark: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(pickle.dumps(Bomb(mark)))


def test_the_bomb_goes_off(mark: Path, tmp_path: Path) -> None:
    plant(tmp_path / "bomb", mark)
    pickle.loads((tmp_path / "bomb").read_bytes())
    assert mark.is_dir()


@pytest.mark.parametrize("name", ["config.yaml", "environment.json", "study.journal"])
def test_a_pickle_in_place_of_what_a_run_is_read_from(a_run: Path, name: str, mark: Path) -> None:
    plant(a_run / name, mark)
    if name == "study.journal":
        with (a_run / name).open("ab") as file:
            file.write(b"\n")  # else it is a torn last line
    before = content(a_run)
    code, _ = command("run directories", "run", "--resume", a_run)
    assert code == 2
    assert content(a_run) == before
    assert not mark.exists()


NO_NEED = (
    "top_models.json", "pareto.csv", "report.html", "driver", "study.journal.torn", "supernet/weights.safetensors",
    "supernet/supernet.json", "supernet/training.pt", "supernet/architectures.json", ".scratch/data/dataset.json",
    ".scratch/data/train_inputs.npy", "trials/00000/network.json", "trials/00000/weights.safetensors",
    "trials/00000/training.pt", "trials/00002/packed.bin",
)  # fmt: skip


def test_pickles_in_place_of_what_a_finished_run_has_no_need_of(a_run: Path, mark: Path, small_run: Path) -> None:
    """Written anew, or left alone."""
    for name in NO_NEED:
        plant(a_run / name, mark)
    code, said = command("run directories", "run", "--resume", a_run)
    assert (code, said) == (0, "")
    assert not mark.exists()
    found, before = (json.loads((run / "top_models.json").read_text()) for run in (a_run, small_run))
    for model in (*found, *before):
        model.pop("cannot_be_told_from", None)  # which the predictions say, and one trial has lost its own
    assert found == before


def test_predictions_are_left_out_of_the_report(a_run: Path, mark: Path) -> None:
    for folder in ("00000", "00001"):
        plant(a_run / "trials" / folder / "predictions.safetensors", mark)
    code, said = command("run directories", "run", "--resume", a_run)
    assert (code, said) == (0, "")
    assert not mark.exists()


def test_yaml_that_names_a_function(a_run: Path, mark: Path) -> None:
    text = f"!!python/object/apply:os.mkdir ['{mark}']"
    (a_run / "config.yaml").write_text(f"format: 1\nspace: {text}\n")
    assert command("run directories", "run", "--resume", a_run)[0] == 2
    (a_run / "options.yaml").write_text(f"space: {text}\n")
    assert command("configurations", "run", "--config", a_run / "options.yaml")[0] == 2
    (a_run / "recipe.yaml").write_text(f"prune:\n  sparsity: {text}\n")
    assert command("recipes", "run", "--space", TINY, "--compress", a_run / "recipe.yaml")[0] == 2
    assert command("recipes", "run", "--space", TINY, "--compress", f"prune:sparsity={text}")[0] == 2
    assert command("schedulers", "run", "--space", TINY, "--scheduler", f"asha:eta={text}")[0] == 2
    assert not mark.exists()


def cut_off(a_run: Path) -> None:
    """As a kill during the second trial leaves it."""
    lines = (a_run / "study.journal").read_bytes().splitlines(keepends=True)
    begun = [position for position, line in enumerate(lines) if json.loads(line)["op_code"] == 4]
    (a_run / "study.journal").write_bytes(b"".join(lines[: begun[1] + 1]))


@pytest.mark.parametrize("made", ["pickle", "torch"])
def test_a_checkpoint_is_ignored_and_the_log_says_so(a_run: Path, mark: Path, made: str) -> None:
    cut_off(a_run)
    checkpoint = a_run / "trials" / "00001" / "training.pt"
    if made == "pickle":
        plant(checkpoint, mark)
    else:
        torch.save({"steps": 1, "module": Bomb(mark)}, checkpoint)
    code, said = command("run directories", "run", "--resume", a_run)
    assert (code, said) == (0, "")
    assert not mark.exists()
    log = (checkpoint.parent / "log.txt").read_text()
    assert log.count(f"'{checkpoint}' cannot be read, the training starts again") == 1


def test_the_weights_of_a_parent_are_refused(a_run: Path, mark: Path) -> None:
    """What the stage that quantizes would start from."""
    lines = (a_run / "study.journal").read_bytes().splitlines(keepends=True)
    begun = [position for position, line in enumerate(lines) if json.loads(line)["op_code"] == 4]
    (a_run / "study.journal").write_bytes(b"".join(lines[: begun[2] + 1]))
    for folder in ("00000", "00001"):
        plant(a_run / "trials" / folder / "weights.safetensors", mark)
    code, said = command("run directories", "run", "--resume", a_run)
    assert (code, said) == (0, "")
    assert not mark.exists()
    last = json.loads((a_run / "study.journal").read_bytes().splitlines()[begun[2] + 1])
    assert "cannot load the network in" in last["user_attr"]["result"]["error"]


def test_the_files_that_python_reads(small_run: Path, digits: Dataset, mark: Path, tmp_path: Path) -> None:
    model = json.loads((small_run / "top_models.json").read_text())[0]
    a_run = Path(shutil.copytree(small_run, tmp_path / "run"))
    for name in ("weights.safetensors", "network.json"):
        plant(a_run / Path(model["artifact"]).parent / name, mark)
        with pytest.raises(SlimsearchError, match="cannot load the network"):
            slimsearch.load_network(a_run, model)
    plant(a_run / "environment.json", mark)
    with pytest.raises(SlimsearchError, match="cannot read"):
        slimsearch.load_network(a_run, model)
    digits.save(tmp_path / "data")
    for name in ("train_inputs.npy", "validation_targets.npy", "dataset.json"):
        np.save(tmp_path / "data" / "bomb.npy", np.array([Bomb(mark)], dtype=object), allow_pickle=True)
        shutil.move(tmp_path / "data" / "bomb.npy", tmp_path / "data" / name)
        with pytest.raises(SlimsearchError):
            Dataset.load(tmp_path / "data", digits.task)
    assert not mark.exists()


def test_a_description_that_asks_for_all_memory(small_run: Path, tmp_path: Path) -> None:
    model = json.loads((small_run / "top_models.json").read_text())[0]
    a_run = Path(shutil.copytree(small_run, tmp_path / "run"))
    file = a_run / Path(model["artifact"]).parent / "network.json"
    description = json.loads(file.read_text())
    description["structure"] = {"widths": {"fc": {"out_features": 10, "shapes": {"weight": [10**9, 10**6]}}}}
    file.write_text(json.dumps(description))
    with pytest.raises(SlimsearchError, match="asks for 1,000,000,000,000,000 numbers"):
        Network.load(slimsearch.build(TINY, model["architecture"], input_shape=(1, 8, 8)), file.parent)


class TestCodeThatARunNames:
    """A run directory is data: it makes nothing run that lies in it."""

    @pytest.fixture
    def code(self, a_run: Path, mark: Path) -> str:
        """A space of the run that leaves a mark, in the run directory."""
        text = f"import os\n\nif not os.path.isdir({str(mark)!r}):\n    os.mkdir({str(mark)!r})\n\n"
        (a_run / "evil.py").write_text(text + SPACES.read_text())
        return f"{a_run / 'evil.py'}:Tiny"

    def refused(self, a_run: Path, mark: Path, **options: object) -> str:
        config = yaml.safe_load((a_run / "config.yaml").read_text())
        (a_run / "config.yaml").write_text(yaml.safe_dump({**config, **options}))
        before = content(a_run)
        code, said = command("run directories", "run", "--resume", a_run)
        assert code == 2
        assert content(a_run) == before
        assert not mark.exists()
        return said

    @pytest.mark.parametrize("option", ["space", "sampler", "strategy", "scheduler", "evaluator"])
    def test_by_its_path(self, a_run: Path, mark: Path, code: str, option: str) -> None:
        said = self.refused(a_run, mark, **{option: code})
        assert str(a_run / "evil.py") in said
        assert "is not run" in said

    @pytest.mark.parametrize(
        ("option", "text"),
        [
            ("metrics", "nodes={}"), ("compress", "{}"), ("compress", "prune:importance={}"),
            ("compress", "prune:schedule={}"), ("scheduler", "asha+{}"), ("scheduler", "{}:eta=3"),
        ],
    )  # fmt: skip
    def test_within_other_options(self, a_run: Path, mark: Path, code: str, option: str, text: str) -> None:
        assert "is not run" in self.refused(a_run, mark, **{option: text.format(code)})

    def test_by_a_link(self, a_run: Path, mark: Path, code: str, tmp_path: Path) -> None:
        (tmp_path / "elsewhere.py").symlink_to(a_run / "evil.py")
        assert "is not run" in self.refused(a_run, mark, space=f"{tmp_path / 'elsewhere.py'}:Tiny")

    def test_by_a_path_that_depends_on_where_one_is(
        self, a_run: Path, mark: Path, code: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(a_run)
        assert "evil.py" in self.refused(a_run, mark, space="evil.py:Tiny")

    @pytest.mark.parametrize("where", ["run", "."])
    def test_as_a_module_of_the_current_folder(
        self, a_run: Path, mark: Path, code: str, where: str, tmp_path: Path
    ) -> None:
        shutil.copy(a_run / "evil.py", tmp_path / "evil.py")
        config = yaml.safe_load((a_run / "config.yaml").read_text())
        (a_run / "config.yaml").write_text(yaml.safe_dump({**config, "space": "evil:Tiny"}))
        done = subprocess.run(
            [sys.executable, str(ROOT / "experiments" / "run.py"), "--resume", str(a_run)],
            cwd=tmp_path / where, env=environment(), capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert "no module 'evil' is installed" in done.stderr
        assert not mark.exists()

    def test_as_a_module_that_is_found_in_the_run_directory(
        self, a_run: Path, mark: Path, code: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.syspath_prepend(a_run)
        assert "is not run" in self.refused(a_run, mark, space="evil:Tiny")

    def test_in_a_recipe_of_the_record(self, a_run: Path, mark: Path, code: str) -> None:
        """A trial that was under way would be run again, its stages in a worker."""
        journal = a_run / "study.journal"
        lines = journal.read_bytes().splitlines(keepends=True)
        begun = [position for position, line in enumerate(lines) if json.loads(line)["op_code"] == 4]
        last = json.loads(lines[begun[2]])
        last["user_attrs"] = {**last["user_attrs"], "recipe": json.dumps({code: {}})}
        del last["user_attrs"]["key"]
        journal.write_bytes(b"".join(lines[: begun[2]]) + forged(last))
        assert "the run's recipe has no stage" in self.refused(a_run, mark)

    def test_where_python_loads_a_network(self, a_run: Path, mark: Path, code: str) -> None:
        model = json.loads((a_run / "top_models.json").read_text())[0]
        self.refused(a_run, mark, space=code)
        with pytest.raises(SlimsearchError, match="is not run"):
            slimsearch.load_network(a_run, model)
        assert not mark.exists()

    def test_a_file_elsewhere_is_its_users_own(self, a_run: Path) -> None:
        assert TINY in (a_run / "config.yaml").read_text()
        assert command("run directories", "run", "--resume", a_run)[0] == 0

    def test_a_scheduler_with_options_is_named_by_its_whole_path(self, run: Run, tmp_path: Path, taken: Path) -> None:
        (tmp_path / "mine.py").write_text(
            "from slimsearch.strategies.schedulers.median import Median\n\n\nclass Mine(Median): ...\n"
        )
        (tmp_path / "t.csv").write_text("a,accuracy:max\n1,0.5\n2,0.6\n")
        words = ["--evaluator", "t.csv", "--objectives", "accuracy:max", "--sampler", "random", "--workers", "1"]
        done = run(*words, "--scheduler", "mine.py:Mine", "--run-dir", "own")
        assert done.returncode == 0, done.stderr
        assert f"scheduler: {tmp_path}/mine.py:Mine" in (tmp_path / "own" / "config.yaml").read_text()
        assert run("--resume", "own").returncode == 0


class TestOtherMachines:
    """Whom a run directory names is not called."""

    @pytest.mark.parametrize(
        ("option", "place"),
        [
            ("storage", "postgresql://someone@db.example.com/study"), ("storage", "postgresql:///study?host=10.1.2.3"),
            ("storage", "postgresql:///study?hostaddr=10.1.2.3"), ("storage", "postgresql:///study?service=theirs"),
            ("storage", "postgresql://localhost,db.example.com/study"), ("ray_address", "10.1.2.3:6379"),
            ("ray_address", "db.example.com"),
        ],
    )  # fmt: skip
    def test_they_are_named_again(self, a_run: Path, option: str, place: str) -> None:
        config = yaml.safe_load((a_run / "config.yaml").read_text())
        (a_run / "config.yaml").write_text(yaml.safe_dump({**config, option: place, "study": None}))
        before = content(a_run)
        code, said = command("run directories", "run", "--resume", a_run)
        assert code == 2
        assert "is about another machine" in said
        assert content(a_run) == before
        if option == "storage":
            code, said = command("run directories", "dashboard", a_run)
            assert code == 2
            assert "is on another machine" in said


class TestWaysOut:
    """What is written to a run directory stays there."""

    @pytest.mark.parametrize("name", ["lock", "study.journal", "trials/00001/log.txt", "trials/00007", ".scratch"])
    def test_links(self, a_run: Path, tmp_path: Path, name: str) -> None:
        mine = tmp_path / "mine"
        mine.write_text("mine")
        (a_run / name).unlink(missing_ok=True)
        (a_run / name).symlink_to(mine)
        for words in (["run", "--resume", a_run], ["dashboard", a_run]):
            code, said = command("run directories", *words)
            assert code == 2
            assert "is a link out of the run directory" in said
        assert mine.read_text() == "mine"

    def test_a_pipe_is_not_waited_for(self, a_run: Path) -> None:
        (a_run / "environment.json").unlink()
        os.mkfifo(a_run / "environment.json")
        code, said = command("run directories", "run", "--resume", a_run)
        assert code == 2
        assert "is not a file or folder" in said

    def test_artifacts_of_the_record(self, a_run: Path) -> None:
        journal = a_run / "study.journal"
        text = journal.read_bytes().replace(b"trials/00000/model.onnx", b"../../../../etc/hostname")
        journal.write_bytes(b"".join(forged(json.loads(line)) for line in text.splitlines()))
        code, said = command("run directories", "run", "--resume", a_run)
        assert code == 2
        assert "names the file '../../../../etc/hostname'" in said

    def test_the_file_of_an_entry(self, a_run: Path) -> None:
        model = json.loads((a_run / "top_models.json").read_text())[0]
        with pytest.raises(SlimsearchError, match="is not in"):
            slimsearch.load_network(a_run, {**model, "artifact": "../../elsewhere/model.onnx"})


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only root gives a folder away")
def test_a_folder_of_somebody_elses_in_the_place_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a temporary folder that all users of a machine share."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = user_folder()
    assert user_folder() == folder
    os.chown(folder, 12345, -1)
    with pytest.raises(SlimsearchError, match="belongs to another user"):
        user_folder()
    folder.rmdir()
    (tmp_path / "theirs").mkdir()
    folder.symlink_to(tmp_path / "theirs")
    with pytest.raises(SlimsearchError, match="belongs to another user"):
        user_folder()
