"""Many names in little memory: one block of bytes with offsets instead of a Python string each."""

from __future__ import annotations

import itertools
import os
from array import array
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

_ROWS = 65536  # names handled at a time where all are gone through


class NameTable:
    """Names by index, as file systems encode them: 1.28 million paths of 60 letters take 87 MB.

    Args:
        data: uint8, all names one after the other.
        offsets: (N + 1,) int64, where each name starts in ``data``, and where the last one ends.

    Raises:
        ValueError: the two do not fit together.
    """

    def __init__(self, data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> None:
        fits = data.dtype == np.uint8 and offsets.dtype == np.int64 and data.ndim == offsets.ndim == 1 and len(offsets)
        if not fits or offsets[0] != 0 or offsets[-1] != len(data) or (np.diff(offsets) < 0).any():
            raise ValueError("names: expected flat uint8 data and int64 offsets that rise from 0 to its length")
        self.data, self.offsets = data.view(), offsets.view()
        self.data.flags.writeable = self.offsets.flags.writeable = False

    @classmethod
    def of(cls, names: Iterable[str | bytes | os.PathLike[str]]) -> NameTable:
        """A table of given names."""
        builder = NameBuilder()
        for name in names:
            builder.append(os.fsencode(name))
        return builder.table()

    def __len__(self) -> int:
        """Number of names."""
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> str:
        """One name."""
        return os.fsdecode(self.encoded(index).tobytes())

    def __iter__(self) -> Iterator[str]:
        """All names, one string at a time."""
        return (self[i] for i in range(len(self)))

    def encoded(self, index: int) -> npt.NDArray[np.uint8]:
        """One name as bytes, uint8 (length,): a view."""
        return self.data[self.offsets[index] : self.offsets[index + 1]]

    def select(self, ids: npt.NDArray[np.int64]) -> NameTable:
        """The names ``ids``, (M,) integers, as a table of their own."""
        lengths = np.diff(self.offsets)[ids]
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        data = np.empty(offsets[-1], np.uint8)
        for row, (start, length) in enumerate(zip(self.offsets[ids].tolist(), lengths.tolist(), strict=True)):
            data[offsets[row] : offsets[row] + length] = self.data[start : start + length]
        return NameTable(data, offsets)

    def shared_prefix(self) -> bytes:
        """The bytes with which every name begins."""
        if not len(self):
            return b""
        starts, shortest = self.offsets[:-1], int(np.diff(self.offsets).min())
        first = self.encoded(0)
        for at in range(shortest):
            if (self.data[starts + at] != first[at]).any():
                return first[:at].tobytes()
        return first[:shortest].tobytes()

    def chunks(self, skip: int = 0, separator: bytes = b"\0") -> Iterator[bytes]:
        """All names without their first ``skip`` bytes, joined by ``separator``, a piece at a time."""
        for row in range(0, len(self), _ROWS):
            ends = self.offsets[row : row + _ROWS + 1]
            piece = self.data[ends[0] : ends[-1]].tobytes()
            marks = (ends - ends[0]).tolist()
            names = [piece[start + skip : end] for start, end in itertools.pairwise(marks)]
            yield (separator if row else b"") + separator.join(names)

    def arrays(self, name: str) -> dict[str, npt.NDArray]:
        """What to store: ``NAME_data`` and ``NAME_offsets``."""
        return {f"{name}_data": self.data, f"{name}_offsets": self.offsets}

    @classmethod
    def from_arrays(cls, stored: dict[str, npt.NDArray], name: str) -> NameTable:
        """The table that ``arrays(name)`` stored."""
        return cls(stored[f"{name}_data"], stored[f"{name}_offsets"])


class NameBuilder:
    """A table under construction; it never holds a Python object per name."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._ends = array("q", [0])

    def __len__(self) -> int:
        """Number of names so far."""
        return len(self._ends) - 1

    def append(self, name: bytes) -> None:
        """One more name."""
        self._data += name
        self._ends.append(len(self._data))

    def extend(self, names: Sequence[bytes]) -> None:
        """Several more names."""
        ends = np.cumsum([len(name) for name in names], dtype=np.int64) + len(self._data)
        self._data += b"".join(names)
        self._ends.frombytes(ends.tobytes())

    def table(self) -> NameTable:
        """The names so far; the builder takes no more afterwards."""
        return NameTable(np.frombuffer(self._data, np.uint8), np.frombuffer(self._ends, np.int64))
