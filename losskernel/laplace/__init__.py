"""The analytic reference: the loss kernel of a Gaussian in place of the sampled posterior."""

from losskernel.laplace.analytic import laplace_kernel
from losskernel.laplace.gaussian import Curvature, Gaussian, curvature_of
from losskernel.laplace.network import Network

__all__ = ["Curvature", "Gaussian", "Network", "curvature_of", "laplace_kernel"]
