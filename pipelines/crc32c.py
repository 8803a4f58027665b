"""CRC-32C (Castagnoli) as TFRecord files use it: masked, of record lengths and of whole records."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from has_dali.kernels.compiling import kernel

_POLYNOMIAL = 0x82F63B78
_MASK = 0xA282EAD8


def _table() -> npt.NDArray[np.uint32]:
    rows = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        rows = np.where(rows & 1, (rows >> 1) ^ np.uint32(_POLYNOMIAL), rows >> 1).astype(np.uint32)
    return rows


TABLE = _table()


def masked_crc32c(data: npt.NDArray[np.uint8]) -> int:
    """The masked CRC of some bytes, uint8 (length,)."""
    return int(_masked(np.array([_crc(data, TABLE)], np.uint32))[0])


def masked_crc32c_rows(rows: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint32]:
    """(N,) the masked CRC of each row of (N, length) bytes; for short rows, without compiling anything."""
    state = np.full(len(rows), 0xFFFFFFFF, np.uint32)
    for column in rows.T:
        state = TABLE[(state ^ column) & 0xFF] ^ (state >> np.uint32(8))
    return _masked(~state)


def _masked(crc: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    return ((crc >> np.uint32(15)) | (crc << np.uint32(17))) + np.uint32(_MASK)


@kernel
def _crc(data: npt.NDArray[np.uint8], table: npt.NDArray[np.uint32]) -> np.uint32:
    state = np.uint32(0xFFFFFFFF)
    for byte in data:
        state = table[(state ^ byte) & 0xFF] ^ (state >> np.uint32(8))
    return state ^ np.uint32(0xFFFFFFFF)
