"""Comparison of compression methods on one network: cost of each method, and metrics of the deployed file.

    python experiments/compare_compression.py --space lenet --plot lenet.png
    python experiments/compare_compression.py --model torchvision.models:resnet18 --dataset cifar10 --data-root data \\
        --base runs/reproduce/resnet18_fused/base-0 --tune-epochs 4 --train-images 10000 --only qat lsq fused

All methods begin with the same trained network, and have the same data and epochs. All files are measured together.
Networks that are already in the folder are not made again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the root of the checkout instead of this folder

import numpy as np
import yaml
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from experiments.network_folder import NetworkFolder, StoredNetwork
from experiments.reproduce._table import progress
from slimsearch import compression
from slimsearch.cli.command_parser import CommandParser
from slimsearch.cli.exit_code import exit_code
from slimsearch.compression import SIGN_INPUT, Network, Quantization
from slimsearch.errors import SlimsearchError, describe_error
from slimsearch.evaluators import CHECKPOINT, Artifact, TrainingSettings, size_kib
from slimsearch.evaluators.datasets import Dataset, Split, load_dataset
from slimsearch.files import write_json
from slimsearch.names import absolute
from slimsearch.reading import read_json, read_yaml
from slimsearch.search_spaces import FixedModel, ModelSpace

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = Mapping[str, Any]

BASE, DATA = "base", "data"
METHODS = Path(__file__).with_suffix(".yaml")
_EPOCHS = 10
_WIDTH = 160
_RECORD, _TEST = "comparison.json", "test_accuracy.json"
_KINDS = {"fp32": "C0", "int8": "C1", "weights only": "C2", "storage only": "C4", "simulated": "C3"}
_NAME = re.compile(r"[\w+][\w.+-]*")
_NUMBERS = (
    "params", "macs", "test_accuracy", "val_accuracy", "latency_ms", "latency_batch64_ms", "size_kib", "packed_kib",
    "seconds",
)  # fmt: skip


@dataclass(frozen=True)
class _Method:
    """A recipe with a name."""

    name: str
    recipe: compression.Recipe

    @property
    def lines(self) -> int:
        """Lines of the recipe as YAML."""
        return len(yaml.safe_dump(self.recipe.to_dict()).splitlines()) if self.recipe else 0

    @property
    def text(self) -> str:
        return self.recipe.text()


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare methods; the exit code is 0, 2 for a mistake, or 130 after Ctrl-C."""
    options = _parser().parse_args(arguments)
    return exit_code(lambda: _compare(options))


def _parser() -> argparse.ArgumentParser:
    default = TrainingSettings()
    parser = CommandParser(__doc__.partition("\n")[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--model", help="torchvision.models:resnet18, or path/to/file.py:function_or_class")
    what.add_argument("--space", help="a built-in space, or path/to/file.py:name")
    parser.add_argument("--architecture", metavar="JSON", help="of the space; by default its DEFAULT or first one")
    parser.add_argument("--dataset", default="mnist5k", help="a built-in data set, or the path of an image folder")
    parser.add_argument("--data-root", type=Path, help="folder with the files of a named data set")
    parser.add_argument("--download", action="store_true", help="download the data set into --data-root")
    parser.add_argument("--image-size", least=1, help="side of the images in pixels")
    parser.add_argument("--epochs", least=0, help=f"epochs of the base; {_EPOCHS} without --base")
    parser.add_argument("--base", type=Path, metavar="DIR", help="folder of a trained network to begin with")
    parser.add_argument("--tune-epochs", least=1, help="epochs of each stage; by default those of the base")
    parser.add_argument("--train-images", least=1, metavar="N", help="training images of the methods; by default all")
    parser.add_argument(
        "--recipes", type=Path, default=METHODS, help="YAML: names of methods, and recipes as for --compress"
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help="names of methods to compare; by default all")
    parser.add_argument("--batch-size", least=2, default=default.batch_size, help="images per training step")
    parser.add_argument("--learning-rate", type=float, help="peak of the schedule, as of slimsearch run")
    parser.add_argument("--weight-decay", type=float, default=default.weight_decay, help="weight decay of AdamW")
    parser.add_argument(
        "--augment", choices=("auto", "none", "shift", "shift-flip"), default=default.augmentation, help="augmentation"
    )
    parser.add_argument("--seed", least=0, default=0, help="random seed")
    parser.add_argument("--out", type=Path, default=Path("runs") / "compare", help="folder of the networks")
    parser.add_argument("--json", type=Path, help="write the rows as JSON")
    parser.add_argument("--plot", type=Path, help="plot accuracy against latency and size, as .png or .svg")
    return parser


def _compare(options: argparse.Namespace) -> None:
    _check(options)
    methods = _methods(options.recipes, options.only)
    data = load_dataset(
        options.dataset, root=options.data_root, download=options.download, image_size=options.image_size
    )
    subset = data if options.train_images is None else _subset(data, options.train_images, options.seed)
    space, architecture = _model(options, data)
    base = _given_base(options.base, space, architecture, data) if options.base is not None else None
    epochs = base[1] if base is not None else options.epochs or _EPOCHS
    tune_epochs = options.tune_epochs or epochs
    _same_as_before(options, data, architecture, epochs, tune_epochs)
    for path in (options.json, options.plot):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)  # fails before the work
    settings = TrainingSettings(options.batch_size, options.learning_rate, options.weight_decay, options.augment)
    whole = NetworkFolder(options.out, space, architecture, data, settings, progress)
    start = base[0] if base is not None else whole.train(BASE, epochs, options.seed)
    tuning = whole
    if options.train_images is not None:
        tuning = NetworkFolder(options.out / "methods", space, architecture, subset, settings, progress)
    made: list[tuple[_Method, StoredNetwork | str]] = [(_Method(BASE, compression.Recipe()), start)]
    for method in methods:
        made.append((method, _apply(tuning, method, start, tune_epochs, options.seed)))
    title = (
        f"{Path(options.model or options.space).name} on {data.name}: base {epochs} epochs of {len(data.train):,} "
        f"images, methods {tune_epochs} of {len(subset.train):,}"
    )
    _show(_rows(made, tuning, options.out), title, options.json, options.plot)


def _check(options: argparse.Namespace) -> None:
    """Validate the options without reading a file."""
    if options.learning_rate is not None and not options.learning_rate > 0:
        raise SlimsearchError(f"--learning-rate {options.learning_rate:g} is not above 0")
    if not options.weight_decay >= 0:
        raise SlimsearchError(f"--weight-decay {options.weight_decay:g} is less than 0")
    if options.base is None and options.epochs == 0:
        raise SlimsearchError("--epochs 0 trains no base: name one with --base DIR")
    if options.base is not None and options.epochs:
        raise SlimsearchError("--epochs trains a base, and --base has one: leave one of them out")
    if options.model is not None and options.architecture is not None:
        raise SlimsearchError("--architecture is that of a --space; a --model has none")
    if options.plot is not None and options.plot.suffix not in (".png", ".svg"):
        raise SlimsearchError(f"--plot '{options.plot}' is neither a .png nor an .svg")


def _methods(path: Path, only: Sequence[str] | None) -> list[_Method]:
    """The methods of a file; the default file adds the shipped recipes."""
    try:
        values = read_yaml(path)
    except FileNotFoundError:
        raise SlimsearchError(f"cannot read '{path}': there is no such file") from None
    if not isinstance(values, dict) or not all(isinstance(text, str) for text in values.values()):
        raise SlimsearchError(f"'{path}' is not a mapping of names to recipes, each the text that --compress takes")
    if path == METHODS:
        values = {**values, **{name: name for name in compression.Recipe.shipped()}}
    values = {str(name): text for name, text in values.items()}
    for name in values:
        if name in (BASE, DATA) or not _NAME.fullmatch(name):
            raise SlimsearchError(f"'{path}': '{name}' cannot be the name of a method: it becomes that of a folder")
    for name in only or ():
        if name not in (BASE, *values):
            raise SlimsearchError(f"--only '{name}': there is no such method; known: {', '.join([BASE, *values])}")
    made = []
    for name, text in values.items():
        if only is None or name in only:
            try:
                made.append(_Method(name, compression.Recipe.parse(text)))
            except SlimsearchError as error:
                raise SlimsearchError(f"'{path}': method '{name}': {error}") from error
    return made


def _model(options: argparse.Namespace, data: Dataset) -> tuple[FixedModel | ModelSpace, Mapping[str, Any]]:
    """The builder of the network and the architecture, validated."""
    shape, classes = data.input_shape, len(data.classes)
    if options.model is not None:
        model = FixedModel.load(options.model, shape, classes)
        model.build()
        return model, {}
    space = ModelSpace.load(options.space, shape, classes)
    if options.architecture is None:
        architecture = space.canonical(getattr(space.code, "DEFAULT", None) or next(space.grid()))
    else:
        try:
            given = json.loads(options.architecture)
        except json.JSONDecodeError as error:
            raise SlimsearchError(f"--architecture {options.architecture} is not JSON: {error}") from None
        if not isinstance(given, dict):
            raise SlimsearchError(f"--architecture {options.architecture} is not an object of labels and values")
        architecture = space.canonical(given)
    space.check(architecture)
    return space, architecture


def _subset(data: Dataset, count: int, seed: int) -> Dataset:
    """A subset of the training images, with the normalisation of all; other splits stay."""
    if count > len(data.train):
        raise SlimsearchError(f"--train-images {count}: data set '{data.name}' has {len(data.train)}")
    chosen = np.sort(np.random.default_rng(seed).permutation(len(data.train))[:count])
    return replace(data, train=Split(data.train.inputs[chosen], data.train.targets[chosen]))


def _given_base(
    folder: Path, space: FixedModel | ModelSpace, architecture: Mapping[str, Any], data: Dataset
) -> tuple[StoredNetwork, int]:
    """The network that `NetworkFolder` stored in `folder`, and its epochs."""
    try:
        result = read_json(folder / "result.json")
        network, metrics = result["step"], result["metrics"]
        recipe, seed, epochs = network["recipe"], int(network["seed"]), int(network["epochs"])
    except (SlimsearchError, ValueError, KeyError, TypeError) as error:
        raise SlimsearchError(f"--base '{folder}': cannot read its result.json: {error}") from error
    if recipe != "none":
        raise SlimsearchError(f"--base '{folder}' went through {recipe}: a base is a network as it was trained")
    stored = folder.parent / DATA / "dataset.json"
    if stored.is_file() and read_json(stored).get("mean") != list(data.mean):
        raise SlimsearchError(f"--base '{folder}' was trained on other images than those of '{data.name}'")
    base = StoredNetwork(BASE, Artifact(folder.resolve(), architecture, {}, seed), metrics)
    if not base.file.is_file():
        raise SlimsearchError(f"--base '{folder}' has no {base.file.name}")
    Network.load(space.build(architecture, seed), folder)
    return base, epochs


def _same_as_before(
    options: argparse.Namespace, data: Dataset, architecture: Mapping[str, Any], epochs: int, tune_epochs: int
) -> None:
    """Record the options of the networks in the folder.

    Raises:
        SlimsearchError: the folder has other files, or networks with other options.
    """
    own = {
        "--model": absolute(options.model) if options.model else None,
        "--space": absolute(options.space) if options.space else None,
        "--architecture": dict(architecture),
        "--dataset": data.fingerprint,
        "--epochs": epochs,
        "--base": str(options.base.resolve()) if options.base else None,
        "--tune-epochs": tune_epochs,
        "--train-images": options.train_images,
        "--batch-size": options.batch_size,
        "--learning-rate": options.learning_rate,
        "--weight-decay": options.weight_decay,
        "--augment": options.augment,
        "--seed": options.seed,
    }
    record = options.out / _RECORD
    if not record.is_file():
        if options.out.is_dir() and any(options.out.iterdir()):
            raise SlimsearchError(f"'{options.out}' is not empty, and no comparison: choose another --out")
        options.out.mkdir(parents=True, exist_ok=True)
        write_json(record, own)
    known = json.loads(record.read_text(encoding="utf-8"))
    other = [name for name, value in own.items() if known.get(name) != value]
    if other:
        name = other[0]
        raise SlimsearchError(
            f"'{options.out}' was begun with {name} {known.get(name)}, not {own[name]}: choose another --out"
        )


def _apply(
    networks: NetworkFolder, method: _Method, start: StoredNetwork, epochs: int, seed: int
) -> StoredNetwork | str:
    """The compressed network, or the reason of the failure."""
    folder = networks.folder / method.name
    folder.mkdir(exist_ok=True)
    try:
        return networks.compress(method.name, start, method.text, epochs, seed)
    except Exception as error:  # of any type: the other methods go on
        known = isinstance(error, SlimsearchError)
        reason = " ".join((str(error) if known else describe_error(error)).split())
        if not known:
            (folder / "error.txt").write_text(traceback.format_exc(), encoding="utf-8")
        (folder / CHECKPOINT).unlink(missing_ok=True)
        print(f"{method.name}: {reason}", flush=True)
        return reason


def _rows(made: Sequence[tuple[_Method, StoredNetwork | str]], networks: NetworkFolder, folder: Path) -> list[Row]:
    files = [network.file for _, network in made if isinstance(network, StoredNetwork)]
    print(f"measuring {len(files)} files together", flush=True)
    single, batch = (dict(zip(files, networks.latencies(files, size), strict=True)) for size in (1, 64))
    rows: list[Row] = []
    for method, network in made:
        row: dict[str, Any] = {"name": method.name, "recipe": method.text, "kind": None, **dict.fromkeys(_NUMBERS)}
        if isinstance(network, StoredNetwork):
            row |= {
                "kind": _kind(network.artifact.directory),
                "params": network.metrics["params"],
                "macs": network.metrics["macs"],
                "test_accuracy": _test_accuracy(networks, network.file, folder / _TEST),
                "val_accuracy": network.metrics["val_accuracy"],
                "latency_ms": single[network.file],
                "latency_batch64_ms": batch[network.file],
                "size_kib": size_kib(network.file),
                "packed_kib": network.metrics.get("packed_kib"),
                "seconds": network.metrics["training_seconds"],
            }
        rows.append({**row, "lines": method.lines, "reason": network if isinstance(network, str) else None})
    return rows


def _kind(directory: Path) -> str:
    """The kind of compression in the running file (see `Quantization.kind`)."""
    description = json.loads((directory / "network.json").read_text(encoding="utf-8"))
    if SIGN_INPUT in description["structure"].get("replaced", {}).values():
        return "simulated"
    plan = description["quantization"]
    return Quantization.from_json(plan).kind if plan else "fp32"


def _test_accuracy(networks: NetworkFolder, file: Path, kept: Path) -> float:
    """Test accuracy of `file`, stored in `kept` by the hash of the file."""
    known: dict[str, float] = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {}
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    if digest not in known:
        known[digest] = networks.test_accuracy(file)
        write_json(kept, known)
    return known[digest]


def _show(rows: Sequence[Row], title: str, path: Path | None, plot: Path | None) -> None:
    Console(width=None if sys.stdout.isatty() else _WIDTH).print(_table(rows, title))
    if path is not None:
        write_json(path, rows)
    if plot is not None:
        _plot([row for row in rows if row["reason"] is None], plot, title)


def _table(rows: Sequence[Row], title: str) -> Table:
    """A row for each method; a method that failed has its reason."""
    made = Table(title=escape(title), title_justify="left")
    made.add_column("method", overflow="fold", min_width=22, max_width=40)
    made.add_column("kind", no_wrap=True)
    headings = ("test %", "val %", "ms", "ms, 64", "KiB", "packed", "params", "MACs", "seconds", "lines")
    for heading in headings:
        made.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        if row["reason"] is not None:
            made.add_row(f"{escape(row['name'])}: [dim]{escape(row['reason'])}[/dim]")
            continue
        made.add_row(
            escape(row["name"]),
            row["kind"],
            f"{100 * row['test_accuracy']:.2f}",
            f"{100 * row['val_accuracy']:.2f}",
            f"{row['latency_ms']:#.3g}",
            f"{row['latency_batch64_ms']:#.3g}",
            f"{row['size_kib']:.1f}",
            "" if row["packed_kib"] is None else f"{row['packed_kib']:.1f}",
            f"{row['params']:,.0f}",
            f"{row['macs']:,.0f}",
            f"{row['seconds']:.1f}",
            str(row["lines"]),
        )
    return made


def _plot(rows: Sequence[Row], path: Path, title: str) -> None:
    """Plot accuracy against latency and size, with the names of the methods."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullLocator

    figure = Figure(figsize=(20, 11), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    accuracies = [100 * row["test_accuracy"] for row in rows]
    # Outliers are drawn on the lower edge, or they would press all others together.
    best, middle = max(accuracies), float(np.median(accuracies))
    bottom = max(min(accuracies), best - max(6 * (best - middle), 1.0))
    axes = figure.subplots(1, 2, sharey=True)
    points: list[list[tuple[float, float, str]]] = [[], []]
    for ax, column, found in zip(axes, ("latency_ms", "size_kib"), points, strict=True):
        for row, accuracy in zip(rows, accuracies, strict=True):
            name, y = row["name"], max(accuracy, bottom)
            marker = "v" if accuracy < bottom else "*" if name == BASE else "o"
            ax.plot(row[column], y, marker, color=_KINDS[row["kind"]], markersize=12 if name == BASE else 6)
            found.append((row[column], y, f"{name} ({accuracy:.1f}%)" if accuracy < bottom else name))
        ax.set_xscale("log")
        ax.margins(0.1)
        ax.grid(alpha=0.3)
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7), numticks=100))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter("{x:g}")
    axes[0].set_xlabel("latency at batch 1, ms")
    axes[1].set_xlabel("size of the file, KiB")
    axes[0].set_ylabel("test accuracy, %")
    for kind in dict.fromkeys(row["kind"] for row in rows):
        axes[0].plot([], [], "o", color=_KINDS[kind], label=kind)
    figure.legend(loc="outside lower center", ncols=len(_KINDS))
    figure.draw_without_rendering()  # fixes the positions of the points
    for ax, found in zip(axes, points, strict=True):
        _add_labels(ax, found)
    figure.savefig(path, dpi=figure.dpi)


def _add_labels(ax: Axes, points: Sequence[tuple[float, float, str]]) -> None:
    """Write a name beside each point, joined by a line, where it covers neither a point nor another name."""
    from matplotlib.transforms import Bbox

    centres = ax.transData.transform([(x, y) for x, y, _ in points])  # (N, 2) pixels
    taken = [Bbox.from_bounds(x - 5, y - 5, 10, 10) for x, y in centres]
    frame = ax.get_window_extent()
    pixels = ax.figure.dpi / 72  # per point
    for (x, y, text), (left, low) in zip(points, centres, strict=True):
        label = ax.text(x, y, text, fontsize=8)
        width, height = label.get_window_extent().size
        for turn in range(400):  # outward along a spiral, to the right first
            distance, angle = 8 + 0.5 * turn, turn * 2 * np.pi / 12
            across, up = distance * np.cos(angle), distance * np.sin(angle)
            box = Bbox.from_bounds(left + across - (width if across < 0 else 0), low + up - height / 2, width, height)
            inside = frame.x0 < box.x0 and box.x1 < frame.x1 and frame.y0 < box.y0 and box.y1 < frame.y1
            if inside and not any(box.overlaps(other) for other in taken):
                break
        taken.append(box)
        label.remove()
        ax.annotate(
            text, (x, y), ((box.x0 - left) / pixels, (box.y0 - low) / pixels), textcoords="offset points", fontsize=8,
            arrowprops={"arrowstyle": "-", "linewidth": 0.4, "color": "gray", "shrinkA": 0, "shrinkB": 2},
        )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
