"""What the README and the pages of docs/ show, run as it stands there (with smaller budgets)."""

from __future__ import annotations

import ast
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from slimsearch import compression
from slimsearch.evaluators.datasets import Dataset, load_dataset
from slimsearch.options.configuration import Configuration
from slimsearch.options.recipe_choices import recipe_choices
from slimsearch.search_spaces import ModelSpace
from tests.conftest import ROOT, Run, environment

PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
}
TEXT = "\n".join(PAGES.values())
# What docs/adding.md shows is run by tests/docs/test_adding.py.
BLOCKS = [
    found
    for path, page in PAGES.items()
    if path != "docs/adding.md"
    for found in re.findall(r"^```(\w+)\n(.*?)^```$", page, re.S | re.M)
]
PYTHON = [text for language, text in BLOCKS if language == "python"]
LINES = [
    line.strip()
    for language, text in BLOCKS
    if language == "sh"
    for line in text.replace("\\\n", " ").splitlines()
    if line.strip()
]
COMMANDS = list(
    dict.fromkeys(
        line.removeprefix("slimsearch run ")
        for path in ("README.md", "docs/own-model.md", "docs/search.md", "docs/compression.md", "docs/ray.md")
        for line in PAGES[path].splitlines()
        if line.startswith("slimsearch run ") and not re.search("RUN_DIR|--storage|--download", line)
    )
)
FILES = {found[1]: text for text in PYTHON if (found := re.match(r"# (my_\w+\.py)\n", text))}
BEFORE = {found[1]: text for text in PYTHON if (found := re.match(r"# NNI: (\w+)\n", text))}
AFTER = {found[1]: text for text in PYTHON if (found := re.match(r"# Slimsearch: (\w+)\n", text))}
SCRIPTS = {
    "search": "slimsearch.search(define", "score": "RUN_DIR/trials/00000", "evaluation": "def evaluate(candidate)",
    "compression": 'compress(trained, "prune:sparsity', "sampler": "GraphGPSampler(space",
}  # fmt: skip
"""Text by which each script that a test below runs is known."""
SMALL = ["--epochs", "1", "--trials", "2", "--top-k", "1"]


@pytest.fixture
def folder(tmp_path: Path, digits: Dataset) -> Path:
    """Where a reader would be: the files that they wrote and their images are there."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    for i in range(60):
        images = tmp_path / "path" / "to" / "images" / str(i % 3)
        images.mkdir(parents=True, exist_ok=True)
        Image.fromarray(digits.train.inputs[i, 0]).save(images / f"{i}.png")
    table = Path("experiments/benchmarks/results/lenet_mnist5k.csv")
    (tmp_path / table).parent.mkdir(parents=True)
    shutil.copy(ROOT / table, tmp_path / table)
    return tmp_path


def script(name: str) -> str:
    """The one block of Python with the text of `name` in it."""
    (found,) = (text for text in PYTHON if SCRIPTS[name] in text)
    return found


def test_every_python_block_is_run_by_a_test() -> None:
    run = [*FILES.values(), *BEFORE.values(), *AFTER.values(), *map(script, SCRIPTS)]
    assert [text for text in PYTHON if text not in run] == []
    assert BEFORE.keys() == AFTER.keys()


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(c, marks=pytest.mark.slow) if re.search("ray|--image-size|--target|--co-search", c) else c
        for c in COMMANDS
    ],
)
def test_commands(command: str, run: Run, folder: Path) -> None:
    words = [
        word if not word.startswith("prune:") else word.replace("epochs=5", "epochs=1") for word in shlex.split(command)
    ]
    done = run(*words, *SMALL, "--run-dir", "run")
    if "--min-accuracy" in words and done.returncode == 2:
        assert "no candidate meets" in done.stderr  # one epoch may not be enough
    else:
        assert done.returncode == 0, done.stderr
        again = run("--resume", "run")
        assert again.returncode == 0, again.stderr


@pytest.mark.parametrize("name", ["my_define.py:define", "my_choices.py:make_net"])
def test_functions_that_are_spaces(name: str, folder: Path) -> None:
    space = ModelSpace.load(f"{folder}/{name}", (3, 32, 32), 3)
    for point in (next(space.grid()), space.sample(np.random.default_rng(0))):
        space.check(point)


def test_recipe_choices(tmp_path: Path, digits: Dataset) -> None:
    text = next(text for language, text in BLOCKS if language == "yaml" and "use: [true, false]" in text)
    (tmp_path / "recipes.yaml").write_text(text)
    configuration = Configuration(space="lenet", co_search=str(tmp_path / "recipes.yaml"))
    found = recipe_choices(configuration, digits)
    assert found is not None
    assert {"prune.use", "prune.epochs", "training.learning_rate"} <= {choice.label for choice in found.choices}


def output(text: str, folder: Path) -> str:
    """The standard output of a script, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", text], cwd=folder, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_search_from_python(tmp_path: Path) -> None:
    assert "model.onnx" in output(script("search"), tmp_path)
    accuracy = output(script("score").replace("mnist5k", "digits").replace("RUN_DIR", "runs/mlp"), tmp_path)
    assert 0 <= float(accuracy) <= 1


@pytest.mark.slow
def test_an_evaluation_of_ones_own(tmp_path: Path) -> None:
    assert "'trees':" in output(script("evaluation"), tmp_path)


def test_the_sampler_in_an_optuna_study(tmp_path: Path) -> None:
    assert "'width': 40" in output(script("sampler"), tmp_path)


@pytest.mark.slow
def test_a_model_of_ones_own(tmp_path: Path) -> None:
    text = script("compression").replace("mnist5k", "digits").replace("32 * 16", "32")
    printed = output(text.replace(", 5, stride=2", ", 3, stride=2"), tmp_path)
    assert "as given" in printed
    *_, accuracy, params = printed.split()
    assert 0.3 < float(accuracy) <= 1
    assert int(params) > 100


@pytest.mark.slow
def test_a_task_of_another_kind(folder: Path) -> None:
    text = FILES["my_regression.py"].replace("trials=4, epochs=20", "trials=2, epochs=12, compress='quantize'")
    assert 0.1 < float(output(text, folder).split()[-1]) < 1
    for part in ("test", "validation"):
        text = f"""
import slimsearch
from sklearn.datasets import load_diabetes
data = slimsearch.load_dataset(load_diabetes(return_X_y=True), task="regression")
print(slimsearch.score("runs/diabetes/trials/00000/model.onnx", data, data.{part})["r2"])
"""
        assert 0 < float(output(text, folder)) < 1


def test_signals_in_a_file(folder: Path, run: Run) -> None:
    output(FILES["my_signals.py"], folder)
    done = run("--space", "signal_cnn", "--dataset", "activity.npz", *SMALL, "--compress", "none", "--run-dir", "run")
    assert done.returncode == 0, done.stderr
    model = json.loads((folder / "run" / "top_models.json").read_text())[0]
    done = run(folder / "run" / model["artifact"], "activity.npz", command="predict")
    assert len(done.stdout.splitlines()) == 600, done.stderr


def test_a_function_that_returns_data_sets(folder: Path) -> None:
    data = load_dataset(f"{folder}/my_photos.py:splits", image_size=32)
    assert data.classes == ("bright", "dark", "medium")
    assert data.test is not None
    assert (data.input_shape, len(data.test)) == ((3, 32, 32), 60)


def test_a_table(folder: Path, run: Run) -> None:
    output(FILES["my_table.py"], folder)
    words = ("--space", "mlp", "--dataset", "wine.csv", "--target-column", "target")
    done = run(*words, *SMALL, "--compress", "none", "--run-dir", "run")
    assert done.returncode == 0, done.stderr
    model = json.loads((folder / "run" / "top_models.json").read_text())[0]
    done = run(folder / "run" / model["artifact"], "wine.csv", "--json", command="predict")
    assert len(done.stdout.splitlines()) == 178, done.stderr
    assert set(json.loads(done.stdout.splitlines()[0])["classes"]) <= {"Barolo", "Grignolino", "Barbera"}


def test_a_data_set_of_hugging_face(folder: Path) -> None:
    pytest.importorskip("datasets.features")  # a folder called datasets is no package of Hugging Face
    output(FILES["my_digits.py"], folder)
    data = load_dataset(folder / "digits-on-disk", image_size=28)
    assert data.test is not None
    assert (data.input_shape, len(data.classes), len(data.test)) == ((1, 28, 28), 10, 360)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "least"), [("my_pairs", 0.3), ("my_masks", 0.4), ("my_gunpoint", 0.6)])
def test_other_data_and_tasks(name: str, least: float, folder: Path) -> None:
    if name == "my_gunpoint":
        pytest.importorskip("aeon")
    text = re.sub(r"trials=\d+", "trials=2", FILES[f"{name}.py"]).replace("epochs=20", "epochs=12")
    (folder / f"{name}.py").write_text(text.replace("run_dir=", "top_k=1, compress='prune,quantize', run_dir="))
    printed = output(f"import runpy; runpy.run_path('{name}.py', run_name='__main__')", folder)
    assert least < float(printed.split()[-1]) <= 1


@pytest.mark.slow
def test_tiles_of_four_channels(folder: Path, run: Run) -> None:
    output(FILES["my_tiles.py"], folder)
    words = ("--space", "mobilenet_small", "--dataset", "tiles.npz", "--compress", "quantize")
    done = run(*words, *SMALL, "--run-dir", "run")
    assert done.returncode == 0, done.stderr
    model = json.loads((folder / "run" / "top_models.json").read_text())[0]
    done = run(folder / "run" / model["artifact"], "tiles.npz", command="predict")
    assert len(done.stdout.splitlines()) == 300, done.stderr


@pytest.mark.slow
def test_images_decoded_as_they_are_read(folder: Path, run: Run) -> None:
    words = ("--space", "mobilenet_small", "--dataset", "my_photos.py:splits", "--image-size", "32")
    done = run(*words, *SMALL, "--compress", "quantize", "--run-dir", "run")
    assert done.returncode == 0, done.stderr
    assert run("--resume", "run").returncode == 0


@pytest.mark.slow
def test_several_inputs_and_outputs(folder: Path, run: Run) -> None:
    words = ("--space", "my_halves.py:define", "--dataset", "my_halves.py:data", "--task", "my_halves.py:DigitAndInk")
    done = run(*words, "--trials", "2", "--epochs", "5", "--compress", "quantize", "--top-k", "1", "--run-dir", "run")
    assert done.returncode == 0, done.stderr
    model = json.loads((folder / "run" / "top_models.json").read_text())[0]
    assert model["metrics"]["val_accuracy"] > 0.7
    np.savez(folder / "new.npz", top=np.zeros((3, 4, 8), np.uint8), rows=np.zeros((3, 4)))
    done = run(folder / "run" / model["artifact"], "new.npz", "--json", command="predict")
    assert [set(json.loads(line)["prediction"]) for line in done.stdout.splitlines()] == [{"digit", "ink"}] * 3


@pytest.mark.slow
def test_a_task_of_ones_own(folder: Path) -> None:
    text = """
import numpy as np, slimsearch
from my_counts import Counts
x = np.random.default_rng(0).normal(size=(400, 3))
y = np.random.default_rng(1).poisson(np.exp(x[:, 0]))
if __name__ == "__main__":
    options = {"trials": 2, "epochs": 10, "run_dir": "run", "compress": "quantize", "top_k": 1}
    found = slimsearch.search("mlp", (x, y), task=Counts(), **options)
    print(found.top_models(1)[0]["metrics"]["val_deviance"])
    again = slimsearch.resume("run", dataset=(x, y), task=Counts(), trials=3)
"""
    (folder / "counting.py").write_text(text)
    printed = output("import runpy; runpy.run_path('counting.py', run_name='__main__')", folder)
    assert re.search(r"^[\d.]+$", printed, re.M)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["my_training", "my_lightning", "my_evaluate"])
def test_training_of_ones_own(name: str, folder: Path) -> None:
    (folder / f"{name}.py").write_text(FILES[f"{name}.py"].replace("trials=4", "trials=2"))
    printed = output(f"import runpy; runpy.run_path('{name}.py', run_name='__main__')", folder)
    scores = [float(found) for found in re.findall(r"[\]}] ([01]\.\d+) ", printed)]
    assert len(scores) == 3
    assert min(scores) > 0.5


@pytest.mark.parametrize("line", [line for line in LINES if line.startswith("slimsearch ")])
def test_other_commands_have_these_options(line: str) -> None:
    from slimsearch.cli.main import commands

    _, name, *words = shlex.split(line.replace("IMAGE...", "IMAGE"))
    commands()[name].parser(f"slimsearch {name}").parse_args(words)


@pytest.mark.parametrize("name", BEFORE)
def test_scripts_of_the_tutorial_before(name: str) -> None:
    """They are shortened, so they are not run; what they import from NNI is there."""
    tree = ast.parse(BEFORE[name])
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert any("nni" in ast.unparse(node) for node in imports)
    exec("\n".join(map(ast.unparse, imports)), {})


@pytest.mark.slow
@pytest.mark.parametrize("name", AFTER)
def test_scripts_of_the_tutorial_after(name: str, tmp_path: Path) -> None:
    text = re.sub(r"epochs=\d+", "epochs=1", AFTER[name])
    if "cifar10" in text:  # which is not shipped with anything
        digits = "load_digits(return_X_y=True)"
        colour = f"[(i.reshape(1, 8, 8).repeat(3, 0) / 16, int(l)) for i, l in zip(*{digits})]"
        text = text.replace('load_dataset("cifar10", root="data")', f"load_dataset({colour}[:400], image_size=32)")
        text = text.replace("import slimsearch\n", "import slimsearch\nfrom sklearn.datasets import load_digits\n")
    said = output(text, tmp_path)
    assert ".onnx" in said or 0 <= float(said.split()[-1]) <= 1


def test_names_of_nni_exist() -> None:
    """Classes in the first column of the tables of names; what NNI calls by another name is left out."""
    import nni.compression.distillation
    import nni.compression.pruning
    import nni.compression.quantization
    import nni.compression.speedup
    import nni.compression.utils
    import nni.nas.evaluator
    import nni.nas.experiment
    import nni.nas.nn.pytorch
    import nni.nas.strategy

    page = PAGES["docs/coming-from-nni.md"]
    tables = re.findall(r"^\| NNI 3\.0 \|.*?\n\n", page, re.S | re.M)
    cells = [row.split(" | ")[0] for table in tables for row in table.splitlines()[2:]]
    names = {name for cell in cells for name in re.findall(r"`([A-Z]\w+)", cell)} - {
        "Medianstop", "Hyperband", "PBTTuner",
    }  # fmt: skip
    assert names
    c, nas = nni.compression, nni.nas
    places = (
        c.pruning, c.quantization, c.distillation, c.speedup, c.utils, nas.evaluator, nas.evaluator.pytorch,
        nas.experiment, nas.nn.pytorch, nas.strategy,
    )  # fmt: skip
    assert not [name for name in names if not any(hasattr(place, name) for place in places)]


def test_flags_and_names_in_the_text_exist() -> None:
    from slimsearch.cli.main import commands
    from slimsearch.names import built_in_names

    flags = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", TEXT)) - {"--resume"}
    flags -= {"--keep-screenshots", "--no-deps", "--strict"}  # of pytest, pip-audit and zensical
    known = "".join(module.parser("slimsearch").format_help_all() for module in commands().values())
    for folder in ("benchmarks", "reproduce"):
        known += "".join(script.read_text() for script in (ROOT / "experiments" / folder).glob("*.py"))
    known += (ROOT / "experiments" / "compare_compression.py").read_text()
    assert not [flag for flag in flags if flag not in known]
    for package in (
        "search_spaces", "evaluators.datasets", "evaluators.tasks", "strategies", "strategies.samplers",
        "strategies.schedulers", "compression", "compression.pruning.importances", "compression.pruning.schedules",
    ):  # fmt: skip
        for name in built_in_names(f"slimsearch.{package}"):
            assert f"`{name}`" in TEXT, name
    for name in compression.Recipe.shipped():
        assert f"`{name}`" in TEXT, name


def test_tests_that_are_named_exist() -> None:
    """What the text promises is held by tests: files, and functions or classes in them."""
    named = re.findall(r"\b(tests/[\w/.-]*\w)(?:::(\w+))?(?:::(\w+))?", TEXT)
    for path, *names in named:
        assert (ROOT / path).exists(), path
        body = ast.parse((ROOT / path).read_text()).body if path.endswith(".py") else []
        for name in filter(None, names):
            kinds = ast.FunctionDef | ast.ClassDef
            found = next((node for node in body if isinstance(node, kinds) and node.name == name), None)
            assert found is not None, f"{path}::{name}"
            body = found.body


@pytest.mark.parametrize("path", PAGES)
def test_links_and_paths_lead_somewhere(path: str) -> None:
    """Pages that are made when the site is built are checked then."""
    page = re.sub(r"^```.*?^```$", "", PAGES[path], flags=re.S | re.M)
    for target in re.findall(r"\]\(([^)\s]+)\)", page):
        if target.startswith("http"):
            continue
        file, _, place = target.partition("#")
        other = (ROOT / path).parent / file if file else ROOT / path
        if "/reference/" in str(other):
            assert f"reference/{other.name}" in (ROOT / "mkdocs.yml").read_text(), target
            continue
        if other.parent.name == "notebooks":
            other = other.with_suffix(".ipynb")
        assert other.exists(), target
        if place:
            headings = re.findall(r"^#+ (.*)$", other.read_text(encoding="utf-8"), re.M)
            shown = re.findall(r"^<!-- shown: (.+) of \S+ -->$", other.read_text(encoding="utf-8"), re.M)
            assert place in {re.sub(r"[^\w -]", "", text.lower()).replace(" ", "-") for text in headings + shown}, (
                target
            )
    roots = "experiments|strategies|evaluators|compression|search_spaces|tests|docs"
    for named in re.findall(rf"`((?:{roots})/[\w/.-]*)", page):
        assert (ROOT / named.rstrip(".")).exists(), named


def test_scripts_that_are_shown_take_what_is_shown() -> None:
    lines = [line for line in LINES if "reproduce/" in line or "compare_compression" in line]
    assert lines
    for line in lines:
        _, script, *words = shlex.split(line)
        done = subprocess.run(
            [sys.executable, str(ROOT / script), "--help"],
            capture_output=True,
            text=True,
            check=True,
            env=environment(),
        )
        assert not [word for word in words if word.startswith("--") and word not in done.stdout]


def test_benchmarks_that_are_shown_take_what_is_shown() -> None:
    """Their help takes seconds each: options are looked for in their text."""
    lines = [line for line in LINES if line.startswith("python experiments/benchmarks/")]
    assert lines
    for line in lines:
        _, script, *words = shlex.split(line)
        text = (ROOT / script).read_text() + (ROOT / "experiments/benchmarks/_output.py").read_text()
        assert not [word for word in words if word.startswith("--") and f'"{word}"' not in text], line
