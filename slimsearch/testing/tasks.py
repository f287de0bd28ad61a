"""Laws of learning tasks."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import cloudpickle
import numpy as np
import pytest

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators.tasks import LearningTask, load_task
from slimsearch.testing._contract import Contract

Array = np.ndarray[Any, np.dtype[Any]]


class LearningTaskContract(Contract):
    """Laws of learning tasks.

    Attributes:
        task: a value of ``--task``, or a task; or a list of these.
        targets: (N, ...), as a source gives them; at least 64 of them.
        input_shape: of one example.
    """

    subject = "task"
    targets: ClassVar[Any]
    input_shape: ClassVar[tuple[int, ...]] = (3, 8, 8)

    @pytest.fixture(scope="class")
    @classmethod
    def learned(cls, task: Any) -> LearningTask:
        """The task, fitted to its targets."""
        found = load_task(task)
        return found.fitted(found.read(np.asarray(cls.targets)).values)

    @pytest.fixture
    def values(self, learned: LearningTask) -> Array:
        """The targets as the task reads them."""
        return learned.read(np.asarray(self.targets)).values

    @pytest.fixture
    def outputs(self, learned: LearningTask, values: Array) -> Array:
        """Random outputs of a network."""
        names = learned.read(np.asarray(self.targets)).names
        shape = learned.output_shape(len(names), self.input_shape)
        if shape is None:
            pytest.skip("the task does not say what its outputs look like")
        return np.random.default_rng(0).normal(size=(len(values), *shape)).astype(np.float32)

    def test_targets_of_another_kind_are_refused(self, learned: LearningTask) -> None:
        for wrong in (np.full((64,), "x"), np.zeros((0,), dtype=np.int64), np.array(None)):
            with pytest.raises(SlimsearchError):
                learned.read(wrong)

    def test_the_loss_is_a_number_that_outputs_lower(
        self, learned: LearningTask, values: Array, outputs: Array
    ) -> None:
        import torch

        given = torch.tensor(outputs, requires_grad=True)
        loss = learned.loss(given, torch.from_numpy(values))
        assert loss.shape == ()
        assert torch.isfinite(loss)
        (gradient,) = torch.autograd.grad(loss, given)
        step = 1e-2 / float(gradient.norm())
        assert float(learned.loss(given - step * gradient, torch.from_numpy(values))) < float(loss)

    def test_metrics_are_finite_and_the_leading_one_is_first(
        self, learned: LearningTask, values: Array, outputs: Array
    ) -> None:
        found = learned.scores(learned.examples(outputs, values))
        assert next(iter(found)) == learned.leading()[0]
        assert set(found) == set(learned.metrics)
        assert all(np.isfinite(value) for value in found.values())

    def test_the_stored_columns_give_the_leading_metric(
        self, learned: LearningTask, values: Array, outputs: Array
    ) -> None:
        examples = learned.examples(outputs, values)
        assert len(examples) == len(values)
        for chosen in (np.arange(len(values)), np.arange(0, len(values), 2), np.repeat(np.arange(40), 2)):
            some = examples[chosen]
            expected = learned.scores(some)[learned.leading()[0]]
            assert learned.leading_value(some[:, : learned.paired]) == pytest.approx(expected)

    def test_examples_do_not_depend_on_their_batch(self, learned: LearningTask, values: Array, outputs: Array) -> None:
        whole = learned.examples(outputs, values)
        parts = [learned.examples(outputs[i : i + 7], values[i : i + 7]) for i in range(0, len(values), 7)]
        assert np.allclose(np.concatenate(parts), whole, equal_nan=True)

    def test_strata_and_predictions_are_one_per_example(
        self, learned: LearningTask, values: Array, outputs: Array
    ) -> None:
        assert learned.strata(values).shape == (len(values),)
        assert len(learned.predictions(outputs)) == len(values)

    def test_a_copy_in_another_process_is_equal(self, learned: LearningTask) -> None:
        assert cloudpickle.loads(cloudpickle.dumps(learned)) == learned
        json.dumps(learned.metadata(), allow_nan=False)

    def test_every_metric_can_lead(self, task: Any, values: Array, outputs: Array) -> None:
        found = load_task(task)
        if not isinstance(task, str):
            pytest.skip("a task from Python leads as it is")
        for name, direction in found.metrics.items():
            led = load_task(task, lead=name).fitted(values)
            assert led.leading() == (name, direction)
            examples = led.examples(outputs, values)
            assert led.leading_value(examples[:, : led.paired]) == pytest.approx(led.scores(examples)[name])
