from .layers import Layers as Layers
from .layers import Targets as Targets
from .layers import TaxonomyKernel as TaxonomyKernel
from .loss_kernels import Gradients as Gradients
from .loss_kernels import Laplace as Laplace
from .loss_kernels import LossKernels as LossKernels
from .loss_kernels import left_out as left_out

__all__ = [
    "Gradients",
    "Laplace",
    "Layers",
    "LossKernels",
    "Targets",
    "TaxonomyKernel",
    "left_out",
]
