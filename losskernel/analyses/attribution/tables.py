"""Tables of attribution: the scores of all methods, and the most influential training samples of every query."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from losskernel.analyses.attribution.influences import Influences
from losskernel.analyses.attribution.method_scores import Judged, named
from losskernel.analyses.attribution.methods import Joint
from losskernel.kernel.loss_kernel import LossKernel


def scores(judged: Judged, methods: Sequence[str]) -> pd.DataFrame:
    """Return a row per output and method: score, error, 90 % interval, chance, p, and the first method's lead."""
    records = []
    for output in judged.actual:
        for method in methods:
            own, lead = named(output, f"lds_{method}"), named(output, f"lead_over_{method}")
            low, high, p = judged.chance[own]
            record: dict[str, Any] = {"method": method, "output": output}
            record |= {f"lds{end}": judged.numbers[own + end] for end in ("", "_se", "_low", "_high")}
            record |= {"p": p, "chance_low": low, "chance_high": high}
            record |= {f"lead{end}": judged.numbers.get(lead + end, np.nan) for end in ("", "_se", "_low", "_high")}
            records.append(record)
    return pd.DataFrame(records)


def influential(influences: Influences, kernel: LossKernel, joint: Joint, label: str | None) -> pd.DataFrame:
    """Return a row per query and extreme training sample: ids, rank, direction, influence and its standard error."""
    groups = None if label is None else kernel.label(label)
    records = []
    for direction, places in (("helpful", influences.helpful), ("harmful", influences.harmful)):
        for (query, rank), place in np.ndenumerate(places):
            if place < 0:
                continue
            probe, asked = joint.train[place], joint.queries[query]
            record: dict[str, Any] = {"query": kernel.ids[asked], "direction": direction, "rank": rank + 1}
            record["training_sample"] = kernel.ids[probe]
            if label is not None and groups is not None:
                record |= {f"query_{label}": groups[asked], label: groups[probe]}
            record |= {"influence": influences.values[place, query], "influence_se": influences.errors[place, query]}
            records.append((query, record))
    return pd.DataFrame([record for _, record in sorted(records, key=lambda each: each[0])])
