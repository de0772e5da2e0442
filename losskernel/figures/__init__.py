"""Figures of a loss kernel: arrays in, a matplotlib or plotly figure out; nothing is shown or saved here."""

from losskernel.figures.comparison import comparison
from losskernel.figures.depth_profile import depth_profile
from losskernel.figures.distributions import within_across
from losskernel.figures.insets import Region
from losskernel.figures.interactive import interactive_map, interactive_page, stamp_page
from losskernel.figures.kernel_comparison import kernel_comparison
from losskernel.figures.maps import map_2d, map_3d
from losskernel.figures.matrix import kernel_matrix
from losskernel.figures.matrix_pair import matrix_pair
from losskernel.figures.neighbours import neighbour_sheet
from losskernel.figures.orbit import taxonomy_orbit
from losskernel.figures.relatedness import relatedness
from losskernel.figures.similarity import Kernels, kernel_similarity
from losskernel.figures.spectrum import spectrum
from losskernel.figures.style import paper, stamp
from losskernel.figures.tanglegram import tanglegram
from losskernel.figures.taxonomy_map import taxonomy_map
from losskernel.figures.traces import loss_traces
from losskernel.figures.tree_colours import tree_colours
from losskernel.figures.turning import turning

__all__ = [
    "Kernels",
    "Region",
    "comparison",
    "depth_profile",
    "interactive_map",
    "interactive_page",
    "kernel_comparison",
    "kernel_matrix",
    "kernel_similarity",
    "loss_traces",
    "map_2d",
    "map_3d",
    "matrix_pair",
    "neighbour_sheet",
    "paper",
    "relatedness",
    "spectrum",
    "stamp",
    "stamp_page",
    "tanglegram",
    "taxonomy_map",
    "taxonomy_orbit",
    "tree_colours",
    "turning",
    "within_across",
]
