"""At which size of perturbation each probe flips."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from losskernel.errors import require


class Flips(NamedTuple):
    """What one kind of perturbation does to the probes.

    Attributes:
        levels: sizes of the perturbation, increasing, [L].
        shares: of the draws of each size that change the prediction, [N, L].
        radii: the size at which the wanted share of draws flips, [N].
        censored: probes of which no size flips so many, [N]; their radius is the largest size.
    """

    levels: np.ndarray
    shares: np.ndarray
    radii: np.ndarray
    censored: np.ndarray

    @classmethod
    def of(cls, levels: np.ndarray, shares: np.ndarray, share: float = 0.5) -> "Flips":
        """Read radii off the shares [N, L], which are 0 at size 0 and linear between sizes.

        Where the shares cross `share` more than once, the first crossing counts. Of flips that are all or nothing the
        radius is the middle between the last size that does not flip and the first that does.
        """
        sizes = np.concatenate([[0.0], levels])
        heights = np.column_stack([np.zeros(len(shares)), shares])
        reached = heights[:, 1:] >= share
        censored = np.asarray(shares.max(axis=1) < share)
        after = np.where(censored, len(levels), reached.argmax(axis=1) + 1)
        rows = np.arange(len(shares))
        low, high = heights[rows, after - 1], heights[rows, after]
        rise = np.where(censored, 1.0, high - low)
        part = np.where(censored, 1.0, (share - low) / rise)
        radii = sizes[after - 1] + part * (sizes[after] - sizes[after - 1])
        return cls(levels, shares, radii, censored)

    def ordered(self) -> np.ndarray:
        """Return the radii [N] with infinity for censored probes: they flip after all others, in no known order."""
        return np.where(self.censored, np.inf, self.radii)


def read_flips(baselines: Mapping[str, np.ndarray], kinds: tuple[str, ...], share: float) -> dict[str, Flips]:
    """Return kind -> flips, of the kinds of perturbation that a run has measured.

    Raises:
        InputError: none was measured.
    """
    found = {kind: Flips.of(*_rows(baselines, kind), share) for kind in kinds if f"{kind}_flips" in baselines}
    require(len(found) > 0, "analysis.robustness: no flips were measured; run again with baselines=[perturbations]")
    return found


def _rows(baselines: Mapping[str, np.ndarray], kind: str) -> tuple[np.ndarray, np.ndarray]:
    return baselines[f"{kind}_levels"][0].astype(float), baselines[f"{kind}_flips"].astype(float)
