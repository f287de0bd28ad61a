"""The journal of a real run, torn anywhere and with any bit flipped: nothing finished is lost or changed silently."""

from __future__ import annotations

import random
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import Objective
from slimsearch.options.configuration import Configuration
from slimsearch.record.ranking import Ranking
from slimsearch.record.record import Record
from slimsearch.record.run_directory import RunDirectory
from slimsearch.search_spaces import ModelSpace
from tests.conftest import ROOT, TINY
from tests.counts import Counts
from tests.faults.processes import Process, errors, finished

pytestmark = pytest.mark.faults

GOLDEN = ROOT / "tests" / "golden" / "run_format_1"
TORN, FLIPPED = 300, 3000


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    process = Process(
        folder, "--space", TINY, "--dataset", "digits", "--run-dir", "run", "--epochs", "2", "--compress", "quantize",
        "--top-k", "1",
    )  # fmt: skip
    assert process.end() == 0, process.said
    return folder / "run"


@pytest.fixture(scope="module")
def space() -> ModelSpace:
    return ModelSpace.load(TINY, (1, 8, 8), 10)


def opened(run: Path, space: ModelSpace, objectives: tuple[Objective, ...]) -> tuple[list[Any], bool]:
    """The trials, and whether something was moved aside."""
    with RunDirectory(run, create=False) as directory:
        return list(Record(directory.open_study(objectives), space, objectives).trials), directory.torn


def tried(run: Path, space: ModelSpace, objectives: tuple[Objective, ...]) -> tuple[list[Any], bool, str | None]:
    """The same, and the line with which it was refused."""
    try:
        return *opened(run, space, objectives), None
    except SlimsearchError as error:
        return [], False, str(error)


def copy_of(run: Path, folder: Path) -> Path:
    """Of what matters here."""
    folder.mkdir()
    for name in ("config.yaml", "study.journal"):
        shutil.copy(run / name, folder / name)
    return folder


def test_torn_anywhere(whole: Path, space: ModelSpace, tmp_path: Path, counts: Counts) -> None:
    """What was acknowledged before the cut is there, to the last digit; what is moved aside is said."""
    objectives = Ranking.of(Configuration.read(whole / "config.yaml")).objectives
    content = (whole / "study.journal").read_bytes()
    copy = copy_of(whole, tmp_path / "run")
    for cut in random.Random(0).sample(range(1, len(content)), TORN):
        (copy / "study.journal").write_bytes(content[:cut])
        _, torn = opened(copy, space, objectives)
        kept = (copy / "study.journal").read_bytes()
        before = content[: content.rfind(b"\n", 0, cut) + 1]
        assert kept.startswith(before)
        assert torn == (cut != len(before) and content[cut : cut + 1] != b"\n")
    counts.add("torn journals opened", TORN)


def test_any_bit_flipped(whole: Path, space: ModelSpace, tmp_path: Path, counts: Counts) -> None:
    """It is refused in a line that names the line of the journal, or all trials are what they were."""
    objectives = Ranking.of(Configuration.read(whole / "config.yaml")).objectives
    content = (whole / "study.journal").read_bytes()
    copy = copy_of(whole, tmp_path / "run")
    expected, _ = opened(copy, space, objectives)
    flips = random.Random(1)
    refused = 0
    for _ in range(FLIPPED):
        place, bit = flips.randrange(len(content)), flips.randrange(8)
        damaged = bytearray(content)
        damaged[place] ^= 1 << bit
        (copy / "study.journal").write_bytes(damaged)
        found, torn, said = tried(copy, space, objectives)
        if said is None:
            last = content.rfind(b"\n", 0, -1) + 1
            assert found == expected or (torn and place >= last), (place, bit)
            continue
        line = content.count(b"\n", 0, place) + 1
        assert re.search(rf"damaged in line {line}: .*; nothing was changed", said), (place, bit, said)
        assert (copy / "study.journal").read_bytes() == damaged
        refused += 1
    assert refused > 0.9 * FLIPPED
    counts.add("flipped bits found", refused)


def test_whole_lines_removed_repeated_or_moved(whole: Path, space: ModelSpace, tmp_path: Path, counts: Counts) -> None:
    """Each is refused; without its last lines the journal is what it was before they were written."""
    objectives = Ranking.of(Configuration.read(whole / "config.yaml")).objectives
    lines = (whole / "study.journal").read_bytes().splitlines(keepends=True)
    copy = copy_of(whole, tmp_path / "run")
    for i in range(len(lines)):
        removed, repeated = [*lines[:i], *lines[i + 1 :]], [*lines[: i + 1], *lines[i:]]
        for changed in (removed, repeated, [*removed, lines[i]]):
            if changed in (lines, lines[:-1]):
                continue
            (copy / "study.journal").write_bytes(b"".join(changed))
            _, _, said = tried(copy, space, objectives)
            assert said is not None, i
            assert re.search(r"damaged in line \d+: .*; nothing was changed", said), (i, said)
            counts.add("moved lines found", 1)


def test_a_run_without_checksums(tmp_path: Path, counts: Counts) -> None:
    """As version 0.1.0 wrote it: it is read; what is damaged so that it cannot be, is refused in a line."""
    configuration = Configuration.read(GOLDEN / "config.yaml")
    objectives = Ranking.of(configuration).objectives
    space = ModelSpace.load(configuration.space, (1, 20, 20), 10)
    copy = copy_of(GOLDEN, tmp_path / "run")
    content = (copy / "study.journal").read_bytes()
    assert len(opened(copy, space, objectives)[0]) == 13
    flips = random.Random(2)
    for _ in range(500):
        damaged = bytearray(content)
        damaged[flips.randrange(len(content))] ^= 1 << flips.randrange(8)
        (copy / "study.journal").write_bytes(damaged)
        _, _, said = tried(copy, space, objectives)
        assert said is None or "\n" not in said
    counts.add("journals without checksums opened", 500)


def test_a_real_run_is_refused_and_goes_on_when_the_bit_is_back(whole: Path, tmp_path: Path, counts: Counts) -> None:
    shutil.copytree(whole, tmp_path / "run")
    journal = tmp_path / "run" / "study.journal"
    content, before = journal.read_bytes(), finished(tmp_path / "run")
    place = content.index(b'"val_accuracy":0.') + len(b'"val_accuracy":0.')
    journal.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    refused = Process(tmp_path, "--resume", "run")
    assert refused.end() == 2, refused.said
    line = content.count(b"\n", 0, place) + 1
    assert errors(refused.said) == [
        f"error: '{journal}' is damaged in line {line}: its checksum does not match; nothing was changed"
    ]
    journal.write_bytes(content + b'{"op_code":8,"work')
    again = Process(tmp_path, "--resume", "run")
    assert again.end() == 0, again.said
    assert "warning: the last line of study.journal was torn" in again.said
    assert finished(tmp_path / "run") == before
    counts.add("faults injected", 2)
