"""The representations on which losskernel and repsim are compared: made here, never stored."""

import numpy as np

# 253 pairs, an odd number: repsim's median is the lower of the two in the middle where there are two.
INPUTS, CLASSES, SEED = 23, 5, 11


def representations() -> dict[str, np.ndarray]:
    """Return features [23, d]: a random network's layers, one of them once more but for noise, others, and labels."""
    rng = np.random.default_rng(SEED)
    inputs = rng.normal(size=(INPUTS, 6))
    hidden = np.maximum(inputs @ rng.normal(size=(6, 15)), 0.0)
    deep = np.maximum(hidden @ rng.normal(size=(15, 40)), 0.0)
    last = np.maximum(deep @ rng.normal(size=(40, 50)), 0.0)
    return {
        "inputs": inputs,
        "hidden": hidden,
        "deep": deep,
        "last": last,
        "near": deep + 1e-4 * rng.normal(size=deep.shape),
        "unrelated": rng.normal(size=(INPUTS, 60)),
        "labels": np.eye(CLASSES)[np.arange(INPUTS) % CLASSES],
    }


def sphere_distances(count: int = 14, dimensions: int = 5) -> np.ndarray:
    """Return the angles [P, P] between random directions: more dimensions than a map of two has room for."""
    places = np.random.default_rng(SEED).normal(size=(count, dimensions))
    places /= np.linalg.norm(places, axis=1, keepdims=True)
    angles = np.arccos(np.clip(places @ places.T, -1.0, 1.0))
    np.fill_diagonal(angles, 0.0)
    return angles
