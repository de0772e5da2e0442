"""Representations that a loss kernel is compared with."""
