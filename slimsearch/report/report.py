"""What is derived from the record: top_models.json, pareto.csv and report.html. Deletable, and made again."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from slimsearch.options.configuration import Configuration
from slimsearch.record.lineage import path_of
from slimsearch.record.ranking import Ranking
from slimsearch.record.record import Record
from slimsearch.record.run_directory import RunDirectory
from slimsearch.record.trial import COMPLETE, Trial
from slimsearch.report.page_data import page_text
from slimsearch.report.reliability import Told, intervals, over_seeds
from slimsearch.report.tables import rows

_PATH = ("val_accuracy", "latency_ms", "size_kib", "params", "macs")
_CSV = (
    "val_accuracy", "val_images", "test_accuracy", "test_images", "latency_ms", "latency_low_ms", "latency_high_ms",
    "latency_q25_ms", "latency_q75_ms", "size_kib", "params", "macs",
)  # fmt: skip
# One after the other they are the page's script.
_SCRIPTS = (
    "data.js", "scales.js", "shared.js", "header.js", "front.js", "detail.js", "finalists.js", "history.js",
    "parallel.js", "importances.js", "timeline.js", "trials.js", "start.js",
)  # fmt: skip


def write(
    directory: RunDirectory, record: Record, ranking: Ranking, configuration: Configuration, environment: dict[str, Any]
) -> list[dict[str, Any]]:
    """Write all three files; what comes back is the content of top_models.json."""
    models = top_models(directory, record.trials, ranking)
    directory.write_json("top_models.json", models)
    directory.write_text("pareto.csv", _pareto_csv(models))
    page = _page(directory, record.trials, models, ranking, configuration, environment)
    directory.write_text("report.html", page)
    return models


def top_models(directory: RunDirectory, trials: Sequence[Trial], ranking: Ranking) -> list[dict[str, Any]]:
    """The finalists as plain dicts, those on the front first, the most accurate first."""
    finalists = [t for t in rows(trials, ranking) if t.state == COMPLETE]
    front = ranking.front(finalists)
    members = {t.number for t in front}
    told = Told(directory.path)
    models = []
    for trial in finalists:
        model = {
            "trial": trial.number,
            "on_front": trial.number in members,
            "architecture": dict(trial.candidate.architecture),
            "recipe": {name: dict(options) for name, options in trial.candidate.recipe.items()},
            **({"training": dict(trial.candidate.training)} if trial.candidate.training else {}),
            "metrics": dict(sorted(trial.metrics.items())),
            "intervals": intervals(trial.metrics),
            **({"path": path} if len(path := _path(trial, trials)) > 1 else {}),
            "artifact": trial.artifacts.get("model"),
        }
        if trial.number in members:
            alike = {o.metric: told.group(o.metric, trial, front) for o in ranking.objectives}
            model["cannot_be_told_from"] = {metric: numbers for metric, numbers in alike.items() if numbers}
        seeds = over_seeds(trial, trials, [o.metric for o in ranking.objectives])
        models.append({**model, "over_seeds": seeds} if seeds is not None else model)
    return models


def _path(trial: Trial, trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """How a finalist came to be: what was done to its trained parent, and the file after each step."""
    steps = []
    for done, one, seconds in path_of(trial, trials):
        metrics = {name: one.metrics[name] for name in _PATH if name in one.metrics}
        step = {"stages": {name: dict(options) for name, options in done.items()}, "trial": one.number}
        steps.append({**step, "seconds": round(seconds, 3), "metrics": metrics})
    return steps


def _pareto_csv(models: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    columns = [name for name in _CSV if any(name in model["metrics"] for model in models)]
    columns += sorted({name for m in models for name in m["metrics"] if not m["artifact"]} - {*columns})
    writer.writerow(["trial", "architecture", "recipe", *columns, "artifact"])
    for model in models:
        if model["on_front"]:
            writer.writerow(
                [
                    model["trial"],
                    json.dumps(model["architecture"]),
                    json.dumps(model["recipe"]),
                    *(model["metrics"].get(name, "") for name in columns),
                    model["artifact"],
                ]
            )
    return text.getvalue()


def _page(
    directory: RunDirectory, trials: Sequence[Trial], models: Sequence[dict[str, Any]], ranking: Ranking,
    configuration: Configuration, environment: dict[str, Any],
) -> str:  # fmt: skip
    from jinja2 import Environment, PackageLoader

    loader = PackageLoader("slimsearch.report", "page")
    template = Environment(loader=loader, autoescape=True).get_template("report.html.j2")
    folder = files("slimsearch.report") / "page"
    return template.render(
        title=directory.path.name,
        data=page_text(directory.path, trials, models, ranking, configuration, environment),
        style=(folder / "style.css").read_text(encoding="utf-8"),
        script="\n".join((folder / name).read_text(encoding="utf-8") for name in _SCRIPTS),
    )
