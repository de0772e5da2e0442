"""What a run is doing, on disk while it runs."""
