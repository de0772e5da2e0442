"""fit(): train a network before its weights are sampled."""
