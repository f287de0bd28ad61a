"""Trials as text and tables for the terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from slimsearch.errors import escaped
from slimsearch.evaluators import Metrics, Objective, leading_metric
from slimsearch.record.ranking import Ranking
from slimsearch.record.trial import COMPLETE, REJECTED, REPEAT, STEP, Trial

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


_WITH_UNITS = ("latency_ms", "size_kib")


def architecture_text(architecture: Mapping[str, Any]) -> str:
    """``conv2=0 dropout=0.75 feature=256``"""
    return " ".join(f"{label}={value}" for label, value in architecture.items())


def recipe_text(recipe: Mapping[str, Mapping[str, Any]]) -> str:
    """``prune(sparsity=0.6), quantize``"""
    stages = []
    for name, options in recipe.items():
        inside = ", ".join(f"{option}={value}" for option, value in options.items())
        stages.append(f"{name}({inside})" if inside else name)
    return ", ".join(stages)


def marked_recipe(trial: Trial) -> str:
    """The recipe, with the packed size of stages that only save storage, since no runtime executes packed weights."""
    training = {"training": trial.candidate.training} if trial.candidate.training else {}
    recipe = recipe_text({**training, **trial.candidate.recipe})
    packed = trial.metrics.get("packed_kib")
    return recipe if packed is None else f"{recipe} [storage only: packed {size_text(packed)}]"


def candidate_text(trial: Trial) -> str:
    """The architecture, and the recipe if there is one: ``feature=256 + prune(sparsity=0.6)``"""
    if trial.given:
        return "as given"
    architecture, recipe = architecture_text(trial.candidate.architecture), marked_recipe(trial)
    return " + ".join(filter(None, (architecture, recipe)))


def is_share(name: str, values: Iterable[float]) -> bool:
    """Whether a metric is an accuracy to show in percent. An accuracy above 1 is the user's own, in percent already."""
    return name.endswith("accuracy") and all(value <= 1 for value in values)


def metrics_text(metrics: Mapping[str, float]) -> str:
    """``90.71%  0.0193 ms  25.4 KiB``; other metrics if these are missing."""
    texts = []
    leading = leading_metric(metrics)
    if leading == "val_accuracy" and is_share(leading, [metrics[leading]]):
        texts.append(f"{100 * metrics[leading]:.2f}%")
    elif leading is not None:
        texts.append(f"{leading.removeprefix('val_')} {metrics[leading]:.4g}")
    if "latency_ms" in metrics:
        texts.append(f"{metrics['latency_ms']:.3g} ms")
    if "size_kib" in metrics:
        texts.append(size_text(metrics["size_kib"]))
    others = {k: v for k, v in metrics.items() if k not in (leading, *_WITH_UNITS)} if len(texts) < 2 else {}
    return "  ".join([*texts, *(f"{name} {value:.6g}" for name, value in others.items())])


def size_text(kib: float) -> str:
    """``25.4 KiB`` or ``1250 KiB``"""
    return f"{kib:.1f} KiB" if kib < 1000 else f"{kib:.0f} KiB"


def seconds_text(seconds: float) -> str:
    """``12 s``, ``4 min`` or ``2.5 h``"""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def console(file: IO[str] | None = None) -> Console:
    """The console for tables on `file`, by default stdout; 120 columns wide if stdout is not a terminal."""
    from rich.console import Console

    return Console(file=file, highlight=False, width=None if sys.stdout.isatty() else 120)


def shown(path: Path) -> str:
    """`path`, relative to the current folder if it lies in it."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def plain(text: str) -> str:
    """`text` for tables and lines of rich: no markup, and characters that control a terminal are escaped."""
    from rich.markup import escape

    return escape(escaped(text))


_SHARES = {"val_accuracy": ("val %", "{:.2f}"), "test_accuracy": ("test %", "{:.2f}")}
_CELLS = {
    **_SHARES,
    "latency_ms": ("latency ms", "{:#.3g}"),
    "energy_mj": ("energy mJ", "{:#.3g}"),
    "size_kib": ("size KiB", "{:.1f}"),
    "ram_kib": ("RAM KiB", "{:.1f}"),
    "flash_kib": ("flash KiB", "{:.1f}"),
    "params": ("params", "{:,.0f}"),
}


def metric_columns(rows: Sequence[Metrics], objectives: Sequence[Objective]) -> dict[str, tuple[str, str]]:
    """Heading and format of the usual metrics that all `rows` have, and of the objectives, also on the test split."""
    columns = {name: cell for name, cell in _CELLS.items() if all(name in metrics for metrics in rows)}
    for name in columns.keys() & _SHARES.keys():
        if not is_share(name, [metrics[name] for metrics in rows]):
            columns[name] = (name, "{:.4g}")
    own: dict[str, tuple[str, str]] = {}
    for objective in objectives:
        tested = objective.metric.replace("val_", "test_", 1)
        for name in (objective.metric, *([tested] if all(tested in metrics for metrics in rows) else [])):
            if name not in columns:
                own[name] = (name, "{:.4g}" if name in (tested, leading_metric([name])) else "{:.6g}")
    # The leading metric is in front.
    return {**own, **columns} if leading_metric(own) is not None else {**columns, **own}


def metric_cells(metrics: Metrics, columns: Mapping[str, tuple[str, str]]) -> list[str]:
    """`metrics` as text in `metric_columns`."""
    return [
        form.format(metrics[name] * (100 if heading.endswith("%") else 1)) for name, (heading, form) in columns.items()
    ]


def final_table(trials: Sequence[Trial], ranking: Ranking) -> Table:
    """The finalists: a given network, then those on the front, marked with an asterisk, and the others."""
    from rich.table import Table

    front = {t.number for t in ranking.run_front(trials)}
    product = ranking.product(trials)
    table = Table(title="Finalists (*: on the Pareto front)", title_justify="left")
    table.add_column("")
    table.add_column("trial", justify="right")
    table.add_column("architecture, compression", overflow="fold", min_width=20)
    finalists = sorted((t for t in report_rows(trials, ranking) if t.state != REJECTED), key=lambda t: not t.given)
    columns = metric_columns([t.metrics for t in finalists], ranking.objectives)
    for heading, _ in (*columns.values(), *([("score", "")] if product else [])):
        table.add_column(heading, justify="right", no_wrap=True)
    for trial in finalists:
        mark = "*" if trial.number in front else ""
        cells = [mark, str(trial.number), plain(candidate_text(trial)), *metric_cells(trial.metrics, columns)]
        if product is not None:
            cells.append(f"{product.score(trial.metrics):.4f}")
        table.add_row(*cells, style="bold" if trial.number in front else None)
    return table


def best_lines(models: Sequence[Mapping[str, Any]], ranking: Ranking) -> list[str]:
    """The best trial in each objective, and those on the front that do not differ significantly from it."""
    front = [model for model in models if model["on_front"]]
    columns = metric_columns([model["metrics"] for model in front], ranking.objectives)
    lines = []
    for objective in ranking.objectives:
        if not front or len(front) == 1:
            break
        best = min(front, key=lambda model: (objective.loss(model["metrics"]), model["trial"]))
        ties = best["cannot_be_told_from"].get(objective.metric, [])
        test = ""
        if objective.metric == "latency_ms" or f"{objective.metric}_low" in best["metrics"]:
            test = " (the intervals overlap)"
        elif objective.metric == "val_accuracy" and "val_images" in best["metrics"]:
            test = f" (McNemar's test on {best['metrics']['val_images']:.0f} images)"
        name, _ = columns[objective.metric]
        others = f"; no significant difference to {numbers_text(ties)}{test}" if ties else ""
        lines.append(f"best {name}: trial {best['trial']}{others}")
    return lines


def numbers_text(trials: Sequence[int]) -> str:
    """``trial 3`` or ``trials 3, 5 and 7``"""
    text = [str(number) for number in trials]
    return f"trial {text[0]}" if len(text) == 1 else f"trials {', '.join(text[:-1])} and {text[-1]}"


def seed_lines(models: Sequence[Mapping[str, Any]]) -> list[str]:
    """Mean and standard deviation of each finalist trained with several seeds."""
    lines = []
    for model in models:
        seeds = model.get("over_seeds")
        if seeds is None:
            continue
        values = []
        for name, found in seeds.items():
            if name in _SHARES and is_share(name, [found["mean"]]):
                mean, deviation = (100 * found[statistic] for statistic in ("mean", "standard_deviation"))
                values.append(f"{_SHARES[name][0]} {mean:.2f} ± {deviation:.2f}")
            elif isinstance(found, dict) and (name in _SHARES or name not in _CELLS):
                values.append(f"{name} {found['mean']:.6g} ± {found['standard_deviation']:.2g}")
        lines.append(f"trial {model['trial']} over {seeds['trainings']} seeds: {', '.join(values)}")
    return lines


def rejected_lines(trials: Sequence[Trial]) -> list[str]:
    """One line for each rejected compression stage, with its metrics and the reason."""
    return [
        f"rejected: trial {t.number}, {recipe_text(t.candidate.recipe)} of trial {t.parent} "
        f"({metrics_text(t.metrics)}): {t.reason}"
        for t in trials
        if t.state == REJECTED
    ]


def busy_machine_line(trials: Sequence[Trial]) -> str | None:
    """A warning about finalists whose latency was measured on a busy machine, or None."""
    numbers = [t.number for t in _finalists(trials) if t.metrics.get("latency_calm", 1.0) == 0]
    if not numbers:
        return None
    verb = "latency is" if len(numbers) == 1 else "latencies are"
    return f"The machine was busy: the measured {verb} unreliable for {numbers_text(numbers)}."


def report_rows(trials: Sequence[Trial], ranking: Ranking) -> list[Trial]:
    """Finalists, those on the front first, each group by the first objective; then rejected compression stages."""
    finalists = _finalists(trials)
    front = [t for t in ranking.run_front(trials) if t.final]
    numbers = {t.number for t in front}
    others = sorted(
        (t for t in finalists if t.number not in numbers),
        key=lambda t: (ranking.objectives[0].loss(t.metrics), t.number),
    )
    return [*front, *others, *(t for t in trials if t.state == REJECTED)]


def _finalists(trials: Sequence[Trial]) -> list[Trial]:
    return [t.with_final_metrics() for t in trials if t.state == COMPLETE and t.final and t.kind not in (REPEAT, STEP)]
