"""Sampler settings from the curvature of the training loss."""
