"""Mean over the seeds of sweeps of what each score finds: table.py NAME=FOLDER [NAME=FOLDER ...]"""

import json
import sys
from pathlib import Path

import pandas as pd


def read(name: str, sweep: Path) -> pd.DataFrame:
    """Return a row per seed and score."""
    parts = []
    for folder in sorted(path.parent for path in sweep.glob("*/metrics.json")):
        table = pd.read_csv(folder / "tables" / "memorisation_detection.csv")
        verdict = json.loads((folder / "diagnosis.json").read_text())["verdict"]
        parts.append(table.assign(study=name, seed=folder.name, verdict=verdict))
    return pd.concat(parts)


if __name__ == "__main__":
    rows = pd.concat([read(name, Path(sweep)) for name, sweep in (text.split("=", 1) for text in sys.argv[1:])])
    columns = ["study", "seed", "verdict", "score", "auroc", "auroc_se", "ap", "recall", "minus_loss", "minus_loss_se"]
    rows[columns].round(5).to_csv(Path(__file__).with_name("detection.csv"), index=False)
    for study, own in rows.groupby("study", sort=False):
        print(f"\n{study}: verdicts {' '.join(own.groupby('seed')['verdict'].first())}\n")
        print("| score | AUROC, mean (least to most over seeds) | average precision | recall at the noise rate |")
        print("|---|---|---|---|")
        for score, each in own.groupby("score", sort=False):
            auroc = each["auroc"]
            print(
                f"| {score} | {auroc.mean():.4f} ({auroc.min():.4f} to {auroc.max():.4f}) "
                f"| {each['ap'].mean():.3f} | {each['recall'].mean():.3f} |"
            )
