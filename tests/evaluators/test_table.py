"""Tables: columns and cells, the space of their rows, reports by epoch, and errors."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import TableEvaluator, Task
from slimsearch.search_spaces import Candidate
from tests.conftest import ROOT, environment

FULL = """op,width,"kernel",val_accuracy,val_accuracy@1,val_accuracy@2,val_loss@2,params,energy:min,f1:max
conv,8,"[3, 3]",0.5,0.1,0.4,2,100,7,0.3
conv,16,"[3, 3]",0.6,0.2,0.5,1,200,8,0.2

pool,8,true,0.7,0.3,0.6,3,50,9,0.1
"""
# A kernel is only where there is a convolution, a slope only in the second of two blocks.
BLANK = """op,kernel,blocks,slope,val_accuracy,size_kib
conv,3,1,,0.1,1
conv,5,1,,0.2,2
conv,5,2,0.5,0.3,3
pool,,1,,0.4,4
pool,,2,0.1,0.5,5
pool,,2,0.5,0.6,6
"""


def table(folder: Path, text: str) -> TableEvaluator:
    path = folder / "table.csv"
    path.write_text(text, encoding="utf-8")
    return TableEvaluator(path)


def evaluate(
    evaluator: TableEvaluator, point: Mapping[str, object], stop_at: int | None = None, done: int = 0
) -> tuple[Mapping[str, float], list[tuple[int, dict[str, float]]]]:
    told: list[tuple[int, dict[str, float]]] = []

    def report(epoch: int, metrics: Mapping[str, float]) -> bool:
        told.append((epoch, dict(metrics)))
        return epoch != stop_at

    task = Task(0, Candidate(point), 9, 0, Path(), epochs_done=done)
    return evaluator.evaluate(task, report=report).metrics, told


def test_columns_and_cells_are_recognised(tmp_path: Path) -> None:
    found = table(tmp_path, "\ufeff" + FULL)
    assert {c.label: c.values for c in found.space.choices} == {
        "op": ("conv", "pool"),
        "width": (8, 16),
        "kernel": ([3, 3], True),
    }
    assert found.metrics == ["energy", "f1", "params", "val_accuracy", "val_loss"]
    assert found.directions["energy"] == "minimize"
    assert found.directions["f1"] == found.directions["val_accuracy"] == "maximize"
    assert found.epochs == 2


def test_numbers_that_are_equal_and_text_that_is_no_json_are_kept_apart(tmp_path: Path) -> None:
    found = table(tmp_path, "a,val_loss\n1,0\n1.0,1\ntrue,2\nNaN,3\n1e999,4\n 007 ,5\nnull,6\n")
    assert [p["a"] for p in found.space.grid()] == [1, 1.0, True, "NaN", "1e999", "007", None]
    assert [evaluate(found, p)[0]["val_loss"] for p in found.space.grid()] == list(range(7))


def test_epochs_are_reported_one_by_one(tmp_path: Path) -> None:
    found = table(tmp_path, FULL)
    point = {"kernel": [3, 3], "op": "conv", "width": 16}
    curve = [(0, {"params": 200}), (1, {"val_accuracy": 0.2}), (2, {"val_accuracy": 0.5, "val_loss": 1})]
    metrics, told = evaluate(found, point)
    # The loss has no column of its own: it ends as it is after the last epoch.
    assert metrics == {"val_accuracy": 0.6, "val_loss": 1, "params": 200, "energy": 8, "f1": 0.2}
    assert told == curve
    assert evaluate(found, point, done=1)[1] == [curve[0], curve[2]]
    assert evaluate(found, point, stop_at=0) == ({"params": 200}, curve[:1])
    assert evaluate(found, point, stop_at=1) == ({"params": 200}, curve[:2])
    assert found.space.known(point) == {"params": 200}


def test_epochs_in_any_order_of_columns_and_of_a_metric_of_ones_own(tmp_path: Path) -> None:
    found = table(tmp_path, "a,energy@10,energy@2,energy:min\nx,3,2,1\n")
    assert evaluate(found, {"a": "x"}) == ({"energy": 1}, [(0, {}), (2, {"energy": 2}), (10, {"energy": 3})])
    assert [c.label for c in found.space.choices] == ["a"]


def test_moves_in_a_sparse_table_stay_inside(tmp_path: Path, rng: np.random.Generator) -> None:
    rows = [f"{a},{b},{c},{a + b + c}" for a in range(4) for b in range(4) for c in range(4) if (a + b + c) % 2 == 0]
    space = table(tmp_path, "\n".join(["a,b,c,val_loss", *rows, "9,9,9,1"])).space
    points = list(space.grid())
    assert space.size == len(points) == 33
    assert not space.contains({"a": 0, "b": 0, "c": 1})
    for _ in range(30):
        one, other = space.sample(rng), space.sample(rng)
        assert {Candidate(one), Candidate(space.mutate(one, rng)), Candidate(space.crossover(one, other, rng))} <= set(
            map(Candidate, points)
        )
        around = [p for p in points if sum(p[label] != one[label] for label in "abc") == 1]
        assert sorted(map(str, space.neighbours(one))) == sorted(map(str, around))
    lonely = {"a": 9, "b": 9, "c": 9}
    assert list(space.neighbours(lonely)) == []
    assert space.mutate(lonely, rng) == lonely


def test_a_blank_cell_is_an_inactive_choice(tmp_path: Path, rng: np.random.Generator) -> None:
    found = table(tmp_path, BLANK)
    space = found.space
    points = list(space.grid())
    pool = {"blocks": 1, "op": "pool"}
    assert points[3] == pool
    assert space.canonical({**pool, "kernel": 5, "slope": 0.1}) == pool
    assert evaluate(found, {**pool, "kernel": 5})[0] == {"val_accuracy": 0.4, "size_kib": 4}
    for number, point in enumerate(points, start=1):
        assert space.canonical(space.complete(point)) == space.canonical(point) == point
        assert space.known(space.complete(point)) == {"size_kib": number}
        for draw in (None, rng):
            for neighbour in space.neighbours(point, draw):
                assert neighbour in points
                assert sum(neighbour[label] != point[label] for label in neighbour if label in point) == 1
        assert space.contains(space.mutate(point, rng))
        assert space.mutate(point, rng) != point
    assert len({space.encode(p).tobytes() for p in points}) == len(points)
    blocks, kernel, op, slope = np.split(space.encode(pool), [2, 4, 6])
    assert kernel.sum() == slope.sum() == 0
    assert blocks.sum() == op.sum() == 1
    # A convolution comes with the first kernel that the table has of it.
    assert list(space.neighbours(pool)) == [
        {"blocks": 2, "op": "pool", "slope": points[5]["slope"]},
        {"blocks": 1, "kernel": 3, "op": "conv"},
    ]
    drawn = [list(space.neighbours(pool, rng))[1]["kernel"] for _ in range(30)]
    assert set(drawn) == {3, 5}


@pytest.mark.parametrize(
    ("point", "message"),
    [
        ({"op": "conv", "kernel": 3}, "label 'blocks' is missing"),
        ({"op": "conv", "blocks": 1}, "no row for .*conv"),
        ({"op": "pool", "blocks": 1, "kernel": 4}, "'kernel' cannot be 4; allowed: 3, 5"),
        ({"op": "pool", "blocks": 1, "depth": 4}, "unknown label 'depth'"),
        ({"op": "conv", "blocks": 2, "kernel": 3, "slope": 0.1}, "no row for"),
    ],
)
def test_points_outside_are_refused(tmp_path: Path, point: dict[str, object], message: str) -> None:
    space = table(tmp_path, BLANK).space
    assert not space.contains(point)
    with pytest.raises(SlimsearchError, match=message):
        space.canonical(point)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("a,b\n1,2\n", "needs columns of choices, of metrics .*val_accuracy.*name:min"),
        ("val_accuracy\n1\n", "needs columns of choices"),
        ("a,val_accuracy\n", "and rows"),
        ("a,val_accuracy\n1,0.5\n\n2\n", "line 4: 1 cells, the header has 2"),
        ('a,val_accuracy\n"x\ny",0.5\n2,1,1\n', "line 4: 3 cells"),
        ("a,val_accuracy\n1,good\n", "line 2: val_accuracy is 'good', not a number"),
        ("a,val_accuracy\n1,\n", "line 2: val_accuracy is '', not a number"),
        ("a,val_accuracy\n1,1\n2,nan\n", "line 3: val_accuracy is 'nan', not a finite number"),
        ("a,val_accuracy@1\n1,-inf\n", "line 2: val_accuracy@1 is '-inf', not a finite number"),
        ("a,val_accuracy\n1,0.5\n2,0.5\n1,0.6\n", "line 4: .*'a': 1.* is a duplicate"),
        ("a,val_accuracy@x\n1,1\n", "column 'val_accuracy@x' is not metric@epoch"),
        ("a,val_accuracy@0\n1,1\n", "column 'val_accuracy@0' is not metric@epoch"),
        ("a,val_accuracy@\u00b2\n1,1\n", "is not metric@epoch"),
        ("a,energy@3:min\n1,1\n", "column 'energy@3:min' is not metric@epoch"),
        ("a,a,val_accuracy\n1,2,1\n", "two columns 'a'"),
        ("a,val_accuracy,val_accuracy:max\n1,2,1\n", "two columns 'val_accuracy:max'"),
        (",a,val_accuracy\n0,2,1\n", "column 1 has no name"),
        ("a,b,val_accuracy\n0,,1\n", "choice 'b' has no values"),
        ("a,b,val_accuracy\n0,1,1\n0,,1\n", "differ only in blank cells"),
        ("a,b,val_accuracy\n0,,1\n,1,1\n", "differ only in blank cells"),
    ],
)
def test_a_mistake_is_a_clear_error(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SlimsearchError, match=message) as caught:
        table(tmp_path, text)
    assert "\n" not in str(caught.value)
    assert "table.csv" in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "binary.csv").write_bytes(b"a,val_loss\n\xff\xfe,1\n")
    for name in ("missing.csv", "binary.csv", "."):
        with pytest.raises(SlimsearchError, match="cannot read the table"):
            TableEvaluator(tmp_path / name)


def test_travels_to_another_process(tmp_path: Path) -> None:
    (tmp_path / "evaluator").write_bytes(pickle.dumps(table(tmp_path, BLANK)))
    (tmp_path / "table.csv").unlink()
    program = (
        "import pickle, sys\nfrom pathlib import Path\n"
        "from slimsearch.evaluators import Task\nfrom slimsearch.search_spaces import Candidate\n"
        "evaluator = pickle.loads(Path(sys.argv[1]).read_bytes())\n"
        "task = Task(0, Candidate({'op': 'pool', 'blocks': 1, 'kernel': 3}), 1, 0, Path())\n"
        "print(evaluator.evaluate(task, report=lambda epoch, metrics: True).metrics['val_accuracy'])\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "evaluator")]
    found = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["0.4"]
