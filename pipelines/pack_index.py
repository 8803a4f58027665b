"""The index of packed shards, from what the shards themselves say: their headers are read, not remembered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from has_dali.pipelines.name_table import NameTable
from has_dali.pipelines.pack_manifest import Manifest
from has_dali.pipelines.shard_index import ShardIndex
from has_dali.pipelines.tar_members import tar_members


def build_index(folder: Path, manifest: Manifest, source: Any, kind: str) -> ShardIndex:
    """The index of the shards of a manifest.

    Args:
        folder: where they are.
        source: what was packed: labels and classes, by the sample id that is a member's key.
        kind: "jpeg" or "raw".

    Raises:
        ValueError: a shard holds something else.
    """
    file_of, offsets, lengths, keys, shapes = list[int](), list[int](), list[int](), list[str](), list[Any]()
    for number, packed in enumerate(manifest.shards):
        path = folder / packed.shard.name
        with open(path, "rb") as file:
            for name, start, size in tar_members(file.fileno(), str(path), packed.shard.size):
                key, _, extension = name.decode().rpartition(".")
                if extension == "cls":
                    continue
                end = start + size
                if kind == "raw":
                    file.seek(start)
                    shapes.append(_npy_shape(file)[:2])
                    start = file.tell()
                file_of.append(number)
                offsets.append(start)
                lengths.append(end - start)
                keys.append(key)
    shards = [packed.shard for packed in manifest.shards]
    return ShardIndex(
        files=tuple(shard.name for shard in shards),
        sizes=np.array([shard.size for shard in shards], np.int64),
        sha256=tuple(shard.sha256 for shard in shards),
        file_of=np.array(file_of, np.int32),
        offsets=np.array(offsets, np.int64),
        lengths=np.array(lengths, np.int64),
        labels=np.ascontiguousarray(source.labels[np.array(keys, np.int64)]),
        keys=NameTable.of(keys),
        kind=kind,
        shapes=np.array(shapes, np.int64) if kind == "raw" else None,
        classes=tuple(source.classes),
    )


def _npy_shape(file: Any) -> tuple[int, ...]:
    npy.read_magic(file)
    return npy.read_array_header_1_0(file)[0]
