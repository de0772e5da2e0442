"""What a run is at, on disk while it runs."""
