"""Attribution of queries' losses to training samples, and its judgement by retraining: pure functions of arrays."""

from losskernel.analyses.attribution.datamodelling_score import (
    Retrainings,
    ceiling,
    predictions,
    rank_correlation,
    reliability,
)
from losskernel.analyses.attribution.influences import Influences, agreement
from losskernel.analyses.attribution.method_scores import Judged, judge
from losskernel.analyses.attribution.methods import Joint, Method, bayesian_influence, method_names, method_of

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
