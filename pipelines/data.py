"""What a loader's ``data`` argument names: files of encoded images, shards and records of them, or decoded images."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from has_dali.pipelines.array_files import cifar_kind, cifar_source, npy_source, npz_source
from has_dali.pipelines.arrays import ArraySource, DecodedSource
from has_dali.pipelines.class_checks import with_checked_classes
from has_dali.pipelines.file_list import file_list_source
from has_dali.pipelines.shard_index import INDEX_NAME
from has_dali.pipelines.shard_names import expanded, is_pattern, kind_of, kinds_in
from has_dali.pipelines.sources import FileSource, PathLike, open_source
from has_dali.pipelines.spans import SpanSource

Opened: TypeAlias = "FileSource | SpanSource | DecodedSource"
Data: TypeAlias = "PathLike | Sequence[PathLike] | FileSource | SpanSource | DecodedSource"

_ARRAY_FILES: dict[str, Callable[[PathLike], ArraySource]] = {".npz": npz_source, ".npy": npy_source}
_LISTS = (".csv", ".txt")
_HUB = "hf:"


def open_data(
    data: Data,
    *,
    train: bool,
    labels: npt.ArrayLike | None = None,
    cache: str | None = None,
    threads: int | None = None,
    classes: int | Sequence[str] | None = None,
) -> Opened:
    """The source that ``data`` describes, told by what is found there.

    - A folder of class folders: image files, labelled by folder (``folder_source``).
    - A folder, file, pattern or list of ``.tar``: WebDataset's or packed shards (``tar_source``).
    - The same of ``.tfrecord`` or ``...-00000-of-00010``: TFRecord files (``tfrecord_source``).
    - The same of ``.rec``: MXNet's RecordIO (``recordio_source``).
    - The same of ``.parquet``, or ``hf:PATH``: a data set of the Hugging Face hub on disk (``parquet_source``).
    - A ``.csv`` or ``.txt`` file: a list of image files (``file_list_source``).
    - A sequence or pattern of image files: these, with ``labels``.
    - A folder of CIFAR's python batches, an ``.npz`` or ``.npy`` file: decoded images.
    - A source: itself.

    The functions named have further arguments; what they return is a source. A folder with folders in it is one of
    class folders, whatever archives lie beside these, unless ``has-dali pack`` left its index there.

    Args:
        data: see above.
        train: of CIFAR's two sets, and of parquet files named by split, the training images.
        labels: one integer per file, for a sequence of image files only.
        cache: "decoded": decode files once, into memory; what is in memory already stays as it is.
        threads: decoding threads for that; the usable cores by default.
        classes: the number of classes, or their names by label: labels are checked against it.

    Raises:
        OSError: files are missing or unreadable.
        ValueError, TypeError: ``data`` is something else, or broken, or takes no labels; a label is out of range.
        MemoryError: the decoded images need more memory than there is.
    """
    if cache not in (None, "decoded"):
        raise ValueError(f"cache={cache!r}: expected None or 'decoded'")
    if isinstance(data, np.ndarray) and data.ndim > 1:
        raise TypeError(f"data: got an array of shape {data.shape}; wrap images as ArraySource.from_images(images)")
    source = with_checked_classes(_opened(data, train, labels), classes)
    if cache is None or not isinstance(source, (FileSource, SpanSource)):
        return source
    from has_dali.pipelines.decode import decoded_source  # needs DALI, which images in memory do without

    return decoded_source(source, threads)


def _opened(data: Data, train: bool, labels: npt.ArrayLike | None) -> Opened:
    found = _special(data, train)
    if found is None:
        return open_source(_image_files(data), labels)
    if labels is not None:
        raise ValueError(f"labels: only a list of files takes labels; {_brings(found)} bring their own")
    return found


def _brings(source: Opened) -> str:
    return "images in memory" if isinstance(source, DecodedSource) else "shards, records and lists"


def _special(data: Any, train: bool) -> Opened | None:
    """The source, unless ``data`` is class folders or a list of image files."""
    if not isinstance(data, (str, os.PathLike)):
        return _sequence(data, train)
    name = os.fspath(data)
    if name.startswith(_HUB):
        return _shards("parquet", name.removeprefix(_HUB), train)
    if os.path.isdir(name):
        return _folder(name, train)
    if is_pattern(name):
        kinds = {kind_of(file) for file in expanded(name)} - {None}
        return _shards(kinds.pop() or "", name, train) if len(kinds) == 1 else None
    extension = os.path.splitext(name)[1].lower()
    if extension in _ARRAY_FILES:
        return _ARRAY_FILES[extension](name)
    if extension in _LISTS:
        return file_list_source(name)
    kind = kind_of(name)
    return None if kind is None else _shards(kind, name, train)


def _folder(folder: str, train: bool) -> Opened | None:
    if cifar_kind(folder):
        return cifar_source(folder, train)
    from has_dali.pipelines.parquet import parquet_folder

    try:
        with os.scandir(folder) as entries:
            nested = any(entry.is_dir() and not entry.name.startswith(".") for entry in entries)
        kinds = kinds_in(folder)
    except PermissionError:
        return None  # the reader of class folders says so
    if nested and not os.path.exists(os.path.join(folder, INDEX_NAME)):
        return _shards("parquet", folder, train) if parquet_folder(folder) and kinds in ([], ["parquet"]) else None
    if len(kinds) > 1:
        raise ValueError(f"data={folder!r}: holds {' and '.join(kinds)} files; name those to read, as in DIR/*.tar")
    return _shards(kinds[0], folder, train) if kinds else None


def _sequence(data: Any, train: bool) -> Opened | None:
    """A source as it is, or a list of shards as one; None for a list of other files."""
    if isinstance(data, (SpanSource, DecodedSource)):
        return data
    if not isinstance(data, (list, tuple)) or not data or not all(isinstance(e, (str, os.PathLike)) for e in data):
        return None
    kinds = {kind_of(entry) for entry in data}
    if len(kinds) > 1 and kinds - {None}:
        mixed = sorted(kind or "other" for kind in kinds)
        raise ValueError(f"data: a list of {' and '.join(mixed)} files; expected files of one kind")
    kind = kinds.pop()
    return None if kind is None else _shards(kind, data, train)


def _shards(kind: str, data: PathLike | Sequence[PathLike], train: bool) -> Opened:
    if kind == "tar":
        from has_dali.pipelines.tar_shards import packed_index, packed_source, scanned_source

        packed = packed_index(data)
        if packed is None:
            return scanned_source(data)
        if packed[1].kind == "raw":
            from has_dali.pipelines.raw_spans import raw_source

            return raw_source(*packed)
        return packed_source(*packed)
    if kind == "tfrecord":
        from has_dali.pipelines.tfrecords import tfrecord_source

        return tfrecord_source(data)
    if kind == "recordio":
        from has_dali.pipelines.recordio import recordio_source

        return recordio_source(data)
    from has_dali.pipelines.parquet import parquet_source

    return parquet_source(data, train=train)


def _image_files(data: Any) -> Any:
    """A pattern's files; anything else as it is."""
    return expanded(os.fspath(data)) if isinstance(data, (str, os.PathLike)) and is_pattern(data) else data
