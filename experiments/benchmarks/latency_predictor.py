"""How well latency is foretold from the operators of a file: networks that the predictor has not seen.

    python experiments/benchmarks/latency_predictor.py --json latency_predictor.json --page docs/latency.md

Run it while nothing else computes. Networks are untrained. What was measured is kept in --out, so that an interrupted
run goes on. The page gets the table in its marked place.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # in place of this folder
    for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(_name, "1")

from experiments.benchmarks import _predicted_latency
from experiments.benchmarks._page import filled, table
from slimsearch.cli.command_parser import CommandParser
from slimsearch.cli.exit_code import exit_code
from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import processor
from slimsearch.files import write_json, write_text

SPACES = {"lenet": (1, 28, 28), "resnet_cifar": (3, 32, 32)}
FEW_FILES = {"mnist_cnn": (1, 28, 28)}
FORMS = ("fp32", "int8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and show; the exit code is 0, 2 for a mistake, or 130 after Ctrl-C."""
    options = _parser().parse_args(arguments)
    return exit_code(lambda: _run(options))


def _parser() -> argparse.ArgumentParser:
    made = CommandParser(__doc__.partition("\n")[0])
    made.add_argument("--spaces", nargs="+", default=[*SPACES, *FEW_FILES], choices=[*SPACES, *FEW_FILES])
    made.add_argument("--forms", nargs="+", default=list(FORMS), choices=FORMS)
    made.add_argument("--calibrate", type=int, default=10, metavar="N", help="measured latencies that it is told")
    made.add_argument("--networks", type=int, default=30, metavar="N", help="others that it is tried on")
    made.add_argument("--blocks", type=int, default=40, metavar="N", help="of each measurement")
    made.add_argument("--out", type=Path, default=Path("runs") / "latency_predictor", help="where all is kept")
    made.add_argument("--json", type=Path, metavar="PATH", help="where what was found is written")
    made.add_argument("--page", type=Path, metavar="PATH", help="a page in Markdown whose table is written anew")
    return made


def _run(options: argparse.Namespace) -> None:
    for name, least in (("calibrate", 1), ("networks", 3), ("blocks", 1)):
        if getattr(options, name) < least:
            raise SlimsearchError(f"--{name} {getattr(options, name)} is less than {least}")
    if options.page is not None and not options.page.is_file():
        raise SlimsearchError(f"--page '{options.page}': there is no such file")
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
    settings = {name: getattr(options, name) for name in ("calibrate", "networks", "blocks")}
    rows = [row for name in options.spaces for form in options.forms for row in _kept(name, form, options, settings)]
    found = {"processor": processor()[0], "cores": os.cpu_count(), **settings, "rows": rows}
    made = tables(found)
    print("\n".join(made.values()))
    if options.json is not None:
        write_json(options.json, found)
    if options.page is not None:
        write_text(options.page, filled(options.page.read_text(encoding="utf-8"), made))


def _kept(name: str, form: str, options: argparse.Namespace, settings: dict[str, int]) -> list[dict[str, Any]]:
    """Rows of a space in a form: those of an earlier run, or made now.

    Raises:
        SlimsearchError: what is there is of a run with other options.
    """
    folder = options.out / f"{name}-{form}"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "rows.json"
    if path.is_file():
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["settings"] != settings:
            raise SlimsearchError(f"'{path}' is of a run with other options: remove it, or name another --out")
        return found["rows"]  # type: ignore[no-any-return]
    if name in FEW_FILES:
        rows = _predicted_latency.each_from_the_others(name, FEW_FILES[name], form, folder, options.blocks)
    else:
        told = (0, options.calibrate)
        rows = _predicted_latency.rows(name, SPACES[name], form, folder, told, options.networks, options.blocks)
    write_json(path, {"settings": settings, "rows": rows})
    return rows


def tables(found: Mapping[str, Any]) -> dict[str, str]:
    """What stands in the page, by the name of its place."""
    headings = (
        "", "measured before", "networks", "latency, ms", "rank correlation", "median error, %", "90th percentile, %",
        "operators measured", "guessed", "s for the predictor", "s to measure instead",
    )  # fmt: skip
    rows = [
        (
            f"`{row['space']}`, {row['form']}", str(row["calibrated"]), str(row["networks"]),
            f"{row['least_ms']:.3f} to {row['most_ms']:.3f}", f"{row['spearman']:.3f}",
            f"{100 * row['median_error']:.1f}", f"{100 * row['error_90']:.1f}", str(row["operators"]),
            str(row["guessed"]), f"{row['predictor_seconds']:.1f}", f"{row['measured_seconds']:.1f}",
        )
        for row in found["rows"]
    ]  # fmt: skip
    machine = f"{found['cores']} cores of {found['processor']}, one thread, one image a call.\n"
    return {"predictor_machine": machine, "predictor": table(headings, rows)}


if __name__ == "__main__":
    sys.exit(main())
