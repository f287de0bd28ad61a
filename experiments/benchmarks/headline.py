"""Rows of the headline table of docs/benchmarks.md, each with its baseline in the same run.

    python experiments/benchmarks/headline.py first-seconds --json headline.json
    python experiments/benchmarks/headline.py hello-nas --mnist data --json headline.json

An interrupted row continues: its runs are stored in --out. The file of --json keeps the rows of earlier calls. --quick
tries a row in two minutes.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # the root of the checkout instead of this folder

from experiments.benchmarks._co_search import co_search
from experiments.benchmarks._durations import first_seconds, hello_nas, main_command
from experiments.benchmarks._mnist_speed import mnist_speed
from experiments.benchmarks._output import add_output, check_output, table, write_output
from experiments.benchmarks._quick_data import quick_cifar10, quick_mnist
from experiments.benchmarks._references import EPOCHS, reference, trained_reference
from experiments.benchmarks._resnet18 import searched_recipe
from experiments.benchmarks._small_networks import small_cifar10, tiny_mnist
from slimsearch.cli.command_parser import CommandParser
from slimsearch.cli.exit_code import exit_code
from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import processor

ROWS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "first-seconds": lambda options: first_seconds(options.repeats),
    "main-command": lambda options: main_command(
        options.out / "main-command", options.seeds or 5, options.trials if options.quick else None
    ),
    "hello-nas": lambda options: hello_nas(_mnist(options), options.out / "hello-nas", options.seeds or 3),
    "mnist-speed": lambda options: mnist_speed(_mnist(options), options.out / "mnist-speed", options.seeds or 3),
    "mnist-2421": lambda options: tiny_mnist(_mnist(options), options.out / "mnist", 2421, *_effort(options)),
    "mnist-1000": lambda options: tiny_mnist(_mnist(options), options.out / "mnist", 1000, *_effort(options)),
    "mnist-697": lambda options: tiny_mnist(_mnist(options), options.out / "mnist", 697, *_effort(options)),
    "resnet8": lambda options: _reference("resnet8", options),
    "resnet20": lambda options: _reference("resnet20", options),
    "cifar10": lambda options: small_cifar10(
        _cifar10(options),
        options.out / "cifar10",
        options.trials,
        options.epochs,
        options.long,
        {
            name: trained_reference(_cifar10(options), options.out / name, name, _reference_epochs(name, options))
            for name in EPOCHS
        },
    ),
    "resnet18": lambda options: searched_recipe(
        _cifar10(options), options.out / "resnet18", options.long, options.epochs, options.budget
    ),
    "co-search": lambda options: co_search(
        options.cifar10,
        options.out / "co-search",
        range(options.first_seed, options.first_seed + (options.seeds or 5)),
        options.budget,
        options.epochs,
    ),
}


Row = Mapping[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """Make a row; the exit code is 0, 2 for a mistake, or 130 after Ctrl-C."""
    options = _parser().parse_args(arguments)
    return exit_code(lambda: _run(options))


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(__doc__.partition("\n")[0])
    parser.add_argument("row", choices=list(ROWS), help="row to measure")
    add_output(parser, page=True)
    parser.add_argument("--out", type=Path, default=Path("runs") / "headline", help="folder of the runs")
    parser.add_argument("--mnist", type=Path, help="folder that torchvision.datasets.MNIST reads")
    parser.add_argument("--cifar10", type=Path, help="image folder of CIFAR-10")
    parser.add_argument("--seeds", type=int, help="number of seeds; by default that of docs/benchmarks.md")
    parser.add_argument("--first-seed", type=int, default=0, help="first seed of co-search")
    parser.add_argument("--repeats", type=int, default=5, help="starts of first-seconds")
    parser.add_argument("--trials", type=int, default=32, help="trials of a search")
    parser.add_argument("--epochs", type=int, default=4, help="epochs of a trial")
    parser.add_argument("--long", type=int, default=40, help="epochs of a long training")
    parser.add_argument("--workers", type=int, default=2, help="workers of the mnist rows")
    parser.add_argument(
        "--quick", action="store_true",
        help="only try whether the row can be measured, in at most two minutes: small budgets, on images of mnist5k",
    )  # fmt: skip
    parser.add_argument("--budget", type=float, default=120.0, help="seconds of each search of co-search and resnet18")
    return parser


def _run(options: argparse.Namespace) -> None:
    check_output(options)
    if options.quick:
        _make_quick(options)
    options.out = options.out.resolve()
    row = _without_paths(ROWS[options.row](options), options)
    print(json.dumps(row, indent=1))
    before = {}
    if options.json is not None and options.json.is_file():
        before = json.loads(options.json.read_text(encoding="utf-8"))
    name, flags = processor()
    rows = {**before.get("rows", {}), options.row: {**row, "processor": name, "processor_flags": flags}}
    page = options.page.read_text(encoding="utf-8") if options.page is not None else ""
    write_output(options, {"rows": rows}, _tables(rows, page))


def _make_quick(options: argparse.Namespace) -> None:
    """Replace budgets and data by small ones.

    Raises:
        SlimsearchError: the results would be written where measured ones belong.
    """
    if options.json is not None or options.page is not None:
        raise SlimsearchError("--quick measures nothing that is worth keeping: leave out --json and --page")
    options.out = options.out / "quick"
    options.seeds = options.repeats = options.epochs = options.long = options.workers = 1
    options.trials, options.budget = 2, 5.0
    options.mnist, options.cifar10 = quick_mnist(options.out / "mnist"), quick_cifar10(options.out / "cifar10")


def _tables(rows: Mapping[str, Mapping[str, Any]], page: str) -> dict[str, str]:
    """The tables that the page has a place for; all if it has none, which is an error later."""
    made = {"headline": _headline_table(rows)}
    made |= {name.replace("-", "_"): _front_table(row) for name, row in rows.items() if "lenet" in row}
    return {name: text for name, text in made.items() if f"<!-- table: {name} -->" in page} or made


def _without_paths(row: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """A row whose commands have relative paths."""
    text = json.dumps(row)
    for path, name in ((options.out, "runs/headline"), (options.mnist, "data"), (options.cifar10, "cifar10")):
        if path is not None:
            text = text.replace(json.dumps(str(path.resolve()))[1:-1], name)
    found: dict[str, Any] = json.loads(text)
    return found


def _effort(options: argparse.Namespace) -> tuple[int, int, int, int, int]:
    return options.trials, options.epochs, options.long, options.seeds or 3, options.workers


def _reference(network: str, options: argparse.Namespace) -> dict[str, Any]:
    return reference(_cifar10(options), options.out / network, network, _reference_epochs(network, options))


def _reference_epochs(network: str, options: argparse.Namespace) -> int:
    return int(options.long) if options.quick else EPOCHS[network]


def _mnist(options: argparse.Namespace) -> Path:
    if options.mnist is None:
        raise SlimsearchError(f"{options.row} needs --mnist, the folder that torchvision.datasets.MNIST reads")
    found: Path = options.mnist.resolve()
    return found


def _cifar10(options: argparse.Namespace) -> Path:
    if options.cifar10 is None:
        raise SlimsearchError(f"{options.row} needs --cifar10, an image folder of CIFAR-10")
    found: Path = options.cifar10.resolve()
    return found


def _headline_table(rows: Mapping[str, Row]) -> str:
    """The headline table in Markdown, with the rows that are measured."""
    return table(
        ["row", "target", "result"],
        [[f"`{name}`", target, result(rows[name])] for name, (target, result) in _TARGETS.items() if name in rows],
        numbers=False,
    )


def _front_table(row: Row) -> str:
    """The networks of an MNIST row in Markdown: the final one, five others, and the pruned LeNet."""
    named = [
        ("trained for long", row["metrics"]),
        *(("one of the six, 8 epochs", m) for m in row["others"]),
    ]
    named.append(("LeNet, pruned", row["lenet"]))
    return table(
        ["network", "test %", "parameters", "KiB", "latency, ms"],
        [
            [name, f"{100 * m['test_accuracy']:.2f}", f"{m['params']:,.0f}", f"{m['size_kib']:.1f}",
             f"{m['latency_ms']:.4f}"]
            for name, m in named
        ],
    )  # fmt: skip


def _show_first_seconds(row: Row) -> str:
    epoch, trial = (_spread(row[name], "{:.1f}") for name in ("epoch_seconds", "trial_seconds"))
    return f"{epoch} s to the first epoch, {trial} s to the first trial"


def _show_main_command(row: Row) -> str:
    return "; ".join(
        f"`--scheduler {name}` {found['seconds']:.0f} s, {100 * found['hypervolume']:.1f}% of the hypervolume"
        for name, found in row["medians"].items()
    )


def _show_mnist_speed(row: Row) -> str:
    return "; ".join(
        f"{_spread([100 * value for value in found['test_accuracies']], '{:.2f}')} % in "
        f"{_spread(found['seconds'], '{:.1f}')} s"
        for found in row["networks"].values()
    )


def _show_hello_nas(row: Row) -> str:
    return (
        f"{row['median_times_faster']:.1f} times: {row['median_seconds']:.0f} s and "
        f"{100 * row['median_accuracy']:.2f}%, NNI {row['median_nni_seconds']:.0f} s and "
        f"{100 * row['median_nni_accuracy']:.2f}%; trained for twice as long "
        f"{row['median_long_times_faster']:.1f} times: {row['median_long_seconds']:.0f} s and "
        f"{100 * row['median_long_accuracy']:.2f}%"
    )


def _show_tiny_mnist(row: Row) -> str:
    m, accuracy = row["metrics"], _spread([100 * value for value in row["test_accuracies"]], "{:.2f}")
    minutes = sum(row["seconds"].values()) / 60
    return (
        f"{accuracy} %, {m['params']:,.0f} parameters, {m['size_kib']:.1f} KiB, {m['latency_ms']:.3f} ms; "
        f"{minutes:.0f} minutes"
    )


def _show_reference(row: Row) -> str:
    def shown(training: Mapping[str, Any]) -> str:
        return (
            f"{100 * training['float32']['test_accuracy']:.2f}%, int8 {100 * training['int8']['test_accuracy']:.2f}%, "
            f"{training['cpu_seconds'] / 60:.0f} minutes of CPU time"
        )

    ours, published = row["trainings"]["ours"], row["trainings"]["published"]
    m, int8 = ours["float32"], ours["int8"]
    return (
        f"{row['epochs']} epochs: {shown(ours)}; as published: {shown(published)}; {m['params']:,.0f} parameters, "
        f"{m['size_kib']:.0f} KiB and {m['latency_ms']:.3f} ms, int8 {int8['size_kib']:.0f} KiB and "
        f"{int8['latency_ms']:.3f} ms"
    )


def _show_small_cifar10(row: Row) -> str:
    def shown(m: Mapping[str, Any]) -> str:
        return (
            f"{100 * m['test_accuracy']:.2f}%, {m['params']:,.0f} parameters, {1024 * m['size_kib']:,.0f} bytes, "
            f"{m['latency_ms']:.3f} ms"
        )

    theirs = "; ".join(
        f"{title} {100 * found['float32']['test_accuracy']:.2f}%, int8 {100 * found['int8']['test_accuracy']:.2f}%, "
        f"{found['int8']['latency_ms']:.3f} ms"
        for title, name in (("ResNet-20", "resnet20"), ("ResNet-8", "resnet8"))
        for found in [row["references"][name]]
    )
    networks = row["networks"]
    return (
        f"{shown(networks['larger'])}; {shown(networks['smaller'])} ({theirs}); "
        f"{sum(row['seconds'].values()) / 60:.0f} minutes"
    )


def _show_resnet18(row: Row) -> str:
    plain, base = row["networks"]["plain"], row["networks"]["base"]

    def shown(m: Mapping[str, Any]) -> str:
        return (
            f"{100 * m['test_accuracy']:.2f}%, {m['params'] / 1e6:.2f} M, {m['size_kib']:.0f} KiB, "
            f"{plain['latency_ms'] / m['latency_ms']:.1f} times faster than the base as PyTorch exports it "
            f"({plain['latency_batch64_ms'] / m['latency_batch64_ms']:.1f} times at batch 64), "
            f"{base['latency_ms'] / m['latency_ms']:.1f} ({base['latency_batch64_ms'] / m['latency_batch64_ms']:.1f}) "
            "times than as Slimsearch does"
        )

    return (
        f"base {100 * base['test_accuracy']:.2f}%; fastest: {shown(row['networks']['fastest'])}; "
        f"most accurate: {shown(row['networks']['small'])}; {row['seconds'] / 60:.0f} minutes"
    )


def _show_co_search(row: Row) -> str:
    medians = "; ".join(
        f"{name}: {found['co-search']:.3f} against {max(v for k, v in found.items() if k != 'co-search'):.3f}"
        for name, found in row["medians"].items()
    )
    return f"larger in {row['won']} of {row['of']} (medians of hypervolumes: {medians})"


_TARGETS: dict[str, tuple[str, Callable[[Row], str]]] = {
    "first-seconds": ("first epoch in 10 s, first trial in 20 s, imports included", _show_first_seconds),
    "main-command": ("60 s to the same front, with all 18 candidates judged", _show_main_command),
    "hello-nas": ("NNI's accuracy in a tenth of its time", _show_hello_nas),
    "mnist-speed": ("99% in 10 s, 99.5% in 60 s of two cores", _show_mnist_speed),
    "mnist-2421": ("at most 2,421 parameters and 16 KiB: 99.4% (LeNet pruned to as many: 97.25%)", _show_tiny_mnist),
    "mnist-1000": ("at most 1,000 parameters: 99.2%", _show_tiny_mnist),
    "mnist-697": ("at most 697 parameters: 99.03% (published, chosen on the test split)", _show_tiny_mnist),
    "resnet8": ("MLPerf Tiny's ResNet-8 on these images; published: about 87% in int8", _show_reference),
    "resnet20": ("ResNet-20 on these images; published: 92.60%", _show_reference),
    "cifar10": (
        "in 90 minutes two int8 files: at most 280,000 parameters, level with ResNet-20; at most 98,496 bytes, a point "
        "above ResNet-8 and faster", _show_small_cifar10,
    ),
    "resnet18": (
        "a searched recipe: 8 times faster within 1 point of the base; at most 2.79 M parameters and 84.84%, in 60 "
        "minutes", _show_resnet18,
    ),
    "co-search": ("a larger hypervolume than search, then compression, with every seed", _show_co_search),
}  # fmt: skip


def _spread(values: Sequence[float], form: str) -> str:
    if len(values) == 1:
        return form.format(values[0])
    return f"{form.format(median(values))} ({form.format(min(values))} to {form.format(max(values))})"


if __name__ == "__main__":
    sys.exit(main())
