"""The packed form: what comes out is exactly what went in, in as few bits as it needs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from slimsearch.compression import LearnedRange, Network, Quantization, pack, unpack
from slimsearch.compression.quantization.plan import CODEBOOK, WEIGHTS_INT8
from slimsearch.errors import SlimsearchError


def _network(weight: torch.Tensor, plan: Quantization | None = None) -> Network:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(weight.shape[1], weight.shape[0]))
    module[2].weight = nn.Parameter(weight)
    return Network(module, {}, plan or Quantization(form=CODEBOOK))


def _assert_round_trip(network: Network) -> bytes:
    data = pack(network)
    assert data is not None
    found, expected = unpack(data), network.module.state_dict()
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert all(found[name].dtype == tensor.dtype for name, tensor in expected.items())
    return data


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 300), st.integers(1, 40), st.integers(1, 40), st.floats(0, 1))
def test_round_trip(seed: int, values: int, rows: int, columns: int, sparsity: float) -> None:
    rng = np.random.default_rng(seed)
    weight = rng.choice(rng.standard_normal(values), (rows, columns)) * (rng.random((rows, columns)) >= sparsity)
    _assert_round_trip(_network(torch.from_numpy(weight.astype(np.float32))))


def test_a_code_that_would_be_too_long() -> None:
    """Huffman's code for counts like Fibonacci's numbers has as many bits as there are values, more than are read."""
    counts = [1, 1]
    while len(counts) < 25:
        counts.append(counts[-1] + counts[-2])
    weight = torch.repeat_interleave(torch.arange(25).float(), torch.tensor(counts))
    _assert_round_trip(_network(weight[None]))


@pytest.mark.parametrize("number", [1, 2, 3, 32, 255, 256])
@pytest.mark.parametrize("count", [1, 7, 700_000])
def test_codes_are_nearly_as_short_as_they_can_be(number: int, count: int) -> None:
    rng = np.random.default_rng(0)
    indices = np.minimum(rng.geometric(0.3, count) - 1, number - 1)
    data = _assert_round_trip(_network(torch.from_numpy(indices.astype(np.float32))[None]))
    shares = np.bincount(indices) / count
    entropy = -sum(share * np.log2(share) for share in shares if share)
    rest = len(_assert_round_trip(_network(torch.zeros(1, 1)))) + 64 + 5 * number
    assert len(data) <= count * (entropy + 1) / 8 + rest


def test_bits_that_are_needed() -> None:
    rng = np.random.default_rng(0)
    weight = rng.choice(np.linspace(-1, 1, 32), (256, 256))
    rest = len(_assert_round_trip(_network(torch.zeros(1, 1)))) + 32  # and a few digits in the header
    even = len(_assert_round_trip(_network(torch.from_numpy(weight.astype(np.float32)))))
    assert 256 * 256 * 5 / 8 < even < 256 * 256 * 5 / 8 + 256 * 4 + 32 * 4 + rest, (
        "five bits each, biases, the codebook"
    )
    pruned = weight * (rng.random(weight.shape) < 0.1)
    sparse = len(_assert_round_trip(_network(torch.from_numpy(pruned.astype(np.float32)))))
    assert sparse < 256 * 256 * 1.51 / 8 + 256 * 4 + 33 * 5 + rest, "one bit for a zero, six for each tenth weight"


@pytest.mark.parametrize("scales", [1, 24])
def test_learned_ranges(scales: int) -> None:
    generator = torch.Generator().manual_seed(0)
    known = LearnedRange(tuple(torch.rand(scales, generator=generator).tolist()), 4, 0.1, 0)
    multiples = torch.randint(-7, 8, (24, 100), generator=generator).float()
    weight = multiples * torch.tensor(known.weight_scales)[:, None]
    data = _assert_round_trip(_network(weight, Quantization(learned={"2": known})))
    rest = len(_assert_round_trip(_network(torch.zeros(1, 1)))) + 32  # and a few digits in the header
    assert len(data) < 24 * 100 / 2 + 24 * 4 + scales * 4 + 15 + rest, "four bits each, biases, scales, the integers"
    off = weight.clone()
    off[3, 5] += 1e-3  # no multiple of its scale: still exact
    _assert_round_trip(_network(off, Quantization(learned={"2": known})))


def test_networks_of_other_forms_have_none() -> None:
    weight = torch.zeros(4, 4)
    eight = Quantization(learned={"2": LearnedRange((0.1,), 8, 0.1, 0)})
    for plan in (Quantization(), Quantization(form=WEIGHTS_INT8), eight):
        assert pack(_network(weight, plan)) is None
    assert pack(Network(nn.Linear(3, 3))) is None


def test_damaged_data_says_so() -> None:
    data = _assert_round_trip(_network(torch.randint(0, 5, (40, 40)).float()))
    for damaged in (b"", b"zip", data[:-1], data[:30], data + b"x", data[:24] + b"\0\0" + data[26:]):
        with pytest.raises(SlimsearchError, match="this is no packed network"):
            unpack(damaged)
