"""Data sets in tables: columns become inputs by what the training split has, and predictions take raw rows."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn

import slimsearch
from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import DeployedModel, Predictor
from slimsearch.evaluators.datasets import Dataset, load_dataset
from slimsearch.evaluators.datasets._columns import _medians

RNG = np.random.default_rng(0)
ROWS = 200
FRAME = pandas.DataFrame(
    {
        "id": [f"row-{number}" for number in range(ROWS)],
        "age": np.where(RNG.random(ROWS) < 0.1, np.nan, RNG.integers(20, 80, ROWS)),
        "city": RNG.choice(["Bonn", "Köln", "Ulm, Süd"], ROWS),
        "job": np.where(RNG.random(ROWS) < 0.2, None, RNG.choice(["a", "b"], ROWS)),
        "smoker": RNG.random(ROWS) < 0.5,
        "always": "same",
        "patient": RNG.integers(0, 30, ROWS),
        "income": 900.0 + RNG.permutation(ROWS),
        "risk": RNG.choice(["low", "high"], ROWS),
    }
)


def written(path: Path, frame: Any = FRAME, **options: Any) -> Path:
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False, **options)
    return path


def same(first: Dataset, second: Dataset) -> bool:
    return (first.fingerprint, first.columns, first.classes) == (second.fingerprint, second.columns, second.classes)


def test_columns_become_inputs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = load_dataset(written(tmp_path / "a.csv"), target_column="risk", group_by="patient")
    assert data.classes == ("high", "low")
    inputs = {column.name: column for column in data.columns}
    assert list(inputs) == ["age", "city", "job", "smoker", "income"]
    assert inputs["city"].categories == ("Bonn", "Köln", "Ulm, Süd")
    assert inputs["job"].categories == ("a", "b", None)
    assert data.input_shape == (1 + 3 + 3 + 1 + 1,)
    # Numbers and shares are those of the training split.
    row_of = {income: index for index, income in enumerate(FRAME["income"])}
    rows = FRAME.iloc[[row_of[float(income)] for income in data.train.inputs[:, -1]]]
    assert inputs["age"].median == rows["age"].median()
    assert np.array_equal(data.train.inputs[:, 0], rows["age"].fillna(rows["age"].median()))
    assert np.array_equal(data.train.inputs[:, 2], rows["city"] == "Köln")
    assert np.array_equal(data.train.inputs[:, 6], rows["job"].isna())
    assert np.array_equal(np.array(data.classes)[data.train.targets], rows["risk"])
    assert any("columns whose texts are all different are not used: id" in note for note in data.notes)
    assert any("columns that are not used: always (no different values)" in note for note in data.notes)
    assert any("column age: the median" in note for note in data.notes)
    assert all(note in caplog.text for note in data.notes)
    assert data.test is not None
    patients = []
    for split in (data.train, data.validation, data.test):
        found = {FRAME["patient"][row_of[float(income)]] for income in split.inputs[:, -1]}
        patients.append(found)
    assert sum(map(len, patients)) == len(set.union(*patients))


@pytest.mark.parametrize("separator", [";", "\t"])
def test_files_and_frames_are_read_alike(separator: str, tmp_path: Path) -> None:
    expected = load_dataset(FRAME, target_column="risk")
    for path in (written(tmp_path / "a.tsv", sep=separator), written(tmp_path / "a.parquet")):
        found = load_dataset(path, target_column="risk")
        assert same(found, expected) or np.allclose(found.train.inputs, expected.train.inputs, atol=1e-3)


def test_a_column_called_split_is_the_split(tmp_path: Path) -> None:
    part = np.array(["train", "Validation", "test"])[np.arange(ROWS) % 3]
    data = load_dataset(
        written(tmp_path / "a.csv", FRAME.assign(Split=part)), target_column="income", task="regression"
    )
    assert data.test is not None
    for split, name in ((data.train, "train"), (data.validation, "Validation"), (data.test, "test")):
        assert np.allclose(split.targets[:, 0], FRAME["income"][part == name])
    assert "split" not in {column.name.lower() for column in data.columns}


def test_rows_that_differ_in_an_identifier_alone_are_copies() -> None:
    frame = pandas.concat([FRAME, FRAME.assign(id=[f"again-{number}" for number in range(ROWS)])])
    data = load_dataset(frame, target_column="risk")
    assert any(f"{ROWS:,} of {2 * ROWS:,} examples are copies of others; copies of an" in note for note in data.notes)


def test_many_categories_and_those_of_other_splits() -> None:
    texts = [f"c{number % 40:02}" for number in range(400)]
    frame = pandas.DataFrame({"text": texts, "number": RNG.normal(size=400), "y": np.arange(400) % 2})
    data = load_dataset(frame, target_column="y")
    assert data.input_shape == (33,)
    assert any("the 32 most frequent of 40 texts" in note for note in data.notes)
    frame["split"] = np.where(np.arange(400) % 40 == 7, "test", "train")
    data = load_dataset(frame, target_column="y")
    assert data.test is not None
    assert not data.test.inputs[:, :-1].any()  # a text that no training row has


@pytest.mark.parametrize(
    ("task", "target", "classes"),
    [
        ("regression", "income,patient", ("income", "patient")),
        ("multilabel", "smoker,old", ("smoker", "old")),
        ("classification", "stars", ("2", "3", "10")),
        ("classification", "smoker", ("False", "True")),
    ],
)
def test_targets(task: str, target: str, classes: tuple[str, ...]) -> None:
    frame = FRAME.assign(old=FRAME["income"] > 1000, stars=np.array([10.0, 2.0, 3.0])[np.arange(ROWS) % 3])
    first = target.split(",")[0]
    frame[first] = frame[first].astype(object).where(np.arange(ROWS) >= 5, None)
    data = load_dataset(frame, target_column=target, task=task)
    assert data.classes == classes
    assert any("5 rows without a target are left out" in note for note in data.notes)
    assert sum(map(len, filter(None, (data.train, data.validation, data.test)))) <= ROWS - 5


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "--target-column is missing; columns of 'table': id, age"),
        ({"target_column": "rsik"}, "--target-column rsik is not a column"),
        ({"target_column": "risk,age, risk"}, "--target-column names risk twice"),
        ({"target_column": "risk", "group_by": "x"}, "--group-by x is not a column"),
        (
            {"target_column": "risk", "task": "regression"},
            "--target-column risk has texts; --task regression needs numbers",
        ),
        ({"target_column": "income"}, "has 200 different numbers; is it --task regression?"),
        ({"target_column": "risk,city"}, "has one --target-column"),
    ],
)
def test_mistakes(options: dict[str, Any], said: str) -> None:
    with pytest.raises(SlimsearchError, match=said):
        load_dataset(FRAME, **options)


def test_what_is_no_table(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"no parquet")
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00")
    for name in ("a.parquet", "a.csv"):
        with pytest.raises(SlimsearchError, match=f"cannot read the table .*{name}"):
            load_dataset(tmp_path / name, target_column="y")
    with pytest.raises(SlimsearchError, match="--target-column names a column of a table"):
        load_dataset("digits", target_column="y")
    with pytest.raises(SlimsearchError, match="no column to learn from"):
        load_dataset(pandas.DataFrame({"x": 1, "y": np.arange(40) % 2}), target_column="y")


def test_predictions_take_raw_rows(tmp_path: Path) -> None:
    data = load_dataset(FRAME, target_column="income", task="regression", group_by="patient")
    torch.manual_seed(0)
    slimsearch.export(nn.Linear(*data.input_shape, 1), tmp_path / "model.onnx", data)
    predictor = Predictor(tmp_path / "model.onnx")
    found = [prediction.values["income"] for prediction in predictor.file(written(tmp_path / "new.csv"))]  # type: ignore[call-overload]
    inputs = np.concatenate([split.inputs for split in (data.train, data.validation, data.test) if split is not None])
    outputs = data.task.predictions(DeployedModel(tmp_path / "model.onnx")(data.normalise(inputs).numpy()))
    assert np.allclose(sorted(found), sorted(outputs[:, 0]), rtol=1e-3)
    # Fewer rows, other orders of columns and new texts change nothing else.
    few = FRAME.iloc[:3][["smoker", "job", "risk", "city", "age"]].assign(city=["Bonn", "Rom", "Ulm, Süd"])
    again = [prediction.values["income"] for prediction in predictor.file(written(tmp_path / "few.csv", few))]  # type: ignore[call-overload]
    assert again[0] == pytest.approx(found[0]) or FRAME["city"][0] != "Bonn"
    with pytest.raises(SlimsearchError, match="the table has no column age, smoker, risk"):
        list(predictor.file(written(tmp_path / "less.csv", few[["job", "city"]])))
    with pytest.raises(SlimsearchError, match="column 'age' has the text 'old' in place of numbers"):
        list(predictor.file(written(tmp_path / "odd.csv", few.assign(age="old"))))


NUMBERS = st.floats(-1e307, 1e307) | st.sampled_from([np.nan, np.inf, -np.inf])


@given(
    # Numbers whose sum is finite: NumPy's median of two others is infinite.
    arrays(np.float64, st.tuples(st.integers(1, 30), st.just(3)), elements=NUMBERS),
    st.integers(1, 30),
)
def test_medians_in_blocks_are_exact(values: Any, rows: int) -> None:
    present = (~np.isnan(values)).sum(axis=0)
    found = _medians(lambda: (values[start : start + rows] for start in range(0, len(values), rows)), present)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = [np.median(column[~np.isnan(column)]) for column in values.T]
    assert np.array_equal(found, expected, equal_nan=True)
