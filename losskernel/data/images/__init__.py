"""Datasets of pictures and how they are read."""
