"""Tables of docs/scaling.md from the measurements of ray_scaling.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

from experiments.benchmarks import _ray_utilisation
from experiments.benchmarks._cluster_simulation import Costs, Workload, enough, simulate
from experiments.benchmarks._latency_under_load import compare_with_quiet
from experiments.benchmarks._output import table
from experiments.benchmarks._ray_driver import costs
from experiments.benchmarks._ray_no_op import DEFAULTS, OURS

WORKERS = (1, 2, 10, 100, 1000)
SECONDS = (30, 120, 600)
EPOCHS = 10
SHARE = 0.85
HISTORY = 1000
"""Number of recorded trials for which proposals are timed."""

_FULL = 0.95
_SHARES = {
    "work": "training, evaluation, measuring",
    "imports": "first evaluations of processes: imports",
    "answers": "waiting for answers to reports",
    "queue": "waiting for a core",
    "waiting": "waiting while another trial's latency is measured, and for the disk",
    "before": "a trial's process is found or started",
    "after": "from a trial's end to its record",
    "idle": "no trial",
}

Found = Mapping[str, Any]


def tables(found: Found) -> dict[str, str]:
    """The tables in Markdown, by their names in the page."""
    return {
        "machine": _machine(found),
        "no_op": _no_op(found["no_op"]),
        "utilisation": _utilisation([*found["real"], found["shorter"]]),
        "latency": _latency(found["real"], found["latency"]),
        "driver": _driver(found["driver"], found["proposals"]),
        "validation": _validation(found),
        "simulation": _simulation(found),
        "bottleneck": _bottleneck(found),
    }


def _machine(found: Found) -> str:
    small = " A small run: these figures say nothing." if found["quick"] else ""
    return f"{found['cores']} cores of {found['processor']}, Ray {found['ray']}, Python {found['python']}.{small}\n"


def _no_op(rows: Sequence[Found]) -> str:
    plain = {row["repeat"]: _rate(row) for row in rows if row["what"] == DEFAULTS}
    made = []
    for what in dict.fromkeys(row["what"] for row in rows):
        own = [row for row in rows if row["what"] == what]
        rates = [_rate(row) for row in own]
        ratios = [_rate(row) / plain[row["repeat"]] for row in own]
        made.append([
            f"`{what}`" if what == OURS else what, str(own[0]["trials"]), _spread(rates, ".2f"), _spread(ratios, ".1f"),
            f"{median(row['start'] for row in own):.1f}", f"{median(row['first'] for row in own):.1f}",
        ])  # fmt: skip
    headings = ["", "trials", "trials a second", "times the defaults", "start, s", "first trial, s"]
    return table(headings, made)


def _rate(row: Found) -> float:
    return float(row["trials"] / row["all"])


def _spread(values: Sequence[float], form: str) -> str:
    middle = f"{median(values):{form}}"
    return middle if len(values) == 1 else f"{middle} ({min(values):{form}} to {max(values):{form}})"


def _utilisation(runs: Sequence[Found]) -> str:
    found = [asdict(_ray_utilisation.shares(run)) for run in runs]
    rows = [[text, *(f"{100 * one[name]:.1f}" for one in found)] for name, text in _SHARES.items()]
    rows.append(["seconds of the strategy, its start included", *(f"{run['seconds']:.1f}" for run in runs)])
    rows.append(
        ["trials an hour, once the first has ended", *(f"{_ray_utilisation.per_hour(run):.0f}" for run in runs)]
    )
    heading = f"% of workers x wall time, {len(runs[0]['trials'])} trials"
    return table([heading, *(f"{_workers(run['workers'])}, {run['epochs']} epochs" for run in runs)], rows)


def _workers(count: int) -> str:
    return f"{count:,} worker{'s' if count > 1 else ''}"


def _latency(runs: Sequence[Found], measured: Found) -> str:
    quiet = measured["quiet"]
    compared = {
        f"in the search, {_workers(run['workers'])}": [row["latency_ms"] for row in run["trials"]]
        for run in runs
        if run["workers"] == measured["workers"]
    }
    compared |= {
        "quiet, measured again": measured["again"],
        "not exclusive, one process trains": measured["beside"],
        "not exclusive, two processes train": measured["beside_two"],
    }
    rows = []
    for name, values in compared.items():
        agrees = compare_with_quiet(values, quiet)
        correlation = "" if agrees.rank_correlation is None else f"{agrees.rank_correlation:.3f}"
        rows.append([name, correlation, f"{agrees.ratio:.2f}", f"{agrees.lowest:.2f} to {agrees.highest:.2f}"])
    return table(["", "rank correlation with quiet", "median ratio", "ratios"], rows)


def _driver(driven: Sequence[Found], proposals: Sequence[Found]) -> str:
    rows = [
        [
            _workers(row["workers"]), f"{row['trials_per_second']:.1f}", f"{row['proposal_ms'] + row['record_ms']:.1f}",
            f"{row['engine_ms']:.1f}", f"{row['record_report_ms']:.2f}", f"{row['engine_report_ms']:.2f}",
            f"{row['alive_seconds']:.0f}", f"{row['memory_mib']:,.0f}",
        ]
        for row in driven
    ]  # fmt: skip
    headings = [
        "", "trials a second", "record, ms a trial", "engine, ms a trial", "record, ms a report", "engine, ms a report",
        "until all have begun, s", "memory, MiB",
    ]  # fmt: skip
    proposing = ", ".join(f"{row['ms']:.1f} after {row['history']:,} trials" for row in proposals)
    return f"{table(headings, rows)}\nA proposal of `{proposals[0]['sampler']}` takes besides, in ms: {proposing}.\n"


def _costs(found: Found) -> Callable[[int], Costs]:
    proposal = next(row["ms"] for row in found["proposals"] if row["history"] == HISTORY)
    return costs(found["driver"], proposal)


def _validation(found: Found) -> str:
    alone = next(run for run in found["real"] if run["workers"] == 1)
    trial_means = _ray_utilisation.trial_means(alone)
    rows = []
    for run in found["real"]:
        trials = Workload(trial_means.evaluation, run["epochs"], trial_means.dispatch)
        # These networks were proposed at random.
        load = simulate(run["workers"], trials, costs(found["driver"], 0.0)(run["workers"]))
        measured = _ray_utilisation.per_hour(run)
        rows.append([
            _workers(run["workers"]), f"{measured:.0f}", f"{load.trials_per_hour:.0f}",
            f"{load.trials_per_hour / measured:.2f}",
        ])  # fmt: skip
    return table(["", "trials an hour, measured", "simulated", "ratio"], rows)


def _simulation(found: Found) -> str:
    with_workers = _costs(found)
    rows = []
    for seconds in SECONDS:
        trials = Workload(seconds, EPOCHS, _dispatch(found))
        cells = []
        for workers in WORKERS:
            load = simulate(workers, trials, with_workers(workers))
            full = " *" if load.driver > _FULL else ""
            cells.append(f"{load.trials_per_hour:,.0f}, {100 * load.utilisation:.0f}%{full}")
        rows.append([f"{seconds} s", *cells, f"{enough(trials, with_workers, SHARE):,}"])
    headings = ["a trial takes", *(_workers(workers) for workers in WORKERS)]
    return table([*headings, f"workers that one driver keeps {100 * SHARE:.0f}% busy"], rows)


def _dispatch(found: Found) -> float:
    return _ray_utilisation.trial_means(next(run for run in found["real"] if run["workers"] == 1)).dispatch


def _bottleneck(found: Found) -> str:
    with_workers = _costs(found)
    trials = Workload(SECONDS[0], EPOCHS, _dispatch(found))
    full = [w for w in WORKERS if simulate(w, trials, with_workers(w)).driver > _FULL]
    reached = full[0] if full else WORKERS[-1]
    there = with_workers(reached)
    seconds, parts = there.trial(EPOCHS), there.parts(EPOCHS)
    spelt = ", ".join(f"{name} {1000 * value:.0f}" for name, value in parts.items())
    most = max(parts, key=lambda name: parts[name])
    live = [(row["workers"], row["memory_mib"]) for row in found["driver"]]
    each = (live[-1][1] - live[0][1]) / (live[-1][0] - live[0][0])
    said = f"the first bottleneck is the driver, most of all its {most}" if full else "it is no bottleneck yet"
    return (
        f"With {_workers(reached)} a trial of {EPOCHS} epochs takes {1000 * seconds:.0f} ms of the driver ({spelt}). "
        f"So it ends at most {1 / seconds:.1f} trials a second, {3600 / seconds:,.0f} an hour: where trials take "
        f"{SECONDS[0]} s, {said}. The processes of a trial that does nothing take {each:.0f} MiB of its node.\n"
    )
