"""Accuracy with and without each augmentation, for the same networks, data and seeds.

    python experiments/benchmarks/augmentation.py --cifar10 path/to/cifar10 --mnist path/to/data --json results.json

A network of the space is drawn for each seed, trained with every augmentation by one process with one thread, and
scored on the test split. Seconds, in the JSON, are processor time of the whole training. Rows that are in ``--json``
already are kept.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # the root of the checkout instead of this folder

import numpy as np

from experiments.benchmarks._output import add_output, check_output, known_rows, table, write_output
from experiments.benchmarks.tasks import signals
from slimsearch.cli.command_parser import CommandParser
from slimsearch.cli.exit_code import exit_code
from slimsearch.compression import Network
from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import NetworkTraining, TrainingSettings, outputs_of, precision_for, use_one_thread
from slimsearch.evaluators.datasets import Dataset, Split, load_dataset
from slimsearch.search_spaces import ModelSpace


@dataclass(frozen=True)
class Case:
    """What is trained.

    Attributes:
        space: of the networks.
        augmentations: the first is what the others are compared with.
        epochs: of each training.
        images: training examples, at most.
        batch_size: examples per step.
    """

    space: str
    augmentations: tuple[str, ...]
    epochs: int
    images: int = 5000
    batch_size: int = 64


_OF_SIGNALS = ("none", "shift", "noise", "mask", "mixup", "shift+noise+mask")
CASES = {
    "cifar10": Case(
        "resnet_cifar",
        (
            "shift-flip", "none", "shift-flip+cutout", "shift-flip+mixup", "shift-flip+cutmix",
            "shift-flip+randaugment",
        ),
        12,
        2000,
    ),
    "mnist": Case(
        "mnist_cnn", ("shift", "none", "shift+cutout", "shift+mixup", "shift+cutmix", "shift+randaugment"), 15, 1000
    ),
    "osuleaf": Case("signal_cnn", _OF_SIGNALS, 60, batch_size=16),
    "acsf1": Case("signal_cnn", _OF_SIGNALS, 40, batch_size=16),
    "arrow_head": Case("signal_cnn", _OF_SIGNALS, 60, batch_size=16),
    "digits": Case("tiny_cnn", ("none", "shift", "cutout", "mixup"), 10),
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Train and show; the exit code is 0, 2 for a mistake, or 130 after Ctrl-C."""
    options = _parser().parse_args(arguments)
    return exit_code(lambda: _run(options))


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(__doc__.partition("\n")[0])
    parser.add_argument("--data", nargs="+", default=list(CASES), choices=CASES, metavar="NAME", help=", ".join(CASES))
    parser.add_argument("--seeds", least=1, default=3, metavar="N", help="networks of each data set")
    parser.add_argument("--epochs", least=1, metavar="N", help="epochs of each training; by default by data set")
    parser.add_argument("--images", least=1, metavar="N", help="training examples; by default by data set")
    parser.add_argument("--cifar10", type=Path, help="image folder of CIFAR-10")
    parser.add_argument("--mnist", type=Path, help="folder of torchvision's MNIST")
    add_output(parser, page=True)
    return parser


def _run(options: argparse.Namespace) -> None:
    check_output(options)
    use_one_thread()
    rows = known_rows(options)
    for name in options.data:
        case = CASES[name]
        case = replace(case, epochs=options.epochs or case.epochs, images=options.images or case.images)
        for seed in range(options.seeds):
            for augmentation in case.augmentations:
                row = {"data": name, "augmentation": augmentation, "seed": seed}
                if any(row.items() <= other.items() for other in rows):
                    continue
                data = _data(name, case, options)
                rows.append({**row, **trained(data, case, augmentation, seed)})
                print(rows[-1], flush=True)
                write_output(options, rows)
    shown = shown_rows(rows)
    print(shown)
    write_output(options, rows, {"augmentation": shown})


def _data(name: str, case: Case, options: argparse.Namespace) -> Dataset:
    given: Any = name
    if name in ("cifar10", "mnist"):
        path = getattr(options, name)
        if path is None:
            raise SlimsearchError(f"--{name} is missing: the folder of the data, or --data with others")
        given = path if name == "cifar10" else name
    elif case.space == "signal_cnn":
        given = signals(name)
    data = load_dataset(
        given, root=options.mnist, input_kind="signal" if case.space == "signal_cnn" else "auto"
    )  # fmt: skip
    count = min(case.images, len(data.train))
    chosen = np.sort(np.random.default_rng(0).permutation(len(data.train))[:count])
    return replace(data, train=Split(data.train.inputs[chosen], data.train.targets[chosen]))


def trained(data: Dataset, case: Case, augmentation: str, seed: int) -> dict[str, float]:
    """Accuracy on the test split, and processor seconds, of one training."""
    space = ModelSpace.load(case.space, data.input_shape, len(data.classes))
    network = Network(space.build(space.sample(np.random.default_rng(seed)), seed).eval())
    settings = TrainingSettings(
        batch_size=case.batch_size, augmentation=augmentation, precision=precision_for("auto", "cpu"), normalise=True
    )
    began = time.process_time()
    found = NetworkTraining(data, settings, seed).fit(network, epochs=case.epochs)
    seconds = time.process_time() - began
    assert data.test is not None
    examples = data.task.measured(outputs_of(found), data, data.test)
    return {"accuracy": data.task.leading_value(examples), "seconds": seconds}


def shown_rows(rows: Sequence[Mapping[str, Any]]) -> str:
    """A line for each augmentation: mean accuracy, and the difference from the first one in points."""
    lines = []
    for name, case in CASES.items():
        of = {
            augmentation: {
                row["seed"]: row for row in rows if (row["data"], row["augmentation"]) == (name, augmentation)
            }
            for augmentation in case.augmentations
        }
        first = of[case.augmentations[0]]
        for augmentation, by_seed in of.items():
            both = sorted(by_seed.keys() & first.keys())
            if not both:
                continue
            differences = [100 * (by_seed[seed]["accuracy"] - first[seed]["accuracy"]) for seed in both]
            change = f"{mean(differences):+.2f}", f"{min(differences):+.2f} to {max(differences):+.2f}"
            accuracy = mean(by_seed[seed]["accuracy"] for seed in both)
            cells = ["", ""] if by_seed is first else list(change)
            lines.append([name, augmentation, f"{100 * accuracy:.2f}", *cells])
    return table(["data", "augmentation", "test %", "points more", "of each seed"], lines)


if __name__ == "__main__":
    sys.exit(main())
