import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from losskernel.runs.report import write_report


def _png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress((b"\0" + b"\xff" * width) * height)
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def _run(folder: Path, **metrics: float) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "metrics.json").write_text(json.dumps(metrics or {"kernel/rank": 3.0}))
    return folder


def _page(folder: Path) -> str:
    return write_report(folder).read_text(encoding="utf-8")


def test_a_run_with_metrics_alone_has_a_page(tmp_path: Path) -> None:
    page = _page(_run(tmp_path))
    assert "rank" in page
    assert "Not diagnosed" in page
    assert "Figures" not in page
    assert "Tables" not in page


def test_missing_metrics_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no metrics\.json .* run that has finished"):
        write_report(tmp_path)


@pytest.mark.parametrize(("content", "message"), [("{", "is not JSON"), ("[1]", "must hold an object of names")])
def test_unreadable_metrics_are_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "metrics.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        write_report(tmp_path)


def test_an_unknown_verdict_is_refused(tmp_path: Path) -> None:
    (_run(tmp_path) / "diagnosis.json").write_text('{"verdict": "maybe"}')
    with pytest.raises(ValueError, match="verdict must be one of pass, warn, fail, got 'maybe'"):
        write_report(tmp_path)


@pytest.mark.parametrize(
    ("value", "error", "shown"),
    [
        (0.3712345, 0.0112, "0.371 ± 0.011"),
        (-0.3712345, 0.0112, "−0.371 ± 0.011"),
        (13.83, 0.31, "13.83 ± 0.31"),
        (1.2e-9, 3e-10, "1.2e−09 ± 3e−10"),
        (512.3, 41.0, "512 ± 41"),
    ],
)
def test_a_value_is_shown_with_its_standard_error(tmp_path: Path, value: float, error: float, shown: str) -> None:
    page = _page(_run(tmp_path, **{"kernel/within": value, "kernel/within_se": error}))
    assert f">{shown}</td>" in page
    assert "within_se" not in page


def test_a_standard_error_without_its_value_stays_visible(tmp_path: Path) -> None:
    assert "within_se" in _page(_run(tmp_path, **{"kernel/within_se": 0.5}))


def test_metrics_are_grouped_by_their_prefix(tmp_path: Path) -> None:
    page = _page(_run(tmp_path, **{"kernel/rank": 3, "other/a/b": 1, "seconds": 2, "kernel/trace": 4}))
    assert page.count("<h3>kernel</h3>") == 1
    assert ">a/b</th>" in page
    assert "<h3>run</h3>" in page


def test_every_text_is_escaped(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    _run(tmp_path, **{f"{evil}/{evil}": 1.0})
    reasons = [evil]
    diagnosis = {"verdict": "fail", "reasons": reasons, "metrics": {evil: 1.0}}
    (tmp_path / "diagnosis.json").write_text(json.dumps(diagnosis))
    (tmp_path / "config.yaml").write_text(f"name: {evil}\nx: </pre>{evil}\n")
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "<b>.csv").write_text(f"{evil},b\n{evil},1\n")
    page = _page(tmp_path)
    assert "<script" not in page
    assert "<b>" not in page
    assert "</pre>&lt;" not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 8


def test_the_verdict_is_in_words_with_its_reasons(tmp_path: Path) -> None:
    diagnosis = {"verdict": "fail", "reasons": ["chains still climb"], "metrics": {}}
    (_run(tmp_path) / "diagnosis.json").write_text(json.dumps(diagnosis))
    page = _page(tmp_path)
    assert "FAILED: do not draw conclusions" in page
    assert "<li>chains still climb</li>" in page
    assert "verdict fail" in page


def test_each_figure_is_embedded_and_its_pdf_linked(tmp_path: Path) -> None:
    figures = _run(tmp_path) / "figures"
    figures.mkdir()
    (figures / "kernel_matrix.png").write_bytes(_png(70, 30))
    (figures / "kernel_matrix.pdf").write_bytes(b"%PDF")
    (figures / "map.png").write_bytes(_png(30, 30))
    page = _page(tmp_path)
    assert page.count("src='data:image/png;base64,") == 2
    assert page.count(".pdf'") == 1
    assert "href='figures/kernel_matrix.pdf'" in page
    assert page.count("<figure class=wide>") == 1
    assert "<figcaption>Kernel matrix" in page


def test_interactive_maps_share_one_library_and_fetch_nothing(tmp_path: Path) -> None:
    library = "<script>/* plotly.js v9 */" + "x" * 500_001 + "</script>"
    fetch = "<script src='https://cdn.example.org/plotly.js'></script>"
    figures = _run(tmp_path) / "figures"
    figures.mkdir()
    for name, head in (("one", library), ("two", library), ("three", fetch)):
        body = f"<body>{head}<div id='{name}'></div><script>Plotly.newPlot('{name}')</script></body>"
        (figures / f"{name}.html").write_text(f"<html>{body}</html>")
    page = _page(tmp_path)
    assert page.count("plotly.js v9") == 1
    assert page.index("plotly.js v9") < page.index("Plotly.newPlot")
    assert all(f"Plotly.newPlot('{name}')" in page for name in ("one", "two", "three"))
    assert "cdn.example.org" not in page


def test_a_page_that_is_no_plot_is_framed(tmp_path: Path) -> None:
    figures = _run(tmp_path) / "figures"
    figures.mkdir()
    (figures / "note.html").write_text("<p title='a'>hello</p>")
    page = _page(tmp_path)
    assert "srcdoc='&lt;p title=&#x27;a&#x27;&gt;hello" in page
    assert "<p title='a'>hello" not in page


def test_a_long_table_is_cut_and_says_so(tmp_path: Path) -> None:
    tables = _run(tmp_path) / "tables"
    tables.mkdir()
    rows = "".join(f"p{i},{i / 7},{i}\n" for i in range(45))
    (tables / "neighbours.csv").write_text("probe,R,index\n" + rows)
    page = _page(tmp_path)
    assert "First 20 of 45 rows" in page
    assert ">p19<" in page
    assert ">p20<" not in page
    assert "<td class='number'>0.1429</td>" in page
    assert "<th>probe</th><th class='number'>R</th>" in page


def test_the_name_comes_from_the_config_and_else_from_the_folder(tmp_path: Path) -> None:
    folder = _run(tmp_path / "2025-01-01")
    assert "<h1>2025-01-01</h1>" in _page(folder)
    (folder / "config.yaml").write_text("sampler:\n  name: inner\nname: multitask\n")
    assert "<h1>multitask</h1>" in _page(folder)


def test_the_words_of_the_command_tell_the_jobs_of_a_sweep_apart(tmp_path: Path) -> None:
    words = _run(tmp_path) / ".hydra" / "overrides.yaml"
    words.parent.mkdir()
    words.write_text("- seed=1\n- paths.sweep=x\n- 'dataset.tasks=[add,<b>]'\n- logger=csv\n")
    assert "<code>seed=1 dataset.tasks=[add,&lt;b&gt;]</code>" in _page(tmp_path)
    words.write_text("[]\n")
    assert "<code>" not in _page(tmp_path)


def test_an_older_page_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    (_run(tmp_path) / "report.html").write_text("old")
    assert write_report(tmp_path) == tmp_path / "report.html"
    assert "old" not in (tmp_path / "report.html").read_text()[:50]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.json", "report.html"]


def test_importing_the_report_loads_no_heavy_package() -> None:
    code = (
        "import sys, importlib.util as u; import types; "
        "import losskernel.runs.report; "
        "print([m for m in ('plotly', 'wandb', 'hydra', 'umap', 'pytorch_lightning') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_an_interval_stands_beside_its_value_and_not_as_rows_of_its_own(tmp_path: Path) -> None:
    numbers = {"a/x": 0.5, "a/x_se": 0.01, "a/x_low": 0.48, "a/x_high": 0.52, "a/y_low": 3.0}
    (tmp_path / "metrics.json").write_text(json.dumps(numbers))
    page = write_report(tmp_path).read_text()
    assert "0.500 ± 0.010" in page
    assert "0.48 to 0.52" in page
    assert ">x_low<" not in page
    assert ">y_low<" in page  # a number of its own


def test_a_figure_is_shown_with_its_caption_or_its_name(tmp_path: Path) -> None:
    figures = _run(tmp_path) / "figures"
    figures.mkdir()
    for name in ("path_map", "kernel_matrix"):
        (figures / f"{name}.png").write_bytes(_png(4, 3))
    (figures / "captions.json").write_text(json.dumps({"path_map": "Layers & <labels> as points."}))
    page = _page(tmp_path)
    assert "<figcaption class=long>Layers &amp; &lt;labels&gt; as points." in page
    assert "Kernel matrix" in page
