"""Settings of the command line's tests."""

import base64
from pathlib import Path
from typing import Any

import pytest

_PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)


@pytest.fixture(autouse=True)
def _figures_of_one_pixel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Save every figure as one pixel: drawing takes most of a small run's time, and tests/figures looks at it."""

    def savefig(_: Any, target: Any, **__: Any) -> None:
        target.write(_PIXEL) if hasattr(target, "write") else Path(target).write_bytes(_PIXEL)

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", savefig)
    monkeypatch.setattr("matplotlib.figure.Figure.draw_without_rendering", lambda _: None)
