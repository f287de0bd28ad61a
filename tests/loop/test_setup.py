"""The setup of a run: absolute paths, and options that do not go together are refused before anything is written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import slimsearch
from slimsearch.compression import Recipe, unsupported
from slimsearch.loop.evaluation_settings import latency_settings
from slimsearch.loop.problem import prepare
from slimsearch.loop.python_objects import PythonObjects
from slimsearch.names import built_in_names
from slimsearch.options.configuration import BUILT_INS, Configuration
from slimsearch.options.recipe_choices import each_value, for_runtime, read_choices


def test_every_path_in_the_options_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images" / "cats").mkdir(parents=True)
    options = {
        "space": "mine/net.py:Net",
        "strategy": "mine/engine.py:Engine",
        "sampler": "mine/sampler.py:Mine",
        "scheduler": "asha:eta=3+mine/rule.py:Rule:patience=2",
        "evaluator": "table.csv",
        "metrics": "energy=mine/metrics.py:energy,nodes=/elsewhere/metrics.py:nodes",
        "dataset": "images/",
        "data_root": "data",
        "init": "weights.pth",
    }
    absolute = Configuration(**options).absolute()
    assert {name: getattr(absolute, name) for name in options} == {
        "space": f"{tmp_path}/mine/net.py:Net",
        "strategy": f"{tmp_path}/mine/engine.py:Engine",
        "sampler": f"{tmp_path}/mine/sampler.py:Mine",
        "scheduler": f"asha:eta=3+{tmp_path}/mine/rule.py:Rule:patience=2",
        "evaluator": f"{tmp_path}/table.csv",
        "metrics": f"energy={tmp_path}/mine/metrics.py:energy,nodes=/elsewhere/metrics.py:nodes",
        "dataset": f"{tmp_path}/images",
        "data_root": f"{tmp_path}/data",
        "init": f"{tmp_path}/weights.pth",
    }
    assert absolute.absolute() == absolute


def test_what_was_skipped_in_the_data_is_in_the_environment() -> None:
    data = [(np.full((8, 8), number, np.uint8), number % 2, f"{number}.png") for number in [*range(40), 1, 3, 5]]
    configuration = Configuration(space="tiny_cnn")
    found = prepare(configuration, PythonObjects(data=data)).environment(configuration)["dataset"]
    assert found["notes"] == list(slimsearch.load_dataset(data).notes)
    assert re.search(r"part 3\b.*\b3 of 43 images are copies", "; ".join(found["notes"]))


@pytest.mark.parametrize(
    "options", [{"space": "lenet", "init": "torchvision:resnet18"}, {"space": "package.module:Net", "dataset": "mnist"}]
)
def test_names_stay_names(options: dict[str, str]) -> None:
    assert Configuration(**options).absolute() == Configuration(**options)


@pytest.mark.parametrize("option", ["space", "strategy", "sampler", "scheduler", "task"])
def test_each_spelling_of_a_built_in_is_one_value(option: str) -> None:
    for name in built_in_names(BUILT_INS[option]):
        written = Configuration(**{"space": "lenet", option: name.replace("_", "-")})
        assert written == Configuration(**{"space": "lenet", option: name})
    own = Configuration(**{"space": "lenet", option: "my-code.py:Own-Name"})
    assert getattr(own, option) == "my-code.py:Own-Name"


def test_each_spelling_of_a_stage_is_one_recipe() -> None:
    for name in built_in_names("slimsearch.compression"):
        assert Recipe.parse(name.replace("_", "-")).text() == name


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"strategy": "nni-darts"}, "--strategy nni_darts trains networks, and --evaluator has none"),
        ({"strategy": "nni-random", "storage": "sqlite:///study.db"}, "--strategy nni_random keeps what it knows"),
        ({"init": "torchvision:resnet18"}, "--init: there are no networks with --evaluator"),
        ({"scheduler": "pbt"}, "--scheduler pbt varies training hyper-parameters: it needs --search-hyperparameters"),
        ({"architectures": '{"width": 1}'}, "--architectures are networks of --space, and --evaluator has none"),
    ],
)
def test_options_that_do_not_go_together(
    options: dict[str, Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(slimsearch.SlimsearchError, match=said):
        slimsearch.search(
            {"width": [1, 2]}, evaluate=lambda candidate: {"score": 1.0}, objectives="score:max", show=False,
            **{"scheduler": "none", **options},
        )  # fmt: skip
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("own_training", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {"compress": "prune:sparsty=0.5"}, {"compress": "quantize,prune"}, {"compress": "distill:teacher=no.onnx"},
        {"co_search": '{"prune": {"use": [true, false], "sparsty": [0.1, 0.2]}}'},
        {"co_search": '{"distill": {"use": [true, false], "teacher": ["parent", "best"]}}'},
        {"co_search": '{"training": {"learning_rat": [0.1, 0.2]}}'},
        {"sampler": "optuna.samplers:Nothing"}, {"sampler": "collections:OrderedDict"},
        {"strategy": "nni_tpe", "co_search": "default"}, {"strategy": "supernet", "init": __file__},
        {"co_search": "default", "scheduler": "hyperband"}, {"scheduler": "asha:eta=1"},
        {"metrics": "energy"}, {"metrics": "=math:exp"}, {"metrics": "a=math:exp,a=math:log"},
        {"objectives": "val_accuracy,energy"}, {"stop_at": "val_accuracy"},
        {"weights": "latency_ms"}, {"targets": "latency_ms=low"}, {"mean": "0.5,x", "std": "0.5"},
        {"runtime": "litert", "compress": "weight_only"}, {"augment": "blur"}, {"log": "nothing"},
    ],
    ids=str,
)  # fmt: skip
def test_wrong_options_are_refused_before_data_are_read(
    options: dict[str, Any], own_training: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text("import pathlib\n\n\ndef data():\n    pathlib.Path('read').touch()\n")
    own = {"fit": lambda model: None, "score": lambda predict: 1.0} if own_training else {}
    with pytest.raises(slimsearch.SlimsearchError) as caught:
        slimsearch.search(
            lambda trial: torch.nn.Flatten(), "own.py:data", show=False, **{"compress": "none", **options}, **own
        )
    assert "data" not in str(caught.value)
    assert not (tmp_path / "read").exists(), caught.value


def test_a_strategy_is_constructed_once(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "from pathlib import Path\n"
        "from slimsearch.strategies.local import Local\n\n\n"
        "class Own(Local):\n"
        "    def __init__(self, settings):\n"
        "        super().__init__(settings)\n"
        "        with Path(__file__).with_suffix('.log').open('a') as log:\n"
        "            log.write('constructed\\n')\n"
    )
    slimsearch.search(
        {"width": [1, 2]}, evaluate=lambda candidate: {"score": 1.0}, objectives="score:max", show=False, trials=1,
        workers=1, strategy=f"{tmp_path}/own.py:Own", run_dir=tmp_path / "run",
    )  # fmt: skip
    assert (tmp_path / "own.log").read_text() == "constructed\n"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"runtime": "litert", "compress": "weight_only"}, "--runtime litert cannot have weight_only: .*quantize"),
        ({"runtime": "litert", "compress": "prune,quantize:keep_float=ends"}, "cannot have quantize:keep_float=ends"),
        ({"runtime": "litert", "compress": "prune+qat:bits=4"}, "cannot have qat:bits=4"),
        ({"runtime": "litert", "co_search": '{"quantize": {"mean_bits": [8, 4]}}'}, "cannot have quantize:mean_bits=4"),
        ({"runtime": "executorch", "compress": "quantize"}, "--runtime executorch cannot have quantize"),
        ({"runtime": "executorch", "co_search": "precision"}, "--co-search precision varies number formats"),
    ],
)
def test_recipes_that_files_of_the_runtime_cannot_have_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(slimsearch.SlimsearchError, match=said) as caught:
        for_runtime(Configuration(space="tiny_cnn", **options))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "litert", "executorch"])
def test_default_recipes_are_those_that_files_of_the_runtime_can_have(runtime: str) -> None:
    found = [
        for_runtime(Configuration(space="tiny_cnn", runtime=runtime, co_search=name)) for name in (None, "default")
    ]
    assert [for_runtime(one) for one in found] == found, "also of a run that is resumed"
    recipe = Recipe.parse(found[0].compress)
    assert [stage.name for stage in recipe.stages] == ["prune", "distill", "quantize"][: 2 + (runtime != "executorch")]
    for candidate in each_value(read_choices(found[1])):
        assert unsupported(Recipe.from_dict(candidate.recipe), runtime) is None


def test_options_that_converted_files_do_not_have() -> None:
    for options, said in (
        ({"latency_batch": 8}, "--latency-batch 8: files of --runtime litert take one input at a time"),
        ({"latency": "predicted"}, "--latency predicted is for --runtime onnxruntime, not litert"),
        (
            {"device_host": "user@board"},
            "files of --runtime onnxruntime or openvino, not litert",
        ),
    ):
        with pytest.raises(slimsearch.SlimsearchError, match=said):
            Configuration(space="tiny_cnn", runtime="litert", **options)


@pytest.mark.parametrize(
    ("options", "early"),
    [
        ({}, False),
        ({"max_size_kib": 100.0}, False),
        ({"max_latency_ms": 1.0}, True),
        ({"scheduler": "asha"}, True),
        ({"co_search": "deploy"}, True),
        ({"runtime": "openvino"}, True),
    ],
)
def test_latency_is_known_before_a_training_that_it_may_prevent(options: dict[str, Any], early: bool) -> None:
    assert latency_settings(Configuration(space="lenet", **options)).early == early
