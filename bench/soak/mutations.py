"""Damaged JPEGs: a pure function of (seed, number), so that a finding can be made again from two integers."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from has_dali.bench.soak.pictures import encoded

ORIGINALS = 35  # every combination of the five sizes and seven kinds
_START_OF_SCAN, _RESTARTS = 0xDA, range(0xD0, 0xDA)
_FRAMES = (0xC0, 0xC1, 0xC2)


def mutated(seed: int, number: int) -> tuple[str, bytes]:
    """What was done to a JPEG, and the result."""
    rng = np.random.default_rng([seed, number])
    name = tuple(MUTATIONS)[number % len(MUTATIONS)]
    return name, bytes(MUTATIONS[name](bytearray(_original(int(rng.integers(ORIGINALS)))), rng))


@functools.lru_cache(maxsize=ORIGINALS)
def _original(number: int) -> bytes:
    return encoded(number)


def segments(data: bytes | bytearray) -> list[tuple[int, int, int]]:
    """(marker, begin, end) of each segment of an undamaged JPEG, the marker included, up to the first scan."""
    found = []
    at = 2
    while data[at + 1] != _START_OF_SCAN:
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        found.append((data[at + 1], at, at + 2 + length))
        at += 2 + length
    length = int.from_bytes(data[at + 2 : at + 4], "big")
    return [*found, (_START_OF_SCAN, at, at + 2 + length)]


def _flip(data: bytearray, rng: np.random.Generator, low: int, high: int) -> bytearray:
    for at in rng.integers(low, high, int(rng.integers(1, 33))).tolist():
        data[at] ^= int(rng.integers(1, 256))
    return data


def _flip_anywhere(data: bytearray, rng: np.random.Generator) -> bytearray:
    return _flip(data, rng, 0, len(data))


def _flip_header(data: bytearray, rng: np.random.Generator) -> bytearray:
    return _flip(data, rng, 2, segments(data)[-1][2])


def _flip_scan(data: bytearray, rng: np.random.Generator) -> bytearray:
    return _flip(data, rng, segments(data)[-1][2], len(data))


def _cut(data: bytearray, rng: np.random.Generator) -> bytearray:
    return data[: int(rng.integers(0, len(data)))]


def _cut_and_end(data: bytearray, rng: np.random.Generator) -> bytearray:
    return _cut(data, rng) + b"\xff\xd9"


def _frame_field(data: bytearray, rng: np.random.Generator) -> bytearray:
    """Precision, height, width, number of components, sampling factors or table of the frame header."""
    begin = next(begin for marker, begin, _ in segments(data) if marker in _FRAMES)
    field = int(rng.integers(5))
    if field in (0, 1):  # height, width
        side = int(rng.choice([0, 1, 7, 255, 1000, 65535, int(rng.integers(65536))]))
        data[begin + 5 + 2 * field : begin + 7 + 2 * field] = side.to_bytes(2, "big")
    else:
        at = begin + {2: 4, 3: 9, 4: 10 + int(rng.integers(3 * data[begin + 9]))}[field]
        data[at] = int(rng.integers(256))
    return data


def _length_field(data: bytearray, rng: np.random.Generator) -> bytearray:
    """The length of a segment, or of a table within."""
    found = segments(data)
    _, begin, end = found[int(rng.integers(len(found)))]
    if rng.random() < 0.5:
        data[begin + 2 : begin + 4] = int(rng.integers(65536)).to_bytes(2, "big")
        return data
    data[int(rng.integers(begin + 4, max(end, begin + 5)))] = int(rng.choice([0, 1, 127, 255]))
    return data


def _shuffled_segments(data: bytearray, rng: np.random.Generator) -> bytearray:
    """Segments dropped, repeated, or in another order."""
    found = segments(data)
    chosen = rng.integers(0, len(found), int(rng.integers(1, 2 * len(found)))).tolist()
    body = b"".join(bytes(data[found[n][1] : found[n][2]]) for n in chosen)
    return data[:2] + body + data[found[-1][1] :]


def _overwritten(data: bytearray, rng: np.random.Generator) -> bytearray:
    begin = int(rng.integers(len(data)))
    length = int(rng.integers(1, 600))
    data[begin : begin + length] = rng.bytes(min(length, len(data) - begin))
    return data


def _inserted(data: bytearray, rng: np.random.Generator) -> bytearray:
    at = int(rng.integers(len(data)))
    return data[:at] + rng.bytes(int(rng.integers(1, 2000))) + data[at:]


def _removed(data: bytearray, rng: np.random.Generator) -> bytearray:
    begin = int(rng.integers(len(data)))
    return data[:begin] + data[begin + int(rng.integers(1, 600)) :]


def _blank_tail(data: bytearray, rng: np.random.Generator) -> bytearray:
    at = int(rng.integers(len(data)))
    return data[:at] + bytes([int(rng.choice([0, 255]))]) * (len(data) - at)


def _spliced(data: bytearray, rng: np.random.Generator) -> bytearray:
    other = _original(int(rng.integers(ORIGINALS)))
    return data[: int(rng.integers(len(data)))] + other[int(rng.integers(len(other))) :]


def _bad_exif(data: bytearray, rng: np.random.Generator) -> bytearray:
    content = b"Exif\0\0" + bytes(rng.choice([b"II*\0", b"MM\0*", b"\0\0\0\0"])) + rng.bytes(int(rng.integers(0, 200)))
    length = len(content) + 2 if rng.random() < 0.5 else int(rng.integers(65536))
    return data[:2] + b"\xff\xe1" + length.to_bytes(2, "big") + content + data[2:]


def _restart_markers(data: bytearray, rng: np.random.Generator) -> bytearray:
    for at in rng.integers(segments(data)[-1][2], len(data) - 1, int(rng.integers(1, 9))).tolist():
        data[at : at + 2] = bytes([0xFF, int(rng.choice(_RESTARTS))])
    return data


def _garbage(_: bytearray, rng: np.random.Generator) -> bytearray:
    start = (b"", b"\xff\xd8", b"\xff\xd8\xff\xe0\0\x10JFIF\0\1\1")[int(rng.integers(3))]
    return bytearray(start + rng.bytes(int(rng.integers(0, 5000))))


MUTATIONS: dict[str, Callable[[bytearray, np.random.Generator], bytearray]] = {
    "bytes flipped anywhere": _flip_anywhere,
    "bytes flipped in the header": _flip_header,
    "bytes flipped in the scan": _flip_scan,
    "cut off": _cut,
    "cut off and ended": _cut_and_end,
    "frame header field": _frame_field,
    "segment length": _length_field,
    "segments shuffled": _shuffled_segments,
    "overwritten": _overwritten,
    "garbage inserted": _inserted,
    "bytes removed": _removed,
    "blank tail": _blank_tail,
    "two spliced": _spliced,
    "bad EXIF": _bad_exif,
    "restart markers": _restart_markers,
    "garbage": _garbage,
}
"""By name, from (an undamaged JPEG, draws) to a damaged one."""
