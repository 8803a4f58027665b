"""Where encoded images come from: a class folder or a list of files. The sample id is the index in the source.

Paths are kept as one block of bytes with offsets, not as a Python string each. A batch's paths go to DALI as one
table of zero-ended rows.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

# torchvision.datasets.folder.IMG_EXTENSIONS; compared in lower case.
IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")

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
        encoded = [os.fsencode(path) for path in paths]
        if not encoded:
            raise ValueError("data is empty: expected at least one image file")
        self._bytes = np.frombuffer(b"".join(encoded), np.uint8)
        self._offsets = np.concatenate([[0], np.cumsum([len(path) for path in encoded], dtype=np.int64)])
        self.labels = checked_labels(labels, len(encoded), "file")
        self.classes = tuple(classes)

    def __len__(self) -> int:
        """Number of samples."""
        return len(self._offsets) - 1

    def path(self, sample_id: int) -> str:
        """The file of one sample."""
        return os.fsdecode(self.encoded_path(sample_id).tobytes())

    def encoded_path(self, sample_id: int) -> npt.NDArray[np.uint8]:
        """The same as bytes, uint8 (length,): a read-only view."""
        return self._bytes[self._offsets[sample_id] : self._offsets[sample_id + 1]]

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
        return FileSource([self.path(i) for i in chosen.tolist()], self.labels[chosen], self.classes)

    def fingerprint(self) -> str:
        """16 hex digits that change with the names, the order or the labels of the files, not with their place.

        Names count relative to the deepest folder that holds all files; contents are not read.
        """
        paths = [self.encoded_path(i).tobytes() for i in range(len(self))]
        low, high = min(paths), max(paths)  # what these two share, all share
        shared = next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), len(low))
        root = low.rfind(os.fsencode(os.sep), 0, shared) + 1
        return digest_of(b"\0".join(path[root:] for path in paths), self.labels)


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
    """All images below ``root/<class>/``, in the order and with the labels of torchvision's ImageFolder."""
    root = os.fspath(root)
    classes = sorted(entry.name for entry in _listed(root) if entry.is_dir())
    if not classes:
        raise FileNotFoundError(
            f"data={root!r}: no class folders; expected {os.path.join(root, '<class>', '<image>.jpg')},"
            " or pass a list of files"
        )
    paths: list[str] = []
    labels: list[npt.NDArray[np.int64]] = []
    for label, name in enumerate(classes):
        found = _images_below(os.path.join(root, name))
        paths += found
        labels.append(np.full(len(found), label, np.int64))
    return FileSource(paths, np.concatenate(labels), classes)


def _images_below(folder: str) -> list[str]:
    images: list[str] = []
    for place, _, names in sorted(os.walk(folder, onerror=_raise, followlinks=True)):
        images += [os.path.join(place, name) for name in sorted(names) if name.lower().endswith(IMAGE_EXTENSIONS)]
    if not images:
        raise FileNotFoundError(
            f"data: class folder {folder!r} holds no images ({' '.join(IMAGE_EXTENSIONS)});"
            " remove it or add images to it"
        )
    return images


def _listed(root: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(root) as entries:
            return list(entries)
    except FileNotFoundError:
        raise FileNotFoundError(f"data={root!r}: no such folder; expected a folder of class folders") from None
    except NotADirectoryError:
        raise NotADirectoryError(f"data={root!r}: a file; expected a folder of class folders or a list") from None
    except PermissionError:
        raise PermissionError(f"data={root!r}: not readable by this user; check the folder's permissions") from None


def _raise(error: OSError) -> None:
    raise type(error)(f"data: cannot read folder {error.filename!r}: {error.strerror}; check its permissions")


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
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part if isinstance(part, bytes) else part.data)
    return digest.hexdigest()[:16]
