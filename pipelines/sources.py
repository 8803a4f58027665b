"""Where encoded images come from: a class folder or a list of files. The sample id is the index in the source.

Paths are kept as a table of names, not as a Python string each. A batch's paths go to DALI as one
table of zero-ended rows.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Iterable, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from has_dali.pipelines.class_folders import IMAGE_EXTENSIONS, class_folders
from has_dali.pipelines.name_table import NameTable

__all__ = [
    "IMAGE_EXTENSIONS",
    "FileSource",
    "PathLike",
    "checked_ids",
    "checked_labels",
    "digest_of",
    "digest_over",
    "folder_source",
    "open_source",
]

PathLike: TypeAlias = "str | os.PathLike[str]"


class FileSource:
    """Image files with labels, by sample id.

    Args:
        paths: one per sample.
        labels: one integer per sample; None: every label is -1.
        classes: class names, by label, where known.

    Raises:
        ValueError: no paths, or the number of labels differs from the number of paths.
        TypeError: labels are not integers.
    """

    def __init__(
        self, paths: Iterable[PathLike], labels: npt.ArrayLike | None = None, classes: Sequence[str] = ()
    ) -> None:
        self._set(NameTable.of(paths), labels, classes)

    @classmethod
    def from_table(
        cls, paths: NameTable, labels: npt.ArrayLike | None = None, classes: Sequence[str] = ()
    ) -> FileSource:
        """The same, of paths that are a table already."""
        source = cls.__new__(cls)
        source._set(paths, labels, classes)
        return source

    def _set(self, paths: NameTable, labels: npt.ArrayLike | None, classes: Sequence[str]) -> None:
        if not len(paths):
            raise ValueError("data is empty: expected at least one image file")
        self._paths = paths
        self.labels = checked_labels(labels, len(paths), "file")
        self.classes = tuple(classes)

    def __len__(self) -> int:
        """Number of samples."""
        return len(self._paths)

    def path(self, sample_id: int) -> str:
        """The file of one sample."""
        return self._paths[sample_id]

    def name(self, sample_id: int) -> str:
        """What errors call a sample: its path."""
        return self.path(sample_id)

    def encoded_path(self, sample_id: int) -> npt.NDArray[np.uint8]:
        """The same as bytes, uint8 (length,): a read-only view."""
        return self._paths.encoded(sample_id)

    def encoded_paths(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """Paths of a batch, (N, longest + 1) uint8, each ended by a zero byte, as ``fn.io.file.read`` takes them.

        One array instead of a list of N, which DALI would take in entry by entry.
        """
        paths = [self.encoded_path(i) for i in ids.tolist()]
        table = np.zeros((len(paths), max(map(len, paths), default=0) + 1), np.uint8)
        for row, path in zip(table, paths, strict=True):
            row[: len(path)] = path
        return table

    def select(self, ids: npt.ArrayLike) -> FileSource:
        """The samples ``ids``, (M,) integers, as a source of their own: sample ``ids[i]`` becomes sample i."""
        chosen = checked_ids(ids, len(self))
        return FileSource.from_table(self._paths.select(chosen), self.labels[chosen], self.classes)

    def fingerprint(self) -> str:
        """16 hex digits that change with the names, the order or the labels of the files, not with their place.

        Names count relative to the deepest folder that holds all files; contents are not read.
        """
        root = self._paths.shared_prefix().rfind(os.fsencode(os.sep)) + 1
        return digest_over(itertools.chain(self._paths.chunks(skip=root), [self.labels]))


def open_source(data: PathLike | Sequence[PathLike] | FileSource, labels: npt.ArrayLike | None = None) -> FileSource:
    """The source that ``data`` describes.

    Args:
        data: a folder with one folder of images per class (``root/class/.../image.jpg``, as torchvision's
            ImageFolder), a sequence of files, or a source.
        labels: one integer per file, for a sequence of files only.

    Raises:
        OSError: a folder is missing, unreadable, or holds no images.
        ValueError, TypeError: ``data`` and ``labels`` do not fit together.
    """
    if isinstance(data, (str, os.PathLike, FileSource)) and labels is not None:
        raise ValueError("labels: only a list of files takes labels; a folder's come from its class folders")
    if isinstance(data, FileSource):
        return data
    if isinstance(data, (str, os.PathLike)):
        return folder_source(data)
    try:
        return FileSource(data, labels)
    except TypeError as error:
        if "labels" in str(error):
            raise
        raise TypeError(
            f"data: expected a folder or a sequence of file paths, got {type(data).__name__} ({error})"
        ) from None


def folder_source(root: PathLike) -> FileSource:
    """All images below ``root/<class>/``, in the order and with the labels of torchvision's ImageFolder.

    The index of a large folder is cached and holds as long as no folder below ``root`` changes.

    Raises:
        OSError: a folder is missing, unreadable, or holds no images.
    """
    found = class_folders(os.fspath(root))
    return FileSource.from_table(found.paths, found.labels, found.classes)


def checked_labels(labels: npt.ArrayLike | None, count: int, sample: str) -> npt.NDArray[np.int64]:
    """(count,) int64 labels, -1 each where there are none; ``sample`` is what one of them belongs to, in words."""
    if labels is None:
        return np.full(count, -1, np.int64)
    values = np.asarray(labels)
    if values.dtype.kind not in "iu" and values.size:
        raise TypeError(f"labels: expected integers, got dtype {values.dtype}")
    if values.shape != (count,):
        raise ValueError(f"labels: expected {count} integers, one per {sample}, got shape {values.shape}")
    return values.astype(np.int64)


def checked_ids(ids: npt.ArrayLike, count: int) -> npt.NDArray[np.int64]:
    """(M,) int64 sample ids from 0 to count - 1, at least one, or an error that says which is wrong."""
    values = np.asarray(ids)
    if values.dtype.kind not in "iu" or values.ndim != 1 or not values.size:
        raise ValueError(
            f"ids: expected a list of at least one integer, got dtype {values.dtype} and shape {values.shape}"
        )
    outside = values[(values < 0) | (values >= count)]
    if outside.size:
        raise ValueError(f"ids: expected sample ids from 0 to {count - 1}, got {outside[0]}")
    return values.astype(np.int64)


def digest_of(*parts: bytes | npt.NDArray) -> str:
    """16 hex digits of the SHA-256 of some bytes and contiguous arrays, in order."""
    return digest_over(parts)


def digest_over(parts: Iterable[bytes | npt.NDArray]) -> str:
    """The same of parts that are made one at a time."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part if isinstance(part, bytes) else part.data)
    return digest.hexdigest()[:16]
