"""LeNet on MNIST: pruned to the 2,421 parameters of the tutorial or fewer, against its figures.

    python experiments/reproduce/lenet_prune.py --mnist path/to/folder --with-nni --json lenet_prune.json

The folder is one that torchvision.datasets.MNIST reads.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # the root of the checkout instead of this folder

from experiments.network_folder import NetworkFolder, StoredNetwork
from experiments.reproduce import _table
from slimsearch.evaluators.datasets import Dataset
from slimsearch.search_spaces import ModelSpace

FLOW = "LeNet, MNIST, pruned by 80%"
BASE_EPOCHS, EPOCHS, NNI_BASE_EPOCHS = 10, 10, 3
RECIPE = "prune:params=2421:scope=network:importance=taylor:round_to=1"
TUNING = {"batch_size": 256, "learning_rate": 2e-2, "augmentation": "none"}
TUTORIAL: list[dict[str, Any]] = [
    {"what": "pruned", "params": 2_421, "test_accuracy": 0.305},
    {"what": "after 5 epochs (best of them on test)", "params": 2_421, "test_accuracy": 0.9725},
]


def main() -> None:
    options = _table.mnist_parser(str(__doc__), "lenet_prune").parse_args()
    data = _table.mnist(options.mnist)
    networks = lenet_folder(options.out, data)
    rows: list[dict[str, Any]] = [{"flow": FLOW, "source": "tutorial", **row} for row in TUTORIAL]
    files: list[Path] = []
    made: list[tuple[int, str, StoredNetwork]] = []
    nni: list[dict[str, Any]] = []
    notes = [
        "Seconds: of training for NNI, without scoring; of everything from the base to the scored file for slimsearch.",
        "NNI trains on all 60,000 images, slimsearch on 54,000: the others are its validation split.",
    ]
    for seed in range(options.seeds):
        base = networks.train(f"base-{seed}", BASE_EPOCHS, seed)
        # NNI's five epochs and ours directly after each other, so that a busy machine slows both.
        if options.with_nni:
            nni += _table.nni_rows(options.out, seed, lambda seed=seed: _nni(data, options.out, seed))
        pruned = networks.compress(f"pruned-{seed}", base, RECIPE, EPOCHS, seed, **TUNING)
        made += [(seed, "base", base), (seed, "pruned", pruned)]
    files = [network.file for _, _, network in made] + [Path(row["artifact"]) for row in nni if "artifact" in row]
    latencies = dict(zip(files, networks.latencies(files), strict=True))
    for row in nni:
        if "artifact" in row:
            row["latency_ms"] = latencies[Path(row.pop("artifact"))]
    rows += nni if options.with_nni else _table.kept_nni_rows("lenet_prune")
    rows += [
        _table.row(FLOW, what, seed, network, networks, latencies[network.file], seconds=network.metrics["cpu_seconds"])
        for seed, what, network in made
    ]
    notes += _table.means(rows)
    _table.show(rows, options.json, notes)


def lenet_folder(out: Path, data: Dataset) -> NetworkFolder:
    """LeNet of 44,426 parameters on `data`."""
    from slimsearch.search_spaces.lenet import LeNet

    space = ModelSpace.load("lenet", data.input_shape, len(data.classes))
    return NetworkFolder(out, space, LeNet.DEFAULT, data, on_epoch=_table.progress)


def _nni(data: Dataset, folder: Path, seed: int) -> list[dict[str, Any]]:
    from experiments.reproduce import _nni_compression

    found = _nni_compression.lenet_prune(data, seed, NNI_BASE_EPOCHS, folder=folder)
    tuned = found["finetuned"]
    shared = {"flow": FLOW, "source": "NNI 3.0, run here", "seed": seed}
    return [
        {**shared, "what": "base", "params": 44_426, "test_accuracy": found["base"]["test_accuracy_last"]},
        {**shared, "what": "pruned", **found["pruned"]},
        {
            **shared,
            "what": "after 5 epochs",
            "params": found["pruned"]["params"],
            "test_accuracy": tuned["test_accuracy_last"],
            "test_accuracy_best_on_test": tuned["test_accuracy_best_on_test"],
            "seconds": tuned["cpu_seconds"],
            "size_kib": found["size_kib"],
            "artifact": found["artifact"],
        },
    ]


if __name__ == "__main__":
    _table.run(main)
