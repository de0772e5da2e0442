"""Figures of a loss kernel: arrays in, a matplotlib or plotly figure out; nothing is shown or saved here."""

from losskernel.figures.comparison import comparison
from losskernel.figures.distributions import within_across
from losskernel.figures.interactive import interactive_map, interactive_page, stamp_page
from losskernel.figures.maps import map_2d, map_3d
from losskernel.figures.matrix import kernel_matrix
from losskernel.figures.neighbours import neighbour_sheet
from losskernel.figures.similarity import Kernels, kernel_similarity
from losskernel.figures.spectrum import spectrum
from losskernel.figures.style import paper, stamp
from losskernel.figures.traces import loss_traces

__all__ = [
    "Kernels",
    "comparison",
    "interactive_map",
    "interactive_page",
    "kernel_matrix",
    "kernel_similarity",
    "loss_traces",
    "map_2d",
    "map_3d",
    "neighbour_sheet",
    "paper",
    "spectrum",
    "stamp",
    "stamp_page",
    "within_across",
]
