"""When does each level of a tree appear in the kernel? One toy per seed: study.py FOLDER seed [seed ...]"""

import csv
import json
import subprocess
import sys
from pathlib import Path


def run(folder: Path, seed: int) -> dict[str, object]:
    """Train one toy, sample at all its checkpoints, and return the step at which each level appears."""
    common = ["analysis=[convergence,levels]", "logger=none", "progress=false"]
    toy = folder / str(seed)
    subprocess.run(
        ["losskernel", "experiment=taxonomy_toy", f"seed={seed}", f"paths.run={toy}", *common],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    subprocess.run(["losskernel-dynamics", f"run={toy}", *common], check=True, stdout=subprocess.DEVNULL)
    found = json.loads((toy / "dynamics" / "dynamics.json").read_text())
    row: dict[str, object] = {"seed": seed}
    for each in csv.DictReader((toy / "dynamics" / "tables" / "emergence.csv").open()):
        row |= {
            f"{each['level']}{end}": float(each[key]) for end, key in (("", "step"), ("_low", "low"), ("_high", "high"))
        }
    row |= {key: found.get(f"levels/{key}") for key in ("in_order", "in_order_share")}
    return row | {key: found[f"runs_{key}"] for key in ("pass", "warn", "fail")}


if __name__ == "__main__":
    out, seeds = Path(sys.argv[1]), [int(text) for text in sys.argv[2:]]
    rows = []
    for seed in seeds:
        rows.append(run(out, seed))
        print(rows[-1], flush=True)
        with Path(__file__).with_name("emergence.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
