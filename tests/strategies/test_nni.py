"""NNI's own strategies: what they offer is in the space, evaluated once, and the search ends whatever happens."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import Outcome, ReportEpoch, Task
from slimsearch.evaluators.datasets import Dataset
from slimsearch.names import load_class
from slimsearch.search_spaces import ChoiceSpace, ModelSpace, NniSpace
from slimsearch.strategies import Exhausted, ProposerSearch, StrategySettings
from slimsearch.strategies._nni import multi_trial as _multi_trial
from slimsearch.strategies._nni import oneshot as _oneshot
from slimsearch.strategies._nni.oneshot import BestArchitectures
from tests.conftest import SPACES, TINY
from tests.strategies.stand_ins import Cheap, Inline, Recorder, check_record

MULTI_TRIAL = ["nni_random", "nni_grid", "nni_evolution", "nni_tpe"]
ONE_SHOT = ["nni_random_oneshot", "nni_darts", "nni_gumbel_darts", "nni_proxyless"]
NESTED = f"{SPACES}:Nested"
TABLE = ChoiceSpace({"a": list(range(5))})


def make(name: str, **options: Any) -> Any:
    """A strategy; what is no setting is an argument of its own."""
    settings = {o: options.pop(o) for o in ("workers", "trial_timeout", "seed", "run_directory") if o in options}
    return load_class("strategy", name, "slimsearch.strategies")(StrategySettings(**settings), **options)


@dataclass
class TrainingSplit:
    train: Any
    mean: float
    std: float

    def normalise(self, images: Any) -> torch.Tensor:
        return (torch.from_numpy(np.array(images)).float() - self.mean) / self.std


@pytest.fixture(scope="module")
def images(digits: Dataset) -> TrainingSplit:
    train = SimpleNamespace(inputs=digits.train.inputs, targets=digits.train.targets)
    return TrainingSplit(train, float(train.inputs.mean()), float(train.inputs.std()))


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_multi_trial, "Workers", Inline)
    monkeypatch.setattr(_oneshot, "Workers", Inline)


@pytest.fixture(scope="module")
def mnist_cnn() -> ModelSpace:
    return ModelSpace.load("mnist_cnn", (1, 8, 8), 10)


@pytest.mark.usefixtures("inline")
@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("name", MULTI_TRIAL)
def test_budget_ends_in_the_middle(name: str, workers: int, mnist_cnn: ModelSpace, tmp_path: Path) -> None:
    search = Recorder(mnist_cnn, tmp_path, 7, interrupted=2, later=2)
    make(name, workers=workers, seed=1).run(search, Cheap(mnist_cnn))
    check_record(search, 7)
    assert [list(task.candidate.architecture) for task in search.tasks[:2]] == [["interrupted"], ["interrupted"]]
    assert [list(task.candidate.architecture) for task in search.tasks[9:]] == [["later"], ["later"]]


@pytest.mark.usefixtures("inline")
@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("space_name", ["mnist_cnn", NESTED])
@pytest.mark.parametrize("name", MULTI_TRIAL)
def test_exhausted_space_ends_the_search(name: str, space_name: str, fails: bool, tmp_path: Path) -> None:
    """Both have 18 networks; in the nested one, NNI tells 24 samples apart."""
    space = ModelSpace.load(space_name, (1, 8, 8), 10)
    search = Recorder(space, tmp_path, 1000)
    make(name, workers=2).run(search, Cheap(space, fails=fails))
    check_record(search, 18)


@pytest.mark.usefixtures("inline")
@pytest.mark.parametrize("name", MULTI_TRIAL)
def test_resumed_search_goes_on_where_it_was(name: str, mnist_cnn: ModelSpace, tmp_path: Path) -> None:
    whole, part, rest = (tmp_path / name for name in ("whole", "part", "rest"))
    for folder in (whole, part, rest):
        folder.mkdir()
    uninterrupted = Recorder(mnist_cnn, whole, 12)
    make(name, workers=1, seed=3).run(uninterrupted, Cheap(mnist_cnn))
    first = Recorder(mnist_cnn, part, 5)
    make(name, workers=1, seed=3).run(first, Cheap(mnist_cnn))
    second = Recorder(mnist_cnn, rest, 7, record=first.record)
    make(name, workers=1, seed=3).run(second, Cheap(mnist_cnn))
    assert first.offered + second.offered == uninterrupted.offered


@pytest.mark.usefixtures("inline")
@pytest.mark.parametrize("name", MULTI_TRIAL)
def test_space_without_networks(name: str, tmp_path: Path) -> None:
    """A table's space: values that NNI would not tell apart."""
    space = ChoiceSpace({"a": [1, 1.0, True], "b": [[0], [0, 1]], "c": ["x", None]})
    search = Recorder(space, tmp_path, 1000)
    make(name, workers=2).run(search, Cheap(space))
    check_record(search, 12)


@dataclass
class Sum(Cheap):
    def evaluate(self, task: Task, *, report: ReportEpoch) -> Outcome:
        return Outcome({"val_accuracy": float(sum(task.candidate.architecture.values()))})


@pytest.mark.usefixtures("inline")
@pytest.mark.parametrize(
    ("name", "options", "better"),
    [
        # Twenty random candidates to begin with, then those like the best; where it repeats itself, the grid.
        ("nni_tpe", {}, slice(20, 35)),
        ("nni_evolution", {"population": 10, "tournament": 5}, slice(100, 120)),
    ],
)
def test_more_is_better(name: str, options: dict[str, Any], better: slice, tmp_path: Path) -> None:
    space = ChoiceSpace({f"choice{i}": list(range(8)) for i in range(12)})
    search = Recorder(space, tmp_path, better.stop)
    make(name, workers=1, **options).run(search, Sum(space))
    check_record(search, better.stop)
    sums = [sum(candidate.architecture.values()) for candidate in search.offered]
    assert np.mean(sums[better]) > np.mean(sums[:10]) + 6


@pytest.mark.parametrize("name", ["nni_random", "nni_grid", "nni_evolution"])
def test_constraints_are_kept(name: str, tmp_path: Path) -> None:
    from nni.mutable import Categorical, ExpressionConstraint

    from slimsearch.strategies._nni.proposer import NniProposer, choices_of

    space = ChoiceSpace({"a": [1, 2, 3], "b": [1, 2, 3]})
    _, point_of = choices_of(space)
    a, b = (Categorical([0, 1, 2], label=label) for label in "ab")
    mutables = {"a": a, "b": b, "rule": ExpressionConstraint(a + b == 2, label="rule")}
    strategy, search = make(name), Recorder(space, tmp_path, 10)
    with closing(NniProposer(name, strategy._strategy(mutables), mutables, point_of)) as proposer:
        Inline(1, None, Cheap(space)).evaluate(ProposerSearch(search, proposer, space))  # type: ignore[misc]
    assert sorted(tuple(c.architecture.values()) for c in search.offered) == [(1, 3), (2, 2), (3, 1)]


def test_tpe_refuses_constraints() -> None:
    from nni.mutable import Categorical, ExpressionConstraint

    a = Categorical([1, 2, 3], label="a")
    with pytest.raises(SlimsearchError, match="nni_tpe cannot keep constraints, and the space has 'rule'"):
        make("nni_tpe")._strategy({"a": a, "rule": ExpressionConstraint(a > 1, label="rule")})


@pytest.mark.parametrize("name", MULTI_TRIAL)
def test_no_thread_is_left(name: str, mnist_cnn: ModelSpace) -> None:
    """Also where the one who asks gives up, as Ctrl-C does."""
    with closing(make(name).proposer(mnist_cnn)) as proposer:
        assert mnist_cnn.contains(proposer.propose("one"))
        assert name in [thread.name for thread in threading.enumerate()]
    assert name not in [thread.name for thread in threading.enumerate()]


def test_worker_processes(mnist_cnn: ModelSpace, tmp_path: Path) -> None:
    search = Recorder(mnist_cnn, tmp_path, 5, interrupted=1, later=1)
    make("nni_random", workers=2).run(search, Cheap(mnist_cnn))
    check_record(search, 5)
    assert sorted(search.epochs) == [(number, 1) for number in range(7)]


@pytest.mark.usefixtures("inline")
def test_error_in_nni_is_one_line(mnist_cnn: ModelSpace, tmp_path: Path) -> None:
    from nni.nas.strategy import Random

    class Broken(Random):  # type: ignore[misc]
        def _run(self) -> None:
            raise ValueError("out of ideas")

    strategy = make("nni_random")
    strategy._strategy = lambda mutables: Broken()
    with pytest.raises(SlimsearchError, match="nni_random failed in NNI: ValueError: out of ideas"):
        strategy.run(Recorder(mnist_cnn, tmp_path, 3), Cheap(mnist_cnn))


@pytest.mark.parametrize("name", MULTI_TRIAL + ONE_SHOT)
def test_evaluator_without_a_space_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(SlimsearchError, match=f"{name} needs the space to search"):
        make(name).run(Recorder(TABLE, tmp_path, 3), SimpleNamespace())


@pytest.mark.parametrize("name", ONE_SHOT)
def test_space_without_networks_has_no_supernet(name: str, tmp_path: Path) -> None:
    with pytest.raises(SlimsearchError, match="trains a supernet, and Cheap has not what that needs"):
        make(name).run(Recorder(TABLE, tmp_path, 3), Cheap(TABLE))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "nni_darts", "workers": 0}, "--workers 0 is less than 1"),
        ({"name": "nni_darts", "epochs": 0}, "nni_darts: epochs 0 is less than 1"),
        ({"name": "nni_grid", "trial_timeout": 0}, "--trial-timeout 0 is not above 0"),
        ({"name": "nni_evolution", "tournament": 200}, "tournament 200 is not between 1 and population 100"),
        ({"name": "nni_evolution", "workers": 4, "population": 4, "tournament": 2}, "population 4 is not above"),
    ],
)
def test_senseless_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SlimsearchError, match=message):
        make(**options)


@pytest.mark.parametrize(
    ("name", "space_name", "offered"),
    [
        ("nni_random_oneshot", TINY, 5), ("nni_darts", TINY, 1), ("nni_gumbel_darts", TINY, 1),
        ("nni_random_oneshot", NESTED, 5), ("nni_proxyless", NESTED, 1),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("inline")
def test_supernet(name: str, space_name: str, offered: int, images: TrainingSplit, tmp_path: Path) -> None:
    space = ModelSpace.load(space_name, (1, 8, 8), 10)
    search = Recorder(space, tmp_path, 10, interrupted=1, later=1)
    folder = tmp_path / "supernet"
    options = {"workers": 2, "seed": 1, "epochs": 1, "run_directory": tmp_path}
    make(name, **options).run(search, Cheap(space, images))
    check_record(search, offered)
    kept = json.loads((folder / "architectures.json").read_text())["architectures"]
    assert [candidate.architecture for candidate in search.offered] == kept[:offered]
    # A resumed run, which has no data to train a supernet on; version 0.1 wrote another name.
    stored = json.loads((folder / "architectures.json").read_text())
    for written in (name, name.replace("_", "-")):
        (folder / "architectures.json").write_text(json.dumps({**stored, "strategy": written}))
        (tmp_path / written).mkdir()
        again = Recorder(space, tmp_path / written, 10)
        make(name, **options).run(again, Cheap(space, "no images"))
        assert again.offered == search.offered


def test_supernet_in_a_worker_process(
    images: TrainingSplit, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    space = ModelSpace.load(TINY, (1, 8, 8), 10)
    search = Recorder(space, tmp_path, 10, later=1)
    with caplog.at_level(logging.INFO, logger="slimsearch.strategies"):
        make("nni_darts", workers=1, epochs=2, run_directory=tmp_path).run(search, Cheap(space, images))
    check_record(search, 1)
    assert (tmp_path / "supernet" / "log.txt").is_file()
    assert [line for line in caplog.messages if "supernet, epoch" in line][1].startswith(
        "nni_darts: supernet, epoch 2: train_loss "
    )
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("name", ["nni_random_oneshot", "nni_darts", "nni_gumbel_darts"])
def test_supernet_of_mnist_cnn(name: str, mnist_cnn: ModelSpace, images: TrainingSplit) -> None:
    """Its dropout rate is a choice, which NNI does not mix by itself."""
    from slimsearch.strategies._nni import supernet as _nni_supernet

    strategy = make(name, seed=2)

    def best() -> list[dict[str, Any]]:
        told: list[tuple[int, float]] = []
        supernet = _nni_supernet.train(
            strategy.strategy, mnist_cnn, images, epochs=2, batch_size=128, held_out=strategy.HELD_OUT, seed=2,
            report=lambda epoch, metrics: told.append((epoch, metrics["train_loss"])) or True,
        )  # fmt: skip
        assert [epoch for epoch, _ in told] == [1, 2]
        assert told[1][1] < told[0][1]
        found: list[dict[str, Any]] = strategy.best(supernet)
        return found

    found = best()
    assert all(mnist_cnn.contains(point) and "dropout" in point for point in found)
    assert len(found) == (18 if name == "nni_random_oneshot" else 1)
    assert best() == found  # the seed decides


def test_ruled_out_architectures_make_room_for_others() -> None:
    proposer = BestArchitectures("best", [{"a": i} for i in range(9)], 2)
    assert proposer.propose("0") == {"a": 0}
    assert proposer.propose("1") == {"a": 1}
    assert proposer.propose("2") is None  # two are running
    proposer.tell("0", None)
    assert proposer.propose("2") == {"a": 2}
    proposer.tell("1", None)
    proposer.tell("2", (-0.9,))
    assert proposer.propose("3") == {"a": 3}
    proposer.tell("3", (-0.8,))
    with pytest.raises(Exhausted):
        proposer.propose("4")


@pytest.mark.parametrize(
    ("name", "space_name", "message"),
    [
        ("nni_proxyless", TINY, "nni_proxyless cannot search 'width' of Tiny: it mixes only whole layers"),
        ("nni_proxyless", "mnist_cnn", "cannot search 'feature' of MnistCnn: .* a value choice of MutableLinear"),
        ("nni_darts", "lenet", "nni_darts cannot search 'kernel1' of LeNet: .*size.*kernel_size of MutableConv2d"),
        ("nni_gumbel_darts", "lenet", "nni_gumbel_darts cannot search 'kernel1' of LeNet"),
        ("nni_proxyless", "lenet", "nni_proxyless cannot search 'conv1' of LeNet"),
        ("nni_darts", f"{SPACES}:FailsToRun", "cannot search FailsToRun: .*: RuntimeError: the forward pass gave up"),
    ],
)
def test_space_that_cannot_be_searched_is_refused_before_training(
    name: str, space_name: str, message: str, tmp_path: Path
) -> None:
    space = ModelSpace.load(space_name, (1, 28, 28), 10)
    search = Recorder(space, tmp_path, 3, interrupted=1)
    with pytest.raises(SlimsearchError, match=message) as caught:
        make(name, run_directory=tmp_path).run(search, Cheap(space, "no images"))
    assert "\n" not in str(caught.value)
    assert not search.told
    assert not (tmp_path / "supernet").exists()


def _spaces() -> dict[str, tuple[str, Callable[[], Any]]]:
    """Strategy and class of spaces that it cannot search, by what is said of them."""
    import nni
    from nni.nas.nn.pytorch import InputChoice, LayerChoice, MutableConv2d, MutableDropout, MutableMaxPool2d
    from nni.nas.nn.pytorch import ModelSpace as NniModelSpace
    from torch import nn

    class Head(NniModelSpace):  # type: ignore[misc]
        def __init__(self, body: Callable[[], Any]) -> None:
            super().__init__()
            self.stem, self.body, self.fc = nn.Conv2d(1, 4, 3), body(), nn.Linear(4, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.stem(x)
            x = self.body([x, x]) if isinstance(self.body, InputChoice) else self.body(x)
            return self.fc(x.mean(dim=(2, 3)))

    class Pool(Head):
        def __init__(self) -> None:
            super().__init__(lambda: MutableMaxPool2d(nni.choice("pool", [2, 3])))

    class Inputs(Head):
        def __init__(self) -> None:
            super().__init__(lambda: InputChoice(2, None, label="inputs"))

    class Layers(Head):
        def __init__(self) -> None:
            super().__init__(lambda: LayerChoice([nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3)], label="layer"))

    class Stride(Head):
        def __init__(self) -> None:
            super().__init__(lambda: MutableConv2d(4, 4, 1, stride=nni.choice("stride", [1, 2])))

    class Range(Head):
        def __init__(self) -> None:
            super().__init__(lambda: MutableDropout(nni.uniform("rate", 0.1, 0.5)))

    return {
        "'pool' of Pool: it mixes value choices of .*, and 'pool' is one of MutableMaxPool2d": ("nni_darts", Pool),
        "'inputs' of Inputs: n_chosen is None": ("nni_random_oneshot", Inputs),
        "'layer' of Layers: .* differ in shape": ("nni_proxyless", Layers),
        "'stride' of Stride: .*stride of MutableConv2d": ("nni_darts", Stride),
        "'rate' of Range: .* this is a range": ("nni_random_oneshot", Range),
    }


@pytest.mark.parametrize("message", ["'pool' of", "'inputs' of", "'layer' of", "'stride' of", "'rate' of"])
def test_refusal_names_the_choice(message: str) -> None:
    from slimsearch.strategies._nni import supernet as _nni_supernet

    pattern, (name, space_class) = next(item for item in _spaces().items() if item[0].startswith(message))
    strategy, space = make(name), NniSpace(space_class, (1, 8, 8), 10)  # type: ignore[arg-type]
    with pytest.raises(SlimsearchError, match=f"{strategy.NAME} cannot search {pattern}"):
        _nni_supernet.check(strategy.NAME, strategy.strategy(space), space, 0)


def test_supernet_that_diverges_is_one_line(images: TrainingSplit, tmp_path: Path) -> None:
    space = ModelSpace.load(f"{SPACES}:Diverges", (1, 8, 8), 10)
    search = Recorder(space, tmp_path, 3)
    with pytest.raises(
        SlimsearchError, match=r"nni_darts: the supernet could not be trained: .*loss.* is nan .*log\.txt"
    ):
        make("nni_darts", workers=1, epochs=1, run_directory=tmp_path).run(search, Cheap(space, images))
    assert not search.told
    assert "Traceback" in (tmp_path / "supernet" / "log.txt").read_text()


def test_mixed_dropout() -> None:
    from nni.nas.nn.pytorch import MutableDropout

    from slimsearch.strategies._nni.supernet import MixedDropout

    layer = MixedDropout({"p": 0.5})
    weights = torch.tensor([0.25, 0.75], requires_grad=True)
    rates = {0.0: weights[0], 0.5: weights[1]}
    ones = torch.ones(4000)
    out = layer.forward_with_args(rates, False, ones)
    # Half of the places are dropped by the second rate alone, the others count twice in it.
    assert sorted(set(out.tolist())) == [0.25, 1.75]
    assert abs(float(out.mean()) - 1) < 0.05
    out.square().mean().backward()
    assert weights.grad is not None
    assert weights.grad[1] > weights.grad[0] > 0
    assert 0 < float((layer.forward_with_args(0.5, False, ones) == 0).float().mean()) < 1
    layer.eval()
    assert torch.equal(layer.forward_with_args(rates, False, ones), ones)
    assert isinstance(layer.freeze({}), MutableDropout)
