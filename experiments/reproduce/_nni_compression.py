"""The compression flows of NNI's tutorials and examples, made with NNI itself: what ours are compared with."""

from __future__ import annotations

import contextlib
import copy
import functools
import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from experiments.reproduce import _tutorial
from experiments.reproduce._tutorial import Batches, TrainingStep
from slimsearch.compression import Network, export_onnx
from slimsearch.evaluators import DeployedModel, size_kib
from slimsearch.evaluators.datasets import Dataset

SPARSITY = 0.8


class LeNet(nn.Module):
    """``LeNet.DEFAULT`` of `slimsearch.search_spaces.lenet` as NNI's tutorials write it: plain modules, one a use.

    44,426 parameters on 28x28 grey images of ten classes. What differs from the tutorials: the output is logits,
    without their log-softmax.
    """

    def __init__(self, in_channels: int = 1, num_classes: int = 10, image_size: int = 28) -> None:
        super().__init__()
        side = ((image_size - 4) // 2 - 4) // 2
        self.conv1 = nn.Conv2d(in_channels, 6, kernel_size=5)
        self.conv2 = nn.Conv2d(6, 16, kernel_size=5)
        self.fc1 = nn.Linear(16 * side * side, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, num_classes)
        self.relu1, self.relu2, self.relu3, self.relu4 = nn.ReLU(), nn.ReLU(), nn.ReLU(), nn.ReLU()
        self.pool1, self.pool2 = nn.MaxPool2d(2), nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) float32 -> (N, num_classes) logits."""
        x = self.pool1(self.relu1(self.conv1(x)))
        x = self.pool2(self.relu2(self.conv2(x)))
        x = torch.flatten(x, 1)
        x = self.relu4(self.fc2(self.relu3(self.fc1(x))))
        return self.fc3(x)  # type: ignore[no-any-return]


def lenet_prune(
    data: Dataset, seed: int, epochs_base: int, epochs_finetune: int = 5, *, folder: Path
) -> dict[str, Any]:
    """Train LeNet, remove 80% of the channels of all layers but the last, fine-tune, and export.

    Source: the pruning quick start of NNI 3.0 (``L1NormPruner``, ``ModelSpeedup``), with Adam.

    Args:
        epochs_base: of the training before pruning.
        folder: gets the ONNX file of the network after the last epoch, normalised input to logits.

    Returns:
        JSON: accuracies are fractions of the test split, sizes KiB, times seconds of training without scoring.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        train, test = _tutorial.loaders(data)
        model, base = _trained(data, epochs_base, train, test)
        model, seconds = _pruned(model, torch.rand(3, *data.input_shape))
        pruned = {
            "params": _tutorial.params(model),
            "test_accuracy": _tutorial.accuracy(model, test),
            "seconds": seconds,
        }
        # Speeding up has replaced the parameters: another optimizer.
        optimizer = torch.optim.Adam(model.parameters(), lr=_tutorial.LEARNING_RATE)
        finetuned = [_tutorial.epoch(model, optimizer, train, test) for _ in range(epochs_finetune)]
    return {
        **_tutorial.setting(data, train, test, seed),
        "sparsity": SPARSITY,
        "base": base,
        "pruned": pruned,
        "finetuned": _tutorial.summary(finetuned),
        **_exported(model, data, folder / f"nni-lenet-pruned-{seed}.onnx"),
    }


def lenet_qat(data: Dataset, seed: int, epochs_base: int, epochs_qat: int) -> dict[str, Any]:
    """Train LeNet, then again for `epochs_qat` epochs with 8 bits simulated in weights and outputs.

    Source: the quantization quick start of NNI 3.0 (``QATQuantizer``; affine, one range a tensor, the first epoch
    only watches the ranges), with Adam.

    Returns:
        JSON: accuracies are fractions of the test split, **simulated**: NNI has no int8 file for a CPU, its weights
        stay float32 and nothing gets smaller or faster. Times are seconds of training without scoring.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        train, test = _tutorial.loaders(data)
        model, base = _trained(data, epochs_base, train, test)
        with _tutorial.quiet():
            import nni
            from nni.compression.quantization import QATQuantizer
            from nni.compression.utils import TorchEvaluator

            epochs: list[dict[str, float]] = []

            optimizer = nni.trace(torch.optim.Adam)(model.parameters(), lr=_tutorial.LEARNING_RATE)
            bits = {"quant_dtype": "int8", "quant_scheme": "affine", "granularity": "default"}
            rules = [
                {"op_types": ["Conv2d", "Linear"], "target_names": ["weight", "_output_"], **bits},
                {"op_types": ["ReLU"], "target_names": ["_output_"], **bits},
            ]
            evaluator = TorchEvaluator(_fit(train, test, epochs), optimizer, _tutorial.training_step)
            watching = 1 if epochs_qat > 1 else 0
            quantizer = QATQuantizer(model, rules, evaluator, watching * len(train))
            quantizer.track_forward(next(iter(train))[0])
            _, ranges = quantizer.compress(None, max_epochs=epochs_qat)
    return {
        **_tutorial.setting(data, train, test, seed),
        "base": base,
        "quantized": {
            "simulated": True,
            "simulated_tensors": sum(len(targets) for targets in ranges.values()),
            # Scored when the ranges are chosen but not yet computed: its accuracy is that of no network.
            "warm_up": [{"seconds": row["seconds"], "cpu_seconds": row["cpu_seconds"]} for row in epochs[:watching]],
            **_tutorial.summary(epochs[watching:]),
        },
    }


def resnet18_fused(
    data: Dataset,
    seed: int,
    epochs_base: int = 30,
    steps: int = 6000,
    *,
    interval: int = 100,
    iterations: int = 30,
    folder: Path,
) -> dict[str, Any]:
    """Train torchvision's ResNet-18, then prune half of its channels, quantize and distil it in one training.

    Source: the fused example of NNI 3.0 (``TaylorPruner`` under ``AGPPruner``, ``QATQuantizer`` and
    ``DynamicLayerwiseDistiller`` on one evaluator), with its defaults here. What differs: no weights from ImageNet.

    Args:
        steps: batches of 128 of the one training, those of pruning among them.
        interval: batches from one pruning to the next; after the first of them quantization begins.
        iterations: how often AGP prunes, up to half of the channels.
        folder: gets the ONNX file of the pruned network, which is float32.

    Returns:
        JSON: accuracies are fractions of the test split, those of int8 **simulated**, times seconds of training
        without scoring.
    """
    with torch.random.fork_rng(devices=[]), _tutorial.quiet(), contextlib.redirect_stdout(io.StringIO()):
        import nni
        from nni.compression.base.compressor import Quantizer
        from nni.compression.distillation import DynamicLayerwiseDistiller
        from nni.compression.pruning import AGPPruner, TaylorPruner
        from nni.compression.quantization import QATQuantizer
        from nni.compression.speedup import ModelSpeedup
        from nni.compression.utils import TorchEvaluator, auto_set_denpendency_group_ids
        from torchvision.models import resnet18

        _mend_tracer()
        torch.manual_seed(seed)
        train, test = _tutorial.loaders(data, batch=128, augment=True)
        model = resnet18(num_classes=len(data.classes))
        base = _fitted(model, epochs_base, train, test)
        teacher = copy.deepcopy(model)
        example = torch.rand(8, *data.input_shape)

        norms = [name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)]
        pruning = auto_set_denpendency_group_ids(
            model, [{"op_types": ["Conv2d"], "sparse_ratio": 0.5}, *map(_pruned_like_its_convolution, norms)], example
        )
        optimizer = nni.trace(torch.optim.Adam)(model.parameters(), lr=_tutorial.LEARNING_RATE)
        epochs: list[dict[str, float]] = []
        evaluator = TorchEvaluator(_fit(train, test, epochs), optimizer, _tutorial.training_step)
        taylor = TaylorPruner(model, pruning, evaluator, training_steps=interval)
        pruner = AGPPruner(taylor, interval_steps=interval, total_times=iterations)
        rules = [
            {"op_types": ["Conv2d"], "target_names": ["_input_"], "granularity": "per_channel"},
            {"op_types": ["Conv2d"], "target_names": ["weight"], "granularity": "out_channel"},
            {"op_types": ["BatchNorm2d"], "target_names": ["_output_"], "granularity": "per_channel"},
        ]
        rules = [{"quant_dtype": "int8", **rule} for rule in rules]
        quantizer = QATQuantizer.from_compressor(pruner, rules, quant_start_step=interval)
        distiller = DynamicLayerwiseDistiller.from_compressor(
            quantizer,
            [{"op_types": ["Conv2d"], "lambda": 0.1, "apply_method": "mse"}],
            teacher,
            lambda batch, network: network(batch[0]),
            0.1,
        )
        distiller.compress(max_steps=steps, max_epochs=None)
        distiller.unwrap_model()
        distiller.unwrap_teacher_model()

        speedup = ModelSpeedup(model, example, pruner.get_masks())
        model = speedup.speedup_model()
        compressed = {"params": _tutorial.params(model), "float_test_accuracy": _tutorial.accuracy(model, test)}
        exported = _exported(model, data, folder / f"nni-resnet18-fused-{seed}.onnx")
        ranges = quantizer.get_calibration_config()
        _drop_pruned_channels(ranges, speedup)
        Quantizer(model, rules).update_calibration_config(ranges)
        compressed["simulated_test_accuracy"] = _tutorial.accuracy(model, test)
    return {
        **_tutorial.setting(data, train, test, seed),
        "base": base,
        "compressed": {"steps": steps, **compressed, **_tutorial.summary(epochs)},
        **exported,
    }


def _pruned_like_its_convolution(norm: str) -> dict[str, Any]:
    """NNI's rule by which the output of a BatchNorm of ResNet loses the channels that its convolution loses."""
    convolution = norm.replace("bn", "conv").replace("downsample.1", "downsample.0")
    align = {"module_name": convolution, "target_name": "weight", "dims": [0]}
    settings = {"_output_": {"align": align, "granularity": "per_channel"}}
    return {"op_names": [norm], "target_names": ["_output_"], "target_settings": settings}


def _drop_pruned_channels(ranges: dict[str, dict[str, dict[str, Any]]], speedup: Any) -> None:
    """Make `ranges`, which were learned for the whole network, fit the network that `speedup` has made smaller."""

    def kept(node: Any) -> Tensor:
        mask: Tensor = speedup.node_infos[node].output_masks  # (N, C, H, W)
        return (mask != 0).any(dim=0).flatten(1).any(dim=1).nonzero()[:, 0]

    for node in speedup.node_infos:
        if node.op != "call_module":
            continue
        for target, found in ranges.get(node.target, {}).items():
            # A range an output channel of a weight stands along dimension 0, of an activation along 1.
            channels, dim = kept(node.args[0] if target == "_input_0" else node), 0 if target == "weight" else 1
            for name in ("scale", "zero_point"):
                found[name] = found[name].index_select(dim, channels)


def _fit(train: Batches, test: Batches, epochs: list[dict[str, float]]) -> Callable[..., None]:
    """The training function that NNI's evaluators ask for; what each epoch gave is appended to `epochs`."""

    def fit(
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        step: TrainingStep,
        scheduler: Any = None,
        max_steps: int | None = None,
        max_epochs: int | None = None,
    ) -> None:
        left = max_steps or (max_epochs or 1) * len(train)
        while left > 0:
            epochs.append(_tutorial.epoch(model, optimizer, train, test, step, min(left, len(train))))
            left -= len(train)

    return fit


def _exported(model: nn.Module, data: Dataset, path: Path) -> dict[str, Any]:
    export_onnx(Network(model), path, data.normalise(data.train.inputs[:2]), data.metadata())
    assert data.test is not None
    right = DeployedModel(path).predict(data, data.test) == data.test.targets
    return {"artifact": str(path), "artifact_test_accuracy": float(right.mean()), "size_kib": size_kib(path)}


def _trained(data: Dataset, epochs: int, train: Batches, test: Batches) -> tuple[nn.Module, dict[str, Any]]:
    model = LeNet(data.input_shape[0], len(data.classes), data.input_shape[1])
    return model, _fitted(model, epochs, train, test)


def _fitted(model: nn.Module, epochs: int, train: Batches, test: Batches) -> dict[str, Any]:
    optimizer = torch.optim.Adam(model.parameters(), lr=_tutorial.LEARNING_RATE)
    rows = [_tutorial.epoch(model, optimizer, train, test) for _ in range(epochs)]
    return {"params": _tutorial.params(model), **_tutorial.summary(rows)}


def _pruned(model: nn.Module, example: Tensor) -> tuple[nn.Module, float]:
    """The network with its channels removed, and the seconds that took, without importing NNI."""
    with _tutorial.quiet(), contextlib.redirect_stdout(io.StringIO()):  # it prints, too
        from nni.compression.pruning import L1NormPruner
        from nni.compression.speedup import ModelSpeedup

        _mend_tracer()
        started = time.perf_counter()
        rules = [{"op_types": ["Linear", "Conv2d"], "exclude_op_names": ["fc3"], "sparse_ratio": SPARSITY}]
        pruner = L1NormPruner(model, rules)
        _, masks = pruner.compress()
        pruner.unwrap_model()
        return ModelSpeedup(model, example, masks).speedup_model(), time.perf_counter() - started


@functools.cache
def _mend_tracer() -> None:
    """Two things of torch 2.13 that the tracer of NNI 3.0, and so ``ModelSpeedup``, fails on."""
    from nni.common.concrete_trace_utils import concrete_tracer

    # It looks up each function's module by name; these have none.
    functions = concrete_tracer.ConcreteTracer.default_autowrap_leaf_function
    for function in [found for found in functions if getattr(found, "__module__", "") is None]:
        del functions[function]
    # It replaces torch.fx.Node.is_impure by a function without the argument that has been added since.
    is_impure = concrete_tracer.node_is_impure_wrapper
    concrete_tracer.node_is_impure_wrapper = lambda node, *_: is_impure(node)
