"""Files with weights of fewer bits than int8: size, accuracy, latency and time to load.

    python experiments/benchmarks/precision.py --cifar10 path/to/folder --json precision.json --page docs/benchmarks.md

Networks: the best of some `tiny_cnn` on mnist5k, and with --cifar10 a ResNet-18 that is trained from scratch, pruned
and trained again. Accuracies are those of the files, loaded again. The smallest file within 0.2 points of int8 on the
validation split is chosen, and the test split is read once, for this file and int8.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # the root of the checkout instead of this folder

import numpy as np

from experiments.benchmarks._output import add_output, check_output, table, write_output
from experiments.network_folder import NetworkFolder, StoredNetwork
from experiments.reproduce.resnet18_fused import SETTINGS
from slimsearch.cli.command_parser import CommandParser
from slimsearch.cli.exit_code import exit_code
from slimsearch.compression import Network, Quantization, Recipe, onnxruntime_session
from slimsearch.compression.quantization.rounding import nearest
from slimsearch.evaluators import DeployedModel, NetworkPipeline, TrainingSettings
from slimsearch.evaluators.datasets import Dataset, Split, load_dataset
from slimsearch.search_spaces import FixedModel, ModelSpace

ALLOWED = 0.2  # points of validation accuracy against int8
FAMILIES = ("quantize", "weight_only")
MEAN_BITS = (6, 5, 4.5, 4, 3.5, 3)
UNIFORM = (4, 3)
TRAINED = ("lsq", "lsq:mean_bits=4", "lsq:mean_bits=3")
SMALLER = "prune:params=1100000:importance=taylor:learning_rate=0.004"
_LOADS = 7

Row = dict[str, Any]


def main(words: Sequence[str] | None = None) -> int:
    """Make all files and write the table."""
    parser = CommandParser(__doc__.partition("\n")[0])
    parser.add_argument("--cifar10", type=Path, metavar="FOLDER", help="image folder of CIFAR-10, for ResNet-18")
    parser.add_argument("--seeds", least=0, default=3, help="of tiny_cnn")
    parser.add_argument("--resnet-seeds", least=0, default=1, help="of ResNet-18")
    parser.add_argument("--networks", least=1, default=3, help="tiny_cnn networks of which the best one is taken")
    parser.add_argument("--epochs", least=1, default=10, help="of tiny_cnn")
    parser.add_argument("--resnet-epochs", least=1, default=1, help="of ResNet-18")
    parser.add_argument("--smaller-epochs", least=1, default=3, help="of ResNet-18 after pruning")
    parser.add_argument("--trained-epochs", least=0, default=2, help="of training with integers; 0: none")
    parser.add_argument("--out", type=Path, help="folder of the networks (default: a temporary one)")
    add_output(parser, page=True)
    options = parser.parse_args(words)
    return exit_code(lambda: _measure(options))


def _measure(options: argparse.Namespace) -> None:
    check_output(options)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as temporary:
        out = options.out or Path(temporary)
        if options.cifar10 is not None:
            for seed in range(options.resnet_seeds):
                rows += _files("ResNet-18", seed, *_resnet(out / "resnet", options, seed), options)
                write_output(options, rows)
        for seed in range(options.seeds):
            rows += _files("tiny_cnn", seed, *_tiny(out / "tiny", options, seed), options)
            write_output(options, rows)
    write_output(options, rows, {"precision": _table(rows)})


def _resnet(out: Path, options: argparse.Namespace, seed: int) -> tuple[Network, NetworkFolder]:
    data = load_dataset(options.cifar10)
    space = FixedModel.load("torchvision.models:resnet18", data.input_shape, len(data.classes))
    networks = NetworkFolder(out, space, {}, data, SETTINGS)
    base = networks.train(f"base-{seed}", options.resnet_epochs, seed)
    return _loaded(networks, networks.compress(f"pruned-{seed}", base, SMALLER, options.smaller_epochs, seed)), networks


def _tiny(out: Path, options: argparse.Namespace, seed: int) -> tuple[Network, NetworkFolder]:
    data = load_dataset("mnist5k")
    space = ModelSpace.load("tiny_cnn", data.input_shape, len(data.classes))
    rng = np.random.default_rng(seed)
    found = []
    for number in range(options.networks):
        architecture = space.candidate(space.sample(rng)).architecture
        networks = NetworkFolder(out, space, architecture, data, TrainingSettings())
        trained = networks.train(f"{seed}-{number}", options.epochs, seed)
        found.append((trained.metrics["val_accuracy"], -number, networks, trained))
    *_, networks, best = max(found)
    return _loaded(networks, best), networks


def _loaded(networks: NetworkFolder, stored: StoredNetwork) -> Network:
    fresh = networks.space.build(networks.architecture, stored.artifact.seed)
    return Network.load(fresh, stored.artifact.directory)


def _files(
    subject: str, seed: int, network: Network, networks: NetworkFolder, options: argparse.Namespace
) -> list[Row]:
    """The rows of all files of a network."""
    data, settings = networks.data, networks.settings
    pipeline = NetworkPipeline(data.without_test(), settings, seed, max(1, options.trained_epochs))
    texts = ["none"]
    texts += [text for family in FAMILIES for text in (family, *(f"{family}:mean_bits={bits:g}" for bits in MEAN_BITS))]
    texts += [f"{text}:epochs={options.trained_epochs}" for text in TRAINED if options.trained_epochs]
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        files: list[Path] = []

        def add(what: str, made: Network) -> None:
            files.append(pipeline.export(made, Path(folder) / f"{len(files)}.onnx"))
            rows.append({"network": subject, "seed": seed, "file": what, **_scores(files[-1], data, data.validation)})
            print(*rows[-1].values(), flush=True)

        for text in texts:
            add(text, pipeline.compress(network, Recipe.parse(text), teachers={"parent": network}, initial=None))
        for bits in UNIFORM:
            for what, made in _uniform(network, bits).items():
                add(what, made)
        int8 = next(row["size_kib"] for row in rows if row["file"] == FAMILIES[0])
        for row, ms in zip(rows, networks.latencies(files), strict=True):
            row |= {"latency_ms": ms, "int8_kib": int8}
        for family in FAMILIES:
            for row, file in zip(rows, files, strict=True):
                if row["file"] in (family, _chosen(rows, family)):
                    row["test_accuracy"] = _accuracy(file, data, data.test)
                    row["chosen"] = row["file"] != family
    return rows


def _uniform(network: Network, bits: int) -> Mapping[str, Network]:
    """The same number of bits for every layer, rounded by GPTQ, and to the nearest."""
    import torch

    layers = [
        name for name, layer in network.module.named_modules() if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear)
    ]
    plan = Quantization(bits=dict.fromkeys(layers, bits))
    simple = network.copy_module()
    with torch.no_grad():
        for name in layers:
            weight = simple.get_submodule(name).get_parameter("weight")
            weight.copy_(nearest(weight, bits))
    return {
        f"every layer {bits} bits": replace(network, quantization=plan),
        f"every layer {bits} bits, to the nearest": replace(network, module=simple, quantization=plan),
    }


def _scores(file: Path, data: Dataset, split: Split) -> Row:
    content = file.read_bytes()
    loads = []
    for _ in range(_LOADS):
        start = time.perf_counter()
        onnxruntime_session(content, 1)
        loads.append(1e3 * (time.perf_counter() - start))
    return {
        "size_kib": len(content) / 1024,
        "val_accuracy": _accuracy(file, data, split),
        "load_ms": float(np.median(loads)),
    }


def _accuracy(file: Path, data: Dataset, split: Split | None) -> float:
    assert split is not None
    return float(np.mean(DeployedModel(file).predict(data, split) == split.targets))


def _chosen(rows: Sequence[Row], family: str) -> str:
    """The smallest file that is within the allowed loss on the validation split."""
    reference = next(row for row in rows if row["file"] == family)
    trained = family == "quantize"  # the trained files have int8 arithmetic, too
    fitting = [
        row for row in rows
        if row["file"].startswith((family, "lsq") if trained else family)
        and row["val_accuracy"] >= reference["val_accuracy"] - ALLOWED / 100 - 1e-9
    ]  # fmt: skip
    return str(min(fitting, key=lambda row: float(row["size_kib"]))["file"])


def _table(rows: Sequence[Row]) -> str:
    headings = ("network, file", "KiB", "of int8", "validation %", "test %", "ms", "ms to load")
    cells = []
    for subject in dict.fromkeys(row["network"] for row in rows):
        own = [row for row in rows if row["network"] == subject]
        for what in dict.fromkeys(row["file"] for row in own):
            some = [row for row in own if row["file"] == what]
            shares = [100 * row["size_kib"] / row["int8_kib"] for row in some]
            tests = [100 * row["test_accuracy"] for row in some if "test_accuracy" in row]
            count = sum(row.get("chosen", False) for row in some)
            times = f" (chosen, {count} of {len(some)})" if count and len(some) > 1 else " (chosen)" if count else ""
            cells.append([
                f"{subject}: {what}{times}",
                _values([row["size_kib"] for row in some], ".1f"),
                _values(shares, ".0f") + "%",
                _values([100 * row["val_accuracy"] for row in some], ".2f"),
                _values(tests, ".2f"),
                _values([row["latency_ms"] for row in some], ".3f"),
                _values([row["load_ms"] for row in some], ".0f"),
            ])  # fmt: skip
    return table(headings, cells)


def _values(numbers: Sequence[float], form: str) -> str:
    return " / ".join(format(number, form) for number in numbers)


if __name__ == "__main__":
    sys.exit(main())
