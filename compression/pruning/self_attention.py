"""Self-attention with any number of heads: what an attention layer becomes when heads are removed from it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_NUMBER = ("num_heads", "n_heads", "heads")  # names that attention modules give the number of their heads


class SelfAttention(nn.Module):
    """Multi-head self-attention (Vaswani et al. 2017) whose heads can be narrower together than the tokens.

    Layers such as `nn.MultiheadAttention` derive the width of a head from that of the tokens, and so cannot lose one.

    Args:
        qkv: writes queries, keys and values, each of them head after head.
        proj: reads the heads.
        heads: their number.
        dropout: rates for the attention and for the output.
        as_multihead: return (output, None) and take queries, keys and values, as `nn.MultiheadAttention`.
        batch_first: whether tokens are (N, tokens, channels), as opposed to (tokens, N, channels).
    """

    # What `nn.TransformerEncoder` looks up to decide about its fused operator, which has no such heads.
    in_proj_bias = None
    _qkv_same_embed_dim = False

    def __init__(
        self, qkv: nn.Linear, proj: nn.Linear, heads: int, dropout: tuple[float, float] = (0.0, 0.0), *,
        as_multihead: bool = False, batch_first: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.qkv, self.proj = qkv, proj
        self.num_heads, self.head_dim = heads, proj.in_features // heads
        self.attention_dropout, self.output_dropout = (nn.Dropout(rate) for rate in dropout)
        self.as_multihead, self.batch_first = as_multihead, batch_first

    def forward(self, x: Tensor, *_: object, **__: object) -> Tensor | tuple[Tensor, None]:
        """(N, tokens, channels) -> the same; further arguments are those of the replaced layer, without effect."""
        tokens = x if self.batch_first else x.transpose(0, 1)
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
    def of(cls, layer: nn.Module) -> SelfAttention:
        """The self-attention with the weights of `layer`, see `is_attention`; it may compute something else."""
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
        *writers, last = _linears(layer)
        bias = None if writers[0].bias is None else torch.cat([writer.bias for writer in writers])
        qkv, proj = _linear(torch.cat([w.weight for w in writers]), bias), _linear(last.weight, last.bias)
        rates = [child.p for child in layer.children() if isinstance(child, nn.Dropout)]
        both = (rates[0] if rates else 0.0, rates[-1] if len(rates) > 1 else 0.0)
        return cls(qkv, proj, _heads(layer), both).train(layer.training)

    def without(self, heads: Collection[int]) -> SelfAttention:
        """This layer without some heads; exactly this layer with zeros where `proj` reads them."""
        kept = [head for head in range(self.num_heads) if head not in heads]
        rows = torch.cat([torch.arange(head * self.head_dim, (head + 1) * self.head_dim) for head in kept])
        of_all = torch.cat([rows + part * self.proj.in_features for part in range(3)])
        qkv = _linear(self.qkv.weight[of_all], None if self.qkv.bias is None else self.qkv.bias[of_all])
        proj = _linear(self.proj.weight[:, rows], self.proj.bias)
        rates = (self.attention_dropout.p, self.output_dropout.p)
        return SelfAttention(
            qkv, proj, len(kept), rates, as_multihead=self.as_multihead, batch_first=self.batch_first
        ).train(self.training)


def is_attention(layer: nn.Module) -> bool:
    """Whether `layer` may be attention that `SelfAttention.of` can take over.

    It is an `nn.MultiheadAttention`, or has a number of heads and linear layers: one or three that write queries, keys
    and values, and one that reads as many channels.
    """
    if isinstance(layer, SelfAttention):
        return True
    if isinstance(layer, nn.MultiheadAttention):
        return layer.in_proj_weight is not None and layer.bias_k is None and not layer.add_zero_attn
    heads, linears = _heads(layer), _linears(layer)
    if heads < 1 or len(linears) not in (2, 4):
        return False
    *writers, proj = linears
    return (
        proj.in_features % heads == 0
        and all(writer.out_features * len(writers) == 3 * proj.in_features for writer in writers)
        and len({(writer.in_features, writer.bias is None) for writer in writers}) == 1
    )


def _heads(layer: nn.Module) -> int:
    return next((own for name in _NUMBER if type(own := getattr(layer, name, None)) is int), 0)


def _linears(layer: nn.Module) -> list[nn.Linear]:
    """The linear layers directly in `layer`, in the order of their registration."""
    return [child for child in layer.children() if isinstance(child, nn.Linear)]


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    layer: Any = nn.Linear(1, 1, bias=bias is not None, device="meta")
    layer.out_features, layer.in_features = weight.shape
    layer.weight = nn.Parameter(weight.detach().clone(), weight.requires_grad)
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().clone(), bias.requires_grad)
    return layer  # type: ignore[no-any-return]
