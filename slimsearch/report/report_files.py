"""Files derived from the record, which can be rewritten: top_models.json, pareto.csv, trials.csv and report.html."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from slimsearch.evaluators import COSTS
from slimsearch.files import write_json, write_text
from slimsearch.options.configuration import Configuration
from slimsearch.progress import progress
from slimsearch.record import environment
from slimsearch.record.lineage import steps_to
from slimsearch.record.ranking import Ranking
from slimsearch.record.record import Record
from slimsearch.record.run_directory import RunDirectory
from slimsearch.record.trial import COMPLETE, Trial
from slimsearch.report.display import Display, Silent
from slimsearch.report.html_pages import report_page
from slimsearch.report.page_data import page_data
from slimsearch.report.recommendation import recommend
from slimsearch.report.reliability import Significance, intervals, seed_statistics
from slimsearch.report.result import Result
from slimsearch.report.stored_run import read_record
from slimsearch.report.tables import report_rows

_CSV = (
    "latency_ms", "latency_low_ms", "latency_high_ms", "latency_q25_ms", "latency_q75_ms", "energy_mj", "energy_mj_low",
    "energy_mj_high", "size_kib", "ram_kib", "flash_kib", "params", "macs",
)  # fmt: skip
TRIALS = "trials.csv"


def write_reports(
    directory: RunDirectory, record: Record, ranking: Ranking, configuration: Configuration, environment: dict[str, Any]
) -> list[dict[str, Any]]:
    """Write all four files; returns the content of top_models.json."""
    models = top_models(directory.path, record.trials, ranking, configuration.prefer)
    write_json(directory.path / "top_models.json", models, indent=2)
    write_text(directory.path / "pareto.csv", _pareto_csv(models, ranking.leading.metric))
    write_text(directory.path / TRIALS, trials_csv(record.trials, models))
    data = page_data(directory.path, record.trials, models, ranking, configuration, environment)
    write_text(directory.path / "report.html", report_page(directory.path.name, data))
    return models


def top_models(directory: Path, trials: Sequence[Trial], ranking: Ranking, prefer: str) -> list[dict[str, Any]]:
    """The finalists as plain dicts: those on the front first, then by the first objective.

    Args:
        directory: of the run.
        trials, ranking: of the run.
        prefer: which model to recommend, as with ``--prefer``.
    """
    finalists = [t for t in report_rows(trials, ranking) if t.state == COMPLETE]
    front = [t for t in ranking.run_front(trials) if t.final]
    members = {t.number for t in front}
    significance = Significance(directory)
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
            **({"lineage": steps} if len(steps := _lineage(trial, trials, ranking.leading.metric)) > 1 else {}),
            "artifact": trial.artifacts.get("model"),
        }
        if trial.number in members:
            ties = {o.metric: significance.ties(o.metric, trial, front) for o in ranking.objectives}
            model["cannot_be_told_from"] = {metric: numbers for metric, numbers in ties.items() if numbers}
        seeds = seed_statistics(trial, trials, [o.metric for o in ranking.objectives])
        models.append({**model, "over_seeds": seeds} if seeds is not None else model)
    recommended = recommend(models, ranking, prefer)
    for model in models:
        if recommended is not None and model["trial"] == recommended[0]:
            model["recommended"] = recommended[1]
    return models


def _lineage(trial: Trial, trials: Sequence[Trial], leading: str) -> list[dict[str, Any]]:
    """The steps from the trained network to a finalist, with the metrics of the file after each."""
    steps = []
    for stages, one, seconds in steps_to(trial, trials):
        metrics = {name: one.metrics[name] for name in (leading, *COSTS) if name in one.metrics}
        step = {"stages": {name: dict(options) for name, options in stages.items()}, "trial": one.number}
        steps.append({**step, "seconds": round(seconds, 3), "metrics": metrics})
    return steps


def _pareto_csv(models: Sequence[dict[str, Any]], leading: str) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    scored = (leading, "val_images", leading.replace("val_", "test_", 1), "test_images")
    columns = [name for name in (*scored, *_CSV) if any(name in model["metrics"] for model in models)]
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


def trials_csv(trials: Sequence[Trial], models: Sequence[Mapping[str, Any]]) -> str:
    """All trials as CSV, one line each; `models` is the result of `top_models`."""
    final = [trial.with_final_metrics() for trial in trials]
    front = {model["trial"] for model in models if model["on_front"]}
    named = sorted({name for trial in final for name in trial.metrics})
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(
        ["trial", "kind", "state", "on_front", "finalist", "parent", "epochs", "seed", "architecture", "recipe",
         *named, "seconds", "artifact", "error", "reason"]
    )  # fmt: skip
    for trial in final:
        writer.writerow(
            [
                trial.number, trial.kind, trial.state, int(trial.number in front), int(bool(trial.final)), trial.parent,
                trial.fidelity, trial.seed, json.dumps(dict(trial.candidate.architecture)),
                json.dumps({name: dict(options) for name, options in trial.candidate.recipe.items()}),
                *(trial.metrics.get(name, "") for name in named), f"{trial.seconds:.3f}",
                trial.artifacts.get("model", ""), _cell(trial.error), _cell(trial.reason),
            ]
        )  # fmt: skip
    return text.getvalue()


def _cell(text: str | None) -> str:
    """A text that spreadsheets do not take for a formula."""
    return f"'{text}" if text and text[0] in "=+-@\t\r" else text or ""


def rewrite_reports(
    path: Path, display: Display | None = None, *, prefer: str | None = None, storage: str | None = None
) -> Result:
    """Rewrite top_models.json, pareto.csv, trials.csv and report.html of a run, without its search space or data set.

    Differences from the environment in which the run started are shown as warnings. `prefer` is in place of the
    ``--prefer`` of the run; for `storage`, see `slimsearch.report.stored_run.stored_run`.

    Raises:
        SlimsearchError: there is no run in `path`, or it is damaged or in use.
    """
    display = display or Silent()
    with RunDirectory(path, create=False) as directory:
        configuration = Configuration.read(directory.config)
        if prefer is not None:
            configuration = configuration.replace(prefer=prefer)
        before = environment.read(directory.path)
        for line in environment.differences(before, {**before, **environment.machine()}):
            display.warn(f"the environment has changed: {line}")
        ranking = Ranking.of(configuration)
        with progress("writing the report"):
            record = read_record(directory, configuration, ranking, storage)
            models = write_reports(directory, record, ranking, configuration, before)
    result = Result(directory.path, tuple(record.trials), tuple(models))
    display.result(result, ranking)
    return result
