"""Files mapped into memory, read only: a look at any byte range without opening, reading or copying."""

from __future__ import annotations

import ctypes
import functools
import mmap
import os
import weakref
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt


class MappedFile:
    """A file in memory, for reading; it keeps no descriptor open, so thousands of them are fine.

    ``np.asarray`` of it is (size,) uint8, read-only, and keeps it alive, as do all views of that array. With the last
    of them the memory is given back.

    Args:
        descriptor: of the open file; it may be closed afterwards.
        size: bytes of the file.

    Raises:
        OSError: the system cannot map it.
    """

    def __init__(self, descriptor: int, size: int) -> None:
        self.address, self.size = 0, size
        if size:  # nothing cannot be mapped
            library = _library()
            address = library.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, 0)
            if address == ctypes.c_void_p(-1).value:
                code = ctypes.get_errno()
                raise OSError(code, f"cannot be mapped into memory: {os.strerror(code)}")
            self.address = int(address)
            # Not at exit: views may be read after the finalizers, and the system takes the memory back anyway.
            weakref.finalize(self, library.munmap, self.address, size).atexit = False

    @property
    def __array_interface__(self) -> dict[str, Any]:
        """What NumPy makes its view from; the view refers to this object."""
        shape = {"shape": (self.size,), "typestr": "|u1", "version": 3}
        return {**shape, "data": (self.address, True) if self.size else b""}

    def will_need(self, offset: int, length: int) -> None:
        """Start to read a range from the disk, without waiting for it, unless it is in memory already."""
        if self.size and length:
            start = offset // mmap.PAGESIZE * mmap.PAGESIZE
            # No more than a hint: what it returns does not matter.
            _library().madvise(self.address + start, offset + length - start, mmap.MADV_WILLNEED)


@functools.cache
def _library() -> Any:
    library = ctypes.CDLL(None, use_errno=True)
    library.mmap.restype = ctypes.c_void_p
    library.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    library.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    library.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return library


class _Map(NamedTuple):
    file: MappedFile
    view: npt.NDArray[np.uint8]


class FileMaps:
    """Memory maps of files, made when first asked for, and closed with their last view.

    A file is checked before it is mapped and at every ``check``: reading a map of a file that was cut short would end
    the process. Pickled, they are made anew; a forked process goes on with its parent's.

    Args:
        files: paths.
        sizes: (F,) bytes of each file when it was indexed.
        titles: what errors call the files; their paths by default.
    """

    def __init__(self, files: Sequence[str], sizes: npt.NDArray[np.int64], titles: Sequence[str] = ()) -> None:
        self.files, self.sizes, self.titles = tuple(files), sizes, tuple(titles) or tuple(files)
        self._maps: dict[int, _Map] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the maps: another process makes its own."""
        return {"files": self.files, "sizes": self.sizes, "titles": self.titles}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over the files; nothing is mapped yet."""
        self.__dict__.update(state)
        self._maps = {}

    def __getitem__(self, index: int) -> npt.NDArray[np.uint8]:
        """A whole file, uint8 (size,): a read-only view that keeps its map alive.

        Raises:
            OSError: the file is missing, unreadable, or of another size than when it was indexed.
        """
        return self._open(index).view

    def addresses(self) -> npt.NDArray[np.int64]:
        """(F,) int64, where each file starts in memory as long as this object lives; maps all of them.

        Raises:
            OSError: see ``[]``.
        """
        return np.array([self._open(index).file.address for index in range(len(self.files))], np.int64)

    def will_need(self, index: int, offset: int, length: int) -> None:
        """Start to read a range from the disk, without waiting for it, unless it is in memory already."""
        self._open(index).file.will_need(offset, length)

    def check(self, indices: Iterable[int]) -> None:
        """Raise OSError unless these files still have the size they were indexed with."""
        for index in indices:
            try:
                found = os.stat(self.files[index]).st_size
            except OSError as error:
                raise self._unreadable(index, error) from None
            self._check_size(index, found)

    def _open(self, index: int) -> _Map:
        # No lock: a fork while another thread holds it would leave the child with one that never opens. Each step is
        # atomic, and two threads that map the same file at once leave one map.
        found = self._maps.get(index)
        return self._maps.setdefault(index, self._mapped(index)) if found is None else found

    def _mapped(self, index: int) -> _Map:
        try:
            with open(self.files[index], "rb") as file:
                self._check_size(index, os.fstat(file.fileno()).st_size)
                mapped = MappedFile(file.fileno(), int(self.sizes[index]))
        except OSError as error:
            if not error.errno:
                raise
            raise self._unreadable(index, error) from None
        return _Map(mapped, np.asarray(mapped))

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
