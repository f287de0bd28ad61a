"""The recommended model of a run, and why: the knee of the Pareto front, or the best model in one objective."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from slimsearch.evaluators import Metrics, Objective
from slimsearch.record.ranking import Ranking
from slimsearch.report.tables import is_share, metrics_text, numbers_text

_ALONE = {"small": Objective("size_kib", "minimize"), "fast": Objective("latency_ms", "minimize")}
_LEAST_ERROR = 1e-3
"""Differences between errors below this one do not count in the choice of the knee."""
_COMPARED = {"latency_ms": ("faster", "slower"), "size_kib": ("smaller", "larger")}


def recommend(models: Sequence[Mapping[str, Any]], ranking: Ranking, prefer: str) -> tuple[int, str] | None:
    """The trial of the recommended model, and its accuracy with a 95% interval and how it compares, as text.

    Args:
        models: the content of ``top_models.json``.
        ranking: of the run.
        prefer: "balanced": the member of the front that is nearest to the best values of all objectives, each on a
            scale from 0 (best on the front) to 1 (worst), logarithmic for costs and for the error of proportions.
            "accuracy", "small", "fast": the best in the leading metric, the size or the latency.

    Returns:
        None if there is no front.
    """
    front = [model for model in models if model["on_front"]]
    if not front:
        return None
    chosen = _best(front, ranking, prefer)
    texts = [_metrics(chosen, ranking), *_ties(chosen, ranking)]
    other, name = _reference(models, ranking)
    if other["trial"] != chosen["trial"] and (changes := _changes(chosen["metrics"], other["metrics"])):
        texts.insert(1, f"{changes} than {name} (trial {other['trial']})")
    return chosen["trial"], "; ".join(texts)


def program(file: str) -> tuple[str, ...]:
    """A Python program that runs an exported file on one example of zeros."""
    if file.endswith(".tflite"):
        return (
            "import numpy, ai_edge_litert.interpreter",
            f"run = ai_edge_litert.interpreter.Interpreter({file!r}).get_signature_runner()",
            "print(run(**{name: numpy.zeros(of['shape'], 'float32') for name, of in run.get_input_details().items()}))",
        )
    if file.endswith(".pte"):
        return (
            "import torch, executorch.runtime",
            f"method = executorch.runtime.Runtime.get().load_program({file!r}).load_method('forward')",
            "print(method.execute([torch.zeros(method.metadata.input_tensor_meta(0).sizes())]))",
        )
    return (
        "import numpy, onnxruntime",
        f"session = onnxruntime.InferenceSession({file!r})",
        "print(session.run(None, {i.name: numpy.zeros((1, *i.shape[1:]), 'float32') for i in session.get_inputs()}))",
    )


def _best(front: Sequence[Mapping[str, Any]], ranking: Ranking, prefer: str) -> Mapping[str, Any]:
    alone = _leading(ranking) if prefer == "accuracy" else _ALONE.get(prefer)
    if alone is not None and all(alone.metric in model["metrics"] for model in front):
        return min(front, key=lambda model: (alone.loss(model["metrics"]), model["trial"]))
    scales = [_scaled([model["metrics"][one.metric] for model in front], one) for one in ranking.objectives]
    distances = [math.hypot(*values) for values in zip(*scales, strict=True)]
    return min(zip(distances, front, strict=True), key=lambda pair: (pair[0], pair[1]["trial"]))[1]


def _leading(ranking: Ranking) -> Objective:
    """The leading metric if the run has it: functions and tables need not."""
    return ranking.leading if ranking.leading in ranking.objectives else ranking.objectives[0]


def _scaled(values: Sequence[float], objective: Objective) -> list[float]:
    """Losses from 0 (the best of `values`) to 1 (the worst)."""
    if objective.direction == "minimize":
        losses = [math.log(value) for value in values] if min(values) > 0 else list(values)
    elif min(values) >= 0 and max(values) <= 1:
        losses = [math.log(1 - value + _LEAST_ERROR) for value in values]
    else:
        losses = [-value for value in values]
    least, most = min(losses), max(losses)
    return [(loss - least) / (most - least) if most > least else 0.0 for loss in losses]


def _reference(models: Sequence[Mapping[str, Any]], ranking: Ranking) -> tuple[Mapping[str, Any], str]:
    """The best network without compression, or without any, the best of all."""
    plain = [model for model in models if not model["recipe"]]
    best = min(plain or models, key=lambda model: (_leading(ranking).loss(model["metrics"]), model["trial"]))
    if plain and not best["architecture"]:
        return best, "the given network"
    return best, "the best uncompressed network" if plain else "the best network"


def _metrics(model: Mapping[str, Any], ranking: Ranking) -> str:
    metrics, leading = model["metrics"], _leading(ranking).metric
    tested = leading.replace("val_", "test_", 1)
    name = tested if tested in metrics else leading
    split = {"test_": " on the test split", "val_": " on the validation split"}.get(name.partition("_")[0] + "_", "")
    in_percent = is_share(name, [metrics[name]] if name in metrics else [])
    form = _percent if in_percent else "{:.4g}".format
    value = form(metrics[name]) if name in metrics else metrics_text(metrics)
    what = "" if in_percent else f"{name.removeprefix('test_').removeprefix('val_')} "
    interval = model["intervals"].get(name)
    between = "" if interval is None else f" (95% interval {form(interval[0])} to {form(interval[1])})"
    return f"{what}{value}{split}{between}"


def _percent(value: float) -> str:
    return f"{100 * value:.1f}%"


def _changes(new: Metrics, old: Metrics) -> str:
    texts = []
    for name, (better, worse) in _COMPARED.items():
        if new.get(name, 0) > 0 and old.get(name, 0) > 0:
            ratio = old[name] / new[name]
            if max(ratio, 1 / ratio) >= 1.05:
                texts.append(f"{max(ratio, 1 / ratio):.1f}x {better if ratio > 1 else worse}")
    return " and ".join(texts)


def _ties(model: Mapping[str, Any], ranking: Ranking) -> list[str]:
    metric = _leading(ranking).metric
    ties = sorted(model.get("cannot_be_told_from", {}).get(metric, []))
    name = metric.removeprefix("val_")
    return [f"{name} not significantly different from {numbers_text(ties)}"] if ties else []
