"""Loss kernels of trained networks: sample a network near its weights, see which inputs it treats alike.

Names are loaded when first used, so that ``import losskernel`` costs milliseconds and a process pays only
for what it calls.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from losskernel import losses as losses
    from losskernel.data import Data as Data
    from losskernel.diagnosis import Diagnosis as Diagnosis
    from losskernel.diagnosis import diagnose as diagnose
    from losskernel.kernel import LossKernel as LossKernel
    from losskernel.laplace import laplace_kernel as laplace_kernel
    from losskernel.samplers import SGHMC as SGHMC
    from losskernel.samplers import SGLD as SGLD
    from losskernel.samplers import SGNHT as SGNHT
    from losskernel.samplers import RMSpropSGLD as RMSpropSGLD
    from losskernel.sampling import sample as sample
    from losskernel.schedule import Schedule as Schedule
    from losskernel.traces import LossTraces as LossTraces
    from losskernel.traces import open_traces as open_traces
    from losskernel.training import Training as Training
    from losskernel.training import fit as fit

__version__ = "0.1.0"

_HOMES = {
    "Data": "data",
    "Diagnosis": "diagnosis",
    "diagnose": "diagnosis",
    "LossKernel": "kernel",
    "laplace_kernel": "laplace",
    "SGHMC": "samplers",
    "SGLD": "samplers",
    "SGNHT": "samplers",
    "RMSpropSGLD": "samplers",
    "sample": "sampling",
    "Schedule": "schedule",
    "LossTraces": "traces",
    "open_traces": "traces",
    "fit": "training",
    "Training": "training",
}

__all__ = [*_HOMES, "losses", "__version__"]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name == "losses":
        return import_module("losskernel.losses")
    if name in _HOMES:
        return getattr(import_module(f"losskernel.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'losskernel' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
