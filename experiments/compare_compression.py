"""One network through many methods of compression: what each costs, and what it gains in the deployed file.

    python experiments/compare_compression.py --space lenet --plot lenet.png
    python experiments/compare_compression.py --model torchvision.models:resnet18 --dataset cifar10 --data-root data \\
        --base runs/reproduce/resnet18_fused/base-0 --tune-epochs 4 --train-images 10000 --only qat lsq fused

Every method begins with the same trained network, and has the same data and epochs. All files are measured together.
What is already in the folder is taken from there.
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
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the root of the checkout instead of this folder

import numpy as np
import yaml
from rich.console import Console

from experiments import comparison
from experiments.comparison import BASE, Row
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

DATA = "data"
METHODS = Path(__file__).with_suffix(".yaml")
_EPOCHS = 10
_WIDTH = 160
_RECORD, _TEST = "comparison.json", "test_accuracy.json"
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
        """Of configuration: those of the recipe as YAML."""
        return len(yaml.safe_dump(self.recipe.to_dict()).splitlines()) if self.recipe else 0

    @property
    def text(self) -> str:
        return self.recipe.text()


def main(arguments: Sequence[str] | None = None) -> int:
    """Make, measure and show; the exit code is 0, 2 for a mistake, or 130 after Ctrl-C."""
    options = _parser().parse_args(arguments)
    return exit_code(lambda: _compare(options))


def _parser() -> argparse.ArgumentParser:
    default = TrainingSettings()
    made = CommandParser(__doc__.partition("\n")[0])
    what = made.add_mutually_exclusive_group(required=True)
    what.add_argument("--model", help="torchvision.models:resnet18, or path/to/file.py:function_or_class")
    what.add_argument("--space", help="a built-in space, or path/to/file.py:Class (an NNI ModelSpace)")
    made.add_argument("--architecture", metavar="JSON", help="of the space; by default its DEFAULT or its first one")
    made.add_argument("--dataset", default="mnist5k", help="a built-in data set, or the path of an image folder")
    made.add_argument("--data-root", type=Path, help="folder with the files of a named data set")
    made.add_argument("--download", action="store_true", help="fetch the data set into --data-root if it is not there")
    made.add_argument("--image-size", type=int, help="make every image a square of so many pixels")
    made.add_argument("--epochs", type=int, help=f"training of the base; {_EPOCHS} unless there is a --base")
    made.add_argument("--base", type=Path, metavar="DIR", help="begin with what another script left in this folder")
    made.add_argument("--tune-epochs", type=int, help="of each stage that trains; as long as the base if not given")
    made.add_argument("--train-images", type=int, metavar="N", help="methods have so many training images only")
    made.add_argument("--recipes", type=Path, default=METHODS, help="YAML: a recipe, as for --compress, by its name")
    made.add_argument("--only", nargs="+", metavar="NAME", help="some of the methods")
    made.add_argument("--batch-size", type=int, default=default.batch_size, help="images a training step")
    made.add_argument("--learning-rate", type=float, default=default.learning_rate, help="peak of the schedule")
    made.add_argument("--weight-decay", type=float, default=default.weight_decay, help="of AdamW")
    made.add_argument(
        "--augment", choices=("auto", "none", "shift", "shift-flip"), default=default.augmentation, help="of images"
    )
    made.add_argument("--seed", type=int, default=0, help="of everything random")
    made.add_argument("--out", type=Path, default=Path("runs") / "compare", help="where networks are kept")
    made.add_argument("--json", type=Path, help="where the rows are written")
    made.add_argument("--plot", type=Path, help="where accuracy is drawn against latency and size: a .png or .svg")
    return made


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
            path.parent.mkdir(parents=True, exist_ok=True)  # what cannot be, fails before the work
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
    """Refuse what can be seen to be wrong without looking anywhere."""
    for name, least in (("epochs", 0), ("tune_epochs", 1), ("train_images", 1), ("batch_size", 2), ("seed", 0)):
        if (value := getattr(options, name)) is not None and value < least:
            raise SlimsearchError(f"--{name.replace('_', '-')} {value} is less than {least}")
    if not options.learning_rate > 0:
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
    """Those of a file, or of our own list and of the package."""
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
    """What builds the network, and the architecture to ask it for; tried once."""
    shape, classes = data.input_shape, len(data.classes)
    if options.model is not None:
        model = FixedModel.load(options.model, shape, classes)
        model.build()
        return model, {}
    space = ModelSpace.load(options.space, shape, classes)
    if options.architecture is None:
        architecture = space.canonical(getattr(space.space_class, "DEFAULT", None) or next(space.grid()))
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
    """Fewer training images, normalised as all of them are; validation and test stay whole."""
    if count > len(data.train):
        raise SlimsearchError(f"--train-images {count}: data set '{data.name}' has {len(data.train)}")
    chosen = np.sort(np.random.default_rng(seed).permutation(len(data.train))[:count])
    return replace(data, train=Split(data.train.images[chosen], data.train.labels[chosen]))


def _given_base(
    folder: Path, space: FixedModel | ModelSpace, architecture: Mapping[str, Any], data: Dataset
) -> tuple[StoredNetwork, int]:
    """What `NetworkFolder` left in `folder`, and for how many epochs it was trained."""
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
    """Record what the networks in the folder are made with; refuse to mix them with others.

    Raises:
        SlimsearchError: the folder holds something else.
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
    """The compressed network, or why there is none."""
    folder = networks.folder / method.name
    folder.mkdir(exist_ok=True)
    try:
        return networks.compress(method.name, start, method.text, epochs, seed)
    except Exception as error:  # whatever it is, the other methods can do without this one
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
    """What of the compression is real once the file runs (see `Quantization.kind`)."""
    description = json.loads((directory / "network.json").read_text(encoding="utf-8"))
    if SIGN_INPUT in description["structure"].get("replaced", {}).values():
        return "simulated"
    plan = description["quantization"]
    return Quantization.from_json(plan).kind if plan else "fp32"


def _test_accuracy(networks: NetworkFolder, file: Path, kept: Path) -> float:
    """Of `file`; what is known of the same bytes is taken from `kept`."""
    known: dict[str, float] = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {}
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    if digest not in known:
        known[digest] = networks.test_accuracy(file)
        write_json(kept, known)
    return known[digest]


def _show(rows: Sequence[Row], title: str, path: Path | None, plot: Path | None) -> None:
    # Where nobody looks, lines are as long as the table needs.
    Console(width=None if sys.stdout.isatty() else _WIDTH).print(comparison.table(rows, title))
    if path is not None:
        write_json(path, rows)
    if plot is not None:
        comparison.plot([row for row in rows if row["reason"] is None], plot, title)


if __name__ == "__main__":
    sys.exit(main())
