"""The command line. A user's mistake is one line and exit code 2; nothing heavy is imported for ``--help``."""

from __future__ import annotations

import dataclasses
import reprlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, Namespace

from experiments import interrupt
from experiments.chosen import LONGER
from experiments.configuration import RESUMABLE, Configuration, flag, option_type
from slimsearch_errors import SlimsearchError
from slimsearch_names import built_in_names
from slimsearch_reading import read_yaml

_BUILT_INS = {
    "space": "search_spaces",
    "strategy": "strategies",
    "sampler": "strategies.samplers",
    "scheduler": "strategies.schedulers",
    "zero_cost": "evaluators.scores",
    "dataset": "evaluators.datasets",
}
_EPILOG = """examples:
  %(prog)s --space mnist_cnn --strategy optuna
  %(prog)s --space lenet --dataset mnist --data-root data --download --trials 40 --max-size-kib 100
  %(prog)s --space path/to/file.py:MyNet --dataset path/to/images --image-size 64
  %(prog)s --resume runs/mnist_cnn-20260101-120000
"""
_RETRAIN_EPILOG = """examples:
  %(prog)s runs/mnist_cnn-20260101-120000
  %(prog)s runs/mnist_cnn-20260101-120000 --models 7,22 --epochs 60 --compress distill,quantize
  %(prog)s '{"conv2": 1, "dropout": 0.25, "feature": 64}' --space mnist_cnn --epochs 30
"""


class _Parser(ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        _say(message)
        sys.exit(2)


def main(arguments: Sequence[str] | None = None, program: str = "slimsearch run") -> int:
    """Run a command; the exit code is 0, 2 for a mistake, or 130 after Ctrl-C."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    commands = {"run": _run, "retrain": _retrain, "dashboard": _dashboard, "report": _report}
    if not words or words[0] in ("-h", "--help"):
        print(
            "usage: slimsearch {run,retrain,dashboard,report} ...\n\n"
            "  run         search, compress and rank: slimsearch run --help\n"
            "  retrain     train and compress the models of a run again, for longer: slimsearch retrain RUN_DIR\n"
            "  dashboard   open optuna-dashboard on a run: slimsearch dashboard RUN_DIR\n"
            "  report      make a run's reports again from its record: slimsearch report RUN_DIR"
        )
        return 0 if words else 2
    if words[0] not in commands:
        return _say(f"unknown command '{words[0]}'; known: {', '.join(commands)}")
    try:
        with interrupt.second_one_ends():
            return commands[words[0]](words[1:], program)
    except SlimsearchError as error:
        return _say(error)
    except OSError as error:  # a full disk, a directory that was taken away: what is recorded stays
        return _say(f"{error}; what was finished is kept, go on with --resume")
    except KeyboardInterrupt:
        return interrupt.EXIT_CODE


def _say(message: object) -> int:
    """The one line, and the exit code of a mistake; what names of files and labels would do to a terminal is spelt."""
    line = " ".join(str(message).split())
    print("error: " + "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line), file=sys.stderr)
    return 2


def _run(words: Sequence[str], program: str) -> int:
    given = _given(vars(run_parser(program).parse_args(list(words))))
    resume = given.pop("resume", None)
    if resume is None:
        configuration = Configuration(**given)
    elif not (Path(resume) / "config.yaml").is_file():
        raise SlimsearchError(f"'{resume}' is no run directory: it has no config.yaml")
    from experiments import job
    from experiments.display import Console

    if resume is not None:
        job.resume(Path(resume), given, display=Console())
    else:
        job.start(configuration, display=Console())
    return 0


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a run that are not left open, those in files of options too."""
    given = {name: value for name, value in options.items() if name != "config" and value is not None}
    for file in options["config"] or ():
        given = {**_from_file(Path(file)), **given}
    return given


def _retrain(words: Sequence[str], program: str) -> int:
    parser = run_parser(
        "slimsearch retrain",
        "Train architectures that were found before again, for longer, compress and rank them: a run of its own, with "
        f"the options of the run that they come from and {LONGER} times its epochs unless it is told otherwise.",
        _RETRAIN_EPILOG,
    )
    parser.add_argument("found", type=str, help="a run directory, a top_models.json, or a file with dicts, or a dict")
    parser.add_argument("--models", type=str, default=None, help="numbers of trials, such as 7,22; default: the front")
    options = vars(parser.parse_args(list(words)))
    found, named = options.pop("found"), options.pop("models")
    try:
        numbers = [int(number) for number in (named or "").split(",") if number.strip()]
    except ValueError:
        raise SlimsearchError(f"--models '{named}' is no list of numbers such as 7,22") from None
    given = _given(options)
    if "resume" in given or "architectures" in given:
        raise SlimsearchError("retrain begins a run with what is named first; to go on with it: run --resume")
    from experiments import job
    from experiments.chosen import retraining
    from experiments.display import Console

    job.start(retraining(found, numbers, given), display=Console())
    return 0


def _from_file(path: Path) -> dict[str, Any]:
    """The options in a YAML file, each as it would be on the command line.

    Raises:
        SlimsearchError: it cannot be read, or something in it is no option.
    """
    try:
        values = read_yaml(path)
    except FileNotFoundError:
        raise SlimsearchError(f"--config: there is no file '{path}'") from None
    if values is None:
        return {}
    kinds = {option.name: option_type(option) for option in dataclasses.fields(Configuration)} | {"resume": str}
    if not isinstance(values, dict) or not values.keys() <= kinds.keys():
        found = (
            reprlib.repr(values) if not isinstance(values, dict) else reprlib.repr(next(iter(values.keys() - kinds)))
        )
        raise SlimsearchError(f"--config '{path}': {found} is no option; options: {', '.join(kinds)}")
    options: dict[str, Any] = {}
    for name, value in values.items():
        kind = kinds[name]
        try:  # YAML has 1e-3 for a text
            options[name] = kind(value) if kind in (int, float) and isinstance(value, str) else value
        except ValueError:
            raise SlimsearchError(f"--config '{path}': {name} {reprlib.repr(value)} is no number") from None
    if not isinstance(options.get("resume", ""), str):
        raise SlimsearchError(f"--config '{path}': resume {reprlib.repr(options['resume'])} is no path")
    return {name: value for name, value in options.items() if value is not None}


def _whole_number(text: str) -> int:
    return int(text)


def _number(text: str) -> float:
    return float(text)


# In place of the types, of which jsonargparse has its own: one that reads a number of 400 digits as an int, and fails.
_NUMBERS: dict[Any, Any] = {int: _whole_number, float: _number}


def run_parser(
    program: str, description: str = "Search architectures, compress the best ones, and rank the files that would be "
    "deployed.", epilog: str = _EPILOG,
) -> ArgumentParser:  # fmt: skip
    """Every option of a run, by the fields of `Configuration`; what is not given stays None."""
    from argparse import RawDescriptionHelpFormatter

    parser = _Parser(
        prog=program,
        description=description,
        epilog=epilog.replace("%(prog)s", program),
        formatter_class=RawDescriptionHelpFormatter,
        default_env=False,
    )
    parser.add_argument(
        "--config", action="append", type=str, metavar="FILE",
        help="a YAML file with options, by the names below with _ for -; what is given here as well counts more",
    )  # fmt: skip
    parser.add_argument(
        "--resume", type=str, default=None, metavar="RUN_DIR", help="go on with a run; needs nothing else"
    )
    for option in dataclasses.fields(Configuration):
        kind = option_type(option)
        text = option.metadata["help"]
        if option.name in _BUILT_INS:
            text += f" (built in: {', '.join(built_in_names(_BUILT_INS[option.name]))})"
        if option.default not in (None, "", False):
            text += f" (default: {option.default})"
        if option.name in RESUMABLE:
            text += " [also with --resume]"
        settings: dict[str, Any] = {"dest": option.name, "default": None, "help": text.replace("%", "%%")}
        if kind is bool:
            parser.add_argument(flag(option.name), action="store_true", **settings)
        else:
            parser.add_argument(
                flag(option.name), type=_NUMBERS.get(kind, kind), metavar=option.name.upper(), **settings
            )
    return parser


def _dashboard(words: Sequence[str], program: str) -> int:
    parser = _Parser(prog="slimsearch dashboard", description="Open optuna-dashboard on a run, finished or going on.")
    parser.add_argument("run_dir", type=str, help="the run directory")
    parser.add_argument("--port", type=int, default=8080, help="on the loopback address (default: 8080)")
    parser.add_argument("--storage", type=str, default=None, help="again, where the study is on another machine")
    options: Namespace = parser.parse_args(list(words))
    from experiments.dashboard import serve

    serve(Path(options.run_dir), options.port, options.storage)
    return 0


def _report(words: Sequence[str], program: str) -> int:
    text = "Make top_models.json, pareto.csv and report.html again from the record of a run, and show the finalists."
    parser = _Parser(prog="slimsearch report", description=text)
    parser.add_argument("run_dir", type=str, help="the run directory")
    options: Namespace = parser.parse_args(list(words))
    from experiments.display import Console
    from experiments.report_again import report_again

    report_again(Path(options.run_dir), Console())
    return 0


if __name__ == "__main__":
    sys.exit(main())
