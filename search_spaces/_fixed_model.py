"""Spaces of one network, from a function or class that returns a PyTorch module."""

from __future__ import annotations

import copy
import functools
import hashlib
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import cloudpickle

from slimsearch.errors import SlimsearchError, describe_error
from slimsearch.names import load_function
from slimsearch.packed import Named, named, size_of
from slimsearch.search_spaces._model_space import known_of_data
from slimsearch.search_spaces._space import Choice, Point, Space

if TYPE_CHECKING:
    from torch import nn


class FixedModel(Space):
    """A space whose only point has no choices, and the network that it stands for.

    Args:
        make: function or class; called with those of in_channels, image_size, input_shape, num_classes and num_labels
            that its signature has.
        input_shape: of one example, such as (C, H, W) of an image; of several inputs, a dict from name to shape.
        num_classes: number of outputs: logits of classes, or target columns; 0: unknown.
        weights: state of the network as safetensors; None for the weights that `make` gives it.
    """

    def __init__(
        self, make: Callable[..., nn.Module], input_shape: tuple[int, ...] | Mapping[str, tuple[int, ...]],
        num_classes: int, weights: bytes | None = None,
    ) -> None:  # fmt: skip
        self.inputs = named(input_shape)
        self.outputs: Named = ()
        self.input_shape = (size_of(self.inputs),) if isinstance(input_shape, Mapping) else input_shape
        self.make, self.num_classes, self.weights = make, num_classes, weights
        self.output_shape: tuple[int, ...] | None = (num_classes,)

    @classmethod
    def load(
        cls, name: str, input_shape: tuple[int, ...] | Mapping[str, tuple[int, ...]], num_classes: int
    ) -> FixedModel:
        """The model called `name`: ``torchvision.models:resnet18``, or ``path/to/file.py:function_or_class``.

        Raises:
            SlimsearchError: there is no such function, class or module.
        """
        from torch import nn

        make = load_function("model", name)
        if isinstance(make, nn.Module):
            return cls(functools.partial(copy.deepcopy, make), input_shape, num_classes)
        if not callable(make):
            raise SlimsearchError(f"model '{name}' is a {type(make).__name__}, not a function or a class")
        return cls(make, input_shape, num_classes)

    def __getstate__(self) -> dict[str, Any]:
        # By value, since other processes cannot import a function from a notebook, a script or a file.
        return {**vars(self), "make": cloudpickle.dumps(self.make)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update({**state, "make": cloudpickle.loads(state["make"])})

    @property
    def choices(self) -> tuple[Choice, ...]:
        return ()

    def canonical(self, point: Point) -> dict[str, Any]:
        if point:
            raise SlimsearchError(f"unknown label '{next(iter(point))}': a given network has no choices")
        return {}

    def reference(self) -> Point | None:
        return {}

    @property
    def fingerprint(self) -> str:
        """Hash of the weights of the network."""
        digest = hashlib.sha256()
        for name, value in self.build({}).state_dict().items():
            digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def construct(self, seed: int = 0) -> nn.Module:
        """The module, in evaluation mode, with all parameters trainable; not tried on images.

        Raises:
            SlimsearchError: it cannot be constructed.
        """
        import torch
        from safetensors.torch import load

        parameters = inspect.signature(self.make).parameters
        free = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
        known = known_of_data(self.inputs, self.input_shape, self.num_classes)
        # torchvision's functions take num_classes in **kwargs.
        given = {k: v for k, v in known.items() if k in parameters or (free and k == "num_classes")}
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                module = self.make(**given)
            if not isinstance(module, torch.nn.Module):
                raise SlimsearchError(f"it gives a {type(module).__name__}, not a torch.nn.Module")
            if self.weights is not None:
                module.load_state_dict(load(self.weights), strict=False)
        except SlimsearchError:
            raise
        except Exception as error:  # a user's model may raise anything
            raise SlimsearchError(f"the model cannot be constructed: {describe_error(error)}") from error
        return module.eval().requires_grad_(True)

    def build(self, architecture: Mapping[str, Any] | None = None, seed: int = 0) -> nn.Module:
        """The model (N, C, H, W) float32 -> (N, num_classes) logits, with weights initialized from `seed`, or given.

        Raises:
            SlimsearchError: it cannot be constructed, or fails on images of this shape.
        """
        import torch

        from slimsearch.packed_module import packed

        module = packed(self.construct(seed), self.inputs, self.outputs)
        shape = "x".join(map(str, self.input_shape))
        try:
            with torch.no_grad():
                logits = module(torch.zeros(2, *self.input_shape))
        except Exception as error:  # a user's model may raise anything
            raise SlimsearchError(f"the model fails on images of {shape}: {describe_error(error)}") from error
        output = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        if self.output_shape is not None and output != (2, *self.output_shape):
            raise SlimsearchError(
                f"the model gives {output} for 2 images of {shape}; the data set needs {(2, *self.output_shape)} logits"
            )
        return module
