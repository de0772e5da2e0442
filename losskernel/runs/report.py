"""The page of a run: one file that opens anywhere, offline, and says first whether the kernel can be trusted."""

import csv
import io
import itertools
import json
import re
from collections.abc import Mapping
from html import escape
from pathlib import Path
from urllib.parse import quote

from losskernel.config_keys import Use, row
from losskernel.figures.html import banner, caption, heading, picture, section, write_page
from losskernel.figures.shared.presentation import number, with_error

# What the metrics of a run mean, in its folder: metric, meaning.
MEANINGS = "tables/meanings.csv"
_ROWS = 20
_VERDICTS = {
    "pass": "Passed: the diagnosis found no reason to distrust this kernel",
    "warn": "Warning: read this kernel with care",
    "fail": "FAILED: do not draw conclusions from this kernel",
}


def write_report(folder: Path) -> Path:
    """Write `report.html` in a run's folder from the files that lie there, and return its path.

    Read: metrics.json (flat: name -> number), diagnosis.json, analyses.json, config.yaml, .hydra/overrides.yaml,
    tables/*.csv, figures/*.png with a .pdf of the same stem linked and their figures/captions.json, figures/*.gif,
    figures/*.html embedded. All but metrics.json may be missing. The page needs no network; an older page is replaced
    in one step.

    Raises:
        FileNotFoundError: the folder holds no metrics.json.
        ValueError: metrics.json or diagnosis.json cannot be read as such.
    """
    folder = Path(folder)
    if not (folder / "metrics.json").is_file():
        raise FileNotFoundError(f"no metrics.json in {folder}; pass the folder of a run that has finished")
    metrics = _read_json(folder / "metrics.json")
    config = _read_text(folder / "config.yaml")
    name, meanings = _run_name(folder, config), meanings_of(folder)
    maps, library = _interactive(folder)
    sections = [
        heading(name, folder) + _asked_for(folder),
        _verdict(folder / "diagnosis.json", meanings),
        section(
            "Results (± standard error; hover numbers for 90 % intervals, names for meanings)",
            _metrics(metrics, meanings) + _glossary(meanings),
        ),
        section("Figures", _figures(folder)),
        section("Interactive maps", maps),
        section("Tables", _tables(folder)),
        section("Analyses as asked", _asked(folder / "analyses.json")),
        section("Configuration", f"<details><summary>config.yaml</summary><pre>{escape(config)}</pre></details>")
        if config
        else "",
    ]
    return write_page(folder / "report.html", name, sections, library)


def meanings_of(folder: Path) -> dict[str, str]:
    """Return what a run's folder says that its metrics mean, name -> one sentence; of users' own often nothing."""
    rows = csv.DictReader(io.StringIO(_read_text(folder / MEANINGS)))
    return {row["metric"]: row["meaning"] for row in rows if row.get("metric") and row.get("meaning")}


def is_beside(name: str, metrics: Mapping[str, object]) -> bool:
    """Whether a number is the standard error, or a bound of the interval, of another one."""
    ending = re.search("_(se|low|high)$", name)
    return ending is not None and name.removesuffix(ending.group()) in metrics


def _read_text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _read_json(path: Path) -> dict[str, object]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON ({error}); run the analyses again") from error
    if isinstance(content, dict):
        return content
    raise ValueError(f"{path} must hold an object of names, got {type(content).__name__}; run the analyses again")


def _asked(path: Path) -> str:
    rows = _read_json(path).items() if path.is_file() else ()
    cells = [f"<tr><th scope='row'>{escape(name)}</th><td>{escape(str(settings))}</td></tr>" for name, settings in rows]
    return f"<details><summary>settings</summary><table>{''.join(cells)}</table></details>" if cells else ""


def _run_name(folder: Path, config: str) -> str:
    # A line of top level is all that is needed, and spares a YAML parser.
    found = re.search(r"^name:[ \t]*(\S.*?)[ \t]*$", config, re.MULTILINE)
    return found.group(1).strip("'\"") if found else folder.resolve().name


def _asked_for(folder: Path) -> str:
    """Return the words of the run's command that say what it is, which tell the jobs of a sweep apart."""
    lines = _read_text(folder / ".hydra" / "overrides.yaml").splitlines()
    words = [line.removeprefix("- ").strip("'\"") for line in lines if line.startswith("- ")]
    told = " ".join(word for word in words if not _is_quiet(word))
    return f"<p class='note'><code>{escape(told)}</code></p>" if told else ""


def _is_quiet(word: str) -> bool:
    """Whether a word of the command line sets a key that no page needs to repeat."""
    return Use.QUIET in row(word.lstrip("+~").partition("=")[0].replace("/", ".")).use


def _verdict(path: Path, meanings: Mapping[str, str]) -> str:
    if not path.is_file():
        return "<div class='verdict none'><div><strong>Not diagnosed: nothing was sampled</strong></div></div>"
    diagnosis = _read_json(path)
    verdict = diagnosis.get("verdict")
    if not isinstance(verdict, str) or verdict not in _VERDICTS:
        raise ValueError(f"{path}: verdict must be one of {', '.join(_VERDICTS)}, got {verdict!r}; diagnose again")
    reasons = diagnosis.get("reasons")
    items = "".join(f"<li>{escape(str(reason))}</li>" for reason in (reasons if isinstance(reasons, list) else []))
    details = diagnosis.get("metrics")
    own = {key.removeprefix("diagnosis/"): words for key, words in meanings.items() if key.startswith("diagnosis/")}
    table = _metrics(details, own) if isinstance(details, dict) else ""
    if table:
        table = f"<details><summary>What the diagnosis measured</summary>{table}</details>"
    first = f"<p>First: <strong>{escape(str(remedy))}</strong></p>" if (remedy := diagnosis.get("remedy")) else ""
    return banner(verdict, _VERDICTS[verdict], (f"<ul>{items}</ul>" if items else "") + first) + table


def _metrics(metrics: Mapping[str, object], meanings: Mapping[str, str]) -> str:
    groups: dict[str, list[str]] = {}
    for name, value in metrics.items():
        if is_beside(name, metrics):
            continue
        group, _, short = name.partition("/") if "/" in name else ("run", "", name)
        text = with_error(value, metrics.get(f"{name}_se"))
        low, high = (metrics.get(f"{name}{end}") for end in ("_low", "_high"))
        hover = "" if low is None or high is None else f" title='90 % interval: {number(low)} to {number(high)}'"
        told = f"<abbr title='{escape(meanings[name])}'>{escape(short)}</abbr>" if name in meanings else escape(short)
        row = f"<tr><th scope='row'>{told}</th><td class='number'{hover}>{escape(text)}</td></tr>"
        groups.setdefault(group, []).append(row)
    tables = [f"<div><h3>{escape(group)}</h3><table>{''.join(rows)}</table></div>" for group, rows in groups.items()]
    return f"<div class='metrics'>{''.join(tables)}</div>" if tables else ""


def _glossary(meanings: Mapping[str, str]) -> str:
    """Return all meanings as a list to unfold, for print and screens without a mouse."""
    rows = [f"<tr><th scope='row'>{escape(key)}</th><td>{escape(words)}</td></tr>" for key, words in meanings.items()]
    table = f"<table>{''.join(rows)}</table><p class='note'><a href='{quote(MEANINGS)}'>CSV</a></p>"
    return f"<details><summary>What the numbers mean</summary>{table}</details>" if rows else ""


def _figures(folder: Path) -> str:
    pictures = sorted(path for path in (folder / "figures").glob("*") if path.suffix in (".png", ".gif"))
    told = folder / "figures" / "captions.json"
    captions = _read_json(told) if told.is_file() else {}
    cells = [picture(path, escape(str(captions.get(path.stem, "")))) for path in pictures]
    return f"<div class='figures'>{''.join(cells)}</div>" if cells else ""


def _interactive(folder: Path) -> tuple[str, str]:
    # (the maps, the script they need); plotly.js weighs 5 MB, so all maps share one copy of it
    cells, library = [], ""
    for path in sorted((folder / "figures").glob("*.html")):
        page = path.read_text(encoding="utf-8")
        if "Plotly.newPlot" not in page:
            content = f"<iframe sandbox='allow-scripts' srcdoc='{escape(page)}' title='{caption(path)}'></iframe>"
        else:
            body = re.search(r"<body[^>]*>(.*)</body>", page, re.DOTALL)
            content = body.group(1) if body else page
            for script in re.finditer(r"<script\b([^>]*)>(.*?)</script>", page, re.DOTALL):
                if _is_plotly(script.group(2)):
                    library = library or script.group(0)
                    content = content.replace(script.group(0), "")
                elif "src=" in script.group(1):  # fetched from the network, which this page does without
                    content = content.replace(script.group(0), "")
            library = library or _installed_plotly()
        cells.append(f"<figure class='wide'>{content}<figcaption>{caption(path)}</figcaption></figure>")
    return (f"<div class='figures interactive'>{''.join(cells)}</div>" if cells else ""), library


def _is_plotly(script: str) -> bool:
    return len(script) > 500_000 and "plotly.js v" in script[:2000]


def _installed_plotly() -> str:
    from plotly.offline import get_plotlyjs  # only for maps saved without it

    return f"<script>{get_plotlyjs()}</script>"


def _tables(folder: Path) -> str:
    parts = []
    for path in sorted(set((folder / "tables").glob("*.csv")) - {folder / MEANINGS}):
        with path.open(newline="", encoding="utf-8") as file:
            lines = csv.reader(file)
            header = next(lines, [])
            rows = list(itertools.islice(lines, _ROWS))
            total = len(rows) + sum(1 for _ in lines)
        numeric = [all(_parses(row[column]) for row in rows if column < len(row)) for column in range(len(header))]
        head = "".join(f"<th{_align(numeric, i)}>{escape(cell)}</th>" for i, cell in enumerate(header))
        body = "".join(
            f"<tr>{''.join(f'<td{_align(numeric, i)}>{escape(_cell(cell))}</td>' for i, cell in enumerate(row))}</tr>"
            for row in rows
        )
        shown = f"First {len(rows)} of {total:,} rows" if total > len(rows) else f"{total} rows"
        parts.append(
            f"<h3>{caption(path)}</h3><div class='scroll'><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
            f"</table></div><p class='note'>{shown} · <a href='{quote(f'tables/{path.name}')}'>CSV</a></p>"
        )
    return "".join(parts)


def _align(numeric: list[bool], column: int) -> str:
    return " class='number'" if column < len(numeric) and numeric[column] else ""


def _cell(text: str) -> str:
    # Sixteen digits of a float hide its size; whole numbers and words stay as they are.
    return text if not _parses(text) or re.fullmatch(r"[+-]?\d*", text.strip()) else number(float(text))


def _parses(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return text.strip() == ""
    return True
