"""``slimsearch retrain``: trains architectures of an earlier run for longer."""

from __future__ import annotations

from typing import Any

from slimsearch.cli.command_parser import CommandParser, trial_numbers
from slimsearch.cli.run_options import as_yaml, given, run_parser
from slimsearch.errors import SlimsearchError
from slimsearch.options.chosen import LONGER

HELP = "train the best architectures of a run again for longer, compress and rank them"
_DESCRIPTION = (
    f"{HELP}. Starts a new run with the options of the earlier run and {LONGER} times its epochs; command-line options "
    "take precedence."
)
_EXAMPLES = (
    "runs/mnist_cnn-20260101-120000",
    "runs/mnist_cnn-20260101-120000 --models 7,22 --epochs 60 --compress distill,quantize",
    """'{"conv2": 1, "dropout": 0.25, "feature": 64}' --space mnist_cnn --epochs 30""",
)


def parser(program: str) -> CommandParser:
    found = run_parser(program, _DESCRIPTION, _EXAMPLES)
    found.add_argument(
        "found", help="a run directory, top_models.json, a YAML or JSON file of architectures, or JSON text"
    )
    found.add_argument("--models", values=True, help="trial numbers, such as 7,22 (default: the Pareto front)")
    return found


def run(options: dict[str, Any]) -> None:
    found, named = options.pop("found"), options.pop("models")
    numbers = trial_numbers(named)
    chosen = given(options)
    if "resume" in chosen or "architectures" in chosen:
        raise SlimsearchError("retrain starts a new run: leave out --resume and --architectures, or use slimsearch run")
    from slimsearch.options.chosen import retraining

    configuration = retraining(found, numbers, chosen)
    if options["print_config"]:
        print(as_yaml(configuration), end="")
        return
    from slimsearch.loop import job
    from slimsearch.report.display import Console

    job.start(configuration, display=Console())
