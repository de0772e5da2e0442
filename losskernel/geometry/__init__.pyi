from .arrangement import Arrangement as Arrangement
from .maps.globe import arc as arc
from .maps.globe import azimuthal as azimuthal
from .maps.globe import frame as frame
from .maps.linear import Layout as Layout
from .maps.linear import TangentLayout as TangentLayout
from .maps.linear import classical_scaling as classical_scaling
from .maps.linear import tangent_pca as tangent_pca
from .maps.spherical_mds import StressCurve as StressCurve
from .maps.spherical_mds import dimensions_needed as dimensions_needed
from .maps.spherical_mds import spherical_mds as spherical_mds
from .maps.spherical_mds import stress_curve as stress_curve
from .paths.path import Path as Path
from .paths.path import Profile as Profile
from .paths.path import distance_at_fractions as distance_at_fractions
from .paths.path import frechet_distance as frechet_distance
from .paths.path import mean_distance as mean_distance
from .paths.path import path_distances as path_distances
from .paths.path import profile as profile
from .paths.triangles import Projection as Projection
from .paths.triangles import alexandrov_curvature as alexandrov_curvature
from .paths.triangles import midpoint_distance as midpoint_distance
from .paths.triangles import project as project
from .paths.triangles import turning as turning
from .paths.triangles import vertex_angle as vertex_angle
from .point import Point as Point
from .significance import Jackknife as Jackknife
from .significance import Null as Null
from .significance import benjamini_hochberg as benjamini_hochberg
from .significance import corrected_cosines as corrected_cosines
from .significance import jackknife as jackknife
from .significance import noise_floor as noise_floor
from .significance import permutation_null as permutation_null
from .significance import permutation_nulls as permutation_nulls
from .significance import reliability as reliability
from .spaces.affine_invariant import AffineInvariant as AffineInvariant
from .spaces.angular_cka import AngularCKA as AngularCKA
from .spaces.bures import Bures as Bures
from .spaces.bures import Shape as Shape
from .spaces.feature_kernels import Laplacian as Laplacian
from .spaces.feature_kernels import Linear as Linear
from .spaces.feature_kernels import SquaredExponential as SquaredExponential
from .spaces.space import Space as Space
from .spaces.stress import Stress as Stress

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
