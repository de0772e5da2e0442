"""The short table that a run ends with."""

from losskernel.kernel.diagnosis.diagnose import Diagnosis
from losskernel.runs.presentation import headline
from losskernel.runs.run import Outcome

# What is named at the end; a sheet of suspects is what an audit is run for.
FILES = (
    "report.html",
    "metrics.json",
    "traces.zarr",
    "figures",
    "tables",
    "figures/suspects.html",
    "tables/memorisation_suspects.csv",
)


def summary(outcome: Outcome, label: str) -> str:
    """Return verdict, headline numbers with standard errors, and the paths of what was made."""
    lines = ["nothing was sampled: points only"] if outcome.diagnosis is None else _verdict(outcome.diagnosis)
    if outcome.before:
        return "\n".join([f"{outcome.folder} has finished before; nothing was done", *lines])
    lines += [f"  replaced: {each}" for each in outcome.replaced]
    for key, words in headline(outcome.shown).items():
        if key in outcome.metrics and outcome.metrics[key] is not None:
            error = outcome.metrics.get(f"{key}_se")
            spread = "" if error is None else f" ± {error:.2g}"
            lines.append(f"  {words.format(label=label):<34} {outcome.metrics[key]:.4g}{spread}")
    for name in FILES:
        if (outcome.folder / name).exists():
            lines.append(f"  {name.split('/')[-1].removeprefix('memorisation_'):<13} {outcome.folder / name}")
    return "\n".join(lines)


def _verdict(diagnosis: Diagnosis) -> list[str]:
    lines = [f"diagnosis: {diagnosis.verdict}", *(f"  - {reason}" for reason in diagnosis.reasons)]
    return [*lines, f"  first: {diagnosis.remedy}"] if diagnosis.remedy else lines
