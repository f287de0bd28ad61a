"""The commands beside `run` and `retrain`: what they say is so, and every example of their help works."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

import slimsearch
from slimsearch.checks.space_check import check_space
from slimsearch.cli.main import commands
from slimsearch.cli.run_options import presets
from slimsearch.compression import c_compiler
from slimsearch.evaluators import DeployedModel, Limit, Objective, hypervolume
from slimsearch.evaluators.datasets import Dataset
from slimsearch.options.configuration import Configuration
from slimsearch.report.stored_run import stored_run
from slimsearch.search_spaces import ModelSpace
from tests.conftest import SPACES, TINY, Run, environment, quantized_trial, skip_without

Finished = tuple[Path, subprocess.CompletedProcess[str]]

TRAINING = ("run", "retrain", "check", "compress")
NET = """
from torch import nn


def make_net(in_channels, num_classes):
    return nn.Sequential(nn.Conv2d(in_channels, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes))
"""
SMALL = "--trials 2 --epochs 1 --top-k 1 --compress none --samples 5"


@pytest.fixture(scope="session")
def images(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight digits of each class as an image folder."""
    folder = tmp_path_factory.mktemp("images")
    for label, name in enumerate(digits.classes):
        (folder / name).mkdir()
        for place in np.flatnonzero(digits.train.targets == label)[:8]:
            Image.fromarray(digits.train.inputs[place, 0]).save(folder / name / f"{place}.png")
    return folder


@pytest.fixture(scope="session")
def other(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second run on the same data."""
    from slimsearch.loop import job

    folder = tmp_path_factory.mktemp("other") / "other"
    words = {"trials": 2, "epochs": 1, "compress": "none", "seed": 1, "dataset": "digits"}
    job.start(Configuration(space=TINY, run_dir=str(folder), **words))
    return folder


def _examples() -> list[Any]:
    found = []
    for name, module in commands().items():
        lines = module.parser(f"slimsearch {name}").epilog.strip().splitlines()[1:]
        assert lines, name
        if name in ("dashboard", "mcp", "watch", "device"):  # they serve until they are ended, or need a board
            continue
        for line in lines:
            begun = name in TRAINING and "--print-config" not in line and "--resume" not in line
            marks = [pytest.mark.slow] if begun else []
            found.append(pytest.param(name, line.strip(), marks=marks, id=line.strip()))
    return found


@pytest.mark.usefixtures("calm")
@pytest.mark.parametrize(("name", "line"), _examples())
def test_every_example_of_the_help(
    name: str, line: str, run: Run, finished: Finished, other: Path, images: Path, tmp_path: Path, request: Any
) -> None:
    models = json.loads((finished[0] / "top_models.json").read_text())
    numbers = ",".join(str(model["trial"]) for model in models[:2])
    shutil.copy(finished[0] / models[0]["artifact"], tmp_path / "model.onnx")
    (tmp_path / "net.py").write_text(NET)
    np.savez(tmp_path / "digits.npz", x=np.zeros((3, 1, 8, 8), dtype=np.uint8))
    if "rows.csv" in line:
        rows = ["a,b,c", *(f"{i % 7},{i % 3},{i % 2}" for i in range(80))]
        (tmp_path / "rows.csv").write_text("\n".join(rows))
        data = slimsearch.load_dataset(tmp_path / "rows.csv", target_column="c")
        slimsearch.export(torch.nn.Linear(2, 2), tmp_path / "table.onnx", data)
    uncompressed = next(model["trial"] for model in models if not model["recipe"])
    # `report` writes, and other tests read the run.
    run_dir = shutil.copytree(finished[0], tmp_path / "copy") if name == "report" else finished[0]
    for pattern, value in (
        (r"timm:\w+ --weights \S+", "net.py:make_net --mean 0.5 --std 0.25"),
        (r"(path/to/file\.py:make_net|torchvision:\w+) --weights \S+", "net.py:make_net"),
        (r"runs/mnist_cnn-20260101-120000:7 --dataset \S+", f"{finished[0]}:{uncompressed} --dataset digits"),
        (r"--trials 12", "--trials 2"),
        (r"\S+/trials/00007/model\.onnx", "model.onnx"),
        (r"\S+/trials/00026", str(quantized_trial(finished[0]))),
        (r"signals\.npz", "digits.npz"),
        (r"model\.onnx rows\.csv", "table.onnx rows.csv"),
        (r"runs/tiny_cnn-20260101-120000", str(finished[0])),
        (r"runs/mnist_cnn-20260101-120000", str(run_dir)),
        (r"runs/lenet-20260101-130000", str(other)),
        (r"path/to/file\.py:MyNet", TINY),
        (r"path/to/images --image-size 64", f"{images} --image-size 8"),
        (r"path/to/images (?=--recipe|--trials)", f"{images} "),
        (r"path/to/image\.png", str(next(images.glob("*/*.png")))),
        (r"path/to/folder", str(images)),
        (r"path/to/runs", str(other.parent)),
        (r"--models 7,22", f"--models {numbers}"),
        (r"--dataset mnist --data-root data --download", "--dataset digits --image-size 28"),
        (r"--space (mnist_cnn|resnet_cifar)", r"--space \1 --dataset digits --image-size 28"),
        (r"""'\{"conv2".*\}' --space mnist_cnn""", f"""'{{"act": 1, "width": 8}}' --space {TINY} --dataset digits"""),
        (r" > \S+$", ""),
    ):
        line = re.sub(pattern, value, line)
    words = shlex.split(line)[2:]
    if name == "ls" and not words:
        (tmp_path / "runs").symlink_to(other.parent)
    if name in TRAINING and "--resume" not in words:
        small = shlex.split(SMALL)[: 8 if name != "check" else 10]
        if "--compress" in words:
            small = [word for word in small if word not in ("--compress", "none")]
        small = small if name != "compress" else ["--epochs", "1"]
        words += [*small, *(["--run-dir", "made"] if name != "check" else [])]
    if "--print-config" in words:
        words = words[: words.index("--print-config") + 1]
    done = run(*words, command=name)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_runs_are_listed_whatever_became_of_them(run: Run, other: Path, tmp_path: Path) -> None:
    shutil.copytree(other, tmp_path / "runs" / "whole")
    shutil.copytree(other, tmp_path / "runs" / "damaged")
    shutil.copytree(other, tmp_path / "runs" / "stopped")
    (tmp_path / "runs" / "nothing").mkdir()
    (tmp_path / "runs" / "damaged" / "config.yaml").write_text("format: 99")
    journal = tmp_path / "runs" / "stopped" / "study.journal"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(lines[:4]) + lines[4][:20])
    before = journal.read_bytes()
    done = run("--json", command="ls")
    found = {Path(entry["run"]).name: entry for entry in json.loads(done.stdout)}
    assert found.keys() == {"whole", "damaged", "stopped"}
    assert (found["whole"]["state"], found["stopped"]["state"]) == ("finished", "stopped")
    assert found["whole"]["searched"] == 2
    best = max(t.metrics["val_accuracy"] for t in stored_run(other).trials)
    assert found["whole"]["best"] == {"val_accuracy": best}
    assert "format" in found["damaged"]["error"]
    assert journal.read_bytes() == before  # it may be another's, who writes to it
    assert "cannot be read: " in run(command="ls").stdout
    for folder in ("nothing", "runs/nothing"):
        done = run(folder, command="ls")
        assert done.returncode == 2
        assert f"'{folder}'" in done.stderr


def test_a_run_that_goes_on_is_running(other: Path) -> None:
    from slimsearch.record.run_directory import RunDirectory

    with RunDirectory(other, create=False):
        assert stored_run(other).state == "running"
    assert stored_run(other).state == "finished"


@pytest.mark.usefixtures("calm")
def test_the_front_of_several_runs(run: Run, finished: Finished, other: Path, tmp_path: Path) -> None:
    done = run(finished[0], other, "--json", "both.json", command="compare")
    assert done.returncode == 0, done.stderr
    assert "--epochs" in done.stdout
    found = json.loads((tmp_path / "both.json").read_text())
    assert found["differences"]["epochs"] == [8, 1]
    runs = [stored_run(path) for path in (finished[0], other)]
    everything = [t.metrics for one in runs for t in one.finalists]
    objectives = [Objective(o["metric"], o["direction"]) for o in found["objectives"]]
    for one, entry in zip(runs, found["runs"], strict=True):
        own = [t.metrics for t in one.finalists]
        assert entry["hypervolume"] == pytest.approx(hypervolume(objectives, own, everything))
    for member in found["joint_front"]:
        for metrics in everything:
            losses = [(o.loss(metrics), o.loss(member["metrics"])) for o in objectives]
            assert not all(a <= b for a, b in losses) or all(a == b for a, b in losses)
    assert not found["latency_measured_together"]
    again = run(finished[0], other, "--measure", "--json", "both.json", command="compare")
    assert again.returncode == 0, again.stderr
    assert json.loads((tmp_path / "both.json").read_text())["latency_measured_together"]


def test_what_cannot_be_compared(run: Run, other: Path, tmp_path: Path) -> None:
    assert run(other, command="compare").returncode == 2
    assert run(other, other, command="compare").returncode == 2
    shutil.copytree(other, tmp_path / "elsewhere")
    text = json.loads((other / "environment.json").read_text())
    text["dataset"]["fingerprint"] = "0123456789abcdef"
    (tmp_path / "elsewhere" / "environment.json").write_text(json.dumps(text))
    (line,) = run(other, "elsewhere", command="compare").stderr.splitlines()
    assert "elsewhere" in line


def test_predictions_are_those_of_the_file(
    run: Run, finished: Finished, digits: Dataset, images: Path, tmp_path: Path
) -> None:
    model = json.loads((finished[0] / "top_models.json").read_text())[0]
    file = finished[0] / model["artifact"]
    done = run(file, images, "--json", "--top", "10", command="predict")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == 80
    logits = DeployedModel(file)(
        digits.normalise(digits.train.inputs[[int(Path(line["image"]).stem) for line in lines]]).numpy()
    )
    for row, line in zip(logits, lines, strict=True):
        assert next(iter(line["classes"])) == digits.classes[int(row.argmax())]
        assert sum(line["classes"].values()) == pytest.approx(1)
    (tmp_path / "broken.png").write_bytes(b"no image")
    colour = Image.new("RGB", (40, 20), "white")
    colour.save(tmp_path / "large.jpg")
    done = run(file, "broken.png", "large.jpg", command="predict")
    assert done.returncode == 2
    assert done.stdout.startswith("large.jpg  ")
    first, last = done.stderr.splitlines()
    assert "'broken.png'" in first
    assert "1 of 2" in last


def test_what_is_no_file_to_predict_with(run: Run, finished: Finished, images: Path, tmp_path: Path) -> None:
    model = json.loads((finished[0] / "top_models.json").read_text())[0]
    content = onnx.load(finished[0] / model["artifact"])
    del content.metadata_props[:]
    onnx.save(content, tmp_path / "bare.onnx")
    (tmp_path / "empty").mkdir()
    for words, message in (
        (("bare.onnx", images), "'bare.onnx'"),
        (("nothing.onnx", images), "'nothing.onnx'"),
        (("bare.onnx", "empty"), "'empty'"),
        (("bare.onnx", images, "--top", "0"), "--top: 0"),
        (("bare.onnx", images, "--runtime", "x"), "--runtime 'x' is none of onnxruntime, openvino"),
        (("alone.tflite", images, "--runtime", "litert"), "'alone.onnx' beside it"),
        (("bare.onnx", images, "--runtime", "executorch"), "'bare.onnx'"),
    ):
        (line,) = run(*words, command="predict").stderr.splitlines()
        assert message in line


@pytest.mark.parametrize("form", ["onnx", "c", "torch-export", "torchscript"])
def test_exported_files_compute_what_the_network_does(
    form: str, run: Run, finished: Finished, digits: Dataset, tmp_path: Path
) -> None:
    models = {m["trial"]: m for m in json.loads((finished[0] / "top_models.json").read_text())}
    done = run(finished[0], "--models", ",".join(map(str, models)), "--format", form, "--to", "out", command="export")
    assert done.returncode == 0, done.stderr
    batch = digits.normalise(digits.validation.inputs[:7])
    files = [path for path in (tmp_path / "out").iterdir() if path.suffix not in (".json", ".npz", ".h")]
    assert len(files) == len(models)
    for path in files:
        vectors = np.load(path.with_suffix(".vectors.npz"))
        assert vectors["inputs"].shape == (32, *digits.input_shape)
        assert np.array_equal(vectors["outputs"].argmax(1), vectors["classes"])
        facts = json.loads(path.with_suffix(".json").read_text())
        model = models[facts["trial"]]
        assert facts["architecture"] == model["architecture"]
        assert json.loads(facts["classes"]) == list(digits.classes)
        if form == "onnx":
            assert path.read_bytes() == (finished[0] / model["artifact"]).read_bytes()
            continue
        if form == "c":
            expected = DeployedModel(finished[0] / model["artifact"])(vectors["inputs"])
            assert np.allclose(vectors["outputs"], expected, atol=1e-4)
            continue
        load = torch.jit.load if form == "torchscript" else lambda file: torch.export.load(file).module()
        with torch.no_grad():
            expected = slimsearch.load_network(finished[0], model)(batch)
            assert torch.allclose(load(str(path))(batch), expected, atol=1e-4)
        line = next(line for line in done.stdout.splitlines() if path.name in line)
        assert ("float32: the network that was quantized" in line) == ("quantize" in model["recipe"])


@pytest.mark.parametrize("form", ["onnx", "c", "torch-export", "torchscript"])
def test_printed_lines_run_the_exported_file(form: str, run: Run, finished: Finished, tmp_path: Path) -> None:
    if form == "c" and c_compiler() is None:
        pytest.skip("there is no C compiler")
    trial = json.loads((finished[0] / "top_models.json").read_text())[0]["trial"]
    done = run(finished[0], "--models", str(trial), "--format", form, "--to", "out", command="export")
    lines = done.stdout.split(":\n")[-1].splitlines()
    if form == "c":
        vectors = np.load(next((tmp_path / "out").glob("*.npz")))
        numbers = ", ".join(f"{number:.9e}f" for number in vectors["inputs"][0].ravel())
        program = [
            "#include <stdio.h>", lines[0], f"static const float input[] = {{{numbers}}};", "int main(void) {",
            *lines[1:], "return 0; }",
        ]  # fmt: skip
        (tmp_path / "out" / "main.c").write_text("\n".join(program))
        source = next(path for path in (tmp_path / "out").glob("*.c") if path.name != "main.c")
        command = [c_compiler() or "", "-std=c99", "-O2", "main.c", source.name, "-o", "main", "-lm"]
        subprocess.run(command, cwd=tmp_path / "out", check=True)
        found = subprocess.run(["./main"], cwd=tmp_path / "out", check=True, capture_output=True, text=True).stdout
        assert np.allclose([float(number) for number in found.split()], vectors["outputs"][0], atol=1e-4)
        return
    shown = subprocess.run([sys.executable, "-c", "\n".join(lines)], cwd=tmp_path, capture_output=True, text=True)
    assert float(shown.stdout) < 1e-4, shown.stderr


@pytest.mark.parametrize("form", ["litert", "executorch", "openvino"])
def test_files_for_other_runtimes(form: str, run: Run, finished: Finished, tmp_path: Path) -> None:
    """Each is run by the lines that are printed for it; quantized networks have int8 weights in LiteRT, too."""
    models = {m["trial"]: m for m in json.loads((finished[0] / "top_models.json").read_text())}
    numbers = ",".join(map(str, models))
    done = run(finished[0], "--models", numbers, "--format", form, "--to", "out", command="export")
    if done.returncode:
        assert done.stderr.strip().endswith(f"pip install 'slimsearch[{form}]'")
        skip_without(form)
    assert done.returncode == 0, done.stderr
    files = [path for path in (tmp_path / "out").iterdir() if path.suffix in (".tflite", ".pte", ".xml")]
    assert len(files) == len(models)
    for path in files:
        vectors = np.load(path.with_suffix(".vectors.npz"))
        model = models[json.loads(path.with_suffix(".json").read_text())["trial"]]
        expected = DeployedModel(finished[0] / model["artifact"])(vectors["inputs"])
        if form != "openvino":  # made from the network; the inputs are noise, which the ranked int8 file may clip
            with torch.no_grad():
                expected = slimsearch.load_network(finished[0], model)(torch.from_numpy(vectors["inputs"])).numpy()
        if "quantize" in model["recipe"] and form != "executorch":
            assert (expected.argmax(1) == vectors["classes"]).mean() > 0.8
        else:
            assert np.allclose(vectors["outputs"], expected, atol=1e-3)
    lines = done.stdout.split(":\n")[-1].splitlines()
    shown = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], cwd=tmp_path, env=environment(), capture_output=True, text=True
    )
    assert float(shown.stdout) < 1e-4, shown.stderr


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["litert", "executorch"])
def test_a_run_in_another_runtime_ranks_and_exports_its_files(
    runtime: str, run: Run, images: Path, tmp_path: Path
) -> None:
    skip_without(runtime)
    words = [
        "--space",
        TINY,
        "--dataset",
        "digits",
        "--trials",
        "2",
        "--epochs",
        "4",
        "--top-k",
        "1",
        "--max-drop",
        "100",
    ]
    done = run(*words, "--runtime", runtime, "--run-dir", "run")
    assert done.returncode == 0, done.stderr
    models = json.loads((tmp_path / "run" / "top_models.json").read_text())
    assert any("quantize" in model["recipe"] for model in models) == (runtime == "litert")
    for model in models:
        file = tmp_path / "run" / model["artifact"]
        assert file.name in ("model.tflite", "model.pte")
        assert model["metrics"]["size_kib"] == file.stat().st_size / 1024
    numbers = ",".join(str(model["trial"]) for model in models)
    assert run("run", "--models", numbers, "--to", "out", command="export").returncode == 0
    for model in models:
        (exported,) = (tmp_path / "out").glob(f"run-{model['trial']}.[tp]*")
        assert exported.read_bytes() == (tmp_path / "run" / model["artifact"]).read_bytes()
    assert run("run", "--models", numbers, "--format", "onnx", "--to", "out", command="export").returncode == 0
    recommended = next(model["artifact"] for model in models if "recommended" in model)
    lines = [line.strip() for line in done.stdout.splitlines()]
    begin = next(number for number, line in enumerate(lines) if line.startswith("Use ")) + 1
    program = [sys.executable, "-c", "\n".join(lines[begin : begin + 3])]
    shown = subprocess.run(program, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    assert shown.stdout.strip(), shown.stderr
    done = run(f"run/{recommended}", next(images.rglob("*.png")), "--runtime", runtime, command="predict")
    assert done.returncode == 0, done.stderr


def test_files_that_take_pixels(run: Run, finished: Finished, images: Path, tmp_path: Path) -> None:
    pictures = sorted(map(str, images.glob("*/*.png")))
    said = {}
    for name, words in {
        "plain": (),
        "nchw": ("nchw",),
        "nhwc": ("nhwc",),
        "labels": ("nchw", "--embed-labels"),
    }.items():
        layout = ("--embed-preprocessing", *words) if words else ()
        done = run(finished[0], *layout, "--to", name, command="export")
        assert done.returncode == 0, done.stderr
        file = min((tmp_path / name).glob("*.onnx"))
        if name != "labels":
            said[name] = run(file, *pictures, command="predict").stdout
    assert said["plain"].count("\n") == len(pictures)
    assert said["plain"] == said["nchw"] == said["nhwc"]
    assert "gives the names of classes itself" in run(file, *pictures, command="predict").stderr
    if c_compiler() is not None:
        done = run(finished[0], *layout[:2], "--format", "c", "--to", "c", command="export")
        assert done.returncode == 0, done.stderr
        assert "not compiled" not in done.stdout
        assert "uint8_t *" in min((tmp_path / "c").glob("*.h")).read_text()


def test_what_cannot_be_exported(run: Run, finished: Finished) -> None:
    layout = ("--embed-preprocessing", "nchw")
    assert "is for --format onnx" in run(finished[0], *layout, "--format", "torchscript", command="export").stderr
    words = (*layout, "--embed-labels", "--format", "c")
    assert "--embed-labels is for --format onnx" in run(finished[0], *words, command="export").stderr
    assert "needs --embed-preprocessing" in run(finished[0], "--embed-labels", command="export").stderr
    assert "--models 99" in run(finished[0], "--models", "99", command="export").stderr
    assert "--format 'x' is none of onnx" in run(finished[0], "--format", "x", command="export").stderr
    assert "nowhere" in run("nowhere", command="export").stderr


BROKEN = """
import nni, torch
from nni.nas.nn.pytorch import LayerChoice, ModelSpace, MutableConv2d, MutableLinear
from torch import nn


class Broken(ModelSpace):
    def __init__(self, in_channels, num_classes):
        super().__init__()
        width = nni.choice("width", [4, 8])
        self.conv = MutableConv2d(in_channels, width, kernel_size=nni.choice("kernel", [3, 5]), padding=1)
        self.same = LayerChoice([nn.ReLU(), nn.ReLU()], label="same")
        self.head = MutableLinear(width * 64, num_classes)

    def forward(self, x):
        x = self.same(self.conv(x))
        return self.head(torch.flatten(x, 1))
"""


def test_a_space_is_looked_at(run: Run, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(BROKEN)
    words = ("--space", "broken.py:Broken", "--dataset", "digits", "--samples", "40", "--max-params", "2500")
    done = run(*words, "--no-estimate", "--json", "found.json", "--picture", "costs.svg", command="check")
    assert done.returncode == 2
    assert "kernel=5" in done.stdout
    assert "(broken.py, line 17)" in " ".join(done.stdout.split())
    assert "--max-params 2500: " in done.stdout
    found = json.loads((tmp_path / "found.json").read_text())
    assert f"{40 - found['works']} of 40" in done.stderr
    choices = {choice["label"]: choice for choice in found["choices"]}
    assert {label: choice["dead"] for label, choice in choices.items()} == {
        "kernel": None, "same": True, "width": False
    }  # fmt: skip
    assert choices["width"]["layers"] == 2
    assert found["different"] == 8
    assert "<svg" in (tmp_path / "costs.svg").read_text()


def test_costs_are_those_of_the_networks(digits: Dataset) -> None:
    space = ModelSpace.load(TINY, digits.input_shape, 10)
    limits = (Limit("params", 1000, True, "--max-params"),)
    found = check_space(space, digits, 30, limits, predict=False)
    from slimsearch.compression import Network

    rng = np.random.default_rng(0)
    networks = [Network(space.build(space.sample(rng))) for _ in range(30)]
    assert found.costs["params"] == [network.params for network in networks]
    example = torch.zeros(1, *digits.input_shape)
    assert found.costs["macs"] == [network.macs(example) for network in networks]
    assert found.works == found.sampled == 30
    assert found.within_limits == {"--max-params 1000": np.mean([network.params <= 1000 for network in networks])}
    assert [choice.dead for choice in found.choices] == [False, False]


@pytest.mark.parametrize("words", [("--space", TINY), ("--model", "torchvision:resnet18", "--image-size", "32")])
def test_a_check_says_which_networks_fit_a_target(words: tuple[str, ...], run: Run, tmp_path: Path) -> None:
    (tmp_path / "chip.yaml").write_text("runtime: c\nram_kib: 1000\nflash_kib: 2\n")
    data = () if "--model" in words else ("--dataset", "digits", "--no-estimate")
    words = (*words, *data, "--samples", "4", "--target", "chip.yaml", "--json", "found.json")
    done = run(*words, command="check")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    costs = found["costs"]["flash_kib"]
    assert 1 <= len(costs) <= 4
    assert found["within_limits"]["--max-flash-kib 2"] == np.mean([flash <= 2 for flash in costs])
    assert "--max-ram-kib 1000" in found["within_limits"]


def test_a_network_that_looks_at_values_is_looked_at_too(digits: Dataset) -> None:
    space = ModelSpace.load(f"{SPACES}:Various", digits.input_shape, 10)
    found = check_space(space, digits, 10, predict=False)
    assert found.works == 10


def test_what_a_check_cannot_be_told(run: Run) -> None:
    words = ("--space", TINY, "--dataset", "digits")
    assert "--resume" in run("--resume", "x", command="check").stderr
    assert "--picture 'x.jpg'" in run(*words, "--picture", "x.jpg", command="check").stderr
    assert run(*words, "--print-config", command="check").stdout == run(*words, "--print-config").stdout


def test_an_estimate_says_what_it_is_of(run: Run) -> None:
    words = ("--space", TINY, "--dataset", "digits", "--samples", "5", "--epochs", "3", "--trials", "4")
    done = run(*words, "--json", "found.json", command="check")
    assert done.returncode == 0, done.stderr
    seconds = json.loads(Path("found.json").read_text())["seconds"]
    assert seconds["tried"] == 4
    assert 0 < seconds["trial"] < seconds["search"]
    assert seconds["low"] <= seconds["search"] <= seconds["high"]


def test_printed_options_are_a_file_of_options(run: Run, tmp_path: Path) -> None:
    words = ("--space", TINY, "--config", "quick", "--learning-rate", "1e-3", "--max-size-kib", "100")
    first = run(*words, "--print-config")
    assert first.returncode == 0, first.stderr
    (tmp_path / "options.yaml").write_text(first.stdout)
    assert run("--config", "options.yaml", "--print-config").stdout == first.stdout
    assert "learning_rate: 0.001\n" in first.stdout
    assert "trials: 6\n" in first.stdout
    assert not (tmp_path / "runs").exists()
    assert run("--resume", "x", "--print-config").returncode == 2
    assert "presets: " in run("--config", "nothing", "--print-config").stderr


@pytest.mark.slow
@pytest.mark.parametrize("preset", presets())
def test_presets_run_at_small_size(preset: str, run: Run, tmp_path: Path) -> None:
    words = ["--space", TINY, "--dataset", "digits", "--config", preset, "--trials", "3", "--epochs", "3"]
    small = ["--subnets", "4", "--supernet-epochs", "1", "--top-k", "1", "--repeats", "1", "--run-dir", "made"]
    done = run(*words, *small)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "made" / "top_models.json").read_text())


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("",), {"run", "check", "predict"}),
        (("run", "--strategy", "o"), {"optuna"}),
        (("run", "--config", "q"), {"quick"}),
        (("check", "--sam"), {"--samples", "--sampler"}),
    ],
)
def test_bash_completes(words: tuple[str, ...], offered: set[str], run: Run, tmp_path: Path) -> None:
    done = run("bash", command="completion")
    assert done.returncode == 0, done.stderr
    (tmp_path / "completion").write_text(done.stdout)
    typed = " ".join(f'"{word}"' for word in ("slimsearch", *words))
    script = f"""
        source ./completion
        COMP_WORDS=({typed}); COMP_CWORD={len(words)}
        function=$(complete -p slimsearch | sed 's/.*-F \\([^ ]*\\).*/\\1/')
        $function slimsearch "{words[-1]}" "" ; printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    found = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert offered <= set(found.stdout.split()), found.stderr
