"""How scores of the probes relate to the sizes of perturbation at which their predictions flip."""
