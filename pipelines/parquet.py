"""Image data sets stored as parquet, as the Hugging Face hub keeps them: encoded images in a column.

Parquet's pages are compressed, so an image lies nowhere in one piece: the first opening copies the encoded bytes, as
they are, into the cache, one flat file for each parquet file. Later openings map these.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from has_dali.pipelines.flat_files import alone, flat_size, write_flat
from has_dali.pipelines.index_cache import (
    Arrays,
    cache_folder,
    cache_key,
    file_stamps,
    load_index,
    save_index,
    settled,
)
from has_dali.pipelines.name_table import NameTable
from has_dali.pipelines.shard_names import PathLike, shard_files
from has_dali.pipelines.spans import SpanSource

_ROWS = 256  # read at a time
_SPLITS = {"train": "train", "validation": "val", "valid": "val", "val": "val", "dev": "val", "test": "test"}


def parquet_source(
    data: PathLike | Sequence[PathLike],
    image: str = "image",
    label: str = "label",
    train: bool | None = None,
) -> SpanSource:
    """The images of parquet files, in the order of files and rows.

    Args:
        data: a folder with parquet files in it or in its ``data`` folder, one file, a pattern, or a list.
        image: the column of images: binary, or a struct with a field ``bytes``.
        label: the column of labels, integers from 0 on; where there is none, or all are -1, every label is -1. Class
            names come from the features that the hub's files describe.
        train: of a folder whose files are named by split (``train-...``, ``validation-...``, ``test-...``), the
            training files; or else validation, and test where there is no validation. None, or other names: all
            files.

    Raises:
        OSError: a file is missing or unreadable, none is of the part that ``train`` asks for, or the cache has no room
            for the images.
        ValueError: a file is damaged, lacks a column, or holds rows without an image or with no valid label; names
            file and row.
        ImportError: pyarrow is missing.
    """
    files = _files(data, train)
    file_stamps(files)  # all are there, before the first is copied
    found = [_opened(file, image, label) for file in files]
    flats, stored = [flat for flat, _ in found], [arrays for _, arrays in found]
    classes = stored[0]["classes"].tolist()
    different = next((n for n, arrays in enumerate(stored) if arrays["classes"].tolist() != classes), None)
    if different is not None:
        raise ValueError(f"data: {files[different]} has other class names than {files[0]}; open them one by one")
    lengths = [arrays["lengths"] for arrays in stored]
    counts = [len(each) for each in lengths]
    labelled = {bool((arrays["labels"] >= 0).all()) for arrays in stored if len(arrays["labels"])}
    if len(labelled) > 1:
        raise ValueError(f"data: {files[0]} and others: some have the column {label!r}, some do not; add it")
    return SpanSource(
        flats,
        [arrays["lengths"].sum() for arrays in stored],
        np.repeat(np.arange(len(files), dtype=np.int32), counts),
        np.concatenate([np.cumsum(each) - each for each in lengths]),
        np.concatenate(lengths),
        np.concatenate([arrays["labels"] for arrays in stored]),
        classes,
        names=NameTable.of(f"row {row}" for count in counts for row in range(count)),
        titles=files,
    )


def parquet_folder(folder: PathLike) -> str | None:
    """The folder that holds the parquet files: ``folder``, or ``data`` in it; None where there are none."""
    for place in (os.fspath(folder), os.path.join(folder, "data")):
        if os.path.isdir(place) and any(name.lower().endswith(".parquet") for name in os.listdir(place)):
            return place
    return None


def _files(data: PathLike | Sequence[PathLike], train: bool | None) -> list[str]:
    if not isinstance(data, (str, os.PathLike)) or not os.path.isdir(data):
        return shard_files(data, "parquet")
    files = shard_files(parquet_folder(data) or data, "parquet")
    splits = [_split(file) for file in files]
    if train is None or None in splits:
        return files
    wanted = "train" if train else "val" if "val" in splits else "test"
    chosen = [file for file, split in zip(files, splits, strict=True) if split == wanted]
    if not chosen:
        names = "train-*" if train else "validation-* or test-*"
        raise FileNotFoundError(
            f"data={os.fspath(data)!r}: holds {' and '.join(sorted(set(filter(None, splits))))} files only, no"
            f" {names}.parquet; take the files that are there by name, as in {os.path.basename(files[0])}"
        )
    return chosen


def _split(file: str) -> str | None:
    """Which part of a data set a file's name says it holds."""
    name = re.match(r"[a-z]+", os.path.basename(file).lower())
    return _SPLITS.get(name[0]) if name else None


def _opened(file: str, image: str, label: str) -> tuple[str, Arrays]:
    """The flat file of a parquet file, made if it is missing or old, and its index."""
    key = cache_key("parquet", [file], f"{image}\n{label}")
    flat = cache_folder() / "flat" / f"{key}.bin"

    def fitting(stamp: npt.NDArray[np.int64]) -> Arrays | None:
        stored = load_index(key)
        fits = stored is not None and np.array_equal(stored["stamp"], stamp)
        return stored if stored is not None and fits and flat_size(flat) == stored["lengths"].sum() else None

    stored = fitting(file_stamps([file]))
    if stored is None:
        with alone(flat):
            begun = time.time_ns()
            stamp = file_stamps([file])
            stored = fitting(stamp)  # another process may have made it meanwhile
            if stored is None:
                stored = {"stamp": stamp, **_extracted(file, flat, image, label)}
                if settled(stamp, begun) and not save_index(key, stored):
                    raise OSError(f"{cache_folder()}: cannot be written; let HAS_DALI_CACHE name a folder that can")
    return str(flat), stored


def _extracted(file: str, flat: Any, image: str, label: str) -> Arrays:
    """Copy a file's images into the flat file; their lengths and labels, and the class names."""
    parquet = _pyarrow().parquet
    import pyarrow

    try:
        with parquet.ParquetFile(file) as opened:
            columns = opened.schema_arrow.names
            if image not in columns:
                raise ValueError(f"{file}: no column {image!r} (has {', '.join(columns)}); name it (image=)")
            lengths: list[npt.NDArray[np.int64]] = []
            labels: list[npt.NDArray[np.int64]] = []

            def pieces() -> Iterator[npt.NDArray[np.uint8]]:
                row, wanted = 0, [name for name in (image, label) if name in columns]
                for batch in _readable(file, opened.iter_batches(_ROWS, columns=wanted)):
                    data, sizes = _images(file, batch.column(batch.schema.get_field_index(image)), row, image)
                    lengths.append(sizes)
                    labels.append(_labels(file, batch, row, label))
                    row += batch.num_rows
                    yield data

            write_flat(flat, pieces(), _bytes_of(opened.metadata, image))
            classes = _class_names(opened.schema_arrow.metadata, label)
    except pyarrow.ArrowException as error:
        raise ValueError(f"{file}: no parquet file, or a damaged one ({error}); download it again") from None
    joined = (np.concatenate([np.empty(0, np.int64), *arrays]) for arrays in (lengths, labels))
    sizes, targets = joined
    unlabelled = targets < 0
    if unlabelled.any() and not unlabelled.all():  # -1 throughout is how the hub hides a test set's labels
        raise ValueError(f"{file}: row {int(unlabelled.argmax())}: label -1, unlike others; remove the row")
    if classes and len(targets) and targets.max() >= len(classes):
        row = int(targets.argmax())
        raise ValueError(f"{file}: row {row}: label {targets[row]}; expected 0 to {len(classes) - 1} (its classes)")
    return {"lengths": sizes, "labels": targets, "classes": np.array(classes, np.str_)}


def _readable(file: str, batches: Iterator[Any]) -> Iterator[Any]:
    """The batches of a file; pyarrow reports damage as OSError too, which elsewhere means the cache."""
    try:
        yield from batches
    except OSError as error:
        raise ValueError(f"{file}: no parquet file, or a damaged one ({error}); download it again") from None


def _images(file: str, column: Any, first_row: int, name: str) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """A column's encoded images one after the other, and their lengths."""
    import pyarrow

    if pyarrow.types.is_struct(column.type):
        if column.type.get_field_index("bytes") < 0:
            raise ValueError(f"{file}: column {name!r} is {column.type}; expected a struct with 'bytes'")
        _refuse_null(file, column, first_row, "has no image")
        column = column.flatten()[column.type.get_field_index("bytes")]
    if not (pyarrow.types.is_binary(column.type) or pyarrow.types.is_large_binary(column.type)):
        raise ValueError(f"{file}: column {name!r} is {column.type}; expected binary, or a struct with 'bytes'")
    _refuse_null(file, column, first_row, "holds no bytes of its image, at most a path; store images in the files")
    column = column.cast(pyarrow.large_binary())
    _, offsets, data = column.buffers()
    marks = np.frombuffer(offsets, np.int64)[column.offset : column.offset + len(column) + 1]
    sizes = np.diff(marks)
    if (sizes == 0).any():
        raise ValueError(f"{file}: row {first_row + int((sizes == 0).argmax())}: the image is empty; remove the row")
    return np.frombuffer(data, np.uint8)[marks[0] : marks[-1]], sizes


def _labels(file: str, batch: Any, first_row: int, name: str) -> npt.NDArray[np.int64]:
    import pyarrow

    at = batch.schema.get_field_index(name)
    if at < 0:
        return np.full(batch.num_rows, -1, np.int64)
    column = batch.column(at)
    if not pyarrow.types.is_integer(column.type):
        raise ValueError(f"{file}: column {name!r} is {column.type}; expected integers (label= names the column)")
    _refuse_null(file, column, first_row, "has no label")
    labels = column.cast(pyarrow.int64()).to_numpy()
    if (labels < -1).any():
        row = int((labels < -1).argmax())
        raise ValueError(f"{file}: row {first_row + row}: label {labels[row]}; expected an integer from 0 on")
    return labels


def _refuse_null(file: str, column: Any, first_row: int, problem: str) -> None:
    if column.null_count:
        row = first_row + int(column.is_null().to_numpy(zero_copy_only=False).argmax())
        raise ValueError(f"{file}: row {row}: {problem}")


def _class_names(metadata: dict[bytes, bytes] | None, label: str) -> list[str]:
    """The names that the hub's features give to the labels, where they do."""
    try:
        features = json.loads((metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        names = features[label]["names"]
        return [str(name) for name in names] if isinstance(names, list) else []
    except (ValueError, KeyError, TypeError):
        return []


def _bytes_of(metadata: Any, image: str) -> int:
    """About how many bytes the images of a file have."""
    return sum(
        column.total_uncompressed_size
        for group in range(metadata.num_row_groups)
        for column in map(metadata.row_group(group).column, range(metadata.num_columns))
        if column.path_in_schema.split(".")[0] == image
    )


def _pyarrow() -> Any:
    try:
        import pyarrow.parquet
    except ImportError:
        raise ImportError("parquet data needs pyarrow: pip install pyarrow") from None
    return pyarrow
