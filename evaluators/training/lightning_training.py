"""Training and scores by PyTorch Lightning: a LightningModule around the network, and its data."""

from __future__ import annotations

import importlib
import logging
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators.calling import CheckedReport

if TYPE_CHECKING:
    from torch import nn

_PACKAGES = {"lightning": "lightning.pytorch", "pytorch_lightning": "pytorch_lightning"}
_FORMS = "a LightningModule, and a LightningDataModule or loaders: (module, data) or (module, train, validation)"

Make = Callable[[Any], Any]
"""``lightning(model)`` puts a network, or a file in its place, in a LightningModule: ``(module, data)`` or ``(module,
train_loader, validation_loader)``."""


@dataclass(frozen=True)
class LightningFit:
    """The `Fit` of a LightningModule: ``training_step``, ``configure_optimizers`` and its other hooks.

    What it logs is reported after each epoch. The gradients, callbacks and loaders are those of the module.
    """

    make: Make

    def __call__(self, model: nn.Module, epochs: int, report: CheckedReport, device: str) -> None:
        """Train the network.

        Raises:
            SlimsearchError: the function returns something else, or a module around another network.
        """
        lightning, module, data = _made(self.make, model)
        own = {id(parameter) for parameter in module.parameters()}
        if not all(id(parameter) in own for parameter in model.parameters()):
            raise SlimsearchError("lightning(model) must put the model itself in its module, not a copy")

        class Reports(lightning.Callback):  # type: ignore[misc, name-defined]
            def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
                metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
                trainer.should_stop = not report(trainer.current_epoch + 1, metrics)

        trainer = _trainer(lightning, max_epochs=epochs, accelerator="gpu" if device == "cuda" else device,
                           callbacks=[Reports()], num_sanity_val_steps=0)  # fmt: skip
        trainer.fit(module, **data)


@dataclass(frozen=True)
class LightningScore:
    """The score function of a LightningModule: what its ``validation_step`` logs with the file in place of the network.

    Attributes:
        make: see `Make`.
        directions: of those logged metrics that count, by name, such as ``val_acc``.
    """

    make: Make
    directions: Mapping[str, str]

    def __call__(self, predict: nn.Module) -> dict[str, float]:
        """The metrics by name, without ``val_``.

        Raises:
            SlimsearchError: none of the metrics is logged.
        """
        lightning, module, data = _made(self.make, predict)
        data = {"datamodule": data["datamodule"]} if "datamodule" in data else {"dataloaders": data["val_dataloaders"]}
        logged: dict[str, float] = {}
        for one in _trainer(lightning, accelerator="cpu").validate(module, verbose=False, **data):
            logged |= one
        found = {name: logged[name] for name in self.directions if name in logged}
        if not found:
            raise SlimsearchError(
                f"validation_step logs {', '.join(logged) or 'nothing'}: name what counts in the objectives, such as "
                f"--objectives {next(iter(logged), 'val_acc')}:max,latency_ms,size_kib"
            )
        return {f"{name.removeprefix('val_')}:{self.directions[name][:3]}": value for name, value in found.items()}


def _made(make: Make, network: Any) -> tuple[Any, Any, dict[str, Any]]:
    """Lightning, the module that `make` returns, and its data as arguments of ``Trainer.fit``."""
    found = make(network)
    module, *data = found if isinstance(found, tuple | list) else (found,)
    package = next((_PACKAGES[name] for kind in type(module).__mro__ if (name := _top(kind)) in _PACKAGES), None)
    if package is None or len(data) > 2:
        raise SlimsearchError(f"lightning(model) returned {type(module).__name__}; needed: {_FORMS}")
    lightning = importlib.import_module(package)
    if len(data) == 2:
        return lightning, module, {"train_dataloaders": data[0], "val_dataloaders": data[1]}
    if len(data) == 1 and not isinstance(data[0], lightning.LightningDataModule):
        raise SlimsearchError(f"lightning(model) returned {type(data[0]).__name__} as data; needed: {_FORMS}")
    return lightning, module, {"datamodule": data[0]} if data else {}


def _top(kind: type[Any]) -> str:
    return kind.__module__.partition(".")[0]


def _trainer(lightning: Any, **options: Any) -> Any:
    """A trainer of one device that writes nothing."""
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"(pytorch_)?lightning")
    return lightning.Trainer(
        devices=1, logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        **options,
    )  # fmt: skip
