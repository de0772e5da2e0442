from .analytic_kernels import Gradients as Gradients
from .analytic_kernels import Laplace as Laplace
from .layers import Layers as Layers
from .loss_kernels import LossKernels as LossKernels
from .loss_kernels import left_out as left_out
from .targets import Targets as Targets
from .targets import TaxonomyKernel as TaxonomyKernel

__all__ = [
    "Gradients",
    "Laplace",
    "Layers",
    "LossKernels",
    "Targets",
    "TaxonomyKernel",
    "left_out",
]
