"""Float vectors and raw memory for Numba kernels.

LLVM's loop vectoriser finds neither form that the fused operator needs: a row of bytes blended over several
source rows (measured: it stayed scalar), and four pixels of three interleaved channels. Explicit vectors of 16 and
of 4 lanes give both. Addresses are plain integers; whoever calls these has checked the bounds.
"""

from __future__ import annotations

import platform
from functools import lru_cache
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

LANES = 4
WIDE = 16
_F32 = ir.FloatType()
_F16 = ir.HalfType()
_I8 = ir.IntType(8)
_I32 = ir.IntType(32)
_VECTOR = ir.VectorType(_F32, LANES)


class _FloatVector(types.Type):
    def __init__(self, lanes: int) -> None:
        super().__init__(name=f"has_dali_float{lanes}")
        self.vector = ir.VectorType(_F32, lanes)


@register_model(_FloatVector)
class _FloatVectorModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, fe_type.vector)


float4, float16 = _FloatVector(LANES), _FloatVector(WIDE)


def _integers(*kinds: Any) -> bool:
    """Guard: Numba would convert a float to an address without a word."""
    return all(isinstance(kind, types.Integer) for kind in kinds)


def _pointer(builder: Any, address: Any, element: Any) -> Any:
    return builder.inttoptr(address, element.as_pointer())


def _splat(builder: Any, scalar: Any, vector: Any = _VECTOR) -> Any:
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, _I32(0))
    return builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(_I32, vector.count), [0] * vector.count))


def _fma_of(builder: Any, kind: Any) -> Any:
    name = f"llvm.fma.v{kind.count}f32" if isinstance(kind, ir.VectorType) else "llvm.fma.f32"
    return cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind] * 3), name)


@numba.njit(inline="always")
def address_of(array):  # type: ignore[no-untyped-def]
    """Address of an array's data, signed: unsigned and signed integers would mix to float64."""
    return np.int64(array.ctypes.data)


@intrinsic
def fma(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """``a * b + c`` of float32, rounded once."""
    signature = types.float32(types.float32, types.float32, types.float32)
    return signature, lambda context, builder, sig, args: builder.call(_fma_of(builder, _F32), args)


@intrinsic
def float_at(typingctx: Any, address: Any) -> Any:
    """The float32 at a byte address."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.load(_pointer(builder, args[0], _F32))

    return (types.float32(types.intp), codegen) if _integers(address) else None


@intrinsic
def byte_at(typingctx: Any, address: Any) -> Any:
    """The byte at an address, as float32."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.uitofp(builder.load(_pointer(builder, args[0], _I8)), _F32)

    return (types.float32(types.intp), codegen) if _integers(address) else None


def _load(builder: Any, address: Any, lanes: int, element: Any) -> Any:
    """Float32 lanes from neighbours of type ``element`` at a byte address, not necessarily aligned."""
    packed = builder.load(_pointer(builder, address, ir.VectorType(element, lanes)), align=1)
    if element == _F32:
        return packed
    # A signed conversion of a number >= 0 is one instruction.
    return builder.sitofp(builder.zext(packed, ir.VectorType(_I32, lanes)), ir.VectorType(_F32, lanes))


def _load_one(vector: _FloatVector, element: Any) -> Any:
    @intrinsic
    def load(typingctx: Any, address: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return _load(builder, args[0], vector.vector.count, element)

        return (vector(types.intp), codegen) if _integers(address) else None

    return load


def _load_pixels(element: Any) -> Any:
    @intrinsic
    def load(typingctx: Any, a0: Any, a1: Any, a2: Any, a3: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return _joined(builder, [_load(builder, address, LANES, element) for address in args])

        return (float16(*[types.intp] * 4), codegen) if _integers(a0, a1, a2, a3) else None

    return load


def _joined(builder: Any, parts: list[Any]) -> Any:
    """Four vectors of four lanes as one of sixteen."""
    eight = ir.Constant(ir.VectorType(_I32, 8), list(range(8)))
    halves = [builder.shuffle_vector(parts[i], parts[i + 1], eight) for i in (0, 2)]
    return builder.shuffle_vector(*halves, ir.Constant(ir.VectorType(_I32, WIDE), list(range(WIDE))))


# One vector from one address; and four pixels, channels in neighbouring lanes, from four addresses.
load4, load16, load4_u8, load16_u8 = (_load_one(v, e) for e in (_F32, _I8) for v in (float4, float16))
load_pixels, load_pixels_u8 = _load_pixels(_F32), _load_pixels(_I8)


@intrinsic
def four_times(typingctx: Any, vector: Any) -> Any:
    """A vector of four lanes, repeated for four pixels."""
    return float16(float4), lambda context, builder, sig, args: _joined(builder, [args[0]] * 4)


@intrinsic
def store16(typingctx: Any, address: Any, vector: Any) -> Any:
    """Store sixteen float32 at a byte address."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        builder.store(args[1], _pointer(builder, args[0], float16.vector), align=4)
        return context.get_dummy_value()

    return (types.void(types.intp, float16), codegen) if _integers(address) else None


@intrinsic
def splat4(typingctx: Any, value: Any) -> Any:
    """Four copies of a float32."""
    return float4(types.float32), lambda context, builder, sig, args: _splat(builder, args[0])


@intrinsic
def scaled(typingctx: Any, weight: Any, vector: Any) -> Any:
    """``weight * vector`` for a float32 weight."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.fmul(_splat(builder, args[0], vector.vector), args[1])

    return (vector(types.float32, vector), codegen) if isinstance(vector, _FloatVector) else None


@intrinsic
def blended(typingctx: Any, weight: Any, vector: Any, addend: Any) -> Any:
    """``weight * vector + addend``, rounded once, for a float32 weight."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        weights = _splat(builder, args[0], vector.vector)
        return builder.call(_fma_of(builder, vector.vector), [weights, args[1], args[2]])

    return (vector(types.float32, vector, vector), codegen) if isinstance(vector, _FloatVector) else None


@intrinsic
def multiplied(typingctx: Any, a: Any, b: Any) -> Any:
    """``a * b`` lane by lane."""
    return a(a, b), lambda context, builder, sig, args: builder.fmul(*args)


@intrinsic
def fma_lanes(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """``a * b + c`` lane by lane, rounded once."""
    return a(a, b, c), lambda context, builder, sig, args: builder.call(_fma_of(builder, a.vector), args)


def _narrow(builder: Any, value: Any, half: bool) -> Any:
    if not half:
        return value
    vector = isinstance(value.type, ir.VectorType)
    if _has_half_conversion():
        return builder.fptrunc(value, ir.VectorType(_F16, value.type.count) if vector else _F16)
    return _half_bits(builder, value, value.type.count if vector else 0)


@lru_cache(maxsize=1)
def _has_half_conversion() -> bool:
    """Whether the processor that Numba compiles for converts to float16; LLVM would call a missing routine else."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return True
    features = numba.config.CPU_FEATURES
    if features is None:
        named = numba.config.CPU_NAME not in (None, "", "host")
        return not named and bool(get_host_cpu_features().get("f16c"))
    return "+f16c" in features


def _half_bits(builder: Any, value: Any, lanes: int) -> Any:
    """Float32 to the bits of float16, rounded to nearest even, in integer arithmetic."""
    kind = ir.VectorType(_I32, lanes) if lanes else _I32
    real = ir.VectorType(_F32, lanes) if lanes else _F32

    def constant(number: int) -> Any:
        return ir.Constant(kind, [number] * lanes if lanes else number)

    bits = builder.bitcast(value, kind)
    sign = builder.and_(builder.lshr(bits, constant(16)), constant(0x8000))
    size = builder.and_(bits, constant(0x7FFFFFFF))
    # Adding 0.5 shifts a subnormal's bits to the bottom of the fraction, rounded.
    half = builder.bitcast(constant(0x3F000000), real)
    tiny = builder.sub(builder.bitcast(builder.fadd(builder.bitcast(size, real), half), kind), constant(0x3F000000))
    odd = builder.and_(builder.lshr(size, constant(13)), constant(1))
    rebiased = builder.add(size, constant(((15 - 127) << 23) + 0xFFF & 0xFFFFFFFF))
    normal = builder.lshr(builder.add(rebiased, odd), constant(13))
    nan = builder.icmp_unsigned(">", size, constant(0x7F800000))
    special = builder.select(nan, constant(0x7E00), constant(0x7C00))
    result = builder.select(builder.icmp_unsigned("<", size, constant(0x38800000)), tiny, normal)
    result = builder.select(builder.icmp_unsigned(">=", size, constant(0x47800000)), special, result)
    return builder.trunc(builder.or_(result, sign), ir.VectorType(ir.IntType(16), lanes) if lanes else ir.IntType(16))


def _on_half(builder: Any, half: Any, emit: Any) -> None:
    """Emit both element types behind one well-predicted branch."""
    with builder.if_else(cgutils.is_not_null(builder, half)) as (then, otherwise):
        with then:
            emit(True)
        with otherwise:
            emit(False)


def _channel(builder: Any, pixels: Any, channel: int) -> Any:
    """One channel of four pixels, as a vector."""
    lanes = ir.Constant(ir.VectorType(_I32, LANES), [channel + LANES * pixel for pixel in range(4)])
    return builder.shuffle_vector(pixels, pixels, lanes)


@intrinsic
def store_planar_rgb(typingctx: Any, address: Any, plane: Any, pixels: Any) -> Any:
    """Store four pixels of three float32 channels as four neighbours in each plane: ``store_planar`` unbranched."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        target, stride, pixels = args
        for channel in range(3):
            builder.store(_channel(builder, pixels, channel), _pointer(builder, target, _VECTOR), align=4)
            target = builder.add(target, stride)
        return context.get_dummy_value()

    return (types.void(types.intp, types.intp, float16), codegen) if _integers(address, plane) else None


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
                    value = _narrow(builder, row, narrow)
                    builder.store(value, _pointer(builder, target, value.type), align=2 if narrow else 4)

                _on_half(builder, is_half, emit)
        return context.get_dummy_value()

    signature = types.void(types.intp, types.intp, types.intp, types.boolean, float16)
    return (signature, codegen) if _integers(address, plane, channels) else None


@intrinsic
def store_pixel(typingctx: Any, address: Any, stride: Any, channels: Any, half: Any, pixel: Any) -> Any:
    """Store the first ``channels`` lanes, ``stride`` bytes apart."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        base, step, count, is_half, value = args
        for lane in range(LANES):
            with builder.if_then(builder.icmp_signed(">", count, count.type(lane))):
                target = builder.add(base, builder.mul(step, step.type(lane)))
                scalar = builder.extract_element(value, _I32(lane))

                def emit(narrow: bool, scalar: Any = scalar, target: Any = target) -> None:
                    number = _narrow(builder, scalar, narrow)
                    builder.store(number, _pointer(builder, target, number.type), align=2 if narrow else 4)

                _on_half(builder, is_half, emit)
        return context.get_dummy_value()

    signature = types.void(types.intp, types.intp, types.intp, types.boolean, float4)
    return (signature, codegen) if _integers(address, stride, channels) else None


@intrinsic
def copy_bytes(typingctx: Any, target: Any, source: Any, count: Any) -> Any:
    """Memcpy between addresses that do not overlap."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        target, source, count = args
        byte = _I8.as_pointer()
        cgutils.raw_memcpy(builder, builder.inttoptr(target, byte), builder.inttoptr(source, byte), count, 1)
        return context.get_dummy_value()

    signature = types.void(types.intp, types.intp, types.intp)
    return (signature, codegen) if _integers(target, source, count) else None


def _copy_block(width: int) -> Any:
    """An intrinsic that copies ``width`` bytes through one register."""

    @intrinsic
    def copy(typingctx: Any, target: Any, source: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            kind = ir.IntType(8 * width) if width <= 8 else ir.VectorType(_I8, width)
            value = builder.load(_pointer(builder, args[1], kind), align=1)
            builder.store(value, _pointer(builder, args[0], kind), align=1)
            return context.get_dummy_value()

        return (types.void(types.intp, types.intp), codegen) if _integers(target, source) else None

    return copy


copy_32 = _copy_block(32)
copy_16 = _copy_block(16)
copy_8 = _copy_block(8)
copy_4 = _copy_block(4)
copy_2 = _copy_block(2)
copy_1 = _copy_block(1)


def _prefetch(write: int) -> Any:
    """An intrinsic that asks for a cache line."""

    @intrinsic
    def prefetch(typingctx: Any, address: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            byte = _I8.as_pointer()
            kind = ir.FunctionType(ir.VoidType(), [byte, _I32, _I32, _I32])
            function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
            builder.call(function, [builder.inttoptr(args[0], byte), _I32(write), _I32(3), _I32(1)])
            return context.get_dummy_value()

        return (types.void(types.intp), codegen) if _integers(address) else None

    return prefetch


# The line at an address, to be read or written soon; any address is allowed.
prefetch_read, prefetch_write = _prefetch(0), _prefetch(1)
