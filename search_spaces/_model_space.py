"""Spaces of networks: the interface, and the space of whatever describes one (an NNI class, a function, a name)."""

from __future__ import annotations

import inspect
import reprlib
import traceback
import warnings
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimsearch.errors import SlimsearchError, describe_error
from slimsearch.names import check_name, load_class, load_function
from slimsearch.packed import Named, named, size_of
from slimsearch.search_spaces._space import Space

if TYPE_CHECKING:
    from torch import nn

_MAX_SIZE = 1 << 24  # channels, pixels, samples or classes
_FOR = {1: "mlp", 2: "signal_cnn"}  # built-in spaces by the dimensions of an example that is no image
_FORMS = (
    "an NNI ModelSpace class, a function define(trial), or a function whose parameters are annotated with their "
    "values, such as width: Literal[8, 16, 32]"
)


class ModelSpace(Space):
    """The networks that a class or function of the user describes, for inputs of one shape.

    Args:
        code: the class or function.
        input_shape: of one example, such as (C, H, W) of an image; of several inputs, a dict from name to shape.
        num_classes: number of outputs: logits of classes, or target columns; 0: unknown.

    Attributes:
        input_shape: of one example; several inputs are packed, see `slimsearch.packed_module.PackedModule`.
        inputs: names and shapes of several inputs; () of one.
        outputs: names and shapes of several outputs, which the task has; () of one.
        output_shape: of one example, (num_classes,) by default; None: any.

    Raises:
        SlimsearchError: an argument is invalid.
    """

    def __init__(
        self, code: Any, input_shape: tuple[int, ...] | Mapping[str, tuple[int, ...]], num_classes: int
    ) -> None:
        self.inputs = named(input_shape)
        self.outputs: Named = ()
        if isinstance(input_shape, Mapping):
            input_shape = (size_of(self.inputs),)
        for size in (*input_shape, num_classes or 1) if isinstance(input_shape, tuple | list) else ():
            if not isinstance(size, int) or isinstance(size, bool) or not 0 < size <= _MAX_SIZE:
                raise SlimsearchError(f"{reprlib.repr(size)} is not a number of channels, pixels, samples or classes")
        if not isinstance(input_shape, tuple | list) or not input_shape:
            raise SlimsearchError(f"{reprlib.repr(input_shape)} is not the shape of an input, such as (C, H, W)")
        self.code = code
        self.input_shape = tuple(input_shape)
        self.num_classes = num_classes
        self.output_shape: tuple[int, ...] | None = (num_classes,)

    @staticmethod
    def load(
        space: Any, input_shape: tuple[int, ...] | Mapping[str, tuple[int, ...]], num_classes: int, build: Any = None
    ) -> ModelSpace:
        """The space of networks that `space` describes.

        Args:
            space: a built-in's name, ``path/to/file.py:name`` or ``package.module:name``; or an object: an NNI
                `ModelSpace` class, a function ``define(trial)``, a function or class whose parameters are annotated
                with their values, or, with `build`, a dict from label to values.
            input_shape: of one example, such as (C, H, W) of an image; of several inputs, a dict from name to shape.
            num_classes: number of outputs: logits of classes, or target columns.
            build: a function or class that makes the network of one value for each label, given by name.

        Raises:
            SlimsearchError: there is no such space, or it is invalid.
        """
        if isinstance(space, str):
            space = _named(space)
        if isinstance(space, Mapping) or build is not None:
            from slimsearch.search_spaces._functions.parameter_space import ParameterSpace

            return ParameterSpace.of(space, build, input_shape, num_classes)
        if not callable(space):
            raise SlimsearchError(f"a space of networks is {_FORMS}; not {reprlib.repr(space)}")
        if _is_of_nni(space):
            from slimsearch.search_spaces._nni.nni_space import NniSpace

            if isinstance(input_shape, Mapping):
                raise SlimsearchError(
                    f"'{name_of(space)}' is an NNI ModelSpace, which takes one input; the data set has "
                    f"{', '.join(input_shape)}: write a function define(trial)"
                )
            return NniSpace(space, input_shape, num_classes)
        from slimsearch.search_spaces._functions.defined_space import DefinedSpace, takes_a_trial
        from slimsearch.search_spaces._functions.parameter_space import ParameterSpace, annotated_values

        if takes_a_trial(space):
            return DefinedSpace(space, input_shape, num_classes)
        choices = annotated_values(space)
        if not choices:
            raise SlimsearchError(f"'{name_of(space)}' is not a space of networks, which is {_FORMS}")
        return ParameterSpace(space, choices, input_shape, num_classes)

    @property
    def name(self) -> str:
        """Name of the class or function."""
        return name_of(self.code)

    @property
    def training(self) -> Mapping[str, Sequence[Any]]:
        """The values of the training hyper-parameters that the space has beside its choices, by name."""
        return {}

    @abstractmethod
    def affected_layers(self) -> dict[str, list[str]]:
        """Label to the names of the layers (as in ``named_modules``) that the choice affects."""

    @abstractmethod
    def build(self, architecture: Mapping[str, Any], seed: int = 0) -> nn.Module:
        """The network of `architecture`: (N, ...) float32 -> (N, ...), weights initialized from `seed`.

        Raises:
            SlimsearchError: `architecture` is not in the space, or the user's code cannot build it.
        """

    def check(self, architecture: Mapping[str, Any], device: str = "cpu") -> nn.Module:
        """Build `architecture` and run it on two inputs of zeros.

        Args:
            architecture: a point of the space.
            device: to run on; "meta" computes shapes only.

        Returns:
            the network, in evaluation mode.

        Raises:
            SlimsearchError: it fails, or the shape of its output is not (N, *output_shape).
        """
        import torch

        with torch.device(device):
            module = self.build(architecture).eval()
        inputs = torch.zeros(2, *self.input_shape, device=device)
        kind = "images" if len(self.input_shape) == 3 else "inputs"
        shape = "x".join(map(str, self.input_shape))
        try:
            with torch.no_grad():
                outputs = module(inputs)
        except Exception as error:
            fitting = _FOR.get(len(self.input_shape))
            raise SlimsearchError(
                f"{self.name} {dict(architecture)} fails on {kind} of {shape}{self._line(error)}: "
                f"{describe_error(error)}" + (f"; a built-in space for such inputs: {fitting}" if fitting else "")
            ) from error
        found = tuple(outputs.shape) if isinstance(outputs, torch.Tensor) else type(outputs).__name__
        if self.output_shape is not None and found != (2, *self.output_shape):
            what = "logits" if len(self.output_shape) == 1 else "outputs"
            raise SlimsearchError(
                f"{self.name} {dict(architecture)} gives {found} for 2 {kind} of {shape}; the data set needs "
                f"{(2, *self.output_shape)} {what}"
            )
        return module

    def _offered(self, parameters: Mapping[str, inspect.Parameter]) -> dict[str, Any]:
        """What the data decide about a network, as far as the user's code has parameters for it.

        Raises:
            SlimsearchError: it needs the number of outputs, which is unknown.
        """
        if self.num_classes == 0:
            needed = [name for name in ("num_classes", "num_labels") if name in parameters]
            if needed and parameters[needed[0]].default is inspect.Parameter.empty:
                raise SlimsearchError(
                    f"{self.name} has a parameter '{needed[0]}', which inputs without targets do not tell: give it a "
                    "default, or give targets too"
                )
        known = known_of_data(self.inputs, self.input_shape, self.num_classes)
        return {name: value for name, value in known.items() if name in parameters}

    def _line(self, error: BaseException) -> str:
        """The file and line of the user's code that raised `error`, in parentheses, or nothing."""
        try:
            file = inspect.getsourcefile(inspect.unwrap(self.code))
        except TypeError:  # a class from a notebook or an interactive session
            file = None
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
        return f" ({Path(file).name}, line {lines[-1]})" if file and lines else ""


def known_of_data(inputs: Named, input_shape: tuple[int, ...], num_classes: int) -> dict[str, Any]:
    """What the data decide about a network, by the names of the parameters that the user's code may have for it.

    Args:
        inputs: names and shapes of several inputs; () of one.
        input_shape: of one example, packed.
        num_classes: number of outputs; 0: unknown.
    """
    outputs = dict.fromkeys(("num_classes", "num_labels"), num_classes) if num_classes else {}
    if inputs:
        return {"input_shape": dict(inputs), **outputs}
    return {"in_channels": input_shape[0], "image_size": input_shape[-1], "input_shape": input_shape, **outputs}


def name_of(code: Any) -> str:
    """The name of a class or function, or of the function of a `functools.partial`."""
    return str(getattr(getattr(code, "func", code), "__name__", type(code).__name__))


def _named(name: str) -> Any:
    """The class or function called `name`."""
    package = "slimsearch.search_spaces"
    check_name("space", name, package)  # in less time than the import of NNI
    if ":" not in name:
        return load_class("space", name, package)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NNI warns while a user's file imports it
        return load_function("space", name)


def _is_of_nni(code: Any) -> bool:
    """Whether `code` is a class with a base class of NNI's, found without an import of NNI."""
    return inspect.isclass(code) and any(base.__module__.partition(".")[0] == "nni" for base in code.__mro__)
