"""The data of report.html and of the plots, as plain values."""

from __future__ import annotations

import json
import math
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from slimsearch.errors import SlimsearchError
from slimsearch.options.configuration import Configuration, ModelKind, space_from_python
from slimsearch.record.ranking import Ranking
from slimsearch.record.trial import Trial, trial_folder
from slimsearch.report import example_predictions
from slimsearch.report.importances import importances
from slimsearch.report.onnx_layers import read_layers
from slimsearch.report.run_summary import hypervolume_history, latency_predictions, savings
from slimsearch.report.tables import (
    architecture_text,
    busy_machine_line,
    marked_recipe,
    recipe_text,
    report_rows,
    shown,
)
from slimsearch.report.timeline import Clock, Timeline

MOST_BYTES = 1_700_000
"""The largest size of the data in a page, which stays below 2 MB in total."""

_MOST_TRIALS = (1000, 500, 250, 120, 60)
_MOST_FINALISTS = 40
_PICTURE_BYTES = 600_000
"""The size of pictures from which on further finalists have none."""
_MOST_STEPS = 400
_DRAWING_SECONDS = 8.0
_CLASSES = 20
"""The largest number of classes for which the whole confusion matrix is shown."""
_PAIRS = 20
_LETTERS = 400


def page_text(data: dict[str, Any]) -> str:
    """The result of `page_data` as JSON of at most `MOST_BYTES`; samples the trials of large runs."""
    every, text = data["trials"], ""
    for most in _MOST_TRIALS:
        data = {**data, "trials": _sample(every, most)}
        text = json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        # Escaped, since "<" could end the script element.
        text = text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
        if len(text.encode()) <= MOST_BYTES:
            return text
        data["finalists"] = data["finalists"][: most // 10]
    return text


def page_data(
    directory: Path, trials: Sequence[Trial], models: Sequence[Mapping[str, Any]], ranking: Ranking,
    configuration: Configuration, environment: Mapping[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """The data of the report of a run; `models` is the result of `top_models`."""
    recorded, predicted, saved = trials, latency_predictions(trials), savings(trials)
    front = {t.number for t in ranking.run_front(trials)}
    trials = [t.with_final_metrics() for t in trials]
    timeline = Timeline.of(recorded)
    bars = {bar.trial: bar for bar in timeline.bars}
    labels = list(dict.fromkeys(label for t in trials for label in t.point))
    choices: dict[str, dict[str, int]] = {label: {} for label in labels}
    for label, texts in environment.get("choices", {}).items():  # in the order of the space
        choices.setdefault(label, {}).update({text: index for index, text in enumerate(texts)})
    points, leading = 60 if len(trials) <= 200 else 20, ranking.leading.metric
    rows = []
    for t in trials:
        bar = bars.get(t.number)
        indices = {label: choices[label].setdefault(json.dumps(v), len(choices[label])) for label, v in t.point.items()}
        artifact = t.artifacts.get("model")
        rows.append(
            {
                "number": t.number, "kind": t.kind, "state": t.state,
                "architecture": "as given" if t.given else _short(architecture_text(t.candidate.architecture)),
                "recipe": _short(marked_recipe(t)), "parent": t.parent, "metrics": t.metrics,
                "on_front": t.number in front, "finalist": bool(t.final), "point": indices,
                "curve": _thinned([(p["epoch"], p[leading]) for p in t.curve if leading in p], points),
                "seconds": t.seconds, "error": _short(t.error), "reason": _short(t.reason),
                # The files of other drivers' trials are fetched for finalists only.
                "artifact": artifact if artifact and (directory / artifact).is_file() else None,
                "host": t.host, "bar": None if bar is None else [bar.start, bar.end, bar.lane],
            }
        )  # fmt: skip
    data = {
        "name": directory.name,
        "space": configuration.model or configuration.space,
        "dataset": environment["dataset"],
        "strategy": configuration.strategy,
        "sampler": configuration.sampler,
        "seed": configuration.seed,
        "environment": {name: value for name, value in environment.items() if name != "choices"},
        "objectives": [{"metric": o.metric, "direction": o.direction} for o in ranking.objectives],
        "leading": leading,
        "limits": [f"{limit.flag} {limit.bound:g}" for limit in ranking.limits],
        "counts": {state: sum(t.state == state for t in trials) for state in dict.fromkeys(t.state for t in trials)},
        "of": len(trials),
        "front": len(front),
        "seconds": _seconds(recorded),
        "export": _export_command(directory, configuration, environment),
        "history": history(ranking, recorded),
        "importances": [asdict(found) for found in importances(recorded, ranking.objectives)],
        "timeline": {"lanes": timeline.lanes, "busy": timeline.busy, "breaks": timeline.breaks},
        "choices": {label: list(choices[label]) for label in labels},
        "latency_predictions": None if predicted is None else str(predicted),
        "busy_machine": busy_machine_line(recorded),
        "savings": None if saved is None else str(saved),
        "trials": rows,
        "finalists": _finalists(directory, trials, models, ranking),
        "finalists_of": len(models),
    }
    return _plain(data)  # type: ignore[no-any-return]


def history(ranking: Ranking, trials: Sequence[Trial]) -> dict[str, Any]:
    """Hypervolume and best value of the first objective over the run: [position, value, trial] at each change.

    The position is the number of the trial under "trials", and the run's clock at its end, in seconds, under "seconds".
    Values were recorded during the search; the scale is that of the whole run, so that the last hypervolume is that of
    `run_status`.
    """
    clock = Clock.of(trials)
    first = ranking.objectives[0]

    def series(ordered: Sequence[Trial], position: Callable[[Trial], float]) -> dict[str, list[list[float | None]]]:
        feasible = ranking.feasible(ordered)
        best, least = [], math.inf
        for t in feasible:
            least = min(least, first.loss(t.metrics))
            best.append(-least if first.direction == "maximize" else least)
        marks = [(position(t), t.number) for t in feasible]
        end = max((position(t) for t in ordered), default=0.0)
        return {"volume": _steps(marks, hypervolume_history(ranking, ordered), end), "best": _steps(marks, best, end)}

    return {
        "trials": series(trials, lambda t: float(t.number)),
        "seconds": series(
            sorted((t for t in trials if t.ended > 0), key=lambda t: (t.ended, t.number)), lambda t: clock(t.ended)
        ),
        "breaks": clock.breaks,
        "metric": first.metric,
    }


def _seconds(trials: Sequence[Trial]) -> dict[str, float]:
    """Seconds of a run: "wall", without its pauses; "training" of networks; and of all "trials", added up."""
    clock = Clock.of(trials)
    return {
        "wall": max((clock(t.ended) for t in trials if t.ended), default=0.0),
        "training": sum(t.metrics.get("training_seconds", 0.0) for t in trials),
        "trials": sum(t.seconds for t in trials),
    }


def _export_command(directory: Path, configuration: Configuration, environment: Mapping[str, Any]) -> str | None:
    """The beginning of the command that exports a finalist; None if only Python can build its network."""
    data, model = environment["dataset"], configuration.model
    given = space_from_python(configuration.space) if model is None else ModelKind.of(model) is ModelKind.PYTHON
    if given or "input_shape" not in data or "inputs" in data or "outputs" in data:
        return None
    here = shown(directory)
    # A page that is sent to others does not name folders of this machine.
    return f"slimsearch export {shlex.quote(directory.name if Path(here).is_absolute() else here)}"


def _steps(marks: Sequence[tuple[float, int]], values: Sequence[float], end: float) -> list[list[float | None]]:
    found: list[list[float | None]] = []
    for (position, number), value in zip(marks, values, strict=True):
        if not found or value != found[-1][1]:
            found.append([position, value, number])
    found = _thinned(found, _MOST_STEPS)
    return [*found, [end, found[-1][1], None]] if found and marks[-1][0] <= end else found


def _thinned(values: Sequence[Any], most: int) -> list[Any]:
    """At most `most` values, evenly spaced, including the first and the last."""
    if len(values) <= most:
        return list(values)
    return [values[round(i * (len(values) - 1) / (most - 1))] for i in range(most)]


def _sample(trials: Sequence[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    """At most `most` trials: the front, finalists and their parents first, then an even sample of the others."""
    if len(trials) <= most:
        return list(trials)
    chosen: dict[int, None] = {}
    for wanted in (
        [t["number"] for t in trials if t["on_front"]],
        [t["number"] for t in trials if t["finalist"]],
        [t["parent"] for t in trials if t["parent"] is not None and (t["on_front"] or t["finalist"])],
    ):
        chosen |= dict.fromkeys(_thinned([n for n in wanted if n not in chosen], max(2, most - len(chosen))))
    others = [t["number"] for t in trials if t["number"] not in chosen]
    chosen |= dict.fromkeys(_thinned(others, max(2, most - len(chosen))))
    return [t for t in trials if t["number"] in chosen]


def _finalists(
    directory: Path, trials: Sequence[Trial], models: Sequence[Mapping[str, Any]], ranking: Ranking
) -> list[dict[str, Any]]:
    """Layers, stages, confusion matrix, intervals and ties of each finalist: a given network, then the best first."""
    until = time.monotonic() + _DRAWING_SECONDS
    by_number = {t.number: t for t in report_rows(trials, ranking)}
    found = []
    for model in sorted(models, key=lambda model: not by_number[model["trial"]].given)[:_MOST_FINALISTS]:
        trial = by_number[model["trial"]]
        layers, note = None, None
        if model["artifact"] and not (directory / model["artifact"]).is_file():
            note = "its file is not in the run directory"
        elif model["artifact"] and time.monotonic() > until:
            note = "not drawn: this run has too many or too large networks"
        elif model["artifact"]:
            try:
                layers = [
                    {**asdict(layer), "text": layer.text} for layer in read_layers(directory / model["artifact"])
                ]  # fmt: skip
            except SlimsearchError:
                note = "its file cannot be drawn"
        found.append(
            {
                "trial": trial.number,
                "intervals": model["intervals"],
                "recommended": model.get("recommended"),
                "alike": model.get("cannot_be_told_from", {}),
                "seeds": model.get("over_seeds"),
                "path": [{**step, "what": recipe_text(step["stages"])} for step in model.get("lineage", ())],
                "layers": layers,
                "layers_note": note,
                "confusion": confusion_summary(trial),
                **example_predictions.shown(directory / trial_folder(trial.number)),
            }
        )
    left = _PICTURE_BYTES
    for one in found:
        pictures = [mistake["image"] for mistake in one.get("mistakes", ())] + [one.get("masks")]
        left -= sum(len(picture) for picture in pictures if picture)
        if left < 0:
            one.pop("masks", None)
            one["mistakes"] = [{**mistake, "image": None} for mistake in one.get("mistakes", ())]
    return found


def confusion_summary(trial: Trial) -> dict[str, Any] | None:
    """The whole confusion matrix for few classes, the most confused pairs for many, or None."""
    if not trial.confusion:
        return None
    cells = trial.confusion
    classes = 1 + max(max(true, taken) for true, taken, _ in cells)
    totals: dict[int, int] = {}
    for true, _, images in cells:
        totals[true] = totals.get(true, 0) + images
    wrong = [cell for cell in cells if cell[0] != cell[1]]
    whole = classes <= _CLASSES
    return {
        "whole": whole,
        "classes": classes,
        "cells": cells if whole else wrong[:_PAIRS],
        "totals": totals if whole else {cell[0]: totals[cell[0]] for cell in wrong[:_PAIRS]},
        "wrong": sum(images for *_, images in wrong),
        "images": sum(images for *_, images in cells),
    }


def _short(text: str | None) -> str | None:
    return text if text is None or len(text) <= _LETTERS else f"{text[: _LETTERS - 1]}…"


def _plain(value: Any) -> Any:
    """Convert to plain JSON values with six significant digits; infinities and NaN become None."""
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return int(value) if value.is_integer() and abs(value) < 1e15 else float(f"{value:.6g}")
    return value
