"""The larger spaces, including NNI's hub: networks for small images, from a sample to a deployed file."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from slimsearch import compression
from slimsearch.compression import Network
from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import DeployedModel, DryRunTraining, TrainingSettings
from slimsearch.evaluators.datasets import load_dataset
from slimsearch.search_spaces import ModelSpace, NniSpace
from tests.conftest import Run

Shape = tuple[int, int, int]

# What the parameters of its smallest and largest networks on CIFAR-10 lie between, in thousands.
SIZES = {
    "autoformer": (4_500, 10_100),
    "darts": (10, 5_000),
    "mobilenet_small": (6, 950),
    "mobilenetv3": (150, 38_000),
    "nasbench101": (200, 50_000),
    "nasbench201": (70, 1_600),
    "proxylessnas": (850, 4_000),
    "shufflenet": (2_000, 3_000),
}
NAMES = sorted(SIZES)
IMAGES: list[Shape] = [(1, 28, 28), (3, 32, 32)]


# Networks of many MACs: here where there is time, and in the contract of all spaces by default.
LARGE = ("autoformer", "nasbench101")


@pytest.fixture(scope="module", params=[pytest.param(n, marks=pytest.mark.slow if n in LARGE else ()) for n in NAMES])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def space(name: str) -> ModelSpace:
    return ModelSpace.load(name, (3, 32, 32), 10)


def extreme(space: ModelSpace, position: int) -> dict[str, object]:
    """The point whose numbers are all the first or last of their values, and layers the first; else any."""
    values = {c.label: c.values[position if isinstance(c.values[0], int | float) else 0] for c in space.choices}
    return space.canonical(values) if space.contains(values) else next(space.grid())


def light(space: ModelSpace, point: dict[str, object]) -> dict[str, object]:
    """`point`, as shallow as the space has it where that is one choice for the whole network."""
    depths = {c.label: min(c.values) for c in space.choices if c.label == "depth"}
    return space.canonical({**space.complete(point), **depths})


def test_samples(space: ModelSpace, rng: np.random.Generator) -> None:
    points = [space.sample(rng) for _ in range(50)]
    assert len({json.dumps(point) for point in points}) > 45
    for point in points:
        assert space.contains(point)
        assert space.canonical(point) == point
        assert space.canonical(space.complete(point)) == point


class ReadLabels(dict[str, object]):
    """A sample that records which labels are read."""

    def __init__(self, point: dict[str, object]) -> None:
        super().__init__(point)
        self.labels: set[str] = set()

    def __getitem__(self, label: str) -> object:
        self.labels.add(label)
        return super().__getitem__(label)

    def get(self, label: str, default: object = None) -> object:
        self.labels.add(label)
        return super().get(label, default)

    def __contains__(self, label: object) -> bool:
        self.labels.add(str(label))
        return super().__contains__(label)


def test_active_choices_are_those_that_nni_reads(space: ModelSpace, rng: np.random.Generator) -> None:
    for _ in range(3):
        point = space.complete(space.sample(rng))
        read = ReadLabels(point)
        assert space.template.check_contains(read) is None
        assert set(space.canonical(point)) == read.labels & set(point)
        for label in rng.permutation(list(point))[:15]:
            less = {k: v for k, v in point.items() if k != label}
            assert space.contains(less) == (space.template.check_contains(dict(less)) is None)


def test_sizes(name: str, space: ModelSpace, rng: np.random.Generator) -> None:
    low, high = SIZES[name]
    points = [extreme(space, 0), extreme(space, -1), space.sample(rng)]
    for params in (Network(space.build(point)).params / 1000 for point in points):
        assert low < params < high


@pytest.mark.parametrize("shape", [*IMAGES, (3, 30, 30), (3, 64, 64)], ids=lambda shape: "x".join(map(str, shape)))
def test_other_images(name: str, shape: Shape, rng: np.random.Generator) -> None:
    space = ModelSpace.load(name, shape, 7)
    for point in (extreme(space, 0), light(space, space.sample(rng))):
        space.check(point)


def test_images_that_are_too_small(name: str) -> None:
    with pytest.raises(SlimsearchError, match=f"{name} needs images of at least"):
        ModelSpace.load(name, (3, 7, 7), 10)


def test_all_parameters_are_used(space: ModelSpace, rng: np.random.Generator) -> None:
    """No parameter without a gradient, and one module a use where it has weights of its own."""
    module = space.build(light(space, space.sample(rng)))
    calls: list[nn.Module] = []
    for layer in module.modules():
        if not list(layer.children()) and isinstance(getattr(layer, "weight", None), nn.Parameter):
            layer.register_forward_hook(lambda layer, images, output: calls.append(layer))
    logits = module(torch.randn(2, *space.input_shape))
    logits.sum().backward()
    assert logits.shape == (2, 10)
    assert all(p.grad is not None for p in module.parameters())
    assert len(calls) == len(set(calls))


def test_weights_depend_on_the_seed_alone(space: ModelSpace, rng: np.random.Generator) -> None:
    point = light(space, space.sample(rng))
    states = [
        NniSpace(space.code, (3, 32, 32), 10).build(point, 3).state_dict(),
        space.build(point, 3).state_dict(),
    ]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_exported(name: str, rng: np.random.Generator, tmp_path: Path) -> None:
    space = ModelSpace.load(name, (1, 28, 28), 10)
    network = Network(space.build(light(space, space.sample(rng))).eval())
    assert_exported(network, tmp_path / "model.onnx", torch.randn(4, 1, 28, 28))


# By default one, and what is different in ShuffleNet below.
@pytest.mark.parametrize(
    "name", [n if n == "mobilenet_small" else pytest.param(n, marks=pytest.mark.slow) for n in NAMES]
)
def test_pruned_and_quantized(name: str, rng: np.random.Generator, tmp_path: Path) -> None:
    space = ModelSpace.load(name, (1, 28, 28), 10)
    point = light(space, space.sample(rng))
    network = Network(space.build(point).eval())
    training = DryRunTraining(load_dataset("mnist5k"), TrainingSettings(), 0)  # it trains nothing
    pruned = compression.Recipe.parse("prune:sparsity=0.5:round_to=1").apply(network, training)
    assert pruned.params < 0.6 * network.params
    images = torch.randn(4, 1, 28, 28)
    assert_exported(pruned, tmp_path / "pruned.onnx", images)
    pruned.save(tmp_path)
    again = Network.load(space.build(point), tmp_path).module.eval()
    assert torch.equal(again(images), pruned.module(images))
    quantized = compression.Recipe.parse("quantize").apply(pruned, training)
    compression.export_onnx(quantized, tmp_path / "int8.onnx", training.calibration[:16])
    assert DeployedModel(tmp_path / "int8.onnx")(images.numpy()).shape == (4, 10)


def assert_exported(network: Network, path: Path, images: torch.Tensor) -> None:
    compression.export_onnx(network, path, images)
    expected = network.module(images).detach().numpy()
    found = DeployedModel(path)(images.numpy())
    assert np.allclose(found, expected, atol=1e-4 * max(1.0, float(np.abs(expected).max())))


@pytest.fixture
def sixty_images(tmp_path: Path) -> Callable[[Shape], Path]:
    """A folder of coloured or grey noise in two classes, one of them bright."""
    from PIL import Image

    def make(shape: Shape) -> Path:
        rng = np.random.default_rng(0)
        for i in range(60):
            folder = tmp_path / "images" / ("bright" if i % 2 else "dark")
            folder.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 128, (*shape[1:], shape[0]), dtype=np.uint8) + np.uint8(i % 2 * 120)
            Image.fromarray(pixels.squeeze()).save(folder / f"{i}.png")
        return tmp_path / "images"

    return make


# One by default; the whole hub where there is time.
@pytest.mark.parametrize(
    ("name", "shape"),
    [
        pytest.param(name, shape, id=f"{name}-{'x'.join(map(str, shape))}", marks=() if quick else pytest.mark.slow)
        for name in NAMES
        for shape in IMAGES
        for quick in [(name, shape[0]) == ("mobilenet_small", 3)]
    ],
)
def test_a_search(name: str, shape: Shape, sixty_images: Callable[[Shape], Path], run: Run, tmp_path: Path) -> None:
    words = ("--trials", "2", "--epochs", "1", "--batch-size", "16", "--compress", "none", "--top-k", "1")
    done = run("--space", name, "--dataset", sixty_images(shape), *words, "--run-dir", "run")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "run" / "top_models.json").read_text())
    assert "architecture" in str(found)


@pytest.mark.parametrize(
    ("name", "sides"),
    [
        ("proxylessnas", {8: 4, 16: 4, 28: 4, 32: 4, 48: 6, 64: 4, 96: 6, 128: 4, 224: 7}),
        ("nasbench201", {28: 7, 63: 16, 64: 8, 96: 12, 128: 8}),
    ],
)
def test_the_last_feature_map_is_neither_tiny_nor_large(
    name: str, sides: dict[int, int], rng: np.random.Generator
) -> None:
    """Strides and poolings depend on the size of the images."""
    for image_size, side in sides.items():
        space = ModelSpace.load(name, (3, image_size, image_size), 10)
        module = space.build(space.sample(rng)).eval()
        pooled: list[tuple[int, ...]] = []
        pool = next(layer for layer in module.modules() if isinstance(layer, nn.AdaptiveAvgPool2d))
        pool.register_forward_hook(lambda layer, given, output, pooled=pooled: pooled.append(given[0].shape[2:]))
        module(torch.zeros(1, *space.input_shape))
        assert pooled == [(side, side)]


def test_networks_of_nas_bench_201_are_those_of_the_benchmark(rng: np.random.Generator) -> None:
    """Parameters follow from the convolutions of the cell."""
    space = ModelSpace.load("nasbench201", (3, 32, 32), 10)
    for _ in range(3):
        point = space.sample(rng)
        cell = list(point.values())
        params = 73_306 + 243_040 * cell.count("conv_3x3") + 28_000 * cell.count("conv_1x1")
        assert Network(space.build(point)).params == params


def test_a_network_of_nas_bench_101_is_that_of_the_benchmark() -> None:
    """The Inception-like cell that its authors' README shows: 2,694,282 parameters."""
    space = ModelSpace.load("nasbench101", (3, 32, 32), 10)
    point: dict[str, object] = {c.label: c.values[0] for c in space.choices}
    point |= {f"edge_{edge}": 1 for edge in ("0_1", "0_2", "0_3", "0_5", "1_6", "2_6", "3_4", "4_6", "5_6")}
    operations = ("conv1x1-bn-relu", "conv3x3-bn-relu", "conv3x3-bn-relu", "conv3x3-bn-relu", "maxpool3x3")
    point |= {f"op_{vertex}": operation for vertex, operation in enumerate(operations, start=1)}
    assert Network(space.build(space.canonical(point))).params == 2_694_282
    for broken in ({"edge_0_4": 1}, {f"edge_0_{vertex}": 0 for vertex in range(1, 7)}):
        with pytest.raises(SlimsearchError, match=r"10 edges; at most 9|no path leads"):
            space.canonical({**point, **broken})


def test_dead_parts_of_a_nas_bench_101_cell_are_inactive() -> None:
    space = ModelSpace.load("nasbench101", (3, 32, 32), 10)
    point = next(space.grid())  # from input to output, and nothing else
    assert sum(value == 1 for value in point.values()) == 1
    assert not any(label.startswith("op") for label in point)
    assert space.canonical({**space.complete(point), "edge_1_6": 1, "edge_2_3": 1, "op_3": "maxpool3x3"}) == point


def test_the_published_darts_network_has_the_published_number_of_parameters() -> None:
    """DARTS_V2 of 20 cells and 36 channels, without its auxiliary head: 3,349,342."""
    from slimsearch.search_spaces.darts import DARTS

    class Published(DARTS):
        def __init__(self, in_channels: int, num_classes: int, image_size: int) -> None:
            super().__init__(in_channels, num_classes, image_size, width=(36,), num_cells=(20,))

    normal = ["sep_conv_3x3"] * 5 + ["skip_connect"] * 2 + ["dil_conv_3x3"]
    reduction = [*["max_pool_3x3"] * 2, "skip_connect", *["max_pool_3x3"] * 2, *["skip_connect"] * 2, "max_pool_3x3"]
    sources = {"normal": [0, 1, 0, 1, 1, 0, 0, 2], "reduce": [0, 1, 2, 1, 0, 2, 2, 1]}
    point: dict[str, object] = {"width": 36, "depth": 20}
    for cell, operations in (("normal", normal), ("reduce", reduction)):
        for i, (operation, source) in enumerate(zip(operations, sources[cell], strict=True)):
            point[f"{cell}/op_{2 + i // 2}_{i % 2}"] = operation
            point[f"{cell}/input_{2 + i // 2}_{i % 2}"] = [source]
    assert Network(NniSpace(Published, (3, 32, 32), 10).build(point)).params == 3_349_342


def test_unused_darts_cells_are_left_out() -> None:
    space = ModelSpace.load("darts", (3, 32, 32), 10)
    every_other: dict[str, object] = {
        c.label: c.values[0] for c in space.choices
    }  # each cell sees the one before the last
    module = space.build({**every_other, "depth": 8})
    made = [type(cell).__name__ for stage in module.stages for cell in stage]
    assert made == ["Unused", "Cell", "Unused", "Cell", "Unused", "Cell", "Unused", "Cell"]
    space.check({**every_other, "depth": 8})


def test_channel_shuffle_equals_that_of_the_hub() -> None:
    from nni.nas.hub.pytorch.shufflenet import ShuffleNetBlock

    from slimsearch.search_spaces.shufflenet import shuffle_channels

    images = torch.randn(3, 8, 5, 5)
    block = ShuffleNetBlock(8, 8, 4, kernel_size=3, stride=1)
    for ours, theirs in zip(shuffle_channels(images), block._channel_shuffle(images), strict=True):
        assert torch.equal(ours, theirs)


def test_shuffled_channels_are_not_pruned(
    rng: np.random.Generator, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    space = ModelSpace.load("shufflenet", (1, 28, 28), 10)
    network = Network(space.build({**space.sample(rng), "layer_2": "k3"}).eval())
    training = DryRunTraining(load_dataset("mnist5k"), TrainingSettings(), 0)
    with caplog.at_level(logging.WARNING):
        pruned = compression.Recipe.parse("prune:sparsity=0.5").apply(network, training)
    assert any("keep all channels" in record.getMessage() for record in caplog.records)
    before, after = (one.module.features[1].branch_main for one in (network, pruned))
    assert before[-3].out_channels == after[-3].out_channels == 32
    assert (before[0].out_channels, after[0].out_channels) == (32, 16)
    assert_exported(pruned, tmp_path / "pruned.onnx", torch.randn(4, 1, 28, 28))
