"""Attribution of queries' losses to training samples, and its judgement by retraining: pure functions of arrays."""

from losskernel.attribution.datamodelling import Retrainings, ceiling, predictions, rank_correlation, reliability
from losskernel.attribution.influences import Influences, agreement
from losskernel.attribution.judgement import Judged, judge
from losskernel.attribution.methods import Joint, Method, bayesian_influence, method_names, method_of

__all__ = [
    "Influences",
    "Joint",
    "Judged",
    "Method",
    "Retrainings",
    "agreement",
    "bayesian_influence",
    "ceiling",
    "judge",
    "method_names",
    "method_of",
    "predictions",
    "rank_correlation",
    "reliability",
]
