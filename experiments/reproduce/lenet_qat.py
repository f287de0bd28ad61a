"""LeNet on MNIST: quantization-aware training to a real int8 file, against the tutorial's simulated figure.

    python experiments/reproduce/lenet_qat.py --mnist path/to/folder --with-nni --json lenet_qat.json

The folder is one that torchvision.datasets.MNIST reads.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # the root of the checkout instead of this folder

from experiments.network_folder import StoredNetwork
from experiments.reproduce import _table
from experiments.reproduce.lenet_prune import lenet_folder
from slimsearch.evaluators.datasets import Dataset

FLOW = "LeNet, MNIST, QAT int8"
BASE_EPOCHS, EPOCHS, NNI_EPOCHS = 10, 3, 3
RECIPES = {
    "after training": "quantize",
    "QAT": "qat",
    "LSQ": "lsq",
    "LSQ+": "lsq_plus",
    "DoReFa": "dorefa",
    "weights alone": "weight_only",
}
TUTORIAL: list[dict[str, Any]] = [{"what": "QAT, int8 simulated", "params": 44_426, "test_accuracy": 0.9851}]


def main() -> None:
    options = _table.mnist_parser(str(__doc__), "lenet_qat").parse_args()
    data = _table.mnist(options.mnist)
    networks = lenet_folder(options.out, data)
    rows: list[dict[str, Any]] = [{"flow": FLOW, "source": "tutorial", **row} for row in TUTORIAL]
    if not options.with_nni:
        rows += _table.kept_nni_rows("lenet_qat")
    made: list[tuple[int, str, StoredNetwork]] = []
    for seed in range(options.seeds):
        base = networks.train(f"base-{seed}", BASE_EPOCHS, seed)
        made.append((seed, "fp32", base))
        for what, recipe in RECIPES.items():
            made.append((seed, f"int8, {what}", networks.compress(f"{recipe}-{seed}", base, recipe, EPOCHS, seed)))
        if options.with_nni:
            rows += _table.nni_rows(options.out, seed, lambda seed=seed: _nni(data, seed))
    latencies = networks.latencies([network.file for _, _, network in made])
    for (seed, what, network), latency in zip(made, latencies, strict=True):
        rows.append(
            _table.row(FLOW, what, seed, network, networks, latency, seconds=network.metrics["training_seconds"])
        )
    fastest = min(rows[-len(made) :], key=lambda row: row["latency_ms"])
    notes = [
        *_table.means(rows),
        f"The fastest file is '{fastest['what']}': for a network this small the operators that convert between float32 "
        "and int8 cost more than they save, so fp32 arithmetic is what to keep, with small weights if size counts."
        if "weights alone" in fastest["what"] or fastest["what"] == "fp32"
        else f"The fastest file is '{fastest['what']}'.",
    ]
    _table.show(rows, options.json, notes)


def _nni(data: Dataset, seed: int) -> list[dict[str, Any]]:
    from experiments.reproduce import _nni_compression

    found = _nni_compression.lenet_qat(data, seed, NNI_EPOCHS, NNI_EPOCHS)
    shared = {"flow": FLOW, "source": "NNI 3.0, run here", "seed": seed, "params": 44_426}
    return [
        {**shared, "what": "base", "test_accuracy": found["base"]["test_accuracy_last"]},
        {
            **shared,
            "what": "QAT, int8 simulated",
            "test_accuracy": found["quantized"]["test_accuracy_last"],
            "seconds": found["quantized"]["cpu_seconds"],
        },
    ]


if __name__ == "__main__":
    _table.run(main)
