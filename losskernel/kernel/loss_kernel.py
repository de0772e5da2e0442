"""LossKernel: a view on rows [probe, feature] whose Gram matrix is the kernel; N × N only on demand."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from losskernel.errors import InputError, require, require_integer
from losskernel.kernel import estimators
from losskernel.kernel.estimators import Interval, Neighbours, inverse
from losskernel.traces.loss_traces import LossTraces, require_finite

Rows = slice | Sequence[int] | np.ndarray | None
_BLOCK_NUMBERS = 2**25  # float64 entries of one block of rows: 256 MiB
MOST_PROBES = 20_000  # beyond which a whole matrix [N, N] is refused: 3 GiB


# Of deviations of losses whose fourth powers are still float64 numbers.
_SMALLEST, _LARGEST = 1e-75, 1e75


class LossKernel:
    """Covariance of per-sample losses over the draws of a localised posterior, arXiv 2509.26537, Eq. 2.

    K(z, z') = Cov(l(z; w), l(z'; w)), estimated with each chain's own mean removed and the unbiased divisor
    C·D - C; R is its correlation. All results are float64 numpy arrays. `rows` everywhere restricts the
    first axis to some probes, so that a kernel of many probes can be read in blocks: more than 20,000 need it.

    Attributes:
        labels: name -> [N], labels of the probes.
        ids: [N] names of the probes.
        constant: [N] bool, probes whose loss never changed: their R is 0 off the diagonal.
    """

    def __init__(self, chains: np.ndarray, divisor: float, labels: Mapping[str, Any], ids: np.ndarray) -> None:
        self._chains = chains  # [C, D, N], centred; float64
        self._divisor = divisor
        self.labels = dict(labels)
        self.ids = ids
        squares = np.einsum("cdn,cdn->cn", chains, chains)
        self._chain_scale = np.sqrt(squares)  # [C, N]
        self._variance = squares.sum(0) / divisor
        self._scale = inverse(np.sqrt(self._variance))  # of standardised losses
        self.constant = self._variance == 0

    @classmethod
    def from_traces(cls, traces: LossTraces) -> "LossKernel":
        """Build the kernel of loss traces [C, D, N].

        Raises:
            InputError: fewer than two draws, a non-finite loss, or losses whose products leave float64.
        """
        losses = traces.losses.transpose("chain", "draw", "probe").values
        chains, draws, _ = losses.shape
        require(draws >= 2, f"draws must be >= 2 to estimate a covariance, got {draws}; raise schedule.draws")
        require_finite(losses)
        centred = losses - losses.mean(axis=1, keepdims=True, dtype=np.float64)
        # A constant loss must give exactly zero: its float64 mean need not equal it to the last bit.
        constant = (losses == losses[:, :1]).all(axis=1)
        centred[np.broadcast_to(constant[:, None], centred.shape)] = 0.0
        _require_scale(centred)
        return cls(centred, chains * draws - chains, traces.labels, traces.losses["probe"].values)

    @classmethod
    def from_features(
        cls, features: Any, labels: Mapping[str, Any] | None = None, ids: Sequence[Any] | None = None
    ) -> "LossKernel":
        """Build the kernel of any other representation [N, d]: its Gram matrix, with R the cosine.

        Centre the columns first for a linear CKA-style kernel; features are taken as they are.

        Raises:
            InputError: wrong shape or non-finite numbers.
        """
        values = np.asarray(features, dtype=np.float64)
        require(values.ndim == 2, f"features must be [probe, unit], got shape {values.shape}; flatten the units")
        require(bool(np.isfinite(values).all()), "features hold non-finite numbers; find the layer that made them")
        for name, given in (labels or {}).items():
            require(len(given) == len(values), f"labels[{name!r}] has {len(given)} entries for {len(values)} probes")
        names = np.arange(len(values)) if ids is None else np.asarray(ids)
        require(len(names) == len(values), f"ids has {len(names)} entries for {len(values)} probes")
        return cls(values.T[None], 1.0, labels or {}, names)

    @property
    def probes(self) -> int:
        """N."""
        return self._chains.shape[2]

    @property
    def chains(self) -> int:
        """C."""
        return self._chains.shape[0]

    @property
    def draws(self) -> int:
        """D, per chain."""
        return self._chains.shape[1]

    def features(self) -> np.ndarray:
        """Return the rows A [N, C·D] with K = A Aᵀ: the kernel's feature map."""
        return self._chains.reshape(-1, self.probes).T / np.sqrt(self._divisor)

    def standardised(self) -> np.ndarray:
        """Return unit rows [N, C·D] with R = B Bᵀ; rows of constant probes are zero."""
        return self.features() * self._scale[:, None]

    def covariance(self, rows: Rows = None) -> np.ndarray:
        """Return K [N, N], or K[rows] [n, N]."""
        flat = self._chains.reshape(-1, self.probes)
        return flat[:, self._chosen(rows)].T @ flat / self._divisor

    def correlation(self, rows: Rows = None) -> np.ndarray:
        """Return R [N, N], or R[rows] [n, N]: unit diagonal, and 0 off it where a probe's loss is constant."""
        chosen = self._chosen(rows)
        result = self.covariance(rows) * self._scale[chosen, None] * self._scale
        return self._unit_diagonal(np.clip(result, -1.0, 1.0), chosen)

    def null_correlation(self, rows: Rows = None, *, shift: int = 1) -> np.ndarray:
        """Return an estimate of R [N, N] for unrelated probes, that is of its Monte-Carlo noise alone.

        Each probe's losses are paired with the other's `shift` chains further (with one chain: half the draws
        later), which keeps the tails and the memory of both and removes what they share. The mean |entry| is
        the floor below which |R| says nothing.
        """
        chosen = self._chosen(rows)
        by, axis = (shift, 0) if self.chains > 1 else (self.draws // 2, 1)
        shifted = np.roll(self._chains, by, axis=axis)
        losses = self._chains.reshape(-1, self.probes)[:, chosen]  # [C·D, n]
        return losses.T @ shifted.reshape(-1, self.probes) / self._divisor * self._scale[chosen, None] * self._scale

    def coupling(self, rows: Rows = None) -> np.ndarray:
        """Return R² [N, N] without Monte-Carlo floor: the mean of R_a ∘ R_b over pairs of different chains.

        Noise of independent chains is independent, so its products average to zero; entries may therefore be
        below 0. The square of R itself has a floor of about 1 / (effective draws).

        Raises:
            InputError: there is only one chain.
        """
        require(self.chains >= 2, "coupling needs >= 2 chains, got 1; raise schedule.chains")
        chosen = self._chosen(rows)
        units = (chain * inverse(scale) for chain, scale in zip(self._chains, self._chain_scale, strict=True))
        correlations = (unit[:, chosen].T @ unit for unit in units)
        return self._unit_diagonal(estimators.coupling_of(correlations), chosen)

    def distance(self, rows: Rows = None) -> np.ndarray:
        """Return d = sqrt(2 (1 - R)), the Euclidean distance of standardised traces, [N, N]."""
        return np.sqrt(np.maximum(2 * (1 - self.correlation(rows)), 0.0))

    def variance(self) -> np.ndarray:
        """Return K's diagonal [N]: each probe's self-coupling."""
        return self._variance.copy()

    def standard_error(self, rows: Rows = None, *, of: str = "covariance") -> np.ndarray:
        """Return the standard error [N, N] of each entry of K (of="covariance") or R (of="correlation").

        Chains are cut into batches of consecutive draws, about twenty in all; the scatter of the batches'
        contributions holds both the within-chain correlation and the scatter between chains. R's comes by the
        delta method from u_i u_j - R (u_i² + u_j²) / 2 with u the standardised losses.

        Raises:
            InputError: `of` is unknown, or there are too few draws to cut.
        """
        require(of in ("covariance", "correlation"), f"of must be 'covariance' or 'correlation', got {of!r}")
        chosen, per_chain = self._chosen(rows), estimators.pieces(self.chains, self.draws)
        needed = 2 * max(per_chain, -(-estimators.PIECES // self.chains))
        enough = self.draws >= needed and self.chains * per_chain >= 2
        require(enough, f"standard errors need >= {needed} draws per chain, got {self.draws}; raise schedule.draws")
        if of == "covariance":
            return estimators.batch_means_error(self._chains, per_chain, chosen)
        unit = self._chains * self._scale
        return estimators.batch_means_error(unit, per_chain, chosen, self.correlation(rows))

    def interval(self, rows: Rows = None, *, of: str = "covariance", level: float = 0.9) -> Interval:
        """Return the confidence interval [N, N] of each entry of K or R, from `standard_error` and Student's t.

        R's is symmetric in artanh R (Fisher's z), in which its error hardly depends on R.

        Raises:
            InputError: as `standard_error`; or `level` is not between 0 and 1.
        """
        require(0 < level < 1, f"level must lie between 0 and 1, got {level!r}; e.g. level=0.9")
        error = self.standard_error(rows, of=of)
        freedom = self.chains * estimators.pieces(self.chains, self.draws) - 1
        reach = estimators.t_quantile(freedom, level) * error
        if of == "covariance":
            centre = self.covariance(rows)
            return Interval(centre - reach, centre + reach)
        return estimators.fisher_interval(self.correlation(rows), reach)

    def neighbors(self, k: int) -> Neighbours:
        """Return the k nearest neighbours of every probe under the kernel distance, exact, in blocks.

        Raises:
            InputError: k is not between 1 and N - 1.
        """
        require_integer("k", k, at_least=1)
        require(k < self.probes, f"k must be < the {self.probes} probes, got {k}; lower k")
        numbers = np.arange(self.probes)
        parts = [estimators.nearest(self.distance(block), numbers[block], k) for block in self.blocks()]
        return Neighbours(*(np.concatenate(part) for part in zip(*parts, strict=True)))

    def blocks(self) -> Iterator[slice]:
        """Yield slices of the probes, such that the rows [n, N] of one fit into bounded memory."""
        step = max(1, _BLOCK_NUMBERS // self.probes)
        for start in range(0, self.probes, step):
            yield slice(start, min(start + step, self.probes))

    def only(self, chains: Sequence[int]) -> "LossKernel":
        """Return the kernel of the chains at these positions.

        Raises:
            InputError: `chains` is empty.
        """
        require(len(chains) > 0, "only() got no chains; name at least one")
        kept = self._chains[list(chains)]
        return LossKernel(kept, kept.shape[0] * kept.shape[1] - kept.shape[0], self.labels, self.ids)

    def evenly(self, limit: int) -> "LossKernel":
        """Return the kernel of at most `limit` evenly spaced probes; the kernel itself if it has no more."""
        if self.probes <= limit:
            return self
        chosen = np.linspace(0, self.probes - 1, limit).astype(int)
        labels = {name: np.asarray(values)[chosen] for name, values in self.labels.items()}
        return LossKernel(self._chains[:, :, chosen], self._divisor, labels, self.ids[chosen])

    def label(self, name: str) -> np.ndarray:
        """Return one label of the probes, [N].

        Raises:
            InputError: there is no such label.
        """
        if name not in self.labels:
            known = ", ".join(sorted(self.labels)) or "none"
            raise InputError(f"there is no probe label {name!r}; the labels are {known}")
        return np.asarray(self.labels[name])

    def _chosen(self, rows: Rows) -> Any:
        require(
            rows is not None or self.probes <= MOST_PROBES,
            f"a matrix of {self.probes:,} x {self.probes:,} does not fit into memory; give rows=..., "
            "go through kernel.blocks(), or use kernel.neighbors(k) or kernel.evenly(limit)",
        )
        return slice(None) if rows is None else rows

    def _unit_diagonal(self, matrix: np.ndarray, chosen: Any) -> np.ndarray:
        columns = np.arange(self.probes)[chosen]
        matrix[np.arange(len(columns)), columns] = 1.0
        return matrix

    def __repr__(self) -> str:
        return f"LossKernel({self.probes} probes, {self.chains} chains x {self.draws} draws)"


def _require_scale(centred: np.ndarray) -> None:
    """Raise InputError where variances of products, fourth powers of the losses' deviations, would leave float64."""
    sizes = np.abs(centred).max(axis=(0, 1))  # [N]
    moving = sizes[sizes > 0]
    if not len(moving):
        return
    fits = moving.max() <= _LARGEST and moving.max() >= _SMALLEST and moving.min() ** 2 >= np.finfo(np.float64).tiny
    require(
        bool(fits),
        f"losses deviate by {moving.min():.1e} to {moving.max():.1e}, whose products leave the range of float64; "
        "multiply data.loss by a constant that brings them near 1",
    )
