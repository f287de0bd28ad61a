"""Distillation: what is compared with what, what is trained along, and what must not be left of it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path

import onnx
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from slimsearch import compression
from slimsearch.compression import LossTerm, Network, Quantization, TrainingStage
from slimsearch.compression.adaptive1d_layerwise import Adaptive1dLayerwise, MappedFeatures
from slimsearch.compression.distill import Distill, SoftLabels
from slimsearch.compression.distillation.features import ModuleFeatures, evenly, layer_shapes
from slimsearch.compression.distillation.onnx_teacher import OnnxFeatures
from slimsearch.compression.dynamic_layerwise import DynamicLayerwise, NearestFeatures
from slimsearch.compression.quantization.plan import CODEBOOK, STATIC, WEIGHTS_FP16, WEIGHTS_INT8
from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import NetworkTraining, StoppedEarly, TrainingSettings
from slimsearch.evaluators.datasets import Dataset

IMAGES = torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """Convolutions, a linear layer and the logits, registered in another order than they run in."""

    def __init__(self, width: int = 8, hidden: int = 12, size: int = 8, classes: int = 10) -> None:
        super().__init__()
        self.fc = nn.Linear(hidden, classes)
        self.hidden = nn.Linear(width, hidden)
        self.c3, self.c2, self.c1 = (nn.Conv2d(width, width, 3, padding=1) for _ in range(3))
        self.stem = nn.Conv2d(1, width, 3, padding=1, stride=8 // size)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in (self.stem, self.c1, self.c2, self.c3):
            x = self.act(layer(x))
        return self.fc(self.act(self.hidden(x.mean(dim=(2, 3)))))


ORDER = ["stem", "c1", "c2", "c3", "hidden"]


class Given:
    """A training that has a teacher and images, and fits nothing."""

    seed, epochs, calibration, gives_logits = 0, 1, IMAGES, True

    def __init__(self, teacher: nn.Module) -> None:
        self._teacher = Network(teacher)

    def teacher(self, name: str) -> Network:
        return self._teacher

    def fit(self, network: Network, **settings: object) -> Network:
        raise NotImplementedError


def net(seed: int = 0, **sizes: int) -> Net:
    torch.manual_seed(seed)
    return Net(**sizes)


def begin(stage: TrainingStage, student: nn.Module, teacher: nn.Module) -> LossTerm:
    part = stage.begin(Network(student), Given(teacher))
    (term,) = part.losses
    return term


def train(term: LossTerm, student: nn.Module, steps: int, learning_rate: float = 0.01) -> list[float]:
    """The term's value in each step, with nothing else in the loss."""
    optimizer = torch.optim.Adam([*student.train().parameters(), *term.attach(student)], learning_rate)
    values = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = term(IMAGES, student(IMAGES))
        loss.backward()
        optimizer.step()
        values.append(float(loss.detach()))
    term.detach()
    return values


def outputs(module: nn.Module, names: list[str]) -> dict[str, torch.Tensor]:
    """What the layers give for the images, by the plainest means."""
    found: dict[str, torch.Tensor] = {}
    probe = copy.deepcopy(module).eval()
    for name in names:
        probe.get_submodule(name).register_forward_hook(
            lambda layer, inputs, output, name=name: found.update({name: output.detach().clone()})
        )
    with torch.no_grad():
        probe(IMAGES)
    return found


def traces(module: nn.Module) -> int:
    return sum(len(layer._forward_hooks) + len(layer._forward_pre_hooks) for layer in module.modules())


# Which layers


def test_layers_come_in_the_order_in_which_they_run_without_the_logits() -> None:
    module = net()
    assert list(layer_shapes(module, IMAGES)) == ORDER
    assert layer_shapes(module, IMAGES)["c2"] == (16, 8, 8, 8)
    assert traces(module) == 0
    parametrize.register_parametrization(module.c2, "weight", nn.Tanh())
    assert list(layer_shapes(module, IMAGES)) == ORDER


@pytest.mark.parametrize(
    ("count", "picked"), [(1, "e"), (2, "be"), (3, "ace"), (4, "abce"), (5, "abcde"), (9, "abcde")]
)
def test_layers_are_taken_evenly(count: int, picked: str) -> None:
    assert evenly("abcde", count) == list(picked)


# Dynamic


def test_the_least_loss_counts() -> None:
    student, teacher = net(0), net(1)
    with torch.no_grad():
        teacher.stem.weight *= 5  # so that another layer is nearer than the one of the same name
    term = begin(DynamicLayerwise(layers=5), student, teacher)
    term.attach(student.train())
    value = term(IMAGES, student(IMAGES))
    mine, theirs = outputs(student, ORDER), outputs(teacher, ORDER)
    convolutions = ORDER[:4]
    errors = {
        one: [float((mine[one] - theirs[other]).square().mean()) for other in convolutions] for one in convolutions
    }
    assert errors["stem"].index(min(errors["stem"])) != 0
    least = [min(found) for found in errors.values()]
    least.append(float((mine["hidden"] - theirs["hidden"]).square().mean()))
    assert float(value) == pytest.approx(sum(least) / 5, rel=1e-5)


def test_other_widths_are_named_with_the_stage_that_can() -> None:
    message = r"layer 'c1' gives \(6, 8, 8\) for an image, and no layer of the teacher does; adaptive1d_layerwise can"
    student = net(width=6)
    with pytest.raises(SlimsearchError, match=message):
        begin(DynamicLayerwise(layers=2), student, net()).attach(student)


def test_nothing_but_logits_says_so() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with pytest.raises(SlimsearchError, match="no layer but the one that gives the logits"):
        begin(DynamicLayerwise(), module, module).attach(module)
    with pytest.raises(SlimsearchError, match="no layer of the same name"):
        begin(Adaptive1dLayerwise(), module, module).attach(module)


# Adaptive


def test_the_map_is_trained_and_dropped() -> None:
    student, teacher = net(0, width=6, hidden=5), net(1)
    term = begin(Adaptive1dLayerwise(), student, teacher)
    assert isinstance(term, MappedFeatures)
    own = list(term.attach(student))
    shapes = {name: tuple(channels.weight.shape) for name, channels in term.maps.items()}
    assert shapes == {"stem": (8, 6, 1, 1), "c1": (8, 6, 1, 1), "c2": (8, 6, 1, 1), "hidden": (12, 5)}
    assert len(own) == 2 * len(term.maps) == 8
    before = [parameter.detach().clone() for parameter in own]
    optimizer = torch.optim.SGD(own, 0.1)
    keys, count = set(student.state_dict()), Network(student).params
    term(IMAGES, student.train()(IMAGES)).backward()
    optimizer.step()
    assert all(not torch.equal(old, new) for old, new in zip(before, own, strict=True))
    assert student.stem.weight.grad is not None, "the student is drawn too"
    assert traces(student) == 4
    term.detach()
    assert traces(student) == 0
    assert not term.maps
    assert (set(student.state_dict()), Network(student).params) == (keys, count)


def test_equal_widths_begin_with_the_identity() -> None:
    student = net()
    term = begin(Adaptive1dLayerwise(layers=5), student, student)
    term.attach(student.train())
    assert float(term(IMAGES, student(IMAGES))) == pytest.approx(0, abs=1e-10)


def test_layers_of_any_scale_count_alike() -> None:
    def loss(factor: float) -> float:
        student, teacher = net(0), net(1)
        with torch.no_grad():
            for module in (student, teacher):
                module.hidden.weight *= factor
                module.hidden.bias *= factor
        term = begin(Adaptive1dLayerwise(layers=1), student, teacher)
        term.attach(student.train())
        return float(term(IMAGES, student(IMAGES)))

    assert loss(100) == pytest.approx(loss(1), rel=1e-4)


def test_other_sizes_of_the_picture_are_named() -> None:
    student = net(size=4)
    with pytest.raises(
        SlimsearchError, match=r"layer 'stem' gives \(8, 4, 4\) for an image, and the teacher's \(8, 8, 8\)"
    ):
        begin(Adaptive1dLayerwise(layers=5), student, net()).attach(student)


def test_a_layer_that_became_several_is_still_known_by_its_name() -> None:
    student, teacher = net(0), net(1)
    student.c2 = nn.Sequential(nn.Conv2d(8, 2, 1, bias=False), nn.Conv2d(2, 8, 3, padding=1))
    student.hidden = nn.Sequential(nn.Linear(8, 3), nn.Linear(3, 12))
    term = begin(Adaptive1dLayerwise(layers=5), student, teacher)
    assert train(term, student, 1) > [0]
    assert list(term.links) == ORDER


def test_linear_layers_over_tokens_and_over_channels_last() -> None:
    class Tokens(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.rows, self.cells, self.fc = nn.Linear(8, width), nn.Linear(1, width), nn.Linear(2 * width, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            rows, cells = self.rows(x[:, 0]), self.cells(x.permute(0, 2, 3, 1))  # (N, L, D), (N, H, W, D)
            return self.fc(torch.cat([rows.mean(dim=1), cells.mean(dim=(1, 2))], 1))

    student = Tokens(3)
    values = train(begin(Adaptive1dLayerwise(), student, Tokens(7)), student, 20)
    assert values[-1] < values[0]


# Both


@pytest.mark.parametrize("stage", [DynamicLayerwise(), Adaptive1dLayerwise()])
def test_features_get_closer_to_the_teachers(stage: TrainingStage) -> None:
    student, teacher = net(0), net(1)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    untrained = copy.deepcopy(student)
    values = train(begin(stage, student, teacher), student, 60)
    assert values[-1] < 0.5 * values[0]
    if isinstance(stage, DynamicLayerwise):
        theirs = outputs(teacher, ["hidden"])["hidden"]
        was, now = ((outputs(m, ["hidden"])["hidden"] - theirs).square().mean() for m in (untrained, student))
        assert now < 0.7 * was
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())
    assert traces(student) == traces(teacher) == 0


@pytest.mark.parametrize("stage", [DynamicLayerwise(), Adaptive1dLayerwise()])
def test_only_training_is_remembered(stage: TrainingStage) -> None:
    student, teacher = net(0), net(1)
    term = begin(stage, student, teacher)
    term.attach(student.train())
    expected = term(IMAGES, student(IMAGES))
    logits = student(IMAGES)
    student.eval()(torch.randn(5, 1, 8, 8))  # a validation
    copied = copy.deepcopy(student.train())  # an average of the weights, say
    copied(torch.randn(5, 1, 8, 8))
    assert torch.equal(term(IMAGES, logits), expected)


@pytest.mark.parametrize("stage", [DynamicLayerwise(), Adaptive1dLayerwise()])
def test_bfloat16_channels_last_and_parametrized_weights(stage: TrainingStage) -> None:
    student, teacher = net(0), net(1)
    parametrize.register_parametrization(student.c1, "weight", nn.Tanh())
    student.c2.register_forward_pre_hook(lambda layer, inputs: (inputs[0].round(decimals=1),))
    term = begin(stage, student, teacher)
    student = student.train().to(memory_format=torch.channels_last)
    term.attach(student)
    images = IMAGES.to(memory_format=torch.channels_last)
    exact = term(images, student(images))
    mapped: list[torch.dtype] = []
    for channels in getattr(term, "maps", {}).values():
        channels.register_forward_hook(lambda layer, inputs, output: mapped.append(output.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = term(images, student(images))
    loss.backward()
    assert {loss.dtype, *mapped} == {torch.float32}
    assert float(loss.detach()) == pytest.approx(float(exact.detach()), rel=0.05)
    assert student.c1.parametrizations.weight.original.grad is not None
    term.detach()
    assert traces(student) == 1, "the hook of somebody else stays"


# From a file


@pytest.fixture(scope="module")
def teacher_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("teacher") / "teacher.onnx"
    compression.export_onnx(Network(net(1).eval()), path, IMAGES)
    return path


def test_a_file_teaches_what_the_module_would(teacher_file: Path) -> None:
    student = net(0).eval()
    from_file = begin(Distill(str(teacher_file)), student, student)
    from_module = SoftLabels(net(1).eval(), 2.0, 0.5)
    for term in (from_file, from_module):
        assert not term.attach(student)
    for images in (IMAGES, IMAGES[:3].to(memory_format=torch.channels_last)):
        logits = student(images)
        assert torch.allclose(from_file(images, logits), from_module(images, logits), rtol=1e-5, atol=1e-7)
    (one,) = torch.autograd.grad(from_file(IMAGES, student(IMAGES)), [student.fc.bias])
    (other,) = torch.autograd.grad(from_module(IMAGES, student(IMAGES)), [student.fc.bias])
    assert torch.allclose(one, other, atol=1e-6)


@pytest.mark.parametrize("kind", [NearestFeatures, MappedFeatures])
def test_features_of_a_file_teach_what_the_modules_would(kind: type[NearestFeatures], teacher_file: Path) -> None:
    student, teacher = net(0).train(), net(1)
    from_file = kind(OnnxFeatures(teacher_file, IMAGES[:2]), IMAGES[:2], 5, 0.5)
    from_module = kind(ModuleFeatures(copy.deepcopy(teacher)), IMAGES[:2], 5, 0.5)
    gradients = []
    for term in (from_file, from_module):
        term.attach(student)
        loss = term(IMAGES.to(memory_format=torch.channels_last), student(IMAGES))
        gradients.append((loss.detach(), *torch.autograd.grad(loss, [student.stem.weight, student.hidden.bias])))
        assert list(term.links) == ORDER
        term.detach()
    assert traces(student) == 0
    assert all(torch.allclose(one, other, rtol=1e-4, atol=1e-6) for one, other in zip(*gradients, strict=True))
    if kind is MappedFeatures:
        in_order = [*OnnxFeatures(teacher_file, IMAGES[:2]).shapes(IMAGES[:2])]
        assert [name for (name,) in from_file.links.values()] == in_order


@pytest.mark.parametrize("stage", [DynamicLayerwise, Adaptive1dLayerwise])
def test_features_get_closer_to_those_of_a_file(stage: type[TrainingStage], teacher_file: Path) -> None:
    student = net(0)
    values = train(begin(stage(str(teacher_file)), student, student), student, 60)
    assert values[-1] < 0.5 * values[0]


class Mixed(nn.Module):
    """Layers of every kind, with weights on a grid; a linear layer over cells becomes MatMul and Add."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.stem, self.norm, self.conv = nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.Conv2d(6, 5, 3, bias=False)
        self.cells, self.free = nn.Linear(5, 7), nn.Linear(7, 7, bias=False)
        self.hidden, self.fc = nn.Linear(7, 9), nn.Linear(9, 10)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_((parameter * 32).round() / 32)
            self.norm.running_mean.uniform_(-1, 1)
            self.norm.running_var.uniform_(0.2, 2)
            self.norm.bias.uniform_(-1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.conv(torch.relu(self.norm(self.stem(x)))))
        x = self.free(torch.tanh(self.cells(x.permute(0, 2, 3, 1))))
        # No bias: a constant for each place, not for each channel.
        x = x + torch.linspace(0, 1, 28).reshape(4, 7)
        return self.fc(torch.relu(self.hidden(x.mean(dim=(1, 2)))))


@pytest.mark.parametrize(
    ("form", "tolerance"), [(None, 1e-6), (WEIGHTS_FP16, 2e-3), (WEIGHTS_INT8, 0.03), (CODEBOOK, 1e-6), (STATIC, 0.1)]
)
def test_features_of_a_file_are_those_of_the_modules_layers(form: str | None, tolerance: float, tmp_path: Path) -> None:
    module, path = Mixed().eval(), tmp_path / "mixed.onnx"
    compression.export_onnx(Network(module, {}, Quantization(form=form) if form else None), path, IMAGES)
    operators = {node.op_type for node in onnx.load(str(path)).graph.node}
    assert {"Cast", "Mul", "Gather", "DequantizeLinear"} & operators == {
        WEIGHTS_FP16: {"Cast"}, WEIGHTS_INT8: {"Cast", "Mul"}, CODEBOOK: {"Cast", "Gather"},
        STATIC: {"DequantizeLinear"},
    }.get(form, set())  # fmt: skip
    # BatchNorm is folded, except where each channel would then have other values.
    names = ["stem" if form == CODEBOOK else "norm", "conv", "cells", "free", "hidden"]
    expected = outputs(module, names)
    teacher = OnnxFeatures(path, IMAGES[:2])
    shapes = teacher.shapes(IMAGES)
    assert [*shapes.values()] == [expected[name].shape for name in names]
    assert [teacher.is_convolution(name) for name in shapes] == [True, True, False, False, False]
    teacher.attach(list(shapes)[::-1])
    features = teacher(IMAGES)
    assert len(features) == len(names)
    for name, layer in zip(names, shapes, strict=True):
        off = (features[layer] - expected[name]).square().mean().sqrt() / expected[name].square().mean().sqrt()
        assert float(off) < tolerance, name
        assert features[layer].dtype == torch.float32
    teacher.attach([next(iter(shapes))])
    assert list(teacher(IMAGES[:3])) == [next(iter(shapes))]


def test_a_file_is_matched_by_depth_kind_and_size(tmp_path: Path) -> None:
    def convolutions(*strides: int, width: int) -> list[nn.Module]:
        widths = [1, *[width] * len(strides)]
        return [nn.Conv2d(a, b, 3, padding=1, stride=s) for a, b, s in zip(widths, widths[1:], strides, strict=False)]

    def head(width: int, size: int) -> list[nn.Module]:
        return [nn.Flatten(), nn.Linear(width * size**2, 5), nn.ReLU(), nn.Linear(5, 10)]

    path = tmp_path / "teacher.onnx"
    _export(nn.Sequential(*convolutions(1, 1, 2, 1, 1, 1, width=4), *head(4, 4)), path, IMAGES[:2], **FREE)
    student = nn.Sequential(*convolutions(1, 1, 1, 2, width=3), *head(3, 4))
    term = begin(Adaptive1dLayerwise(str(path), layers=9), student, student)
    values = train(term, student, 30)
    assert values[-1] < values[0]
    # Of 5 and 7 layers; the student's third has as many places as the teacher's second, those after it fewer.
    assert {name: int(other.split("/")[1]) for name, (other,) in term.links.items()} == {
        "0": 0, "1": 1, "2": 1, "3": 5, "5": 7
    }  # fmt: skip
    message = (
        r"adaptive1d_layerwise: layer '0' gives \(3, 2, 2\) for an image, and no Conv of the teacher's file has such "
        r"sizes; the nearest in depth, '/0/.*', gives \(4, 8, 8\): only the number of channels may differ"
    )
    small = nn.Sequential(*convolutions(4, 1, 1, 1, 1, width=3), *head(3, 2))
    with pytest.raises(SlimsearchError, match=message):
        begin(Adaptive1dLayerwise(str(path), layers=6), small, small).attach(small)
    with pytest.raises(SlimsearchError, match=r"layer '0' gives \(3, 8, 8\) .* adaptive1d_layerwise can compare"):
        begin(DynamicLayerwise(str(path), layers=9), student, student).attach(student)
    logits = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with pytest.raises(SlimsearchError, match="the network has no layer but the one that gives the logits"):
        begin(Adaptive1dLayerwise(str(path)), logits, logits).attach(logits)


@pytest.mark.parametrize("stage", [DynamicLayerwise, Adaptive1dLayerwise])
def test_a_file_without_layers_says_so(stage: type[TrainingStage], tmp_path: Path) -> None:
    path = tmp_path / "flat.onnx"
    _export(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), path, IMAGES[:2], **FREE)
    with pytest.raises(
        SlimsearchError,
        match=r"teacher '.*flat\.onnx' has no Conv, Gemm or MatMul with a weight of its own but the one that gives the",
    ) as failure:
        begin(stage(str(path)), net(), net())
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize("stage", [Distill, DynamicLayerwise, Adaptive1dLayerwise])
def test_a_missing_or_broken_file_says_so(
    stage: type[TrainingStage], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SlimsearchError, match=rf"teacher 'no\.onnx': there is no such file in '{tmp_path}'"):
        begin(stage("no.onnx"), net(), net())
    for content in (b"not a network", b""):
        Path("broken.onnx").write_bytes(content)
        with pytest.raises(SlimsearchError, match=r"teacher 'broken\.onnx' cannot be loaded: .") as failure:
            begin(stage("broken.onnx"), net(), net())
        assert "\n" not in str(failure.value)


FREE = {"input_names": ["x"], "dynamic_axes": {"x": {0: "n"}}}


def _export(module: nn.Module, path: Path, images: torch.Tensor, **options: object) -> None:
    torch.onnx.export(module.eval(), (images,), str(path), dynamo=False, **options)


@pytest.mark.parametrize(
    ("make", "images", "message"),
    [
        (lambda: net(classes=7), IMAGES, r"gives \(2, 7\) for 2 images, the network \(2, 10\)"),
        (
            lambda: nn.Sequential(nn.Flatten(), nn.Linear(300, 10)),
            torch.randn(2, 3, 10, 10),
            r"takes tensor\(float\) \['n', 3, 10, 10\], the images are float32 \(N, 1, 8, 8\)",
        ),
        (
            lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).double(),
            IMAGES.double(),
            "cannot be run on the images: .*double",
        ),
    ],
)
def test_a_file_with_other_shapes_says_so(
    make: Callable[[], nn.Module], images: torch.Tensor, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "other.onnx"
    _export(make(), path, images, **FREE)
    with pytest.raises(SlimsearchError, match=message) as failure:
        begin(Distill(str(path)), net(), net())
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize("stage", [Distill, DynamicLayerwise, Adaptive1dLayerwise])
def test_a_file_for_one_image_at_a_time_says_so(stage: type[TrainingStage], tmp_path: Path) -> None:
    path = tmp_path / "one.onnx"
    _export(net(), path, IMAGES[:1])
    with pytest.raises(
        SlimsearchError, match=r"takes tensor\(float\) \[1, 1, 8, 8\], the images are float32 \(N, 1, 8"
    ):
        begin(stage(str(path)), net(), net())


# Options


@pytest.mark.parametrize(
    ("stage", "options", "message"),
    [
        (Distill, {"teacher": "me"}, "teacher 'me' is none of parent, best, and no path of an .onnx file"),
        (Distill, {"teacher": 5}, "teacher '5' is none of"),
        (Distill, {"temperature": 0}, "temperature 0 is not above 0"),
        (Distill, {"weight": 1.5}, r"weight 1.5 is not in \(0, 1\]"),
        (DynamicLayerwise, {"teacher": "a.pt"}, "teacher 'a.pt' is none of parent, best, and no path of an .onnx file"),
        (DynamicLayerwise, {"layers": 0}, "layers 0 is not a whole number above 0"),
        (Adaptive1dLayerwise, {"layers": 1.5}, "layers 1.5 is not a whole number above 0"),
        (Adaptive1dLayerwise, {"weight": 0}, r"weight 0 is not in \(0, 1\]"),
        (Adaptive1dLayerwise, {"epochs": 0}, "epochs 0 is less than 1"),
        (DynamicLayerwise, {"learning_rate": 0}, "learning_rate 0 is not above 0"),
    ],
)
def test_wrong_options(stage: type[TrainingStage], options: dict[str, object], message: str) -> None:
    with pytest.raises(SlimsearchError, match=message):
        stage(**options)


# Through a real training


def _training(data: Dataset, teacher: nn.Module, **options: object) -> NetworkTraining:
    settings = TrainingSettings(precision=str(options.pop("precision", "fp32")))
    return NetworkTraining(data, settings, seed=3, epochs=2, teachers={"parent": Network(teacher)}, **options)


@pytest.fixture(scope="module")
def taught(digits: Dataset) -> Network:
    return _training(digits, net()).fit(Network(net(1, width=16, hidden=32)), epochs=12)


@pytest.mark.parametrize(
    ("recipe", "precision"),
    [
        ({"dynamic_layerwise": {"epochs": 6}}, "fp32"),
        ({"adaptive1d_layerwise": {"epochs": 6}}, "bf16"),
        (
            {
                "distill": {"weight": 0.3, "epochs": 6, "teacher": "teacher.onnx"},
                "adaptive1d_layerwise": {"weight": 0.2, "teacher": "teacher.onnx"},
                "dynamic_layerwise": {"weight": 0.2},
            },
            "fp32",
        ),
        ({"dynamic_layerwise": {"epochs": 6, "teacher": "teacher.onnx"}}, "bf16"),
    ],
)
def test_digits(
    recipe: dict[str, Mapping[str, object]],
    precision: str,
    digits: Dataset,
    taught: Network,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    compression.export_onnx(taught, Path("teacher.onnx"), _training(digits, net()).calibration)
    student = Network(taught.copy_module(), {"widths": {}})
    torch.manual_seed(0)
    torch.nn.init.normal_(student.module.c2.weight, std=0.1)  # half of it is lost
    torch.nn.init.normal_(student.module.c3.weight, std=0.1)
    before = {name: value.clone() for name, value in student.module.state_dict().items()}
    accuracy: list[float] = []

    def note(epoch: int, found: Mapping[str, float]) -> bool:
        accuracy.append(found["val_accuracy"])
        return True

    result = compression.Recipe.parse(recipe).apply(
        student, _training(digits, taught.module, precision=precision, on_epoch=note)
    )
    assert len(accuracy) == 6
    assert accuracy[-1] > max(0.55, accuracy[0])
    assert traces(result.module) == traces(taught.module) == 0
    after = result.module.state_dict()
    assert {name: value.shape for name, value in after.items()} == {name: value.shape for name, value in before.items()}
    assert not torch.equal(after["c2.weight"], before["c2.weight"])
    assert all(torch.equal(before[name], value) for name, value in student.module.state_dict().items())
    assert result.structure == student.structure


def test_an_interrupted_training_keeps_its_maps(digits: Dataset, tmp_path: Path) -> None:
    stage, student, teacher = Adaptive1dLayerwise(layers=2), Network(net(0, width=4, hidden=4).eval()), net(1)
    whole = stage.apply(student, _training(digits, teacher)).module.state_dict()
    kept = tmp_path / "checkpoint.pt"
    with pytest.raises(StoppedEarly):
        stage.apply(student, _training(digits, teacher, checkpoint=kept, on_epoch=lambda epoch, scores: False))
    assert kept.is_file()
    resumed = stage.apply(student, _training(digits, teacher, checkpoint=kept)).module.state_dict()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_teacher_is_asked_once_about_images_that_stay_the_same(digits: Dataset) -> None:
    asked: list[int] = []
    teacher = Net().eval()

    def answer(images: torch.Tensor) -> torch.Tensor:
        asked.append(len(images))
        return teacher(images)

    def learned(augmentation: str, terms: list[LossTerm]) -> Network:
        training = NetworkTraining(digits, TrainingSettings(augmentation=augmentation), seed=0)
        return training.fit(Network(Net()), epochs=3, losses=terms)

    seen = len(digits.train) // 64 * 64
    torch.manual_seed(0)
    learned("none", [SoftLabels(answer, 2.0, 0.5)])
    assert sum(asked) == len(digits.train)
    asked.clear()
    learned("shift", [SoftLabels(answer, 2.0, 0.5)])
    assert sum(asked) == 3 * seen
