"""Adapter for NNI model spaces: a class with `LayerChoice` and `Mutable*` modules as a `Space` that builds networks.

NNI is imported when the first space is constructed, since its import takes seconds.
"""

from __future__ import annotations

import contextlib
import inspect
import itertools
import logging
import reprlib
import warnings
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import cloudpickle

from slimsearch.errors import SlimsearchError, describe_error
from slimsearch.search_spaces._graph import Graph
from slimsearch.search_spaces._model_space import ModelSpace
from slimsearch.search_spaces._nni.activity import Activity, Recording
from slimsearch.search_spaces._nni.cells import graph_of
from slimsearch.search_spaces._space import Choice, Point

if TYPE_CHECKING:
    from torch import nn

_MAX_SUBSETS = 4096  # of a choice of k out of n, which becomes a choice among all subsets
_RANGE_VALUES = 9  # of a continuous range, evenly spaced on NNI's scale


class NniSpace(ModelSpace):
    """The networks that an NNI `ModelSpace` class describes, for images of one shape.

    Args:
        code: the NNI class. Its constructor gets those of ``in_channels``, ``num_classes`` (or ``num_labels``),
            ``image_size`` and ``input_shape`` that it has; others keep their defaults.
        input_shape: (C, H, W) of one image.
        num_classes: number of logits of the networks.

    Raises:
        SlimsearchError: the class is not an NNI `ModelSpace`, its constructor fails, or it has no choices.
    """

    def __init__(self, code: type[Any], input_shape: tuple[int, ...], num_classes: int) -> None:
        super().__init__(code, input_shape, num_classes)
        nni_model_space = import_nni()
        if not (inspect.isclass(code) and issubclass(code, nni_model_space)):
            raise SlimsearchError(
                f"'{self.name}' is not an NNI ModelSpace (a subclass of nni.nas.nn.pytorch.ModelSpace)"
            )
        self._template = self._construct()
        self._choices = tuple(
            _as_choice(label, mutable)
            for label, mutable in sorted(self._template.simplify().items())
            if not _is_constraint(mutable)
        )
        self._activity = Activity(self._template)
        # A class can define its own `graph(point)`, which gets a value for every label.
        self._graph = getattr(code, "graph", None) or graph_of(self._template)
        if not self._choices:
            raise SlimsearchError(f"'{self.name}' has no choices: there is nothing to search")
        self._by_label = {choice.label: choice for choice in self._choices}

    def __getstate__(self) -> dict[str, Any]:
        # By value, since other processes cannot import a class from a notebook, a script or a file.
        pickled = cloudpickle.dumps(self.code)
        return {"code": pickled, "input_shape": self.input_shape, "num_classes": self.num_classes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        import_nni()
        self.__init__(  # type: ignore[misc]
            cloudpickle.loads(state["code"]), state["input_shape"], state["num_classes"]
        )

    @property
    def choices(self) -> tuple[Choice, ...]:
        return self._choices

    def affected_layers(self) -> dict[str, list[str]]:
        from nni.nas.nn.pytorch import LayerChoice
        from nni.nas.nn.pytorch.base import MutableModule

        layers: dict[str, list[str]] = {choice.label: [] for choice in self._choices}
        for name, module in self._template.named_modules():
            if not isinstance(module, MutableModule):
                continue
            own = {label for mutable in module.mutables for label in mutable.simplify()}
            if isinstance(module, LayerChoice):
                own.add(module.label)
            for label in own & layers.keys():
                layers[label].append(name)
        return layers

    @property
    def template(self) -> Any:
        """The NNI model with open choices; read-only."""
        return self._template

    def canonical(self, point: Point) -> dict[str, Any]:
        if not isinstance(point, Mapping):
            raise SlimsearchError(f"an architecture is a dict from label to value, not {reprlib.repr(point)}")
        unknown = [label for label in point if label not in self._by_label]
        if unknown:
            raise SlimsearchError(f"unknown label '{unknown[0]}'; {self.name} has {', '.join(self._by_label)}")
        for label, value in point.items():
            self._by_label[label].index(value)
        is_inside, active = self._activity.look(point)
        if not is_inside:
            problem = self._template.check_contains(Recording(point))
            raise SlimsearchError(f"not in {self.name}: {problem}")
        return {c.label: point[c.label] for c in self._choices if c.label in active}

    def _resolved(self, point: Point) -> tuple[dict[str, Any] | None, Collection[str]]:
        is_inside, active = self._activity.look(point)
        return self.canonical(point) if is_inside else None, active

    def graph(self, point: Point) -> Graph | None:
        return None if self._graph is None else self._graph(self.complete(point))

    def build(self, architecture: Mapping[str, Any], seed: int = 0) -> nn.Module:
        import torch

        canonical = self.canonical(architecture)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            # `FromSample` runs the constructor again, so that the template can be reused.
            instance = self._template if issubclass(self.code, FromSample) else self._construct()
            try:
                with _quiet():
                    module: nn.Module = instance.freeze(dict(canonical))
            except Exception as error:  # a user's constructor may raise anything
                raise SlimsearchError(
                    f"{self.name} cannot build {canonical}{self._line(error)}: {describe_error(error)}"
                ) from error
        return module

    def _construct(self) -> Any:
        parameters = inspect.signature(getattr(self.code, "_init_wrapped", self.code.__init__)).parameters
        arguments = self._offered(parameters)
        try:
            with _quiet():
                return self.code(**arguments)
        except SlimsearchError:
            raise
        except Exception as error:  # a user's constructor may raise anything
            raise SlimsearchError(
                f"space '{self.name}' cannot be constructed with {arguments or 'no arguments'}{self._line(error)}: "
                f"{describe_error(error)}"
            ) from error


def _is_constraint(mutable: Any) -> bool:
    """Whether `mutable` only restricts other choices."""
    from nni.mutable import Constraint

    return isinstance(mutable, Constraint)


def _as_choice(label: str, mutable: Any) -> Choice:
    from nni.mutable import Categorical, CategoricalMultiple, Numerical

    if isinstance(mutable, CategoricalMultiple):
        n, k = len(mutable.values), mutable.n_chosen
        sizes = range(1, n + 1) if k is None else (k,)
        subsets = itertools.chain.from_iterable(itertools.combinations(mutable.values, size) for size in sizes)
        values = tuple(list(subset) for subset in itertools.islice(subsets, _MAX_SUBSETS + 1))
        if len(values) > _MAX_SUBSETS:
            raise SlimsearchError(f"choice '{label}' has more than {_MAX_SUBSETS} subsets of its {n} values")
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
            if values == finer or len(finer) > _MAX_SUBSETS:
                return tuple(values)
    spread = sorted(set(numerical.grid(granularity=6)))
    step = max(1, (len(spread) - 1) // (_RANGE_VALUES - 1))
    return tuple(spread[::step])


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress warnings: NNI warns about every PyTorch class that is newer than itself."""
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


class FromSample:
    """Mixin before an NNI `ModelSpace`: builds each network by running the constructor with all choices made.

    NNI otherwise copies parts of the whole space, repeatedly for nested choices, which takes seconds and hundreds of
    megabytes for spaces with many branches. In the constructor, ``nni.nas.space.current_model()`` is the sample, or
    None while choices are open; so it can also handle layers that depend on several choices. Weights depend on the
    seed and the network only.
    """

    # Set by NNI's TraceableMixin: the arguments of the constructor.
    trace_args: tuple[Any, ...]
    trace_kwargs: dict[str, Any]

    def freeze(self, sample: dict[str, Any]) -> Any:
        """The network of `sample`."""
        from nni.nas.space import model_context

        with model_context(sample):
            return type(self)(*self.trace_args, **self.trace_kwargs)
