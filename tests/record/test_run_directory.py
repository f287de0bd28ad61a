"""The run directory: its lock, its study, and what is done about damage."""

from __future__ import annotations

import json
import re
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import Objective, Outcome
from slimsearch.record.record import Record
from slimsearch.record.run_directory import RunDirectory, read_study
from slimsearch.record.trial import COMPLETE, FAILED, RULED_OUT, RUNNING, SEARCH
from slimsearch.search_spaces import Candidate, ModelSpace
from tests.conftest import SPACES

OBJECTIVES = (Objective("val_accuracy", "maximize"), Objective("size_kib", "minimize"))
METRICS = {"val_accuracy": 0.9, "size_kib": 3.5, "latency_ms": 0.1}


@pytest.fixture(scope="module")
def space() -> ModelSpace:
    return ModelSpace.load(f"{SPACES}:Nested", (1, 8, 8), 10)


def create(path: Path) -> RunDirectory:
    directory = RunDirectory(path, create=True)
    directory.config.write_text("format: 1\nspace: x\n")
    return directory


def fill(directory: RunDirectory, space: ModelSpace) -> Record:
    record = Record(directory.open_study(OBJECTIVES), space, OBJECTIVES)
    points = list(space.grid())
    for number, point in enumerate(points[:4]):
        record.start(Candidate(point), kind=SEARCH, fidelity=3, seed=number)
        record.epoch(number, 1, {"val_accuracy": 0.5, "train_loss": 1.0})
    record.finish(0, Outcome(METRICS, {"model": "model.onnx"}), violations=[0.5])
    record.fail(1, "ValueError: it gave up")
    record.finish(2, Outcome({"size_kib": 9.0}), state=RULED_OUT, reason="too large")
    return record


def test_everything_comes_back(tmp_path: Path, space: ModelSpace) -> None:
    with create(tmp_path / "run") as directory:
        trials = list(fill(directory, space).trials)
    with RunDirectory(tmp_path / "run", create=False) as directory:
        again = Record(directory.open_study(OBJECTIVES), space, OBJECTIVES)
    assert [t.state for t in again.trials] == [COMPLETE, FAILED, RULED_OUT, RUNNING]
    for before, after in zip(trials[:3], again.trials, strict=False):
        assert before.candidate == after.candidate
        assert (before.metrics, before.error, before.reason) == (after.metrics, after.error, after.reason)
        assert [dict(p) for p in before.curve] == [dict(p) for p in after.curve]
    assert again.trials[0].artifacts == {"model": "trials/00000/model.onnx"}


def test_a_record_with_text_that_is_no_unicode_is_refused(tmp_path: Path, space: ModelSpace) -> None:
    with create(tmp_path / "run") as directory:
        fill(directory, space).fail(3, "\ud800")
    with RunDirectory(tmp_path / "run", create=False) as directory, pytest.raises(SlimsearchError, match="trial 3 "):
        Record(directory.open_study(OBJECTIVES), space, OBJECTIVES)


def test_finalists_are_one_write(tmp_path: Path, space: ModelSpace) -> None:
    with create(tmp_path / "run") as directory:
        record = fill(directory, space)
        lines = len(directory.journal.read_bytes().splitlines())
        record.record_final({0: {"test_accuracy": 0.88}})
        assert len(directory.journal.read_bytes().splitlines()) == lines + 1
        assert record.finalists == {0}
    with RunDirectory(tmp_path / "run", create=False) as directory:
        again = Record(directory.open_study(OBJECTIVES), space, OBJECTIVES)
        assert again.trials[0].with_final_metrics().metrics == {**METRICS, "test_accuracy": 0.88}
        assert not again.trials[0].confusion


def test_confusions_come_back(tmp_path: Path, space: ModelSpace) -> None:
    """Also as lists, which JSON makes of tuples between several drivers."""
    with create(tmp_path / "run") as directory:
        fill(directory, space).record_final({0: {"test_accuracy": 0.5}}, {0: [[0, 0, 2], [1, 0, 2]]})
    with RunDirectory(tmp_path / "run", create=False) as directory:
        again = Record(directory.open_study(OBJECTIVES), space, OBJECTIVES)
        assert again.trials[0].confusion == ((0, 0, 2), (1, 0, 2))


def test_it_is_an_ordinary_optuna_study(tmp_path: Path, space: ModelSpace) -> None:
    import optuna

    with create(tmp_path / "run") as directory:
        fill(directory, space)
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(tmp_path / "run" / "study.journal"))
    )
    study = optuna.load_study(study_name=None, storage=storage)
    assert study.metric_names == ["val_accuracy", "size_kib"]
    assert [t.state.name for t in study.trials] == ["COMPLETE", "FAIL", "PRUNED", "RUNNING"]
    assert study.trials[0].values == [0.9, 3.5]
    assert study.trials[0].intermediate_values == {1: 0.5}
    assert json.loads(study.trials[0].params["inputs"]) == [0, 1]
    assert "kernel" not in study.trials[0].params, "inactive choices are not recorded"


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with create(tmp_path / "run"), pytest.raises(SlimsearchError, match="in use by another process"):
        RunDirectory(tmp_path / "run", create=False)
    with RunDirectory(tmp_path / "run", create=False):
        pass


def test_an_existing_one_is_not_overwritten(tmp_path: Path) -> None:
    create(tmp_path / "run").__exit__(None, None, None)
    with pytest.raises(SlimsearchError, match=r"exists already; .*--resume"):
        RunDirectory(tmp_path / "run", create=True)


def test_a_torn_last_line_is_moved_aside(tmp_path: Path, space: ModelSpace) -> None:
    with create(tmp_path / "run") as directory:
        fill(directory, space)
        whole = directory.journal.read_bytes()
        directory.journal.write_bytes(whole + b'{"op_code": 4, "worker')
        (directory.path / "study.journal.lock").write_text("left behind by a killed process")
    with RunDirectory(tmp_path / "run", create=False) as directory:
        record = Record(directory.open_study(OBJECTIVES), space, OBJECTIVES)
        assert len(record.trials) == 4
        record.fail(3, "goes on")
        assert directory.journal.read_bytes().startswith(whole)
    assert (tmp_path / "run" / "study.journal.torn").read_bytes() == b'{"op_code": 4, "worker\n'
    with RunDirectory(tmp_path / "run", create=False) as directory:
        assert Record(directory.open_study(OBJECTIVES), space, OBJECTIVES).trials[3].error == "goes on"


def test_every_cut_of_the_journal_opens_and_loses_only_what_is_cut(tmp_path: Path, space: ModelSpace) -> None:
    with create(tmp_path / "run") as directory:
        fill(directory, space)
        whole = directory.journal.read_bytes()
    for cut in range(len(whole) - 1, 0, -997):
        with RunDirectory(tmp_path / "run", create=False) as directory:
            directory.journal.write_bytes(whole[:cut])
            record = Record(directory.open_study(OBJECTIVES), space, OBJECTIVES)
            assert len(record.trials) <= 4
            assert all(t.metrics == METRICS for t in record.trials if t.state == COMPLETE)


def test_damage_in_the_middle_is_named_and_left_alone(tmp_path: Path, space: ModelSpace) -> None:
    with create(tmp_path / "run") as directory:
        fill(directory, space)
    journal = tmp_path / "run" / "study.journal"
    lines = journal.read_bytes().splitlines(keepends=True)
    lines[3] = b"\x00\x01 rubbish\n"
    journal.write_bytes(b"".join(lines))
    before = journal.read_bytes()
    opened = RunDirectory(tmp_path / "run", create=False)
    with opened as directory, pytest.raises(SlimsearchError, match="damaged in line 4"):
        directory.open_study(OBJECTIVES)
    assert journal.read_bytes() == before


def test_a_lost_journal_is_not_begun_again(tmp_path: Path, space: ModelSpace) -> None:
    with create(tmp_path / "run") as directory:
        fill(directory, space)
        directory.trial_directory(0)
    journal = tmp_path / "run" / "study.journal"
    journal.rename(tmp_path / "elsewhere")
    lost = pytest.raises(SlimsearchError, match=r"study\.journal', the record of its trials, is missing")
    with lost:
        read_study(tmp_path / "run", OBJECTIVES)
    with RunDirectory(tmp_path / "run", create=False) as directory, lost:
        directory.open_study(OBJECTIVES)
    assert not journal.exists()


def test_what_is_no_run_directory(tmp_path: Path) -> None:
    with pytest.raises(SlimsearchError, match="is not a run directory"):
        RunDirectory(tmp_path, create=False)
    (tmp_path / "file").write_text("x")
    with pytest.raises(SlimsearchError, match="exists already"):
        RunDirectory(tmp_path / "file", create=True)


EDITS = st.tuples(st.sampled_from(["remove", "repeat", "move"]), st.integers(0), st.integers(0))


def edited(lines: list[bytes], edits: list[tuple[str, int, int]]) -> list[bytes]:
    lines = list(lines)
    for edit, first, second in edits:
        i, j = first % (len(lines) - 1), second % len(lines)  # a missing last line is as if it was never written
        if edit == "remove":
            del lines[i]
        elif edit == "repeat":
            lines.insert(second % (len(lines) + 1), lines[i])
        else:
            lines[i], lines[j] = lines[j], lines[i]
    return lines


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, space: ModelSpace) -> Path:
    path = tmp_path_factory.mktemp("filled") / "run"
    with create(path) as directory:
        fill(directory, space).record_final({0: {"test_accuracy": 0.88}})
    return path


@settings(max_examples=60, deadline=None)
@given(st.lists(EDITS, min_size=1, max_size=3))
def test_whole_lines_that_are_removed_repeated_or_moved_are_noticed(
    filled: Path, edits: list[tuple[str, int, int]]
) -> None:
    journal = filled / "study.journal"
    whole = journal.read_bytes()
    lines = whole.splitlines(keepends=True)
    changed = edited(lines, edits)
    kept = len(changed) < len(lines) and changed == lines[: len(changed)]
    if kept or changed == lines:
        return
    try:
        journal.write_bytes(b"".join(changed))
        refused = pytest.raises(SlimsearchError, match=r"damaged in line \d+: .*nothing was changed")
        with refused:
            read_study(filled, OBJECTIVES)
        with RunDirectory(filled, create=False) as directory, refused:
            directory.open_study(OBJECTIVES)
        assert journal.read_bytes() == b"".join(changed)
    finally:
        journal.write_bytes(whole)


def without_checksums(lines: list[bytes]) -> list[bytes]:
    """As version 0.1 wrote them."""
    return [re.sub(rb',"crc32":"\w+"}', b"}", line) for line in lines]


def with_single_checksums(lines: list[bytes]) -> list[bytes]:
    plain = (line.rstrip() for line in without_checksums(lines))
    return [b'%s,"crc32":"%08x"}\n' % (line[:-1], zlib.crc32(line)) for line in plain]


@pytest.mark.parametrize("older", [without_checksums, with_single_checksums])
def test_lines_of_older_versions_are_covered_by_the_next_one(
    tmp_path: Path, filled: Path, space: ModelSpace, older: Callable[[list[bytes]], list[bytes]]
) -> None:
    shutil.copytree(filled, tmp_path / "run")
    journal = tmp_path / "run" / "study.journal"
    before = b"".join(older(journal.read_bytes().splitlines(keepends=True)))
    journal.write_bytes(before)
    with RunDirectory(tmp_path / "run", create=False) as directory:
        Record(directory.open_study(OBJECTIVES), space, OBJECTIVES).fail(3, "goes on")
    assert journal.read_bytes().startswith(before)
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([*lines[:5], *lines[6:]]))
    with RunDirectory(tmp_path / "run", create=False) as directory, pytest.raises(SlimsearchError, match="damaged in"):
        directory.open_study(OBJECTIVES)


def test_another_program_may_write_between_two_lines(tmp_path: Path, space: ModelSpace) -> None:
    import optuna
    from optuna.storages.journal import JournalFileBackend

    with create(tmp_path / "run") as directory:
        record = fill(directory, space)
        other = optuna.storages.JournalStorage(JournalFileBackend(str(directory.journal)))
        optuna.load_study(study_name=None, storage=other).set_user_attr("note", "of a dashboard")
        record.fail(3, "goes on")
    with RunDirectory(tmp_path / "run", create=False) as directory:
        study = directory.open_study(OBJECTIVES)
        assert study.user_attrs["note"] == "of a dashboard"
        assert Record(study, space, OBJECTIVES).trials[3].error == "goes on"
