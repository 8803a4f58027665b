"""TFRecord files of tf.train.Example: images by their place in the record."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from has_dali.pipelines.crc32c import masked_crc32c, masked_crc32c_rows
from has_dali.pipelines.file_maps import FileMaps
from has_dali.pipelines.shard_names import PathLike, shard_files
from has_dali.pipelines.span_index import FileSpans, SpanBuilder, indexed_source
from has_dali.pipelines.spans import SpanSource
from has_dali.pipelines.wire_format import BYTES_LIST, INT64_LIST, bytes_values, example_features, int64_values

_HEAD, _TAIL = 12, 4  # bytes around a record: length and its CRC; the CRC of the record


def tfrecord_source(
    data: PathLike | Sequence[PathLike],
    image: str = "image/encoded",
    label: str = "image/class/label",
    label_offset: int = 0,
) -> SpanSource:
    """The images of TFRecord files, in the order of files and records.

    The files are scanned once. An index that DALI's ``tfrecord2idx`` wrote (``FILE.idx``, or ``.idx`` in place of the
    extension) is taken for the records' places.

    Args:
        data: a folder of files (``.tfrecord``, ``.tfrecords``, ``...-00000-of-01024``), one file, a pattern, or a list.
        image: the feature with the encoded image.
        label: the feature with its label; a set in which no record has it is read without.
        label_offset: what is subtracted from a stored label. ImageNet's TFRecords, as TensorFlow's scripts wrote them,
            count from 1 (0 is the background): give 1 for these. Nothing in the files says so, so nothing is guessed.

    Raises:
        OSError: a file is missing or unreadable.
        ValueError: a file is cut short or damaged, or a record holds no image, no label or a negative one; names
            file and record.
    """
    files = shard_files(data, "tfrecord")
    scan = partial(_scan, image=image.encode(), label=label.encode(), label_offset=label_offset)
    indexes = [path or "" for path in map(_index_beside, files)]
    stamps = [f"{path}:{os.stat(path).st_mtime_ns}" for path in indexes if path]
    return indexed_source("tfrecord", files, scan, options="\n".join([image, label, str(label_offset), *stamps]))


def broken_records(path: PathLike) -> Iterator[tuple[int, str]]:
    """Number and fault of each record of a file whose contents do not have their checksum; reads the whole file.

    Raises:
        OSError: the file is missing or unreadable.
        ValueError: the file is cut short, or a length is damaged.
    """
    name = os.fspath(path)
    size = os.stat(name).st_size
    content = FileMaps([name], np.array([size]))[0]
    offsets, lengths = _records(name, content)
    for number, (start, length) in enumerate(zip(offsets.tolist(), lengths.tolist(), strict=True)):
        stored = int.from_bytes(content[start + length : start + length + _TAIL].tobytes(), "little")
        if masked_crc32c(content[start : start + length]) != stored:
            yield number, "its contents do not have their checksum"


def _scan(path: str, size: int, image: bytes, label: bytes, label_offset: int) -> FileSpans:
    """The images of one file."""
    content = FileMaps([path], np.array([size]))[0]
    view = content.data
    found = SpanBuilder()
    for number, (start, length) in enumerate(zip(*(a.tolist() for a in _records(path, content)), strict=True)):
        try:
            span, value = _example(view, start, start + length, image, label)
        except ValueError as error:
            raise ValueError(f"{path}: record {number}: no tf.train.Example ({error}); write it again") from None
        if span is None or span[0] == span[1]:
            wrong = "no" if span is None else "an empty"
            raise ValueError(f"{path}: record {number}: {wrong} image in {image.decode()!r}; name its feature (image=)")
        if value is not None and value < label_offset:
            raise ValueError(
                f"{path}: record {number}: label {value} in {label.decode()!r} with label_offset={label_offset};"
                " expected one from the offset on"
            )
        target = -1 if value is None else value - label_offset
        found.add(span[0], span[1] - span[0], target, b"record %d" % number)
    return found.spans()


def _example(
    record: memoryview, start: int, end: int, image: bytes, label: bytes
) -> tuple[tuple[int, int] | None, int | None]:
    """Where the image lies, and the label; None for what is not there."""
    span, value = None, None
    for name, kind, first, last in example_features(record, start, end, (image, label)):
        if name == image and kind == BYTES_LIST:
            spans = bytes_values(record, first, last)
            if len(spans) != 1:
                raise ValueError(f"{image.decode()!r} holds {len(spans)} images, not 1")
            span = spans[0]
        elif name == label and kind == INT64_LIST:
            values = int64_values(record, first, last)
            if len(values) != 1:
                raise ValueError(f"{label.decode()!r} holds {len(values)} labels, not 1")
            value = values[0]
        elif name == label:
            raise ValueError(f"{label.decode()!r} holds no integers")
    return span, value


def _records(path: str, content: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Where the records' contents start, and their lengths; lengths are checked."""
    if content[:2].tobytes() == b"\x1f\x8b":
        raise ValueError(f"{path}: compressed with gzip; decompress it: images are read in any order")
    index = _index_beside(path)
    starts = _indexed_starts(path, index, content) if index else _walked_starts(path, content)
    if not len(starts):
        return starts, starts
    heads = content[starts[:, None] + np.arange(_HEAD)]
    lengths = heads[:, :8].copy().view("<u8")[:, 0]
    wrong = masked_crc32c_rows(heads[:, :8]) != heads[:, 8:].copy().view("<u4")[:, 0]
    if wrong.any():
        number = int(wrong.argmax())
        remedy = f"delete {index}, or write it again" if index else "write the file again"
        raise ValueError(f"{path}: record {number} at byte {starts[number]}: its length is damaged; {remedy}")
    room = len(content) - starts - _HEAD - _TAIL
    beyond = (room < 0) | (lengths > room.clip(0).astype(np.uint64))
    if beyond.any():
        raise ValueError(f"{path}: truncated inside record {int(beyond.argmax())}; copy or write it again")
    return starts + _HEAD, lengths.astype(np.int64)


def _walked_starts(path: str, content: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    starts: list[int] = []
    view, at, size = content.data, 0, len(content)
    while at < size:
        if at + _HEAD > size:
            raise ValueError(f"{path}: truncated in the header of record {len(starts)}; copy or write it again")
        starts.append(at)
        at += _HEAD + int.from_bytes(view[at : at + 8], "little") + _TAIL
    return np.array(starts, np.int64)


def _index_beside(path: str) -> str | None:
    """The index that tfrecord2idx wrote for a file, where there is one."""
    return next((name for name in (f"{path}.idx", os.path.splitext(path)[0] + ".idx") if os.path.isfile(name)), None)


def _indexed_starts(path: str, index: str, content: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """The records' places by the index, which must cover the file."""
    try:
        with open(index, encoding="ascii") as file:
            rows = np.array([line.split() for line in file if line.strip()], np.int64).reshape(-1, 2)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{index}: no index ({error}); expected 'offset size' lines as tfrecord2idx writes") from None
    starts, sizes = rows.T
    covered = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
    if (starts != covered[:-1]).any() or covered[-1] != len(content) or (len(sizes) and sizes.min() < _HEAD + _TAIL):
        raise ValueError(f"{index}: does not fit {path} ({len(content)} bytes); delete it, or write it again")
    return starts
