"""Data sets of images and how they are read."""
