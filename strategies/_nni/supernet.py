"""The supernet of NNI's one-shot strategies: check, training, and the best architectures.

Importing this module imports NNI, torch and Lightning.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slimsearch.errors import SlimsearchError, describe_error, first_line
from slimsearch.evaluators import Meter, ReportEpoch
from slimsearch.search_spaces import NniSpace, Point
from slimsearch.strategies._nni.oneshot import ImageData

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # about every class of torch that is newer than NNI
    from nni.mutable import Categorical, CategoricalMultiple, MutableAnnotation
    from nni.nas.evaluator.pytorch import Lightning, LightningModule, Trainer
    from nni.nas.execution import SequentialExecutionEngine
    from nni.nas.nn.pytorch import MutableDropout, ParametrizedModule
    from nni.nas.oneshot.pytorch.sampling import RandomSamplingLightningModule
    from nni.nas.oneshot.pytorch.supermodule._expression_utils import traverse_all_options
    from nni.nas.oneshot.pytorch.supermodule.base import BaseSuperNetModule
    from nni.nas.oneshot.pytorch.supermodule.differentiable import DifferentiableMixedInput, DifferentiableMixedLayer
    from nni.nas.oneshot.pytorch.supermodule.operation import NATIVE_MIXED_OPERATIONS, MixedConv2d, MixedOperation
    from nni.nas.oneshot.pytorch.supermodule.proxyless import (
        ProxylessMixedInput,
        ProxylessMixedLayer,
        ProxylessMixedRepeat,
    )
    from nni.nas.space import RawFormatModelSpace
    from nni.nas.strategy import DARTS, Proxyless, RandomOneShot

_LEARNING_RATE = 1e-3
_JUDGING_BATCH = 512
# Number of paths that the check runs if the supernet runs one path at a time.
_TRIES = 8


class MixedDropout(MixedOperation, nn.Dropout):  # type: ignore[misc]
    """Dropout with a choice of rates, for every one-shot strategy; `MixedDropout.mutate` is the mutation hook.

    If paths are sampled, one rate is used at a time. If all paths run at once, the output is the expectation over the
    rates; all rates use the same random numbers, so that the gradients of their weights get no additional noise. As
    in all of NNI's strategies, the architecture is learned with dropout on, which favors low rates.
    """

    bound_type = MutableDropout
    argument_list = ["p", "inplace"]  # noqa: RUF012 - the name and form that NNI reads

    def super_init_argument(self, name: str, value_choice: Any) -> Any:
        return max(traverse_all_options(value_choice))

    def freeze_weight(self, **arguments: Any) -> dict[str, Tensor]:
        return {}

    def forward_with_args(self, p: float | dict[float, Tensor], inplace: bool, inputs: Tensor) -> Tensor:
        if not isinstance(p, dict):
            return F.dropout(inputs, p, self.training, inplace)
        if not self.training:
            return inputs
        drawn = torch.rand_like(inputs)
        # The bound is for a rate of 1, which drops everything.
        masks = [weight * (drawn >= rate) / max(1 - rate, 1e-12) for rate, weight in p.items()]
        return inputs * torch.stack(masks).sum(dim=0)


class SeededRandomOneShot(RandomOneShot):  # type: ignore[misc]
    """NNI's `RandomOneShot` with seeded samples, all from the space."""

    def __init__(self, space: NniSpace, seed: int) -> None:
        super().__init__(mutation_hooks=[MixedDropout.mutate])
        self._space, self._rng = space, np.random.default_rng(seed)

    def configure_oneshot_module(self, training_module: LightningModule) -> RandomSamplingLightningModule:
        return _SeededSampling(training_module, self._draw)

    def _draw(self) -> dict[str, Any]:
        return self._space.complete(self._space.sample(self._rng))


class _SeededSampling(RandomSamplingLightningModule):  # type: ignore[misc]
    def __init__(self, training_module: LightningModule, draw: Callable[[], dict[str, Any]]) -> None:
        super().__init__(training_module)
        self._draw = draw

    def resample(self) -> dict[str, Any]:
        sample = self._draw()
        for module in self.supernet_modules():
            module.resample(memo=dict(sample))
        return sample


@dataclass
class OneShotSupernet:
    """A trained supernet.

    Attributes:
        module: NNI's Lightning module with the network.
        held_out: images and labels that did not train the weights.
        seed: of the samples that are ranked.
    """

    module: Any
    space: NniSpace
    held_out: _Batches
    seed: int

    def export(self) -> dict[str, Any]:
        """The architecture with the largest parameter of each choice.

        Difference from NNI: for Proxyless, NNI exports a random draw.

        Raises:
            SlimsearchError: it is not in the space.
        """
        self.module.eval()
        sample: dict[str, Any] = {}
        for module in self.module.supernet_modules():
            sample.update(_most_likely(module, sample))
        # NNI adds labels inside a Repeat.
        return self.space.canonical({c.label: sample[c.label] for c in self.space.choices if c.label in sample})

    def ranked(self, count: int) -> list[dict[str, Any]]:
        """Up to `count` random architectures, ranked by their accuracy on held-out images with the supernet's weights.

        Batch normalization uses batch statistics, since the running averages mix all architectures.
        """
        rng = np.random.default_rng([self.seed, 1])
        if self.space.size <= count:
            points = list(self.space.grid())
        else:
            drawn = {json.dumps(point): point for point in (self.space.sample(rng) for _ in range(count))}
            points = list(drawn.values())
        return sorted(points, key=self._accuracy, reverse=True)

    def _accuracy(self, point: Point) -> float:
        self.module.eval()
        for module in self.module.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.train()
        sample = self.space.complete(point)
        for module in self.module.supernet_modules():
            module.resample(memo=dict(sample))
        right = total = 0
        with torch.no_grad():
            for images, labels in self.held_out.in_order(_JUDGING_BATCH):
                right += int((self.module.model(images).argmax(dim=1) == labels).sum())
                total += len(labels)
        return right / total


def check(name: str, strategy: Any, space: NniSpace, seed: int) -> None:
    """Build the supernet of `strategy`, and run it forward and backward on noise.

    Raises:
        SlimsearchError: it cannot be built or run; the message names the choice at fault and the reason.
    """
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        supernet = _mixed(name, strategy, space)
        module = strategy.configure_oneshot_module(_Classifier())
        module.set_model(supernet)
        trace = _Trace(supernet)
        images = torch.randn(2, *space.input_shape)
        try:
            for _ in range(_TRIES if isinstance(strategy, RandomOneShot | Proxyless) else 1):
                module.resample()
                module.model(images).square().sum().backward()
        except Exception as error:  # a user's network may raise anything
            found = _changes_size(supernet) if isinstance(strategy, DARTS) else None
            label, why = found or (trace.label, f"its supernet fails: {describe_error(error)}")
            raise _refusal(name, space, label, why) from error


def train(
    make: Callable[[NniSpace], Any],
    space: NniSpace,
    data: ImageData,
    *,
    epochs: int,
    batch_size: int,
    held_out: float,
    seed: int,
    report: ReportEpoch,
) -> OneShotSupernet:
    """Train the weights of a supernet on a part of the training split, and the architecture on the other part.

    Args:
        make: the NNI strategy for a space.
        held_out: share of the training split for the architecture.
        report: called after every epoch.

    Raises:
        SlimsearchError: the loss is not finite.
    """
    torch.manual_seed(seed)
    strategy = make(space)
    order = np.random.default_rng(seed).permutation(len(data.train.targets))
    split = min(max(1, round(len(order) * held_out)), len(order) - 1)
    trained, others = (_Batches(data, np.sort(chosen), batch_size, seed) for chosen in (order[split:], order[:split]))
    trainer = Trainer(
        max_epochs=epochs, accelerator="cpu", devices=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, limit_val_batches=0,
    )  # fmt: skip
    meter = Meter()
    with warnings.catch_warnings(), meter.computing():
        warnings.simplefilter("ignore")
        evaluator = Lightning(_Classifier(report, meter), trainer, train_dataloaders=trained, val_dataloaders=others)
        strategy(RawFormatModelSpace(space._construct(), evaluator), SequentialExecutionEngine())
    return OneShotSupernet(strategy.oneshot_module, space, others, seed)


class _Classifier(LightningModule):  # type: ignore[misc]
    """Cross-entropy and Adam as NNI requires them; reports every epoch, and pauses during latency measurements."""

    def __init__(self, report: ReportEpoch | None = None, meter: Meter | None = None) -> None:
        super().__init__()
        self._report, self._meter = report, meter
        self._sums = torch.zeros(3)  # loss, correct predictions, images

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        images, labels = batch
        logits = self.model(images)
        loss = F.cross_entropy(logits, labels)
        right = (logits.argmax(dim=1) == labels).sum()
        self._sums += torch.tensor([float(loss.detach()) * len(labels), float(right), float(len(labels))])
        if self._meter is not None:
            self._meter.pause_if_measuring()
        return loss

    def on_train_epoch_end(self) -> None:
        loss, right, total = self._sums.tolist()
        self._sums.zero_()
        epoch = self.trainer.current_epoch + 1
        if not math.isfinite(loss):
            raise SlimsearchError(f"the loss of the supernet is {loss} in epoch {epoch}")
        if self._report is not None:
            self._report(epoch, {"train_loss": loss / total, "train_accuracy": right / total})

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=_LEARNING_RATE)


class _Batches:
    """Batches of some training images, reshuffled in each pass; the last, smaller batch is dropped."""

    def __init__(self, data: ImageData, chosen: np.ndarray[Any, np.dtype[np.int64]], size: int, seed: int) -> None:
        self._data, self._chosen, self._size = data, chosen, min(size, len(chosen))
        self._rng = np.random.default_rng(seed)

    def __len__(self) -> int:
        return len(self._chosen) // self._size

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = self._rng.permutation(self._chosen)
        for step in range(len(self)):
            yield self._batch(np.sort(order[step * self._size : (step + 1) * self._size]))

    def in_order(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """All images in order, in batches of up to `size`."""
        for start in range(0, len(self._chosen), size):
            yield self._batch(self._chosen[start : start + size])

    def _batch(self, chosen: np.ndarray[Any, np.dtype[np.int64]]) -> tuple[Tensor, Tensor]:
        labels = np.array(self._data.train.targets[chosen])  # a copy, since they may be memory-mapped
        return self._data.normalise(self._data.train.inputs[chosen]), torch.from_numpy(labels)


class _Trace:
    """Tracks the running layers with choices of a supernet, to find the choice at fault when it fails."""

    def __init__(self, supernet: nn.Module) -> None:
        self._open: list[nn.Module] = []
        self._last: nn.Module | None = None
        for module in supernet.modules():
            if isinstance(module, BaseSuperNetModule):
                module.register_forward_pre_hook(self._begin)
                module.register_forward_hook(self._close)

    def _begin(self, module: Any, inputs: tuple[Any, ...]) -> None:
        self._open.append(module)
        if isinstance(module, DifferentiableMixedLayer):  # its layers are summed or exchanged
            shapes = {tuple(getattr(module[layer](*inputs), "shape", ())) for layer in module.names}
            if len(shapes) > 1:
                raise ValueError(f"the outputs of its layers differ in shape: {', '.join(map(str, sorted(shapes)))}")

    def _close(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self._last = self._open.pop()

    @property
    def label(self) -> str | None:
        """Label of the innermost running layer, or of the layer that ended last."""
        module = self._open[-1] if self._open else self._last
        return _label(module) if module is not None else None


def _mixed(name: str, strategy: Any, space: NniSpace) -> Any:
    supernet = space._construct()
    for label, mutable in supernet.simplify().items():
        if isinstance(mutable, MutableAnnotation):
            if isinstance(strategy, DARTS):
                raise _refusal(name, space, label, "it is a constraint, and the best value of each choice may break it")
        elif not isinstance(mutable, Categorical | CategoricalMultiple):
            raise _refusal(name, space, label, "it mixes the values of a list (nni.choice), and this is a range")
    visited: list[nn.Module] = []

    def visit(module: nn.Module, path: str, memo: dict[str, Any], options: dict[str, Any]) -> None:
        visited.append(module)

    strategy.extra_mutation_hooks = [visit, *strategy.extra_mutation_hooks]
    try:
        strategy.mutate_model(supernet)
    except Exception as error:
        module = visited[-1] if visited else supernet
        label = _label(module)
        raise _refusal(name, space, label, _why_not(module, label, strategy) or first_line(error)) from error
    layers = [module for module in supernet.modules() if isinstance(module, BaseSuperNetModule)]
    mixed = {label for module in layers for label in module.simplify()}
    for choice in space.choices:
        if choice.label not in mixed:
            raise _refusal(name, space, choice.label, "no layer uses it, so a supernet cannot learn its value")
    return supernet


def _refusal(name: str, space: NniSpace, label: str | None, why: str) -> SlimsearchError:
    space_name = space.name
    what = f"'{label}' of {space_name}" if label is not None else space_name
    return SlimsearchError(f"{name} cannot search {what}: {why}")


def _label(module: Any) -> str | None:
    """Label of the first choice of `module`."""
    own = getattr(module, "label", None)
    if isinstance(own, str):
        return own
    return next(iter(module.simplify()), None) if hasattr(module, "simplify") else None


def _why_not(module: Any, label: str | None, strategy: Any) -> str | None:
    """Why the value choices of `module` cannot be mixed; None if the reason is another one."""
    if not isinstance(module, ParametrizedModule):
        return None
    kind = type(module).__name__
    if isinstance(strategy, Proxyless) and not isinstance(module, MutableDropout):
        whole = "it mixes only whole layers (LayerChoice, InputChoice, Repeat)"
        return f"{whole}, and '{label}' is a value choice of {kind}"
    mixed = (*(operation.bound_type for operation in NATIVE_MIXED_OPERATIONS), MutableDropout)
    if isinstance(module, mixed):
        return None
    return f"it mixes value choices of {', '.join(m.__name__ for m in mixed)}, and '{label}' is one of {kind}"


def _changes_size(supernet: nn.Module) -> tuple[str, str] | None:
    """A convolution's choice that changes the height and width of its output, and why it cannot be mixed."""
    for module in supernet.modules():
        if isinstance(module, MixedConv2d):
            own = module.mutable_arguments
            kernel, padding, dilation, stride = (
                own.get(name, module.init_arguments[name]) for name in ("kernel_size", "padding", "dilation", "stride")
            )
            try:
                loss = dilation * (kernel - 1) - 2 * padding
            except TypeError:  # pairs, or padding by name
                continue
            for name, expression in (("kernel_size", loss), ("stride", stride)):
                if hasattr(expression, "simplify") and len(traverse_all_options(expression)) > 1:
                    label = next(iter(expression.simplify()))
                    return label, (
                        f"it runs all values at once, and the size of the image depends on this one ({name} of "
                        f"{MixedConv2d.bound_type.__name__})"
                    )
    return None


def _most_likely(module: Any, memo: dict[str, Any]) -> dict[str, Any]:
    if isinstance(module, ProxylessMixedRepeat):
        probabilities = module.export_probs(memo).get(module.depth_choice.label, {})
        allowed = {depth: p for depth, p in probabilities.items() if depth in module.depth_choice.values}
        return {module.depth_choice.label: max(allowed, key=allowed.__getitem__)} if allowed else {}
    if isinstance(module, ProxylessMixedLayer):
        return DifferentiableMixedLayer.export(module, memo)  # type: ignore[no-any-return]
    if isinstance(module, ProxylessMixedInput):
        return DifferentiableMixedInput.export(module, memo)  # type: ignore[no-any-return]
    return module.export(memo)  # type: ignore[no-any-return]
