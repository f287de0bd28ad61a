"""Models without choices, from a function or class that returns a PyTorch module."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from slimsearch.errors import SlimsearchError, describe_error
from slimsearch.names import load_function

if TYPE_CHECKING:
    from torch import nn


class FixedModel:
    """Builds one model.

    Args:
        make: function or class; called with those of in_channels, image_size, input_shape and num_classes that its
            signature has.
        input_shape: (C, H, W) of one image.
        num_classes: number of logits.
    """

    def __init__(self, make: Callable[..., nn.Module], input_shape: tuple[int, int, int], num_classes: int) -> None:
        self.make, self.input_shape, self.num_classes = make, input_shape, num_classes

    @classmethod
    def load(cls, name: str, input_shape: tuple[int, int, int], num_classes: int) -> FixedModel:
        """The model called `name`: ``torchvision.models:resnet18``, or ``path/to/file.py:function_or_class``.

        Raises:
            SlimsearchError: there is no such function or class.
        """
        make = load_function("model", name)
        if not callable(make):
            raise SlimsearchError(f"model '{name}' is a {type(make).__name__}, not a function or a class")
        return cls(make, input_shape, num_classes)

    def build(self, architecture: Mapping[str, Any] | None = None, seed: int = 0) -> nn.Module:
        """The model (N, C, H, W) float32 -> (N, num_classes) logits, with weights initialized from `seed`.

        Raises:
            SlimsearchError: it cannot be constructed, or fails on images of this shape.
        """
        import torch

        parameters = inspect.signature(self.make).parameters
        free = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
        offered = {
            "in_channels": self.input_shape[0],
            "image_size": self.input_shape[1],
            "input_shape": self.input_shape,
            "num_classes": self.num_classes,
        }
        # torchvision's functions take num_classes in **kwargs.
        given = {k: v for k, v in offered.items() if k in parameters or (free and k == "num_classes")}
        shape = "x".join(map(str, self.input_shape))
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                module = self.make(**given)
            with torch.no_grad():
                logits = module.eval()(torch.zeros(2, *self.input_shape))
        except Exception as error:  # a user's model may raise anything
            raise SlimsearchError(f"the model fails on images of {shape}: {describe_error(error)}") from error
        if tuple(logits.shape) != (2, self.num_classes):
            raise SlimsearchError(
                f"the model gives {tuple(logits.shape)} for 2 images of {shape}; the data set needs "
                f"(2, {self.num_classes}) logits"
            )
        return module
