"""As much of protocol buffers as a tf.train.Example needs: where its features lie in a record, nothing copied.

An Example holds Features (field 1), these a map (field 1) from names (field 1) to Feature (field 2), which is a list
of bytes (field 1), floats (field 2) or int64 (field 3).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

BYTES_LIST, FLOAT_LIST, INT64_LIST = 1, 2, 3

Buffer = memoryview


def example_features(
    record: Buffer, start: int, end: int, wanted: Collection[bytes]
) -> Iterator[tuple[bytes, int, int, int]]:
    """Name, kind, first and last + 1 byte of the list of each wanted feature of an Example at ``record[start:end]``.

    Raises:
        ValueError: this is no Example.
    """
    for field, first, last in _fields(record, start, end):
        if field != 1:
            continue
        for inner, entry, entry_end in _fields(record, first, last):
            if inner != 1:
                continue
            name, value = b"", (0, 0)
            for part, at, stop in _fields(record, entry, entry_end):
                if part == 1:
                    name = bytes(record[at:stop])
                elif part == 2:
                    value = (at, stop)
            if name in wanted:
                for kind, at, stop in _fields(record, *value):
                    yield name, kind, at, stop


def bytes_values(record: Buffer, start: int, end: int) -> list[tuple[int, int]]:
    """First and last + 1 byte of each entry of a list of bytes."""
    return [(first, last) for field, first, last in _fields(record, start, end) if field == 1]


def int64_values(record: Buffer, start: int, end: int) -> list[int]:
    """The entries of a list of int64, packed or not."""
    values = []
    at = start
    while at < end:
        tag, at = _varint(record, at, end)
        if tag == 8:  # field 1, a varint
            value, at = _varint(record, at, end)
            values.append(value)
        elif tag == 10:  # field 1, packed
            length, at = _varint(record, at, end)
            stop = at + length
            if stop > end:
                raise ValueError("a list of numbers is cut short")
            while at < stop:
                value, at = _varint(record, at, stop)
                values.append(value)
        else:
            raise ValueError("a list of numbers holds something else")
    return [value - (1 << 64) if value >> 63 else value for value in values]


def _fields(record: Buffer, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Number, first and last + 1 byte of the length-delimited fields of a message; others are passed over."""
    at = start
    while at < end:
        tag, at = record[at], at + 1
        if tag > 127:  # most numbers here have one byte
            tag, at = _varint(record, at - 1, end)
        kind = tag & 7
        if kind == 2:
            length, at = _varint(record, at, end) if at == end or record[at] > 127 else (record[at], at + 1)
            if at + length > end:
                raise ValueError("a field reaches beyond its message")
            yield tag >> 3, at, at + length
            at += length
        elif kind == 0:
            _, at = _varint(record, at, end)
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        else:
            raise ValueError(f"wire type {kind}")


def _varint(record: Buffer, at: int, end: int) -> tuple[int, int]:
    """A number and the place behind it."""
    value = shift = 0
    while at < end and shift < 70:
        byte = record[at]
        value |= (byte & 127) << shift
        at += 1
        if byte < 128:
            return value, at
        shift += 7
    raise ValueError("a number is cut short")
