"""Float vectors for Numba kernels.

LLVM's loop vectoriser finds neither form that the fused operator needs: a row of bytes blended over several
source rows (measured: it stayed scalar), and four pixels of three interleaved channels. Explicit vectors of 16 and
of 4 lanes give both. Addresses are plain integers; whoever calls these has checked the bounds.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from has_dali.kernels.simd_types import (
    F32,
    FOUR_FLOATS,
    I8,
    I32,
    LANES,
    WIDE,
    Vector,
    as_float,
    float4,
    float16,
    fma_of,
    integers,
    narrowed,
    on_half,
    pointer,
    splat,
)


@numba.njit(inline="always")
def address_of(array):  # type: ignore[no-untyped-def]
    """Address of an array's data, signed: unsigned and signed integers would mix to float64."""
    return np.int64(array.ctypes.data)


@intrinsic
def fma(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """``a * b + c`` of float32, rounded once."""
    signature = types.float32(types.float32, types.float32, types.float32)
    return signature, lambda context, builder, sig, args: builder.call(fma_of(builder, F32), args)


def _load(builder: Any, address: Any, lanes: int, element: Any) -> Any:
    """Float32 lanes from neighbours of type ``element`` at a byte address, not necessarily aligned."""
    packed = builder.load(pointer(builder, address, ir.VectorType(element, lanes)), align=1)
    return packed if element == F32 else as_float(builder, packed)


def _load_one(vector: Vector, element: Any) -> Any:
    @intrinsic
    def load(typingctx: Any, address: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return _load(builder, args[0], vector.vector.count, element)

        return (vector(types.intp), codegen) if integers(address) else None

    return load


def _load_pixels(element: Any) -> Any:
    @intrinsic
    def load(typingctx: Any, a0: Any, a1: Any, a2: Any, a3: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return _joined(builder, [_load(builder, address, LANES, element) for address in args])

        return (float16(*[types.intp] * 4), codegen) if integers(a0, a1, a2, a3) else None

    return load


def _joined(builder: Any, parts: list[Any]) -> Any:
    """Four vectors of four lanes as one of sixteen."""
    eight = ir.Constant(ir.VectorType(I32, 8), list(range(8)))
    halves = [builder.shuffle_vector(parts[i], parts[i + 1], eight) for i in (0, 2)]
    return builder.shuffle_vector(*halves, ir.Constant(ir.VectorType(I32, WIDE), list(range(WIDE))))


# One vector from one address; and four pixels, channels in neighbouring lanes, from four addresses.
load4, load16, load4_u8, load16_u8 = (_load_one(v, e) for e in (F32, I8) for v in (float4, float16))
load_pixels, load_pixels_u8 = _load_pixels(F32), _load_pixels(I8)


@intrinsic
def four_times(typingctx: Any, vector: Any) -> Any:
    """A vector of four lanes, repeated for four pixels."""
    return float16(float4), lambda context, builder, sig, args: _joined(builder, [args[0]] * 4)


@intrinsic
def store16(typingctx: Any, address: Any, vector: Any) -> Any:
    """Store sixteen float32 at a byte address."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        builder.store(args[1], pointer(builder, args[0], float16.vector), align=4)
        return context.get_dummy_value()

    return (types.void(types.intp, float16), codegen) if integers(address) else None


@intrinsic
def splat4(typingctx: Any, value: Any) -> Any:
    """Four copies of a float32."""
    return float4(types.float32), lambda context, builder, sig, args: splat(builder, args[0])


@intrinsic
def scaled(typingctx: Any, weight: Any, vector: Any) -> Any:
    """``weight * vector`` for a float32 weight."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.fmul(splat(builder, args[0], vector.vector), args[1])

    return (vector(types.float32, vector), codegen) if isinstance(vector, Vector) else None


@intrinsic
def blended(typingctx: Any, weight: Any, vector: Any, addend: Any) -> Any:
    """``weight * vector + addend``, rounded once, for a float32 weight."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        weights = splat(builder, args[0], vector.vector)
        return builder.call(fma_of(builder, vector.vector), [weights, args[1], args[2]])

    return (vector(types.float32, vector, vector), codegen) if isinstance(vector, Vector) else None


@intrinsic
def multiplied(typingctx: Any, a: Any, b: Any) -> Any:
    """``a * b`` lane by lane."""
    return a(a, b), lambda context, builder, sig, args: builder.fmul(*args)


@intrinsic
def fma_lanes(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """``a * b + c`` lane by lane, rounded once."""
    return a(a, b, c), lambda context, builder, sig, args: builder.call(fma_of(builder, a.vector), args)


def _channel(builder: Any, pixels: Any, channel: int) -> Any:
    """One channel of four pixels, as a vector."""
    lanes = ir.Constant(ir.VectorType(I32, LANES), [channel + LANES * pixel for pixel in range(4)])
    return builder.shuffle_vector(pixels, pixels, lanes)


@intrinsic
def store_planar_rgb(typingctx: Any, address: Any, plane: Any, pixels: Any) -> Any:
    """Store four pixels of three float32 channels as four neighbours in each plane: ``store_planar`` unbranched."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        target, stride, pixels = args
        for channel in range(3):
            builder.store(_channel(builder, pixels, channel), pointer(builder, target, FOUR_FLOATS), align=4)
            target = builder.add(target, stride)
        return context.get_dummy_value()

    return (types.void(types.intp, types.intp, float16), codegen) if integers(address, plane) else None


@intrinsic
def store_planar(typingctx: Any, address: Any, plane: Any, channels: Any, half: Any, pixels: Any) -> Any:
    """Store four pixels (lanes = channels) as four neighbours in each plane, ``plane`` bytes apart."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        base, stride, count, is_half, pixels = args
        for channel in range(LANES):
            row = _channel(builder, pixels, channel)
            with builder.if_then(builder.icmp_signed(">", count, count.type(channel))):
                target = builder.add(base, builder.mul(stride, stride.type(channel)))

                def emit(narrow: bool, row: Any = row, target: Any = target) -> None:
                    value = narrowed(builder, row, narrow)
                    builder.store(value, pointer(builder, target, value.type), align=2 if narrow else 4)

                on_half(builder, is_half, emit)
        return context.get_dummy_value()

    signature = types.void(types.intp, types.intp, types.intp, types.boolean, float16)
    return (signature, codegen) if integers(address, plane, channels) else None


@intrinsic
def store_pixel(typingctx: Any, address: Any, stride: Any, channels: Any, half: Any, pixel: Any) -> Any:
    """Store the first ``channels`` lanes, ``stride`` bytes apart."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        base, step, count, is_half, value = args
        for lane in range(LANES):
            with builder.if_then(builder.icmp_signed(">", count, count.type(lane))):
                target = builder.add(base, builder.mul(step, step.type(lane)))
                scalar = builder.extract_element(value, I32(lane))

                def emit(narrow: bool, scalar: Any = scalar, target: Any = target) -> None:
                    number = narrowed(builder, scalar, narrow)
                    builder.store(number, pointer(builder, target, number.type), align=2 if narrow else 4)

                on_half(builder, is_half, emit)
        return context.get_dummy_value()

    signature = types.void(types.intp, types.intp, types.intp, types.boolean, float4)
    return (signature, codegen) if integers(address, stride, channels) else None
