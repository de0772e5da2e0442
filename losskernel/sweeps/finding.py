"""What one further question about all runs of a comparison leaves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from losskernel.analyses.result import Result


@dataclass(frozen=True)
class Finding:
    """Numbers, tables and pictures about all runs together.

    Attributes:
        result: numbers, tables, figures, animations.
        captions: figure or animation -> what it shows, in the order of the page; a figure without one is not on it.
        notes: what must be said before all.
    """

    result: Result = field(default_factory=Result)
    captions: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()


def joined(findings: Sequence[Finding]) -> Result:
    """Return all results as one."""
    found = Result()
    for each in findings:
        for kind in ("metrics", "tables", "figures", "animations"):
            getattr(found, kind).update(getattr(each.result, kind))
    return found


def pictured(findings: Sequence[Finding]) -> dict[str, str]:
    """Return file -> caption of all that the page shows, in its order."""
    return {
        f"{name}.{'gif' if name in each.result.animations else 'png'}": text
        for each in findings
        for name, text in each.captions.items()
    }
