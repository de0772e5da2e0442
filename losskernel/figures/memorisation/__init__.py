"""Memorisation."""
