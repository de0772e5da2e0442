"""Metric spaces of kernels."""
