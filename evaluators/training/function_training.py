"""Training by a user's function, which has a loss, an optimizer and data of its own."""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from slimsearch.compression import AfterStep, LossTerm, Network
from slimsearch.errors import SlimsearchError, described
from slimsearch.evaluators.calling import CheckedReport, call_by_name
from slimsearch.evaluators.datasets import Dataset
from slimsearch.evaluators.latency.meter import Meter
from slimsearch.evaluators.tasks import NeedsLoss
from slimsearch.evaluators.training.hardware import threads
from slimsearch.evaluators.training.network_training import NetworkTraining, OnEpoch, StoppedEarly, TrainingSettings
from slimsearch.evaluators.training.probe import TrainingProbe

if TYPE_CHECKING:
    import torch
    from torch import nn

Fit = Callable[..., Any]
"""``fit(model, ...)`` trains the module that it gets, in place or as a copy that it returns.

It also gets those of these arguments that it has: ``epochs``, ``report`` (``report(epoch, metrics)`` records the
metrics of an epoch, from 1, and returns False if the training should end), ``seed``, ``data`` (the data set), and the
fields of `TrainingSettings`, such as ``learning_rate`` and ``device``.
"""


class FunctionTraining(NetworkTraining):
    """The `slimsearch.compression.Training` of networks by a user's function.

    Stages that need Slimsearch's own loss raise `NeedsLoss`. An interrupted training begins again.

    Args:
        function: see `Fit`.
        data, settings, seed, epochs, teachers, on_epoch, meter, initial, latency: see `NetworkTraining`.
    """

    def __init__(
        self,
        function: Fit,
        data: Dataset,
        settings: TrainingSettings,
        seed: int,
        epochs: int = 1,
        teachers: Mapping[str, Network] | None = None,
        on_epoch: OnEpoch | None = None,
        meter: Meter | None = None,
        initial: Callable[[], nn.Module] | None = None,
        latency: Callable[[Network], float] | None = None,
    ) -> None:
        super().__init__(data, settings, seed, epochs, teachers, on_epoch, meter, initial, latency)
        self._function = function

    def check(self, network: Network) -> None:
        """Try the network on two examples.

        Raises:
            SlimsearchError: see `TrainingProbe.check_outputs`.
        """
        TrainingProbe(network, self._data).check_outputs()

    def fit(
        self, network: Network, *, epochs: int, learning_rate: float | None = None,
        learning_rate_option: str = "--learning-rate", losses: Sequence[LossTerm] = (),
        after_step: Sequence[AfterStep] = (),
    ) -> Network:  # fmt: skip
        """Let the function train a copy of `network`, and return it, in evaluation mode.

        Random generators of Python, NumPy and PyTorch begin with the seed.

        Raises:
            NeedsLoss: there are loss terms or callbacks, which only Slimsearch's own training has.
            SlimsearchError: the function fails, or the network does not give finite outputs afterwards.
            StoppedEarly: ``report`` returned False.
        """
        if losses or after_step:
            raise NeedsLoss("it takes part in each step of a training, which a function of yours (fit) does by itself")
        settings = replace(self._settings, learning_rate=learning_rate or self._settings.peak(network.params))
        report = CheckedReport(self._on_epoch or _go_on)
        module = network.copy_module().train()
        offered = {**asdict(settings), "epochs": epochs, "report": report, "seed": self._seed, "data": self._data}
        with threads(settings.threads), self._meter.training(), described("fit failed", StoppedEarly):
            _seed_all(self._seed)
            with _pausing(module, self._meter), _results_for_nni(report):
                returned = call_by_name(self._function, module, offered)
        if report.stopped:
            raise StoppedEarly
        return self._checked(module if returned is None else returned, network)

    def _checked(self, trained: Any, network: Network) -> Network:
        import torch

        if not isinstance(trained, torch.nn.Module):
            raise SlimsearchError(f"fit returned {type(trained).__name__}; needed: the trained module, or nothing")
        found = Network(trained.cpu().float().eval(), network.structure, network.quantization)
        shapes, before = _shapes(found.module), _shapes(network.module)
        if shapes != before:
            changed = sorted({name for name, _ in shapes.items() ^ before.items()})[0]
            raise SlimsearchError(f"fit changed the layers of the network, such as '{changed}': train it as it is")
        TrainingProbe(found, self._data).check_outputs()
        return found


def _shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in module.state_dict().items()}


def _go_on(epoch: int, metrics: Mapping[str, float]) -> bool:
    return True


def _seed_all(seed: int) -> None:
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


class _Pause:
    """A hook before each forward pass: waits while another process measures latency. Copies of it do nothing."""

    def __init__(self, meter: Meter | None = None) -> None:
        self._meter = meter

    def __call__(self, module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if self._meter is not None:
            self._meter.pause_if_measuring()

    def __reduce__(self) -> tuple[type[_Pause], tuple[()]]:
        return _Pause, ()


@contextlib.contextmanager
def _pausing(module: nn.Module, meter: Meter) -> Iterator[None]:
    hook = module.register_forward_pre_hook(_Pause(meter))
    try:
        yield
    finally:
        hook.remove()


@contextlib.contextmanager
def _results_for_nni(report: CheckedReport) -> Iterator[None]:
    """A context in which what a function reports to NNI is reported as ``reported``, one epoch for each result.

    The final result counts if it is not the last intermediate one.

    Raises:
        StoppedEarly: in the function, which cannot see the answer.
    """
    channels = sys.modules.get("nni.runtime.trial_command_channel")  # worker processes have imported NNI
    if channels is None:
        yield
        return

    class Channel(channels.TrialCommandChannel):  # type: ignore[misc, name-defined]
        last: Any = None

        def receive_parameter(self) -> None:
            return None

        def send_metric(self, type: str, parameter_id: Any, trial_job_id: Any, sequence: int, value: Any) -> None:
            if type == "FINAL" and value == self.last:
                return
            self.last = value
            metrics = value if isinstance(value, Mapping) else {"default": value}
            named = {"reported" if name == "default" else name: number for name, number in metrics.items()}
            if not report(report.last + 1, named):
                raise StoppedEarly

    before = channels.get_default_trial_command_channel()
    channels.set_default_trial_command_channel(Channel())
    try:
        yield
    finally:
        channels.set_default_trial_command_channel(before)
