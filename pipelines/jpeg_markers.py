"""The segments of a JPEG before and behind its image data."""

from __future__ import annotations

_START, _SCAN, _END = 0xD8, 0xDA, 0xD9
_ALONE = (0x01, *range(0xD0, 0xD8))  # markers without a length


def has_clean_header(content: bytes) -> bool:
    """Whether every segment before the image data starts where the one before it ends.

    Decoders skip stray bytes there, but DALI's parser refuses them.
    """
    if content[:2] != bytes((0xFF, _START)):
        return False
    at = 2
    while at + 4 <= len(content):
        if content[at] != 0xFF:
            return False
        marker = content[at + 1]
        if marker == 0xFF:  # padding
            at += 1
        elif marker in _ALONE:
            at += 2
        elif marker in (_START, _END, 0x00):
            return False
        else:
            at += 2 + int.from_bytes(content[at + 2 : at + 4], "big")
            if marker == _SCAN:
                return at <= len(content)
    return False


def has_end(content: bytes) -> bool:
    """Whether the bytes end with the end-of-image marker; DALI's decoder refuses data without one."""
    return content.endswith(bytes((0xFF, _END)))
