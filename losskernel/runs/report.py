"""The page of a run: one file that opens anywhere, offline, and says first whether the kernel can be trusted."""

import csv
import io
import itertools
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from losskernel import analyses as builtin
from losskernel import figures
from losskernel.analyses import Convergence
from losskernel.analyses.result import Presentation
from losskernel.config_keys import Use, flat, row
from losskernel.errors import TraceError
from losskernel.figures.html import banner, caption, heading, picture, write_page
from losskernel.figures.shared.presentation import number, with_error

# Of each analysis of a run, in its folder: name -> headline, panels, objective.
PRESENTATION = "presentation.json"
# The numbers of the diagnosis are those of Convergence, and every sampled run has them.
DIAGNOSIS = "diagnosis"
# In a tracker's summary: the metrics that are drawn where runs are compared.
COMPARED_METRICS = "compared_metrics"
# What the metrics of a run mean, in its folder: metric, meaning.
MEANINGS = "tables/meanings.csv"
_ROWS = 20
_VERDICTS = {
    "pass": "Passed: the diagnosis found no reason to distrust this kernel",
    "warn": "Warning: read this kernel with care",
    "fail": "FAILED: do not draw conclusions from this kernel",
}


def write_report(folder: Path) -> Path:
    """Write `report.html` in a run's folder from the other files there, and return its path.

    Read: metrics.json (flat: name -> number), diagnosis.json, analyses.json, config.yaml, .hydra/overrides.yaml,
    tables/*.csv, figures/*.png with a .pdf of the same stem linked and their figures/captions.json, figures/*.gif,
    figures/*.html embedded. All but metrics.json may be missing. The page needs no network.

    Raises:
        FileNotFoundError: the folder holds no metrics.json.
        ValueError: metrics.json or diagnosis.json cannot be read as such.
    """
    folder = Path(folder)
    if not (folder / "metrics.json").is_file():
        raise FileNotFoundError(f"no metrics.json in {folder}; pass the folder of a run that has finished")
    config, meanings = _read_text(folder / "config.yaml"), meanings_of(folder)
    maps, library = _maps(folder)
    name = _run_name(folder, config)
    content = template(Path(__file__).with_suffix(".jinja")).render(
        command=_command(folder),
        banner=lambda *parts: Markup(banner(*parts)),
        diagnosis=_diagnosis(folder / "diagnosis.json", meanings),
        results=_metrics(_read_json(folder / "metrics.json"), meanings),
        meanings=meanings,
        meanings_file=MEANINGS,
        figures=_figures(folder),
        maps=maps,
        tables=[_table(path) for path in sorted(set((folder / "tables").glob("*.csv")) - {folder / MEANINGS})],
        settings=_read_json(folder / "analyses.json") if (folder / "analyses.json").is_file() else {},
        config=config,
    )
    return write_page(folder / "report.html", name, [heading(name, folder), content], library)


def template(path: Path) -> Any:
    """Return a Jinja template that escapes every text it is given, except `Markup`."""
    environment = Environment(
        loader=FileSystemLoader(path.parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(path.name)


def meanings_of(folder: Path) -> dict[str, str]:
    """Return the meanings of a run's metrics, name -> one sentence; users' own metrics often have none."""
    rows = csv.DictReader(io.StringIO(_read_text(folder / MEANINGS)))
    return {row["metric"]: row["meaning"] for row in rows if row.get("metric") and row.get("meaning")}


def is_beside(name: str, metrics: Mapping[str, object]) -> bool:
    """Whether a number is the standard error, or a bound of the interval, of another one."""
    ending = re.search("_(se|low|high)$", name)
    return ending is not None and name.removesuffix(ending.group()) in metrics


def _read_text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="surrogateescape") if path.is_file() else ""


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON ({error}); run the analyses again") from error
    if isinstance(content, dict):
        return content
    raise ValueError(f"{path} must hold an object of names, got {type(content).__name__}; run the analyses again")


def _run_name(folder: Path, config: str) -> str:
    # One top-level line is needed, which is no reason to load a YAML parser.
    line = re.search(r"^name:[ \t]*(\S.*?)[ \t]*$", config, re.MULTILINE)
    return line.group(1).strip("'\"") if line else folder.resolve().name


def _command(folder: Path) -> str:
    """Return the words of the run's command line that matter for its numbers; they distinguish the jobs of a sweep."""
    lines = _read_text(folder / ".hydra" / "overrides.yaml").splitlines()
    words = [line.removeprefix("- ").strip("'\"") for line in lines if line.startswith("- ")]
    keys = [word.lstrip("+~").partition("=")[0].replace("/", ".") for word in words]
    return " ".join(word for word, key in zip(words, keys, strict=True) if Use.QUIET not in row(key).use)


def _diagnosis(path: Path, meanings: Mapping[str, str]) -> dict[str, Any]:
    if not path.is_file():
        return {}
    diagnosis = _read_json(path)
    verdict, reasons, metrics = (diagnosis.get(key) for key in ("verdict", "reasons", "metrics"))
    if not isinstance(verdict, str) or verdict not in _VERDICTS:
        raise ValueError(f"{path}: verdict must be one of {', '.join(_VERDICTS)}, got {verdict!r}; diagnose again")
    prefix = "diagnosis/"
    known = {key.removeprefix(prefix): text for key, text in meanings.items() if key.startswith(prefix)}
    return {
        "verdict": verdict,
        "words": _VERDICTS[verdict],
        "reasons": reasons if isinstance(reasons, list) else [],
        "remedy": diagnosis.get("remedy"),
        "metrics": _metrics(metrics, known) if isinstance(metrics, dict) else {},
    }


def _metrics(metrics: Mapping[str, object], meanings: Mapping[str, str]) -> dict[str, list[dict[str, str]]]:
    """Return prefix of the metrics -> rows; a standard error and an interval belong to the row of their number."""
    groups: dict[str, list[dict[str, str]]] = {}
    for name, value in metrics.items():
        if is_beside(name, metrics):
            continue
        group, _, short = name.partition("/") if "/" in name else ("run", "", name)
        low, high = (metrics.get(f"{name}{end}") for end in ("_low", "_high"))
        interval = "" if low is None or high is None else f"{number(low)} to {number(high)}"
        text = with_error(value, metrics.get(f"{name}_se"))
        row = {"name": short, "text": text, "interval": interval, "meaning": meanings.get(name, "")}
        groups.setdefault(group, []).append(row)
    return groups


def _figures(folder: Path) -> list[Markup]:
    pictures = sorted(path for path in (folder / "figures").glob("*") if path.suffix in (".png", ".gif"))
    file = folder / "figures" / "captions.json"
    captions = _read_json(file) if file.is_file() else {}
    return [Markup(picture(path, escape(str(captions.get(path.stem, ""))))) for path in pictures]


def _maps(folder: Path) -> tuple[list[dict[str, Any]], str]:
    """Return the interactive maps, and the script that they need: plotly.js weighs 5 MB, so all share one copy."""
    maps, library = [], ""
    for path in sorted((folder / "figures").glob("*.html")):
        page, title = path.read_text(encoding="utf-8", errors="surrogateescape"), Markup(caption(path))
        if "Plotly.newPlot" not in page:  # written by hand: kept apart from the page in a frame
            maps.append({"framed": True, "title": title, "content": Markup(escape(page))})
            continue
        body = re.search(r"<body[^>]*>(.*)</body>", page, re.DOTALL)
        content = body.group(1) if body else page
        for script in re.finditer(r"<script\b([^>]*)>(.*?)</script>", page, re.DOTALL):
            is_plotly = len(script.group(2)) > 500_000 and "plotly.js v" in script.group(2)[:2000]
            library = library or (script.group(0) if is_plotly else "")
            if is_plotly or "src=" in script.group(1):  # a script with src= would need the network
                content = content.replace(script.group(0), "")
        library = library or figures.plotly_script()
        maps.append({"framed": False, "title": title, "content": Markup(content)})
    return maps, library


def _table(path: Path) -> dict[str, Any]:
    """Return the first rows of a table; a column of numbers is aligned to the right."""
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        lines = csv.reader(file)
        header = next(lines, [])
        rows = list(itertools.islice(lines, _ROWS))
        total = len(rows) + sum(1 for _ in lines)
    return {
        "title": Markup(caption(path)),
        "file": f"tables/{path.name}",
        "header": header,
        "rows": [[_cell(cell) for cell in row] for row in rows],
        "numeric": [all(map(_parses, column)) for column in itertools.zip_longest(*rows, fillvalue="")],
        "size": f"First {len(rows)} of {total:,} rows" if total > len(rows) else f"{total} rows",
    }


def _cell(text: str) -> str:
    # Sixteen digits of a float hide its size; whole numbers and words stay as they are.
    return text if not _parses(text) or re.fullmatch(r"[+-]?\d*", text.strip()) else number(float(text))


def _parses(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return text.strip() == ""
    return True


# How metrics are shown: written to a run's folder by the analyses that own them, read by pages and sweeps.


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
