"""The laws of stages, kept by every built-in, importance and schedule, and by every shipped recipe."""

from __future__ import annotations

from slimsearch.compression import Recipe
from slimsearch.names import built_in_names
from slimsearch.testing import StageContract
from slimsearch.testing.stages import RecipeContract

# Options without which a stage changes nothing in this network.
OPTIONS = {"low_rank": ":energy=0.6", "dynamic_layerwise": ":layers=3"}
STAGES = [f"{name}{OPTIONS.get(name, '')}" for name in built_in_names("slimsearch.compression")]
REPEATED = [
    "fused", "lsq:bits=4", "deep-compression", "prune:after=rewind", "level:schedule=agp:importance=taylor",
]  # fmt: skip
GRADUAL = {"movement": ":schedule=agp"}
IMPORTANCES = [
    f"prune:sparsity=0.5:importance={name}{GRADUAL.get(name, '')}"
    for name in built_in_names("slimsearch.compression.pruning.importances")
]
SCHEDULES = [f"prune:schedule={name}:events=4" for name in built_in_names("slimsearch.compression.pruning.schedules")]
OTHERS = [
    "prune:after=scratch", "prune:scope=network", "prune:params=4000", "prune:macs=100000",
    "level:schedule=agp:importance=movement", "level:importance=taylor:scope=network", "weight_only:dtype=fp16",
    "lsq_plus:bits=3:per_channel=false", "dorefa:bits=2", "qat:target=vnni", "prune:schedule=agp+qat",
    "prune+distill,lsq", "low_rank:params=5000", "prune:schedule=linear+lsq_plus",
]  # fmt: skip


class TestStages(StageContract):
    stage = (*STAGES, *REPEATED)


class TestRecipes(RecipeContract):
    stage = (*IMPORTANCES, *SCHEDULES, *OTHERS, *(name for name in Recipe.shipped() if name not in REPEATED))
