"""The loss kernel: estimators, error bars, diagnosis."""
