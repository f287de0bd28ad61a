"""The one adapter to NNI: a class written with `LayerChoice` and `Mutable*` as a `Space` that builds networks.

NNI is imported when a space is made, not before: it takes seconds, and prints.
"""

from __future__ import annotations

import contextlib
import inspect
import itertools
import logging
import reprlib
import traceback
import warnings
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cloudpickle

from slimsearch.errors import SlimsearchError, describe_error
from slimsearch.names import load_class
from slimsearch.search_spaces._graph import Graph
from slimsearch.search_spaces._nni.activity import Activity, Recording
from slimsearch.search_spaces._nni.cells import graph_of
from slimsearch.search_spaces._nni.from_sample import FromSample
from slimsearch.search_spaces._space import Choice, Point, Space

if TYPE_CHECKING:
    from torch import nn

# A choice of k out of n becomes one choice among all its subsets, up to so many.
_MOST_SUBSETS = 4096
_LARGEST = 1 << 16
# A continuous range is searched on so many values, evenly spread in NNI's own scale.
_GRID_OF_A_RANGE = 9


class ModelSpace(Space):
    """The networks that an NNI `ModelSpace` class describes, for images of one shape.

    Args:
        space_class: the NNI class; arguments of its constructor called ``in_channels``, ``num_classes`` (or
            ``num_labels``), ``image_size`` and ``input_shape`` are filled in, others keep their defaults.
        input_shape: (C, H, W) of one image.
        num_classes: number of logits that the networks must give.

    Raises:
        SlimsearchError: the class is no NNI `ModelSpace`, its constructor fails, or it has no choices.
    """

    def __init__(self, space_class: type[Any], input_shape: tuple[int, int, int], num_classes: int) -> None:
        for size in (*input_shape, num_classes) if isinstance(input_shape, tuple | list) else ():
            if not isinstance(size, int) or isinstance(size, bool) or not 0 < size <= _LARGEST:
                raise SlimsearchError(f"{reprlib.repr(size)} is no number of channels, pixels or classes")
        if not isinstance(input_shape, tuple | list) or len(input_shape) != 3:
            raise SlimsearchError(f"{reprlib.repr(input_shape)} is not the shape (C, H, W) of an image")
        self.space_class = space_class
        self.input_shape = input_shape
        self.num_classes = num_classes
        nni_model_space = import_nni()
        if not (inspect.isclass(space_class) and issubclass(space_class, nni_model_space)):
            name = getattr(space_class, "__name__", repr(space_class))
            raise SlimsearchError(f"'{name}' is not an NNI ModelSpace (a subclass of nni.nas.nn.pytorch.ModelSpace)")
        self._template = self._construct()
        self._choices = tuple(
            _as_choice(label, mutable)
            for label, mutable in sorted(self._template.simplify().items())
            if not _is_constraint(mutable)
        )
        self._activity = Activity(self._template)
        # A class may say itself what its networks compute: `graph(point)`, given a value for every label.
        self._graph = getattr(space_class, "graph", None) or graph_of(self._template)
        if not self._choices:
            raise SlimsearchError(f"'{space_class.__name__}' has no choices: there is nothing to search")
        self._by_label = {choice.label: choice for choice in self._choices}

    @classmethod
    def load(cls, name: str, input_shape: tuple[int, int, int], num_classes: int) -> ModelSpace:
        """The space called `name`: a built-in, ``path/to/file.py:Class`` or ``package.module:Class``."""
        import_nni()  # before a user's file imports NNI itself, and loudly
        return cls(load_class("space", name, "slimsearch.search_spaces"), input_shape, num_classes)

    def __getstate__(self) -> dict[str, Any]:
        # By value: a class from a notebook, a script or a named file exists in no other process.
        pickled = cloudpickle.dumps(self.space_class)
        return {"space_class": pickled, "input_shape": self.input_shape, "num_classes": self.num_classes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        import_nni()
        self.__init__(  # type: ignore[misc]
            cloudpickle.loads(state["space_class"]), state["input_shape"], state["num_classes"]
        )

    @property
    def choices(self) -> tuple[Choice, ...]:
        return self._choices

    def places(self) -> dict[str, list[str]]:
        """By label, the names of the layers (as ``named_modules`` has them) that it decides something about."""
        from nni.nas.nn.pytorch import LayerChoice
        from nni.nas.nn.pytorch.base import MutableModule

        found: dict[str, list[str]] = {choice.label: [] for choice in self._choices}
        for name, module in self._template.named_modules():
            if not isinstance(module, MutableModule):
                continue
            own = {label for mutable in module.mutables for label in mutable.simplify()}
            if isinstance(module, LayerChoice):
                own.add(module.label)
            for label in own & found.keys():
                found[label].append(name)
        return found

    @property
    def template(self) -> Any:
        """The NNI model with its choices open; whoever looks at it must leave it as it is."""
        return self._template

    def canonical(self, point: Point) -> dict[str, Any]:
        if not isinstance(point, Mapping):
            raise SlimsearchError(f"an architecture is a dict from label to value, not {reprlib.repr(point)}")
        unknown = [label for label in point if label not in self._by_label]
        if unknown:
            raise SlimsearchError(
                f"unknown label '{unknown[0]}'; {self.space_class.__name__} has {', '.join(self._by_label)}"
            )
        for label, value in point.items():
            self._by_label[label].index(value)
        is_inside, active = self._activity.look(point)
        if not is_inside:
            problem = self._template.check_contains(Recording(point))
            raise SlimsearchError(f"not in {self.space_class.__name__}: {problem}")
        return {c.label: point[c.label] for c in self._choices if c.label in active}

    def _resolved(self, point: Point) -> tuple[dict[str, Any] | None, Collection[str]]:
        is_inside, active = self._activity.look(point)
        return self.canonical(point) if is_inside else None, active

    def graph(self, point: Point) -> Graph | None:
        return None if self._graph is None else self._graph(self.complete(point))

    def build(self, architecture: Mapping[str, Any], seed: int = 0) -> nn.Module:
        """The network for `architecture`, with weights drawn from `seed`: (N, C, H, W) float32 -> (N, num_classes).

        Raises:
            SlimsearchError: `architecture` is not in the space, or the class cannot build it.
        """
        import torch

        canonical = self.canonical(architecture)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            # What is made from its sample takes nothing of the space itself, such as weights.
            instance = self._template if issubclass(self.space_class, FromSample) else self._construct()
            try:
                with _quiet():
                    module: nn.Module = instance.freeze(dict(canonical))
            except Exception as error:  # a user's constructor may raise anything
                raise SlimsearchError(
                    f"{self.space_class.__name__} cannot build {canonical}{self._line(error)}: {describe_error(error)}"
                ) from error
        return module

    def check(self, architecture: Mapping[str, Any], device: str = "cpu") -> nn.Module:
        """Build `architecture` and run it once on two images of zeros.

        Args:
            architecture: a point of the space.
            device: where; "meta" computes shapes and nothing else.

        Returns:
            the network, in evaluation mode.

        Raises:
            SlimsearchError: it fails, or its output has not the shape (N, num_classes).
        """
        import torch

        with torch.device(device):
            module = self.build(architecture).eval()
        images = torch.zeros(2, *self.input_shape, device=device)
        name, shape = self.space_class.__name__, "x".join(map(str, self.input_shape))
        try:
            with torch.no_grad():
                logits = module(images)
        except Exception as error:
            raise SlimsearchError(
                f"{name} {dict(architecture)} fails on images of {shape}{self._line(error)}: {describe_error(error)}"
            ) from error
        found = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        if found != (2, self.num_classes):
            raise SlimsearchError(
                f"{name} {dict(architecture)} gives {found} for 2 images of {shape}; the data set needs "
                f"(2, {self.num_classes}) logits"
            )
        return module

    def _line(self, error: BaseException) -> str:
        """Which line of the class's own file raised: where its author can look."""
        try:
            file = inspect.getsourcefile(self.space_class)
        except TypeError:  # a class of a notebook or of an interactive session
            file = None
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
        return f" ({Path(file).name}, line {lines[-1]})" if file and lines else ""

    def _construct(self) -> Any:
        name = self.space_class.__name__
        parameters = inspect.signature(getattr(self.space_class, "_init_wrapped", self.space_class.__init__)).parameters
        offered = {
            "in_channels": self.input_shape[0],
            "image_size": self.input_shape[1],
            "input_shape": self.input_shape,
            "num_classes": self.num_classes,
            "num_labels": self.num_classes,
        }
        arguments = {label: value for label, value in offered.items() if label in parameters}
        try:
            with _quiet():
                return self.space_class(**arguments)
        except Exception as error:  # a user's constructor may raise anything
            raise SlimsearchError(
                f"space '{name}' cannot be constructed with {arguments or 'no arguments'}{self._line(error)}: "
                f"{describe_error(error)}"
            ) from error


def _is_constraint(mutable: Any) -> bool:
    """Whether it has nothing to choose, and only says which choices go together."""
    from nni.mutable import Constraint

    return isinstance(mutable, Constraint)


def _as_choice(label: str, mutable: Any) -> Choice:
    from nni.mutable import Categorical, CategoricalMultiple, Numerical

    if isinstance(mutable, CategoricalMultiple):
        n, k = len(mutable.values), mutable.n_chosen
        sizes = range(1, n + 1) if k is None else (k,)
        subsets = itertools.chain.from_iterable(itertools.combinations(mutable.values, size) for size in sizes)
        values = tuple(list(subset) for subset in itertools.islice(subsets, _MOST_SUBSETS + 1))
        if len(values) > _MOST_SUBSETS:
            raise SlimsearchError(f"choice '{label}' has more than {_MOST_SUBSETS} subsets of its {n} values")
        return Choice(label, values)
    if isinstance(mutable, Categorical):
        return Choice(label, tuple(mutable.values))
    if isinstance(mutable, Numerical):
        return Choice(label, _values_of_a_range(mutable))
    raise SlimsearchError(f"choice '{label}' is a {type(mutable).__name__}, which cannot be searched")


def _values_of_a_range(numerical: Any) -> tuple[float, ...]:
    if numerical.quantize is not None:
        for granularity in range(1, 12):
            values = sorted(set(numerical.grid(granularity=granularity)))
            finer = sorted(set(numerical.grid(granularity=granularity + 1)))
            if values == finer or len(finer) > _MOST_SUBSETS:
                return tuple(values)
    spread = sorted(set(numerical.grid(granularity=6)))
    step = max(1, (len(spread) - 1) // (_GRID_OF_A_RANGE - 1))
    return tuple(spread[::step])


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """NNI warns about every class of torch that is newer than itself; none of it is news to a user."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def import_nni() -> type[Any]:
    """NNI's ModelSpace class, imported without its warnings."""
    with _quiet():
        from nni.nas.nn.pytorch import ModelSpace as NniModelSpace
    logging.getLogger("nni").setLevel(logging.ERROR)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    return NniModelSpace  # type: ignore[no-any-return]
