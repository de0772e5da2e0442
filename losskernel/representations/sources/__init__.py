"""Sources of points: what a network does layer by layer, what it is to learn, and further kernels."""

from losskernel.representations.sources.gradients import Gradients
from losskernel.representations.sources.laplace import Laplace
from losskernel.representations.sources.layers import Layers
from losskernel.representations.sources.loss_kernels import LossKernels, left_out
from losskernel.representations.sources.targets import Targets
from losskernel.representations.sources.taxonomy import TaxonomyKernel

__all__ = ["Gradients", "Laplace", "Layers", "LossKernels", "Targets", "TaxonomyKernel", "left_out"]
