"""Functions for ``operators.SampleOperator``: C callbacks, compiled once and cached on disk.

DALI passes tables of pointers: for sample data one pointer per argument, for shapes one pointer per argument and
sample.

``resize_run``, the fused operator, has these inputs, in order: image (H, W, C) uint8; keys (4,) int64: sample id,
epoch, mirror, and, where samples have their own, the hide threshold; settings, int32 halves of ``cpu.pack_settings``;
and an empty tensor whose *shape* is (0, height, width, planar), because DALI asks for output shapes before any data
may be read (height 0 keeps the image's size).

``describe_run`` turns (layout letters, shape) into (5,) float32: ``layout_code`` and the shape, padded with -1.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from has_dali.kernels.compiling import callback
from has_dali.kernels.cpu_fused import HIDE, OWN_THRESHOLD, fused_image

_IMAGE, _KEYS, _SETTINGS, _EXTENT = range(4)
_ID, _EPOCH, _MIRROR, _THRESHOLD = range(4)
# out data, out shapes, out ndims, outputs, in data, in shapes, in ndims, inputs
RUN_SIGNATURE = types.void(*[types.uint64] * 3, types.int32, *[types.uint64] * 3, types.int32)
# out shapes, out ndims, outputs, in shapes, in ndims, inputs, samples
SETUP_SIGNATURE = types.void(*([types.uint64] * 2 + [types.int32]) * 2, types.int32)


@intrinsic
def as_pointer(typingctx: Any, address: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], ir.IntType(8).as_pointer())

    return types.voidptr(types.uint64), codegen


@numba.njit(inline="always")
def words(address, count):  # type: ignore[no-untyped-def]
    """``count`` int64 at an address."""
    return numba.carray(as_pointer(np.uint64(address)), (count,), np.int64)


@callback(SETUP_SIGNATURE)
def resize_setup(out_shapes, out_ndims, outputs, in_shapes, in_ndims, inputs, samples):  # type: ignore[no-untyped-def]
    """Write the output shape of every sample."""
    shapes_out, shapes_in = words(out_shapes, samples), words(in_shapes, inputs * samples)
    for n in range(samples):
        image = words(shapes_in[_IMAGE * samples + n], 3)
        extent = words(shapes_in[_EXTENT * samples + n], 4)
        height, width = (extent[1], extent[2]) if extent[1] > 0 else (image[0], image[1])
        out = words(shapes_out[n], 3)
        if extent[3] != 0:
            out[0], out[1], out[2] = image[2], height, width
        else:
            out[0], out[1], out[2] = height, width, image[2]


@callback(RUN_SIGNATURE)
def resize_run(out_data, out_shapes, out_ndims, outputs, in_data, in_shapes, in_ndims, inputs):  # type: ignore[no-untyped-def]
    """One sample."""
    target, data, shapes = words(out_data, outputs), words(in_data, inputs), words(in_shapes, inputs)
    shape = words(shapes[_IMAGE], 3)
    image = numba.carray(as_pointer(np.uint64(data[_IMAGE])), (shape[0], shape[1], shape[2]), np.uint8)
    settings = words(data[_SETTINGS], words(shapes[_SETTINGS], 1)[0] // 2)
    keys = words(data[_KEYS], 4)
    threshold = keys[_THRESHOLD] if settings[HIDE] == OWN_THRESHOLD else settings[HIDE]
    fused_image(
        image,
        target[0],
        np.uint64(keys[_ID]),
        np.uint64(keys[_EPOCH]),
        np.uint64(threshold),
        keys[_MIRROR] != 0,
        settings,
    )


MAX_DIMENSIONS = 4  # of a sample that is described
DESCRIBED = 1 + MAX_DIMENSIONS


def layout_code(layout: str) -> int:
    """A layout of up to four letters as one number: five bits a letter, the first the highest; longer ones give -1."""
    code = 0
    for letter in layout.ljust(MAX_DIMENSIONS, "\0"):
        code = code * 32 + (ord(letter) & 31)
    return code if len(layout) <= MAX_DIMENSIONS else -1


@callback(SETUP_SIGNATURE)
def describe_setup(out_shapes, out_ndims, outputs, in_shapes, in_ndims, inputs, samples):  # type: ignore[no-untyped-def]
    """Write the output shape of every sample."""
    shapes_out = words(out_shapes, samples)
    for n in range(samples):
        words(shapes_out[n], 1)[0] = DESCRIBED


@callback(RUN_SIGNATURE)
def describe_run(out_data, out_shapes, out_ndims, outputs, in_data, in_shapes, in_ndims, inputs):  # type: ignore[no-untyped-def]
    """One sample."""
    data, shapes = words(in_data, inputs), words(in_shapes, inputs)
    out = numba.carray(as_pointer(np.uint64(words(out_data, outputs)[0])), (DESCRIBED,), np.float32)
    count, ndim = words(shapes[0], 1)[0], words(shapes[1], 1)[0]
    letters = numba.carray(as_pointer(np.uint64(data[0])), (count,), np.uint8)
    sides = words(data[1], ndim)
    out[0] = 0 if count <= MAX_DIMENSIONS and ndim <= MAX_DIMENSIONS else -1
    for i in range(MAX_DIMENSIONS):
        if out[0] >= 0:
            out[0] = out[0] * 32 + (letters[i] & 31 if i < count else 0)
        out[1 + i] = sides[i] if i < ndim else -1
