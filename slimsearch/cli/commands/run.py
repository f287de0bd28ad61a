"""``slimsearch run``: searches, compresses and ranks."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from slimsearch.cli.command_parser import CommandParser
from slimsearch.cli.run_options import as_yaml, given, run_parser
from slimsearch.errors import SlimsearchError
from slimsearch.options.configuration import Configuration, check_run_directory

HELP = "search architectures, compress the best ones, and rank the files to deploy"
_EXAMPLES = (
    "--space mnist_cnn --strategy optuna",
    "--space lenet --dataset mnist --data-root data --download --trials 40 --max-size-kib 100",
    "--space path/to/file.py:MyNet --dataset path/to/images --image-size 64",
    "--config quick --space lenet --print-config",
    "--resume runs/mnist_cnn-20260101-120000",
)


def parser(program: str) -> CommandParser:
    found = run_parser(program, HELP, _EXAMPLES, needed="--space SPACE")
    add_accept_changes(found)
    return found


def add_accept_changes(parser: CommandParser) -> None:
    """The option of the commands that `begin` a run."""
    parser.add_argument(
        "--accept-changes", action="store_true", group="output", rare=True,
        help="with --resume: continue although code was edited, or classes of an image folder were renamed",
    )  # fmt: skip


def announce_imports() -> None:
    """Say on a terminal why nothing happens for some seconds."""
    if sys.stdout.isatty():
        print("loading PyTorch and NNI, about 5 s", flush=True)


def run(options: dict[str, Any]) -> None:
    accept_changes = options.pop("accept_changes")
    begin(given(options), print_config=options["print_config"], accept_changes=accept_changes)


def begin(chosen: dict[str, Any], *, print_config: bool, accept_changes: bool) -> None:
    """Start or resume a run with the chosen options, or print them."""
    resume = chosen.pop("resume", None)
    if print_config:
        if resume is not None:
            raise SlimsearchError(f"--print-config is for a new run; the options of '{resume}' are in its config.yaml")
        print(as_yaml(Configuration(**chosen)), end="")
        return
    if accept_changes and resume is None:
        raise SlimsearchError("--accept-changes is for --resume")
    if resume is None:
        configuration = Configuration(**chosen)
    else:
        check_run_directory(Path(resume).expanduser())
    announce_imports()
    from slimsearch.loop import job
    from slimsearch.report.display import Console

    if resume is not None:
        job.resume(Path(resume), chosen, display=Console(), accept_changes=accept_changes)
        stays_open = chosen.get("keep_dashboard", False)
    else:
        job.start(configuration, display=Console())
        stays_open = configuration.keep_dashboard
    if stays_open:
        from slimsearch.strategies.ray import keep_until_interrupted

        print("Ray's dashboard stays open until Ctrl-C", flush=True)
        keep_until_interrupted()
