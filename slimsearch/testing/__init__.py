"""Contract tests: the laws of samplers, strategies, stages, spaces, data sets, learning tasks and storages.

To test a plug-in, derive a class from its contract and name the plug-in:

    from slimsearch.testing import SamplerContract

    class TestMine(SamplerContract):
        sampler = "my_sampler.py:MySampler"

Pytest collects the laws with that class. The same contracts test the built-ins.
"""

from slimsearch.testing import _contract  # noqa: F401 - first, so that pytest rewrites assertions of the laws
from slimsearch.testing.datasets import DatasetContract
from slimsearch.testing.samplers import LearningSamplerContract, SamplerContract, UntriedSamplerContract
from slimsearch.testing.spaces import ModelSpaceContract, SpaceContract
from slimsearch.testing.stages import StageContract
from slimsearch.testing.storages import SharedStorageContract, StorageContract
from slimsearch.testing.strategies import ProposingStrategyContract, StrategyContract, WorkerStrategyContract
from slimsearch.testing.tasks import LearningTaskContract

__all__ = [
    "DatasetContract", "LearningSamplerContract", "LearningTaskContract", "ModelSpaceContract",
    "ProposingStrategyContract", "SamplerContract", "SharedStorageContract", "SpaceContract", "StageContract",
    "StorageContract", "StrategyContract", "UntriedSamplerContract", "WorkerStrategyContract",
]  # fmt: skip
