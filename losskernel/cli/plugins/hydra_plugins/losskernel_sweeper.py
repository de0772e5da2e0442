"""The sweeper of conf/hydra/sweeper; `losskernel.cli.launchers.chain_overlaps` is loaded when a sweep begins."""

from collections.abc import Sequence

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper


class CheckedSweeper(BasicSweeper):
    """Hydra's own sweeper, which refuses jobs that do not go together before it starts the first, by any launcher."""

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Compose the jobs of all batches once, before the first of them."""
        from losskernel.cli.launchers.chain_overlaps import note_other_probes, refuse_overlaps
        from losskernel.cli.launchers.jobs import jobs_of, refuse_one_folder

        if self.batch_index == 1:  # this one is the first
            refuse_one_folder(self)
            every = [words for each in self.overrides or () for words in each]
            jobs = jobs_of(self, every, 0)
            refuse_overlaps(jobs)
            note_other_probes(jobs)
