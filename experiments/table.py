"""Print a markdown table of some metrics over the runs of a sweep: table.py FOLDER metric [metric ...]."""

import json
import sys
from pathlib import Path

import yaml


def rows(sweep: Path, metrics: list[str]) -> list[list[str]]:
    """Return a row per run: what was overridden, the verdict, and each metric with its standard error."""
    found = []
    for folder in sorted((each for each in sweep.iterdir() if (each / "metrics.json").is_file()), key=_number):
        numbers = json.loads((folder / "metrics.json").read_text())
        overrides = yaml.safe_load((folder / ".hydra" / "overrides.yaml").read_text())
        swept = " ".join(each for each in overrides if not each.startswith(("logger", "analysis", "progress", "paths")))
        verdict = json.loads((folder / "diagnosis.json").read_text())["verdict"]
        found.append([swept, verdict, *(_cell(numbers, name) for name in metrics)])
    return found


def _number(folder: Path) -> int:
    return int(folder.name) if folder.name.isdigit() else -1


def _cell(numbers: dict[str, float], name: str) -> str:
    error = numbers.get(f"{name}_se")
    return f"{numbers[name]:.3g}" + (f" ± {error:.1g}" if error else "")


if __name__ == "__main__":
    names = sys.argv[2:]
    print("| run | verdict | " + " | ".join(name.split("/")[-1] for name in names) + " |")
    print("|---" * (2 + len(names)) + "|")
    for row in rows(Path(sys.argv[1]), names):
        print("| " + " | ".join(row) + " |")
