"""Scores of networks that were never trained: one per file."""

from __future__ import annotations

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators.scores._score import Score
from slimsearch.names import load_class

__all__ = ["Score", "load_score"]


def load_score(name: str) -> Score:
    """The score called `name`: a built-in, ``path/to/file.py:Class`` or ``package.module:Class``.

    Raises:
        SlimsearchError: there is none, or it cannot be made without arguments.
    """
    found = load_class("score", name, "slimsearch.evaluators.scores")
    if not callable(getattr(found, "score", None)):
        raise SlimsearchError(f"score '{name}' has no method score")
    try:
        made: Score = found()
    except Exception as error:  # a user's constructor may raise anything
        raise SlimsearchError(f"score '{name}': {type(error).__name__}: {error}") from error
    return made
