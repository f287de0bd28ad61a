"""The public API of Slimsearch, imported when one of its functions is first used.

>>> import slimsearch
>>> result = slimsearch.search("lenet", "mnist5k", trials=4, epochs=2)  # doctest: +SKIP
>>> result.top_models(3)  # doctest: +SKIP
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from slimsearch import _import_fixes
from slimsearch.errors import SlimsearchError

if TYPE_CHECKING:
    from slimsearch.api import (
        accuracy,
        build,
        compress,
        export,
        load_dataset,
        load_network,
        plot,
        resume,
        score,
        search,
        train,
    )
    from slimsearch.evaluators.tasks import LearningTask
    from slimsearch.optuna_sampler import GraphGPSampler
    from slimsearch.report.result import Result

__all__ = [
    "GraphGPSampler", "LearningTask", "Result", "SlimsearchError", "accuracy", "build", "compress", "export",
    "load_dataset", "load_network", "plot", "resume", "score", "search", "train",
]  # fmt: skip

_import_fixes.install()

# NNI prints this for every class that is newer than NNI.
warnings.filterwarnings("ignore", message=r".*is found to be not a nn\.Module", category=RuntimeWarning)


def __getattr__(name: str) -> Any:
    # Lazy, since every module of the package imports this one first.
    if name == "GraphGPSampler":
        from slimsearch.optuna_sampler import GraphGPSampler

        return GraphGPSampler
    if name == "LearningTask":
        from slimsearch.evaluators.tasks import LearningTask

        return LearningTask
    if name == "Result":
        from slimsearch.report.result import Result

        return Result
    if name == "__version__":
        from importlib.metadata import version

        return version("slimsearch")
    if name in __all__:
        from slimsearch import api

        return getattr(api, name)
    raise AttributeError(f"module 'slimsearch' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
