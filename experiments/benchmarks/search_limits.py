"""Searches below a limit that is known before training, on tables of trained networks.

    python experiments/benchmarks/search_limits.py --json search_limits.json --page docs/benchmarks.md

The only objective is accuracy. A network with more parameters than the limit is ruled out untrained, as in a run, and
costs only its proposal. The limit is the number of parameters that a share of the table's networks keeps.
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
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # the root of the checkout instead of this folder

import numpy as np

from experiments.benchmarks._output import add_output, check_output, table, write_output
from experiments.benchmarks._trained_tables import DATASETS, LENET, LookupTable, load
from slimsearch.cli.command_parser import CommandParser
from slimsearch.cli.exit_code import exit_code
from slimsearch.errors import SlimsearchError
from slimsearch.loop.proposals import Proposals
from slimsearch.strategies.samplers import History, Observation, load_sampler

SAMPLERS = ("graph_gp", "regularized_evolution", "tpe", "random")
_PARAMS = 1  # column of the losses
_MOST_RULED_OUT = 50  # for each network to train; then the search ends


def main(arguments: Sequence[str] | None = None) -> int:
    """Search and show; the exit code is 0, 2 for a mistake, or 130 after Ctrl-C."""
    options = _parser().parse_args(arguments)
    return exit_code(lambda: _run(options))


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(__doc__.partition("\n")[0])
    parser.add_argument("--samplers", nargs="+", default=list(SAMPLERS), metavar="NAME", help="samplers")
    parser.add_argument("--datasets", nargs="+", default=["cifar10"], choices=[*DATASETS, LENET], help="tables")
    parser.add_argument(
        "--shares", nargs="+", type=float, default=[0.05, 0.2, 0.5], help="shares of networks within the limit"
    )
    parser.add_argument("--trained", least=1, default=60, metavar="N", help="networks to train in each search")
    parser.add_argument("--seeds", least=1, default=16, metavar="N", help="number of seeds")
    add_output(parser, page=True)
    return parser


def _run(options: argparse.Namespace) -> None:
    for share in options.shares:
        if not 0 < share <= 1:
            raise SlimsearchError(f"--shares {share:g} is not above 0 and at most 1")
    check_output(options)
    marks = sorted({max(1, options.trained // 3), max(1, 2 * options.trained // 3), options.trained})
    rows = []
    for name, share, sampler in itertools.product(options.datasets, options.shares, options.samplers):
        searched = load(name).table
        limit = float(np.quantile(searched.losses[:, _PARAMS], share))
        best = searched.losses[searched.losses[:, _PARAMS] <= limit, 0].min()
        found = [_searched(searched, sampler, limit, seed, options.trained) for seed in range(options.seeds)]
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
    write_output(options, {"seeds": options.seeds, "rows": rows}, {"search_limits": made})


def _searched(searched: LookupTable, sampler: str, limit: float, seed: int, trained: int) -> tuple[list[float], int]:
    """The losses of the trained networks, in order, and the number of networks that were ruled out."""
    proposals = Proposals(_WithoutCosts(searched.space), load_sampler(sampler), searched.objectives[:1], seed)  # type: ignore[arg-type]
    history, losses, ruled_out = History(), list[float](), 0
    while len(losses) < trained and ruled_out < _MOST_RULED_OUT * trained:
        candidate = proposals.next(history, len(history.observations))
        if candidate is None:
            break
        row = searched.row(candidate.architecture)
        assert row is not None, "the space is the table's"
        excess = max(0.0, float(searched.losses[row, _PARAMS]) / limit - 1)
        loss = float(searched.losses[row, 0])
        history.add(Observation(candidate.architecture, None if excess else (loss,), excess))
        if excess:
            ruled_out += 1
        else:
            losses.append(loss)
    return losses, ruled_out


class _WithoutCosts:
    """The space of a table without the costs that it knows before training."""

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
