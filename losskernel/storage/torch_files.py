"""States as PyTorch saves them, with a checksum that PyTorch itself does not read."""

import io
import struct
import zlib
from typing import Any

import torch

# PyTorch's files are zip archives; their comment, at the end, is free for us. Before it stands its length.
_SEAL = b"crc32 "
_LENGTH = len(_SEAL) + 8
_NO_COMMENT = struct.pack("<H", 0)


def saved(state: dict[str, Any]) -> bytes:
    """Return what a file of the state holds; `torch.load` reads it as any other."""
    file = io.BytesIO()
    torch.save(state, file)
    seal = _sealing(zlib.crc32(file.getbuffer()))
    file.seek(-len(_NO_COMMENT), io.SEEK_END)
    file.write(struct.pack("<H", len(seal)) + seal)
    return file.getvalue()


def restored(content: bytes) -> dict[str, Any]:
    """Return the state; files without a checksum, of other writers, are read too.

    Raises:
        ValueError: the content is not what was saved.
    """
    own, seal = memoryview(content)[: -_LENGTH - len(_NO_COMMENT)], content[-_LENGTH:]
    if seal.startswith(_SEAL) and seal != _sealing(zlib.crc32(_NO_COMMENT, zlib.crc32(own))):
        raise ValueError("its content has changed since it was written")
    try:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # a broken archive fails in as many ways as it has parts
        reason = (" ".join(str(error).split()) or type(error).__name__).split(". ")[0]
        raise ValueError(f"it is no state ({reason[:200]})") from error


def _sealing(checksum: int) -> bytes:
    return _SEAL + f"{checksum:08x}".encode()
