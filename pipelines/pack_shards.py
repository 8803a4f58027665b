"""Writing tar shards: under a temporary name, flushed to the disk, read back, then renamed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

SHARD_PREFIX = "shard-"
BLOCK = 512
_END = 2 * BLOCK  # zero bytes that end an archive
_RECORD = 20 * BLOCK  # archives are padded to a multiple, as tar writes them
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Shard:
    """A finished shard.

    Args:
        name: of its file.
        size: bytes.
        sha256: hex digits.
    """

    name: str
    size: int
    sha256: str


def shard_name(number: int) -> str:
    """File name of a shard, counted from 0."""
    return f"{SHARD_PREFIX}{number:06}.tar"


def stored_bytes(length: int) -> int:
    """What a member of ``length`` bytes takes in an archive."""
    return BLOCK + -(-length // BLOCK) * BLOCK


class ShardWriter:
    """A tar archive in ustar format; the same members give the same bytes, whoever writes them and when.

    Args:
        folder: where the shard is going to be.
        name: of its file.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.name, self.size = name, 0
        self._path, self._temporary = folder / name, temporary_path(folder, name)
        self._digest = hashlib.sha256()
        self._file: IO[bytes] = open(self._temporary, "wb")  # noqa: SIM115 (closed by finish or drop)

    def add(self, name: str, content: bytes) -> int:
        """Append a member; returns where its content starts.

        Raises:
            OSError: the disk is full, or fails.
        """
        info = tarfile.TarInfo(name)
        info.size = len(content)
        self._write(info.tobuf(tarfile.USTAR_FORMAT))
        start = self.size
        self._write(content)
        self._write(bytes(-len(content) % BLOCK))
        return start

    def finish(self) -> Shard:
        """Close the archive, bring it to the disk, compare what is there with what was written, and name it.

        Raises:
            OSError: the disk is full, or gives back something else.
        """
        self._write(bytes(_END + -(self.size + _END) % _RECORD))
        self._file.flush()
        os.fsync(self._file.fileno())
        with contextlib.suppress(OSError, AttributeError):  # not on every system; then memory is read back
            os.posix_fadvise(self._file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        self._file.close()
        written = self._digest.hexdigest()
        if file_digest(self._temporary) != written:
            raise OSError(f"{self._path}: the disk gives back other bytes than were written; check it, and pack again")
        os.replace(self._temporary, self._path)
        sync_folder(self._path.parent)
        return Shard(self.name, self.size, written)

    def drop(self) -> None:
        """Remove what was written so far."""
        with contextlib.suppress(OSError):  # closing flushes, which a full disk refuses
            self._file.close()
        with contextlib.suppress(FileNotFoundError):
            self._temporary.unlink()

    def _write(self, content: bytes) -> None:
        self._file.write(content)
        self._digest.update(content)
        self.size += len(content)


def temporary_path(folder: Path, name: str) -> Path:
    """Where a shard is while it is written."""
    return folder / f".{name}.part"


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hex digits."""
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
