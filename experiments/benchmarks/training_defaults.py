"""Settings of the default training, changed one at a time, in six spaces at equal processor time.

A space trains the same random networks, each with a seed of its own, with the defaults of ``slimsearch run`` and with
every change; none makes steps slower. The training examples are few, as in a search; the validation examples are others
of the same training split. Trainings that are in ``--json`` already are kept.

    python experiments/benchmarks/training_defaults.py --mnist data --cifar10 cifar10 --json training_defaults.json
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # the root of the checkout instead of this folder

import numpy as np
import torch
from sklearn.datasets import load_digits

from experiments.benchmarks._output import add_output, check_output, known_rows, table, write_output
from slimsearch.cli.command_parser import CommandParser
from slimsearch.cli.exit_code import exit_code
from slimsearch.compression import Network
from slimsearch.evaluators import Meter, NetworkTraining, TrainingSettings, precision_for, processor, use_one_thread
from slimsearch.evaluators.datasets import Dataset, Split, load_dataset
from slimsearch.evaluators.tasks import Classification
from slimsearch.evaluators.training.network_training import validate
from slimsearch.search_spaces import ModelSpace


@dataclass(frozen=True)
class _Space:
    """What is trained in a space.

    Attributes:
        data: "mnist", "cifar10", or the digits of scikit-learn as "signal" or "table".
        train, validation: examples of the training split.
        epochs: of a training.
    """

    data: str
    train: int
    validation: int
    epochs: int


SPACES = {
    "mnist_cnn": _Space("mnist", 4250, 10_000, 5),
    "lenet": _Space("mnist", 4250, 10_000, 5),
    "tiny_cnn": _Space("mnist", 4250, 10_000, 5),
    "resnet_cifar": _Space("cifar10", 3000, 6000, 5),
    "signal_cnn": _Space("signal", 600, 657, 15),
    "mlp": _Space("table", 600, 657, 15),
}
DEFAULT = "default"
CHANGES: dict[str, dict[str, Any]] = {
    DEFAULT: {},
    "learning rate 0.01": {"learning_rate": 0.01},
    "learning rate 0.03": {"learning_rate": 0.03},
    "label smoothing 0.1": {"label_smoothing": 0.1},
}
"""Changed settings; "label_smoothing" belongs to the task."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Train and show; the exit code is 0, 2 for a mistake, or 130 after Ctrl-C."""
    options = _parser().parse_args(arguments)
    return exit_code(lambda: _run(options))


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(__doc__.partition("\n")[0])
    parser.add_argument("--mnist", type=Path, required=True, help="folder that torchvision.datasets.MNIST reads")
    parser.add_argument("--cifar10", type=Path, required=True, help="image folder of CIFAR-10")
    parser.add_argument("--networks", least=1, default=3, metavar="N", help="networks of each space")
    parser.add_argument("--workers", least=1, default=2, metavar="N", help="trainings at a time")
    add_output(parser, page=True)
    return parser


def _run(options: argparse.Namespace) -> None:
    check_output(options)
    rows = known_rows(options)
    known = {tuple(row[name] for name in _KEY) for row in rows}
    trainings = [
        (change, space, network)
        for change in CHANGES
        for space in SPACES
        for network in range(options.networks)
        if (change, space, network) not in known
    ]
    with ProcessPoolExecutor(options.workers, multiprocessing.get_context("spawn")) as pool:
        running = [pool.submit(trained, *training, options.mnist, options.cifar10) for training in trainings]
        try:
            for done in as_completed(running):
                rows.append(done.result())
                print(rows[-1], flush=True)
                write_output(options, rows)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    write_output(options, rows, {"defaults": _table(rows)})
    print(_table(rows))


_KEY = ("change", "space", "network")


def trained(change: str, space_name: str, network: int, mnist: Path, cifar10: Path) -> dict[str, Any]:
    """Train a random network of a space.

    Args:
        change: of `CHANGES`.
        space_name: of `SPACES`.
        network: its number, which is the seed of architecture, weights and order.
        mnist, cifar10: folders of the data.

    Returns:
        JSON: the arguments, accuracy on the validation split, processor seconds of the training, and the processor.
    """
    use_one_thread()
    of, changes = SPACES[space_name], dict(CHANGES[change])
    data = _data(space_name, mnist, cifar10)
    if "label_smoothing" in changes:
        data = replace(data, task=Classification(label_smoothing=changes.pop("label_smoothing")))
    settings = TrainingSettings(precision=precision_for("auto", "cpu"), normalise=True, **changes)
    space = ModelSpace.load(space_name, data.input_shape, len(data.classes))
    built = Network(space.build(space.sample(np.random.default_rng(network)), network).eval())
    began = time.process_time()
    found = NetworkTraining(data, settings, network).fit(built, epochs=of.epochs)
    seconds = time.process_time() - began
    scores = validate(found.module, data, settings, Meter(), torch.contiguous_format)
    return {
        **dict(zip(_KEY, (change, space_name, network), strict=True)),
        "val_accuracy": scores["val_accuracy"], "cpu_seconds": seconds, "processor": processor()[0],
    }  # fmt: skip


@cache
def _data(space: str, mnist: Path, cifar10: Path) -> Dataset:
    """The data of a space: a part of the training split for each of training and validation."""
    of = SPACES[space]
    if of.data == "mnist":
        whole = load_dataset("mnist", root=mnist)
    elif of.data == "cifar10":
        whole = load_dataset(cifar10)
    else:
        digits = load_digits()
        images = (digits.images / 16).astype(np.float32)  # (N, 8, 8): as signals, rows are channels
        inputs = images if of.data == "signal" else images.reshape(len(images), -1)
        whole = load_dataset((inputs, digits.target), input_kind=of.data)
    order = np.random.default_rng(0).permutation(len(whole.train))

    def part(chosen: Any) -> Split:
        places = np.sort(chosen)
        return replace(whole.train, inputs=whole.train.inputs[places], targets=whole.train.targets[places])

    return replace(whole, train=part(order[: of.train]), validation=part(order[of.train :][: of.validation]))


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A row for each change: points of accuracy gained in each space, on average, and the times of processor time."""
    found = {tuple(row[name] for name in _KEY): row for row in rows}

    def cell(change: str, space: str) -> str:
        networks = [key[2] for key in found if key[:2] == (change, space)]
        pairs = [(found[DEFAULT, space, network], found[change, space, network]) for network in networks]
        if change == DEFAULT:
            accuracy = statistics.mean(100 * row["val_accuracy"] for _, row in pairs)
            return f"{accuracy:.2f}%, {statistics.median(row['cpu_seconds'] for _, row in pairs):.0f} s"
        gained = statistics.mean(100 * (row["val_accuracy"] - default["val_accuracy"]) for default, row in pairs)
        times = statistics.median(row["cpu_seconds"] / default["cpu_seconds"] for default, row in pairs)
        return f"{gained:+.2f}, {times:.2f}"

    return table(["change", *SPACES], [[change, *(cell(change, space) for space in SPACES)] for change in CHANGES])


if __name__ == "__main__":
    sys.exit(main())
