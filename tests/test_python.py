"""From Python: a script without a main guard, a notebook, and classes defined there."""

from __future__ import annotations

import ast
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import slimsearch
from slimsearch.compression import Network
from slimsearch.evaluators.datasets import Dataset
from slimsearch.loop import job
from slimsearch.options.chosen import retraining
from slimsearch.search_spaces import ChoiceSpace
from tests import defined
from tests.conftest import SPACES, TINY, environment

PROGRAM = textwrap.dedent(
    """
    import slimsearch
    import nni, torch
    from nni.nas.nn.pytorch import LayerChoice, ModelSpace, MutableLinear
    from sklearn.datasets import load_digits

    print("this line runs once")

    class Mine(torch.nn.Module):
        def forward(self, x):
            return torch.relu(x)

    class Mlp(ModelSpace):
        def __init__(self):
            super().__init__()
            width = nni.choice("width", [16, 32])
            self.hidden, self.out = MutableLinear(64, width), MutableLinear(width, 10)
            self.act = LayerChoice([Mine(), torch.nn.Tanh()], label="act")

        def forward(self, x):
            return self.out(self.act(self.hidden(torch.flatten(x, 1))))

    def nodes(path, data):
        import onnx
        return len(onnx.load(str(path)).graph.node)

    digits = load_digits()
    result = slimsearch.search(
        Mlp, (digits.images / 16, digits.target), trials=3, epochs=3, run_dir="run", compress="quantize", top_k=1
    )
    for model in result.top_models(3):
        print(sorted(model), model["metrics"]["test_accuracy"] > 0.5)
    """
)


def check(output: str, folder: Path) -> None:
    assert output.count("this line runs once") == 1
    models = [line for line in output.splitlines() if line.startswith("['")]
    assert models
    keys = ["architecture", "artifact", "intervals", "metrics", "on_front", "path", "recipe", "trial"]
    optional = {"cannot_be_told_from", "lineage", "recommended"}
    found = [set(ast.literal_eval(line.removesuffix(" True"))) for line in models]
    assert all(set(keys) <= names <= {*keys, *optional} for names in found)
    assert any("cannot_be_told_from" in names for names in found)
    assert sum("recommended" in names for names in found) <= 1
    assert (folder / "run" / "top_models.json").is_file()


@pytest.mark.slow
def test_a_script_without_a_main_guard(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(PROGRAM)
    # Modules of the user's own, called like folders of the checkout: they hide nothing that slimsearch imports.
    for package in ("experiments", "strategies", "search_spaces"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("raise ImportError('a module of the user')")
    # From Python 3.14, a module called compression hides the standard library's from every program in its folder.
    for module in ("evaluators", *(("compression",) if sys.version_info < (3, 14) else ())):
        (tmp_path / f"{module}.py").write_text("raise ImportError('a module of the user')")
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=240,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    check(done.stdout, tmp_path)
    # What was begun from Python is resumed there, and the command line says so.
    words = [sys.executable, "-m", "slimsearch.cli.main", "run", "--resume", "run"]
    refused = subprocess.run(words, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    said = "error: 'run' was begun from Python with the space Mlp; resume it there: slimsearch.resume('run', space=...)"
    assert refused.stderr.startswith(said)


FUNCTION = textwrap.dedent(
    """
    import slimsearch
    from sklearn.datasets import load_digits
    from torch import nn

    print("this line runs once")
    kinds = {"relu": nn.ReLU, "tanh": nn.Tanh}

    def define(trial):
        width = trial.suggest_int("width", 16, 32, step=16)
        act = kinds[trial.suggest_categorical("act", list(kinds))]()
        return nn.Sequential(nn.Flatten(), nn.Linear(64, width), act, nn.Linear(width, 10))

    digits = load_digits()
    result = slimsearch.search(
        define, (digits.images / 16, digits.target), trials=3, epochs=3, run_dir="run", compress="quantize", top_k=1
    )
    for model in result.top_models(3):
        print(sorted(model), model["metrics"]["test_accuracy"] > 0.5)
    more = slimsearch.resume("run", space=define, dataset=(digits.images / 16, digits.target), trials=4, show=False)
    assert [trial.metrics for trial in more.trials[:3]] == [trial.metrics for trial in result.trials[:3]]
    kinds = {"tanh": nn.Tanh, "relu": nn.ReLU}
    try:
        slimsearch.resume("run", space=define, dataset=(digits.images / 16, digits.target))
    except slimsearch.SlimsearchError as error:
        assert "act" in str(error)
    else:
        raise AssertionError("another order of the values is another space")
    """
)


@pytest.mark.slow
@pytest.mark.parametrize("program", [PROGRAM, FUNCTION], ids=["class", "function"])
def test_a_notebook(program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nbclient
    import nbformat

    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    cells = [nbformat.v4.new_code_cell(program)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    kernel = nbclient.NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(tmp_path)}})
    kernel.execute()
    printed = "".join(o["text"] for o in notebook.cells[0].outputs if o.get("name") == "stdout")
    check(printed, tmp_path)


def test_resume_with_class_and_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from slimsearch.evaluators.datasets import load_dataset
    from slimsearch.names import load_class

    monkeypatch.chdir(tmp_path)
    space = load_class("space", TINY, "slimsearch.search_spaces")
    digits = load_dataset("digits")
    data = (digits.train.inputs, digits.train.targets)
    first = slimsearch.search(space, data, trials=1, epochs=1, run_dir="run", compress="none")
    second = slimsearch.resume("run", space=space, dataset=data, trials=2)
    assert len(second.trials) == 2
    assert second.trials[0].metrics == first.trials[0].metrics
    with pytest.raises(slimsearch.SlimsearchError, match="begun from Python with its data"):
        slimsearch.resume("run", space=space)


@pytest.mark.parametrize(
    ("space", "build"),
    [(defined.with_training, None), ({"width": [8, 16], "batch_size": [32, 64]}, defined.no_space)],
    ids=["a function", "choices"],
)
def test_functions_from_python(space: Any, build: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given, options = {"space": space, "build": build}, {"compress": "none", "show": False}
    result = slimsearch.search(space, "digits", build=build, trials=2, epochs=1, run_dir="run", seed=1, **options)
    model = result.top_models(1)[0]
    assert model["training"].keys() == ({"batch_size"} if build else {"learning_rate", "batch_size", "augmentation"})
    assert not model["architecture"].keys() & model["training"].keys()
    network = slimsearch.load_network("run", model, **given)
    fresh = build(**model["architecture"]) if build else slimsearch.build(space, model["architecture"])
    assert [(name, value.shape) for name, value in network.state_dict().items()] == [
        (name, value.shape) for name, value in fresh.state_dict().items()
    ]
    more = slimsearch.resume("run", **given, trials=3, show=False)
    assert [trial.metrics for trial in more.trials[:2]] == [trial.metrics for trial in result.trials]
    assert len(more.trials) == 3


def test_training_hyperparameters_of_a_function_reach_an_evaluation_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def score(candidate: dict[str, Any]) -> dict[str, float]:
        return {"score": candidate["learning_rate"] * candidate["width"], "batch": candidate["batch_size"]}

    result = slimsearch.search(
        defined.with_training, "digits", evaluate=score, objectives="score:max,batch:min", trials=3, run_dir="run",
        show=False,
    )  # fmt: skip
    for trial in result.trials:
        rate, width = trial.candidate.training["learning_rate"], trial.candidate.architecture["width"]
        assert trial.metrics["score"] == rate * width


def test_networks_of_a_class_from_python_are_loaded_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from slimsearch.names import load_class

    monkeypatch.chdir(tmp_path)
    space = load_class("space", TINY, "slimsearch.search_spaces")
    result = slimsearch.search(space, "digits", trials=1, epochs=1, run_dir="run", compress="none", show=False)
    model = result.top_models(1)[0]
    assert isinstance(slimsearch.load_network("run", model, space=space), torch.nn.Module)
    with pytest.raises(slimsearch.SlimsearchError, match=f"from Python with the space {space.__name__}; .*space=..."):
        slimsearch.load_network("run", model)
    with pytest.raises(slimsearch.SlimsearchError, match=f"--space was the space {space.__name__}, given from Python"):
        job.start(retraining("run", [], {"trials": 1}))


@pytest.mark.parametrize("made", [dict, ChoiceSpace])
def test_resume_says_what_was_given_from_python(
    made: Callable[[dict[str, list[int]]], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    space = made({"width": [1, 2]})

    def score(candidate: dict[str, int]) -> dict[str, float]:
        return {"score": float(candidate["width"])}

    options = {"trials": 1, "objectives": "score:max", "run_dir": "run", "show": False}
    slimsearch.search(space, evaluate=score, **options)
    named = "a dict of choices" if made is dict else "a Space object"
    with pytest.raises(slimsearch.SlimsearchError, match=f"begun from Python with {named}; .*space=...") as error:
        slimsearch.resume("run", evaluate=score)
    assert "class" not in str(error.value)
    with pytest.raises(slimsearch.SlimsearchError, match=r"begun from Python with a function; .*evaluate=..."):
        slimsearch.resume("run", space=space)
    assert len(slimsearch.resume("run", space=space, evaluate=score, trials=2, show=False).trials) == 2


@pytest.mark.parametrize(
    ("space", "options", "said"),
    [
        (TINY, {"trails": 3}, "there is no option 'trails'; options: space, architectures, strategy"),
        (TINY, {"trials": 0}, "--trials 0 is less than 1"),
        (str, {}, "'str' is not a space of networks"),
        (3, {}, "a space is an NNI ModelSpace class, a function define.trial., a dict of choices or a Space, not 3"),
    ],
)
def test_mistakes(space: object, options: dict[str, object], said: str) -> None:
    with pytest.raises(slimsearch.SlimsearchError, match=said):
        slimsearch.search(space, "digits", **options)


def test_importing_it_imports_nothing_heavy() -> None:
    program = (
        "import sys, slimsearch; print([m for m in ('torch', 'nni', 'optuna', 'ray', 'onnx') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("space", "name"), [("lenet", "lenet"), ("/a/b.py:MyNet", "MyNet"), ("<python>:f.<locals>.Net", "Net")]
)
def test_the_default_run_directory_is_called_after_the_space(
    space: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from slimsearch.loop.job import default_directory
    from slimsearch.options.configuration import Configuration

    monkeypatch.chdir(tmp_path)
    subject = Configuration(space=space).subject
    path = default_directory(subject)
    assert path.parent == Path("runs")
    assert path.name.startswith(f"{name}-2")
    path.mkdir(parents=True)
    assert default_directory(subject) != path


def test_a_model_of_ones_own_stays_as_it_was(digits: Dataset, tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Dropout(0.5), torch.nn.Linear(64, 10)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    small = slimsearch.compress(model, "quantize", digits, run_dir=tmp_path / "run", show=False)
    slimsearch.export(model, tmp_path / "fp32.onnx", digits)
    file = slimsearch.export(small, tmp_path / "int8.onnx", digits)
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert file.stat().st_size != (tmp_path / "fp32.onnx").stat().st_size


class Pooled(torch.nn.Module):
    """A small classifier; `change` is done to its logits."""

    def __init__(self, classes: int = 10, change: Callable[..., Any] = lambda logits: logits) -> None:
        super().__init__()
        self.conv, self.fc, self.change = torch.nn.Conv2d(1, 8, 3), torch.nn.Linear(8, classes), change

    def forward(self, x: torch.Tensor) -> Any:
        return self.change(self.fc(torch.relu(self.conv(x)).mean((2, 3))))


def lazy() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(10))


def scripted() -> torch.nn.Module:
    traced = torch.jit.trace(torch.nn.Conv2d(1, 8, 8), torch.zeros(1, 1, 8, 8))
    return torch.nn.Sequential(traced, torch.nn.Flatten(), torch.nn.Linear(8, 10))


def locked() -> torch.nn.Module:
    model = Pooled()
    model.lock = threading.Lock()
    return model


NO_MODELS: list[tuple[Callable[[], Any], str]] = [
    (lambda: Pooled, "not the class Pooled"), (lambda: "resnet18", "not a str"), (lazy, "layer '1' has no sizes yet"),
    (scripted, "'0' is a TorchScript module"), (locked, "cannot be copied"), (lambda: Pooled(5), r"\(2, 5\)"),
    (lambda: Pooled(change=lambda logits: {"logits": logits}), "a dict"), (torch.nn.Identity, r"\(2, 1, 8, 8\)"),
    (lambda: Pooled().to("meta"), "cannot be copied"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "said"), NO_MODELS)
def test_what_is_no_model_for_the_data_is_one_line(
    make: Callable[[], Any], said: str, digits: Dataset, tmp_path: Path
) -> None:
    model = make()
    for use in (
        lambda: slimsearch.train(model, digits, epochs=1),
        lambda: slimsearch.compress(model, "quantize", digits),
        lambda: slimsearch.export(model, tmp_path / "x.onnx", digits),
    ):
        with pytest.raises(slimsearch.SlimsearchError, match=said) as caught:
            use()
        assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "make",
    [
        lambda: Pooled().double(), lambda: Pooled().half(), lambda: torch.nn.DataParallel(Pooled()),
        lambda: torch.compile(Pooled()), lambda: torch.nn.Sequential(torch.compile(Pooled())),
    ],
)  # fmt: skip
def test_other_number_formats_and_wrappers_are_taken_off(
    make: Callable[[], torch.nn.Module], digits: Dataset, tmp_path: Path
) -> None:
    model = make()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trained = slimsearch.compress(
        slimsearch.train(model, digits, epochs=1), "prune:epochs=1", digits, teacher=model, run_dir=tmp_path / "run",
        show=False,
    )  # fmt: skip
    slimsearch.accuracy(slimsearch.export(trained, tmp_path / "x.onnx", digits), digits, digits.validation)
    assert {parameter.dtype for parameter in trained.module.parameters()} == {torch.float32}
    after = model.state_dict()
    assert all(torch.equal(value, after[name]) and value.dtype == after[name].dtype for name, value in before.items())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"batch_size": 0}, "batch_size 0"), ({"batch_size": 1.5}, "batch_size 1.5"), ({"epochs": -1}, "epochs -1"),
        ({"epochs": "3"}, "epochs '3'"), ({"seed": None}, "seed None"), ({"learning_rate": -1}, "learning_rate -1"),
        ({"learning_rate": "fast"}, "learning_rate 'fast'"), ({"learning_rate": float("nan")}, "learning_rate nan"),
        ({"augmentation": "flip"}, "augmentation 'flip' is unknown"), ({"device": "tpu"}, "device 'tpu' is unknown"),
        ({"precision": "fp8"}, "precision 'fp8' is unknown"), ({"warm_up": 1}, "warm_up 1"), ({"rate": 1}, "'rate'"),
    ],
)  # fmt: skip
def test_settings_out_of_range_are_one_line(settings: dict[str, Any], said: str, digits: Dataset) -> None:
    with pytest.raises(slimsearch.SlimsearchError, match=said):
        slimsearch.train(Pooled(), digits, **settings)
    with pytest.raises(slimsearch.SlimsearchError, match=said):
        slimsearch.compress(Pooled(), "prune", digits, **settings)


def test_a_teacher_with_other_logits_is_one_line(digits: Dataset) -> None:
    for teacher, said in ((Pooled(5), r"\(2, 5\)"), (Pooled(change=lambda logits: [logits]), "list"), (3, "not a int")):
        with pytest.raises(slimsearch.SlimsearchError, match=said):
            slimsearch.compress(Pooled(), "distill:teacher=best", digits, epochs=1, teacher=teacher)


def test_networks_are_saved_and_loaded_by_paths_as_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    network = Network(Pooled().eval())
    network.save("new/folder")
    loaded = Network.load(Pooled(), "new/folder")
    assert torch.equal(loaded.module.fc.weight, network.module.fc.weight)
    (tmp_path / "file").write_text("")
    for place in ("file", "file/below", "a\0b", None, 3):
        with pytest.raises(slimsearch.SlimsearchError, match="cannot save the network in"):
            network.save(place)
    for place in ("file", "nowhere", "a\0b", None):
        with pytest.raises(slimsearch.SlimsearchError, match="cannot load the network in"):
            Network.load(Pooled(), place)


def test_a_file_that_cannot_be_written_or_run_is_one_line(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    for place in ("folder", "nowhere/x.onnx", "a\0b.onnx"):
        with pytest.raises(slimsearch.SlimsearchError, match="cannot write"):
            slimsearch.export(Pooled(), place, digits)
    assert [path.name for path in tmp_path.rglob("*")] == ["folder"]
    colors = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
    other = slimsearch.load_dataset((colors, np.arange(40) % 2))
    slimsearch.export(Pooled(), "x.onnx", digits)
    with pytest.raises(slimsearch.SlimsearchError, match=r"'x.onnx' fails on .* images"):
        slimsearch.accuracy("x.onnx", other, other.validation)


def test_a_search_names_what_is_wrong_with_each_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    space = f"{SPACES}:OneOfManyFaults"
    result = slimsearch.search(
        space, "digits", trials=5, epochs=1, sampler="grid", compress="none", run_dir="run", show=False, retries=0
    )
    errors = {trial.candidate.architecture["fault"]: trial.error for trial in result.trials}
    assert {fault for fault, error in errors.items() if error is None} == {"view", "auxiliary"}
    assert "depend on no parameter with requires_grad" in errors["detached"]
    assert "in training mode" in errors["narrow"]
    assert "'head.fc.weight' is not finite" in errors["nan"]


def test_objects_are_shown_in_one_short_line(digits: Dataset, tmp_path: Path) -> None:
    network = Network.of(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)))
    compressed = slimsearch.compress(network, "quantize", digits, run_dir=tmp_path / "run", show=False)
    for shown in (digits, digits.train, network, compressed):
        assert "\n" not in repr(shown)
        assert len(repr(shown)) < 120 + len(str(tmp_path))
    assert f"{len(digits.train):,}" in repr(digits)
    assert "650 parameters" in repr(network)
    assert "quantize" in compressed._repr_html_()
