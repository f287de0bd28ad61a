"""The result of the compression of one network: what it was, what it is now, and what became of each stage."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimsearch.compression import Network
from slimsearch.errors import SlimsearchError, escaped
from slimsearch.evaluators import Objective, leading_metric
from slimsearch.html_table import rows_table
from slimsearch.options.existing_networks import stored_network
from slimsearch.record.lineage import compression_lineage
from slimsearch.record.trial import COMPLETE, COMPRESSION, FAILED, Trial
from slimsearch.report.reliability import intervals
from slimsearch.report.result import Result
from slimsearch.report.tables import metric_cells, metric_columns, metrics_text, plain, recipe_text

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class AppliedStages:
    """Stages of a recipe that were applied together, and scored as a file.

    Attributes:
        recipe: the stages with their options.
        kept: whether the result was compressed further, or is the final one.
        verdict: accuracy with its interval, speed and size relative to the file before; and why it was rejected.
        metrics: of the file.
    """

    recipe: Mapping[str, Mapping[str, Any]]
    kept: bool
    verdict: str
    metrics: Mapping[str, float]


@dataclass(frozen=True, repr=False)
class Compressed:
    """A compressed network, with the numbers to judge it by; a table when it is printed.

    Attributes:
        network: the network after the stages that were kept.
        path: its ONNX file, in the run directory.
        directory: of the run, with ``report.html``.
        before, after: metrics of the files of the given network and of `network`, measured together: ``val_accuracy``
            with ``val_accuracy_low`` and ``val_accuracy_high`` (95%), ``latency_ms`` with its interval, ``size_kib``,
            ``params``, and ``test_accuracy`` where the data set has a test split.
        stages: in order, the rejected ones too.
    """

    network: Network
    path: Path
    directory: Path
    before: Mapping[str, float]
    after: Mapping[str, float]
    stages: tuple[AppliedStages, ...]

    @classmethod
    def of(cls, result: Result, module: nn.Module) -> Compressed:
        """The result of a run that was given `module` and a recipe.

        Raises:
            SlimsearchError: a stage failed.
        """
        failed = next((trial for trial in result.trials if trial.state == FAILED), None)
        if failed is not None:
            raise SlimsearchError(f"{recipe_text(failed.candidate.recipe)}: {failed.error}")
        given = next(trial for trial in result.trials if trial.given)
        applied = [trial for trial in result.trials if trial.kind == COMPRESSION]
        last = [given, *(trial for trial in applied if trial.state == COMPLETE)][-1]
        artifact = last.artifacts["model"]
        entry = {"architecture": dict(last.candidate.architecture), "artifact": artifact}
        stages = [_applied(trial, result) for trial in applied]
        return cls(
            stored_network(result.directory, entry, space=module), result.directory / artifact, result.directory,
            _metrics(given), _metrics(last), tuple(stages),
        )  # fmt: skip

    @property
    def module(self) -> nn.Module:
        """The network in PyTorch; of an int8 file, the float32 network that was quantized."""
        return self.network.module

    @property
    def params(self) -> int:
        """Number of parameters of the compressed network."""
        return self.network.params

    def save(self, folder: str | Path) -> None:
        """Store the network without pickle; ``Network.load(fresh_module, folder)`` loads it."""
        self.network.save(folder)

    def __repr__(self) -> str:
        kept = f"{sum(stage.kept for stage in self.stages)} of {len(self.stages)} stages kept"
        return f"<Compressed '{escaped(str(self.path))}': {metrics_text(self.after)}, {kept}>"

    def _repr_html_(self) -> str:
        headings, rows = self._table()
        return rows_table(repr(self), headings, rows)

    def __str__(self) -> str:
        from rich.console import Console
        from rich.table import Table

        (first, *middle, last), rows = self._table()
        table = Table()
        table.add_column(first, overflow="fold", min_width=12)
        for heading in middle:
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column(last, overflow="fold", min_width=20)
        for row in rows:
            table.add_row(*map(plain, row))
        text = io.StringIO()
        Console(file=text, width=120, highlight=False).print(table)
        return f"{text.getvalue()}file: {self.path}"

    def _table(self) -> tuple[list[str], list[list[str]]]:
        """The headings and the rows of the table: the network as given, and each stage."""
        rows = [("as given", self.before, "")]
        rows += [
            (recipe_text(stage.recipe), stage.metrics, f"{'kept' if stage.kept else 'rejected'}: {stage.verdict}")
            for stage in self.stages
        ]
        leading = leading_metric(self.before)
        columns = metric_columns(
            [metrics for _, metrics, _ in rows], () if leading is None else (Objective(leading, "maximize"),)
        )
        headings = ["network", *(heading for heading, _ in columns.values()), "verdict"]
        return headings, [[name, *metric_cells(metrics, columns), verdict] for name, metrics, verdict in rows]


def _applied(trial: Trial, result: Result) -> AppliedStages:
    before = compression_lineage(trial, result.trials)[-2].candidate.recipe
    recipe = {stage: options for stage, options in trial.candidate.recipe.items() if stage not in before}
    return AppliedStages(recipe, trial.state == COMPLETE, trial.reason or "", _metrics(trial))


def _metrics(trial: Trial) -> dict[str, float]:
    found = dict(trial.with_final_metrics().metrics)
    if "val_accuracy" in (ranges := intervals(found)):
        found["val_accuracy_low"], found["val_accuracy_high"] = ranges["val_accuracy"]
    return found
