"""Kernels along training: how far they travel, what their metrics do, maps on which the probes move."""
