"""A stand-in for the few CuPy names that ``kernels/gpu.py`` uses, on the PTX interpreter, with a log of what was done.

"Devices" are numbers on host arrays. Everything that would cost time or wait on a GPU is counted.
"""

from __future__ import annotations

import types
import weakref
from collections import Counter


class Array:
    """A host array that claims to be on a device."""

    def __init__(self, cupy, values):
        self.values, self.cupy, self.device = values, cupy, cupy.device
        cupy.arrays.add(self)

    @property
    def __cuda_array_interface__(self):
        """What other libraries read."""
        own = self.values
        shape, kind = own.shape, own.dtype.str
        return {"shape": shape, "typestr": kind, "data": (own.ctypes.data, False), "strides": own.strides, "version": 3}

    @property
    def data(self):
        """The address, as CuPy spells it."""
        return types.SimpleNamespace(ptr=self.values.ctypes.data)

    @property
    def shape(self):
        """As NumPy's."""
        return self.values.shape

    def transpose(self, axes):
        """As NumPy's."""
        return Array(self.cupy, self.values.transpose(axes))


class Stream:
    """The current stream while entered."""

    def __init__(self, cupy, handle):
        self.cupy, self.handle = cupy, handle

    def __enter__(self):
        self.cupy.streams.append(self.handle)
        return self

    def __exit__(self, *_):
        self.cupy.streams.pop()

    def synchronize(self):
        """Counted."""
        self.cupy.log["synchronize"] += 1


class Module:
    """One compiled specialisation."""

    def __init__(self, cupy, code, options, backend):
        assert backend == "nvrtc"
        cupy.log["compile"] += 1
        self.cupy, self.device = cupy, cupy.device
        self.ptx = cupy.ptxrun.compile_ptx(code, [], options=options, arch="compute_90")

    def get_function(self, name):
        """The kernel, which checks that it runs where it was compiled."""

        def launch(grid, block, arguments, *, shared_mem=0):
            assert self.device == self.cupy.device, "a kernel of another device was launched"
            assert all(argument.size == 1 for argument in arguments), "CuPy passes arrays of one element by value"
            self.cupy.log["launch"] += 1
            self.cupy.launched_on.append(self.cupy.streams[-1])
            buffers = [
                array.values.base if array.values.base is not None else array.values for array in self.cupy.arrays
            ]
            values = [argument[0] for argument in arguments]
            self.cupy.ptxrun.launch(self.ptx, name, grid, block, values, shared_bytes=shared_mem, buffers=buffers)

        return launch


def make_cupy(ptxrun, devices=2):
    """The module, for ``sys.modules["cupy"]``."""
    cupy = types.ModuleType("cupy")
    cupy.ptxrun, cupy.device, cupy.arrays = ptxrun, 0, weakref.WeakSet()
    cupy.log, cupy.streams, cupy.launched_on = Counter(), [0], []

    def allocate(shape, dtype):
        cupy.log["allocate"] += 1
        return Array(cupy, ptxrun.aligned_empty(shape, dtype))

    def upload(values):
        cupy.log["upload"] += 1
        array = Array(cupy, ptxrun.aligned_empty(values.shape, values.dtype))
        array.values[...] = values
        return array

    def owner(pointer):
        for array in cupy.arrays:
            start = array.values.ctypes.data
            if start <= pointer < start + max(array.values.nbytes, 1):
                return types.SimpleNamespace(device=array.device)
        raise AssertionError(f"address {pointer:#x} belongs to no array")

    cupy.ndarray, cupy.empty, cupy.asarray = Array, allocate, upload
    cupy.RawModule = lambda code, options, backend: Module(cupy, code, options, backend)
    runtime = types.SimpleNamespace(
        getDevice=lambda: cupy.device,
        getDeviceCount=lambda: devices,
        driverGetVersion=lambda: 13_000,
        pointerGetAttributes=owner,
    )
    streams = types.SimpleNamespace(
        null=Stream(cupy, 0), from_external=lambda stream: Stream(cupy, stream.__cuda_stream__()[1])
    )
    cupy.cuda = types.SimpleNamespace(
        runtime=runtime,
        Stream=streams,
        get_current_stream=lambda: types.SimpleNamespace(ptr=cupy.streams[-1]),
    )
    return cupy
