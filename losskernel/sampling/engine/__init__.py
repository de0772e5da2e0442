"""Losses and gradients of many chains at once."""
