"""Metric spaces whose points are kernels over the same inputs: how far apart are two representations?"""

from losskernel.geometry.arrangement import Arrangement
from losskernel.geometry.maps.dimensions import StressCurve, dimensions_needed, stress_curve
from losskernel.geometry.maps.globe import arc, azimuthal, frame
from losskernel.geometry.maps.scaling import Layout, classical_scaling
from losskernel.geometry.maps.spherical_mds import spherical_mds
from losskernel.geometry.maps.tangent_pca import TangentLayout, tangent_pca
from losskernel.geometry.paths.path import Path
from losskernel.geometry.paths.profiles import Profile, profile
from losskernel.geometry.paths.triangles import (
    Projection,
    alexandrov_curvature,
    midpoint_distance,
    project,
    turning,
    vertex_angle,
)
from losskernel.geometry.paths.whole_paths import distance_at_fractions, frechet_distance, mean_distance, path_distances
from losskernel.geometry.point import Point
from losskernel.geometry.spaces.affine_invariant import AffineInvariant
from losskernel.geometry.spaces.angular_cka import AngularCKA
from losskernel.geometry.spaces.bures import Bures, Shape
from losskernel.geometry.spaces.kernels import Laplacian, Linear, SquaredExponential
from losskernel.geometry.spaces.space import Space
from losskernel.geometry.spaces.stress import Stress
from losskernel.geometry.statistics.reliability import corrected_cosines, noise_floor, reliability
from losskernel.geometry.statistics.significance import (
    Jackknife,
    Null,
    benjamini_hochberg,
    jackknife,
    permutation_null,
    permutation_nulls,
)

__all__ = [
    "AffineInvariant",
    "AngularCKA",
    "Arrangement",
    "Bures",
    "Jackknife",
    "Laplacian",
    "Layout",
    "Linear",
    "Null",
    "Path",
    "Point",
    "Profile",
    "Projection",
    "Shape",
    "Space",
    "SquaredExponential",
    "Stress",
    "StressCurve",
    "TangentLayout",
    "alexandrov_curvature",
    "arc",
    "azimuthal",
    "benjamini_hochberg",
    "classical_scaling",
    "corrected_cosines",
    "dimensions_needed",
    "distance_at_fractions",
    "frame",
    "frechet_distance",
    "jackknife",
    "mean_distance",
    "midpoint_distance",
    "noise_floor",
    "path_distances",
    "permutation_null",
    "permutation_nulls",
    "profile",
    "project",
    "reliability",
    "spherical_mds",
    "stress_curve",
    "tangent_pca",
    "turning",
    "vertex_angle",
]
