"""Layers, labels and loss kernels as points of one space."""
