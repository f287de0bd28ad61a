"""``slimsearch compress``: compresses a trained network, or searches for the recipe that does it best."""

from __future__ import annotations

import re
from typing import Any

from slimsearch.cli.command_parser import CommandParser
from slimsearch.cli.commands.run import add_accept_changes, begin
from slimsearch.cli.run_options import given, run_parser
from slimsearch.errors import SlimsearchError
from slimsearch.options.configuration import FINE_TUNING, ModelKind

HELP = "make a trained network smaller and faster, by a given recipe or by a search for recipes"
_DESCRIPTION = (
    f"{HELP}. With --recipe, a stage is kept if the file is still accurate enough. With --trials, recipes are "
    "searched, and the result is a Pareto front. Trial 0 is the given network"
)
_EXAMPLES = (
    "path/to/file.py:make_net --weights net.pth --mean 0.5 --std 0.25 --dataset path/to/images --recipe prune,quantize",
    "torchvision:resnet18 --weights net.pth --mean dataset --std dataset --dataset path/to/images --trials 12",
    "timm:mobilenetv3_small_050 --weights net.safetensors --dataset path/to/images --trials 12",
    "runs/mnist_cnn-20260101-120000:7 --dataset path/to/images --recipe quantize",
)
_WITHOUT = (
    "space", "model", "architectures", "evaluator", "scheduler", "subnets", "supernet_epochs", "supernet_sampling",
    "search_hyperparameters", "weights",
)  # fmt: skip
_RENAMED = {
    "init": (
        "--weights",
        "the trained weights: a .safetensors or .pth file, or the name of torchvision weights such as IMAGENET1K_V1, "
        "from torchvision's cache (--download fetches them)",
    ),
    "compress": ("--recipe", "stages, with options such as prune:sparsity=0.6:epochs=4,distill,quantize"),
    "co_search": (
        "--recipe-space",
        "search recipes: default (implied by --trials), precision (number formats only), or a YAML file of choices",
    ),
    "trials": ("--trials", "recipes to try, not counting the given network"),
    "epochs": ("--epochs", "epochs of training in each stage that does not set its own"),
    "mean": (
        "--mean",
        "normalization that the network was trained with: mean of pixel / 255, one number or one per channel; or "
        "dataset, for that of the data set's training images; by default as declared by torchvision's weights, by timm "
        "or by the run",
    ),
    "image_size": (
        "--image-size", "resize every image to a square of this many pixels; by default the size declared as for --mean"
    ),
}  # fmt: skip
_WEIGHTS_OF_TORCHVISION = re.compile("[A-Z][A-Z0-9_]*")


def parser(program: str) -> CommandParser:
    found = run_parser(program, _DESCRIPTION, _EXAMPLES, without=_WITHOUT, renamed=_RENAMED)
    found.add_argument(
        "model", nargs="?",
        help="path/to/file.py:function_or_class, torchvision:NAME, timm:NAME (slimsearch[timm]), a .pt2 file of "
        "torch.export, or a trial of a run, such as runs/mnist_cnn-20260101-120000:7",
    )  # fmt: skip
    add_accept_changes(found)
    return found


def run(options: dict[str, Any]) -> None:
    accept_changes = options.pop("accept_changes")
    chosen = given(options)
    chosen = chosen if "resume" in chosen else with_defaults(chosen)
    begin(chosen, print_config=options["print_config"], accept_changes=accept_changes)


def with_defaults(chosen: dict[str, Any]) -> dict[str, Any]:
    """The chosen options of a run that compresses a network, completed.

    Raises:
        SlimsearchError: there is no network, or both a recipe and a search for one.
    """
    if "model" not in chosen:
        raise SlimsearchError("which network? path/to/file.py:function, torchvision:NAME, timm:NAME or runs/NAME:TRIAL")
    searches = "co_search" in chosen or ("trials" in chosen and "compress" not in chosen)
    if not searches and chosen.get("trials", 1) != 1:
        raise SlimsearchError("--recipe is applied as it is, and --trials searches for one: leave out one of them")
    weights = chosen.get("init", "")
    if ModelKind.of(chosen["model"]) is ModelKind.TORCHVISION and _WEIGHTS_OF_TORCHVISION.fullmatch(weights):
        chosen = {**chosen, "init": f"{chosen['model']}:{weights}"}
    if searches:
        return {**FINE_TUNING, "co_search": "elastic" if chosen.get("elastic") else "default", **chosen}
    if chosen.get("elastic"):
        raise SlimsearchError("--elastic searches for a network: it needs --trials, without --recipe")
    return {**FINE_TUNING, "sampler": "random", "top_k": 1, **chosen, "trials": 1}
