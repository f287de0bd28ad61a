"""The headline rows as a table: what was asked, and what was found beside what."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

from experiments.benchmarks._page import table

Row = Mapping[str, Any]


def headline_table(rows: Mapping[str, Row]) -> str:
    """In Markdown, of those rows that there are."""
    return table(
        ["row", "what is asked", "what was found"],
        [[f"`{name}`", asked, found(rows[name])] for name, (asked, found) in _ROWS.items() if name in rows],
        numbers=False,
    )


def front_table(row: Row) -> str:
    """In Markdown, of a row of MNIST: what was trained in the end, what was trained for less, and the pruned LeNet."""
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


def _first_seconds(row: Row) -> str:
    epoch, trial = (_spread(row[name], "{:.1f}") for name in ("epoch_seconds", "trial_seconds"))
    return f"{epoch} s to the first epoch, {trial} s to the first trial"


def _hello_nas(row: Row) -> str:
    return (
        f"{row['median_times_faster']:.1f} times: {row['median_seconds']:.0f} s and "
        f"{100 * row['median_accuracy']:.2f}%, NNI {row['median_nni_seconds']:.0f} s and "
        f"{100 * row['median_nni_accuracy']:.2f}%; trained for twice as long "
        f"{row['median_long_times_faster']:.1f} times: {row['median_long_seconds']:.0f} s and "
        f"{100 * row['median_long_accuracy']:.2f}%"
    )


def _tiny_mnist(row: Row) -> str:
    m, accuracy = row["metrics"], _spread([100 * value for value in row["test_accuracies"]], "{:.2f}")
    minutes = sum(row["seconds"].values()) / 60
    return (
        f"{accuracy} %, {m['params']:,.0f} parameters, {m['size_kib']:.1f} KiB, {m['latency_ms']:.3f} ms; "
        f"{minutes:.0f} minutes"
    )


def _small_cifar10(row: Row) -> str:
    m = row["metrics"]
    return (
        f"{100 * m['test_accuracy']:.2f}%, {m['params']:,.0f} parameters, {m['size_kib']:.0f} KiB, "
        f"{row['latency_ms']:.3f} ms (ResNet-18: {row['resnet18_latency_ms']:.3f} ms); "
        f"{row['seconds'] / 60:.0f} minutes"
    )


def _co_search(row: Row) -> str:
    medians = "; ".join(
        f"{name}: {found['co-search']:.3f} against {max(v for k, v in found.items() if k != 'co-search'):.3f}"
        for name, found in row["medians"].items()
    )
    return f"larger in {row['won']} of {row['of']} (medians of hypervolumes: {medians})"


_ROWS: dict[str, tuple[str, Callable[[Row], str]]] = {
    "first-seconds": ("first epoch in 10 s, first trial in 20 s, imports included", _first_seconds),
    "hello-nas": ("NNI's accuracy in a tenth of its time", _hello_nas),
    "mnist-2421": ("at most 2,421 parameters and 16 KiB: 99.2% (LeNet pruned to as many: 97.25%)", _tiny_mnist),
    "mnist-1000": ("at most 1,000 parameters: 98.5%", _tiny_mnist),
    "cifar10": (
        "at most 280,000 parameters in int8, no slower than a compressed ResNet-18 of ten times as many: 84%, in 90 "
        "minutes", _small_cifar10,
    ),
    "co-search": ("a larger hypervolume than search, then compression, with every seed", _co_search),
}  # fmt: skip


def _spread(values: Sequence[float], form: str) -> str:
    if len(values) == 1:
        return form.format(values[0])
    return f"{form.format(median(values))} ({form.format(min(values))} to {form.format(max(values))})"
