"""The folder of one run: its files, each written whole or not at all."""

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from losskernel.analyses import Result
from losskernel.errors import TraceError
from losskernel.figures import paper
from losskernel.runs.status.status_file import as_json
from losskernel.storage.atomic import replacing
from losskernel.storage.locations import LocalLocation, guard, locate, require_writable, write_pointer

DPI = 200
# Captions of figures, in the run's folder: figure -> text.
CAPTIONS = "figures/captions.json"


class RunFolder:
    """Files of one run.

    Args:
        path: the folder; made where missing.
        traces: folder or URL for this run's traces alone; None keeps them in the folder.
    """

    def __init__(self, path: str | Path, traces: str | None = None) -> None:
        self.path, self._traces = Path(path), traces

    def prepare(self) -> None:
        """Make the folder, and prove that it and the location of the traces can be written.

        Raises:
            TraceError: they cannot.
        """
        require_writable(LocalLocation(self.path))
        if self._traces is not None:
            require_writable(locate(self._traces))

    def trace(self, name: str) -> Path | str:
        """Return the location of a trace; if it lies elsewhere, the folder gets a pointer to it.

        Raises:
            TraceError: it was begun in another location.
        """
        if self._traces is None:
            return self.path / name
        write_pointer(self.path / name, f"{self._traces}/{name}")
        return f"{self._traces}/{name}"

    def write_text(self, name: str, text: str) -> Path:
        """Write one text file."""
        return self.write(name, lambda path: path.write_text(text, encoding="utf-8", errors="surrogateescape"))

    def write_json(self, name: str, value: Mapping[str, Any]) -> Path:
        """Write one JSON file; numbers that are not finite become null, which every reader accepts."""
        return self.write_text(name, json.dumps(as_json(value), indent=1, allow_nan=False) + "\n")

    def read_json(self, name: str) -> dict[str, Any]:
        """Return the content of a JSON file, {} where there is none.

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
        """Write one file by `save`, under a temporary name first."""
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
            self.write(f"tables/{name}.csv", partial(table.to_csv, index=False, errors="surrogateescape"))
        for name, page in result.pages.items():
            self.write_text(f"figures/{name}.html", page)
        pictures = {}
        for name, figure in result.figures.items():
            _settle(figure)
            for kind in ("pdf", "png"):
                pictures[name] = self.write(f"figures/{name}.{kind}", partial(_save, figure, kind))
        for name, animation in result.animations.items():
            path = self.write(f"figures/{name}.gif", lambda path, content=animation: path.write_bytes(content))
            pictures[f"{name}_animated"] = path
        if result.captions:
            self.write_json(CAPTIONS, self.read_json(CAPTIONS) | result.captions)
        return pictures


def _settle(figure: Any) -> None:
    """Lay a figure out once, for all files of it: the layout takes longer than drawing."""
    with paper():
        figure.set_dpi(DPI)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")


def _save(figure: Any, kind: str, path: Path) -> None:
    with paper():  # its font settings take effect when a figure is saved
        figure.savefig(path, format=kind, dpi=DPI)
