"""The loss kernel in closed form, where losses are parabolas and the posterior is a Gaussian."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from losskernel.data.base import Data, size
from losskernel.errors import require, require_integer, require_number
from losskernel.geometry import Point
from losskernel.representations.baselines.collect import History
from losskernel.representations.laplace import laplace_kernel
from losskernel.representations.points import TRAINED, Placed
from losskernel.sampling.samplers import resolve_nbeta


@dataclass(frozen=True)
class Laplace:
    """The Laplace kernel at the trained weights, of one or several strengths of localisation.

    Attributes:
        localization: γ, a number each.
        nbeta: nβ, or "train" for n/ln n.
        hessian: of the training loss: "ggn", its Gauss-Newton part, or "exact".
        order: of the losses' expansion, 1 or 2.
        weights: globs over the names of the weights that move; None takes all.
        rank: leading eigenpairs of the Hessian; None: all up to 3,000 moving weights, 100 beyond.
        seed: of the iteration that finds them.
    """

    localization: Sequence[float]
    nbeta: float | str
    hessian: str = "ggn"
    order: int = 2
    weights: Sequence[str] | None = None
    rank: int | None = None
    seed: int = 0

    gives: ClassVar[frozenset[str]] = frozenset({"laplace"})

    def __post_init__(self) -> None:
        listed = not isinstance(self.localization, (str, int, float)) and len(self.localization) > 0
        require(listed, f"points.laplace.localization must be a list of numbers, got {self.localization!r}; e.g. [100]")
        for each in self.localization:
            require_number("points.laplace.localization", each, above=0)
        twice = len(set(self.localization)) < len(self.localization)
        require(not twice, f"points.laplace.localization holds a number twice: {list(self.localization)}; drop one")
        if self.nbeta != "train":
            whole = not isinstance(self.nbeta, str)
            remedy = "there are no minibatches here; set points.laplace.nbeta=100"
            require(whole, f"points.laplace.nbeta must be a number or train (n/ln n), got {self.nbeta!r}; {remedy}")
            require_number("points.laplace.nbeta", self.nbeta, at_least=0)
        kinds = ("ggn", "exact")
        require(self.hessian in kinds, f"points.laplace.hessian must be one of {kinds}, got {self.hessian!r}")
        require(self.order in (1, 2), f"points.laplace.order must be 1 or 2, got {self.order!r}; take order=2")
        if self.rank is not None:
            require_integer("points.laplace.rank", self.rank, at_least=1)

    def __call__(self, model: nn.Module, data: Data, history: History) -> Iterator[Placed]:
        """Yield "Laplace kernel", or where there are several "Laplace kernel, localization γ" of each.

        Raises:
            InputError: nβ H + γ I is not positive definite, or the loss is not convex in the outputs.
        """
        nbeta = float(resolve_nbeta(self.nbeta, batch_size=1, train_size=size(data.train)))
        for each in self.localization:
            kernel = laplace_kernel(
                model,
                data,
                nbeta=nbeta,
                localization=float(each),
                hessian=self.hessian,
                order=self.order,
                parameters=self.weights,
                rank=self.rank,
                seed=self.seed,
            )
            name = "Laplace kernel" if len(self.localization) == 1 else f"Laplace kernel, localization {each:g}"
            settings = {"localization": float(each), "nbeta": nbeta}
            point = Point.from_gram(kernel.covariance(), data.ids)
            yield Placed(name, point, "laplace", TRAINED, history.step, settings=settings)
