"""Analyses: one question per file, each a frozen dataclass called on (kernel, traces) -> Result."""

from losskernel.analyses.atlas import Atlas
from losskernel.analyses.complexity import Complexity
from losskernel.analyses.convergence import Convergence
from losskernel.analyses.discovery import Discovery
from losskernel.analyses.embedding import Embedding
from losskernel.analyses.hierarchy import Hierarchy
from losskernel.analyses.neighbours import Neighbours
from losskernel.analyses.result import Result
from losskernel.analyses.separation import Separation
from losskernel.analyses.spectrum import Spectrum

__all__ = [
    "Atlas",
    "Complexity",
    "Convergence",
    "Discovery",
    "Embedding",
    "Hierarchy",
    "Neighbours",
    "Result",
    "Separation",
    "Spectrum",
]
