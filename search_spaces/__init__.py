"""What varies, and how to build it: one space per file, and the one adapter to NNI (`ModelSpace`)."""

from slimsearch.search_spaces._candidate import Candidate
from slimsearch.search_spaces._choice_space import ChoiceSpace
from slimsearch.search_spaces._fixed_model import FixedModel
from slimsearch.search_spaces._graph import Edge, Graph
from slimsearch.search_spaces._joint_space import JointSpace
from slimsearch.search_spaces._nni.from_sample import FromSample
from slimsearch.search_spaces._nni.model_space import ModelSpace, import_nni
from slimsearch.search_spaces._recipe_space import RecipeSpace
from slimsearch.search_spaces._space import Choice, Point, Space, Stop
from slimsearch.search_spaces._subset import Subset

__all__ = [
    "Candidate", "Choice", "ChoiceSpace", "Edge", "FixedModel", "FromSample", "Graph", "JointSpace", "ModelSpace",
    "Point", "RecipeSpace", "Space", "Stop", "Subset", "import_nni",
]  # fmt: skip
