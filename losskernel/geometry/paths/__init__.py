"""Paths through a space, and the triangles of their points."""
