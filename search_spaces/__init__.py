"""Search spaces: one shipped space per file, and adapters for NNI model spaces, choices, recipes and fixed models."""

from slimsearch.search_spaces._choice_space import ChoiceSpace, Subset
from slimsearch.search_spaces._fixed_model import FixedModel
from slimsearch.search_spaces._graph import Edge, Graph
from slimsearch.search_spaces._joint_space import JointSpace
from slimsearch.search_spaces._nni.model_space import FromSample, ModelSpace, import_nni
from slimsearch.search_spaces._recipe_space import RecipeSpace
from slimsearch.search_spaces._space import Ancestor, Candidate, Choice, Point, Space

__all__ = [
    "Ancestor", "Candidate", "Choice", "ChoiceSpace", "Edge", "FixedModel", "FromSample", "Graph", "JointSpace",
    "ModelSpace", "Point", "RecipeSpace", "Space", "Subset", "import_nni",
]  # fmt: skip
