"""Which probes are memorised: scores of the loss kernel, and how well they detect label noise."""
