"""Large model spaces, of which only what was chosen is made."""

from __future__ import annotations

from typing import Any


class FromSample:
    """Put before an NNI `ModelSpace` among a class's bases: each network is made from its sample, by the constructor.

    NNI otherwise makes a network by copying parts of the whole space, again and again where choices lie within choices,
    which takes seconds and hundreds of megabytes where there are many branches. Here `__init__` runs anew and all
    choices in it have their values, so that it can also see to what depends on several of them:
    ``nni.nas.space.current_model()`` is the sample then, and None while choices are open. Weights follow from the seed
    and the network alone.
    """

    # Of NNI's TraceableMixin: the arguments that the space was made with.
    trace_args: tuple[Any, ...]
    trace_kwargs: dict[str, Any]

    def freeze(self, sample: dict[str, Any]) -> Any:
        """The network of `sample`."""
        from nni.nas.space import model_context

        with model_context(sample):
            return type(self)(*self.trace_args, **self.trace_kwargs)
