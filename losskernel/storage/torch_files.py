"""States in PyTorch's format, with a checksum that `torch.load` ignores; written atomically."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import torch

from losskernel.storage.locations import LocalLocation, StorageLocation, one_line

# PyTorch's files are zip archives. A zip ends with a comment, unused by PyTorch, and before it the comment's length.
_PREFIX = b"crc32 "
_COMMENT_BYTES = len(_PREFIX) + 8
_NO_COMMENT = struct.pack("<H", 0)


def atomic_save(state: dict[str, Any], path: Path | StorageLocation) -> None:
    """Write a state atomically; `torch.load` reads it as any other."""
    file = io.BytesIO()
    torch.save(state, file)
    comment = _comment(zlib.crc32(file.getbuffer()))
    file.seek(-len(_NO_COMMENT), io.SEEK_END)
    file.write(struct.pack("<H", len(comment)) + comment)
    (LocalLocation(path) if isinstance(path, Path) else path).write(file.getvalue())


def state_from_bytes(content: bytes) -> dict[str, Any]:
    """Return the state in a file's content; files without a checksum are read too.

    Raises:
        ValueError: the content is not what was saved.
    """
    require_unchanged(content)
    try:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged archive raises whatever the damaged part raises
        raise ValueError(f"it is no state ({one_line(error).split('. ')[0][:200]})") from error


def require_unchanged(content: bytes) -> None:
    """Raise ValueError if a file has a checksum, and its content another."""
    body, comment = memoryview(content)[: -_COMMENT_BYTES - len(_NO_COMMENT)], content[-_COMMENT_BYTES:]
    # The checksum is that of the archive as torch.save wrote it, with a comment of no bytes.
    if comment.startswith(_PREFIX) and comment != _comment(zlib.crc32(_NO_COMMENT, zlib.crc32(body))):
        raise ValueError("its content has changed since it was written")


def _comment(checksum: int) -> bytes:
    return _PREFIX + f"{checksum:08x}".encode()
