"""Contract tests: the laws that every sampler, strategy, stage, space, data set and storage keeps.

A plug-in is tested by a class that derives from its contract and names the plug-in:

    from slimsearch.testing import SamplerContract

    class TestMine(SamplerContract):
        sampler = "my_sampler.py:MySampler"

Pytest collects the laws with that class. The built-ins are tested by the same classes.
"""

from slimsearch.testing import _contract  # noqa: F401 - before the laws: their assertions are shown in detail
from slimsearch.testing.datasets import DatasetContract
from slimsearch.testing.samplers import LearningSamplerContract, SamplerContract, UntriedSamplerContract
from slimsearch.testing.spaces import ModelSpaceContract, SpaceContract
from slimsearch.testing.stages import StageContract
from slimsearch.testing.storages import SharedStorageContract, StorageContract
from slimsearch.testing.strategies import ProposingStrategyContract, StrategyContract, WorkerStrategyContract

__all__ = [
    "DatasetContract", "LearningSamplerContract", "ModelSpaceContract", "ProposingStrategyContract", "SamplerContract",
    "SharedStorageContract", "SpaceContract", "StageContract", "StorageContract", "StrategyContract",
    "UntriedSamplerContract", "WorkerStrategyContract",
]  # fmt: skip
