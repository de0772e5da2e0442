"""What each score finds of the labels that people got wrong, alone, in pairs and all together, over the seeds of runs.

usage: python experiments/label_errors/table.py NAME=FOLDER ...     runs of experiment=cifar10n below FOLDER
"""

import json
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from scipy.stats import rankdata
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score

CONFUSIONS = (("cat", "dog"), ("automobile", "truck"))
KERNEL = ("opposition", "self_coupling", "mean_loss")  # scores of the kernel that are combined with a baseline


class Run:
    """A run's probes: which are mislabelled, and every score as ranks between 0 and 1."""

    def __init__(self, folder: Path) -> None:
        tables = folder / "tables"
        self.seed = int(yaml.safe_load((folder / "config.yaml").read_text())["seed"])
        self.verdict = json.loads((folder / "diagnosis.json").read_text())["verdict"]
        self.detection = pd.read_csv(tables / "memorisation_detection.csv").set_index("score")
        self.probes = pd.read_csv(tables / "memorisation_suspects.csv")
        self.wrong = self.probes["mislabelled"].to_numpy(bool)
        names = {name: f"{name}_score" if f"{name}_score" in self.probes else name for name in self.detection.index}
        self.ranks = {name: rankdata(self.probes[column]) / len(self.probes) for name, column in names.items()}

    def of_kind(self, kind: str) -> list[str]:
        """Return the scores of the kernel, or the baselines."""
        return [str(name) for name in self.detection.index[self.detection["kind"] == kind]]

    def of(self, pair: tuple[str, str]) -> np.ndarray:
        """Return which probes are of two classes and labelled as one of them, [N] bool."""
        return self.probes["given"].isin(pair).to_numpy() & self.probes["true_class"].isin(pair).to_numpy()

    def among(self, pair: tuple[str, str], name: str) -> np.ndarray:
        """Return those probes' ranks under a score."""
        return self.ranks[name][self.of(pair)]

    def features(self, names: Sequence[str]) -> np.ndarray:
        """Return log odds of the ranks of some scores, [N, scores]."""
        ranks = np.stack([self.ranks[name] for name in names], axis=1)
        clipped = ranks.clip(0.5 / len(ranks), 1 - 0.5 / len(ranks))
        return np.log(clipped / (1 - clipped))


def spread(values: Sequence[float]) -> str:
    """Return mean ± standard error over seeds."""
    error = np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
    return f"{np.mean(values):.3f} ± {error:.3f}"


def alone(runs: Sequence[Run]) -> list[str]:
    """Return a line per score: average precision, recall at the true rate, AUROC; and on each confusion."""
    head = ("score", "average precision", "recall at the true rate", "AUROC", "cat/dog", "automobile/truck")
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    share = spread([float(run.wrong.mean()) for run in runs])
    chance = [spread([confused(run, pair).mean() for run in runs]) for pair in CONFUSIONS]
    lines.append("| " + " | ".join(["*by chance*", share, share, "0.5", *chance]) + " |")
    for name in runs[0].detection.index:
        cells = [spread([run.detection.loc[name, key] for run in runs]) for key in ("ap", "recall", "auroc")]
        for pair in CONFUSIONS:
            cells.append(spread([average_precision_score(confused(run, pair), run.among(pair, name)) for run in runs]))
        lines.append("| " + " | ".join([name, *cells]) + " |")
    return lines


def confused(run: Run, pair: tuple[str, str]) -> np.ndarray:
    """Return which of the probes that are of two classes, and labelled as one of them, are mislabelled."""
    wrong = run.wrong[run.of(pair)]
    if not 0 < wrong.sum() < len(wrong):
        sys.exit(f"seed {run.seed}: no label of {' and '.join(pair)} is wrong, or all are; raise training_probes.limit")
    return wrong


def in_pairs(runs: Sequence[Run]) -> list[str]:
    """Return a line per kernel score and baseline: average precision of their mean rank, and less the better one's.

    The better one is chosen in hindsight, seed by seed: the gain is if anything larger.
    """
    lines = ["| kernel score | baseline | mean rank | less the better of the two |", "|---" * 4 + "|"]
    for kernel, baseline in product(KERNEL, runs[0].of_kind("baseline")):
        both, gain = [], []
        for run in runs:
            mean = run.ranks[kernel] + run.ranks[baseline]
            single = [average_precision_score(run.wrong, run.ranks[name]) for name in (kernel, baseline)]
            both.append(average_precision_score(run.wrong, mean))
            gain.append(both[-1] - max(single))
        lines.append(f"| {kernel} | {baseline} | {spread(both)} | {spread(gain)} |")
    return lines


def together(runs: Sequence[Run]) -> list[str]:
    """Return what logistic regressions on all scores find in a seed's probes, fitted to the other seeds'.

    Pictures that are probes of the seed are left out of the fit. Errors are a lower bound: the fits share pictures.
    """
    sets = {"baselines": runs[0].of_kind("baseline"), "kernel": runs[0].of_kind("kernel")}
    sets["both"] = sets["baselines"] + sets["kernel"]
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in sets}
    for left_out, (name, columns) in product(range(len(runs)), sets.items()):
        others = [run for number, run in enumerate(runs) if number != left_out]
        ids = set(runs[left_out].probes["id"])
        fresh = [~run.probes["id"].isin(ids).to_numpy() for run in others]
        model = LogisticRegression(C=0.1, max_iter=1000)
        model.fit(
            np.concatenate([run.features(columns)[rows] for run, rows in zip(others, fresh, strict=True)]),
            np.concatenate([run.wrong[rows] for run, rows in zip(others, fresh, strict=True)]),
        )
        score = model.decision_function(runs[left_out].features(columns))
        wrong = runs[left_out].wrong
        found[name].append((average_precision_score(wrong, score), roc_auc_score(wrong, score)))
    lines = ["| logistic regression on | average precision | AUROC |", "|---" * 3 + "|"]
    lines += [
        f"| {name} | {spread([ap for ap, _ in each])} | {spread([auc for _, auc in each])} |"
        for name, each in found.items()
    ]
    gains = [both[0] - alone[0] for both, alone in zip(found["both"], found["baselines"], strict=True)]
    return [*lines, "", f"Both less baselines alone, average precision, paired over seeds: {spread(gains)}"]


if __name__ == "__main__":
    if not sys.argv[1:] or not all("=" in text for text in sys.argv[1:]):
        sys.exit(__doc__)
    rows = []
    for text in sys.argv[1:]:
        name, folder = text.split("=", 1)
        runs = sorted((Run(path.parent) for path in Path(folder).glob("*/metrics.json")), key=lambda run: run.seed)
        if not runs:
            sys.exit(f"{folder} holds no finished runs")
        rows += [run.detection.reset_index().assign(study=name, seed=run.seed, verdict=run.verdict) for run in runs]
        verdicts = " ".join(run.verdict for run in runs)
        print(f"\n## {name}: seeds {' '.join(str(run.seed) for run in runs)}; verdicts {verdicts}\n")
        print("\n".join([*alone(runs), "", *in_pairs(runs), ""]))
        if len(runs) > 1:
            print("\n".join(together(runs)))
    columns = ["study", "seed", "verdict", "score", "kind", "auroc", "auroc_se", "ap", "ap_se", "recall", "recall_se"]
    pd.concat(rows)[columns].round(4).to_csv(Path(__file__).with_name("detection.csv"), index=False)
