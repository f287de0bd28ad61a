"""Speed and accuracy of each trick of the training path: the same training with and without it, interleaved.

    python experiments/benchmarks/training_path.py --json training_path.json --page docs/training.md

Trainings have one process and one thread, and seconds are processor time. The row for pinned workers trains in one
process per core, and its seconds are wall time. Both variants train the same random networks of shipped spaces;
accuracies are means on the validation split.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # the root of the checkout instead of this folder

import numpy as np
import torch

from experiments.benchmarks._output import add_output, check_output, table, write_output
from slimsearch.cli.command_parser import CommandParser
from slimsearch.cli.exit_code import exit_code
from slimsearch.compression import Network
from slimsearch.compression.distill import SoftLabels
from slimsearch.evaluators import Meter, NetworkTraining, TrainingSettings, precision_for, processor, use_one_thread
from slimsearch.evaluators.datasets import Dataset, load_dataset
from slimsearch.evaluators.training import batch_norm, module_in_training, network_training
from slimsearch.search_spaces import ModelSpace

_PINNED_EPOCHS = 3
_PINNED = "a core of its own for each worker"
_DATA = "mnist5k"
SPACES = ("mnist_cnn", "lenet", "tiny_cnn")


@dataclass(frozen=True)
class Variant:
    """A variant of the training.

    Attributes:
        settings: of the training.
        epochs: of the training.
        layout: of weights and images, the name of a `torch.memory_format`.
        fused: whether the optimizer's step is one kernel.
        stored: whether the teacher's answers are stored; None without a teacher.
        without: a function to leave out: the module that names it, and its name.
    """

    settings: TrainingSettings
    epochs: int = 1
    layout: str = "channels_last"
    fused: bool = True
    stored: bool | None = None
    without: tuple[Any, str] | None = None


@dataclass(frozen=True)
class Trick:
    """Two variants that differ in one trick.

    Attributes:
        name: of the trick.
        without, by: the variants without and with the trick.
        spaces: of the networks.
        accuracy: whether the trick can change accuracy.
    """

    name: str
    without: Variant
    by: Variant
    spaces: Sequence[str] = SPACES
    accuracy: bool = True


def tricks(epochs: int) -> list[Trick]:
    """The tricks of the training path, and some that were rejected."""
    precision = precision_for("auto", "cpu")
    base = TrainingSettings(learning_rate=0.005, precision=precision)
    plain, full = Variant(base), Variant(replace(base, precision="fp32"), epochs=epochs)
    short, long = Variant(base, epochs=2), Variant(base, epochs=epochs)
    large = replace(base, batch_size=256, learning_rate=0.01)
    folded, narrow = replace(base, normalise=True), replace(base, precision="bf16")
    return [
        Trick("channels last in memory", replace(plain, layout="contiguous_format"), plain, accuracy=False),
        Trick("bfloat16", full, Variant(replace(base, precision="bf16"), epochs=epochs)),
        Trick("bfloat16 where a network multiplies much for what it moves", full, long),
        Trick(
            "freed memory kept, batches of 256",
            Variant(large, without=(network_training, "reuse_freed_memory")), Variant(large), accuracy=False,
        ),
        Trick(
            "dropout's masks by NumPy",
            replace(long, without=(module_in_training, "speed_up_dropout")), long, ("mnist_cnn",),
        ),
        Trick(
            "gradients in channels last",
            replace(plain, without=(module_in_training, "keep_channels_last")), plain, accuracy=False,
        ),
        Trick(
            "batch normalization of several pixels at once",
            replace(plain, without=(batch_norm, "speed_up_batch_norm")), plain, accuracy=False,
        ),
        Trick(
            "slow depthwise convolutions in float32",
            Variant(narrow, without=(module_in_training, "depthwise_in_float32")), Variant(narrow),
            ("mobilenet_small",), accuracy=False,
        ),
        Trick("optimizer's step in one kernel", replace(plain, fused=False), plain, accuracy=False),
        Trick(
            "learning rate 0.01 in place of 0.005",
            Variant(folded, epochs=epochs // 2), Variant(replace(folded, learning_rate=0.01), epochs=epochs // 2),
        ),
        Trick("batches of 256 in place of 64", long, Variant(large, epochs=epochs)),
        Trick("folded normalisation, 2 epochs", short, Variant(folded, epochs=2), ("mnist_cnn", "lenet")),
        Trick(
            f"folded normalisation, {epochs} epochs", long, Variant(folded, epochs=epochs),
            ("mnist_cnn", "lenet"),
        ),
        Trick(
            f"folded normalisation and {epochs // 2} epochs, for {epochs}", long, Variant(folded, epochs=epochs // 2),
            ("mnist_cnn", "lenet"),
        ),
        Trick(
            "a teacher's answers stored (no augmentation)",
            Variant(replace(base, augmentation="none"), epochs=4, stored=False),
            Variant(replace(base, augmentation="none"), epochs=4, stored=True), accuracy=False,
        ),
    ]  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and show; the exit code is 0, 2 for a mistake, or 130 after Ctrl-C."""
    options = _parser().parse_args(arguments)
    return exit_code(lambda: _run(options))


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(__doc__.partition("\n")[0])
    parser.add_argument("--networks", least=1, default=3, help="networks of each space")
    parser.add_argument("--epochs", least=1, default=10, help="epochs of a whole training")
    parser.add_argument("--only", help="tricks whose names contain this text")
    add_output(parser, page=True)
    return parser


def _run(options: argparse.Namespace) -> None:
    check_output(options)
    use_one_thread()
    rows = []
    for trick in tricks(options.epochs):
        if options.only is not None and options.only not in trick.name:
            continue
        for space in trick.spaces:
            rows.append({"trick": trick.name, "space": space, **compared(trick, space, options.networks)})
            print(_line(rows[-1]), flush=True)
    for space in SPACES if options.only is None or options.only in _PINNED else ():
        rows.append({"trick": _PINNED, "space": space, **pinned(space, options.networks)})
        print(_line(rows[-1]), flush=True)
    name, flags = processor()
    found = {"processor": name, "processor_flags": flags, "networks": options.networks, "rows": rows}
    write_output(options, found, {"tricks": _table(rows)})


def compared(trick: Trick, space_name: str, networks: int) -> dict[str, Any]:
    """Train the same networks with both variants, interleaved.

    Returns:
        JSON: median microseconds of the whole training per image of the data set, and mean accuracies.
    """
    data = load_dataset(_DATA)
    space = ModelSpace.load(space_name, data.input_shape, len(data.classes))
    rng = np.random.default_rng(0)
    seconds: dict[bool, list[float]] = {False: [], True: []}
    accuracies: dict[bool, list[float]] = {False: [], True: []}
    for seed in range(networks):
        point = space.sample(rng)
        network = Network(space.build(point, seed).eval())
        for on in (False, True) if seed % 2 == 0 else (True, False):
            variant = trick.by if on else trick.without
            taken, trained = trained_by(variant, network, data, seed)
            seconds[on].append(taken)
            if trick.accuracy:
                scores = network_training.validate(
                    trained.module, data, variant.settings, Meter(), torch.contiguous_format
                )
                accuracies[on].append(scores["val_accuracy"])
    ratios = [a / b for a, b in zip(seconds[False], seconds[True], strict=True)]
    row: dict[str, Any] = {
        "us_without": 1e6 * statistics.median(seconds[False]),
        "us_with": 1e6 * statistics.median(seconds[True]),
        "times_faster": statistics.median(ratios),
    }
    if trick.accuracy:
        row["accuracy_without"] = statistics.mean(accuracies[False])
        row["accuracy_with"] = statistics.mean(accuracies[True])
    return row


def trained_by(variant: Variant, network: Network, data: Dataset, seed: int) -> tuple[float, Network]:
    """Processor seconds of the whole training per image of the data, and the trained network."""
    training = NetworkTraining(data, variant.settings, seed)
    terms = []
    if variant.stored is not None:
        teacher = network.copy_module().eval()
        terms = [SoftLabels(teacher, 2.0, 0.5) if variant.stored else _AskedAgain(teacher, 2.0, 0.5)]
    kept_layout, kept_optimizer = torch.channels_last, torch.optim.AdamW
    kept = [(*variant.without, getattr(*variant.without))] if variant.without is not None else []
    for module, name, _ in kept:
        setattr(module, name, _Nothing)
    torch.channels_last = getattr(torch, variant.layout)
    torch.optim.AdamW = _unfused if not variant.fused else kept_optimizer  # type: ignore[misc, assignment]
    try:
        began = time.process_time()
        trained = training.fit(network, epochs=variant.epochs, losses=terms)
        return (time.process_time() - began) / len(data.train), trained
    finally:
        torch.channels_last, torch.optim.AdamW = kept_layout, kept_optimizer  # type: ignore[misc]
        for module, name, function in kept:
            setattr(module, name, function)


def pinned(space_name: str, networks: int) -> dict[str, Any]:
    """Train in one process per core, scheduled freely or each bound to a core; a row as of `compared`."""
    data = load_dataset(_DATA)
    space = ModelSpace.load(space_name, data.input_shape, len(data.classes))
    rng, variant = (
        np.random.default_rng(0),
        Variant(TrainingSettings(precision=precision_for("auto", "cpu")), _PINNED_EPOCHS),
    )
    cores = sorted(os.sched_getaffinity(0))
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for seed in range(networks):
        network = Network(space.build(space.sample(rng), seed).eval())
        for bound in (False, True) if seed % 2 == 0 else (True, False):
            seconds[bound].append(_at_once(variant, network, data, cores, bound=bound))
    return {
        "us_without": 1e6 * statistics.median(seconds[False]),
        "us_with": 1e6 * statistics.median(seconds[True]),
        "times_faster": statistics.median(a / b for a, b in zip(seconds[False], seconds[True], strict=True)),
    }


def _at_once(variant: Variant, network: Network, data: Dataset, cores: Sequence[int], *, bound: bool) -> float:
    """Wall seconds until the last of the trainings on all cores ends, per image of one of them."""
    context = multiprocessing.get_context("fork")
    start = context.Barrier(len(cores) + 1)

    def train(core: int, seed: int) -> None:
        if bound:
            os.sched_setaffinity(0, {core})
        start.wait()
        trained_by(variant, network, data, seed)

    processes = [context.Process(target=train, args=(core, seed)) for seed, core in enumerate(cores)]
    for process in processes:
        process.start()
    start.wait()
    began = time.perf_counter()
    for process in processes:
        process.join()
    return (time.perf_counter() - began) / len(data.train)


class _Nothing(contextlib.ExitStack):
    """Replaces a function of the training path: a context, or a call, without an effect."""

    def __init__(self, *_: object) -> None:
        super().__init__()

    def __call__(self) -> None:
        pass


class _AskedAgain(SoftLabels):
    def look_through(self, images: Any) -> None:
        pass


def _unfused(parameters: Any, fused: bool) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, fused=False, decoupled_weight_decay=True)


def _line(row: Mapping[str, Any]) -> str:
    return " | ".join(_cells(row))


def _cells(row: Mapping[str, Any]) -> list[str]:
    times = [f"{row['us_without']:.0f}", f"{row['us_with']:.0f}"]
    accuracy = ["", ""]
    if "accuracy_with" in row:
        accuracy = [f"{100 * row['accuracy_without']:.2f}", f"{100 * row['accuracy_with']:.2f}"]
    return [row["trick"], row["space"], *times, f"{row['times_faster']:.2f}", *accuracy]


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    headings = ["trick", "space", "us an image without", "with", "times faster", "val % without", "with"]
    return table(headings, [_cells(row) for row in rows])


if __name__ == "__main__":
    sys.exit(main())
