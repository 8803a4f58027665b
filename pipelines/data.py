"""What a loader's ``data`` argument names: files of encoded images, or images in memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from has_dali.pipelines.array_files import cifar_kind, cifar_source, npy_source, npz_source
from has_dali.pipelines.arrays import ArraySource, Source
from has_dali.pipelines.sources import PathLike, open_source

_ARRAY_FILES: dict[str, Callable[[PathLike], ArraySource]] = {".npz": npz_source, ".npy": npy_source}


def open_data(
    data: PathLike | Sequence[PathLike] | Source,
    *,
    train: bool,
    labels: npt.ArrayLike | None = None,
    cache: str | None = None,
    threads: int | None = None,
) -> Source:
    """The source that ``data`` describes.

    Args:
        data: a folder with one folder of images per class, a sequence of image files, a folder of CIFAR's python
            batches, an ``.npz`` or ``.npy`` file of images, or a source.
        train: of CIFAR's two sets, the training images.
        labels: one integer per file, for a sequence of files only.
        cache: "decoded": decode files once, into memory; what is in memory already stays as it is.
        threads: decoding threads for that; the usable cores by default.

    Raises:
        OSError: files are missing or unreadable.
        ValueError, TypeError: ``data`` is something else, or broken, or takes no labels.
        MemoryError: the decoded images need more memory than there is.
    """
    if cache not in (None, "decoded"):
        raise ValueError(f"cache={cache!r}: expected None or 'decoded'")
    if isinstance(data, np.ndarray) and data.ndim > 1:
        raise TypeError(f"data: got an array of shape {data.shape}; wrap images as ArraySource.from_images(images)")
    arrays = _arrays(data, train)
    if arrays is not None:
        if labels is not None:
            raise ValueError("labels: only a list of files takes labels; images in memory bring their own")
        return arrays
    source = open_source(data, labels)  # type: ignore[arg-type]
    if cache is None:
        return source
    from has_dali.pipelines.decode import decoded_source  # needs DALI, which images in memory do without

    return decoded_source(source, threads)


def _arrays(data: PathLike | Sequence[PathLike] | Source, train: bool) -> ArraySource | None:
    """The source, where ``data`` is or names decoded images."""
    if isinstance(data, ArraySource):
        return data
    if not isinstance(data, (str, os.PathLike)):
        return None
    extension = os.path.splitext(data)[1].lower()
    if extension in _ARRAY_FILES and not os.path.isdir(data):
        return _ARRAY_FILES[extension](data)
    return cifar_source(data, train) if cifar_kind(data) else None
