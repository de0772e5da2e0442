"""Figures of a loss kernel: arrays in, a matplotlib or plotly figure out; nothing is shown or saved here."""

from losskernel.figures.attribution.datamodelling import datamodelling_scores, predicted_outcomes
from losskernel.figures.attribution.influential_sheet import influential_sheet
from losskernel.figures.hierarchy.depth_profile import depth_profile
from losskernel.figures.hierarchy.emergence import emergence
from losskernel.figures.hierarchy.kernel_comparison import kernel_comparison
from losskernel.figures.hierarchy.matrix_pair import matrix_pair
from losskernel.figures.hierarchy.relatedness import relatedness
from losskernel.figures.hierarchy.shared_levels import shared_levels
from losskernel.figures.joint.beyond_labels import beyond_labels
from losskernel.figures.joint.joint_map import JointPoints, Track, joint_map
from losskernel.figures.joint.joint_training import joint_training
from losskernel.figures.joint.kernels_layers import kernels_layers
from losskernel.figures.joint.localization_sweep import localization_sweep
from losskernel.figures.kernel.interactive_map import interactive_map, interactive_page, stamp_page
from losskernel.figures.kernel.kernel_matrix import kernel_matrix
from losskernel.figures.kernel.loss_traces import loss_traces
from losskernel.figures.kernel.neighbour_sheet import neighbour_sheet
from losskernel.figures.kernel.spectrum import spectrum
from losskernel.figures.kernel.umap_maps import map_2d, map_3d
from losskernel.figures.kernel.within_across import within_across
from losskernel.figures.memorisation.marked_map import marked_map
from losskernel.figures.memorisation.score_distributions import score_distributions
from losskernel.figures.memorisation.suspects_sheet import suspects_sheet
from losskernel.figures.paths.path_distances import path_distances
from losskernel.figures.paths.path_map import path_map
from losskernel.figures.paths.path_profiles import path_profiles
from losskernel.figures.paths.path_training import path_training
from losskernel.figures.robustness.flip_curves import flip_curves
from losskernel.figures.shared.style import paper, stamp
from losskernel.figures.sweeps.aligned_maps import aligned_maps
from losskernel.figures.sweeps.along_training import along_training
from losskernel.figures.sweeps.block_shares import BlockShares, block_shares
from losskernel.figures.sweeps.group_coupling import group_couplings
from losskernel.figures.sweeps.kernel_similarity import Kernels, kernel_similarity
from losskernel.figures.sweeps.metrics_against_settings import comparison
from losskernel.figures.sweeps.moving_map import moving_map
from losskernel.figures.trees.region_strips import Region
from losskernel.figures.trees.tanglegram import tanglegram
from losskernel.figures.trees.taxonomy_map import taxonomy_map
from losskernel.figures.trees.taxonomy_orbit import taxonomy_orbit
from losskernel.figures.trees.tree_colours import tree_colours
from losskernel.figures.trees.turning_gif import turning

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
