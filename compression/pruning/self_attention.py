"""Self-attention with any number of heads: what an attention layer becomes when heads are removed from it."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slimsearch.errors import SlimsearchError

_NUMBER = ("num_heads", "n_heads", "heads")  # the usual names of the number of heads


@dataclass(frozen=True)
class AttentionForm:
    """What the layers inside of an attention module may be for.

    Attributes:
        heads: their number.
        writers: names of the linear layers that write queries, keys and values, in this order; one can write several.
        proj: name of the linear layer that reads the heads.
        by_head: whether a writer of several has those of one head side by side, as opposed to all queries first.
        norm: name of the LayerNorm of the tokens before the writers, or None.
    """

    heads: int
    writers: tuple[str, ...]
    proj: str
    by_head: bool = False
    norm: str | None = None


class SelfAttention(nn.Module):
    """Multi-head self-attention (Vaswani et al. 2017) whose heads can be narrower together than the tokens.

    Layers such as `nn.MultiheadAttention` derive the width of a head from that of the tokens, and so cannot lose one.

    Args:
        qkv: writes queries, keys and values, each of them head after head.
        proj: reads the heads.
        heads: their number.
        dropout: rates for the attention and for the output.
        norm: of the tokens, or None.
        as_multihead: return (output, None) and take queries, keys and values, as `nn.MultiheadAttention`.
        batch_first: whether tokens are (N, tokens, channels), as opposed to (tokens, N, channels).
    """

    # What `nn.TransformerEncoder` looks up to decide about its fused operator, which has no such heads.
    in_proj_bias = None
    _qkv_same_embed_dim = False

    def __init__(
        self, qkv: nn.Linear, proj: nn.Linear, heads: int, dropout: tuple[float, float] = (0.0, 0.0), *,
        norm: nn.Module | None = None, as_multihead: bool = False, batch_first: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.norm, self.qkv, self.proj = norm, qkv, proj
        self.num_heads, self.head_dim = heads, proj.in_features // heads
        self.attention_dropout, self.output_dropout = (nn.Dropout(rate) for rate in dropout)
        self.as_multihead, self.batch_first = as_multihead, batch_first

    def forward(self, *arguments: Any, **named: Any) -> Tensor | tuple[Tensor, None]:
        """(N, tokens, channels) -> the same.

        The tokens are the first argument, whatever its name is in the replaced layer; others are without effect.
        """
        x: Tensor = next(one for one in (*arguments, *named.values()) if isinstance(one, Tensor))
        tokens = x if self.batch_first else x.transpose(0, 1)
        tokens = tokens if self.norm is None else self.norm(tokens)
        n, length, _channels = tokens.shape
        qkv = self.qkv(tokens).view(n, length, 3, self.num_heads, self.head_dim)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each (N, heads, tokens, channels of a head)
        rate = self.attention_dropout.p if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, dropout_p=rate)
        found: Tensor = self.proj(mixed.transpose(1, 2).reshape(n, length, self.num_heads * self.head_dim))
        found = self.output_dropout(found)
        found = found if self.batch_first else found.transpose(0, 1)
        return (found, None) if self.as_multihead else found

    @classmethod
    def of(cls, layer: nn.Module, form: AttentionForm | None = None) -> SelfAttention:
        """The self-attention with the weights of `layer`, see `is_attention`; it may compute something else.

        Args:
            layer: an attention module.
            form: one of its `attention_forms`, by default the first.

        Raises:
            SlimsearchError: `layer` has no such form.
        """
        if isinstance(layer, SelfAttention):
            return layer
        if isinstance(layer, nn.MultiheadAttention):
            assert layer.in_proj_weight is not None
            qkv = _linear(layer.in_proj_weight, layer.in_proj_bias)
            proj = _linear(layer.out_proj.weight, layer.out_proj.bias)
            found = cls(
                qkv, proj, layer.num_heads, (layer.dropout, 0.0), as_multihead=True, batch_first=layer.batch_first
            )
            return found.train(layer.training)
        forms = attention_forms(layer)
        form = next((one for one in forms if form in (None, one)), None)
        if form is None:
            raise SlimsearchError(f"a {type(layer).__name__} is no attention with the recorded layers")
        inside: Mapping[str, Any] = dict(layer.named_modules())
        writers, last = [inside[name] for name in form.writers], inside[form.proj]
        weight = torch.cat([_by_part(one.weight, last.in_features, form) for one in writers])
        bias = None
        if any(one.bias is not None for one in writers):
            own = (one.weight.new_zeros(one.out_features) if one.bias is None else one.bias for one in writers)
            bias = torch.cat([_by_part(one, last.in_features, form) for one in own])
        rates = [one.p for one in layer.modules() if isinstance(one, nn.Dropout)]
        both = (rates[0] if rates else 0.0, rates[-1] if len(rates) > 1 else 0.0)
        norm = None if form.norm is None else inside[form.norm]
        qkv, proj = _linear(weight, bias), _linear(last.weight, last.bias)
        return cls(qkv, proj, form.heads, both, norm=norm).train(layer.training)

    def without(self, heads: Collection[int]) -> SelfAttention:
        """This layer without some heads; exactly this layer with zeros where `proj` reads them."""
        kept = [head for head in range(self.num_heads) if head not in heads]
        rows = torch.cat([torch.arange(head * self.head_dim, (head + 1) * self.head_dim) for head in kept])
        of_all = torch.cat([rows + part * self.proj.in_features for part in range(3)])
        qkv = _linear(self.qkv.weight[of_all], None if self.qkv.bias is None else self.qkv.bias[of_all])
        proj = _linear(self.proj.weight[:, rows], self.proj.bias)
        rates = (self.attention_dropout.p, self.output_dropout.p)
        return SelfAttention(
            qkv, proj, len(kept), rates, norm=self.norm, as_multihead=self.as_multihead, batch_first=self.batch_first
        ).train(self.training)


def is_attention(layer: nn.Module) -> bool:
    """Whether `layer` may be attention that `SelfAttention.of` can take over.

    It is an `nn.MultiheadAttention`, or has a number of heads and linear layers: one to three that write queries, keys
    and values, and one that reads as many channels.
    """
    if isinstance(layer, SelfAttention):
        return True
    if isinstance(layer, nn.MultiheadAttention):
        return layer.in_proj_weight is not None and layer.bias_k is None and not layer.add_zero_attn
    return bool(attention_forms(layer))


def attention_forms(layer: nn.Module) -> list[AttentionForm]:
    """The forms that a module may have by the shapes of the layers inside, the most usual first.

    Records of replaced layers rely on the first one.
    """
    direct = {name: child for name, child in layer.named_children() if isinstance(child, nn.Linear)}
    inside = {name: child for name, child in layer.named_modules() if isinstance(child, nn.Linear)}
    return list(dict.fromkeys([*_forms(layer, direct), *_forms(layer, inside)]))


def _forms(layer: nn.Module, linears: dict[str, nn.Linear]) -> Iterator[AttentionForm]:
    if not 2 <= len(linears) <= 4:
        return
    for proj in reversed(linears):
        names, width = [name for name in linears if name != proj], linears[proj].in_features
        outputs = [linears[name].out_features for name in names]
        inputs = {linears[name].in_features for name in names}
        if sum(outputs) != 3 * width or any(own % width for own in outputs) or len(inputs) > 1:
            continue
        norms = [
            name
            for name, one in layer.named_modules()
            if isinstance(one, nn.LayerNorm) and one.normalized_shape == (*inputs,)
        ]
        for norm, heads, writers in itertools.product(
            (None, *norms), _heads(layer, width), itertools.permutations(names)
        ):
            yield AttentionForm(heads, writers, proj, norm=norm)
            if len(writers) < 3:
                yield AttentionForm(heads, writers, proj, by_head=True, norm=norm)


def _heads(layer: nn.Module, width: int) -> list[int]:
    """What may be the number of heads: first by its name, then other numbers in the modules of a user."""
    own = [one for name in _NUMBER if type(one := getattr(layer, name, None)) is int and one > 0]
    others = [
        one
        for module in layer.modules()
        if not type(module).__module__.startswith("torch.")
        for one in vars(module).values()
        if type(one) is int and 1 < one < width
    ]
    return list(dict.fromkeys(one for one in (*own, *others) if width % one == 0))


def _by_part(tensor: Tensor, width: int, form: AttentionForm) -> Tensor:
    """Rows of queries, keys or values, one of these after the other, each of them head after head."""
    if not form.by_head:
        return tensor
    size = width // form.heads
    split = tensor.reshape(form.heads, -1, size, *tensor.shape[1:])  # (heads, parts, channels of a head, ...)
    return split.transpose(0, 1).reshape(tensor.shape)


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    layer: Any = nn.Linear(1, 1, bias=bias is not None, device="meta")
    layer.out_features, layer.in_features = weight.shape
    layer.weight = nn.Parameter(weight.detach().clone(), weight.requires_grad)
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().clone(), bias.requires_grad)
    return layer  # type: ignore[no-any-return]
