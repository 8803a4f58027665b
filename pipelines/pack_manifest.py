"""What was packed, and how far: ``pack.json`` beside the shards, rewritten after each of them.

A run that was interrupted goes on from it: shards that are whole are kept. It stays when the work is done, for people
and for the next run. A hidden copy is written after it, at most one shard behind: hours of work hang on this file.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from has_dali.console import write_json
from has_dali.pipelines.pack_shards import Shard, file_digest, sync_folder
from has_dali.pipelines.shard_index import INDEX_NAME, MANIFEST_NAME

_VERSION = 1
COPY_NAME = f".{MANIFEST_NAME}.copy"
_LOCK_NAME = ".pack.lock"
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # file systems without locks

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Skipped:
    """A broken image that was left out."""

    sample_id: int
    name: str
    reason: str


@dataclass(frozen=True)
class Packed:
    """A finished shard and the samples that went into it: ``first`` to ``end``, but for those skipped.

    ``stamps``: digest of the sizes and times of the image files of these samples; empty where they are no files.
    """

    shard: Shard
    first: int
    end: int
    skipped: tuple[Skipped, ...] = ()
    stamps: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return {
            **asdict(self.shard),
            "first": self.first,
            "end": self.end,
            "stamps": self.stamps,
            "skipped": [list(asdict(one).values()) for one in self.skipped],
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Packed:
        """What ``to_dict`` gave."""
        shard = Shard(str(record["name"]), int(record["size"]), str(record["sha256"]))
        skipped = tuple(Skipped(int(i), str(name), str(reason)) for i, name, reason in record["skipped"])
        return cls(shard, int(record["first"]), int(record["end"]), skipped, str(record.get("stamps", "")))


@dataclass
class Manifest:
    """The state of a packed folder.

    Args:
        settings: what decides the shards, JSON-able: form of the images, size of shards, the source's fingerprint.
        shards: those that are finished, in order.
    """

    settings: dict[str, Any]
    shards: list[Packed] = field(default_factory=list)

    @property
    def end(self) -> int:
        """The first sample that is not in a finished shard."""
        return self.shards[-1].end if self.shards else 0

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """Broken images that were left out so far."""
        return tuple(one for packed in self.shards for one in packed.skipped)

    def write(self, folder: Path) -> None:
        """Write ``pack.json`` in one step, and its copy in another."""
        shards = [one.to_dict() for one in self.shards]
        for name in (MANIFEST_NAME, COPY_NAME):
            write_json(folder / name, {"version": _VERSION, "settings": self.settings, "shards": shards})
            sync_folder(folder)


def remove_manifest(folder: Path) -> None:
    """Take ``pack.json`` and its copy away."""
    for name in (COPY_NAME, MANIFEST_NAME):
        (folder / name).unlink(missing_ok=True)


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a folder, or None; a damaged one is taken from its copy, with a warning.

    Raises:
        ValueError: it is damaged and so is its copy, or it is of another version.
    """
    path = folder / MANIFEST_NAME
    try:
        return _read(path)
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, _VersionError):
            raise
        fault = repr(error)
    try:
        copy = _read(folder / COPY_NAME)
    except (ValueError, KeyError, TypeError):
        copy = None
    if copy is None:
        whole = "its shards are complete and load as before" if (folder / INDEX_NAME).exists() else "its shards stay"
        raise ValueError(f"{path}: damaged ({fault}), and so is its copy; restore it, or pack elsewhere: {whole}")
    _LOG.warning("%s: damaged (%s): its copy is taken", path, fault)
    return copy


class _VersionError(ValueError):
    """A manifest of another release."""


def _read(path: Path) -> Manifest | None:
    try:
        record = json.loads(path.read_bytes())
        version = record["version"]
        shards = [Packed.from_dict(one) for one in record["shards"]]
        settings = dict(record["settings"])
    except FileNotFoundError:
        return None
    if version != _VERSION:
        raise _VersionError(
            f"{path}: version {version}; this release writes version {_VERSION}: pack into another folder"
        )
    return Manifest(settings, shards)


def wrong_shard(folder: Path, shard: Shard) -> str | None:
    """Why a shard is not the one that was written, or None. Reads all of it.

    Raises:
        OSError: it cannot be read, which says nothing against it.
    """
    path = folder / shard.name
    try:
        size = path.stat().st_size
        if size != shard.size:
            return f"{path}: has {size} bytes, {shard.size} when it was packed"
        return None if file_digest(path) == shard.sha256 else f"{path}: its bytes have changed since it was packed"
    except FileNotFoundError:
        return f"{path}: is missing"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other packing processes out of a folder; the system lets go of it when this one ends, however it ends.

    A file is locked, not the folder, as network file systems only lock what is open for writing; it goes again.
    """
    path = folder / _LOCK_NAME
    descriptor = _locked(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # before the lock is let go of: who waits for this file sees that it is gone
        os.close(descriptor)


def _locked(path: Path) -> int:
    """An open descriptor that holds the lock of the file that ``path`` names."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        except FileNotFoundError:
            pass  # another process finished and removed it meanwhile
        except BlockingIOError:
            os.close(descriptor)
            raise ValueError(
                f"{path.parent}: another process is packing into it; wait for it, or choose another"
            ) from None
        except OSError as error:
            if error.errno in _NO_LOCKS:
                _LOG.warning("%s: its file system has no locks; start no second run with this folder", path.parent)
                return descriptor
            os.close(descriptor)
            raise
        os.close(descriptor)
