"""Loss kernels of trained networks: sample a network near its weights, see which inputs it treats alike.

Names are loaded when first used, so that ``import losskernel`` costs milliseconds and a process pays only
for what it calls.
"""

import os
import tempfile
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from losskernel import losses as losses
    from losskernel.data import Data as Data
    from losskernel.kernel.diagnosis.diagnose import Diagnosis as Diagnosis
    from losskernel.kernel.diagnosis.diagnose import diagnose as diagnose
    from losskernel.kernel.loss_kernel import LossKernel as LossKernel
    from losskernel.representations.laplace import laplace_kernel as laplace_kernel
    from losskernel.sampling.sample import sample as sample
    from losskernel.sampling.samplers import SGHMC as SGHMC
    from losskernel.sampling.samplers import SGLD as SGLD
    from losskernel.sampling.samplers import SGNHT as SGNHT
    from losskernel.sampling.samplers import RMSpropSGLD as RMSpropSGLD
    from losskernel.sampling.setup import Schedule as Schedule
    from losskernel.traces.loss_traces import LossTraces as LossTraces
    from losskernel.traces.loss_traces import open_traces as open_traces
    from losskernel.training import Training as Training
    from losskernel.training import fit as fit

__version__ = "0.1.0"

_HOMES = {
    "Data": "data",
    "Diagnosis": "kernel.diagnosis.diagnose",
    "diagnose": "kernel.diagnosis.diagnose",
    "LossKernel": "kernel.loss_kernel",
    "laplace_kernel": "representations.laplace",
    "SGHMC": "sampling.samplers",
    "SGLD": "sampling.samplers",
    "SGNHT": "sampling.samplers",
    "RMSpropSGLD": "sampling.samplers",
    "sample": "sampling.sample",
    "Schedule": "sampling.setup",
    "LossTraces": "traces.loss_traces",
    "open_traces": "traces.loss_traces",
    "fit": "training",
    "Training": "training",
}

__all__ = [*_HOMES, "losses", "__version__"]  # pyright: ignore[reportUnsupportedDunderAll]


def _provide_home() -> None:
    """Give a process without any home, as of a container's unnamed user, one among the temporary files.

    W&B, torch and the cache of pictures look for it, and would fail after training and sampling.
    """
    try:
        Path.home()
    except RuntimeError:
        folder = Path(tempfile.gettempdir()) / f"losskernel-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        os.environ["HOME"] = str(folder)
        os.environ.setdefault("USER", str(os.getuid()))  # getpass.getuser() of other packages


_provide_home()


def __getattr__(name: str) -> Any:
    if name == "losses":
        return import_module("losskernel.losses")
    if name in _HOMES:
        return getattr(import_module(f"losskernel.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'losskernel' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
