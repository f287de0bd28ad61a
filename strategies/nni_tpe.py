"""NNI's tree-structured Parzen estimator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from slimsearch.errors import SlimsearchError
from slimsearch.strategies._nni.multi_trial import MultiTrial


@dataclass
class NniTpe(MultiTrial):
    """`nni.nas.strategy.TPE`: models each choice independently; a repeated candidate is replaced by one of the grid.

    Source: Bergstra et al. 2011. Differences from NNI: it maximizes the metric (NNI minimizes it by default, although
    it is an accuracy), and it does not pause for a second after every candidate.
    """

    NAME: ClassVar[str] = "nni_tpe"

    def _strategy(self, choices: dict[str, Any]) -> Any:
        import nni
        from nni.mutable import MutableAnnotation
        from nni.nas.strategy import TPE

        for label, mutable in choices.items():
            if isinstance(mutable, MutableAnnotation):
                raise SlimsearchError(
                    f"nni_tpe cannot keep constraints, and the space has '{label}'; "
                    "nni_random, nni_grid and nni_evolution can"
                )

        class WithoutPause(TPE):  # type: ignore[misc]
            def _run(self) -> None:
                space = {label: mutable.as_legacy_dict() for label, mutable in self.model_space.simplify().items()}
                self.tuner.update_search_space(space)
                while self.engine.budget_available():
                    try:
                        sample = self.tuner.generate_parameters(self._model_count)
                    except nni.NoMoreTrialError:
                        break
                    model = self.model_space.freeze(sample)
                    self._model_to_id[model] = self._model_count
                    self._model_count += 1
                    self.engine.submit_models(model)

        return WithoutPause(optimize_mode="maximize", seed=self.settings.seed)
