"""Tables in files as pandas data frames: whole, or some rows at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimsearch.errors import SlimsearchError, reason
from slimsearch.evaluators.datasets._stored import Progress, is_large

TABLES = (".csv", ".tsv", ".parquet")
"""Suffixes of files that are read as tables."""
_MISSING = ("?",)  # beside those that pandas knows, such as NA and nothing
_CELLS = 400_000  # of a table that are read at a time


@dataclass(frozen=True)
class Frames:
    """A table that is read some rows at a time.

    Attributes:
        name: of the data set, for messages.
        identity: plain values from which the content follows, such as size and date of a file.
        columns: their names.
        read: gives data frames of consecutive rows. Takes the columns whose values are texts as they are in the file,
            even where all of some rows look like numbers.
    """

    name: str
    identity: tuple[Any, ...]
    columns: tuple[str, ...]
    read: Callable[[Collection[str]], Iterator[Any]]


def read_frame(path: Path) -> Any:
    """A CSV, TSV or Parquet file as a pandas data frame.

    Raises:
        SlimsearchError: the file cannot be read.
    """
    import pandas

    with _described(path):
        return pandas.read_parquet(path) if _is_parquet(path) else pandas.read_csv(path, **_options(path))


def large_table(path: Path) -> Frames | None:
    """A CSV, TSV or Parquet file that is too large to be held in memory; None: it is read as a whole.

    Raises:
        SlimsearchError: the file cannot be read.
    """
    with _described(path):
        return _parquet(path) if _is_parquet(path) else _csv(path)


def _csv(path: Path) -> Frames | None:
    import pandas

    state = path.stat()
    if not is_large((state.st_size,), "uint8"):
        return None
    options = _options(path)
    columns = tuple(map(str, pandas.read_csv(path, nrows=0, **options).columns))

    def read(texts: Collection[str]) -> Iterator[Any]:
        progress = Progress(path.name, state.st_size >> 20, "MiB")
        kinds = dict.fromkeys(texts, str)
        rows, done = max(1, _CELLS // len(columns)), 0
        with (
            _described(path),
            path.open("rb") as stream,
            pandas.read_csv(stream, chunksize=rows, dtype=kinds, **options) as frames,
        ):
            for frame in frames:
                yield frame.rename(columns=str)
                progress.step((stream.tell() >> 20) - done)
                done = stream.tell() >> 20

    return Frames(path.name, (path.name, state.st_size, state.st_mtime_ns), columns, read)


def _parquet(path: Path) -> Frames | None:
    from pyarrow import parquet

    state = path.stat()
    with parquet.ParquetFile(path) as file:
        count, of_file = file.metadata.num_rows, file.schema_arrow
        # Pandas keeps the index of a frame in a column, which is none of the frame.
        columns = tuple(map(str, of_file.empty_table().to_pandas().columns))
    if not columns or not is_large((count, len(columns)), "float64"):
        return None

    def read(texts: Collection[str]) -> Iterator[Any]:
        progress = Progress(path.name, count)
        with _described(path), parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(max(1, _CELLS // len(columns))):
                yield batch.to_pandas().rename(columns=str)
                progress.step(len(batch))

    return Frames(path.name, (path.name, state.st_size, state.st_mtime_ns), columns, read)


def _is_parquet(path: Path) -> bool:
    return path.suffix.lower() == ".parquet"


def _options(path: Path) -> dict[str, Any]:
    with path.open(encoding="utf-8-sig") as file:
        header = file.readline()
    return {
        "sep": max(",;\t|", key=header.count), "na_values": list(_MISSING), "skipinitialspace": True,
        "encoding": "utf-8-sig", "low_memory": False,
    }  # fmt: skip


@contextlib.contextmanager
def _described(path: Path) -> Iterator[None]:
    try:
        yield
    except SlimsearchError:
        raise
    except Exception as error:  # pandas and pyarrow raise many kinds
        raise SlimsearchError(f"cannot read the table '{path}': {reason(error)}") from error
