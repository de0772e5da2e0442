"""Figures of a loss kernel: arrays in, a matplotlib or plotly figure out; nothing is shown or saved here."""

from losskernel.figures.aligned_maps import aligned_maps
from losskernel.figures.along_training import along_training
from losskernel.figures.beyond_labels import beyond_labels
from losskernel.figures.block_shares import BlockShares, block_shares
from losskernel.figures.comparison import comparison
from losskernel.figures.datamodelling import datamodelling_scores, predicted_outcomes
from losskernel.figures.depth_profile import depth_profile
from losskernel.figures.distributions import within_across
from losskernel.figures.emergence import emergence
from losskernel.figures.flips import flip_curves
from losskernel.figures.group_coupling import group_couplings
from losskernel.figures.influential import influential_sheet
from losskernel.figures.insets import Region
from losskernel.figures.interactive import interactive_map, interactive_page, stamp_page
from losskernel.figures.joint_map import JointPoints, Track, joint_map
from losskernel.figures.joint_training import joint_training
from losskernel.figures.kernel_comparison import kernel_comparison
from losskernel.figures.kernels_layers import kernels_layers
from losskernel.figures.localization_sweep import localization_sweep
from losskernel.figures.maps import map_2d, map_3d
from losskernel.figures.marked_map import marked_map
from losskernel.figures.matrix import kernel_matrix
from losskernel.figures.matrix_pair import matrix_pair
from losskernel.figures.moving_map import moving_map
from losskernel.figures.neighbours import neighbour_sheet
from losskernel.figures.orbit import taxonomy_orbit
from losskernel.figures.path_distances import path_distances
from losskernel.figures.path_map import path_map
from losskernel.figures.path_profiles import path_profiles
from losskernel.figures.path_training import path_training
from losskernel.figures.relatedness import relatedness
from losskernel.figures.score_distributions import score_distributions
from losskernel.figures.shared_levels import shared_levels
from losskernel.figures.similarity import Kernels, kernel_similarity
from losskernel.figures.spectrum import spectrum
from losskernel.figures.style import paper, stamp
from losskernel.figures.suspects import suspects_sheet
from losskernel.figures.tanglegram import tanglegram
from losskernel.figures.taxonomy_map import taxonomy_map
from losskernel.figures.traces import loss_traces
from losskernel.figures.tree_colours import tree_colours
from losskernel.figures.turning import turning

__all__ = [
    "BlockShares",
    "JointPoints",
    "Kernels",
    "Region",
    "Track",
    "aligned_maps",
    "along_training",
    "beyond_labels",
    "block_shares",
    "comparison",
    "datamodelling_scores",
    "depth_profile",
    "emergence",
    "flip_curves",
    "group_couplings",
    "influential_sheet",
    "interactive_map",
    "interactive_page",
    "joint_map",
    "joint_training",
    "kernel_comparison",
    "kernel_matrix",
    "kernel_similarity",
    "kernels_layers",
    "localization_sweep",
    "loss_traces",
    "map_2d",
    "map_3d",
    "marked_map",
    "matrix_pair",
    "moving_map",
    "neighbour_sheet",
    "paper",
    "path_distances",
    "path_map",
    "path_profiles",
    "path_training",
    "predicted_outcomes",
    "relatedness",
    "score_distributions",
    "shared_levels",
    "spectrum",
    "stamp",
    "stamp_page",
    "suspects_sheet",
    "tanglegram",
    "taxonomy_map",
    "taxonomy_orbit",
    "tree_colours",
    "turning",
    "within_across",
]
