"""``slimsearch check``: examines a space before a search."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from slimsearch.cli.command_parser import CommandParser
from slimsearch.cli.commands.run import announce_imports
from slimsearch.cli.run_options import as_yaml, given, run_parser
from slimsearch.errors import SlimsearchError
from slimsearch.files import write_json
from slimsearch.options.configuration import Configuration
from slimsearch.options.device_profiles import with_target
from slimsearch.progress import progress

_PICTURES = (".png", ".svg")
HELP = "examine a space before a search: choices, failing networks, costs, duration of the search"
_DESCRIPTION = (
    f"{HELP}. Takes the options of slimsearch run. Trains a few networks briefly to estimate the duration. "
    "With --model, examines the space that slimsearch compress --elastic searches, without weights or data"
)
_EXAMPLES = (
    "--space mnist_cnn",
    "--space path/to/file.py:MyNet --dataset path/to/images --image-size 64 --max-params 100000",
    "--space resnet_cifar --samples 50 --no-estimate --picture costs.png --json check.json",
    "--model torchvision:resnet18",
)


def parser(program: str) -> CommandParser:
    found = run_parser(program, _DESCRIPTION, _EXAMPLES, without=("elastic",))
    found.add_argument("--samples", least=1, default=200, help="number of random networks")
    found.add_argument(
        "--no-estimate", action="store_true", help="do not train and measure: shows no duration and no latencies"
    )
    found.add_argument("--picture", metavar="PATH", help="write a plot of the costs, PNG or SVG")
    found.add_argument("--json", metavar="PATH", help="write the results as JSON")
    return found


def run(options: dict[str, Any]) -> None:
    samples, picture, path = options.pop("samples"), options.pop("picture"), options.pop("json")
    quick = options.pop("no_estimate")
    if picture is not None and Path(picture).suffix not in _PICTURES:
        raise SlimsearchError(f"--picture '{picture}' does not end in {' or '.join(_PICTURES)}")
    chosen = given(options)
    if "resume" in chosen:
        raise SlimsearchError("check examines a space before a search: leave out --resume")
    configuration = Configuration(**chosen)
    if options["print_config"]:
        print(as_yaml(configuration), end="")
        return
    configuration = with_target(configuration)
    announce_imports()
    from slimsearch.checks.check_tables import draw, show
    from slimsearch.checks.elastic_check import checked_network
    from slimsearch.checks.space_check import checked

    with progress("examining the space"):
        if configuration.model is not None:
            found, duration = checked_network(configuration, samples, with_data="dataset" in chosen), None
        else:
            found, duration = checked(configuration, samples, estimated=not quick)
    show(found, duration, configuration)
    if picture is not None:
        draw(found, Path(picture))
    if path is not None:
        facts = {**dataclasses.asdict(found), "seconds": None if duration is None else dataclasses.asdict(duration)}
        write_json(Path(path), facts)
    if found.failures:
        raise SlimsearchError(f"{found.sampled - found.works} of {found.sampled} networks cannot be built or run")
