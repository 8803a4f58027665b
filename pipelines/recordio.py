"""MXNet's RecordIO files of images, as im2rec writes them: images by their place in the record."""

from __future__ import annotations

import logging
import os
import struct
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from has_dali.pipelines.file_maps import FileMaps
from has_dali.pipelines.index_cache import stamp_of
from has_dali.pipelines.name_table import NameTable
from has_dali.pipelines.shard_names import PathLike, shard_files
from has_dali.pipelines.span_index import FileSpans, indexed_source
from has_dali.pipelines.spans import SpanSource

_LOG = logging.getLogger(__name__)

_MAGIC = 0xCED7230A
_HEAD = 8  # bytes before a part: the magic number, then kind (3 bits) and length (29 bits)
_IMAGE_HEADER = 24  # flag, label, id, id2
_LABELS = 1 << 24  # stored as 32-bit floats, which tell apart all integers below
_WHOLE, _FIRST, _MIDDLE, _LAST = range(4)


def recordio_source(data: PathLike | Sequence[PathLike], label_column: int = 0) -> SpanSource:
    """The images of RecordIO files, in the order of files and records.

    ``FILE.idx`` beside ``FILE.rec`` is taken for the records' places; without it the file is walked through. An image
    that happens to hold the format's magic number lies in several parts: it is put together in the cache.

    Args:
        data: a folder of .rec files, one file, a pattern, or a list.
        label_column: which number of an array of labels; a single label has column 0.

    Raises:
        OSError: a file is missing or unreadable.
        ValueError: a file is cut short or damaged, its index names other records than it holds, or a label is no
            integer from 0 on; names file and record.
    """
    files = shard_files(data, "recordio")
    indexes = {file: os.path.splitext(file)[0] + ".idx" for file in files}
    missing = [file for file, index in indexes.items() if not os.path.isfile(index)]
    if missing:
        _LOG.info("%s: no .idx beside it; the file is walked through instead", missing[0])
    stamps = [f"{index}:{stamp_of(index)}" for index in indexes.values() if os.path.isfile(index)]
    scan = partial(_scan, column=label_column)
    return indexed_source("recordio", files, scan, options="\n".join([str(label_column), *stamps]))


def _scan(path: str, size: int, column: int) -> FileSpans:
    """The images of one file."""
    content = FileMaps([path], np.array([size]))[0]
    index = os.path.splitext(path)[0] + ".idx"
    indexed = os.path.isfile(index)
    starts = _indexed_starts(path, index, size) if indexed else _walked_starts(path, content)
    kinds, lengths = _heads(path, content, starts)
    if np.isin(kinds, (_MIDDLE, _LAST)).any():
        number = int(np.isin(kinds, (_MIDDLE, _LAST)).argmax())
        raise ValueError(f"{path}: record {number} at byte {starts[number]} has no beginning; write the file again")
    whole = kinds == _WHOLE
    joined = {int(n): _joined(path, content, int(n), int(starts[n])) for n in np.flatnonzero(~whole)}
    if indexed:
        ends = starts + _HEAD + _padded(lengths)
        for number, (_, end) in joined.items():
            ends[number] = end
        _check_complete(path, index, content, starts, ends)
    offsets, labels = _image_headers(path, content, starts + _HEAD, lengths, whole, column)
    lengths = lengths - (offsets - starts - _HEAD)
    pieced = {}
    for number, (record, _) in joined.items():
        at, labels[number] = _image_header(path, number, record, column)
        pieced[number] = record[at:]
        offsets[number], lengths[number] = 0, len(record) - at
    wrong = ~((labels >= 0) & (labels < _LABELS) & (np.floor(labels) == labels))  # NaN is wrong too
    if wrong.any():
        number = int(wrong.argmax())
        label = labels[number]
        raise ValueError(f"{path}: record {number}: label {label}; expected an integer from 0 to {_LABELS - 1}")
    if (lengths == 0).any():
        raise ValueError(f"{path}: record {int((lengths == 0).argmax())}: holds no image; write the file without it")
    names = NameTable.of(f"record {n}" for n in range(len(starts)))
    return FileSpans(offsets, lengths, labels.astype(np.int64), names, pieced)


def _walked_starts(path: str, content: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Where the records start; parts that go on with one are passed over."""
    starts: list[int] = []
    at, size = 0, len(content)
    while at < size:
        if at + _HEAD > size:
            raise ValueError(f"{path}: truncated in the header of record {len(starts)}; copy or write it again")
        magic, head = struct.unpack_from("<II", content.data, at)
        if magic != _MAGIC:
            raise _damaged(path, len(starts), at)
        if head >> 29 in (_WHOLE, _FIRST):
            starts.append(at)
        at += _HEAD + _padded(head & 0x1FFFFFFF)
    return np.array(starts, np.int64)


def _indexed_starts(path: str, index: str, size: int) -> npt.NDArray[np.int64]:
    """The same by the index: lines of a key and a place."""
    try:
        with open(index, encoding="utf-8") as file:
            starts = np.array(sorted(int(line.split()[1]) for line in file if line.strip()), np.int64)
    except (ValueError, IndexError, OverflowError) as error:
        raise ValueError(f"{index}: no index ({error}); expected 'key offset' lines as im2rec writes") from None
    if len(starts) and (starts[0] < 0 or starts[-1] + _HEAD > size):
        raise ValueError(f"{index}: places beyond {path} ({size} bytes): the file is truncated, or the index another's")
    if (np.diff(starts) == 0).any():
        raise ValueError(f"{index}: names byte {starts[:-1][np.diff(starts) == 0][0]} twice; write the index again")
    return starts


def _check_complete(
    path: str, index: str, content: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]
) -> None:
    """Refuse an index that was cut short: what it does not name would be missing without a word."""
    bounds = np.concatenate([[0], ends])
    if np.array_equal(bounds[:-1], starts) and bounds[-1] >= len(content):  # the last one's padding may be missing
        return
    held = len(_walked_starts(path, content))
    raise ValueError(f"{index}: names {len(starts)} of {held} records of {path}; delete it, or write it again")


def _heads(
    path: str, content: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Kinds of the records' first parts, and their lengths."""
    words = _words(content, starts, 2, "<u4").astype(np.int64)
    strange = words[:, 0] != _MAGIC
    if strange.any():
        number = int(strange.argmax())
        raise _damaged(path, number, int(starts[number]))
    lengths = words[:, 1] & 0x1FFFFFFF
    beyond = starts + _HEAD + lengths > len(content)
    if beyond.any():
        raise ValueError(f"{path}: truncated inside record {int(beyond.argmax())}; copy or write it again")
    return words[:, 1] >> 29, lengths


def _image_headers(
    path: str,
    content: npt.NDArray[np.uint8],
    at: npt.NDArray[np.int64],
    lengths: npt.NDArray[np.int64],
    whole: npt.NDArray[np.bool_],
    column: int,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Where the images of records in one part start, and their labels; the others' count for nothing."""
    offsets, labels = at.copy(), np.zeros(len(at))
    short = whole & (lengths < _IMAGE_HEADER)
    if short.any():
        raise _no_image(path, int(short.argmax()))
    flags = np.zeros(len(at), np.int64)
    flags[whole] = _words(content, at[whole], 1, "<u4")[:, 0]
    wrong = whole & (_IMAGE_HEADER + 4 * flags > lengths)
    if wrong.any():
        raise _no_image(path, int(wrong.argmax()))
    few = whole & (np.maximum(flags, 1) <= column)
    if few.any():
        raise _few_labels(path, int(few.argmax()), int(flags[few.argmax()]), column)
    offsets[whole] += _IMAGE_HEADER + 4 * flags[whole]
    places = np.where(flags > 0, at + _IMAGE_HEADER + 4 * column, at + 4)
    labels[whole] = _words(content, places[whole], 1, "<f4")[:, 0]
    return offsets, labels


def _image_header(path: str, number: int, record: bytes, column: int) -> tuple[int, float]:
    """The same of one record that was put together."""
    if len(record) < _IMAGE_HEADER:
        raise _no_image(path, number)
    flag, label = struct.unpack_from("<If", record)
    if _IMAGE_HEADER + 4 * flag > len(record):
        raise _no_image(path, number)
    if max(flag, 1) <= column:
        raise _few_labels(path, number, flag, column)
    if flag:
        (label,) = struct.unpack_from("<f", record, _IMAGE_HEADER + 4 * column)
    return _IMAGE_HEADER + 4 * flag, label


def _joined(path: str, content: npt.NDArray[np.uint8], number: int, at: int) -> tuple[bytes, int]:
    """A record in several parts, and its end: the writer cut it where the magic number stood, and left that out."""
    parts: list[bytes] = []
    kind = _FIRST
    while kind != _LAST:
        if at + _HEAD > len(content):
            raise ValueError(f"{path}: truncated inside record {number}; copy or write it again")
        magic, head = struct.unpack_from("<II", content.data, at)
        kind, length = head >> 29, head & 0x1FFFFFFF
        if magic != _MAGIC or kind not in ((_MIDDLE, _LAST) if parts else (_FIRST,)):
            raise _damaged(path, number, at)
        if at + _HEAD + length > len(content):
            raise ValueError(f"{path}: truncated inside record {number}; copy or write it again")
        parts.append(content[at + _HEAD : at + _HEAD + length].tobytes())
        at += _HEAD + _padded(length)
    return struct.pack("<I", _MAGIC).join(parts), at


def _words(content: npt.NDArray[np.uint8], at: npt.NDArray[np.int64], count: int, dtype: str) -> npt.NDArray:
    """(N, count) numbers of 4 bytes at N places."""
    return content[at[:, None] + np.arange(4 * count)].view(dtype)


def _padded(length: Any) -> Any:
    """Bytes that a part of ``length`` bytes takes; of an array, of each."""
    return (length + 3) // 4 * 4


def _damaged(path: str, number: int, at: int) -> ValueError:
    return ValueError(f"{path}: no record at byte {at} (record {number}): damaged, or an index of another file")


def _no_image(path: str, number: int) -> ValueError:
    return ValueError(f"{path}: record {number}: too short for an image and its label; expected im2rec's records")


def _few_labels(path: str, number: int, flag: int, column: int) -> ValueError:
    return ValueError(f"{path}: record {number}: {max(flag, 1)} label(s); label_column={column} is not among them")
