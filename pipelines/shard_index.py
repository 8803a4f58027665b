"""The index that ``has-dali pack`` puts beside its shards: where each image lies, its label, and the shards' checksums.

One ``index.npz`` per folder of shards. It saves the walk through the tar headers, and it notices shards that were
exchanged or cut short: by their sizes, which shards of equal raw images share, and by a digest of their ends.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from has_dali.console import atomic_file
from has_dali.pipelines.name_table import NameTable

INDEX_NAME = "index.npz"
MANIFEST_NAME = "pack.json"  # there from the first shard on; without an index it tells of an interrupted run
INDEX_VERSION = 2
KINDS = ("jpeg", "raw")
_END = 1 << 16  # bytes at the beginning and at the end of a shard that tell it from others
_READERS = 8  # shards read at the same time: each waits for the disk twice


@dataclass(frozen=True, eq=False)
class ShardIndex:
    """Images in the tar shards of one folder, by sample id.

    Args:
        files: names of the shards, relative to the folder.
        sizes: (S,) int64, bytes of each shard.
        sha256: of each shard, 64 hex digits.
        file_of: (N,) int32, the shard of each sample.
        offsets: (N,) int64, where the image's bytes start in its shard; of a raw image its first pixel, behind the
            header of its ``.npy`` member.
        lengths: (N,) int64, the number of these bytes.
        labels: (N,) int64, -1 where there is none.
        keys: what the samples are called in their shards (WebDataset's key).
        kind: "jpeg" for encoded images of any format, "raw" for uint8 pixels (height, width, 3).
        shapes: (N, 2) int64, height and width of raw images; None for encoded ones.
        classes: class names, by label, where known.
        ends: of each shard, a digest of its first and last 64 KB, 32 hex digits; ``write_index`` takes them from the
            shards, and an index that was not read from a file has none.

    Raises:
        ValueError: the fields do not fit together; says which.
    """

    files: tuple[str, ...]
    sizes: npt.NDArray[np.int64]
    sha256: tuple[str, ...]
    file_of: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    keys: NameTable
    kind: str
    shapes: npt.NDArray[np.int64] | None = None
    classes: tuple[str, ...] = ()
    ends: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check that the fields fit together."""
        count, shards = len(self.file_of), len(self.files)
        if not count:
            raise ValueError("shard index: holds no samples")
        if self.kind not in KINDS:
            raise ValueError(f"shard index: kind {self.kind!r}; expected 'jpeg' or 'raw'")
        expected = {
            "sizes": (np.int64, (shards,)),
            "file_of": (np.int32, (count,)),
            **dict.fromkeys(("offsets", "lengths", "labels"), (np.int64, (count,))),
            **({"shapes": (np.int64, (count, 2))} if self.kind == "raw" else {}),
        }
        for name, (dtype, shape) in expected.items():
            array = getattr(self, name)
            if array is None or array.dtype != dtype or array.shape != shape:
                found = "None" if array is None else f"{array.dtype} {array.shape}"
                raise ValueError(f"shard index: {name} is {found}; expected {np.dtype(dtype)} {shape}")
        if len(self.keys) != count or len(self.sha256) != shards:
            raise ValueError(f"shard index: expected {count} keys and {shards} checksums")
        if len(self.ends) not in (0, shards):
            raise ValueError(f"shard index: ends: {len(self.ends)} digests; expected none, or {shards}")
        if not all(re.fullmatch("[0-9a-f]{64}", digest) for digest in self.sha256):
            raise ValueError("shard index: sha256 expected as 64 hex digits for each shard")
        if self.file_of.min() < 0 or self.file_of.max() >= shards:
            raise ValueError(f"shard index: file_of names shards outside 0 to {shards - 1}")
        outside = (self.offsets < 0) | (self.lengths < 0) | (self.offsets + self.lengths > self.sizes[self.file_of])
        if outside.any():
            sample = int(outside.argmax())
            raise ValueError(f"shard index: sample {sample} ({self.keys[sample]}) lies outside its shard")
        if self.shapes is not None and (self.shapes.prod(axis=1) * 3 != self.lengths).any():
            raise ValueError("shard index: expected height * width * 3 bytes for each raw image")

    def of_files(self, numbers: Sequence[int]) -> ShardIndex:
        """The index of some of the shards, in the order given; samples keep the order they have within a shard."""
        if list(numbers) == list(range(len(self.files))):
            return self
        place = np.full(len(self.files), -1, np.int32)
        place[list(numbers)] = np.arange(len(numbers))
        places = place[self.file_of]
        chosen = np.argsort(places, kind="stable")[(places < 0).sum() :]
        return dataclasses.replace(
            self,
            files=tuple(self.files[n] for n in numbers),
            sizes=self.sizes[list(numbers)],
            sha256=tuple(self.sha256[n] for n in numbers),
            ends=tuple(self.ends[n] for n in numbers if self.ends),
            file_of=places[chosen],
            keys=self.keys.select(chosen),
            shapes=None if self.shapes is None else self.shapes[chosen],
            **{name: getattr(self, name)[chosen] for name in ("offsets", "lengths", "labels")},
        )

    def misfit(self, folder: str | os.PathLike[str], *, name_only: bool = False) -> str | None:
        """The first shard in ``folder`` that is not the one the index was written for, and why; None: all fit.

        Args:
            folder: where the shards are.
            name_only: without the reason: the shard's path.
        """
        paths = [os.path.join(folder, name) for name in self.files]
        for path, size in zip(paths, self.sizes.tolist(), strict=True):
            try:
                found = os.stat(path).st_size
            except FileNotFoundError:
                return path if name_only else f"{path}: the shard is missing"
            if found != size:
                return path if name_only else f"{path}: the shard has {found} bytes, {size} when its index was written"
        for path, digest, expected in zip(paths, _ends_of(paths) if self.ends else (), self.ends, strict=False):
            if digest != expected:
                return path if name_only else f"{path}: the shard has other bytes than when its index was written"
        return None


def write_index(folder: str | os.PathLike[str], index: ShardIndex) -> Path:
    """Write ``index.npz`` into the folder of its shards, in one step; returns its path.

    Raises:
        OSError: a shard is missing or cannot be read, or the folder cannot be written.
    """
    path = Path(folder) / INDEX_NAME
    index = dataclasses.replace(index, ends=_ends_of([os.path.join(folder, name) for name in index.files]))
    arrays = _arrays(index)
    with atomic_file(path) as file:
        np.savez(file, allow_pickle=False, checksum=np.array(_checksum(arrays)), **arrays)
    return path


def read_index(folder: str | os.PathLike[str]) -> ShardIndex:
    """The index in a folder of shards; whether the shards fit it is ``misfit``'s to say.

    Raises:
        FileNotFoundError: there is none.
        OSError: it cannot be read.
        ValueError: it is damaged, or of another version.
    """
    path = Path(folder) / INDEX_NAME
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        version, checksum = int(arrays["version"]), str(arrays.pop("checksum"))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file; has-dali pack writes it") from None
    except Exception as error:  # a damaged zip file raises almost anything; EINVAL for a place before its beginning
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        raise ValueError(f"{path}: no shard index, or a damaged one ({error}); delete it or pack again") from None
    if version != INDEX_VERSION:
        raise ValueError(
            f"{path}: version {version}; this release reads version {INDEX_VERSION}: run the same has-dali pack"
            " again, which keeps the shards"
        )
    if checksum != _checksum(arrays):
        raise ValueError(f"{path}: damaged (its checksum differs); delete it or pack again")
    return ShardIndex(
        files=tuple(arrays["files"].tolist()),
        sizes=arrays["sizes"],
        sha256=tuple(arrays["sha256"].tolist()),
        file_of=arrays["file_of"],
        offsets=arrays["offsets"],
        lengths=arrays["lengths"],
        labels=arrays["labels"],
        keys=NameTable.from_arrays(arrays, "keys"),
        kind=str(arrays["kind"]),
        shapes=arrays.get("shapes"),
        classes=tuple(arrays["classes"].tolist()),
        ends=tuple(arrays["ends"].tolist()),
    )


def _arrays(index: ShardIndex) -> dict[str, npt.NDArray]:
    return {
        "version": np.array(INDEX_VERSION),
        "kind": np.array(index.kind),
        "files": np.array(index.files, np.str_),
        "sizes": index.sizes,
        "sha256": np.array(index.sha256, np.str_),
        "ends": np.array(index.ends, np.str_),
        "file_of": index.file_of,
        "offsets": index.offsets,
        "lengths": index.lengths,
        "labels": index.labels,
        **({} if index.shapes is None else {"shapes": index.shapes}),
        "classes": np.array(index.classes, np.str_),
        **index.keys.arrays("keys"),
    }


def _checksum(arrays: dict[str, npt.NDArray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _ends_of(paths: Sequence[str]) -> tuple[str, ...]:
    """A digest of the beginning and the end of each file."""
    with ThreadPoolExecutor(_READERS) as pool:
        return tuple(pool.map(_end_of, paths))


def _end_of(path: str) -> str:
    with open(path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        parts = [os.pread(file.fileno(), _END, 0), os.pread(file.fileno(), _END, max(size - _END, 0))]
    return hashlib.sha256(b"".join(parts)).hexdigest()[:32]
