from .atlas import Atlas as Atlas
from .attribution.attribution import Attribution as Attribution
from .complexity import Complexity as Complexity
from .convergence import Convergence as Convergence
from .embedding import Embedding as Embedding
from .hierarchy.discovery import Discovery as Discovery
from .hierarchy.hierarchy import Hierarchy as Hierarchy
from .hierarchy.levels import Levels as Levels
from .joint.joint_space import JointSpace as JointSpace
from .memorisation.memorisation import Memorisation as Memorisation
from .neighbours import Neighbours as Neighbours
from .paths.paths import Paths as Paths
from .result import Result as Result
from .robustness import Robustness as Robustness
from .separation import Separation as Separation
from .spectrum import Spectrum as Spectrum

__all__ = [
    "Atlas",
    "Attribution",
    "Complexity",
    "Convergence",
    "Discovery",
    "Embedding",
    "Hierarchy",
    "JointSpace",
    "Levels",
    "Memorisation",
    "Neighbours",
    "Paths",
    "Result",
    "Robustness",
    "Separation",
    "Spectrum",
]
