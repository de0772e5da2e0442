"""Reads the file of an offline W&B run, for W&B itself ships no reader.

The file is a LevelDB log: a header of seven bytes, then blocks of 32 kB that hold fragments of records, each with
a checksum, a length and a kind (whole, first, middle, last). A record is a protobuf message.
"""

import json
import struct
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2

BLOCK, FRAGMENT = 32 * 1024, struct.Struct("<IHB")
WHOLE, FIRST, _MIDDLE, LAST = 1, 2, 3, 4


@dataclass
class Run:
    """What was recorded of one run."""

    about: Any = None
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    artifacts: dict[str, Any] = field(default_factory=dict)  # type -> {path: size}
    axes: dict[str, Any] = field(default_factory=dict)  # metric or pattern -> its definition
    preempted: bool = False
    exit_code: int | None = None

    def curve(self, name: str) -> list[float]:
        """Values of a metric along the history."""
        return [row[name] for row in self.history if name in row]

    def logged(self, kind: str) -> set[str]:
        """Names of what was logged as images, tables or pages."""
        return {
            name
            for row in self.history
            for name, value in row.items()
            if isinstance(value, dict) and value.get("_type") == kind
        }


def read_runs(folder: Path, wait: float = 20.0) -> list[Run]:
    """Every finished offline run below a folder, oldest first; W&B's own process may still be writing the end."""
    files = sorted(folder.rglob("run-*.wandb"), key=lambda path: path.parent.name)
    runs, until = [read_run(path) for path in files], time.monotonic() + wait
    while any(run.exit_code is None for run in runs) and time.monotonic() < until:
        time.sleep(0.05)
        runs = [read_run(path) for path in files]
    return runs


def read_run(path: Path) -> Run:
    """One run."""
    run = Run()
    for record in _records(path.read_bytes()):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run.about = record.run
            run.config |= _items(record.run.config.update)
        elif kind == "config":
            run.config |= _items(record.config.update)
        elif kind == "summary":
            run.summary |= _items(record.summary.update)
        elif kind == "history":
            run.history.append(_items(record.history.item))
        elif kind == "artifact":
            run.artifacts[record.artifact.type] = {part.path: part.size for part in record.artifact.manifest.contents}
        elif kind == "metric":
            run.axes[record.metric.name or record.metric.glob_name] = record.metric
        elif kind == "preempting":
            run.preempted = True
        elif kind == "exit":
            run.exit_code = record.exit.exit_code
    return run


def _records(content: bytes) -> Iterator[Any]:
    if content[:4] != b":W&B":
        raise ValueError("no file of a W&B run")
    place, pending = 7, b""
    while place < len(content):
        room = BLOCK - place % BLOCK
        if room < FRAGMENT.size:  # too small for a fragment: filled with zeros
            place += room
            continue
        if place + FRAGMENT.size > len(content):
            return
        checksum, length, kind = FRAGMENT.unpack_from(content, place)
        data = content[place + FRAGMENT.size : place + FRAGMENT.size + length]
        if len(data) < length:  # still being written
            return
        if zlib.crc32(bytes([kind]) + data) != checksum:
            raise ValueError(f"a broken record at byte {place}")
        place += FRAGMENT.size + length
        pending = data if kind in (WHOLE, FIRST) else pending + data
        if kind in (WHOLE, LAST):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(pending)
            yield record


def _items(items: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for item in items:
        *above, last = list(item.nested_key) or [item.key]
        inner = found
        for key in above:
            inner = inner.setdefault(key, {})
        inner[last] = json.loads(item.value_json)
    return found
