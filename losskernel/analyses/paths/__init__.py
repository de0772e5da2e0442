"""Networks as paths from their inputs to their targets."""
