"""What varies, and how to build it: one space per file, and the one adapter to NNI (`ModelSpace`)."""

from search_spaces import _torchvision_operators
from search_spaces._candidate import Candidate
from search_spaces._choice_space import ChoiceSpace
from search_spaces._fixed_model import FixedModel
from search_spaces._from_sample import FromSample
from search_spaces._graph import Edge, Graph
from search_spaces._joint_space import JointSpace
from search_spaces._model_space import ModelSpace, import_nni
from search_spaces._recipe_space import RecipeSpace
from search_spaces._space import Choice, Point, Space, Stop
from search_spaces._subset import Subset

__all__ = [
    "Candidate", "Choice", "ChoiceSpace", "Edge", "FixedModel", "FromSample", "Graph", "JointSpace", "ModelSpace",
    "Point", "RecipeSpace", "Space", "Stop", "Subset", "import_nni",
]  # fmt: skip

_torchvision_operators.install()
