"""Result of a run: its models, front and recommended model, as dicts, tables and plots."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimsearch.errors import SlimsearchError, escaped
from slimsearch.html_table import rows_table
from slimsearch.record.trial import Trial
from slimsearch.report.tables import architecture_text, metrics_text, recipe_text

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, repr=False)
class Result:
    """The result of a run.

    Attributes:
        directory: the run directory; paths of artifacts are relative to it.
        trials: all trials, by number.
        models: the content of ``top_models.json``, the front first.
    """

    directory: Path
    trials: tuple[Trial, ...]
    models: tuple[dict[str, Any], ...]

    @property
    def best(self) -> dict[str, Any]:
        """The recommended model (see ``--prefer``); "recommended" says why.

        Raises:
            SlimsearchError: no model is on the front.
        """
        found = next((model for model in self.models if "recommended" in model), None)
        if found is None:
            raise SlimsearchError(f"'{self.directory}': no model is on the Pareto front")
        return self._opened(found)

    @property
    def front(self) -> list[dict[str, Any]]:
        """The models on the Pareto front, as dicts like those of `top_models`."""
        return [self._opened(model) for model in self.models if model["on_front"]]

    def top_models(self, count: int) -> list[dict[str, Any]]:
        """The first `count` models, the front first.

        Returns:
            dicts with ``architecture``, ``recipe``, ``metrics``, ``artifact`` (path in the run directory) and ``path``
            (absolute path of the file, or None if there is no file).
        """
        return [self._opened(model) for model in self.models[:count]]

    def to_dataframe(self) -> pandas.DataFrame:
        """All trials as a pandas data frame, one row each: state, choices, recipe and metrics."""
        import pandas

        models = {model["trial"]: model for model in self.models}
        rows = [
            {
                "trial": trial.number, "kind": trial.kind, "state": trial.state,
                "on_front": models.get(trial.number, {}).get("on_front", False),
                **{f"architecture.{label}": value for label, value in trial.candidate.architecture.items()},
                "recipe": recipe_text(trial.candidate.recipe), **trial.with_final_metrics().metrics,
                "seconds": trial.seconds, "error": trial.error, "reason": trial.reason,
            }
            for trial in self.trials
        ]  # fmt: skip
        return pandas.DataFrame(rows)

    def plot(self, kind: str = "front", path: str | Path | None = None, *, storage: str | None = None) -> Path:
        """Draw a plot of the report, by default to ``<kind>.png`` in the run directory; see `slimsearch.plot`."""
        from slimsearch.report.plots import plot

        path = self.directory / f"{kind}.png" if path is None else path
        return plot(self.directory, kind, path, storage=storage)

    def report(self) -> Path:
        """Absolute path of the HTML report."""
        return (self.directory / "report.html").absolute()

    def __repr__(self) -> str:
        front = sum(model["on_front"] for model in self.models)
        best = next((f", best: trial {one['trial']}" for one in self.models if "recommended" in one), "")
        return (
            f"<Result '{escaped(str(self.directory))}': {len(self.trials)} trials, {front} models on the front{best}>"
        )

    def _repr_html_(self) -> str:
        return rows_table(
            repr(self),
            ("trial", "front", "architecture", "recipe", "metrics", "artifact"),
            [
                (
                    str(model["trial"]), "★" if model["on_front"] else "", architecture_text(model["architecture"]),
                    recipe_text(model["recipe"]), metrics_text(model["metrics"]), model["artifact"] or "",
                )
                for model in self.models
            ],
        )  # fmt: skip

    def _opened(self, model: dict[str, Any]) -> dict[str, Any]:
        artifact = model["artifact"]
        return {**model, "path": None if artifact is None else str((self.directory / artifact).absolute())}
