"""Wrappers that change a dataset."""
