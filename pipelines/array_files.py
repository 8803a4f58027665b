"""Files that hold many decoded images: CIFAR's python batches, .npz and .npy. Nothing in them is ever executed."""

from __future__ import annotations

import importlib
import logging
import os
import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from has_dali.pipelines.arrays import ArraySource
from has_dali.pipelines.sources import PathLike

_LOG = logging.getLogger(__name__)

_CIFAR_SIDE = 32
_CIFAR_10_BATCHES = tuple(f"data_batch_{n}" for n in range(1, 6))
# What pickled arrays name, by the modules of NumPy 1 and 2 and by either's string codec under Python 3. The rest of
# a pickle's vocabulary is plain containers, numbers and strings.
_ALLOWED = {
    **{
        (f"numpy.{core}.{module}", name): (f"numpy._core.{module}", name)
        for core in ("core", "_core")
        for module, name in (("multiarray", "_reconstruct"), ("numeric", "_frombuffer"))
    },
    ("numpy", "ndarray"): ("numpy", "ndarray"),
    ("numpy", "dtype"): ("numpy", "dtype"),
    ("_codecs", "encode"): ("_codecs", "encode"),
}


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickles arrays and plain values; anything else that a file names is refused, not imported."""

    def find_class(self, module: str, name: str) -> Any:
        """The object that a pickle names, if it is one that arrays need."""
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, and only NumPy arrays are read")
        home, attribute = _ALLOWED[module, name]
        return getattr(importlib.import_module(home), attribute)


def cifar_kind(folder: PathLike) -> int | None:
    """10 or 100 for a folder that holds CIFAR's python batches, else None."""
    names = {10: ("batches.meta", (*_CIFAR_10_BATCHES, "test_batch")), 100: ("meta", ("train", "test"))}
    for kind, (meta, batches) in names.items():
        if _is_file(folder, meta) and any(_is_file(folder, batch) for batch in batches):
            return kind
    return None


def cifar_source(folder: PathLike, train: bool) -> ArraySource:
    """CIFAR-10 or CIFAR-100 in its python version, as downloaded: 32 x 32 images, fine labels.

    Args:
        folder: ``cifar-10-batches-py`` (``data_batch_1`` to ``5``, those that are there, ``test_batch``,
            ``batches.meta``) or ``cifar-100-python`` (``train``, ``test``, ``meta``).
        train: the training images, or the test images.

    Raises:
        OSError: the folder or a file is missing or unreadable.
        ValueError: a file is broken, holds something else, or names objects other than arrays.
    """
    folder = os.fspath(folder)
    kind = cifar_kind(folder)
    if kind is None:
        raise FileNotFoundError(
            f"data={folder!r}: no CIFAR batches; expected batches.meta with data_batch_1 or test_batch (CIFAR-10),"
            " or meta with train or test (CIFAR-100)"
        )
    if kind == 10:
        wanted = _CIFAR_10_BATCHES if train else ("test_batch",)
        meta, names, labels = "batches.meta", "label_names", "labels"
    else:
        wanted = ("train",) if train else ("test",)
        meta, names, labels = "meta", "fine_label_names", "fine_labels"
    found = [name for name in wanted if _is_file(folder, name)]
    if not found:
        raise FileNotFoundError(f"data={folder!r}: {wanted[0]} is missing; complete the download")
    if len(found) < len(wanted):
        _LOG.warning("%s: %d of %d training batches are here", folder, len(found), len(wanted))
    classes = _class_names(os.path.join(folder, meta), names)
    parts = [_cifar_batch(os.path.join(folder, name), labels, len(classes)) for name in found]
    images, targets = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return ArraySource.from_images(images, targets, classes)


def npz_source(file: PathLike) -> ArraySource:
    """An ``.npz`` file of images.

    It holds ``images``, uint8 (N, H, W, 3) or (N, H, W), and may hold ``labels``, (N,) integers, and ``classes``, an
    array of class names by label.

    Raises:
        OSError: the file is missing or unreadable.
        ValueError, TypeError: it is broken, or holds something else.
    """
    path = os.fspath(file)
    content = _loaded(path)
    if not isinstance(content, np.lib.npyio.NpzFile):
        raise ValueError(f"data={path!r}: holds a single array; expected an .npz with 'images' (rename it to .npy)")
    with content:
        if "images" not in content:
            raise ValueError(f"data={path!r}: holds {', '.join(content.files) or 'nothing'}; expected 'images'")
        found = {name: _member(content, path, name) for name in ("images", "labels", "classes") if name in content}
    classes = found.get("classes", np.empty(0, str))
    if classes.ndim != 1 or classes.dtype.kind != "U":
        raise TypeError(f"data={path!r}: 'classes' is {classes.dtype} of shape {classes.shape}; expected (N,) strings")
    return _named(path, found["images"], found.get("labels"), classes.tolist())


def npy_source(file: PathLike) -> ArraySource:
    """An ``.npy`` file of images, uint8 (N, H, W, 3) or (N, H, W); labels from ``NAME_labels.npy`` beside ``NAME.npy``.

    Without that file every label is -1.

    Raises:
        OSError: a file is missing or unreadable.
        ValueError, TypeError: a file is broken, or holds something else.
    """
    path = os.fspath(file)
    beside = os.path.splitext(path)[0] + "_labels.npy"
    arrays = [_loaded(name) for name in (path, beside) if name == path or os.path.exists(name)]
    for name, array in zip((path, beside), arrays, strict=False):
        if not isinstance(array, np.ndarray):
            raise ValueError(f"data={name!r}: holds several arrays; expected a single one (rename it to .npz)")
    return _named(path, *arrays)


def _named(
    path: str, images: npt.NDArray, labels: npt.NDArray | None = None, classes: Sequence[str] = ()
) -> ArraySource:
    """A source of what a file held; errors name the file."""
    try:
        return ArraySource.from_images(images, labels, classes)
    except (TypeError, ValueError) as error:
        raise type(error)(f"data={path!r}: {error}") from None


def _loaded(path: str) -> Any:
    try:
        return np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise FileNotFoundError(f"data={path!r}: no such file") from None
    except OSError as error:
        raise type(error)(f"data={path!r}: cannot be read ({error.strerror or error})") from None
    except Exception as error:  # NumPy and zipfile raise a dozen kinds for broken files
        raise ValueError(f"data={path!r}: no NumPy file ({error}); write it with np.save or np.savez") from None


def _member(content: Any, path: str, name: str) -> npt.NDArray:
    try:
        return np.asarray(content[name])
    except Exception as error:
        raise ValueError(f"data={path!r}: {name!r} cannot be read ({error}); write it with np.savez") from None


def _unpickled(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            content = _ArrayUnpickler(file, encoding="bytes").load()
    except OSError as error:
        raise type(error)(f"{path}: cannot be read ({error.strerror}); check the download") from None
    except Exception as error:  # what a damaged pickle makes the unpickler raise is not limited to UnpicklingError
        raise ValueError(f"{path}: no CIFAR batch ({error}); download it again") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: no CIFAR batch (holds a {type(content).__name__}); download it again")
    return {_text(key): value for key, value in content.items()}


def _cifar_batch(path: str, labels: str, classes: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Images (N, 32, 32, 3) and labels (N,) of one batch file."""
    content = _unpickled(path)
    planes, targets = (np.asarray(content.get(name)) for name in ("data", labels))
    width = 3 * _CIFAR_SIDE**2
    if planes.dtype != np.uint8 or planes.ndim != 2 or planes.shape[1] != width or not len(planes):
        raise ValueError(
            f"{path}: 'data' is {planes.dtype} of shape {planes.shape}, expected uint8 (N, {width}); download it again"
        )
    valid = targets.dtype.kind in "iu" and targets.shape == (len(planes),)
    if not valid or targets.min() < 0 or targets.max() >= classes:
        raise ValueError(
            f"{path}: {labels!r} are not {len(planes)} integers from 0 to {classes - 1}; download it again"
        )
    images = planes.reshape(-1, 3, _CIFAR_SIDE, _CIFAR_SIDE).transpose(0, 2, 3, 1)
    return images, targets.astype(np.int64)


def _class_names(path: str, key: str) -> tuple[str, ...]:
    names = _unpickled(path).get(key)
    if not isinstance(names, list) or not names:
        raise ValueError(f"{path}: {key!r} is missing; download it again")
    return tuple(_text(name) for name in names)


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _is_file(folder: PathLike, name: str) -> bool:
    return os.path.isfile(os.path.join(folder, name))
