"""How objects of the public API are shown: one line in a terminal, a table in a notebook."""

from __future__ import annotations

import importlib
import pkgutil
import warnings
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import slimsearch
from slimsearch.compression import Network
from slimsearch.compression.quantization.plan import Quantization
from slimsearch.evaluators.datasets import Dataset, Split
from slimsearch.evaluators.tasks import Classification
from slimsearch.evaluators.tasks.regression import Regression
from slimsearch.report.compressed import AppliedStages, Compressed
from slimsearch.report.result import Result

HOSTILE = "<script>alert('\"&amp;')</script>\n\x1b[31m\udcff</td>"
METRICS = {"val_accuracy": 0.9, "latency_ms": 0.1, "size_kib": 12.0, "params": 100.0}


def network(**more: Any) -> Network:
    hostile = type(HOSTILE.encode("ascii", "ignore").decode(), (torch.nn.Linear,), {})
    return Network(torch.nn.Sequential(hostile(4, 2), torch.nn.Linear(2, 2)), **more)


def data(shape: tuple[int, ...], dtype: Any = np.uint8, *, count: int = 5, **more: Any) -> Dataset:
    split = Split(np.arange(count * int(np.prod(shape))).reshape(count, *shape).astype(dtype), np.arange(count) % 2)
    given = {"name": HOSTILE, "classes": (HOSTILE, "b"), "test": split, "notes": (HOSTILE,), **more}
    return Dataset(train=split, validation=split, mean=(0.0,), std=(1.0,), augmentation="none", **given)


def model(**more: Any) -> dict[str, Any]:
    return {
        "trial": 1, "on_front": True, "architecture": {HOSTILE: HOSTILE}, "recipe": {"prune": {HOSTILE: HOSTILE}},
        "metrics": METRICS, "artifact": HOSTILE, **more,
    }  # fmt: skip


def compressed(*stages: AppliedStages) -> Compressed:
    return Compressed(network(), Path(HOSTILE), Path("run"), METRICS, METRICS, stages)


EXAMPLES: dict[type, list[Any]] = {
    Network: [
        network(),
        network(structure={"pruned": {"share": 0.5}}, quantization=Quantization()),
        Network(torch.nn.Identity()),
        Network(torch.nn.Linear(4, 2, device="meta")),
    ],
    Split: [
        Split(np.zeros((0, 1, 8, 8), np.uint8), np.zeros(0, np.int64)),
        Split(np.full((3, 3, 9, 200), np.nan, np.float32), np.zeros((3, 9, 200))),
        Split(np.zeros((3, 2, 5)), np.zeros(3)),
    ],
    Dataset: [
        data((1, 8, 8)),
        data((3, 100, 30), np.float32, test=None),
        data((4,), classes=("y",), task=Regression()),
        data((1, 8, 8), classes=(), count=0),
        data((0, 8, 8)),
        data((1, 8, 8), classes=tuple(f"class {i}" for i in range(1000)), task=Classification(), notes=()),
    ],
    Result: [
        Result(Path(HOSTILE), (), ()),
        Result(Path("run"), (), (model(), model(recommended=HOSTILE), model(artifact=None, metrics={}))),
    ],
    Compressed: [
        compressed(),
        compressed(AppliedStages({"prune": {HOSTILE: HOSTILE}}, False, HOSTILE, METRICS)),
    ],
}  # fmt: skip
ALL = [(kind, index) for kind, examples in EXAMPLES.items() for index in range(len(examples))]


class Page(HTMLParser):
    """The tags and the text of a piece of HTML, whose tags all have an end."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.text: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attributes}
        for name, value in attributes:
            assert name != "src" or str(value).startswith("data:image/")
        if tag != "img":
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, text: str) -> None:
        self.text.append(text)


def shown(value: Any) -> Page:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return Page(value._repr_html_())


def test_every_class_with_a_table_has_examples_here() -> None:
    found = set()
    for module in pkgutil.walk_packages(slimsearch.__path__, "slimsearch."):
        if ".cli" in module.name or "nni" in module.name or "ray" in module.name:
            continue
        path = Path(module.module_finder.path, *module.name.rpartition(".")[2:])  # type: ignore[union-attr]
        source = path / "__init__.py" if module.ispkg else path.with_suffix(".py")
        if "def _repr_html_" in source.read_text(encoding="utf-8"):
            members = vars(importlib.import_module(module.name)).values()
            found |= {one for one in members if isinstance(one, type) and "_repr_html_" in vars(one)}
    assert found == set(EXAMPLES)


@pytest.mark.parametrize(("kind", "index"), ALL, ids=[f"{kind.__name__}-{index}" for kind, index in ALL])
def test_a_table_is_valid_html_and_names_are_only_text(kind: type, index: int) -> None:
    value = EXAMPLES[kind][index]
    page = shown(value)
    assert set(page.tags) <= {"p", "table", "tr", "th", "td", "div", "img"}
    assert page.attributes <= {"style", "src", "alt", "title"}
    for line in (value._repr_html_(), repr(value)):
        assert line.isprintable()


def test_a_data_set_shows_one_training_image_of_each_class() -> None:
    assert shown(data((1, 8, 8))).tags.count("img") == 2
    assert shown(data((3, 100, 30), np.float32)).tags.count("img") == 2
    assert "img" not in shown(data((1, 8, 8), task=Regression())).tags
    assert "img" not in shown(data((2, 8, 8))).tags
    many = data((1, 8, 8), count=2000)
    assert shown(many.train).tags.count("img") == 10
    hidden = Split(np.full((5, 1, 8, 8), 7, np.uint8), np.zeros(5, np.int64))
    assert data((1, 8, 8), test=hidden)._repr_html_() == data((1, 8, 8))._repr_html_()


def test_a_table_has_the_numbers_that_describe_the_object() -> None:
    assert {"parameters", "16", "50% of the channels, by the last pruning"} <= set(shown(EXAMPLES[Network][1]).text)
    everything = " ".join(shown(EXAMPLES[Dataset][5]).text)
    assert "1,000: class 0, class 1" in everything
    assert "990 more" in everything
    assert shown(EXAMPLES[Result][1]).tags.count("tr") == 1 + 3
    assert shown(EXAMPLES[Compressed][1]).tags.count("tr") == 1 + 2
