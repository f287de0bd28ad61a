"""What each trick of the training path gains and costs: the same training with it and without it, in turns.

    python experiments/benchmarks/training_path.py --json training_path.json --page docs/training.md

One process with one thread; seconds are of its processor time. Only where each worker is given a core of its own do as
many processes train at once as there are cores, and seconds are those of a clock on the wall. Networks of the shipped
spaces are drawn at random, the same for both ways; accuracies are on the validation split, means over networks.
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
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # in place of this folder

import numpy as np
import torch

from experiments.benchmarks._page import filled, table
from slimsearch.cli.command_parser import CommandParser
from slimsearch.cli.exit_code import exit_code
from slimsearch.compression import Network
from slimsearch.compression.distill import SoftLabels
from slimsearch.evaluators import ImageTraining, Meter, TrainingSettings, precision_for, processor, use_one_thread
from slimsearch.evaluators.datasets import Dataset, load_dataset
from slimsearch.evaluators.training import image_training as training_path
from slimsearch.files import write_json, write_text
from slimsearch.search_spaces import ModelSpace

_PINNED_EPOCHS = 3
_PINNED = "a core of its own for each worker"
OF_SPACES = {"mnist_cnn": "mnist5k", "lenet": "mnist5k", "tiny_cnn": "mnist5k"}


@dataclass(frozen=True)
class Way:
    """One way of training.

    Attributes:
        settings: of the training.
        epochs: of it.
        layout: of weights and images, by the name of a `torch.memory_format`.
        fused: whether the optimizer's step is one kernel.
        stored: whether a teacher's answers are asked for once; None: there is no teacher.
        without: what of `slimsearch.evaluators.training.image_training` is left out.
    """

    settings: TrainingSettings
    epochs: int = 1
    layout: str = "channels_last"
    fused: bool = True
    stored: bool | None = None
    without: str | None = None


@dataclass(frozen=True)
class Trick:
    """Two ways that differ in one thing.

    Attributes:
        name: what it is.
        without, by: both ways.
        spaces: in which it is tried.
        accuracy: whether it can change what is learned.
    """

    name: str
    without: Way
    by: Way
    spaces: Sequence[str] = tuple(OF_SPACES)
    accuracy: bool = True


def tricks(epochs: int) -> list[Trick]:
    """All that the training path has or was thought to want."""
    precision = precision_for("auto", "cpu")
    base = TrainingSettings(precision=precision)
    plain, full = Way(base), Way(replace(base, precision="fp32"), epochs=epochs)
    short, long = Way(base, epochs=2), Way(base, epochs=epochs)
    large = replace(base, batch_size=256, learning_rate=0.01)
    folded = replace(base, normalise=True)
    return [
        Trick("channels last in memory", replace(plain, layout="contiguous_format"), plain, accuracy=False),
        Trick("bfloat16", full, Way(replace(base, precision="bf16"), epochs=epochs)),
        Trick("bfloat16 where a network multiplies much for what it moves", full, long),
        Trick(
            "freed memory kept, batches of 256", Way(large, without="freed_memory_kept"), Way(large), accuracy=False,
        ),
        Trick("dropout's masks by NumPy", replace(long, without="quicken"), long, ("mnist_cnn",)),
        Trick(
            "gradients in channels last", replace(plain, without="keep_channels_last"), plain, accuracy=False,
        ),
        Trick("optimizer's step in one kernel", replace(plain, fused=False), plain, accuracy=False),
        Trick("batches of 256 in place of 64", long, Way(large, epochs=epochs)),
        Trick("folded normalisation, 2 epochs", short, Way(folded, epochs=2), ("mnist_cnn", "lenet")),
        Trick(
            f"folded normalisation, {epochs} epochs", long, Way(folded, epochs=epochs),
            ("mnist_cnn", "lenet"),
        ),
        Trick(
            f"folded normalisation and {epochs // 2} epochs, for {epochs}", long, Way(folded, epochs=epochs // 2),
            ("mnist_cnn", "lenet"),
        ),
        Trick(
            "a teacher's answers stored (no augmentation)",
            Way(replace(base, augmentation="none"), epochs=4, stored=False),
            Way(replace(base, augmentation="none"), epochs=4, stored=True), accuracy=False,
        ),
    ]  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and show; the exit code is 0, 2 for a mistake, or 130 after Ctrl-C."""
    options = _parser().parse_args(arguments)
    return exit_code(lambda: _run(options))


def _parser() -> argparse.ArgumentParser:
    made = CommandParser(__doc__.partition("\n")[0])
    made.add_argument("--networks", type=int, default=3, help="drawn from each space")
    made.add_argument("--epochs", type=int, default=10, help="of a whole training")
    made.add_argument("--only", help="tricks whose names have this in them")
    made.add_argument("--json", type=Path, help="where the figures are written")
    made.add_argument("--page", type=Path, help="a page of Markdown whose tables are renewed")
    return made


def _run(options: argparse.Namespace) -> None:
    use_one_thread()
    rows = []
    for trick in tricks(options.epochs):
        if options.only is not None and options.only not in trick.name:
            continue
        for space in trick.spaces:
            rows.append({"trick": trick.name, "space": space, **compared(trick, space, options.networks)})
            print(_line(rows[-1]), flush=True)
    for space in OF_SPACES if options.only is None or options.only in _PINNED else ():
        rows.append({"trick": _PINNED, "space": space, **pinned(space, options.networks)})
        print(_line(rows[-1]), flush=True)
    name, flags = processor()
    found = {"processor": name, "processor_flags": flags, "networks": options.networks, "rows": rows}
    if options.json is not None:
        write_json(options.json, found)
    if options.page is not None:
        page = options.page.read_text(encoding="utf-8")
        write_text(options.page, filled(page, {"tricks": _table(rows)}))


def compared(trick: Trick, space_name: str, networks: int) -> dict[str, Any]:
    """Both ways with the same networks, one after the other.

    Returns:
        JSON: microseconds for each image of the data set, of the whole training, and accuracies; medians and means
            over networks.
    """
    data = load_dataset(OF_SPACES[space_name])
    space = ModelSpace.load(space_name, data.input_shape, len(data.classes))
    rng = np.random.default_rng(0)
    seconds: dict[bool, list[float]] = {False: [], True: []}
    accuracies: dict[bool, list[float]] = {False: [], True: []}
    for seed in range(networks):
        point = space.sample(rng)
        network = Network(space.build(point, seed).eval())
        for on in (False, True) if seed % 2 == 0 else (True, False):
            way = trick.by if on else trick.without
            taken, trained = trained_by(way, network, data, seed)
            seconds[on].append(taken)
            if trick.accuracy:
                scores = training_path.validate(trained.module, data, way.settings, Meter())
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


def trained_by(way: Way, network: Network, data: Dataset, seed: int) -> tuple[float, Network]:
    """Processor seconds of the whole training for each image of the data, and what was trained."""
    training = ImageTraining(data, way.settings, seed)
    terms = []
    if way.stored is not None:
        teacher = network.copy_module().eval()
        terms = [SoftLabels(teacher, 2.0, 0.5) if way.stored else _AskedAgain(teacher, 2.0, 0.5)]
    kept_layout, kept_optimizer = torch.channels_last, torch.optim.AdamW
    kept = {way.without: getattr(training_path, way.without)} if way.without is not None else {}
    for name in kept:
        setattr(training_path, name, _Nothing)
    torch.channels_last = getattr(torch, way.layout)
    torch.optim.AdamW = _unfused if not way.fused else kept_optimizer  # type: ignore[misc, assignment]
    try:
        began = time.process_time()
        trained = training.fit(network, epochs=way.epochs, losses=terms)
        return (time.process_time() - began) / len(data.train), trained
    finally:
        torch.channels_last, torch.optim.AdamW = kept_layout, kept_optimizer  # type: ignore[misc]
        for name, function in kept.items():
            setattr(training_path, name, function)


def pinned(space_name: str, networks: int) -> dict[str, Any]:
    """A process for each core trains, left to the scheduler and each bound to a core; a row as of `compared`."""
    data = load_dataset(OF_SPACES[space_name])
    space = ModelSpace.load(space_name, data.input_shape, len(data.classes))
    rng, way = np.random.default_rng(0), Way(TrainingSettings(precision=precision_for("auto", "cpu")), _PINNED_EPOCHS)
    cores = sorted(os.sched_getaffinity(0))
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for seed in range(networks):
        network = Network(space.build(space.sample(rng), seed).eval())
        for bound in (False, True) if seed % 2 == 0 else (True, False):
            seconds[bound].append(_at_once(way, network, data, cores, bound=bound))
    return {
        "us_without": 1e6 * statistics.median(seconds[False]),
        "us_with": 1e6 * statistics.median(seconds[True]),
        "times_faster": statistics.median(a / b for a, b in zip(seconds[False], seconds[True], strict=True)),
    }


def _at_once(way: Way, network: Network, data: Dataset, cores: Sequence[int], *, bound: bool) -> float:
    """Seconds on the wall until the last of as many trainings as there are cores is done, for each image of one."""
    context = multiprocessing.get_context("fork")
    start = context.Barrier(len(cores) + 1)

    def train(core: int, seed: int) -> None:
        if bound:
            os.sched_setaffinity(0, {core})
        start.wait()
        trained_by(way, network, data, seed)

    processes = [context.Process(target=train, args=(core, seed)) for seed, core in enumerate(cores)]
    for process in processes:
        process.start()
    start.wait()
    began = time.perf_counter()
    for process in processes:
        process.join()
    return (time.perf_counter() - began) / len(data.train)


class _Nothing(contextlib.ExitStack):
    """In place of a function of the training path: a context in which nothing is changed, and nothing to take back."""

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
