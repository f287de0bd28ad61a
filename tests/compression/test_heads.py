"""Heads of attention: what is left computes what the other heads contribute, by the formula of each head alone."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from slimsearch.compression import AfterStep, ElasticNetwork, Network, Recipe, export_onnx
from slimsearch.compression.pruning.channels import Channels
from slimsearch.compression.pruning.heads import with_plain_attention
from slimsearch.compression.pruning.importances.group_l1 import GroupL1
from slimsearch.compression.pruning.importances.taylor import Taylor
from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import DeployedModel

HEADS, WIDTH = 4, 16


class Multihead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)

    def forward(self, tokens: Tensor) -> Tensor:
        found: Tensor = self.attend(tokens, tokens, tokens, need_weights=False)[0]
        return found

    def weights(self) -> tuple[Tensor, Tensor, nn.Linear]:
        return self.attend.in_proj_weight, self.attend.in_proj_bias, self.attend.out_proj


class Joint(nn.Module):
    """Queries, keys and values by one layer; the width is taken from the tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads, self.scale = HEADS, (WIDTH // HEADS) ** -0.5
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, tokens: Tensor) -> Tensor:
        n, length, width = tokens.shape
        q, k, v = self.qkv(tokens).reshape(n, length, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        mixed = (q @ k.transpose(-2, -1) * self.scale).softmax(-1) @ v
        found: Tensor = self.out(mixed.transpose(1, 2).reshape(n, length, width))
        return found

    def weights(self) -> tuple[Tensor, Tensor, nn.Linear]:
        return self.qkv.weight, self.qkv.bias, self.out


class Separate(nn.Module):
    """Queries, keys and values by a layer each."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = HEADS
        self.q, self.k, self.v = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.out = nn.Linear(WIDTH, WIDTH)

    def forward(self, tokens: Tensor) -> Tensor:
        q, k, v = (own(tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2) for own in (self.q, self.k, self.v))
        found: Tensor = self.out(nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return found

    def weights(self) -> tuple[Tensor, Tensor, nn.Linear]:
        own = (self.q, self.k, self.v)
        return torch.cat([one.weight for one in own]), torch.cat([one.bias for one in own]), self.out


class Own(nn.Module):
    """Attention as users write it.

    Args:
        writers: of each linear layer that reads the tokens, whether it writes queries, keys or values.
        by_head: whether such a layer writes all of one head side by side.
        around: a norm of the tokens before, the layer that reads the heads inside of another module and registered
            first, an unusual name of the number of heads, and no bias of the writers.
    """

    def __init__(self, writers: str, *, by_head: bool, around: bool) -> None:
        super().__init__()
        self.of, self.by_head = writers.split(), by_head
        last = nn.Linear(WIDTH, WIDTH)
        self.before, self.to_out = nn.Identity(), nn.Module()
        if around:
            self.before, self.to_out, self.parallel = nn.LayerNorm(WIDTH), nn.Sequential(last, nn.Dropout()), HEADS
        else:
            self.heads = HEADS
        self.writers = nn.ModuleList(nn.Linear(WIDTH, len(own) * WIDTH, bias=not around) for own in self.of)
        if not around:
            self.to_out = last

    def _split(self, written: Tensor, count: int) -> list[Tensor]:
        """Into (..., HEADS, WIDTH // HEADS) for each of `count`."""
        if self.by_head:
            return list(written.unflatten(-1, (HEADS, count, -1)).unbind(-2))
        return list(written.unflatten(-1, (count, HEADS, -1)).unbind(-3))

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.before(tokens)
        found: dict[str, Tensor] = {}
        for own, writer in zip(self.of, self.writers, strict=True):
            found |= zip(own, self._split(writer(x), len(own)), strict=True)
        q, k, v = (found[name].transpose(1, 2) for name in "qkv")
        mixed = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        out: Tensor = self.to_out(mixed.reshape(tokens.shape))
        return out

    def weights(self) -> tuple[Tensor, Tensor, nn.Linear]:
        found: dict[str, tuple[Tensor, Tensor]] = {}
        for own, writer in zip(self.of, self.writers, strict=True):
            bias = torch.zeros(writer.out_features) if writer.bias is None else writer.bias
            rows = (self._split(one, len(own)) for one in (writer.weight.T, bias))
            found |= zip(own, zip(*rows, strict=True), strict=True)
        weight = torch.cat([found[name][0].flatten(1).T for name in "qkv"])
        last = next(layer for layer in self.to_out.modules() if isinstance(layer, nn.Linear))
        return weight, torch.cat([found[name][1].flatten() for name in "qkv"]), last


class Biased(Joint):
    """Attention with a bias of positions, which other attention does not have."""

    def __init__(self) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.randn(HEADS, 1, 1))

    def forward(self, tokens: Tensor) -> Tensor:
        n, length, width = tokens.shape
        q, k, v = self.qkv(tokens).reshape(n, length, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        far = (torch.arange(length)[:, None] - torch.arange(length)).abs()
        mixed = (q @ k.transpose(-2, -1) * self.scale + self.positions * far).softmax(-1) @ v
        found: Tensor = self.out(mixed.transpose(1, 2).reshape(n, length, width))
        return found


class WithMap(Joint):
    """Also returns what attends to what, which heads that are removed would not have."""

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        return super().forward(tokens), tokens @ tokens.transpose(1, 2)


class Around(nn.Module):
    def __init__(self, attend: nn.Module, call: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.attend, self.call = attend, call

    def forward(self, tokens: Tensor) -> Tensor:
        return self.call(self.attend, tokens)


class Transformer(nn.Module):
    """(N, 3, 16, 16) -> (N, 10), with 16 tokens."""

    def __init__(self, attention: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.patches, self.attention = nn.Conv2d(3, WIDTH, 4, 4), attention()
        self.norm, self.fc = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 10)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        found: Tensor = self.fc(self.norm(tokens + self.attention(tokens)).mean(1))
        return found


ATTENTIONS = (Multihead, Joint, Separate)
OWN = [
    functools.partial(Own, writers, by_head=by_head, around=around)
    for writers in ("qkv", "q kv", "kv q", "v qk", "q k v", "v k q")
    for by_head in ((False, True) if len(writers) < 5 else (False,))
    for around in (False, True)
]


def transformer(attention: Callable[[], nn.Module], seed: int = 0) -> Transformer:
    torch.manual_seed(seed)
    module = Transformer(attention).eval()
    with torch.no_grad():
        for parameter in module.attention.parameters():
            parameter.normal_(0, 0.4)
    return module


def images(count: int = 8) -> Tensor:
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def with_heads(module: Transformer, kept: list[int], x: Tensor) -> Tensor:
    """The outputs with the sum over the heads `kept` alone (Vaswani et al. 2017, eq. 1 and section 3.2.2)."""
    weight, bias, out = module.attention.weights()  # type: ignore[operator]
    tokens = module.patches(x).flatten(2).transpose(1, 2)
    read = module.attention.before(tokens) if isinstance(module.attention, Own) else tokens
    size = WIDTH // HEADS
    total = out.bias.expand(len(x), tokens.shape[1], WIDTH)
    for head in kept:
        rows = slice(head * size, (head + 1) * size)
        q, k, v = (read @ weight[part * WIDTH :][rows].T + bias[part * WIDTH :][rows] for part in range(3))
        attention = torch.softmax(torch.einsum("nic,njc->nij", q, k) / math.sqrt(size), -1)
        total = total + torch.einsum("nij,njc->nic", attention, v) @ out.weight[:, rows].T
    found: Tensor = module.fc(module.norm(tokens + total).mean(1))
    return found


class NoTraining:
    seed, epochs = 0, 1
    calibration = images()

    def fit(self, network: Network, *, after_step: list[AfterStep], **settings: object) -> Network:
        module = network.copy_module()
        for step in range(4 if after_step else 0):
            for callback in after_step:
                callback(module, step, 4)
        return Network(module, network.structure)


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("schedule", ["at_once", "linear"])
def test_the_least_important_heads_are_removed_and_the_others_compute_what_they_did(
    attention: type[nn.Module], schedule: str, tmp_path: Path
) -> None:
    module = transformer(attention)
    weight, _, out = module.attention.weights()  # type: ignore[operator]
    size = WIDTH // HEADS

    def importance(head: int) -> float:
        """Of all weights that write or read a head, as group_l1 documents it."""
        rows = slice(head * size, (head + 1) * size)
        written = sum(float(part[rows].abs().sum()) for part in weight.split(WIDTH))
        return written + float(out.weight[:, rows].abs().sum())

    kept = sorted(sorted(range(HEADS), key=importance)[2:])
    plain = with_plain_attention(Network(module), images()).module
    channels = Channels(plain, images())
    scores = GroupL1().scores(dict(plain.named_parameters()))
    cuts = [cut for cut in channels.choose(GroupL1(), scores, [0.5], together=False) if cut.head]
    channels.cut(plain, cuts)
    with torch.no_grad():
        assert torch.allclose(plain(images()), with_heads(module, kept, images()), atol=1e-5)
    recipe = Recipe.parse(f"prune:sparsity=0.5:schedule={schedule}")
    pruned = recipe.apply(Network(module), NoTraining())  # type: ignore[arg-type]
    assert pruned.structure["pruned"]["share"] == 0.5  # the heads, and the channels of the tokens
    pruned.save(tmp_path)
    with torch.no_grad():
        again = Network.load(transformer(attention, seed=1), tmp_path).module(images())
        assert torch.equal(again, pruned.module(images()))


@pytest.mark.parametrize("attention", [*ATTENTIONS, *OWN])
def test_heads_are_a_choice_of_the_space_around_a_network(attention: Callable[[], nn.Module], tmp_path: Path) -> None:
    module = transformer(attention)
    elastic = ElasticNetwork.of(Network(module), images())
    (choice,) = (one for one in elastic.widths if one.label.startswith("heads."))
    assert sorted(sizes[0] for sizes in choice.widths.values()) == [4, 8, 12, 16]
    x = images()
    smaller = elastic.apply(Network(module), {choice.label: 0.25})
    outputs = smaller.module(x)
    alone = [with_heads(module, [head], x) for head in range(HEADS)]
    assert min(float((outputs - one).abs().max()) for one in alone) < 1e-5
    smaller.save(tmp_path)
    assert torch.equal(Network.load(transformer(attention, seed=1), tmp_path).module(x), outputs)


def test_heads_are_removed_again_and_the_file_has_the_others(tmp_path: Path) -> None:
    module = transformer(Multihead)
    once = ElasticNetwork.of(Network(module), images()).apply(Network(module), {"heads.attention.attend": 0.5})
    again = [one for one in Channels(once.module, images()).cuttable if one.heads]
    assert [(one.layer, one.width) for one in again] == [("attention.attend", WIDTH // 2)]
    export_onnx(once, tmp_path / "half.onnx", images())
    with torch.no_grad():
        expected = once.module(images()).numpy()
    assert np.allclose(DeployedModel(tmp_path / "half.onnx")(images().numpy()), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("attend", "call", "replaced"),
    [
        (Joint, lambda attend, tokens: attend(tokens=tokens), "attention.attend"),  # the module around does no more
        (Joint, lambda attend, tokens: attend(tokens) * 2, "attention.attend"),
        (WithMap, lambda attend, tokens: attend(tokens)[0], "attention"),
        (WithMap, lambda attend, tokens: attend(tokens)[0] + attend(tokens)[1].mean(), None),
    ],
)
def test_the_innermost_module_that_only_attends_is_replaced(
    attend: type[nn.Module], call: Callable[[nn.Module, Tensor], Tensor], replaced: str | None
) -> None:
    module = transformer(lambda: Around(attend(), call))
    plain = with_plain_attention(Network(module), images())
    assert [*plain.structure.get("replaced", {})] == ([replaced] if replaced else [])
    with torch.no_grad():
        assert torch.allclose(plain.module(images()), module(images()), atol=1e-5)


def test_other_attention_keeps_its_heads() -> None:
    network = Network(transformer(Biased))
    assert with_plain_attention(network, images()) is network
    with pytest.raises(SlimsearchError, match=r"'attention\.qkv'"):
        ElasticNetwork.of(network, images())


def test_taylor_ranks_heads_by_all_their_weights() -> None:
    """The mean over the layers of the squared products of weight and gradient, summed over a head's weights."""
    module = with_plain_attention(Network(transformer(Joint)), images()).module
    module(images()).square().sum().backward()
    named = dict(module.named_parameters())
    importance = Taylor()
    importance.observe(
        {name: own.detach() for name, own in named.items()},
        {name: own.grad for name, own in named.items()},  # type: ignore[misc]
    )
    change = {name: (own * own.grad).square() for name, own in named.items()}  # type: ignore[operator]
    size = WIDTH // HEADS
    scores = torch.stack(
        [
            sum(part[h * size : (h + 1) * size].sum() for part in change["attention.qkv.weight"].split(WIDTH))  # type: ignore[misc]
            + change["attention.proj.weight"][:, h * size : (h + 1) * size].sum()
            for h in range(HEADS)
        ]
    )
    channels = Channels(module, images())
    cuts = channels.choose(importance, importance.scores(named), [0.25], together=False)
    (cut,) = (one for one in cuts if one.head)
    assert {channel // size for channel in cut.channels} == {int(scores.argmin())}
