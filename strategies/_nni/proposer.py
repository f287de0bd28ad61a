"""NNI's multi-trial strategies as proposers.

NNI's strategies call an execution engine. Each strategy runs in its own thread, which takes turns with the caller: one
of the two always waits for the other, so that no state is used by two threads at once. Importing this module imports
NNI.
"""

from __future__ import annotations

import copy
import logging
import queue
import threading
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from slimsearch.errors import SlimsearchError, describe_error
from slimsearch.search_spaces import NniSpace, Point, Space
from slimsearch.strategies._proposer import Exhausted

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # about every class of torch that is newer than NNI
    import nni.nas.strategy  # noqa: F401 - for its warnings
    from nni.mutable import Categorical, MutableAnnotation, MutableDict
    from nni.nas.execution import ExecutionEngine
    from nni.nas.execution.event import FinalMetricEvent, TrainingEndEvent
    from nni.nas.space import ExecutableModelSpace, ModelStatus

_SECONDS_TO_END = 10

logging.getLogger("nni").setLevel(logging.ERROR)
logging.getLogger("nni.nas.strategy").setLevel(logging.CRITICAL)  # it also raises the errors that it logs

_Score = tuple[int, float | None]
"""The position of a model among those submitted, and its score: more is better, None where it failed."""


def choices_of(space: Space) -> tuple[dict[str, Any], Callable[[Mapping[str, Any]], Point]]:
    """The choices of `space` as NNI's `Categorical` by label, and the function from an NNI sample to a point.

    Difference from NNI: a choice of k out of n becomes a choice among the subsets that the space lists, and a range a
    choice among its values, so that every strategy can search both. NNI's constraints are included.
    """
    if not isinstance(space, NniSpace):
        # By position, since NNI cannot tell 1, 1.0 and True apart.
        by_position = {c.label: Categorical(range(len(c.values)), label=c.label) for c in space.choices}
        return by_position, lambda sample: {c.label: c.values[sample[c.label]] for c in space.choices}
    own = space._construct().simplify()
    found = {label: mutable for label, mutable in own.items() if isinstance(mutable, Categorical | MutableAnnotation)}
    for choice in space.choices:
        if choice.label not in found:
            found[choice.label] = Categorical(choice.values, label=choice.label)
    labels = [choice.label for choice in space.choices]
    return found, lambda sample: {label: sample[label] for label in labels}


class NniProposer:
    """An NNI strategy as a `Proposer`.

    Args:
        name: of the strategy.
        strategy: the NNI strategy.
        choices, point_of: from `choices_of`.
    """

    def __init__(
        self, name: str, strategy: Any, choices: dict[str, Any], point_of: Callable[[Mapping[str, Any]], Point]
    ) -> None:
        self.name = name
        self._point_of = point_of
        self._engine = engine = _Engine()
        self._positions: dict[str, int] = {}  # key of a proposal -> position of its model
        self._scores: list[_Score] = []
        self._asked = False

        def work() -> None:
            try:
                strategy(_Candidates(choices), engine)
            except BaseException as error:  # raised again in the caller's thread
                engine.requests.put(_Ended(error))
            else:
                engine.requests.put(_Ended(None))

        self._thread = threading.Thread(target=work, name=name, daemon=True)
        self._thread.start()

    def propose(self, key: str) -> Point | None:
        """See `Proposer`."""
        while True:
            if self._asked:
                scores, self._scores = self._scores, []
                self._engine.answers.put(scores)
            self._asked = True
            request = self._engine.requests.get()
            if isinstance(request, _Ended):
                self._engine.requests.put(request)  # for further calls
                self._asked = False
                if request.error is not None:
                    error = describe_error(request.error)
                    raise SlimsearchError(f"{self.name} failed in NNI: {error}") from request.error
                raise Exhausted
            if request is not None:
                self._positions[key] = len(self._positions)
                return self._point_of(request)
            if not self._scores:
                return None

    def tell(self, key: str, losses: tuple[float, ...] | None, *, failed: bool = False) -> None:
        """See `Proposer`; NNI gets the negated first loss, since it maximizes."""
        self._scores.append((self._positions[key], None if losses is None else -losses[0]))

    def close(self) -> None:
        """End the thread."""
        self._engine.over = True
        self._engine.answers.put(())
        self._thread.join(_SECONDS_TO_END)


class _Ended:
    def __init__(self, error: BaseException | None) -> None:
        self.error = error


class _Candidates(ExecutableModelSpace):  # type: ignore[misc]
    """Choices without a network, or a sample of them; NNI's own classes need the network's class."""

    def __init__(self, mutables: dict[str, Any]) -> None:
        super().__init__()
        self.mutables = MutableDict(mutables)
        self.evaluator = None
        self.sample: dict[str, Any] | None = None

    def freeze(self, sample: dict[str, Any]) -> _Candidates:
        self.validate(sample)
        frozen = _Candidates(dict(self.mutables))
        frozen.status = ModelStatus.Frozen
        frozen.sample = copy.deepcopy(sample)
        return frozen

    def check_contains(self, sample: dict[str, Any]) -> Exception | None:
        return self.mutables.check_contains(sample)  # type: ignore[no-any-return]

    def leaf_mutables(self, is_leaf: Callable[[Any], bool]) -> Iterable[Any]:
        yield from self.mutables.leaf_mutables(is_leaf)


class _Engine(ExecutionEngine):  # type: ignore[misc]
    """NNI's interface to the evaluation: exchanges models and their scores with the caller's thread."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: queue.SimpleQueue[dict[str, Any] | _Ended | None] = queue.SimpleQueue()
        self.answers: queue.SimpleQueue[Sequence[_Score]] = queue.SimpleQueue()
        self.over = False
        self._models: list[Any] = []
        self._running: dict[int, Any] = {}

    def submit_models(self, *models: Any) -> None:
        """Submit models; returns when there is room for another one, or when the engine is closed."""
        for model in models:
            model.status = ModelStatus.Training
            self._running[len(self._models)] = model
            self._models.append(model)
            self._exchange(model.sample)

    def wait_models(self, *models: Any) -> None:
        while self._running and not self.over:
            self._exchange(None)

    def list_models(self, status: Any = None) -> Iterable[Any]:
        return [model for model in self._models if status is None or model.status == status]

    def idle_worker_available(self) -> bool:
        return not self.over

    def budget_available(self) -> bool:
        return not self.over

    def _exchange(self, request: dict[str, Any] | None) -> None:
        if self.over:
            return
        self.requests.put(request)
        for number, score in self.answers.get():
            model = self._running.pop(number)
            if score is not None:
                self.dispatch_model_event(FinalMetricEvent(model, score))
            self.dispatch_model_event(
                TrainingEndEvent(model, ModelStatus.Failed if score is None else ModelStatus.Trained)
            )
