"""Do groups of probes separate? |R| within and across, cluster recovery, neighbour purity, each with a null."""

import warnings
from dataclasses import dataclass
from math import log
from typing import ClassVar

import numpy as np
import pandas as pd
from sklearn.cluster import SpectralClustering
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from losskernel import figures
from losskernel.analyses.result import MetricPanel, Result, check_settings, left_out
from losskernel.errors import require
from losskernel.figures.shared.style import INK, OKABE_ITO
from losskernel.kernel import LossKernel, Matrices, bootstrap, noise_floor
from losskernel.traces.loss_traces import LossTraces


@dataclass(frozen=True)
class Separation:
    """Compare |R| within and across the groups of a label, and recover the groups from |R| alone.

    |R|, because within one mechanism both signs occur. Permutations relabel the probes; p-values are
    (1 + count) / (1 + permutations), one-sided.

    Attributes:
        group: label that names the groups; it needs 2 to 100 distinct values.
        neighbours: k of the neighbour purity, the share of a probe's k most coupled that share its group.
        permutations: relabellings for the null.
        limit: probes used at most, evenly spaced; the matrices are N × N.
        seed: fixes clustering and permutations.
    """

    group: str
    neighbours: int = 10
    permutations: int = 999
    limit: int = 2000
    seed: int = 0

    controlled: ClassVar[bool] = True
    objective: ClassVar[str] = "ari"
    headline: ClassVar[dict[str, str]] = {
        "within": "mean |R| within {label}",
        "across": "mean |R| across {label}",
        "noise_floor": "  |R| of Monte-Carlo noise",
        "control/within": "  within, at nbeta = 0",
        "control/across": "  across, at nbeta = 0",
        "ratio": "across / within",
        "coupling_across": "coupling R² across {label}",
        "ari": "cluster recovery (ARI)",
        "control/ari": "  at nbeta = 0",
        "purity": "10-neighbour purity",
        "purity_null": "  by chance",
        "control/purity": "  at nbeta = 0",
    }
    panel: ClassVar[tuple[MetricPanel, ...]] = (
        MetricPanel(
            "coupling R²",
            (("coupling_within", "within", OKABE_ITO[3]), ("coupling_across", "across", OKABE_ITO[0])),
            one_network=True,
        ),
        MetricPanel(
            "mean |R|", (("within", "within", OKABE_ITO[3]), ("across", "across", OKABE_ITO[0])), floor="noise_floor"
        ),
        MetricPanel("cluster recovery (ARI)", (("ari", "", INK),), bounds=(0.0, 1.0)),
    )
    meanings: ClassVar[dict[str, str]] = {
        "within": "mean |R| over pairs of probes of one group; 0 to 1, noise alone gives noise_floor",
        "across": "mean |R| over pairs of probes of two groups; 0 to 1, noise alone gives noise_floor",
        "noise_floor": "mean |R| by Monte-Carlo noise alone; 0 to 1",
        "ratio": "across / within; 0 is full separation, 1 none",
        "coupling_within": "mean coupling (R² without noise floor) over pairs of one group; about 0 to 1",
        "coupling_across": "mean coupling (R² without noise floor) over pairs of two groups; about 0 to 1",
        "ari": "adjusted Rand index of groups and clusters of |R|; 0 by chance, 1 the same",
        "nmi": "normalised mutual information of groups and clusters of |R|; 0 to 1, above 0 by chance",
        "purity": "mean share of a probe's most coupled that share its group; 0 to 1, purity_null by chance",
        "{number}_p": "one-sided p of {number}, probes relabelled; 0 to 1",
        "{number}_null": "mean of {number} with relabelled probes: what chance gives",
        "groups": "groups of the label; a count",
        "probes": "probes; a count",
    }

    def __post_init__(self) -> None:
        require(isinstance(self.group, str), f"analysis.separation.group must be a label's name, got {self.group!r}")
        check_settings(self, "separation", least={"neighbours": 1, "permutations": 1, "limit": 10})

    def __call__(self, kernel: LossKernel, traces: LossTraces) -> Result:
        """Return metrics, a table over pairs of groups, and the matrix and distribution figures."""
        kernel = kernel.evenly(self.limit)
        names, groups = np.unique(kernel.label(self.group), return_inverse=True)
        counts = {"groups": float(len(names)), "probes": float(kernel.probes)}
        if len(names) < 2 or kernel.probes < 4:
            subject = f"{kernel.probes} probes of {len(names)} {self.group}"
            return left_out("separation", f"{subject} hold no pairs within and across groups", counts)
        if kernel.constant.all():
            return left_out("separation", "no loss ever changes", counts)
        most = min(100, kernel.probes // 2)
        require(
            len(names) <= most,
            f"analysis.separation.group={self.group} has {len(names)} distinct values for {kernel.probes} probes; "
            f"choose a label of 2 to {most}",
        )
        same = groups[:, None] == groups  # [N, N]
        off = ~np.eye(len(groups), dtype=bool)  # [N, N]
        metrics = bootstrap(kernel, lambda part: self._numbers(part, groups, same, off))
        strength = np.abs(kernel.correlation())  # [N, N]
        clusters = self._cluster(strength, len(names))
        metrics |= self._null(strength, clusters, groups)  # by relabelling: resamples give errors, no null
        metrics |= counts | noise_floor(kernel)
        matrix = figures.kernel_matrix(kernel.correlation(), kernel.label(self.group), clusters, self.group)
        within, across = strength[same & off], strength[~same]
        distribution = figures.within_across(within, across, metrics["noise_floor"], self.group)
        drawn = {"kernel_matrix": matrix, "within_across": distribution}
        return Result(metrics, {"groups": _pairs(strength, off, names, groups)}, drawn)

    def _numbers(self, kernel: Matrices, groups: np.ndarray, same: np.ndarray, off: np.ndarray) -> dict[str, float]:
        strength = np.abs(kernel.correlation())
        clusters = self._cluster(strength, int(groups.max()) + 1)
        within, across = strength[same & off].mean(), strength[~same].mean()
        numbers = {
            "within": within,
            "across": across,
            "ratio": across / within,
            "ari": adjusted_rand_score(groups, clusters),
            "nmi": normalized_mutual_info_score(groups, clusters),
            "purity": (groups[self._nearest(strength)] == groups[:, None]).mean(),
        }
        if kernel.chains >= 2:
            coupling = kernel.coupling()
            numbers |= {"coupling_within": coupling[same & off].mean(), "coupling_across": coupling[~same].mean()}
        return {name: float(value) for name, value in numbers.items()}

    def _cluster(self, strength: np.ndarray, count: int) -> np.ndarray:
        model = SpectralClustering(count, affinity="precomputed", random_state=self.seed, assign_labels="cluster_qr")
        with warnings.catch_warnings():
            # Constant probes leave the graph in several pieces, which is a fact about them, not a fault.
            warnings.filterwarnings("ignore", message="Graph is not fully connected")
            return model.fit_predict(strength)

    def _nearest(self, strength: np.ndarray) -> np.ndarray:
        others = strength - 2 * np.eye(len(strength))  # no probe is its own neighbour
        k = min(self.neighbours, len(strength) - 1)
        return np.argpartition(-others, k - 1, axis=1)[:, :k]

    def _null(self, strength: np.ndarray, clusters: np.ndarray, groups: np.ndarray) -> dict[str, float]:
        """Return p-values and null means of the mean |R| within groups, ARI, NMI and purity."""
        rng = np.random.default_rng(self.seed)
        bare = strength - np.eye(len(strength))  # |R| with 0 on the diagonal
        nearest = self._nearest(strength)  # [N, k]
        in_cluster = np.eye(clusters.max() + 1)[clusters]  # [N, clusters]

        def measure(labels: np.ndarray) -> np.ndarray:
            members = np.eye(labels.max() + 1)[labels]  # [N, groups]
            sizes = members.sum(0)  # [groups]
            within = np.einsum("ng,ng->", members, bare @ members) / (sizes * (sizes - 1)).sum()
            purity = (labels[nearest] == labels[:, None]).mean()
            return np.array([within, *agreement(members.T @ in_cluster), purity])

        observed = measure(groups)  # [4]
        null = np.array([measure(rng.permutation(groups)) for _ in range(self.permutations)])
        # A relabelling that reaches the observed value counts, whatever rounding does.
        p = (1 + (null >= observed - 1e-12).sum(0)) / (1 + self.permutations)
        names = ("within", "ari", "nmi", "purity")
        return {f"{name}_p": float(value) for name, value in zip(names, p, strict=True)} | {
            f"{name}_null": float(value) for name, value in zip(names, null.mean(0), strict=True)
        }


def agreement(counts: np.ndarray) -> tuple[float, float]:
    """Return ARI and NMI of two partitions from how many items each pair of their parts shares, [parts, parts].

    The numbers of scikit-learn, which takes a hundred times as long for each of a thousand relabellings.

    Source: Hubert & Arabie 1985 (ARI); mutual information over the mean of the entropies (NMI).
    """
    counts = counts[np.ix_(counts.any(1), counts.any(0))]  # a part may be empty
    rows, columns, shared = counts.sum(1), counts.sum(0), counts[counts > 0]
    if len(rows) == len(columns) == 1:
        return 1.0, 1.0
    total = int(rows.sum())
    together = int(np.square(shared).sum()) - total  # ordered pairs of items, together in both partitions
    in_rows, in_columns = (int(np.square(sizes).sum()) - total - together for sizes in (rows, columns))
    apart = total**2 - total - together - in_rows - in_columns
    chance = (together + in_rows) * (in_rows + apart) + (together + in_columns) * (in_columns + apart)
    ari = 2.0 * (together * apart - in_rows * in_columns) / chance if in_rows or in_columns else 1.0
    share, expected = shared / total, np.multiply.outer(rows, columns)[counts > 0]
    terms = share * (np.log(shared) - log(total)) + share * (-np.log(expected) + log(total) + log(total))
    information = max(float(np.where(np.abs(terms) < np.finfo(float).eps, 0.0, terms).sum()), 0.0)
    entropies = [-float((sizes / total * (np.log(sizes) - log(total))).sum()) for sizes in (rows, columns)]
    return ari, information / float(np.mean(entropies)) if 1 not in counts.shape else 0.0


def _pairs(strength: np.ndarray, off: np.ndarray, names: np.ndarray, groups: np.ndarray) -> pd.DataFrame:
    """Return the mean |R| of every pair of groups."""
    rows = []
    for first, group in enumerate(names):
        for second, other in enumerate(names[first:], first):
            chosen = (groups[:, None] == first) & (groups == second) & off
            rows.append((group, other, strength[chosen].mean(), int(chosen.sum()) // (1 + (first == second))))
    return pd.DataFrame(rows, columns=["group", "other", "mean_abs_R", "pairs"])
