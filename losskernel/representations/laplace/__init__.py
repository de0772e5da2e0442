"""The analytic reference: the loss kernel of a Gaussian in place of the sampled posterior."""

from losskernel.representations.laplace.analytic import laplace_kernel
from losskernel.representations.laplace.gaussian import Curvature, Gaussian, curvature_of
from losskernel.representations.laplace.network import Network

__all__ = ["Curvature", "Gaussian", "Network", "curvature_of", "laplace_kernel"]
