"""Atomic writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from slimsearch.files import atomic, remove_temporary, write_bytes, write_json, write_text


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


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    left = tmp_path / "trials" / "00001"
    left.mkdir(parents=True)
    with atomic(left / "training.pt") as temporary:
        temporary.touch()
    temporary.touch()
    remove_temporary(tmp_path)
    assert [path.name for path in left.iterdir()] == ["training.pt"]
