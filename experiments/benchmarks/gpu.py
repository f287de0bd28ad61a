"""Trainings a minute on a GPU with several workers, its utilization, accuracy beside the CPU, and a whole search.

    python experiments/benchmarks/gpu.py --dataset path/to/cifar10 --json gpu.json --page docs/training.md

For each number of ``--workers``, random networks are trained and exported for ``--seconds``; utilization is the mean of
nvidia-smi's. One network is trained from the same seed on CPU and GPU, on the GPU twice. Takes below ten minutes on a
GPU with 16 cores beside it. With ``--device cpu`` the same is done without a GPU, to try the script.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # the root of the checkout instead of this folder

import numpy as np
import torch

import slimsearch
from experiments.benchmarks._output import add_output, check_output, console, table, write_output
from slimsearch.cli.command_parser import CommandParser
from slimsearch.cli.exit_code import exit_code
from slimsearch.compression import Network
from slimsearch.evaluators import NetworkTraining, TrainingSettings, device_for, outputs_of, precision_for, processor
from slimsearch.evaluators.datasets import Dataset, load_dataset
from slimsearch.search_spaces import ModelSpace

_SAMPLED = 0.5  # seconds between two looks at the utilization
_QUERY = ["nvidia-smi", "--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader,nounits", "--id=0"]
_MANY = 10_000  # candidates, more than there is time for
_BATCH = 128


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and show; the exit code is 0, 2 for a mistake or without a GPU, or 130 after Ctrl-C."""
    options = _parser().parse_args(arguments)
    return exit_code(lambda: _run(options))


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(__doc__.partition("\n")[0])
    parser.add_argument("--dataset", default="cifar10", help="name or path, as of slimsearch run")
    parser.add_argument("--data-root", type=Path, help="folder of a named data set")
    parser.add_argument("--space", default="resnet_cifar", help="space of the networks")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: to try the script")
    parser.add_argument("--workers", least=1, nargs="+", default=[1, 4, 8], metavar="N", help="worker processes")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each number of workers, for new trainings")
    parser.add_argument("--epochs", least=1, default=2, help="epochs of each training")
    parser.add_argument("--trials", least=1, default=8, help="candidates of the whole search")
    add_output(parser, page=True)
    return parser


def _run(options: argparse.Namespace) -> None:
    check_output(options)
    device_for(options.device)
    data = load_dataset(options.dataset, root=options.data_root)
    found: dict[str, Any] = {
        "device": torch.cuda.get_device_name(0) if options.device == "cuda" else "cpu",
        "processor": processor()[0], "cores": len(os.sched_getaffinity(0)), "torch": torch.__version__,
        "dataset": data.name, "images": len(data.train), "epochs": options.epochs,
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="slimsearch-gpu-") as folder:
        found["workers"] = []
        for workers in options.workers:
            found["workers"].append(throughput(data, options, workers, Path(folder) / f"workers-{workers}"))
            print(found["workers"][-1], flush=True)
        found["trainings"] = same_seed(data, options)
        print(found["trainings"], flush=True)
        found["search"] = whole_search(data, options, Path(folder) / "search")
    shown = shown_table(found)
    write_output(options, found, {"gpu": shown})
    console().print(shown, markup=False)


def throughput(data: Dataset, options: argparse.Namespace, workers: int, folder: Path) -> dict[str, Any]:
    """Trainings a minute, from the start of the first to the end of the last, and utilization and memory of the GPU."""
    with Utilization(options.device) as utilization:
        result = slimsearch.search(
            options.space, data, device=options.device, workers=workers, sampler="random", trials=_MANY,
            timeout=options.seconds, epochs=options.epochs, batch_size=_BATCH, compress="none", top_k=1,
            run_dir=folder, show=False,
        )  # fmt: skip
    done = [trial for trial in result.trials if trial.kind == "search" and trial.state == "complete"]
    failed = [trial.error for trial in result.trials if trial.state == "failed"]
    begin, end = min(trial.started for trial in done), max(trial.ended for trial in done)
    return {
        "workers": workers, "trainings": len(done), "failed": failed, "a_minute": 60 * len(done) / (end - begin),
        "training_seconds": mean(trial.metrics["training_seconds"] for trial in done),
        **utilization.between(begin, end),
    }  # fmt: skip


class Utilization:
    """Looks at the first GPU while a context lasts; on a CPU, at nothing."""

    def __init__(self, device: str) -> None:
        self._device, self._ended = device, threading.Event()
        self._samples: list[tuple[float, float, float]] = []  # moment, %, MiB
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Utilization:
        if self._device == "cuda":
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def between(self, begin: float, end: float) -> dict[str, float]:
        """Mean utilization in percent, and peak of the memory in MiB, between two moments in seconds since 1970."""
        some = [sample for sample in self._samples if begin <= sample[0] <= end]
        return {"gpu_percent": mean(s[1] for s in some), "gpu_mib": max(s[2] for s in some)} if some else {}

    def _look(self) -> None:
        while not self._ended.wait(_SAMPLED):
            said = subprocess.run(_QUERY, capture_output=True, text=True, check=False).stdout.split(",")
            if len(said) == 2:
                self._samples.append((time.time(), float(said[0]), float(said[1])))


def same_seed(data: Dataset, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The same network trained from the same seed on CPU and GPU: accuracy on the validation split, and seconds."""
    space = ModelSpace.load(options.space, data.input_shape, len(data.classes))
    network = Network(space.build(space.sample(np.random.default_rng(0)), 0).eval())
    cores = len(os.sched_getaffinity(0))
    kinds = [("cpu", "fp32"), (options.device, "fp32"), (options.device, precision_for("auto", options.device))]
    rows, weights = [], []
    for device, precision in [*kinds, kinds[-1]]:
        settings = TrainingSettings(
            batch_size=_BATCH, device=device, precision=precision, normalise=True, threads=cores
        )
        began = time.perf_counter()
        trained = NetworkTraining(data, settings, 0).fit(network, epochs=options.epochs)
        seconds = time.perf_counter() - began
        examples = data.task.measured(outputs_of(trained), data, data.validation)
        leading = data.task.leading_value(examples)
        rows.append({"device": device, "precision": precision, "accuracy": leading, "seconds": seconds})
        weights.append(torch.cat([value.detach().flatten().float() for value in trained.module.parameters()]))
    rows[-1]["same_weights_again"] = torch.equal(weights[-1], weights[-2])
    return rows


def whole_search(data: Dataset, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """A search with pruning, distillation and int8: its seconds, and the file of each recipe that is most accurate."""
    began = time.perf_counter()
    result = slimsearch.search(
        options.space, data, device=options.device, workers=max(options.workers), trials=options.trials,
        epochs=options.epochs, batch_size=_BATCH, top_k=2, run_dir=folder, show=False,
    )  # fmt: skip
    seconds = time.perf_counter() - began
    lead = f"val_{data.task.leading()[0]}"
    best: dict[str, Any] = {}
    for model in result.top_models(_MANY):
        recipe = "+".join(model["recipe"]) or "as trained"
        metrics = {name: model["metrics"][name] for name in (lead, "size_kib", "latency_ms")}
        if recipe not in best or metrics[lead] > best[recipe][lead]:
            best[recipe] = metrics
    failed = [trial.error for trial in result.trials if trial.state == "failed"]
    return {"seconds": seconds, "trials": len(result.trials), "failed": failed, "files": best}


def shown_table(found: dict[str, Any]) -> str:
    """A line for each measure."""
    rows = []
    for row in found["workers"]:
        busy = f"; GPU busy {row['gpu_percent']:.0f}%, {row['gpu_mib']:,.0f} MiB" if "gpu_percent" in row else ""
        word = "worker" if row["workers"] == 1 else "workers"
        failed = f"; {len(row['failed'])} failed" if row["failed"] else ""
        rows.append([f"{row['workers']} {word}", f"{row['a_minute']:.1f} trainings a minute{busy}{failed}"])
    for row in found["trainings"]:
        again = ""
        if "same_weights_again" in row:
            again = f"; a second time, {'the same' if row['same_weights_again'] else 'other'} weights"
        rows.append(
            [
                f"one training, {row['device']}, {row['precision']}",
                f"{100 * row['accuracy']:.2f}% in {row['seconds']:.1f} s{again}",
            ]
        )
    search = found["search"]
    rows.append(["a search with compression", f"{search['trials']} trials in {search['seconds']:.0f} s"])
    for recipe, metrics in search["files"].items():
        accuracy, size, latency = metrics.values()
        rows.append([f"its best file, {recipe}", f"{100 * accuracy:.2f}%, {size:.1f} KiB, {latency:.3f} ms on the CPU"])
    return table([found["device"], "result"], rows, numbers=False)


if __name__ == "__main__":
    sys.exit(main())
