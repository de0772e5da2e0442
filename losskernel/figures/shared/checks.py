"""What figures require of the arrays they are given."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from losskernel.errors import require


def require_shape(name: str, value: ArrayLike, shape: Sequence[int | str], remedy: str = "") -> None:
    """Refuse an array of another shape, or an empty one.

    Args:
        name: of the argument.
        value: what is array-like, or has a length.
        shape: lengths, or letters for those that are free.
        remedy: what to do, for the message.

    Raises:
        InputError: it has another shape.
    """
    got_shape = np.shape(value)
    fits = [want == got if isinstance(want, int) else got > 0 for want, got in zip(shape, got_shape, strict=False)]
    wanted = f"[{', '.join(map(str, shape))}]" + ", not empty" * any(isinstance(want, str) for want in shape)
    message = f"{name} must be {wanted}, got {got_shape}{remedy and f'; {remedy}'}"
    require(len(got_shape) == len(shape) and all(fits), message)


def require_finite(name: str, values: np.ndarray, remedy: str) -> None:
    """Refuse numbers that are not finite.

    Raises:
        InputError: there are such.
    """
    require(bool(np.isfinite(values).all()), f"{name} must be finite, got NaN or infinity; {remedy}")


def points_of(values: np.ndarray, dimensions: int, name: str) -> np.ndarray:
    """Return the coordinates of points, [N, dimensions], as floats.

    Raises:
        InputError: they are not that, or not finite.
    """
    values = np.asarray(values, dtype=float)
    require_shape(name, values, ("N", dimensions), "pass one row per probe")
    require_finite(name, values, "drop those probes first")
    return values


def require_images(images: np.ndarray | None, count: int) -> None:
    """Refuse pictures that are not [count, H, W] or [count, H, W, 3]; None is a sheet without pictures.

    Raises:
        InputError: they have another shape.
    """
    if images is not None:
        fits = len(images) == count and np.ndim(images) in (3, 4)
        require(fits, f"images must be [{count}, H, W] or [{count}, H, W, 3], got {np.shape(images)}; pass all")
