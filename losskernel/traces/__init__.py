"""The loss trace: in memory, in Zarr, joined from several jobs."""
