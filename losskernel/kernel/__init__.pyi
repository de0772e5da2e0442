from .error_bars import Matrices as Matrices
from .error_bars import Resample as Resample
from .error_bars import batch_means as batch_means
from .error_bars import bootstrap as bootstrap
from .error_bars import interval as interval
from .error_bars import noise_floor as noise_floor
from .error_bars import replicate_mean as replicate_mean
from .error_bars import stretch_grams as stretch_grams
from .estimators import Neighbours as Neighbours
from .estimators import correlation_of as correlation_of
from .estimators import inverse as inverse
from .estimators import nearest as nearest
from .estimators import pieces as pieces
from .loss_kernel import LossKernel as LossKernel

__all__ = [
    "LossKernel",
    "Matrices",
    "Neighbours",
    "Resample",
    "batch_means",
    "bootstrap",
    "correlation_of",
    "interval",
    "inverse",
    "nearest",
    "noise_floor",
    "pieces",
    "replicate_mean",
    "stretch_grams",
]
