"""The command line: the only importer of Hydra, and quick to answer --help."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

# In a checkout the registry stands beside the package; a wheel carries it inside.
_PACKAGE = Path(__file__).parents[1]
_INSIDE, _BESIDE = _PACKAGE / "conf", _PACKAGE.parent / "conf"
CONF = str(_INSIDE if _INSIDE.is_dir() else _BESIDE)

OmegaConf.register_new_resolver("count", len, replace=True)
OmegaConf.register_new_resolver("double", lambda number: 2 * number, replace=True)


@hydra.main(config_path=CONF, config_name="config", version_base="1.3")
def _run(config: DictConfig) -> float | None:
    from losskernel.cli.build import run_from

    return run_from(config, **_place())


@hydra.main(config_path=CONF, config_name="analyse", version_base="1.3")
def _analyse(config: DictConfig) -> None:
    from losskernel.cli.build import analyse_from

    analyse_from(config)


def _place() -> dict[str, Any]:
    """Return the run's folder and the sweep that it belongs to."""
    now = HydraConfig.get()
    sweep = now.sweep.dir if now.mode == RunMode.MULTIRUN else None
    return {"folder": Path(now.runtime.output_dir), "sweep": sweep}


def main() -> None:
    """losskernel: train or load, sample, analyse."""
    _guarded(_run)


def analyse() -> None:
    """losskernel-analyse: ask more of a finished run."""
    _guarded(_analyse)


def _guarded(command: Callable[[], Any]) -> None:
    """Run a command; a fault that the user can mend is one line, and a traceback only on request."""
    wants_traceback = os.environ.get("HYDRA_FULL_ERROR", "0") not in ("", "0")
    # Hydra would otherwise catch every error itself and print it in its own way.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        command()
    except KeyboardInterrupt:
        sys.exit("losskernel: interrupted")
    except Exception as error:
        if wants_traceback or not _expected(error):
            raise
        lines = str(error).strip().splitlines()
        print("\n".join(f"losskernel: {line}" for line in lines), file=sys.stderr)
        sys.exit(130 if type(error).__name__ == "Interrupted" else 1)


def _expected(error: Exception) -> bool:
    if isinstance(error, (HydraException, OmegaConfBaseException)):
        return True
    from losskernel.errors import DivergenceError, InputError, Interrupted, TraceError

    return isinstance(error, (InputError, DivergenceError, TraceError, Interrupted))

