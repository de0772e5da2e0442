"""What kernels over the same probes are called in figures, and how the loss kernel stands out among them."""

# The loss kernel's own rows, as tables name them.
OWN = {"coupling": "loss kernel, coupling R²", "abs_r": "loss kernel, |R|", "r": "loss kernel, R"}
OTHERS = {"labels": "labels alone", "penultimate": "penultimate features", "layers": "layers (CKA)"}
HIGHLIGHT = "#DDEBF4"


def printed(name: str) -> str:
    """Return a kernel's name for print."""
    return OWN.get(name) or OTHERS.get(name) or name.replace("_", " ")
