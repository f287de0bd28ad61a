"""Searches around a trained network: recipes alone, and with ``--elastic``, also with low rank among the recipes.

    python experiments/benchmarks/elastic_search.py --json elastic_search.json --page docs/shrink.md

Networks are trained from scratch on digits, and each is the start of all its searches. An interrupted
benchmark continues from the runs in --out.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # the root of the checkout instead of this folder

import numpy as np
import torch
from torch import nn

from experiments.benchmarks._command_runs import CommandRun
from experiments.benchmarks._output import add_output, check_output, table, write_output
from experiments.benchmarks._references import residual_network
from experiments.network_folder import NetworkFolder, StoredNetwork
from slimsearch.cli.command_parser import CommandParser
from slimsearch.cli.exit_code import exit_code
from slimsearch.evaluators.datasets import load_dataset
from slimsearch.search_spaces import FixedModel, RecipeSpace

_DATASET = "digits"
_ALLOWED = 0.01  # accuracy that the smallest file may lose
_WORST = 0.06  # share of wrong answers, the reference point of hypervolumes
_LOW_RANK = {"use": [True, False], "energy": [0.9, 0.8]}

Row = dict[str, Any]
Numbers = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Case:
    """A network to search around.

    Attributes:
        function: of this file, which makes it.
        epochs: of its training.
        searches: names of `SEARCHES`.
    """

    function: str
    epochs: int
    searches: tuple[str, ...]


SEARCHES = {"recipes alone": (), "`--elastic`": ("--elastic",), "`--elastic`, low rank": ("--elastic",)}
CASES = {
    "ResNet-20": Case("resnet20", 40, ("recipes alone", "`--elastic`")),
    "transformer": Case("transformer", 60, ("`--elastic`", "`--elastic`, low rank")),
}


def resnet20() -> nn.Module:
    """ResNet-20 of He et al. 2016 for CIFAR-10, for grayscale images."""
    return residual_network(1, 3)


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.projection = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        images, tokens, width = x.shape
        qkv = self.qkv(self.norm1(x)).reshape(images, tokens, 3, self.heads, width // self.heads)
        queries, keys, values = qkv.permute(2, 0, 3, 1, 4)  # (N, heads, T, width / heads)
        attended = nn.functional.scaled_dot_product_attention(queries, keys, values)
        x = x + self.projection(attended.transpose(1, 2).reshape(images, tokens, width))
        return x + self.mlp(self.norm2(x))  # type: ignore[no-any-return]


class _Patches(nn.Module):
    def __init__(self, width: int, size: int, tokens: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, width, size, size)
        self.positions = nn.Parameter(0.02 * torch.randn(1, tokens, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.convolution(x).flatten(2).transpose(1, 2) + self.positions  # type: ignore[no-any-return]


class _Mean(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(1)


def transformer() -> nn.Module:
    """A vision transformer for grayscale images of 8 pixels: 16 patches, width 96, 4 layers of 4 heads."""
    blocks = [_Block(96, 4) for _ in range(4)]
    return nn.Sequential(_Patches(96, 2, 16), *blocks, nn.LayerNorm(96), _Mean(), nn.Linear(96, 10))


def main(words: Sequence[str] | None = None) -> int:
    """Run all searches and write the table."""
    parser = CommandParser(__doc__.partition("\n")[0])
    parser.add_argument("--networks", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--seeds", least=1, default=3, help="of the searches of a network")
    parser.add_argument("--trials", least=1, default=8, help="of a search")
    parser.add_argument("--epochs", least=1, default=4, help="of each training in a search")
    parser.add_argument("--out", type=Path, default=Path("runs") / "elastic_search", help="folder of the runs")
    add_output(parser, page=True)
    options = parser.parse_args(words)
    return exit_code(lambda: _measure(options))


def _measure(options: argparse.Namespace) -> None:
    check_output(options)
    rows: list[Row] = []
    for name in options.networks:
        case = CASES[name]
        out = (options.out / case.function).resolve()
        given = _trained(out, case)
        print(name, given.metrics["val_accuracy"], given.metrics["size_kib"], given.metrics["params"], flush=True)
        for seed in range(options.seeds):
            for search in case.searches:
                run = _run(out / f"{list(SEARCHES).index(search)}-{seed}", case, given, search, seed, options)
                rows.append({"network": name, "seed": seed, "search": search, **_found(run)})
                print(*rows[-1].values(), flush=True)
                write_output(options, rows)
    write_output(options, rows, {"elastic_search": _table(rows)})


def _trained(out: Path, case: Case) -> StoredNetwork:
    data = load_dataset(_DATASET)
    space = FixedModel.load(f"{__file__}:{case.function}", data.input_shape, len(data.classes))
    return NetworkFolder(out, space, {}, data).train("given", case.epochs, 0)


def _run(
    directory: Path, case: Case, given: StoredNetwork, search: str, seed: int, options: argparse.Namespace
) -> CommandRun:
    words = list(SEARCHES[search])
    if search.endswith("low rank"):
        recipes = RecipeSpace.read(RecipeSpace.shipped()["elastic"]).content
        path = directory.with_suffix(".recipes.json")
        path.write_text(json.dumps({"low_rank": _LOW_RANK, **recipes}), encoding="utf-8")
        words += ["--recipe-space", str(path)]
    weights = given.artifact.directory / "weights.safetensors"
    return CommandRun(
        directory, "compress", f"{__file__}:{case.function}", "--weights", weights,
        "--mean", "dataset", "--std", "dataset", "--dataset", _DATASET, "--objectives", "val_accuracy,size_kib",
        "--epochs", options.epochs, "--trials", options.trials, "--seed", seed, "--workers", 1, *words,
    ).begin().wait()  # fmt: skip


def _found(run: CommandRun) -> Row:
    """Measures of a run, whose trial 0 is the given network."""
    with (run.directory / "trials.csv").open(newline="", encoding="utf-8") as file:
        trials = [row for row in csv.DictReader(file) if row["state"] == "complete"]
    wrong, kib, macs = (np.array([float(row[name]) for row in trials]) for name in ("val_accuracy", "size_kib", "macs"))
    wrong = 1 - wrong
    close = wrong <= wrong[0] + _ALLOWED + 1e-9
    return {
        "files": len(trials),
        "far": int((~close).sum()),
        "kib": float(kib[close].min()),
        "given_kib": float(kib[0]),
        "by_size": _hypervolume(wrong, kib),
        "by_macs": _hypervolume(wrong, macs),
        "seconds": run.seconds,
    }


def _hypervolume(wrong: Numbers, cost: Numbers) -> float:
    """Of the share of wrong answers, up to `_WORST`, and the natural logarithm of a cost relative to the first one."""
    import moocore

    points = np.stack([wrong, np.log(cost / cost[0])], axis=1)
    return float(moocore.hypervolume(points, ref=[_WORST, 0.0]))


def _table(rows: Sequence[Row]) -> str:
    headings = (
        "network", "seed", "search", "smallest file within 1 point, KiB", "accuracy and size", "accuracy and MACs",
        "files that lost more than 1 point",
    )  # fmt: skip
    cells = [
        (
            row["network"], str(row["seed"]), row["search"], f"{row['kib']:.0f}", f"{row['by_size']:.3f}",
            f"{row['by_macs']:.3f}", f"{row['far']} of {row['files']}",
        )
        for row in rows
    ]  # fmt: skip
    return table(headings, cells, numbers=False)


if __name__ == "__main__":
    sys.exit(main())
