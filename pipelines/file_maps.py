"""Files mapped into memory, read only: a look at any byte range without opening, reading or copying."""

from __future__ import annotations

import contextlib
import mmap
import os
import resource
import sys
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt


class _Map(NamedTuple):
    map: mmap.mmap | None  # None: an empty file
    view: npt.NDArray[np.uint8]


class FileMaps:
    """Memory maps of files, made when first asked for, in each process anew, and closed with their last view.

    A file is checked before it is mapped and at every ``check``: reading a map of a file that was cut short would end
    the process.

    Args:
        files: paths.
        sizes: (F,) bytes of each file when it was indexed.
        titles: what errors call the files; their paths by default.
    """

    def __init__(self, files: Sequence[str], sizes: npt.NDArray[np.int64], titles: Sequence[str] = ()) -> None:
        self.files, self.sizes, self.titles = tuple(files), sizes, tuple(titles) or tuple(files)
        self._start()

    def _start(self) -> None:
        self._maps: OrderedDict[int, _Map] = OrderedDict()
        # Before Python 3.13 a map holds a descriptor. Half of what the process may open is left to others.
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._most = len(self.files) if sys.version_info >= (3, 13) else max(1, soft // 2)

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the maps: another process makes its own."""
        return {"files": self.files, "sizes": self.sizes, "titles": self.titles}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over the files; nothing is mapped yet."""
        self.__dict__.update(state)
        self._start()

    def __getitem__(self, index: int) -> npt.NDArray[np.uint8]:
        """A whole file, uint8 (size,): a read-only view that keeps its map alive.

        Raises:
            OSError: the file is missing, unreadable, or of another size than when it was indexed.
        """
        return self._open(index).view

    def will_need(self, index: int, offset: int, length: int) -> None:
        """Start to read a range from the disk, without waiting for it, unless it is in memory already."""
        opened = self._open(index).map
        if opened is not None and length:
            start = offset // mmap.PAGESIZE * mmap.PAGESIZE
            with contextlib.suppress(OSError):  # no more than a hint
                opened.madvise(mmap.MADV_WILLNEED, start, offset + length - start)

    def _open(self, index: int) -> _Map:
        # No lock: a fork while another thread holds it would leave the child with one that never opens. Each step is
        # atomic, and two threads that map the same file at once leave one map.
        found = self._maps.get(index)
        if found is None:
            found = self._maps.setdefault(index, self._mapped(index))
            while len(self._maps) > self._most:
                with contextlib.suppress(KeyError):
                    self._maps.popitem(last=False)
        elif len(self.files) > self._most:
            with contextlib.suppress(KeyError):
                self._maps.move_to_end(index)
        return found

    def check(self, indices: Iterable[int]) -> None:
        """Raise OSError unless these files still have the size they were indexed with."""
        for index in indices:
            try:
                found = os.stat(self.files[index]).st_size
            except OSError as error:
                raise self._unreadable(index, error) from None
            self._check_size(index, found)

    def _mapped(self, index: int) -> _Map:
        try:
            with open(self.files[index], "rb") as file:
                self._check_size(index, os.fstat(file.fileno()).st_size)
                if not self.sizes[index]:
                    return _Map(None, np.frombuffer(b"", np.uint8))
                options: dict[str, Any] = {"trackfd": False} if sys.version_info >= (3, 13) else {}
                mapped = mmap.mmap(file.fileno(), int(self.sizes[index]), access=mmap.ACCESS_READ, **options)
        except OSError as error:
            if not error.errno:
                raise
            raise self._unreadable(index, error) from None
        return _Map(mapped, np.frombuffer(mapped, np.uint8))

    def _check_size(self, index: int, found: int) -> None:
        if found != self.sizes[index]:
            raise OSError(
                f"{self.titles[index]}: {self._place(index)}has {found} bytes, {int(self.sizes[index])} when it was"
                " indexed; open the data again, or restore the file"
            )

    def _unreadable(self, index: int, error: OSError) -> OSError:
        reason = (error.strerror or str(error)).lower()
        return type(error)(f"{self.titles[index]}: {self._place(index)}cannot be read ({reason}); restore the file")

    def _place(self, index: int) -> str:
        same = self.titles[index] == self.files[index]
        return "" if same else f"its bytes in {self.files[index]}: "
