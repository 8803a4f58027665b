"""Feature sequences in files: ``.npy``, ``.npz`` and HDF5; errors name the file."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

EXTENSIONS = (".npy", ".npz", ".h5", ".hdf5")
_HDF5 = (".h5", ".hdf5")


class Place(NamedTuple):
    """Where a sequence is: a file, and the array's name in it where the file can hold several."""

    path: str
    key: str | None = None

    def __str__(self) -> str:
        """As errors call it."""
        return self.path if self.key is None else f"{self.path}[{self.key}]"


def is_feature_file(path: str) -> bool:
    """By its extension."""
    return path.lower().endswith(EXTENSIONS)


def can_hold_several(path: str) -> bool:
    """``.npz`` and HDF5 files may have several arrays."""
    return not path.lower().endswith(".npy")


def keys_of(path: str) -> list[str]:
    """Names of the arrays of an ``.npz`` or HDF5 file, those in groups as ``group/name``.

    Raises:
        ValueError, OSError: the file cannot be read; names it.
        ImportError: HDF5 without h5py.
    """
    if path.lower().endswith(_HDF5):
        with _opened_hdf5(path) as file:
            found: list[str] = []
            file.visititems(lambda name, entry: found.append(name) if hasattr(entry, "shape") else None)
            return found
    with _opened_npz(path) as file:
        return list(file.files)


def read_shape(place: Place) -> tuple[int, ...]:
    """The shape of an array, from headers where the format has them.

    Raises:
        ValueError, OSError, ImportError: as ``read``.
    """
    if place.path.lower().endswith(".npz"):
        return read(place).shape
    if place.path.lower().endswith(_HDF5):
        with _opened_hdf5(place.path) as file:
            return tuple(_entry(file, place).shape)
    return _mapped(place.path).shape


def read(place: Place) -> npt.NDArray:
    """An array, mapped into memory where the format allows it: only what is used of an ``.npy`` file is read.

    Raises:
        ValueError: no numbers, broken, or no array of this name.
        OSError: the file is missing or unreadable.
        ImportError: HDF5 without h5py.
    """
    if place.path.lower().endswith(_HDF5):
        with _opened_hdf5(place.path) as file:
            array = np.asarray(_entry(file, place))
    elif place.path.lower().endswith(".npz"):
        with _opened_npz(place.path) as file:
            if place.key not in file.files:
                raise ValueError(f"{place}: no array of this name, there are {', '.join(file.files) or 'none'}")
            try:
                array = file[place.key]
            except Exception as error:  # zipfile and zlib raise of many kinds
                raise ValueError(f"{place}: cannot be read ({error}); repair or remove the file") from None
    else:
        array = _mapped(place.path)
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{place}: expected numbers, got dtype {array.dtype}")
    return array


def _mapped(path: str) -> npt.NDArray:
    _check_there(path)
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{path}: is no .npy file that can be read ({error}); repair or remove the file") from None


def _opened_npz(path: str) -> Any:
    _check_there(path)
    try:
        file = np.load(path, allow_pickle=False)
        if not hasattr(file, "files"):
            raise ValueError("it holds a single array, as an .npy file does")
        return file
    except Exception as error:  # zipfile raises of its own kind
        raise ValueError(f"{path}: is no .npz file that can be read ({error}); repair or remove the file") from None


def _opened_hdf5(path: str) -> Any:
    try:
        import h5py
    except ImportError:
        raise ImportError(f"{path}: reading HDF5 needs h5py; install it (pip install h5py)") from None
    _check_there(path)
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise ValueError(f"{path}: is no HDF5 file that can be read ({error}); repair or remove the file") from None


def _entry(file: Any, place: Place) -> Any:
    entry = file.get(place.key)
    if entry is None or not hasattr(entry, "shape"):
        raise ValueError(f"{place}: no array of this name; has_dali.pipelines.sequence_files.keys_of lists them")
    return entry


def _check_there(path: str) -> None:
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{path}: no such file")
