"""Whether scores of untrained networks tell which ones will be accurate, on networks that were trained one by one.

    python experiments/benchmarks/zero_cost.py --table experiments/benchmarks/results/lenet_mnist5k.csv --json rows.json

The table is a CSV file with a column for each choice of the space and one called val_accuracy.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # in place of this folder

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from slimsearch.cli.script import Parser, exit_code
from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import use_one_thread
from slimsearch.evaluators.datasets import Dataset, load_dataset
from slimsearch.evaluators.scores import load_score
from slimsearch.files import write_whole
from slimsearch.names import built_in_names
from slimsearch.search_spaces import Choice, ModelSpace

if TYPE_CHECKING:
    from torch import Tensor

Numbers = np.ndarray[Any, np.dtype[np.float64]]
Positions = np.ndarray[Any, np.dtype[np.int64]]

TABLE = Path(__file__).parent / "results" / "lenet_mnist5k.csv"
ACCURACY = "val_accuracy"
WEIGHT_SEEDS = 3
BATCH = 64
_COSTS = ("params", "macs")
_RESAMPLES = 1000
_FEWEST = 10
_WIDTH = 150


@dataclass(frozen=True)
class Trained:
    """Networks and how accurate they became.

    Attributes:
        architectures: one dict for each network.
        accuracy: (networks,) share of the validation images.
    """

    architectures: tuple[Mapping[str, Any], ...]
    accuracy: Numbers


@dataclass
class Scored:
    """What one score says of every network.

    Attributes:
        values: (networks, weight seeds).
        ms: of every call.
    """

    values: list[list[float]] = field(default_factory=list)
    ms: list[float] = field(default_factory=list)

    @property
    def median(self) -> Numbers:
        """(networks,) over the weight seeds; what is not finite is below everything."""
        return _ordered(np.median(np.array(self.values), axis=1))


def main(arguments: Sequence[str] | None = None) -> int:
    """Score, compare and show; the exit code is 0, 2 for a mistake, or 130 after Ctrl-C."""
    options = _parser().parse_args(arguments)
    return exit_code(lambda: _run(options))


def _parser() -> argparse.ArgumentParser:
    made = Parser(__doc__.partition("\n")[0])
    made.add_argument("--table", type=Path, default=TABLE, help="CSV: trained networks")
    made.add_argument("--space", default="lenet", help="of the networks")
    made.add_argument("--dataset", default="mnist5k", help="on which they were trained")
    made.add_argument("--scores", nargs="+", metavar="NAME", help="instead of all: built-ins, path/to/file.py:Class")
    made.add_argument("--networks", type=int, metavar="N", help="only the first ones of the table")
    made.add_argument("--draws", type=int, default=4, help="networks of which a filter takes the best-scored")
    made.add_argument("--json", type=Path, metavar="PATH", help="where the rows are written")
    return made


def _run(options: argparse.Namespace) -> None:
    if options.networks is not None and options.networks < _FEWEST:
        raise SlimsearchError(f"--networks {options.networks} is less than {_FEWEST}")
    if options.draws < 1:
        raise SlimsearchError(f"--draws {options.draws} is less than 1")
    names = options.scores or built_in_names("slimsearch.evaluators.scores")
    for name in names:
        load_score(name)  # a mistake shows before the work
    use_one_thread()
    data = load_dataset(options.dataset)
    space = ModelSpace.load(options.space, data.input_shape, len(data.classes))
    trained = read_table(options.table, space, options.networks)
    if options.draws > len(trained.accuracy):
        raise SlimsearchError(f"--draws {options.draws} is more than the {len(trained.accuracy)} networks")
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)  # what cannot be, fails before the work
    scored, build_ms = measure(space, data, trained.architectures, [*names, *(c for c in _COSTS if c not in names)])
    costs = [scored[name].median for name in _COSTS]
    rows = [_row(name, scored[name], trained.accuracy, costs, options.draws) for name in names]
    found = {
        "space": Path(options.space).name,
        "dataset": data.name,
        "networks": len(trained.accuracy),
        "weight_seeds": WEIGHT_SEEDS,
        "batch": BATCH,
        "draws": options.draws,
        "mean_val_accuracy": float(trained.accuracy.mean()),
        "build_ms": build_ms,
        "perfect_gain": gain(trained.accuracy, trained.accuracy, options.draws),
        "rows": rows,
    }
    _show(found)
    if options.json is not None:
        write_whole(options.json, json.dumps(found, indent=1) + "\n")


def read_table(path: Path, space: ModelSpace, most: int | None = None) -> Trained:
    """The first `most` networks of the table, or all.

    Raises:
        SlimsearchError: the file is not there or not such a table, or has too few networks to say anything.
    """
    if not path.is_file():
        raise SlimsearchError(f"there is no table '{path}': name one with --table, a CSV file of trained networks")
    architectures: list[Mapping[str, Any]] = []
    accuracy: list[float] = []
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        missing = [c for c in (*(c.label for c in space.choices), ACCURACY) if c not in (reader.fieldnames or ())]
        if missing:
            raise SlimsearchError(f"'{path}' has no column '{missing[0]}'; it has {', '.join(reader.fieldnames or ())}")
        for row in reader:
            if len(accuracy) == most:
                break
            try:
                point = {c.label: _value(c, row[c.label]) for c in space.choices if row[c.label]}
                architectures.append(space.canonical(point))
                accuracy.append(float(row[ACCURACY]))
            except (SlimsearchError, ValueError, TypeError) as error:
                raise SlimsearchError(f"'{path}', line {reader.line_num}: {error}") from None
            if not 0 <= accuracy[-1] <= 1:
                raise SlimsearchError(f"'{path}', line {reader.line_num}: {ACCURACY} {accuracy[-1]:g} is not in 0 to 1")
    if len(accuracy) < _FEWEST:
        raise SlimsearchError(f"'{path}' has {len(accuracy)} networks: at least {_FEWEST} are needed")
    return Trained(tuple(architectures), np.array(accuracy))


def _value(choice: Choice, text: str) -> Any:
    """The value of `choice` that a cell shows, as JSON or as it is."""
    for value in choice.values:
        if text in (choice.text(value), str(value)):
            return value
    raise SlimsearchError(f"'{choice.label}' cannot be {text}; allowed: {', '.join(map(str, choice.values))}")


def measure(
    space: ModelSpace, data: Dataset, architectures: Sequence[Mapping[str, Any]], names: Sequence[str]
) -> tuple[dict[str, Scored], float]:
    """Every score of every network at initialisation, and the median milliseconds to build one.

    Raises:
        SlimsearchError: a score fails.
    """
    images, labels = _batch(data)
    scores = {name: load_score(name) for name in names}
    scored = {name: Scored() for name in names}
    builds = []
    console = Console(stderr=True)
    for architecture in track(architectures, "scoring", console=console, disable=not console.is_terminal):
        values: dict[str, list[float]] = {name: [] for name in names}
        for seed in range(WEIGHT_SEEDS):
            started = time.perf_counter()
            module = space.build(architecture, seed)
            builds.append(1000 * (time.perf_counter() - started))
            for name, score in scores.items():
                started = time.perf_counter()
                try:
                    values[name].append(float(score.score(module, images, labels)))
                except Exception as error:  # anybody's score
                    raise SlimsearchError(
                        f"score '{name}' fails on {dict(architecture)}: {type(error).__name__}: {error}"
                    ) from error
                scored[name].ms.append(1000 * (time.perf_counter() - started))
        for name in names:
            scored[name].values.append(values[name])
    return scored, statistics.median(builds)


def _batch(data: Dataset) -> tuple[Tensor, Tensor]:
    import torch

    chosen = np.random.default_rng(0).choice(len(data.train), BATCH, replace=False)
    return data.normalise(data.train.images[chosen]), torch.from_numpy(data.train.labels[chosen])


def _row(name: str, scored: Scored, accuracy: Numbers, costs: Sequence[Numbers], draws: int) -> dict[str, Any]:
    """Everything that is to say of a score, each with its 95% interval."""
    values = scored.median
    each = [_ordered(np.array(seed)) for seed in zip(*scored.values, strict=True)]
    return {
        "score": name,
        "spearman": _interval(lambda at: spearman(values[at], accuracy[at]), len(values)),
        "spearman_one_seed": _number(statistics.mean(spearman(one, accuracy) for one in each)),
        "kendall": _interval(lambda at: kendall(values[at], accuracy[at]), len(values)),
        "beyond_costs": _interval(
            lambda at: partial_spearman(values[at], accuracy[at], [cost[at] for cost in costs]), len(values)
        ),
        "gain": _interval(lambda at: gain(values[at], accuracy[at], draws), len(values)),
        "ms": statistics.median(scored.ms),
    }


def _ordered(values: Numbers) -> Numbers:
    """`values` with what is not finite moved below everything: such a network is the worst."""
    finite = np.isfinite(values)
    lowest = values[finite].min() if finite.any() else 0.0
    return np.where(finite, values, lowest - max(1.0, abs(lowest)))


def _interval(statistic: Callable[[Positions], float], count: int) -> dict[str, float | None]:
    """The statistic over all networks, and the percentile bootstrap over networks (Efron and Tibshirani 1993)."""
    rng = np.random.default_rng(0)
    everything = statistic(np.arange(count))
    if not math.isfinite(everything):
        return {"value": None, "low": None, "high": None}
    again = [statistic(rng.integers(count, size=count)) for _ in range(_RESAMPLES)]
    low, high = np.nanpercentile(again, [2.5, 97.5])
    return {"value": everything, "low": float(low), "high": float(high)}


def spearman(one: Numbers, other: Numbers) -> float:
    """Rank correlation; NaN where one of them is constant."""
    return partial_spearman(one, other, ())


def partial_spearman(one: Numbers, other: Numbers, known: Sequence[Numbers]) -> float:
    """Rank correlation of what is left of both when `known` has explained what it can; NaN where nothing is left."""
    from scipy.stats import rankdata

    explaining = np.column_stack([np.ones(len(one)), *(rankdata(values) for values in known)])
    ranks = np.column_stack([rankdata(one), rankdata(other)])
    left = ranks - explaining @ np.linalg.lstsq(explaining, ranks, rcond=None)[0]
    lengths = np.linalg.norm(left, axis=0)
    if lengths.min() < 1e-6 * len(one):
        return math.nan
    return float(left[:, 0] @ left[:, 1] / lengths.prod())


def kendall(one: Numbers, other: Numbers) -> float:
    """Kendall's tau-b; NaN where one of them is constant."""
    from scipy.stats import kendalltau

    return float(kendalltau(one, other).statistic)


def gain(scores: Numbers, accuracy: Numbers, draws: int) -> float:
    """Expected accuracy of the best-scored of `draws` different random networks, less that of one random network.

    Exact, not drawn: the network of rank r is the best with the probability that the others are of lower rank. Equal
    scores share their places.
    """
    count = len(scores)
    best = np.array([math.comb(rank, draws - 1) for rank in range(count)], dtype=float) / math.comb(count, draws)
    places = np.unique(scores, return_inverse=True)[1]
    groups = np.bincount(places)
    chosen = np.bincount(places, weights=best[np.argsort(np.argsort(scores, kind="stable"))]) / groups
    return float((chosen[places] * accuracy).sum() - accuracy.mean())


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _show(found: Mapping[str, Any]) -> None:
    title = (
        f"{found['networks']} networks of {found['space']} trained on {found['dataset']}; scores at initialisation, "
        f"{found['batch']} images, median of {found['weight_seeds']} weight seeds; [95% interval]"
    )
    table = Table(title=title)
    table.add_column("score")
    draws = found["draws"]
    for column in ("Spearman", "Kendall", "Spearman beyond params, macs", f"gain, best of {draws}, points", "ms"):
        table.add_column(column, justify="right")
    for row in sorted(found["rows"], key=lambda row: -(row["spearman"]["value"] or 0)):
        table.add_row(
            row["score"], _text(row["spearman"]), _text(row["kendall"]), _text(row["beyond_costs"]),
            _text(row["gain"], 100), f"{row['ms']:.1f}",
        )  # fmt: skip
    # Where nobody looks, lines are as long as the table needs.
    console = Console(width=None if sys.stdout.isatty() else _WIDTH)
    console.print(table)
    console.print(
        f"A random network has {100 * found['mean_val_accuracy']:.2f}% on the validation split; a perfect score would "
        f"gain {100 * found['perfect_gain']:.2f} points. To build a network takes {found['build_ms']:.1f} ms more.",
        markup=False, highlight=False,
    )  # fmt: skip


def _text(interval: Mapping[str, float | None], factor: float = 1) -> str:
    value, low, high = (interval[key] for key in ("value", "low", "high"))
    if value is None or low is None or high is None:
        return ""
    return f"{factor * value:+.2f} \\[{factor * low:+.2f}, {factor * high:+.2f}]"


if __name__ == "__main__":
    sys.exit(main())
