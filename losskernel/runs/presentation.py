"""How the metrics of a run are shown: written to its folder by the analyses that own them, read by pages and sweeps."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from losskernel import analyses as builtin
from losskernel.analyses import Convergence
from losskernel.analyses.result import Presentation
from losskernel.config_keys import flat
from losskernel.errors import TraceError

# Of each analysis of a run, in its folder: name -> headline, panels, objective.
PRESENTATION = "presentation.json"
# The numbers of the diagnosis are those of Convergence, and every sampled run has them.
DIAGNOSIS = "diagnosis"
# In a tracker's summary: the metrics that are drawn where runs are compared.
COMPARED_METRICS = "compared_metrics"


def presentations(analyses: Mapping[str, object]) -> dict[str, Presentation]:
    """Return how each analysis shows its metrics, and how the diagnosis does."""
    result = {name: Presentation.of(name, analysis) for name, analysis in analyses.items()}
    diagnosis = Presentation(panels=Presentation.of(DIAGNOSIS, Convergence).panels)
    for name, analysis in analyses.items():
        if isinstance(analysis, Convergence):  # its numbers are drawn once, as the diagnosis'
            result[name] = replace(result[name], panels=())
    return result | {DIAGNOSIS: diagnosis}


def read_presentations(folder: Path) -> dict[str, Presentation]:
    """Return how the metrics of a run are shown.

    Runs of earlier versions did not store it: for an analysis of this package that of this version stands in.

    Raises:
        TraceError: the file is damaged.
    """
    settings = folder / "config.yaml"
    config = yaml.safe_load(settings.read_text(encoding="utf-8")) if settings.is_file() else {}
    classes = {
        key.split(".")[1]: getattr(builtin, str(target).rpartition(".")[2], None)
        for key, target in flat(config).items()
        if key.startswith("analysis.") and key.endswith("._target_") and str(target).startswith("losskernel.")
    }
    result = presentations({name: known for name, known in classes.items() if known is not None})
    path = folder / PRESENTATION
    if not path.is_file():
        return result
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return result | {name: Presentation.from_json(shown) for name, shown in content.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        remedy = "remove it: losskernel-analyse writes it anew"
        raise TraceError(f"{path} is damaged: it does not say how metrics are shown; {remedy}") from error


def headline(shown: Mapping[str, Presentation]) -> dict[str, str]:
    """Return metric -> words of all analyses; whether to believe the others comes last."""
    last = Presentation.of("convergence", Convergence).headline
    rows = {metric: words for presentation in shown.values() for metric, words in presentation.headline.items()}
    return dict(sorted(rows.items(), key=lambda row: row[0] in last))


def compared_metrics(shown: Mapping[str, Presentation]) -> list[str]:
    """Return the metrics that are drawn where any runs are compared, but for those of the diagnosis."""
    panels = [panel for name, presentation in shown.items() if name != DIAGNOSIS for panel in presentation.panels]
    return [metric for panel in panels if not panel.one_network for metric, _, _ in panel.curves]


def objective(shown: Mapping[str, Presentation], metrics: Mapping[str, Any]) -> float | None:
    """Return the metric that a sweeper optimises: the first objective of an analysis that was measured."""
    names = [presentation.objective for presentation in shown.values()]
    return next((metrics[name] for name in names if name and metrics.get(name) is not None), None)
