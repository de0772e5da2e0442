"""Networks as paths from inputs to targets: what each step does, and how whole paths differ."""

from losskernel.analyses.paths.jackknife_errors import Errors, errors_of, median_error
from losskernel.analyses.paths.measured_paths import Survey, Traced, survey
from losskernel.analyses.paths.network_paths import ALONG, Walk, edges_of, spine, walks_of

__all__ = [
    "ALONG",
    "Errors",
    "Survey",
    "Traced",
    "Walk",
    "edges_of",
    "errors_of",
    "median_error",
    "spine",
    "survey",
    "walks_of",
]
