"""The sweeper of conf/hydra/sweeper; `losskernel.cli.launchers.sweep_jobs` is imported when a sweep begins."""

from collections.abc import Sequence

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper


class CheckedSweeper(BasicSweeper):
    """Hydra's own sweeper, which refuses jobs that do not go together before any launcher starts the first."""

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Compose and check the jobs of all batches once, before the first batch."""
        from losskernel.cli.launchers import sweep_jobs

        if self.batch_index == 1:  # Hydra has counted this batch already
            sweep_jobs.refuse_run_folder_of_sweep(self)
            every = [overrides for batch in self.overrides or () for overrides in batch]
            jobs = sweep_jobs.compose_jobs(self, every, 0)
            sweep_jobs.refuse_overlapping_chains(jobs)
            sweep_jobs.warn_of_different_probes(jobs)
