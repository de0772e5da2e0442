"""Sources of points: what a network does layer by layer, what it is to learn, and further kernels."""

from losskernel.sources.gradients import Gradients
from losskernel.sources.laplace import Laplace
from losskernel.sources.layers import Layers
from losskernel.sources.loss_kernels import LossKernels, left_out
from losskernel.sources.targets import Targets
from losskernel.sources.taxonomy import TaxonomyKernel

__all__ = ["Gradients", "Laplace", "Layers", "LossKernels", "Targets", "TaxonomyKernel", "left_out"]
