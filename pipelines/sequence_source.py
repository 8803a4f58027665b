"""Feature sequences with labels by sample id, from files or memory, as (T, C) arrays."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from has_dali.pipelines import sequence_files
from has_dali.pipelines.sequence_files import Place
from has_dali.pipelines.sources import digest_of

LAYOUTS = ("TC", "CT")

Features: TypeAlias = "npt.NDArray"


class SequenceSource(Protocol):
    """Sequences by sample id."""

    channels: int
    classes: tuple[str, ...]
    folder_labels: npt.NDArray[np.int64] | None
    """From class folders, where there are any."""

    def __len__(self) -> int:
        """Number of sequences."""

    def features(self, sample_id: int) -> Features:
        """(T, C) numbers: a view, or read from a file."""

    def frames(self, sample_id: int) -> int:
        """T of one sequence, without reading it where that is possible."""

    def name(self, sample_id: int) -> str:
        """What errors call a sequence."""

    def fingerprint(self) -> str:
        """16 hex digits that change with names or order of files, or with any number in memory."""


class FileSequences:
    """Sequences in files.

    Args:
        places: one per sequence.
        layout: "TC" or "CT", of all arrays.
        folder_labels: (N,) int64, or None.
        classes: class names, by label.

    Raises:
        ValueError, OSError: the first sequence cannot be read.
    """

    def __init__(
        self,
        places: Sequence[Place],
        layout: str,
        folder_labels: npt.NDArray[np.int64] | None = None,
        classes: Sequence[str] = (),
    ) -> None:
        self._places, self._layout = tuple(places), layout
        self.folder_labels, self.classes = folder_labels, tuple(classes)
        self.channels = self._shape(0)[1]

    def __len__(self) -> int:
        """Number of sequences."""
        return len(self._places)

    def features(self, sample_id: int) -> Features:
        """(T, C), see ``sequence_files.read``."""
        array = sequence_files.read(self._places[sample_id])
        self._shape_of(sample_id, array.shape)
        return array.T if self._layout == "CT" else array

    def frames(self, sample_id: int) -> int:
        """From the file's header."""
        return self._shape(sample_id)[0]

    def name(self, sample_id: int) -> str:
        """Path, and the array's name in it."""
        return str(self._places[sample_id])

    def fingerprint(self) -> str:
        """Names count relative to the deepest folder that holds all files; contents are not read."""
        folder = os.path.commonpath([os.path.dirname(os.path.abspath(place.path)) for place in self._places])
        names = [f"{os.path.relpath(place.path, folder)}\0{place.key}" for place in self._places]
        return digest_of("\n".join([*names, self._layout]).encode())

    def _shape(self, sample_id: int) -> tuple[int, int]:
        return self._shape_of(sample_id, sequence_files.read_shape(self._places[sample_id]))

    def _shape_of(self, sample_id: int, shape: tuple[int, ...]) -> tuple[int, int]:
        return checked_shape(self.name(sample_id), shape, self._layout, getattr(self, "channels", None))


class ArraySequences:
    """Sequences in memory.

    Args:
        arrays: one per sequence, (T, C) or (C, T) as ``layout`` says, or one array (N, ...) of them.
        layout: "TC" or "CT".

    Raises:
        ValueError, TypeError: one of them is no sequence; says which.
    """

    def __init__(self, arrays: Sequence[npt.ArrayLike] | npt.NDArray, layout: str) -> None:
        self.folder_labels: npt.NDArray[np.int64] | None = None
        self.classes: tuple[str, ...] = ()
        self._arrays = []
        channels = None
        for number, values in enumerate(arrays):
            array = np.asarray(values)
            if array.dtype.kind not in "fiub":
                raise TypeError(f"data[{number}]: expected numbers, got dtype {array.dtype}")
            channels = checked_shape(f"data[{number}]", array.shape, layout, channels)[1]
            self._arrays.append(array.T if layout == "CT" else array)
        if channels is None:
            raise ValueError("data is empty: expected at least one sequence")
        self.channels = channels

    def __len__(self) -> int:
        """Number of sequences."""
        return len(self._arrays)

    def features(self, sample_id: int) -> Features:
        """(T, C)."""
        return self._arrays[sample_id]

    def frames(self, sample_id: int) -> int:
        """T of one sequence."""
        return len(self._arrays[sample_id])

    def name(self, sample_id: int) -> str:
        """Its place in the list."""
        return f"data[{sample_id}]"

    def fingerprint(self) -> str:
        """Of shapes, dtypes and all numbers."""
        parts: list[Any] = []
        for array in self._arrays:
            parts += [f"{array.shape}{array.dtype}".encode(), np.ascontiguousarray(array).view(np.uint8)]
        return digest_of(*parts)


def checked_shape(name: str, shape: tuple[int, ...], layout: str, channels: int | None) -> tuple[int, int]:
    """(T, C) of an array, if it is a sequence of the right number of features."""
    wanted = "(time, features)" if layout == "TC" else "(features, time)"
    if len(shape) != 2 or min(shape) < 1:
        raise ValueError(f"{name}: expected {wanted} with layout={layout!r}, at least 1 of each, got shape {shape}")
    frames, own = shape if layout == "TC" else shape[::-1]
    if channels is not None and own != channels:
        raise ValueError(
            f"{name}: expected {channels} features as in the first sequence, got shape {shape} with layout={layout!r}"
        )
    return frames, own


def open_sequences(data: Any, layout: str = "TC", key: str | None = None) -> SequenceSource:
    """The source that ``data`` describes; see ``sequence_loader``.

    Raises:
        OSError: a file or folder is missing or holds no sequences.
        ValueError, TypeError: ``data`` is something else, or a file has no array of this name.
        ImportError: HDF5 without h5py.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"layout={layout!r}: expected 'TC' (time, features) or 'CT' (features, time)")
    if isinstance(data, (FileSequences, ArraySequences)):
        return data
    if isinstance(data, (str, os.PathLike)):
        path = os.fspath(data)
        if os.path.isdir(path):
            return _folder(path, layout, key)
        if not sequence_files.can_hold_several(path) or not sequence_files.is_feature_file(path):
            raise ValueError(
                f"data={path!r}: expected a folder, a list of files, or one .npz or HDF5 file of sequences"
            )
        keys = [key] if key is not None else sequence_files.keys_of(path)
        if not keys:
            raise ValueError(f"data={path!r}: holds no arrays")
        return FileSequences([Place(path, name) for name in keys], layout)
    try:
        entries = list(data)
    except TypeError:
        raise TypeError(f"data: expected a folder, files or arrays, got {type(data).__name__}") from None
    if entries and all(isinstance(entry, (str, os.PathLike)) for entry in entries):
        return FileSequences([_place(os.fspath(entry), key) for entry in entries], layout)
    return ArraySequences(entries, layout)


def _folder(root: str, layout: str, key: str | None) -> FileSequences:
    """Files of a folder by name; where there are none, those of its folders, which are classes."""
    files = _files(root)
    if files:
        return FileSequences([_place(path, key) for path in files], layout)
    classes = sorted(entry.name for entry in os.scandir(root) if entry.is_dir())
    found = [_files(os.path.join(root, name)) for name in classes]
    paths = [path for group in found for path in group]
    if not paths:
        raise FileNotFoundError(f"data={root!r}: holds no feature files ({' '.join(sequence_files.EXTENSIONS)})")
    labels = np.repeat(np.arange(len(classes), dtype=np.int64), [len(group) for group in found])
    return FileSequences([_place(path, key) for path in paths], layout, labels, classes)


def _files(folder: str) -> list[str]:
    names = sorted(entry.name for entry in os.scandir(folder) if entry.is_file())
    return [os.path.join(folder, name) for name in names if sequence_files.is_feature_file(name)]


def _place(path: str, key: str | None) -> Place:
    if not sequence_files.can_hold_several(path):
        return Place(path)
    if key is not None:
        return Place(path, key)
    keys = sequence_files.keys_of(path)
    if len(keys) != 1:
        raise ValueError(f"{path}: holds {len(keys)} arrays ({', '.join(keys[:8])}); say which with key=")
    return Place(path, keys[0])
