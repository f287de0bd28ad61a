"""The adapter to NNI, where the contract does not reach."""

from __future__ import annotations

import numpy as np
import pytest

from slimsearch.errors import SlimsearchError
from slimsearch.search_spaces import Candidate, ModelSpace
from slimsearch.search_spaces.lenet import LeNet
from tests.conftest import SPACES


def load(name: str, shape: tuple[int, int, int] = (1, 8, 8)) -> ModelSpace:
    return ModelSpace.load(f"{SPACES}:{name}", shape, 10)


def test_hello_nas_space_has_the_tutorials_labels_and_18_networks() -> None:
    space = ModelSpace.load("mnist_cnn", (1, 28, 28), 10)
    assert {c.label: c.values for c in space.choices} == {
        "conv2": (0, 1),
        "dropout": (0.25, 0.5, 0.75),
        "feature": (64, 128, 256),
    }
    assert len(list(space.grid())) == 18


def test_lenet_has_44426_parameters_at_its_default() -> None:
    space = ModelSpace.load("lenet", (1, 28, 28), 10)
    assert sum(p.numel() for p in space.build(LeNet.DEFAULT).parameters()) == 44_426


@pytest.mark.parametrize("name", ["mnist_cnn", "lenet", "tiny_cnn"])
def test_shipped_spaces_take_other_images(name: str, rng: np.random.Generator) -> None:
    space = ModelSpace.load(name, (3, 32, 32), 7)
    for _ in range(3):
        space.check(space.sample(rng))


def test_inactive_choices_make_no_difference() -> None:
    space = load("Nested")
    point = {"branch": 0, "kernel": 1, "depth": 1, "inputs": [0, 1]}
    assert "kernel" not in space.canonical(point)
    assert Candidate(space.canonical(point)) == Candidate(space.canonical({**point, "kernel": 0}))
    assert "kernel" in space.canonical({**point, "branch": 1})


def test_a_choice_of_several_becomes_a_choice_among_subsets() -> None:
    space = load("Nested")
    inputs = next(c for c in space.choices if c.label == "inputs")
    assert inputs.values == ([0, 1], [0, 2], [1, 2])


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("NotASpace", "'NotASpace' is not a space of networks, which is an NNI ModelSpace"),
        ("NoChoices", "'NoChoices' has no choices"),
        ("FailsToBuild", "the constructor gave up"),
        ("Missing", "has no 'Missing'; its classes and functions: .*Tiny"),
    ],
)
def test_an_invalid_class_is_a_clear_error(name: str, said: str) -> None:
    with pytest.raises(SlimsearchError, match=said):
        load(name)


@pytest.mark.parametrize(
    ("name", "said"),
    [("WrongOutput", r"gives \(2, 7\) .* needs \(2, 10\) logits"), ("FailsToRun", "the forward pass gave up")],
)
def test_an_invalid_network_is_a_clear_error(name: str, said: str) -> None:
    space = load(name)
    with pytest.raises(SlimsearchError, match=said):
        space.check(next(space.grid()))


def test_an_error_in_a_file_has_its_line(tmp_path) -> None:
    file = tmp_path / "broken.py"
    file.write_text("x = 1\ny = 1 / 0\n\n\nclass Net: ...\n")
    with pytest.raises(SlimsearchError, match=r"broken\.py, line 2: ZeroDivisionError"):
        ModelSpace.load(f"{file}:Net", (1, 8, 8), 10)


def test_a_file_can_import_from_its_folder(tmp_path) -> None:
    (tmp_path / "my_blocks.py").write_text("from torch import nn\nBlock = nn.ReLU\n")
    (tmp_path / "my_net.py").write_text(
        "import nni, torch\n"
        "from my_blocks import Block\n"
        "from nni.nas.nn.pytorch import ModelSpace, MutableLinear\n"
        "class Net(ModelSpace):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        n = nni.choice('n', [2, 3])\n"
        "        self.one, self.act, self.two = MutableLinear(64, n), Block(), MutableLinear(n, 10)\n"
        "    def forward(self, x):\n"
        "        return self.two(self.act(self.one(torch.flatten(x, 1))))\n"
    )
    space = ModelSpace.load(f"{tmp_path / 'my_net.py'}:Net", (1, 8, 8), 10)
    space.check({"n": 3})
