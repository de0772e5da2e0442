"""Other descriptions of the same probes."""
