"""The tutorial's architecture search, "Hello, NAS!", on its own space: NNI's random search against this one.

    python experiments/reproduce/hello_nas.py --mnist path/to/folder --with-nni --json hello_nas.json

The folder is one that torchvision.datasets.MNIST reads.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # the root of the checkout instead of this folder

from experiments.reproduce import _table
from slimsearch.evaluators.datasets import Dataset
from slimsearch.files import write_json
from slimsearch.loop import job
from slimsearch.options.configuration import Configuration

FLOW = "Hello, NAS!, MNIST"
TRIALS, EPOCHS = 4, 3


def main() -> None:
    options = _table.mnist_parser(str(__doc__), "hello_nas").parse_args()
    data = _table.mnist(options.mnist)
    rows: list[dict[str, Any]] = [] if options.with_nni else _table.kept_nni_rows("hello_nas")
    for seed in range(options.seeds):
        if options.with_nni:
            rows += _table.nni_rows(options.out, seed, lambda seed=seed: _nni(data, seed))
        rows += _ours(options.mnist, options.out / f"seed-{seed}", seed)
    notes = [
        f"{TRIALS} candidates of {EPOCHS} epochs each. NNI's best is chosen by test accuracy, as in the tutorial; "
        "that of slimsearch by validation accuracy, and its file is then scored on the test split.",
        "Seconds: of all candidates in one process with one thread, scoring included; for slimsearch its start too.",
        *_table.means(rows),
    ]
    _table.show(rows, options.json, notes)


def _ours(mnist: Path, folder: Path, seed: int) -> list[dict[str, Any]]:
    started = time.perf_counter()
    kept = folder.with_suffix(".json")
    if not kept.is_file():
        if (folder / "config.yaml").is_file():
            result = job.resume(folder)
        else:
            configuration = Configuration(
                space="mnist_cnn", dataset="mnist", data_root=str(mnist), trials=TRIALS, epochs=EPOCHS, seed=seed,
                workers=1, compress="none", normalise="none", run_dir=str(folder),
            )  # fmt: skip
            result = job.start(configuration)
        models = result.top_models(TRIALS + 1)
        best = max(models, key=lambda model: model["metrics"]["val_accuracy"])
        write_json(kept, {"seconds": time.perf_counter() - started, "best": best["metrics"]})
    found = json.loads(kept.read_text(encoding="utf-8"))
    best = found["best"]
    return [
        {
            "flow": FLOW,
            "source": "slimsearch",
            "what": "best candidate",
            "seed": seed,
            "params": best["params"],
            "test_accuracy": best["test_accuracy"],
            "val_accuracy": best["val_accuracy"],
            "latency_ms": best["latency_ms"],
            "size_kib": best["size_kib"],
            "seconds": found["seconds"],
        }
    ]


def _nni(data: Dataset, seed: int) -> list[dict[str, Any]]:
    from experiments.reproduce import _nni_search

    found = _nni_search.hello_nas(data, seed, TRIALS, EPOCHS)
    best = found["candidates"][found["best"]]
    return [
        {
            "flow": FLOW,
            "source": "NNI 3.0, run here",
            "what": "best candidate",
            "seed": seed,
            "params": best["params"],
            "test_accuracy": best["test_accuracy_last"],
            "seconds": found["seconds"],
        }
    ]


if __name__ == "__main__":
    _table.run(main)
