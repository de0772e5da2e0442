"""Ways to attribute: each gives every training sample an influence on every query, positive = helpful."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from losskernel.errors import InputError, require
from losskernel.kernel import LossKernel, inverse, pieces

Baselines = Mapping[str, np.ndarray]  # name -> rows [N, d]
# Of the loss kernel: K and R between training samples and queries.
COVARIANCE, CORRELATION = KERNEL_METHODS = ("covariance", "correlation")
_COSINE, _QUERY, _TRAIN, _SAME, _RANDOM = "_cosine", "_query", "_train", "same_", "random"


class Roles(NamedTuple):
    """Which probes of a joint trace are queries, and which are training samples."""

    queries: np.ndarray  # [Q]
    train: np.ndarray  # [T]

    @classmethod
    def of(cls, roles: np.ndarray) -> "Roles":
        """Read the label `role`, [N].

        Raises:
            InputError: there are no queries or no two training samples.
        """
        queries, train = (np.flatnonzero(np.asarray(roles).astype(str) == role) for role in ("query", "train"))
        require(
            len(queries) >= 1 and len(train) >= 2,
            f"it needs probes of both roles, got {len(queries)} queries and {len(train)} training samples; "
            "add wrapper=[joint_probes]",
        )
        return cls(queries, train)


class Method(NamedTuple):
    """Influences of a method: the sum over parts of train · queryᵀ, each part a share of the evidence.

    The scores of all parts together are [T, Q]; kernels come in pieces of chains, to see their own noise.
    """

    name: str
    train: list[np.ndarray]  # parts [T, d]
    query: list[np.ndarray]  # parts [Q, d]

    def scores(self) -> np.ndarray:
        """Return the influence of every training sample on every query, [T, Q]."""
        return sum(
            (train @ query.T for train, query in zip(self.train, self.query, strict=True)),
            np.zeros((len(self.train[0]), len(self.query[0]))),
        )


def bayesian_influence(kernel: LossKernel, roles: Roles, of: str = COVARIANCE) -> np.ndarray:
    """Return the Bayesian influence of training samples on queries, [T, Q]: a block of K, or of R.

    τ(z_i, q) = +Cov(l_i, l_q) over the localised posterior: positive where more weight on the training sample z_i
    lowers the query's loss. The literature's BIF(z_i, φ) = -Cov(l_i, φ) has the other sign: it is the change of φ, such
    as a query's loss, with the weight on z_i.

    Raises:
        InputError: `of` is neither "covariance" nor "correlation".

    Source: arXiv 2509.26544. Where the training loss is a parabola and the losses are linear, Cov is 1 / nβ times the
    classical influence with damping γ / nβ (losskernel.representations.baselines.features).
    """
    require(of in KERNEL_METHODS, f"of must be one of {', '.join(KERNEL_METHODS)}, got {of!r}")
    rows = kernel.covariance(roles.queries) if of == COVARIANCE else kernel.correlation(roles.queries)
    return rows[:, roles.train].T


def method_names(baselines: Baselines, label: str | None) -> list[str]:
    """Return all methods that a run has what they need for.

    A baseline gives dot products and cosines; one that gives separate rows of queries and training samples only dot
    products, and one of a single column nothing.
    """
    paired = [name.removesuffix(_QUERY) for name in baselines if _is_paired(name.removesuffix(_QUERY), baselines)]
    halves = {name + end for name in paired for end in (_QUERY, _TRAIN)}
    single = [name for name, rows in baselines.items() if name not in halves and rows.shape[1] > 1]
    named = [method for name in single for method in (name, name + _COSINE)]
    return [*KERNEL_METHODS, *paired, *named, *([_SAME + label] if label else []), _RANDOM]


def method_of(
    name: str, kernel: LossKernel, baselines: Baselines, roles: Roles, label: str | None = None, seed: int = 0
) -> Method:
    """Return the influence that a method gives every training sample on every query.

    Args:
        name: covariance, correlation; a baseline's name, for dot products of its rows, or of its `_query` with its
            `_train` rows where it gives both; that with `_cosine`; same_<label>, 1 within the same group; random.
        kernel: of the joint trace, whose probes have `roles`.
        baselines: name -> rows [N, d].
        roles: which probes are queries and which training samples.
        label, seed: that same_<label> compares; of random.

    Raises:
        InputError: the run has nothing of that name.
    """
    if name in KERNEL_METHODS:
        return _of_kernel(name, kernel, roles)
    if name == _RANDOM:
        queries = len(roles.queries)
        noise = np.random.default_rng(seed).normal(size=(len(roles.train), queries))
        return _of_rows(name, noise, np.eye(queries))
    if label is not None and name == _SAME + label:
        groups = np.unique(kernel.label(label), return_inverse=True)[1]
        same = np.eye(groups.max() + 1)[groups]  # [N, groups] one-hot rows: their products are 1 within a group
        return _of_rows(name, same[roles.train], same[roles.queries])
    if _is_paired(name, baselines):
        return _of_rows(name, baselines[name + _TRAIN][roles.train], baselines[name + _QUERY][roles.queries])
    base = name.removesuffix(_COSINE)
    if base not in baselines:
        known = ", ".join(method_names(baselines, label))
        raise InputError(f"attribution has no method {name!r}; choose from {known}, or add the baseline")
    rows = np.asarray(baselines[base], dtype=np.float64)  # [N, d]
    rows = rows if name == base else rows * inverse(np.linalg.norm(rows, axis=1))[:, None]
    return _of_rows(name, rows[roles.train], rows[roles.queries])


def _is_paired(name: str, baselines: Baselines) -> bool:
    return name + _QUERY in baselines and name + _TRAIN in baselines


def _of_rows(name: str, train: np.ndarray, query: np.ndarray) -> Method:
    return Method(name, [np.asarray(train, dtype=np.float64)], [np.asarray(query, dtype=np.float64)])


def _of_kernel(name: str, kernel: LossKernel, roles: Roles) -> Method:
    """Cut each chain into stretches of consecutive draws, about twenty in all, as the bootstrap of kernels does."""
    rows = kernel.features() if name == COVARIANCE else kernel.standardised()
    chains = rows.reshape(kernel.probes, kernel.chains, kernel.draws)  # [N, C, D]
    parts = np.array_split(chains, pieces(kernel.chains, kernel.draws), axis=2)
    cut = [part[:, chain] for chain in range(kernel.chains) for part in parts]  # [N, draws of a stretch] each
    return Method(name, [part[roles.train] for part in cut], [part[roles.queries] for part in cut])
