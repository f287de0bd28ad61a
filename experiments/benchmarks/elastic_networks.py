"""Which of torchvision's classifiers become a space of smaller networks in one call, and in what time.

Each network is checked by ``slimsearch check --model torchvision:NAME``, with random weights, in a process of its own.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # the root of the checkout instead of this folder

from experiments.benchmarks._output import add_output, check_output, table, write_output
from slimsearch.cli.command_parser import CommandParser
from slimsearch.cli.exit_code import exit_code

_MOST_PARAMS = 60e6
_BLOCKS = "skip."
_NAME = re.compile("'[^']+'")  # of a layer


@dataclass(frozen=True)
class Checked:
    """The space around one network.

    Attributes:
        name: of the network.
        params: number of its parameters.
        groups, blocks: of channels that can be cut, and that can be skipped; 0 if there is no space.
        tried, runs: number of random networks, and of those that run.
        seconds: of the command.
        problem: why there is no space, or which groups, by a layer of each, keep all channels; or "".
    """

    name: str
    params: int
    groups: int
    blocks: int
    tried: int
    runs: int
    seconds: float
    problem: str


def main() -> None:
    parser = CommandParser(__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", help="networks; by default all classifiers below 60 million parameters")
    parser.add_argument("--samples", least=1, default=2, help="random networks of each space")
    parser.add_argument("--seconds", type=float, default=120, help="time limit for each network")
    add_output(parser, page=True)
    options = parser.parse_args()
    check_output(options)
    rows = []
    for name in options.names or _names():
        rows.append(_checked(name, options.samples, options.seconds))
        print(*asdict(rows[-1]).values(), flush=True)
        write_output(options, [asdict(row) for row in rows], {"elastic_networks": _table(rows)})
    found = sum(row.tried > 0 for row in rows)
    print(f"{found} of {len(rows)} networks become a space ({100 * found / len(rows):.0f}%)")


def _names() -> list[str]:
    """torchvision's classifiers below 60 million parameters, as their weights declare them."""
    import torchvision

    names = torchvision.models.list_models(module=torchvision.models)
    params = {name: torchvision.models.get_model_weights(name).DEFAULT.meta["num_params"] for name in names}
    return [name for name in names if params[name] < _MOST_PARAMS]


def _checked(name: str, samples: int, limit: float) -> Checked:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "check.json"
        words = ("check", "--model", f"torchvision:{name}", "--samples", str(samples), "--json", str(path))
        command = [sys.executable, "-m", "slimsearch.cli.main", *words]
        start = time.perf_counter()
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
            error = (done.stderr.strip().splitlines() or [""])[-1]
        except subprocess.TimeoutExpired:
            error = f"more than {limit:g} s"
        seconds = time.perf_counter() - start
        if not path.is_file():
            return Checked(name, 0, 0, 0, 0, 0, seconds, error)
        found = json.loads(path.read_text(encoding="utf-8"))
    parts = [(choice["label"].startswith(_BLOCKS), choice["layers"]) for choice in found["choices"]]
    params = int(found["notes"][0].partition(" ")[0].replace(",", ""))
    return Checked(
        name, params, sum(n for blocks, n in parts if not blocks), sum(n for blocks, n in parts if blocks),
        found["sampled"], found["works"], seconds, "; ".join(found["notes"][1:]),
    )  # fmt: skip


def _table(rows: Sequence[Checked]) -> str:
    headings = ("network", "parameters", "groups", "blocks", "seconds", "groups that stay whole")
    cells = [
        (
            f"`{row.name}`", f"{row.params:,}", str(row.groups), str(row.blocks), f"{row.seconds:.0f}",
            str(len(_NAME.findall(row.problem))) if row.tried else row.problem,
        )
        for row in rows
    ]  # fmt: skip
    return table(headings, cells, numbers=False)


if __name__ == "__main__":
    sys.exit(exit_code(main))
