"""sample(): chains of SGLD and its kin about trained weights."""
