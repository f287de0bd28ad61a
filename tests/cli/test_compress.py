"""``slimsearch compress``: trained networks of several kinds, compressed by a recipe and by a search for one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torchvision
from safetensors.torch import load_file, save_file

import slimsearch
from slimsearch.checks.elastic_check import checked_network
from slimsearch.cli.commands.compress import with_defaults
from slimsearch.errors import SlimsearchError
from slimsearch.evaluators.datasets import Dataset
from slimsearch.loop.problem import prepare
from slimsearch.loop.python_objects import PythonObjects
from slimsearch.options.configuration import Configuration
from slimsearch.search_spaces import Candidate
from tests.conftest import Run, recorded

MODEL = """
import torch
from torch import nn


def make_net(num_classes=10):
    return nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.BatchNorm2d(32), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, num_classes))


def colored():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))


def frozen():
    return make_net().requires_grad_(False)


def five():
    return make_net(5)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(16, 32, 3, padding=1), nn.Conv2d(32, 16, 3, padding=1)

    def forward(self, x):
        return x + self.b(self.a(x).relu())


def residual(num_classes=10):
    return nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.ReLU(), Residual(), Residual(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Linear(64, num_classes))


trained = make_net()
number = 3
"""
RECIPES = "prune:\n  use: [true, false]\n  sparsity: [0.25, 0.5]\n  epochs: 1\nquantize:\n  use: [true, false]\n"
OPTIONS = ("--dataset", "digits", "--mean", "dataset", "--std", "dataset", "--workers", "1")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a user's model and its weights."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "net.py").write_text(MODEL)
    names: dict[str, Callable[[], torch.nn.Module]] = {}
    exec(MODEL, names)  # type: ignore[arg-type]
    data = slimsearch.load_dataset("digits")
    module = slimsearch.train(names["make_net"](), data, epochs=6).module
    save_file(module.state_dict(), folder / "net.safetensors")
    checkpoint = {"epoch": 6, "state_dict": {f"module.{name}": value for name, value in module.state_dict().items()}}
    torch.save(checkpoint, folder / "net.pth")
    torch.save(module, folder / "pickled.pth")
    torch.save(slimsearch.train(names["residual"](), data, epochs=3).module.state_dict(), folder / "residual.pth")
    save_file(names["five"]().state_dict(), folder / "five.safetensors")
    return folder


def _accuracy(trial: dict[str, object]) -> float:
    result = trial["result"]
    assert isinstance(result, dict)
    return float(result["metrics"]["val_accuracy"])


def test_a_recipe_is_gated_and_the_network_itself_is_scored_first(
    trained: Path, run: Run, tmp_path: Path, digits: Dataset
) -> None:
    words = (f"{trained}/net.py:make_net", "--weights", f"{trained}/net.pth", *OPTIONS)
    done = run(
        *words, "--recipe", "prune:epochs=1,quantize", "--max-drop", "30", "--run-dir", "run", command="compress"
    )
    assert done.returncode == 0, done.stderr
    trials = recorded(tmp_path / "run")
    assert [(t["kind"], t["parent"], json.loads(t["recipe"]).keys()) for t in trials.values()] == [
        ("search", None, set()), ("compression", 0, {"prune"}), ("compression", 1, {"prune", "quantize"})
    ]  # fmt: skip
    assert trials[0]["curve"] == {}, "it is not trained"
    with torch.no_grad():
        module = slimsearch.load_network(tmp_path / "run", _model(tmp_path / "run", 0)).eval()
        found = module(digits.normalise(digits.validation.inputs)).argmax(1).numpy()
    assert _accuracy(trials[0]) == pytest.approx((found == digits.validation.targets).mean())
    assert _accuracy(trials[0]) > 0.8
    table = done.stdout.partition("Finalists")[2]
    assert table.index("as given") < table.index("prune(epochs=1)")
    resumed = run("--resume", "run", command="compress")
    assert resumed.returncode == 0, resumed.stderr
    assert recorded(tmp_path / "run").keys() == trials.keys()


def _model(directory: Path, trial: int) -> dict[str, object]:
    models: list[dict[str, object]] = json.loads((directory / "top_models.json").read_text())
    return next(model for model in models if model["trial"] == trial)


def test_a_searched_recipe_is_resumed_and_goes_on_from_a_run(trained: Path, run: Run, tmp_path: Path) -> None:
    (tmp_path / "recipes.yaml").write_text(RECIPES)
    words = (f"{trained}/net.py:make_net", "--weights", f"{trained}/net.safetensors", *OPTIONS)
    search = ("--recipe-space", "recipes.yaml", "--objectives", "val_accuracy,size_kib")
    done = run(*words, *search, "--trials", "3", "--run-dir", "run", command="compress")
    assert done.returncode == 0, done.stderr
    before = recorded(tmp_path / "run")
    assert json.loads(before[0]["recipe"]) == {}
    done = run("--resume", "run", "--trials", "6", command="compress")
    assert done.returncode == 0, done.stderr
    after = recorded(tmp_path / "run")
    assert {number: after[number] for number in before} == before
    searched = [t for t in after.values() if t["kind"] == "search"]
    assert len({json.dumps(t["params"], sort_keys=True) for t in searched}) == len(searched) == 6
    page = (tmp_path / "run" / "report.html").read_text()
    assert "net.py:make_net" in page
    # The network of a trial is compressed further, with the normalization and image size of its run.
    pruned = next(n for n, t in after.items() if json.loads(t["recipe"]).keys() == {"prune"} and _finalist(tmp_path, n))
    done = run(f"run:{pruned}", "--dataset", "digits", "--recipe", "quantize", "--run-dir", "more", command="compress")
    assert done.returncode == 0, done.stderr
    assert _accuracy(recorded(tmp_path / "more")[0]) == _accuracy(after[pruned])
    assert slimsearch.load_network(tmp_path / "more", _model(tmp_path / "more", 0))


@pytest.mark.slow
def test_the_space_around_a_network_is_searched_and_resumed(
    trained: Path, run: Run, tmp_path: Path, digits: Dataset
) -> None:
    words = (f"{trained}/net.py:residual", "--weights", f"{trained}/residual.pth", *OPTIONS, "--epochs", "1")
    (tmp_path / "recipes.yaml").write_text("weight_only:\n  use: [true, false]\n")
    search = ("--elastic", "--objectives", "val_accuracy,size_kib", "--sampler", "random", "--latency", "predicted")
    search = (*search, "--recipe-space", "recipes.yaml", "--top-k", "2")
    done = run(*words, *search, "--trials", "3", "--run-dir", "run", command="compress")
    assert done.returncode == 0, done.stderr
    before = recorded(tmp_path / "run")
    assert (tmp_path / "run" / "elastic.json").is_file(), "the analysis, which a resume reads"
    assert before[0]["curve"] == {}, "the network itself is not trained"
    assert any(trial["curve"] for trial in before.values()), "others are"
    assert "as given" in done.stdout
    done = run("--resume", "run", "--trials", "4", command="compress")
    assert done.returncode == 0, done.stderr
    after = recorded(tmp_path / "run")
    assert {number: after[number] for number in before} == before
    complete = [trial for trial in after.values() if trial["parent"] is None and trial["result"]["state"] == "complete"]  # type: ignore[index]
    assert len(complete) == 4, "what needs no training is not counted, whether it is ruled out or not"
    models = json.loads((tmp_path / "run" / "top_models.json").read_text())
    for model in models:
        module = slimsearch.load_network(tmp_path / "run", model)
        assert sum(parameter.numel() for parameter in module.parameters()) == model["metrics"]["params"]
        file = tmp_path / "run" / model["artifact"]
        assert slimsearch.accuracy(file, digits, digits.test) == model["metrics"]["test_accuracy"]
    assert {json.dumps(model["architecture"]) for model in models} > {"{}"}


def test_the_space_around_a_network_has_number_formats(trained: Path, digits: Dataset) -> None:
    options = {"model": f"{trained}/net.py:residual", "elastic": True, "trials": 4, "mean": "0.5", "std": "0.25"}
    space = prepare(Configuration(**with_defaults(options)).absolute(), PythonObjects(data=digits)).space
    kinds = {choice.label.partition(".")[0] for choice in space.choices}
    assert kinds == {"skip", "width", "hidden", "quantize", "weight_only"}
    reference = space.reference()
    assert reference is not None
    assert space.candidate(reference) == Candidate({})


@pytest.mark.slow
def test_the_space_around_a_network_from_python(trained: Path, digits: Dataset, tmp_path: Path) -> None:
    names: dict[str, Callable[[], torch.nn.Module]] = {}
    exec(MODEL, names)  # type: ignore[arg-type]
    module = names["residual"]()
    module.load_state_dict(torch.load(trained / "residual.pth", weights_only=True))
    options = {"epochs": 1, "objectives": "val_accuracy,size_kib", "workers": 1, "latency": "predicted"}
    slimsearch.search(module, digits, trials=2, run_dir=str(tmp_path / "run"), show=False, **options)
    before = recorded(tmp_path / "run")
    result = slimsearch.resume(tmp_path / "run", space=module, dataset=digits, trials=4, show=False)
    assert recorded(tmp_path / "run").items() >= before.items()
    for model in result.models:
        found = slimsearch.load_network(tmp_path / "run", model, space=module)
        assert sum(parameter.numel() for parameter in found.parameters()) == model["metrics"]["params"]
    with pytest.raises(SlimsearchError, match=r"slimsearch\.load_network"):
        slimsearch.load_network(tmp_path / "run", result.models[0])


def test_a_space_around_a_network_is_checked_without_data(run: Run, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(MODEL.replace("Conv2d(1, 16, 3)", "Conv2d(3, 16, 3)"))
    words = ("--model", "net.py:residual", "--image-size", "8", "--samples", "2", "--json", "check.json")
    done = run(*words, command="check")
    assert done.returncode == 0, done.stderr
    assert "blocks that can be skipped: 2" in done.stdout
    found = json.loads((tmp_path / "check.json").read_text())
    assert {choice["label"].partition(".")[0] for choice in found["choices"]} == {"skip", "width", "hidden"}
    assert found["works"] == found["sampled"] == len(found["costs"]["params"]) == 2
    done = run("--model", "net.py:residual", command="check")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "--image-size" in done.stderr


def _rows(path: Path) -> Path:
    """A table of two classes, whose columns have different scales."""
    rng = np.random.default_rng(0)
    kinds = rng.integers(2, size=200)
    values = (rng.normal(size=(200, 4)) + kinds[:, None]) * [1, 1e-3, 1e6, 1]
    rows = [",".join([*map(repr, row), "ab"[kind]]) for row, kind in zip(values.tolist(), kinds, strict=True)]
    path.write_text("\n".join(["w,x,y,z,kind", *rows]))
    return path


def test_a_space_around_a_network_of_a_table_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(
        "from torch import nn\n\n\ndef mlp():\n"
        "    return nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 2))\n"
    )
    words = {"model": "net.py:mlp", "dataset": str(_rows(tmp_path / "rows.csv")), "target_column": "kind"}
    found = checked_network(Configuration(**words), 2, with_data=True)
    assert [choice.label for choice in found.choices] == ["width.0"]
    assert found.works == found.sampled


@pytest.mark.slow
def test_a_network_of_a_table_goes_on_from_its_run(tmp_path: Path, run: Run) -> None:
    words = ("--dataset", str(_rows(tmp_path / "rows.csv")), "--target-column", "kind", "--epochs", "2")
    options = ("--space", "mlp", "--trials", "1", "--compress", "none", "--latency", "predicted")
    assert run(*options, *words, "--run-dir", "run").returncode == 0
    before = recorded(tmp_path / "run")[0]
    done = run("run:0", *words, "--recipe", "quantize", "--run-dir", "more", command="compress")
    assert done.returncode == 0, done.stderr
    assert _accuracy(recorded(tmp_path / "more")[0]) == _accuracy(before)


def _finalist(folder: Path, trial: int) -> bool:
    return any(model["trial"] == trial for model in json.loads((folder / "run" / "top_models.json").read_text()))


def test_a_program_of_torch_export_is_pruned(trained: Path, tmp_path: Path, run: Run) -> None:
    names: dict[str, Callable[[], torch.nn.Module]] = {}
    exec(MODEL, names)  # type: ignore[arg-type]
    module = names["make_net"]().eval()
    batch = torch.export.Dim("batch", min=1, max=1 << 16)
    program = torch.export.export(module, (torch.zeros(2, 1, 8, 8),), dynamic_shapes=({0: batch},))
    torch.export.save(program, str(tmp_path / "net.pt2"))
    words = ("net.pt2", *OPTIONS, "--recipe", "prune:epochs=1,quantize", "--max-drop", "100", "--run-dir", "run")
    done = run(*words, command="compress")
    assert done.returncode == 0, done.stderr
    assert "no better than chance" in done.stdout
    trials = recorded(tmp_path / "run")
    params = [t["result"]["metrics"]["params"] for t in trials.values()]
    assert params[0] == sum(p.numel() for p in module.parameters())
    assert params[1] < params[0]


def test_from_python_each_stage_has_a_verdict(trained: Path, digits: Dataset, tmp_path: Path) -> None:
    names: dict[str, Callable[[], torch.nn.Module]] = {}
    exec(MODEL, names)  # type: ignore[arg-type]
    module = names["make_net"]().eval()
    module.load_state_dict(load_file(trained / "net.safetensors"))
    options = {"epochs": 1, "run_dir": tmp_path / "run", "show": False}
    found = slimsearch.compress(module, "prune:sparsity=0.9,quantize", digits, max_drop=1, **options)
    pruned, quantized = found.stages
    assert not pruned.kept, "a tenth of the channels after one epoch"
    assert "more than --max-drop 1" in pruned.verdict
    assert pruned.metrics["params"] < found.before["params"]
    assert quantized.recipe.keys() == {"quantize"}
    assert found.before["val_accuracy_low"] < found.before["val_accuracy"] < found.before["val_accuracy_high"]
    assert slimsearch.accuracy(found.path, digits, digits.validation) == found.after["val_accuracy"]
    assert (found.after["size_kib"] < found.before["size_kib"]) == quantized.kept
    with torch.no_grad():
        images = digits.normalise(digits.validation.inputs)
        assert (found.module(images).argmax(1) == module(images).argmax(1)).float().mean() > 0.9
    lines = str(found).splitlines()
    assert all(word in str(found) for word in ("as given", "prune", "quantize"))
    assert str(found.path) in lines[-1]
    everything = slimsearch.compress(
        module, "prune:sparsity=0.9", digits, epochs=1, run_dir=tmp_path / "all", show=False
    )
    assert everything.stages[0].kept
    assert everything.after["params"] == pruned.metrics["params"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["torchvision", "timm"])
def test_a_model_of_a_library(kind: str, run: Run, tmp_path: Path) -> None:
    """Digits become colors, and the declared normalization is that of the file."""
    name = "mobilenet_v3_small"
    if kind == "torchvision":
        module = torchvision.models.mobilenet_v3_small(num_classes=10)
        words = ["--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225"]
    else:
        timm = pytest.importorskip("timm")
        name, words = "mobilenetv3_small_050", []
        module = timm.create_model(name, num_classes=10)
    save_file(module.state_dict(), tmp_path / "net.safetensors")
    words += ["--weights", "net.safetensors", "--dataset", "digits", "--image-size", "32", "--epochs", "1"]
    done = run(f"{kind}:{name}", *words, "--trials", "4", "--run-dir", "run", command="compress")
    assert done.returncode == 0, done.stderr
    model = _model(tmp_path / "run", 0)
    metadata = {
        entry.key: entry.value for entry in onnx.load(str(tmp_path / "run" / str(model["artifact"]))).metadata_props
    }
    assert json.loads(metadata["mean"]) == [0.485, 0.456, 0.406]
    assert sum(p.numel() for p in slimsearch.load_network(tmp_path / "run", model).parameters()) == sum(
        p.numel() for p in module.parameters()
    )


def _prepared(digits: Dataset, **options: object) -> Dataset:
    configuration = Configuration(**with_defaults({"mean": "0.5", "std": "0.25", **options}))  # type: ignore[arg-type]
    data = prepare(configuration.absolute(), PythonObjects(data=digits)).data
    assert data is not None
    return data


def test_images_are_normalized_as_the_network_was_trained(trained: Path, digits: Dataset) -> None:
    data = _prepared(digits, model=f"{trained}/net.py:trained")
    assert (data.mean, data.std) == ((0.5,), (0.25,))
    assert json.loads(data.metadata()["mean"]) == [0.5]
    expected = (digits.train.inputs[:2].astype(np.float32) / 255 - 0.5) / 0.25
    assert np.allclose(data.normalise(data.train.inputs[:2]).numpy(), expected)


def test_grey_images_become_colors_for_a_network_that_takes_them(trained: Path, digits: Dataset) -> None:
    data = _prepared(digits, model=f"{trained}/net.py:colored", mean="0.4,0.5,0.6", std="0.25")
    assert data.input_shape == (3, 8, 8)
    assert data.mean == (0.4, 0.5, 0.6)
    assert (data.train.inputs[:, 2] == digits.train.inputs[:, 0]).all()


def test_a_frozen_network_can_be_fine_tuned(trained: Path, digits: Dataset) -> None:
    configuration = Configuration(**with_defaults({"model": f"{trained}/net.py:frozen", "mean": "0.5", "std": "0.5"}))
    problem = prepare(configuration, PythonObjects(data=digits))
    assert all(p.requires_grad for p in problem.space.build({}).parameters())  # type: ignore[attr-defined]


WRONG = [
    ({"model": "{}/net.py:five"}, r"gives \(2, 5\) for 2 images of 1x8x8; the data set needs \(2, 10\) logits"),
    ({"model": "{}/net.py:number"}, "is a int, not a function or a class"),
    ({"model": "{}/net.py:five", "init": "{}/net.pth"}, r"'8.weight' is \(10, 32\), and \(5, 32\) in the model"),
    ({"model": "{}/net.py:make_net", "init": "{}/five.safetensors"}, "trained for 5 classes"),
    ({"model": "{}/net.py:colored", "init": "{}/net.pth"}, r"'0.weight' is \(16, 1, 3, 3\), and \(8, 3, 3, 3\) in the"),
    ({"model": "{}/net.py:make_net", "init": "{}/pickled.pth"}, "cannot read the weights"),
    ({"model": "torchvision:resnet18", "init": "{}/net.pth"}, "they lack 'conv1.weight' and 101 more of the model"),
    ({"model": "torchvision:resnet19", "init": "{}/net.pth"}, "did you mean 'resnet18'"),
    ({"model": "torchvision:resnet18", "init": "IMAGENET1K_V1", "mean": None, "std": None}, "trained for 1000 classes"),
    ({"model": "torchvision:resnet18", "init": "IMAGENET9"}, "it has IMAGENET1K_V1"),
    ({"model": "{}/net.py:make_net", "mean": None, "std": None}, "--mean and --std are missing, with which"),
    ({"model": "{}/net.py:make_net", "std": None}, "given together"),
    ({"model": "{}/net.py:make_net", "mean": "a"}, "neither a number nor one number per channel"),
    ({"model": "{}/net.py:make_net", "mean": "1,2"}, "--mean has 2 numbers, the inputs have 1 channels"),
    ({"model": "{}/net.py:make_net", "std": "0"}, "--std 0 is not above 0"),
    ({"model": "{}/net.py:make_net", "trials": 4, "compress": "quantize"}, "leave out one of them"),
    ({"model": "{}/net.py:make_net", "co_search": '{{"prune": {{"sparsity": [0.2, 0.4]}}}}'}, "needs use"),
    ({"model": "{}/net.py:make_net", "co_search": '{{"training": {{"warm_up": [0.1, 0.2]}}}}'}, "trained already"),
    ({"model": "{}/net.py:make_net", "elastic": True, "compress": "quantize"}, "--elastic searches"),
    ({}, "which network"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "said"), WRONG)
def test_what_does_not_fit_is_one_line(options: dict[str, object], said: str, trained: Path, digits: Dataset) -> None:
    filled = {n: value.format(trained) if isinstance(value, str) else value for n, value in options.items()}
    with pytest.raises(SlimsearchError, match=said) as caught:
        _prepared(digits, **filled)
    assert "\n" not in str(caught.value)


def test_a_stage_may_always_follow_another_that_is_optional(trained: Path, digits: Dataset) -> None:
    choices = {
        "prune": {"use": [True, False], "sparsity": 0.2},
        "distill": {"use": {"values": [True], "when": {"prune.use": True}}},
    }
    _prepared(digits, model=f"{trained}/net.py:make_net", co_search=json.dumps(choices))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("torchvision:resnet18",), "needs --weights"), (("timm:resnet18",), "needs --weights"),
        (("a.pt2",), "there is no such file"), (("runs/x:3",), "is not a run directory"), (("resnet18",), "is none of"),
        (("a.pt2", "--weights", __file__), "leave out --weights"), ((f"{__file__}:nothing",), "has no 'nothing'"),
        ((__file__,), "is a file: add the name of a class or function in it"),
        ((f"{Path(__file__).parent}:x",), "'x' is not the number of a trial, as in"),
        ((f"{__file__}:MODEL", "--weights", "nowhere.pth"), "--weights: cannot read the weights"),
        ((f"{__file__}:MODEL", "--strategy", "nni-darts"), "--strategy nni_darts searches architectures"),
    ],
)  # fmt: skip
def test_names_are_checked_before_anything_is_imported(
    words: tuple[str, ...], said: str, run: Run, tmp_path: Path
) -> None:
    done = run(*words, "--dataset", "digits", "--run-dir", "run", command="compress")
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_the_printed_options_are_the_run(run: Run, tmp_path: Path) -> None:
    words = ("a.py:net", "--weights", "a.pth", "--trials", "3")
    printed = run(*words, "--print-config", command="compress")
    assert printed.returncode == 0, printed.stderr
    (tmp_path / "options.yaml").write_text(printed.stdout)
    again = run("--config", "options.yaml", "--print-config", command="compress")
    assert again.stdout == printed.stdout
