"""Random small networks: without the channels that are pruned, they compute what they compute with these at zero."""

from __future__ import annotations

import logging
import math
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from slimsearch.compression import AfterStep, ElasticNetwork, Network, Recipe
from slimsearch.compression.pruning.channels import Channels, remove_channels, silence
from slimsearch.compression.pruning.heads import with_plain_attention
from slimsearch.compression.pruning.importances.l1 import L1
from slimsearch.compression.pruning.silencing import Cut
from slimsearch.errors import SlimsearchError
from slimsearch.search_spaces import ElasticSpace, FixedModel

_WIDTHS = (8, 12, 16)
_STEPS = 12


def _conv(before: int, after: int, kernel: int = 3, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(before, after, kernel, padding=kernel // 2, **options)


class Block(nn.Module):
    """A block of a random network, (N, before, H, W) -> (N, after, H, W)."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.after = after
        self.a, self.b = _conv(before, after), _conv(after, after)


class Plain(Block):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x).relu())


class Transposed(Block):
    def __init__(self, before: int, after: int) -> None:
        super().__init__(before, after)
        self.b = nn.ConvTranspose2d(after, after, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(self.b(self.a(x).relu()), 2)


class TransposedGroups(Transposed):
    def __init__(self, before: int, after: int) -> None:
        super().__init__(before, after)
        self.b = nn.ConvTranspose2d(after, after, 2, 2, groups=4)


class Grouped(Block):
    def __init__(self, before: int, after: int) -> None:
        super().__init__(before, after)
        self.b = _conv(after, after, groups=4)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x).relu())


class Depthwise(Block):
    def __init__(self, before: int, after: int) -> None:
        super().__init__(before, after)
        self.b = _conv(after, after, groups=after)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x).relu())


class Residual(Block):
    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        return x + self.b(x.relu())


class Shortcut(nn.Module):
    """A block that can be skipped."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.a, self.b = _conv(width, width + 4), _conv(width + 4, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.b(self.a(x).relu())


class Shortened(Block):
    def __init__(self, before: int, after: int) -> None:
        super().__init__(before, after)
        self.b = nn.Sequential(Shortcut(after), Shortcut(after))

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x).relu())


class Concatenated(Block):
    def __init__(self, before: int, after: int) -> None:
        super().__init__(before, after)
        self.c = _conv(before, after // 2)
        self.after = after + after // 2

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.b(self.a(x).relu()), self.c(x)], 1)


class SumOfConcatenated(Block):
    def __init__(self, before: int, after: int) -> None:
        super().__init__(before, after)
        self.c, self.d = _conv(before, after // 4), _conv(before, after - after // 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x).relu()) + torch.cat([self.c(x), self.d(x)], 1)


class Gated(Block):
    def __init__(self, before: int, after: int) -> None:
        super().__init__(before, after)
        self.a = _conv(before, 2 * after)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.a(x).chunk(2, 1)
        return self.b(value * gate.sigmoid())


class GatedByFunction(Gated):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.glu(self.a(x), 1))


class Split(Block):
    def __init__(self, before: int, after: int) -> None:
        super().__init__(before, after)
        self.c = _conv(after // 4, after // 4)

    def forward(self, x: Tensor) -> Tensor:
        first, rest = self.a(x).relu().split([self.after // 4, self.after - self.after // 4], 1)
        return self.b(torch.cat([self.c(first), rest], 1))


class Halves(Block):
    def __init__(self, before: int, after: int) -> None:
        super().__init__(before, after)
        self.b = _conv(after // 2, after)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x).relu()
        return self.b(x[:, : self.after // 2] + x[:, self.after // 2 :])


class Permuted(Block):
    """A linear layer over the channels in the last dimension."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__(before, after)
        self.b = nn.Linear(after, after)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x).relu().permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Reshaped(Block):
    """Every other channel becomes a row."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x).relu()
        n, c, h, w = x.shape
        return self.b(x.reshape(n, c // 2, 2, h, w).amax(2).repeat(1, 2, 1, 1))


class Shuffled(Block):
    def __init__(self, before: int, after: int) -> None:
        super().__init__(before, after)
        self.a = _conv(before, after, groups=math.gcd(before, 4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x).relu()
        n, c, h, w = x.shape
        return self.b(x.view(n, 4, c // 4, h, w).transpose(1, 2).reshape(n, c, h, w))


class Rolled(Block):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x).relu().roll(1, 1))


class Tied(Block):
    def __init__(self, before: int, after: int) -> None:
        super().__init__(before, after)
        self.c = _conv(after, after)
        self.c.weight = self.b.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.b(self.a(x).relu()).relu())


class Reused(Block):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.b(self.a(x).relu()).relu())


class WeightNormed(Plain):
    def __init__(self, before: int, after: int) -> None:
        super().__init__(before, after)
        parametrizations.weight_norm(self.a)
        parametrizations.spectral_norm(self.b)


class Attention(Block):
    def __init__(self, before: int, after: int) -> None:
        super().__init__(before, after)
        self.b = nn.MultiheadAttention(after, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        tokens = x.flatten(2).transpose(1, 2)
        return x + self.b(tokens, tokens, tokens)[0].transpose(1, 2).view_as(x)


class Attended(nn.Module):
    """Attention over projections in one layer, whose code takes the width from the tokens."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_heads = 4
        self.project, self.join = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        n, length, channels = tokens.shape
        shape = n, length, 3, self.num_heads, channels // self.num_heads
        q, k, v = self.project(tokens).reshape(shape).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, length, channels)
        found: Tensor = self.join(mixed)
        return found


class Projected(Block):
    def __init__(self, before: int, after: int) -> None:
        super().__init__(before, after)
        self.b = Attended(after)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        return x + self.b(x.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(x.shape)


class Scaled(Block):
    def __init__(self, before: int, after: int) -> None:
        super().__init__(before, after)
        self.scale = nn.Parameter(torch.rand(1, after, 1, 1) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x).relu() * self.scale + 1)


class LastNorm(nn.LayerNorm):
    """A LayerNorm over the channels of (N, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


BLOCKS: tuple[type[Block], ...] = (
    Plain, Transposed, TransposedGroups, Grouped, Depthwise, Residual, Shortened, Concatenated, SumOfConcatenated,
    Gated, GatedByFunction, Split, Halves, Permuted, Reshaped, Shuffled, Rolled, Tied, Reused, WeightNormed, Attention,
    Projected, Scaled,
)  # fmt: skip
NORMS: dict[str, Callable[[int], nn.Module]] = {
    "none": lambda width: nn.Identity(),
    "batch": nn.BatchNorm2d,
    "group": lambda width: nn.GroupNorm(2, width),
    "layer": LastNorm,
    "instance": lambda width: nn.InstanceNorm2d(width, affine=True),
    "whole map": lambda width: nn.LayerNorm([width, 8, 8]),
}
ACTIVATIONS = (nn.ReLU, nn.GELU, nn.Sigmoid, nn.Hardswish, nn.PReLU)
HEADS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda x: x.mean(dim=(2, 3)),
    "flatten": lambda x: F.max_pool2d(x, 4).flatten(1),
    "channels last": lambda x: F.max_pool2d(x, 4).permute(0, 2, 3, 1).reshape(len(x), -1),
}


@dataclass(frozen=True)
class Drawn:
    """A description of a random network."""

    blocks: tuple[tuple[type[Block], int, str, type[nn.Module]], ...]
    head: str
    seed: int

    @property
    def keeps_zeros(self) -> bool:
        """Whether a channel of zeros stays one up to the layers that read it, and changes no other."""
        return all(
            kind not in (Attention, Projected, Scaled)
            and norm in ("none", "batch", "instance")
            and activation is not nn.Sigmoid
            for kind, _, norm, activation in self.blocks
        )

    def build(self) -> nn.Module:
        torch.manual_seed(self.seed)
        layers: list[nn.Module] = [_conv(3, 8), nn.ReLU()]
        width = 8
        for kind, after, norm, activation in self.blocks:
            block = kind(width, after)
            width = block.after
            layers += [block, NORMS[norm](width), activation()]
        module = Headed(nn.Sequential(*layers), self.head, nn.Linear(width * (1 if self.head == "mean" else 4), 10))
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm2d | nn.GroupNorm | nn.LayerNorm | nn.InstanceNorm2d):
                nn.init.uniform_(layer.weight, 0.5, 1.5)
                nn.init.normal_(layer.bias, 0, 0.3)
            if isinstance(layer, nn.BatchNorm2d):
                layer.momentum = 1.0
        with torch.no_grad():
            module(torch.randn(16, 3, 8, 8))
        return module.eval()


class Headed(nn.Module):
    def __init__(self, body: nn.Module, head: str, fc: nn.Linear) -> None:
        super().__init__()
        self.body, self.head, self.fc = body, head, fc

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(HEADS[self.head](self.body(x)))


def networks(blocks: Sequence[type[Block]] = BLOCKS, most: int = 2) -> st.SearchStrategy[Drawn]:
    block = st.tuples(
        st.sampled_from(blocks), st.sampled_from(_WIDTHS), st.sampled_from(sorted(NORMS)), st.sampled_from(ACTIVATIONS)
    )
    return st.builds(
        Drawn, st.lists(block, min_size=1, max_size=most).map(tuple), st.sampled_from(sorted(HEADS)), st.integers(0, 99)
    )


class ShortTraining:
    """A training of a few steps; `masked` is the network at its end, before channels are removed."""

    seed, epochs = 0, 1

    def __init__(self) -> None:
        self.calibration = torch.randn(12, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        self.masked: Tensor | None = None

    def fit(self, network: Network, *, after_step: Sequence[AfterStep] = (), **settings: object) -> Network:
        module = network.copy_module().train()
        for callback in after_step:
            callback.attach(module)
        optimizer = torch.optim.SGD(module.parameters(), 1e-2)
        for step in range(_STEPS if after_step else 0):
            optimizer.zero_grad()
            F.cross_entropy(module(self.calibration), torch.arange(12) % 10).backward()
            optimizer.step()
            for callback in after_step:
                callback(module, step, _STEPS)
        with torch.no_grad():
            self.masked = module.eval()(self.calibration)
        return Network(module, network.structure, network.quantization)


class Lines(logging.Handler):
    """Names of the layers of which the log says that they keep all channels."""

    def __init__(self) -> None:
        super().__init__()
        self.named: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        if "keep" in record.getMessage():
            self.named |= set(re.findall(r"'([\w.]+)'", record.getMessage()))

    def __enter__(self) -> Lines:
        logging.getLogger("slimsearch").addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("slimsearch").removeHandler(self)


def _widths(module: nn.Module) -> Iterator[tuple[str, int]]:
    for name, layer in module.named_modules():
        if isinstance(layer, nn.modules.conv._ConvNd):
            yield name, layer.out_channels
        elif type(layer) is nn.Linear:
            yield name, layer.out_features


def _check_pruned_by_schedule(drawn: Drawn, schedule: str) -> None:
    training, module = ShortTraining(), drawn.build()
    with Lines() as lines:
        try:
            pruned = Recipe.parse(f"prune:sparsity=0.5:round_to=1:schedule={schedule}").apply(Network(module), training)
        except SlimsearchError as error:
            refused = str(error)
            assert "'" in refused, "the message names no layer"
            return
    assert all(tensor.numel() for tensor in pruned.module.state_dict().values())
    with torch.no_grad():
        outputs = pruned.module(training.calibration)
    if schedule != "at_once":
        assert torch.allclose(outputs, training.masked, atol=1e-4), (outputs - training.masked).abs().max()
    whole = {name for name, width in _widths(pruned.module) if width == dict(_widths(module)).get(name)} - {"fc"}
    # The channels of one part of a concatenation may all be more important than those of the other.
    assert not whole or lines.named or any(kind is SumOfConcatenated for kind, *_ in drawn.blocks), whole
    with tempfile.TemporaryDirectory() as folder:
        pruned.save(Path(folder))
        loaded = Network.load(drawn.build(), Path(folder)).module(training.calibration)
        assert torch.allclose(loaded, outputs, atol=1e-6)


def _check_cut_as_silenced(drawn: Drawn) -> None:
    images = ShortTraining().calibration
    network = with_plain_attention(Network(drawn.build()).folded(), images)
    try:
        channels = Channels(network.module, images)
        channels.exclude_failing()
        scores = L1().scores({name: parameter.detach() for name, parameter in network.module.named_parameters()})
        channels.exclude_failing(channels.choose(L1(), scores, [0.5], together=False))
        cuts = channels.choose(L1(), scores, [0.5], together=False)
    except SlimsearchError as error:
        refused = str(error)
        assert "'" in refused, "the message names no layer"
        return
    cut, silenced = network.copy_module(), network.copy_module()
    channels.cut(cut, cuts)
    with torch.no_grad():
        if drawn.keeps_zeros:
            masked = network.copy_module()
            for name, channels in ((name, gone) for one in cuts for name, gone in one.silenced.items()):
                masked.get_submodule(name).register_forward_hook(_Mask(channels))
            assert torch.allclose(cut(images), masked(images), atol=1e-4)
        silence(silenced, cuts)()
        assert torch.allclose(cut(images), silenced(images), atol=1e-4)


def _check_space_around(drawn: Drawn) -> None:
    """Each network of the space is the given one with silent channels and without blocks, also when it is loaded."""
    images = ShortTraining().calibration
    network = Network(drawn.build())
    try:
        elastic = ElasticNetwork.of(network, images)
    except SlimsearchError as error:
        refused = str(error)
        assert "'" in refused, "the message names no layer"
        return
    space = ElasticSpace(FixedModel(drawn.build, (3, 8, 8), 10), elastic.depths, elastic.widths)
    rng = np.random.default_rng(drawn.seed)
    for point in (space.sample(rng), space.sample(rng)):
        candidate = space.candidate(point)
        assert space.point(candidate) == point
        found = elastic.apply(network, candidate.architecture)
        chosen = candidate.architecture
        skipped = [name for one in elastic.depths for name in one.skipped[chosen.get(one.label, 0)]]
        cuts = [
            cut for one in elastic.widths
            for cut, block in zip(one.cuts[chosen.get(one.label, 1.0)], one.blocks, strict=True)
            if cut is not None and block not in skipped
        ]  # fmt: skip
        silenced = with_plain_attention(network.folded(), images).copy_module()
        silence(silenced, cuts)()
        for name in skipped:
            silenced.get_submodule(name).register_forward_hook(lambda block, arguments, output: arguments[0])
        with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
            assert torch.allclose(found.module(images), silenced(images), atol=1e-4)
            found.save(Path(folder))
            loaded = Network.load(space.build(chosen), Path(folder)).module(images)
            assert torch.allclose(loaded, found.module(images), atol=1e-6)


class _Mask:
    """A forward hook that sets output channels to zero."""

    def __init__(self, channels: Sequence[int]) -> None:
        self._channels = list(channels)

    def __call__(self, layer: nn.Module, _: object, output: Tensor) -> Tensor:
        output = output.clone()
        if isinstance(layer, nn.Linear):
            output[..., self._channels] = 0
        else:
            output[:, self._channels] = 0
        return output


@pytest.mark.parametrize("block", BLOCKS)
@given(st.data())
@settings(max_examples=2, deadline=None, derandomize=True)
def test_what_is_cut_is_what_was_silenced(block: type[Block], data: st.DataObject) -> None:
    _check_cut_as_silenced(data.draw(networks([block, Plain])))


@given(networks([Shortened, Plain, Depthwise, Attention, Projected, Concatenated]))
@settings(max_examples=8, deadline=None, derandomize=True)
def test_the_space_around_a_network(drawn: Drawn) -> None:
    _check_space_around(drawn)


@pytest.mark.parametrize(
    "drawn",
    [
        # The narrowest network gives the same for all images, so that a wrong order in the last layer is not noticed.
        Drawn(
            ((Scaled, 12, "layer", nn.Sigmoid), (Scaled, 12, "group", nn.Sigmoid), (Plain, 8, "batch", nn.ReLU)),
            "channels last", 44,
        ),
        # The remaining channels of a LayerNorm are 0, 3, 5 and 11, which a set has in another order.
        Drawn(
            ((Plain, 12, "whole map", nn.ReLU), (Plain, 16, "layer", nn.ReLU), (Scaled, 12, "instance", nn.Hardswish)),
            "mean", 26,
        ),
    ],
)  # fmt: skip
def test_spaces_around_networks_that_were_wrong(drawn: Drawn) -> None:
    images = ShortTraining().calibration
    network = Network(drawn.build())
    elastic = ElasticNetwork.of(network, images)
    for one in elastic.widths:
        for share in one.widths:
            elastic.apply(network, {one.label: share})


def test_a_layer_norm_keeps_its_channels_in_order() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(_conv(3, 16), LastNorm(16), _conv(16, 8), nn.Flatten(), nn.Linear(8 * 64, 10)).eval()
    nn.init.uniform_(module[1].weight)
    expected = module[1].weight[[0, 3, 5, 11]].detach()
    images = ShortTraining().calibration
    kept = (0, 3, 5, 11)
    (root,) = (one for one in Channels(module, images).cuttable if one.width == 16)
    gone = tuple(channel for channel in range(16) if channel not in kept)
    remove_channels(module, [Cut(root.layer, True, gone, {"0": gone, "1": gone}, {"2": gone})], images)
    assert torch.equal(module[1].weight, expected)


@given(networks(), st.sampled_from(["at_once", "agp", "linear"]))
@settings(max_examples=15, deadline=None, derandomize=True)
def test_every_schedule_ends_with_the_network_it_trained(drawn: Drawn, schedule: str) -> None:
    _check_pruned_by_schedule(drawn, schedule)


@pytest.mark.slow
@given(networks(most=4), st.sampled_from(["at_once", "agp", "linear"]))
@settings(max_examples=300, deadline=None)
def test_many_networks(drawn: Drawn, schedule: str) -> None:
    _check_cut_as_silenced(drawn)
    _check_pruned_by_schedule(drawn, schedule)
    _check_space_around(drawn)
