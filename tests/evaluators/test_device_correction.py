"""Predictions for another device from few files measured there, on made-up devices and networks."""

from __future__ import annotations

import numpy as np
import pytest

from slimsearch.evaluators.latency.device_correction import DeviceCorrection, FileCost
from slimsearch.evaluators.latency.operators import KINDS

CONVOLUTION, OTHER = KINDS.index("convolution"), KINDS.index("other")


def network(rng: np.random.Generator, activation: str) -> FileCost:
    """A random one whose convolutions and other operators cost between a tenth and three times the overhead."""
    by_kind = [0.0] * len(KINDS)
    for kind in (CONVOLUTION, KINDS.index("matrix product"), OTHER):
        by_kind[kind] = 0.005 * float(np.exp(rng.uniform(np.log(0.1), np.log(3))))
    layers, values = int(rng.integers(3, 9)), float(rng.integers(1_000, 10_000))
    macs = by_kind[CONVOLUTION] * 2e7 * rng.uniform(0.5, 2)
    return FileCost(0.005, tuple(by_kind), {"operators": 2.0 * layers, "convolution": macs, activation: values})


class Device:
    """Its overhead and kinds of operators are slower by random factors; activations of one sort take long there."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._factors = 4 * np.exp(rng.normal(0, 0.7, 1 + len(KINDS)))
        self._by_value = {"Tanh": rng.uniform(0, 2e-6)}

    def ms(self, cost: FileCost) -> float:
        extra = sum(self._by_value.get(name, 0.0) * amount for name, amount in cost.work.items())
        return float(self._factors @ [cost.overhead, *cost.by_kind]) + extra


@pytest.fixture(params=range(5))
def seeded(request: pytest.FixtureRequest) -> np.random.Generator:
    return np.random.default_rng(request.param)


def networks(rng: np.random.Generator, count: int) -> list[FileCost]:
    return [network(rng, str(rng.choice(["Relu", "Tanh"]))) for _ in range(count)]


def corrected(device: Device, costs: list[FileCost], scale: float = 1.0) -> DeviceCorrection:
    """After at most ten of the files, which it was not sure about, were measured."""
    found, measured = DeviceCorrection(slowness=4.0), 0
    for number, cost in enumerate(costs):
        if measured < 10 and not found.is_sure(cost):
            found.add(number, cost, scale * device.ms(cost))
            measured += 1
    return found


def test_ten_measured_files_give_the_latency_of_others(seeded: np.random.Generator) -> None:
    device = Device(seeded)
    correction, others = corrected(device, networks(seeded, 40)), networks(seeded, 50)
    errors = [abs(correction.ms(cost) / device.ms(cost) - 1) for cost in others]
    alone = [abs(DeviceCorrection(4.0).ms(cost) / device.ms(cost) - 1) for cost in others]
    assert np.median(errors) < 0.04 < np.median(alone)


def test_a_device_that_is_slower_by_a_factor_is_predicted_slower_by_it(seeded: np.random.Generator) -> None:
    device, costs = Device(seeded), networks(seeded, 12)
    one, three = (corrected(device, costs[:-1], scale) for scale in (1.0, 3.0))
    assert three.ms(costs[-1]) == pytest.approx(3 * one.ms(costs[-1]))


def test_one_disturbed_measurement_changes_little(seeded: np.random.Generator) -> None:
    device, costs = Device(seeded), networks(seeded, 22)
    correction = DeviceCorrection(4.0)
    for number, cost in enumerate(costs[:12]):
        correction.add(number, cost, device.ms(cost))
    before = np.array([correction.ms(cost) for cost in costs[12:]])
    correction.add(3, costs[3], 3 * device.ms(costs[3]))
    after = np.array([correction.ms(cost) for cost in costs[12:]])
    assert np.median(np.abs(after / before - 1)) < 0.1
    correction.add(3, costs[3], device.ms(costs[3]))
    assert [correction.ms(cost) for cost in costs[12:]] == pytest.approx(before), (
        "the last measurement of a file counts"
    )


def test_it_is_sure_of_files_like_the_measured_ones_only(seeded: np.random.Generator) -> None:
    correction, costs = DeviceCorrection(4.0), [network(seeded, "Relu") for _ in range(30)]
    assert not any(correction.is_sure(cost) for cost in costs)
    for number, cost in enumerate(costs):
        correction.add(number, cost, 4 * cost.ms)
    assert all(correction.is_sure(cost) for cost in costs)
    other = costs[0].work
    depthwise = tuple(
        ms + 0.005 * (kind == "depthwise convolution") for kind, ms in zip(KINDS, costs[0].by_kind, strict=True)
    )
    assert not correction.is_sure(FileCost(costs[0].overhead, depthwise, other))


def test_predictions_are_positive_and_bounded_for_files_unlike_all_measured_ones(seeded: np.random.Generator) -> None:
    device, correction = Device(seeded), DeviceCorrection(4.0)
    for number, cost in enumerate(networks(seeded, 3)):
        correction.add(number, cost, device.ms(cost) * 10.0 ** seeded.integers(-1, 2))
    for _ in range(20):
        by_kind = tuple(0.01 * seeded.exponential(10.0, len(KINDS)))
        cost = FileCost(0.0, by_kind, {"operators": 500.0, "Einsum": 1e9})
        assert 0 < correction.ms(cost) < 1000 * cost.ms
        assert correction.ms(FileCost(0.001, (0.0,) * len(KINDS), {})) > 0
