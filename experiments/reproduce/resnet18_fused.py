"""ResNet-18 on CIFAR-10: pruned gradually, quantized and distilled in one training run, against the tutorial's figures.

    python experiments/reproduce/resnet18_fused.py --cifar10 path/to/folder --json resnet18_fused.json

The network is that of torchvision, its 7x7 stem included, on 32x32 images; no pretrained weights: the base is trained
from scratch. The folder has train/<class>/*.jpg and test/<class>/*.jpg.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # the root of the checkout instead of this folder

from experiments.network_folder import NetworkFolder, StoredNetwork
from experiments.reproduce import _table
from slimsearch.evaluators import TrainingSettings
from slimsearch.evaluators.datasets import load_dataset
from slimsearch.search_spaces import FixedModel

FLOW = "ResNet-18, CIFAR-10, fused"
BASE_EPOCHS, FUSED_EPOCHS = 30, 14
SETTINGS = TrainingSettings(batch_size=128, learning_rate=4e-3, weight_decay=0.05, augmentation="shift-flip")
TARGET = "prune:params=2800000:importance=taylor:schedule=agp:ramp=0.4:learning_rate=0.002"
OTHERS = "+dynamic_layerwise:weight=0.3+distill:weight=0.3+qat:learning_rate=0.002"
# Half of the channels of every layer, as the tutorial; or whatever is worth least for each parameter, wherever it is.
FUSED = {
    "fused": f"{TARGET}{OTHERS}",
    "fused, ranked over the network": f"{TARGET}:scope=network{OTHERS}",
}
TUTORIAL: list[dict[str, Any]] = [
    {"what": "base", "params": 11_181_642, "test_accuracy": 0.8359},
    {"what": "pruned, distilled", "params": 2_800_000, "test_accuracy": 0.8037},
    {"what": "... with int8 simulated", "params": 2_800_000, "test_accuracy": 0.8044},
]


def main() -> None:
    parser = _table.flow_parser(str(__doc__).partition("\n")[0], "resnet18_fused", seeds=1)
    parser.add_argument("--cifar10", type=Path, required=True, help="image folder of CIFAR-10")
    options = parser.parse_args()
    data = load_dataset(options.cifar10)
    space = FixedModel.load("torchvision.models:resnet18", data.input_shape, len(data.classes))
    networks = NetworkFolder(options.out, space, {}, data, SETTINGS, _table.progress)
    made: list[tuple[int, str, StoredNetwork]] = []
    for seed in range(options.seeds):
        base = networks.train(f"base-{seed}", BASE_EPOCHS, seed)
        made.append((seed, "base, fp32 file", base))
        for number, (what, recipe) in enumerate(FUSED.items()):
            name = f"fused-{seed}" if number == 0 else f"fused-{number}-{seed}"
            made.append((seed, f"{what}, int8 file", networks.compress(name, base, recipe, FUSED_EPOCHS, seed)))
    rows: list[dict[str, Any]] = [{"flow": FLOW, "source": "tutorial", **row} for row in TUTORIAL]
    if options.with_nni:
        rows += _table.nni_rows(options.out, 0, lambda: _nni(data, options.out))
    else:
        rows += _table.kept_nni_rows("resnet18_fused")
    files = [network.file for _, _, network in made]
    latencies = dict(zip(files, networks.latencies(files), strict=True))
    batches = dict(zip(files, networks.latencies(files, batch=64), strict=True))
    notes = ["No pretrained weights: the base is trained from scratch. Accuracies are those of the files."]
    for seed, what, network in made:
        row = _table.row(
            FLOW, what, seed, network, networks, latencies[network.file], seconds=network.metrics["training_seconds"]
        )
        rows.append({**row, "latency_batch64_ms": batches[network.file]})
        if what.startswith("base"):
            base_row = rows[-1]
            continue
        times = [base_row[name] / rows[-1][name] for name in ("latency_ms", "latency_batch64_ms", "size_kib")]
        notes.append(
            f"seed {seed}, {what}: {100 * (row['test_accuracy'] - base_row['test_accuracy']):+.2f} points, "
            f"{times[0]:.1f} times faster at batch 1, {times[1]:.1f} times at batch 64, {times[2]:.1f} times smaller "
            "than the base"
        )
    _table.show(rows, options.json, notes)


def _nni(data: Any, folder: Path) -> list[dict[str, Any]]:
    from experiments.reproduce import _nni_compression

    found = _nni_compression.resnet18_fused(data, 0, BASE_EPOCHS, folder=folder)
    shared = {"flow": FLOW, "source": "NNI 3.0, run here", "seed": 0}
    compressed = found["compressed"]
    return [
        {**shared, "what": "base", "params": 11_181_642, "test_accuracy": found["base"]["test_accuracy_last"]},
        {
            **shared,
            "what": "pruned, distilled, int8 simulated",
            "params": compressed["params"],
            "test_accuracy": compressed["test_accuracy_last"],
            "seconds": compressed["cpu_seconds"],
        },
    ]


if __name__ == "__main__":
    _table.run(main)
