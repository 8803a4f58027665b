"""What was packed, and how far: ``pack.json`` beside the shards, rewritten after each of them.

A run that was interrupted goes on from it: shards that are whole are kept. It stays when the work is done, for
``has-dali check`` and for people.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from has_dali.console import write_json
from has_dali.pipelines.pack_shards import Shard, file_digest, sync_folder
from has_dali.pipelines.shard_index import MANIFEST_NAME

_VERSION = 1


@dataclass(frozen=True)
class Skipped:
    """A broken image that was left out."""

    sample_id: int
    name: str
    reason: str


@dataclass(frozen=True)
class Packed:
    """A finished shard and the samples that went into it: ``first`` to ``end``, but for those skipped."""

    shard: Shard
    first: int
    end: int
    skipped: tuple[Skipped, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return {
            **asdict(self.shard),
            "first": self.first,
            "end": self.end,
            "skipped": [list(asdict(one).values()) for one in self.skipped],
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Packed:
        """What ``to_dict`` gave."""
        shard = Shard(str(record["name"]), int(record["size"]), str(record["sha256"]))
        skipped = tuple(Skipped(int(i), str(name), str(reason)) for i, name, reason in record["skipped"])
        return cls(shard, int(record["first"]), int(record["end"]), skipped)


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
        """Write ``pack.json`` in one step."""
        shards = [one.to_dict() for one in self.shards]
        write_json(folder / MANIFEST_NAME, {"version": _VERSION, "settings": self.settings, "shards": shards})
        sync_folder(folder)


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a folder, or None.

    Raises:
        ValueError: it is damaged, or of another version.
    """
    path = folder / MANIFEST_NAME
    try:
        record = json.loads(path.read_bytes())
        version = record["version"]
        shards = [Packed.from_dict(one) for one in record["shards"]]
        settings = dict(record["settings"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: damaged ({error!r}); remove the folder and pack again") from None
    if version != _VERSION:
        raise ValueError(f"{path}: version {version}; this release writes version {_VERSION}: pack into another folder")
    return Manifest(settings, shards)


def wrong_shard(folder: Path, shard: Shard) -> str | None:
    """Why a shard is not the one that was written, or None. Reads all of it."""
    path = folder / shard.name
    try:
        size = path.stat().st_size
        if size != shard.size:
            return f"{path}: has {size} bytes, {shard.size} when it was packed"
        return None if file_digest(path) == shard.sha256 else f"{path}: its bytes have changed since it was packed"
    except OSError as error:
        return f"{path}: {(error.strerror or str(error)).lower()}"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other packing processes out of a folder; the system lets go of it when this one ends, however it ends."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{folder}: another process is packing into it; wait for it, or choose another") from None
        yield
    finally:
        os.close(descriptor)
