"""Analyses: one question per file, each a frozen dataclass called on (kernel, traces) -> Result."""

from losskernel.analyses.atlas.atlas import Atlas
from losskernel.analyses.attribution.attribution import Attribution
from losskernel.analyses.complexity import Complexity
from losskernel.analyses.convergence import Convergence
from losskernel.analyses.embedding import Embedding
from losskernel.analyses.hierarchy.discovery import Discovery
from losskernel.analyses.hierarchy.hierarchy import Hierarchy
from losskernel.analyses.hierarchy.levels import Levels
from losskernel.analyses.joint.joint_space import JointSpace
from losskernel.analyses.memorisation.memorisation import Memorisation
from losskernel.analyses.neighbours import Neighbours
from losskernel.analyses.paths.paths import Paths
from losskernel.analyses.result import Result
from losskernel.analyses.robustness.robustness import Robustness
from losskernel.analyses.separation import Separation
from losskernel.analyses.spectrum import Spectrum

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
