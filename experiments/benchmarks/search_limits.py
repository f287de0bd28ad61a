"""What a search finds below a limit that is known before training, on tables of trained networks.

    python experiments/benchmarks/search_limits.py --json search_limits.json --page docs/benchmarks.md

A search is told of accuracy alone. What has more parameters than a share of the table's networks is ruled out as a run
rules it out, untrained, and costs nothing but the proposal. The page gets the table in its marked place.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # in place of this folder

import numpy as np

from experiments.benchmarks import _nasbench201
from experiments.benchmarks._page import filled, table
from experiments.benchmarks._searches import Problem
from experiments.benchmarks._tables import LENET, load
from slimsearch.cli.command_parser import CommandParser
from slimsearch.cli.exit_code import exit_code
from slimsearch.errors import SlimsearchError
from slimsearch.files import write_json, write_text
from slimsearch.loop.proposals import Proposals
from slimsearch.strategies.samplers import History, Observation, load_sampler

SAMPLERS = ("graph_gp", "bananas", "regularized_evolution", "tpe", "random")
_PARAMS = 1  # the column of the tables' losses
_MOST_RULED_OUT = 50  # for each network that is trained; then the search ends


def main(arguments: Sequence[str] | None = None) -> int:
    """Search and show; the exit code is 0, 2 for a mistake, or 130 after Ctrl-C."""
    options = _parser().parse_args(arguments)
    return exit_code(lambda: _run(options))


def _parser() -> argparse.ArgumentParser:
    made = CommandParser(__doc__.partition("\n")[0])
    made.add_argument("--samplers", nargs="+", default=list(SAMPLERS), metavar="NAME")
    made.add_argument("--datasets", nargs="+", default=["cifar10"], choices=[*_nasbench201.DATASETS, LENET])
    made.add_argument("--shares", nargs="+", type=float, default=[0.05, 0.2, 0.5], help="of networks that keep it")
    made.add_argument("--trained", type=int, default=60, metavar="N", help="networks of each search")
    made.add_argument("--seeds", type=int, default=16, metavar="N")
    made.add_argument("--json", type=Path, metavar="PATH", help="where what was found is written")
    made.add_argument("--page", type=Path, metavar="PATH", help="a page in Markdown whose table is written anew")
    return made


def _run(options: argparse.Namespace) -> None:
    for name in ("trained", "seeds"):
        if getattr(options, name) < 1:
            raise SlimsearchError(f"--{name} {getattr(options, name)} is less than 1")
    for share in options.shares:
        if not 0 < share <= 1:
            raise SlimsearchError(f"--shares {share:g} is not above 0 and at most 1")
    marks = sorted({max(1, options.trained // 3), max(1, 2 * options.trained // 3), options.trained})
    rows = []
    for name, share, sampler in itertools.product(options.datasets, options.shares, options.samplers):
        problem = load(name).problem
        limit = float(np.quantile(problem.losses[:, _PARAMS], share))
        best = problem.losses[problem.losses[:, _PARAMS] <= limit, 0].min()
        found = [_searched(problem, sampler, limit, seed, options.trained) for seed in range(options.seeds)]
        rows.append({
            "dataset": name, "share": share, "sampler": sampler,
            "missing": {str(mark): [min(losses[:mark]) - best for losses, _ in found] for mark in marks},
            "ruled_out": [count for _, count in found],
        })  # fmt: skip
        print(f"{name}, {share:g}, {sampler}: {', '.join(_cells(rows[-1]))}", flush=True)
    made = table(
        ["data, networks that keep the limit, sampler", *(f"after {mark}" for mark in marks), "ruled out"],
        [[f"{row['dataset']}, {row['share']:.0%}, `{row['sampler']}`", *_cells(row)] for row in rows],
    )
    print(f"\n{made}")
    if options.json is not None:
        write_json(options.json, {"seeds": options.seeds, "rows": rows})
    if options.page is not None:
        page = options.page.read_text(encoding="utf-8")
        write_text(options.page, filled(page, {"search_limits": made}))


def _searched(problem: Problem, sampler: str, limit: float, seed: int, trained: int) -> tuple[list[float], int]:
    """The losses of the networks that were trained, in order, and how many were ruled out."""
    proposals = Proposals(_WithoutCosts(problem.space), load_sampler(sampler), problem.objectives[:1], seed)  # type: ignore[arg-type]
    history, losses, ruled_out = History(), list[float](), 0
    while len(losses) < trained and ruled_out < _MOST_RULED_OUT * trained:
        candidate = proposals.next(history, len(history.observations))
        if candidate is None:
            break
        row = problem.row(candidate.architecture)
        assert row is not None, "the space is the table's"
        excess = max(0.0, float(problem.losses[row, _PARAMS]) / limit - 1)
        loss = float(problem.losses[row, 0])
        history.add(Observation(candidate.architecture, None if excess else (loss,), excess))
        if excess:
            ruled_out += 1
        else:
            losses.append(loss)
    return losses, ruled_out


class _WithoutCosts:
    """A table's space that knows as little of a point before it is built as a space of networks does."""

    def __init__(self, space: Any) -> None:
        self._space = space

    def __getattr__(self, name: str) -> Any:
        return getattr(self._space, name)

    def known(self, point: Any) -> dict[str, float]:
        return {}


def _cells(row: dict[str, Any]) -> list[str]:
    return [f"{median(values):.2f}" for values in row["missing"].values()] + [f"{median(row['ruled_out']):.0f}"]


if __name__ == "__main__":
    sys.exit(main())
