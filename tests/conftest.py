"""Settings that every test shares."""

import ast
import base64
import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Before torch is imported: two test processes on two cores must not fight for them.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("WANDB_SILENT", "true")

import pytest
import torch

# What the server has imported that forks processes for tests; each of them then begins at once.
multiprocessing.set_forkserver_preload(
    ["losskernel.cli.build", "losskernel.sampling.sample", "torch.fx.experimental.proxy_tensor"]
)


# Folders of tests that look at their figures; others save each as one pixel: drawing takes most of a small run's time.
_DRAWN = {"figures"}
_PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)


@pytest.fixture(autouse=True)
def _figures_of_one_pixel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def savefig(_: Any, target: Any, **__: Any) -> None:
        target.write(_PIXEL) if hasattr(target, "write") else Path(target).write_bytes(_PIXEL)

    if not _DRAWN & set(request.path.parts):
        monkeypatch.setattr("matplotlib.figure.Figure.savefig", savefig)
        monkeypatch.setattr("matplotlib.figure.Figure.draw_without_rendering", lambda _: None)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="module")
def _no_process_left() -> Iterator[None]:
    """Name the file that leaves a process behind; others, that count theirs, would fail in its place."""
    yield
    assert multiprocessing.active_children() == []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the slow tests if they were left out. They are read from the files, since only workers collect tests."""
    if terminalreporter.config.option.markexpr != "not slow":
        return
    terminalreporter.section("slow tests left out; they run with: uv run pytest -m slow")
    for path in sorted(Path(__file__).parent.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            marks = [ast.unparse(mark) for mark in node.decorator_list] if isinstance(node, ast.FunctionDef) else []
            if any("pytest.mark.slow" in mark for mark in marks):
                cases = "" if "pytest.mark.slow" in marks else " (some of its cases)"
                terminalreporter.write_line(f"{path.relative_to(Path(__file__).parent)}::{node.name}{cases}")
