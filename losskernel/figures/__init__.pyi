from .animations import moving_map as moving_map
from .animations import turning as turning
from .hierarchy.hierarchy_levels import depth_profile as depth_profile
from .hierarchy.hierarchy_levels import emergence as emergence
from .hierarchy.hierarchy_levels import relatedness as relatedness
from .hierarchy.hierarchy_levels import shared_levels as shared_levels
from .hierarchy.kernel_comparison import kernel_comparison as kernel_comparison
from .hierarchy.matrix_pair import matrix_pair as matrix_pair
from .influences import datamodelling_scores as datamodelling_scores
from .influences import influential_sheet as influential_sheet
from .influences import predicted_outcomes as predicted_outcomes
from .joint.joint_map import JointPoints as JointPoints
from .joint.joint_map import Track as Track
from .joint.joint_map import joint_map as joint_map
from .joint.kernel_agreement import beyond_labels as beyond_labels
from .joint.kernel_agreement import joint_training as joint_training
from .joint.kernel_agreement import kernels_layers as kernels_layers
from .joint.kernel_agreement import localization_sweep as localization_sweep
from .kernel.kernel_curves import loss_traces as loss_traces
from .kernel.kernel_curves import spectrum as spectrum
from .kernel.kernel_curves import within_across as within_across
from .kernel.kernel_matrix import kernel_matrix as kernel_matrix
from .kernel.neighbour_sheet import neighbour_sheet as neighbour_sheet
from .kernel.probe_maps import interactive_map as interactive_map
from .kernel.probe_maps import interactive_page as interactive_page
from .kernel.probe_maps import map_2d as map_2d
from .kernel.probe_maps import map_3d as map_3d
from .kernel.probe_maps import plotly_script as plotly_script
from .kernel.probe_maps import stamp_page as stamp_page
from .mislabelled import marked_map as marked_map
from .mislabelled import score_distributions as score_distributions
from .mislabelled import suspects_sheet as suspects_sheet
from .paths.paths import path_distances as path_distances
from .paths.paths import path_map as path_map
from .paths.paths import path_profiles as path_profiles
from .paths.paths import path_training as path_training
from .robustness_curves import flip_curves as flip_curves
from .shared.panels import Figure as Figure
from .shared.panels import stamp as stamp
from .shared.style import paper as paper
from .sweeps.kernel_similarity import Kernels as Kernels
from .sweeps.kernel_similarity import kernel_similarity as kernel_similarity
from .sweeps.kernels_in_training import aligned_maps as aligned_maps
from .sweeps.kernels_in_training import along_training as along_training
from .sweeps.metrics_against_settings import comparison as comparison
from .sweeps.weight_blocks import BlockShares as BlockShares
from .sweeps.weight_blocks import block_shares as block_shares
from .sweeps.weight_blocks import group_couplings as group_couplings
from .trees.map_regions import Region as Region
from .trees.tanglegram import tanglegram as tanglegram
from .trees.taxonomy_map import taxonomy_map as taxonomy_map
from .trees.taxonomy_map import taxonomy_orbit as taxonomy_orbit
from .trees.trees import tree_colours as tree_colours

__all__ = [
    "BlockShares",
    "Figure",
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
    "plotly_script",
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
