"""Search spaces: one shipped space per file, and adapters for NNI model spaces, choices, recipes and fixed models."""

from slimsearch.search_spaces._choice_space import ChoiceSpace, Subset
from slimsearch.search_spaces._elastic_space import ElasticSpace
from slimsearch.search_spaces._exported_program import read_program
from slimsearch.search_spaces._fixed_model import FixedModel
from slimsearch.search_spaces._graph import Edge, Graph
from slimsearch.search_spaces._joint_space import JointSpace
from slimsearch.search_spaces._model_space import ModelSpace, name_of
from slimsearch.search_spaces._nni.nni_space import NniSpace, import_nni
from slimsearch.search_spaces._recipe_space import HYPERPARAMETERS, TRAINING, RecipeSpace
from slimsearch.search_spaces._space import Ancestor, Candidate, Choice, Point, Space

__all__ = [
    "HYPERPARAMETERS", "TRAINING", "Ancestor", "Candidate", "Choice", "ChoiceSpace", "Edge", "ElasticSpace",
    "FixedModel", "Graph", "JointSpace", "ModelSpace", "NniSpace", "Point", "RecipeSpace", "Space", "Subset",
    "import_nni", "name_of", "read_program",
]  # fmt: skip
