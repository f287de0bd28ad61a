"""Atomic writes, disks that are full, and temporary folders."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from slimsearch.files import atomic, remove_temporary, unwritable, write_bytes, write_json, write_text
from tests.conftest import environment


def test_a_file_is_there_whole_and_nothing_else(tmp_path: Path) -> None:
    write_text(tmp_path / "text", "grün\n")
    write_bytes(tmp_path / "bytes", b"\r\n", sync=True)
    write_json(tmp_path / "values.json", {"a": [1, None]})
    assert (tmp_path / "text").read_text(encoding="utf-8") == "grün\n"
    assert (tmp_path / "bytes").read_bytes() == b"\r\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bytes", "text", "values.json"]


def half_written(path: Path) -> None:
    assert path.suffix == ".onnx"
    path.write_bytes(b"half")
    path.mkdir()


def test_what_fails_half_way_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"old")
    with pytest.raises(FileExistsError), atomic(path) as temporary:
        half_written(temporary)
    assert [entry.read_bytes() for entry in tmp_path.iterdir()] == [b"old"]


def test_every_file_has_the_permissions_of_a_new_one(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    with atomic(tmp_path / "weights.safetensors") as temporary:
        save_file({"a": np.zeros(3)}, temporary)
    assert (tmp_path / "weights.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    left = tmp_path / "trials" / "00001"
    left.mkdir(parents=True)
    with atomic(left / "training.pt") as temporary:
        temporary.touch()
    temporary.touch()
    (left / ".export-abc").mkdir()
    (left / ".export-abc" / "model.onnx").touch()
    remove_temporary(tmp_path)
    assert [path.name for path in left.iterdir()] == ["training.pt"]


def caused_by(error: Exception) -> Exception:
    wrapper = ValueError("export failed")
    wrapper.__context__, error.__context__ = error, wrapper
    return wrapper


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "model.onnx"),
        OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)),
        RuntimeError("I/O error: No space left on device (os error 28)"),
        FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']"),
    ],
)
def test_a_full_disk_is_found_in_any_chain(error: Exception, tmp_path: Path) -> None:
    for found in (error, caused_by(error), ExceptionGroup("several", [ValueError(), caused_by(error)])):
        reason = unwritable(tmp_path, found)
        assert reason is not None
        assert "\n" not in reason
    for other in (ValueError("shapes differ"), FileNotFoundError("data.csv"), PermissionError("data.csv")):
        assert unwritable(tmp_path, caused_by(other)) is None


LEAVES = """
import sys, tempfile
from slimsearch.temporary import process_folder, user_folder
folder = process_folder()
assert folder == process_folder() and folder.parent == user_folder()
tempfile.mkdtemp(dir=folder)
print(folder, flush=True)
sys.stdin.read()
"""


def test_temporary_files_of_killed_processes_are_removed_by_the_next_one(tmp_path: Path) -> None:
    def start() -> tuple[subprocess.Popen[str], Path]:
        process = subprocess.Popen(
            [sys.executable, "-c", LEAVES], env={**environment(), "TMPDIR": str(tmp_path)}, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None
        return process, Path(process.stdout.readline().strip())

    def end(process: subprocess.Popen[str]) -> None:
        process.communicate(timeout=30)

    killed, left = start()
    alive, kept = start()
    killed.send_signal(signal.SIGKILL)
    end(killed)
    assert left.is_dir()
    new, own = start()
    assert not left.exists()
    assert kept.is_dir()
    assert own.is_dir()
    for process in (alive, new):
        end(process)
    assert not kept.exists()
    assert not own.exists()
