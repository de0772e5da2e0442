"""sample(): chains of SGLD and other samplers around trained weights."""
