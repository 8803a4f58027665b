"""DLPack capsules read and made by hand, so that the DALI glue is the same with CuPy, with numba-cuda and on the CPU.

Why not ``from_dlpack``: a capsule that is only looked at stays whole. An operator that works in place looks up the
address, launches, and hands *DALI's own capsule* back; no view of ours outlives the call, and DALI's buffer has one
owner throughout, DALI. Likewise a capsule made here owns the array it describes until DALI releases it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

CPU, CUDA = 1, 2
_NAME = b"dltensor"
_CODES = {0: "i", 1: "u", 2: "f", 4: "u", 6: "b"}  # int, uint, float; bfloat16 as bits; bool


class _Tensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


class _Managed(ctypes.Structure):
    pass


_Deleter = ctypes.CFUNCTYPE(None, ctypes.POINTER(_Managed))
_Managed._fields_ = [("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", _Deleter)]
_Destructor = ctypes.CFUNCTYPE(None, ctypes.c_void_p)

_api = ctypes.pythonapi
_new, _valid, _pointer = _api.PyCapsule_New, _api.PyCapsule_IsValid, _api.PyCapsule_GetPointer
_new.restype, _new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, _Destructor]
_valid.restype, _valid.argtypes = ctypes.c_int, [ctypes.py_object, ctypes.c_char_p]
_pointer.restype, _pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
# In a destructor the object is being freed: it must be passed by address, without a new reference.
_valid_at = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_IsValid", _api))
_pointer_at = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_GetPointer", _api))


@dataclass(frozen=True, eq=False)
class TensorView:
    """A dense tensor behind a capsule; usable as long as the view, which holds the capsule, is."""

    pointer: int
    shape: tuple[int, ...]
    dtype: np.dtype
    device: tuple[int, int]
    strides: tuple[int, ...] | None
    owner: Any

    def _interface(self) -> dict[str, Any]:
        return {
            "data": (self.pointer, False),
            "shape": self.shape,
            "strides": self.strides,
            "typestr": self.dtype.str,
            "version": 3,
        }

    def __getattr__(self, name: str) -> Any:
        if name == ("__array_interface__" if self.device[0] == CPU else "__cuda_array_interface__"):
            return self._interface()
        raise AttributeError(name)

    def numpy(self) -> npt.NDArray:
        """A writable NumPy view of a CPU tensor."""
        if self.pointer == 0 or 0 in self.shape:
            return np.empty(self.shape, self.dtype)
        return np.asarray(self)


def view(capsule: Any) -> TensorView:
    """What a capsule describes, without consuming it.

    Raises:
        ValueError: the capsule was consumed before, or its element type is unknown.
    """
    if not _valid(capsule, _NAME):
        raise ValueError("capsule: expected a DLPack capsule that nobody has consumed")
    tensor = ctypes.cast(_pointer(capsule, _NAME), ctypes.POINTER(_Managed)).contents.tensor
    if tensor.code not in _CODES or tensor.lanes != 1:
        raise ValueError(f"capsule: DLPack type {tensor.code} of {tensor.bits} bits is not supported")
    dtype = np.dtype(f"{_CODES[tensor.code]}{tensor.bits // 8}")
    shape = tuple(tensor.shape[: tensor.ndim])
    strides = tuple(s * dtype.itemsize for s in tensor.strides[: tensor.ndim]) if tensor.strides else None
    pointer = (tensor.data or 0) + tensor.byte_offset
    return TensorView(pointer, shape, dtype, (tensor.device_type, tensor.device_id), strides, capsule)


# What capsules that DALI holds need: structure, shape and owner, by the structure's address.
_alive: dict[int, tuple[Any, ...]] = {}


@_Deleter
def _release(managed: Any) -> None:
    _alive.pop(ctypes.addressof(managed.contents), None)


@_Destructor
def _destroy(capsule: int) -> None:
    if _valid_at(capsule, _NAME):  # nobody consumed it
        _alive.pop(_pointer_at(capsule, _NAME), None)


def capsule_of(pointer: int, shape: Sequence[int], dtype: npt.DTypeLike, device: tuple[int, int], owner: Any) -> Any:
    """A capsule for dense memory at ``pointer`` that keeps ``owner`` alive until its consumer is done."""
    dtype = np.dtype(dtype)
    managed = _Managed()
    tensor = managed.tensor
    tensor.data, tensor.device_type, tensor.device_id, tensor.ndim = pointer, *device, len(shape)
    tensor.code, tensor.bits, tensor.lanes = {"i": 0, "u": 1, "f": 2, "b": 6}[dtype.kind], dtype.itemsize * 8, 1
    sizes = (ctypes.c_int64 * len(shape))(*shape)
    tensor.shape = ctypes.cast(sizes, ctypes.POINTER(ctypes.c_int64))
    managed.deleter = _release
    address = ctypes.addressof(managed)
    _alive[address] = (managed, sizes, owner)
    return _new(address, _NAME, _destroy)


def alive() -> int:
    """Capsules made here that nobody has released yet."""
    return len(_alive)
