"""What a run leaves: its folder always, and a Lightning logger on top."""

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from losskernel.analyses import Result
from losskernel.errors import TraceError
from losskernel.figures import paper
from losskernel.storage.atomic import replacing
from losskernel.storage.locations import LocalLocation, guard, locate, require_writable, write_pointer

DPI = 200
# Of the figures that have one, in the run's folder: name -> text.
CAPTIONS = "figures/captions.json"


class RunFolder:
    """Files of one run; each is written whole or not at all.

    Args:
        path: the folder; made where missing.
        traces: folder or URL of this run's own for its traces; None keeps them in the folder.
    """

    def __init__(self, path: str | Path, traces: str | None = None) -> None:
        self.path, self._traces = Path(path), traces

    def prepare(self) -> None:
        """Make the folder and prove that it can be written, and that traces can be where they go.

        Raises:
            TraceError: it cannot.
        """
        require_writable(LocalLocation(self.path))
        if self._traces is not None:
            require_writable(locate(self._traces))

    def trace(self, name: str) -> Path | str:
        """Return where a trace goes; one that goes elsewhere leaves word in the folder.

        Raises:
            TraceError: it was begun in another place.
        """
        if self._traces is None:
            return self.path / name
        write_pointer(self.path / name, f"{self._traces}/{name}")
        return f"{self._traces}/{name}"

    def write_text(self, name: str, text: str) -> Path:
        """Write one text file."""
        return self.write(name, lambda path: path.write_text(text, encoding="utf-8"))

    def write_json(self, name: str, value: Mapping[str, Any]) -> Path:
        """Write one JSON file; numbers that are not finite become null, which every reader accepts."""
        return self.write_text(name, json.dumps(_finite(value), indent=1, allow_nan=False) + "\n")

    def read_json(self, name: str) -> dict[str, Any]:
        """Return what such a file holds; nothing where there is none.

        Raises:
            TraceError: it is damaged.
        """
        path = self.path / name
        try:
            return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        except ValueError as error:
            remedy = "remove it and run again, which samples nothing anew"
            raise TraceError(f"{path} is damaged: it is no JSON; {remedy}") from error

    def write(self, name: str, save: Callable[[Path], Any]) -> Path:
        """Write one file by `save`, under another name first."""
        path = self.path / name

        def whole() -> None:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as unfinished:
                save(unfinished)

        guard(path, whole)
        return path

    def write_result(self, result: Result) -> dict[str, Path]:
        """Write an analysis' tables, figures (PNG and vector PDF), animations and pages; return the pictures' paths."""
        for name, table in result.tables.items():
            self.write(f"tables/{name}.csv", lambda path, table=table: table.to_csv(path, index=False))
        for name, page in result.pages.items():
            self.write_text(f"figures/{name}.html", page)
        pictures = {}
        for name, figure in result.figures.items():
            for kind in ("pdf", "png"):
                pictures[name] = self.write(f"figures/{name}.{kind}", partial(_save, figure, kind))
        for name, animation in result.animations.items():
            path = self.write(f"figures/{name}.gif", lambda path, content=animation: path.write_bytes(content))
            pictures[f"{name}_animated"] = path
        if result.captions:
            path = self.path / CAPTIONS
            known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
            self.write_json(CAPTIONS, known | result.captions)
        return pictures


def _save(figure: Any, kind: str, path: Path) -> None:
    with paper():  # its font settings take effect when a figure is saved
        figure.savefig(path, format=kind, dpi=DPI)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and value - value != 0.0:
        return None
    return value
