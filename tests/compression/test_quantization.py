"""Integers learned in training: the file computes what the training simulated."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from slimsearch import compression
from slimsearch.compression import Network, Quantization
from slimsearch.compression.quantization.folding import fold_batch_norm
from slimsearch.compression.quantization.learned import attach, detach
from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import DeployedModel, NetworkTraining, TrainingSettings
from slimsearch.evaluators.datasets import Dataset
from slimsearch.search_spaces import ModelSpace
from tests.conftest import VARIOUS

LEARNED = ["qat", "lsq", "lsq_plus", "dorefa"]


@pytest.fixture(scope="module")
def space() -> ModelSpace:
    return ModelSpace.load(VARIOUS, (1, 8, 8), 10)


@pytest.fixture(scope="module")
def training(digits: Dataset) -> NetworkTraining:
    return NetworkTraining(digits, TrainingSettings(), seed=0, epochs=2)


@pytest.fixture(scope="module")
def trained(space: ModelSpace, training: NetworkTraining) -> Network:
    return training.fit(Network(space.build({"width": 32})), epochs=8)


def _simulated(
    recipe: str, trained: Network, training: NetworkTraining, images: torch.Tensor | None = None
) -> tuple[np.ndarray, Network]:
    """What the simulation answers at the end of the training, and what the stage makes of it."""
    stage = compression.Recipe.parse(recipe).stages[0].stage
    part = stage.begin(trained, training)
    fitted = training.fit(part.network, epochs=2, learning_rate=1e-3)
    with torch.no_grad():
        answers = fitted.module.eval()(training.calibration if images is None else images).numpy()
    return answers, part.finish(fitted)


# Without these instructions, sums of products saturate.
CPU = Path("/proc/cpuinfo")
HAS_VNNI = re.search("avx512_vnni|avx_vnni", CPU.read_text() if CPU.is_file() else "")
VNNI = pytest.param(
    "qat:target=vnni", marks=pytest.mark.skipif(HAS_VNNI is None, reason="the processor has no VNNI instructions")
)


@pytest.mark.parametrize("recipe", [*LEARNED, "lsq:bits=4", VNNI, "qat:per_channel=false"])
def test_the_file_answers_as_the_simulation_did(
    recipe: str, trained: Network, training: NetworkTraining, digits: Dataset, tmp_path: Path
) -> None:
    images = digits.normalise(digits.train.inputs)
    expected, result = _simulated(recipe, trained, training, images)
    path = tmp_path / "model.onnx"
    compression.export_onnx(result, path, training.calibration)
    found = DeployedModel(path)(images.numpy())
    assert np.mean(found.argmax(axis=1) == expected.argmax(axis=1)) > 0.995
    # The tensors that no layer reads (before an addition) are calibrated, not learned: a small difference is left.
    assert np.abs(found - expected).mean() < 0.05 * np.abs(expected).mean()


@pytest.mark.parametrize(("recipe", "largest"), [("qat", 63), ("qat:target=vnni", 127), ("lsq:bits=3", 63)])
def test_weights_lie_on_the_grid_that_was_asked_for(
    recipe: str, largest: int, trained: Network, training: NetworkTraining, tmp_path: Path
) -> None:
    _, result = _simulated(recipe, trained, training)
    assert result.quantization is not None
    for name, known in result.quantization.learned.items():
        weight = result.module.get_submodule(name).weight.detach()
        scales = torch.tensor(known.weight_scales).view(-1, *[1] * (weight.ndim - 1))
        multiples = weight / scales
        assert torch.allclose(multiples, multiples.round(), atol=1e-3), name
        assert float(multiples.abs().max()) <= 2 ** (known.weight_bits - 1) - 1 + 1e-3, name
    compression.export_onnx(result, tmp_path / "model.onnx", training.calibration)
    model = onnx.load(str(tmp_path / "model.onnx"))
    compression.expand_integers(model)
    weights = [
        onnx.numpy_helper.to_array(tensor).astype(int)
        for tensor in model.graph.initializer
        if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) > 1
    ]
    assert len(weights) == 6
    assert max(int(np.abs(weight).max()) for weight in weights) <= largest
    if recipe == "lsq:bits=3":
        shape = tuple(result.module.get_submodule("back").weight.shape)
        inner = next(weight for weight in weights if weight.shape == shape)
        assert set(np.unique(inner)) <= {-3, -2, -1, 0, 1, 2, 3}


def test_an_input_that_a_relu_wrote_has_the_zero_point_0(trained: Network, training: NetworkTraining) -> None:
    for recipe in LEARNED:
        _, result = _simulated(recipe, trained, training)
        assert result.quantization is not None
        learned = result.quantization.learned
        assert [learned[name].input_zero_point for name in ("wide", "back", "depthwise", "head")] == [0, 0, 0, 0]
        assert learned["stem"].input_zero_point > 0, "normalised images are negative, too"


def test_layers_that_read_one_tensor_share_its_scale(trained: Network, training: NetworkTraining) -> None:
    class Fork(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = torch.nn.Conv2d(1, 4, 3)
            self.left, self.right = torch.nn.Conv2d(4, 4, 1), torch.nn.Conv2d(4, 4, 1)
            self.head = torch.nn.Linear(4, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.stem(x).relu()
            return self.head((self.left(x) + self.right(x)).mean(dim=(2, 3)))

    _, result = _simulated("lsq", Network(Fork().eval()), training)
    assert result.quantization is not None
    learned = result.quantization.learned
    assert learned["left"].input_scale == learned["right"].input_scale


def test_nothing_is_left_of_the_simulation(trained: Network, training: NetworkTraining) -> None:
    stage = compression.Recipe.parse("lsq").stages[0].stage
    module = trained.copy_module().eval()
    attach(module, training.calibration, lambda _, w: stage.weight_quantizer(w, 8), stage.input_quantizer)
    assert len(dict(module.named_parameters())) > len(dict(trained.module.named_parameters()))
    detach(module)
    assert module.state_dict().keys() == trained.module.state_dict().keys()
    assert not any(layer._forward_pre_hooks for layer in module.modules())


def test_folding_changes_no_answer_and_moves_the_scales(trained: Network, training: NetworkTraining) -> None:
    _, result = _simulated("qat", trained, training)
    images = training.calibration
    folded = fold_batch_norm(result, images[:2])
    with torch.no_grad():
        assert torch.allclose(folded.module(images), result.module(images), atol=1e-3)
    assert not any(isinstance(layer, torch.nn.BatchNorm2d) for layer in folded.module.modules())
    assert folded.quantization is not None
    for name, known in folded.quantization.learned.items():
        weight = folded.module.get_submodule(name).weight.detach()
        multiples = weight / torch.tensor(known.weight_scales).view(-1, *[1] * (weight.ndim - 1))
        assert torch.allclose(multiples, multiples.round(), atol=2e-3), name


def test_a_batch_norm_behind_a_fork_is_not_folded(training: NetworkTraining) -> None:
    class Fork(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.head = torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Linear(4, 10)
            self.norm.weight.data.fill_(3.0)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.conv(x)
            return self.head((x + self.norm(x)).mean(dim=(2, 3)))

    network = Network(Fork().eval(), {}, Quantization())
    folded = fold_batch_norm(network, training.calibration[:2])
    with torch.no_grad():
        assert torch.allclose(folded.module(training.calibration), network.module(training.calibration), atol=1e-5)


def test_a_pruned_layer_loses_the_scales_of_its_channels() -> None:
    from slimsearch.compression import LearnedRange

    known = LearnedRange((0.1, 0.2, 0.3), 8, 0.5, 0)
    plan = Quantization(learned={"conv": known, "fc": LearnedRange((0.1,), 8, 0.5, 0)})
    assert plan.without_channels("conv", {1}).learned["conv"].weight_scales == (0.1, 0.3)
    assert plan.without_channels("fc", {0}) == plan
    assert plan.without_channels("other", {0}) == plan


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lsq:bits=9", "bits 9 is not between 2 and 8"),
        ("dorefa:bits=1", "bits 1 is not between 2 and 8"),
        ("qat:target=arm", "target 'arm' is none of any, vnni"),
        ("qat:epochs=0", "epochs 0 is less than 1"),
        ("qat,prune", "nothing can follow 'qat'"),
        ("bnn,quantize", "nothing can follow 'bnn'"),
        ("quantize+prune", "has no training to share with 'quantize'"),
        ("prune:importance=movement", "must see weights move: choose schedule linear or agp"),
        ("prune:after=rewind:schedule=agp", "schedule agp cuts while the trained weights go on"),
        ("prune:importance=most", "unknown importance 'most'; known: fpgm, group_l1"),
        ("prune:sparsity=0.5:params=100", "sparsity and params are given; one target is enough"),
        ("prune:schedule=never", "unknown schedule 'never'; known: agp, at_once, linear"),
        ("level:importance=fpgm", "importance fpgm is of channels"),
        ("my.yaml", "there is no recipe 'my.yaml'; shipped ones: .*fused"),
    ],
)
def test_mistakes(text: str, said: str) -> None:
    with pytest.raises(SlimsearchError, match=said):
        compression.Recipe.parse(text)


@pytest.mark.parametrize("kept", ["none", "first", "last", "ends", "depthwise", "named"])
def test_layers_that_stay_in_float32(
    kept: str, space: ModelSpace, training: NetworkTraining, tmp_path: Path, digits: Dataset
) -> None:
    network = Network(space.build({"width": 32}).eval())
    names = [
        name for name, layer in network.module.named_modules() if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear)
    ]
    which = f"{names[1]} {names[-1]}" if kept == "named" else kept
    path = tmp_path / "model.onnx"
    made = compression.Recipe.parse({"quantize": {"keep_float": which}}).apply(network, training)
    compression.export_onnx(made, path, training.calibration)
    graph = onnx.load(str(path)).graph
    weights = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    layers = [node for node in graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    in_float = [position for position, node in enumerate(layers) if node.input[1] in weights]
    groups = [next((a.i for a in node.attribute if a.name == "group"), 1) for node in layers]
    last = len(layers) - 1
    wanted = {
        "none": [], "first": [0], "last": [last], "ends": [0, last],
        "depthwise": [position for position, count in enumerate(groups) if count > 1],
    }  # fmt: skip
    if kept == "named":
        assert len(in_float) == 2
    else:
        assert in_float == wanted[kept]
    assert DeployedModel(path).predict(digits, digits.validation).shape == digits.validation.targets.shape


def test_a_layer_that_is_not_there_cannot_stay_in_float32(space: ModelSpace, training: NetworkTraining) -> None:
    network = Network(space.build({"width": 32}).eval())
    with pytest.raises(SlimsearchError, match="there is no layer 'nothing'; layers: "):
        compression.Recipe.parse({"quantize": {"keep_float": "nothing"}}).apply(network, training)


@pytest.mark.parametrize("norm", [[8, 8, 8], [8, 8], [8]], ids=str)
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("recipe", ["quantize", "qat:epochs=1"])
def test_norms_over_several_dimensions(
    norm: list[int], affine: bool, recipe: str, digits: Dataset, tmp_path: Path
) -> None:
    from torch import nn

    class Untrained(NetworkTraining):
        def fit(self, network: Network, **settings: object) -> Network:  # type: ignore[override]
            return network

    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.LayerNorm(norm, elementwise_affine=affine), nn.ReLU(), nn.Conv2d(8, 8, 3),
        nn.Flatten(), nn.Linear(288, 10),
    )  # fmt: skip
    training = Untrained(digits, TrainingSettings(), seed=0)
    network = compression.Recipe.parse(recipe).apply(Network(module.eval()), training)
    compression.export_onnx(network, tmp_path / "int8.onnx", training.calibration)
    with torch.no_grad():
        expected = network.module(training.calibration).numpy()
    found = DeployedModel(tmp_path / "int8.onnx")(training.calibration.numpy())
    assert np.abs(found - expected).max() < 0.15 * np.abs(expected).max()
