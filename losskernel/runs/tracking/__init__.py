"""Where a run is recorded besides its folder."""
