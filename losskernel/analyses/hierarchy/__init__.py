"""A kernel over probes held against a known taxonomy of their classes."""
