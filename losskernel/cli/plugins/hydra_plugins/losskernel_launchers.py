"""The launchers of conf/hydra/launcher: Hydra takes plugins from this namespace alone, and imports them at every start.

`losskernel.cli.launchers`, which does the work, is therefore imported when a sweep begins.
"""

import sys
from collections.abc import Sequence
from typing import Any

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra_plugins.hydra_joblib_launcher.joblib_launcher import JoblibLauncher as BaseJoblibLauncher
from hydra_plugins.hydra_submitit_launcher.submitit_launcher import BaseSubmititLauncher


class SlurmLauncher(BaseSubmititLauncher):
    """Every job of a sweep is one job of SLURM; all are waited for."""

    _EXECUTOR = "slurm"

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Submit the jobs and wait for them."""
        from losskernel.cli.launchers.submit import on_slurm

        return on_slurm(self, job_overrides, initial_job_idx)

    def __call__(self, *args: Any) -> JobReturn:
        """Do one job, in its own process."""
        from losskernel.cli.launchers.job_process import run_submitted

        return run_submitted(super().__call__, args)


class LocalLauncher(BaseSubmititLauncher):
    """Every job of a sweep is a process of its own on this machine, some at a time."""

    _EXECUTOR = "local"

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Start the jobs and wait for them."""
        from losskernel.cli.launchers.submit import on_this_machine

        return on_this_machine(self, job_overrides, initial_job_idx)

    def __call__(self, *args: Any) -> JobReturn:
        """Do one job, in its own process."""
        from losskernel.cli.launchers.job_process import detach, run_submitted

        detach(self.params)
        return run_submitted(super().__call__, args)


class JoblibLauncher(BaseJoblibLauncher):
    """The jobs of a sweep share a few processes of joblib."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Do the jobs."""
        from losskernel.cli.launchers.submit import in_workers

        return in_workers(self, super().launch, job_overrides, initial_job_idx)


class ReplaceJoblib(SearchPathPlugin):
    """Makes `hydra/launcher=joblib` this package's: Hydra would warn that another plugin has a choice of that name."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Remove the other choice, after all plugins have registered theirs; other programs keep it."""
        if "losskernel.cli" in sys.modules:
            ConfigStore.instance().repo["hydra"]["launcher"].pop("joblib.yaml", None)
