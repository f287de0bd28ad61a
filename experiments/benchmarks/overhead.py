"""Overhead of a search: milliseconds per proposal, and trials per second without evaluation.

    python experiments/benchmarks/overhead.py --json overhead.json
    python experiments/benchmarks/overhead.py --long
    python experiments/benchmarks/overhead.py --parts spaces

Proposals are distinct, for three objectives on NAS-Bench-201, after a number of random trials; with --parts spaces, in
each shipped space, where losses are random sums over the choices. Milliseconds are of CPU time, so that other processes
count for little. Trials are those of experiments/run.py, recorded on disk, with two workers that call a function
without training.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # the root of the checkout instead of this folder
    for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # before NumPy is imported
        os.environ.setdefault(_name, "1")

import numpy as np
from rich.table import Table

from experiments.benchmarks._output import add_output, check_output, console, write_output
from experiments.benchmarks._trained_tables import DATASETS, cell_space, load_cells
from slimsearch.cli.command_parser import CommandParser
from slimsearch.cli.exit_code import exit_code
from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import Objective
from slimsearch.loop.proposals import Proposals
from slimsearch.names import built_in_names
from slimsearch.options.configuration import Configuration
from slimsearch.search_spaces import ModelSpace, Point, Space
from slimsearch.strategies.samplers import History, Observation, load_sampler

ROOT = Path(__file__).resolve().parents[2]
HISTORIES = (100, 300, 1_000, 10_000)
IN_SPACES = 300
"""Number of trials before the proposals in each shipped space."""
TRIALS = (100, 1_000)
LONG = 10_000
END_TO_END = ("random", Configuration.sampler)
_OBJECTIVES = (
    Objective("val_accuracy", "maximize"),
    Objective("params", "minimize"),
    Objective("latency_ms", "minimize"),
)
_SHAPES = {"lenet": (1, 28, 28), "mnist_cnn": (1, 28, 28), "mlp": (30,), "signal_cnn": (3, 128)}
_PROPOSALS = 15
# Seconds after which longer histories and further proposals are left out.
_PATIENCE = 10.0

# Metrics differ, so that a sampler works as in a real search; the space is large enough for --long.
_PROGRAM = """
import nni
import torch
from nni.nas.nn.pytorch import ModelSpace, MutableLinear

WIDTHS = [8, 16, 24, 32, 48]


class Wide(ModelSpace):
    def __init__(self):
        super().__init__()
        sides = [64, *(nni.choice(f"width{i}", WIDTHS) for i in range(6)), 10]
        self.layers = torch.nn.ModuleList(MutableLinear(a, b) for a, b in zip(sides, sides[1:]))

    def forward(self, x):
        x = torch.flatten(x, 1)
        for layer in self.layers:
            x = torch.relu(layer(x))
        return x


def evaluate(candidate):
    values = [float(v) if isinstance(v, (int, float)) else float(len(v)) for _, v in sorted(candidate.items())]
    mixed = sum((i + 1) * v for i, v in enumerate(values))
    return {"val_accuracy": mixed % 97 / 97, "latency_ms": 1 + sum(values), "size_kib": 1 + max(values) * min(values)}
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and show; the exit code is 0, 2 for a mistake, or 130 after Ctrl-C."""
    options = _parser().parse_args(arguments)
    return exit_code(lambda: _run(options))


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(__doc__.partition("\n")[0])
    parser.add_argument("--samplers", metavar="A,B", help=f"samplers, by default all of {', '.join(_known())}")
    parser.add_argument("--parts", default="proposals,trials", help="one or more of proposals, spaces, trials")
    parser.add_argument(
        "--space", default="wide", help="space of the trials: wide (six choices of five values), or as for run.py"
    )
    parser.add_argument("--long", action="store_true", help=f"also {LONG:,} trials")
    add_output(parser)
    return parser


def _known() -> list[str]:
    return built_in_names("slimsearch.strategies.samplers")


def _run(options: argparse.Namespace) -> None:
    parts = [part.strip() for part in options.parts.split(",")]
    for part in parts:
        if part not in ("proposals", "spaces", "trials"):
            raise SlimsearchError(f"--parts '{part}': there is none; known: proposals, spaces, trials")
    names = _known() if options.samplers is None else [name.strip() for name in options.samplers.split(",")]
    for name in names:
        load_sampler(name)  # a mistake fails before the work
    check_output(options)
    shown = console()
    found: dict[str, Any] = {}
    if "proposals" in parts:
        found["proposals"] = proposals(names)
        shown.print(_proposals_table(found["proposals"]))
    if "spaces" in parts:
        sampler = Configuration.sampler if options.samplers is None else names[0]
        found["spaces"] = [in_space(sampler, name) for name in built_in_names("slimsearch.search_spaces")]
        shown.print(_spaces_table(sampler, found["spaces"]))
    if "trials" in parts:
        counts = (*TRIALS, LONG) if options.long else TRIALS
        own = [name for name in END_TO_END if name in names] if options.samplers is None else names
        found["trials"] = [trials(name, count, options.space) for name in own for count in counts]
        shown.print(_trials_table(found["trials"]))
    write_output(options, found)


def proposals(names: Sequence[str]) -> list[dict[str, Any]]:
    """Milliseconds of proposals, by sampler and length of the history."""
    cells = load_cells(DATASETS[0])
    space = cell_space(cells)
    points = list(space.grid())
    order = np.random.default_rng(0).permutation(len(points))

    def losses(point: Point) -> tuple[float, ...]:
        metrics = cells.metrics(point)
        return tuple(o.loss(metrics) for o in _OBJECTIVES)

    observations = [Observation(points[position], losses(points[position])) for position in order[: max(HISTORIES)]]
    rows = []
    for name in names:
        proposing = Proposals(space, load_sampler(name), _OBJECTIVES, 0)
        for count in HISTORIES:
            first, times = _timed(proposing, space, History(observations[:count]), losses)
            rows.append({"sampler": name, "history": count, "first_ms": first, "ms": times})
            if max(first, *times) > 1000 * _PATIENCE / 2:
                break
    return rows


def in_space(sampler: str, name: str) -> dict[str, Any]:
    """Milliseconds of proposals in a shipped space, after `IN_SPACES` random trials or half of a smaller space."""
    space = ModelSpace.load(name, _SHAPES.get(name, (3, 32, 32)), 10)
    rng = np.random.default_rng(0)
    choices = {choice.label: choice for choice in space.choices}
    worth = {label: rng.normal(size=(len(choice.values), len(_OBJECTIVES))) for label, choice in choices.items()}

    def losses(point: Point) -> tuple[float, ...]:
        rows = [worth[label][choices[label].index(value)] for label, value in point.items()]
        return tuple(float(value) for value in np.sum(rows, axis=0))

    history = History()
    while len(history.observations) < min(IN_SPACES, space.size // 2):
        point = space.sample(rng)
        if not history.tried(point):
            history.add(Observation(point, losses(point)))
    count = len(history.observations)
    first, times = _timed(Proposals(space, load_sampler(sampler), _OBJECTIVES, 0), space, history, losses)
    return {"space": name, "choices": len(space.choices), "history": count, "first_ms": first, "ms": times}


def _timed(
    proposing: Proposals, space: Space, history: History, losses: Callable[[Point], tuple[float, ...]]
) -> tuple[float, list[float]]:
    """Milliseconds of the first proposal, which lists the space or encodes the history, and of the next ones."""
    times: list[float] = []
    while len(times) <= _PROPOSALS and sum(times[1:]) < 1000 * _PATIENCE:
        started = time.process_time()
        candidate = proposing.next(history, len(history.observations))
        times.append(1000 * (time.process_time() - started))
        if candidate is None:
            break
        point = space.point(candidate)
        history.add(Observation(point, losses(point)))
    return times[0], times[1:]


def trials(sampler: str, count: int, space: str) -> dict[str, Any]:
    """Seconds of a run with `count` trials: of its search, and from the command to the report.

    Raises:
        SlimsearchError: the run failed, or had fewer trials.
    """
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "nothing.py"
        program.write_text(_PROGRAM, encoding="utf-8")
        words = [
            "--space", f"{program}:Wide" if space == "wide" else space, "--evaluator", f"{program}:evaluate",
            "--sampler", sampler, "--trials", str(count), "--workers", "2", "--run-dir", str(Path(folder) / "run"),
        ]  # fmt: skip
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, str(ROOT / "experiments" / "run.py"), *words],
            cwd=folder, capture_output=True, text=True, check=False,
        )  # fmt: skip
        whole = time.perf_counter() - started
        if done.returncode != 0:
            last = done.stderr.strip().splitlines()[-1:] or ["it says nothing"]
            raise SlimsearchError(f"the run with --sampler {sampler} --trials {count} failed: {last[0]}")
        begun, search = _recorded(Path(folder) / "run" / "study.journal")
    if begun < count:
        raise SlimsearchError(f"--trials {count}: --space {space} had {begun} candidates only")
    return {"sampler": sampler, "trials": count, "space": space, "search_seconds": search, "seconds": whole}


def _recorded(journal: Path) -> tuple[int, float]:
    """The number of trials, and seconds from the begin of the first one to the end of the last one."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = JournalStorage(JournalFileBackend(str(journal)))
    found = optuna.load_study(study_name=None, storage=storage).get_trials(deepcopy=False)
    begun = min(t.datetime_start for t in found if t.datetime_start is not None)
    ended = max(t.datetime_complete for t in found if t.datetime_complete is not None)
    return len(found), (ended - begun).total_seconds()


def _proposals_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    made = Table(title="ms per proposal, three objectives: median (worst)", title_justify="left")
    made.add_column("sampler", no_wrap=True)
    for count in HISTORIES:
        made.add_column(f"{count:,} trials", justify="right", no_wrap=True)
    for name in dict.fromkeys(row["sampler"] for row in rows):
        times = {row["history"]: row["ms"] for row in rows if row["sampler"] == name}
        cells = [f"{np.median(times[c]):.1f} ({max(times[c]):.1f})" if c in times else "" for c in HISTORIES]
        made.add_row(name, *cells)
    return made


def _spaces_table(sampler: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    title = f"{sampler}, three objectives, {IN_SPACES} trials: ms of CPU time per proposal"
    made = Table(title=title, title_justify="left")
    made.add_column("space", no_wrap=True)
    for heading in ("choices", "first", "median", "worst"):
        made.add_column(heading, justify="right")
    for row in rows:
        ms = [f"{value:.0f}" for value in (row["first_ms"], np.median(row["ms"]), max(row["ms"]))]
        made.add_row(row["space"], str(row["choices"]), *ms)
    return made


def _trials_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    made = Table(title="trials without evaluation, recorded on disk, two workers", title_justify="left")
    made.add_column("sampler", no_wrap=True)
    for heading in ("trials", "trials/s of the search", "seconds of the search", "seconds of the whole run"):
        made.add_column(heading, justify="right")
    for row in rows:
        made.add_row(
            row["sampler"], f"{row['trials']:,}", f"{row['trials'] / row['search_seconds']:.1f}",
            f"{row['search_seconds']:.1f}", f"{row['seconds']:.1f}",
        )  # fmt: skip
    return made


if __name__ == "__main__":
    sys.exit(main())
