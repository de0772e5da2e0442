"""Mean over the seeds of a sweep of how each score goes with flips: table.py FOLDER"""

import json
import sys
from pathlib import Path

import pandas as pd

if __name__ == "__main__":
    parts = []
    for folder in sorted(path.parent for path in Path(sys.argv[1]).glob("*/metrics.json")):
        verdict = json.loads((folder / "diagnosis.json").read_text())["verdict"]
        parts.append(pd.read_csv(folder / "tables" / "robustness.csv").assign(seed=folder.name, verdict=verdict))
    rows = pd.concat(parts)
    columns = ["seed", "verdict", "perturbation", "score", "spearman", "spearman_se", "partial", "partial_se"]
    rows[columns].round(5).to_csv(Path(__file__).with_name("correlations.csv"), index=False)
    print(
        "| perturbation | score | Spearman, mean (least to most) | partial, mean (least to most) |\n|---|---|---|---|"
    )
    for (perturbation, score), own in rows.groupby(["perturbation", "score"], sort=False):
        cells = [
            f"{each.mean():.3f} ({each.min():.3f} to {each.max():.3f})" if each.notna().all() else ""
            for each in (own["spearman"], own["partial"])
        ]
        print(f"| {perturbation} | {score} | {' | '.join(cells)} |")
