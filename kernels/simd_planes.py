"""Sixteen RGB pixels at a time for Numba kernels: bytes or floats to one vector per channel, and back to memory.

Addresses are plain integers; whoever calls these has checked the bounds.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from has_dali.kernels.simd_types import (
    CACHE_LINE,
    I8,
    I32,
    PERMUTES,
    WIDE,
    as_float,
    float16,
    int16,
    integers,
    narrowed,
    on_half,
    pointer,
    splat,
)


def _triple(context: Any, builder: Any, vectors: list[Any]) -> Any:
    return context.make_tuple(builder, types.UniTuple(float16, 3), vectors)


def _planes(builder: Any, parts: Any, mirror: bool = False) -> list[Any]:
    """Three vectors that hold sixteen RGB pixels, as one vector per channel; mirrored: the last pixel first."""
    planes = []
    for channel in range(3):
        lanes = [3 * (WIDE - 1 - i if mirror else i) + channel for i in range(WIDE)]
        low = [lane if lane < 2 * WIDE else 0 for lane in lanes]
        both = [i if lane < 2 * WIDE else lane - WIDE for i, lane in enumerate(lanes)]
        pair = builder.shuffle_vector(parts[0], parts[1], ir.Constant(ir.VectorType(I32, WIDE), low))
        planes.append(builder.shuffle_vector(pair, parts[2], ir.Constant(ir.VectorType(I32, WIDE), both)))
    return planes


@intrinsic
def planes_of(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """Three vectors that hold sixteen RGB pixels, as one vector per channel."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _triple(context, builder, _planes(builder, args))

    return types.UniTuple(float16, 3)(a, b, c), codegen


def _load_rgb(mirror: bool) -> Any:
    @intrinsic
    def load(typingctx: Any, address: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            kind = ir.VectorType(I8, WIDE)
            at = [builder.add(args[0], args[0].type(WIDE * i)) for i in range(3)]
            parts = [builder.load(pointer(builder, address, kind), align=1) for address in at]
            return _triple(context, builder, [as_float(builder, p) for p in _planes(builder, parts, mirror)])

        return (types.UniTuple(float16, 3)(types.intp), codegen) if integers(address) else None

    return load


# Sixteen RGB pixels of bytes, one vector of float32 per channel, in order and mirrored.
load_rgb, load_rgb_mirrored = _load_rgb(False), _load_rgb(True)


@intrinsic
def permuted(typingctx: Any, low: Any, high: Any, lanes: Any) -> Any:
    """Sixteen of the 32 floats in ``low`` and ``high``, by the lowest five bits of ``lanes``; see ``PERMUTES``."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        low, high, lanes = args
        if PERMUTES:
            kind = ir.FunctionType(low.type, [low.type, lanes.type, low.type])
            name = "llvm.x86.avx512.vpermi2var.ps.512"
            return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [low, lanes, high])
        both = builder.shuffle_vector(low, high, ir.Constant(ir.VectorType(I32, 2 * WIDE), list(range(2 * WIDE))))
        result = low
        for lane in range(WIDE):
            index = builder.and_(builder.extract_element(lanes, I32(lane)), I32(2 * WIDE - 1))
            result = builder.insert_element(result, builder.extract_element(both, index), I32(lane))
        return result

    return float16(float16, float16, int16), codegen


@intrinsic
def load_lanes(typingctx: Any, address: Any) -> Any:
    """Sixteen int32 from a byte address."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.load(pointer(builder, args[0], int16.vector), align=4)

    return (int16(types.intp), codegen) if integers(address) else None


@intrinsic
def next_lanes(typingctx: Any, lanes: Any) -> Any:
    """Sixteen int32, each plus 1."""
    one = ir.Constant(int16.vector, [1] * WIDE)
    return int16(int16), lambda context, builder, sig, args: builder.add(args[0], one)


def _marked(builder: Any, address: Any) -> Any:
    """Whether each of sixteen bytes is not 0."""
    kind = ir.VectorType(I8, WIDE)
    return builder.icmp_unsigned("!=", builder.load(pointer(builder, address, kind), align=1), ir.Constant(kind, None))


@intrinsic
def all_marked(typingctx: Any, address: Any) -> Any:
    """Whether none of sixteen bytes is 0."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        marked = builder.bitcast(_marked(builder, args[0]), ir.IntType(WIDE))
        return builder.icmp_unsigned("==", marked, ir.Constant(marked.type, -1))

    return (types.boolean(types.intp), codegen) if integers(address) else None


@intrinsic
def chosen16(typingctx: Any, marks: Any, a: Any, b: Any) -> Any:
    """Lane by lane: ``a`` where the byte at address ``marks`` is not 0, else ``b``."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.select(_marked(builder, args[0]), args[1], args[2])

    return (float16(types.intp, float16, float16), codegen) if integers(marks) else None


@intrinsic
def store_wide(typingctx: Any, address: Any, half: Any, stream: Any, vector: Any) -> Any:
    """Store sixteen floats as float32 or float16; ``stream``: past the caches, a whole aligned line of float32."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        address, is_half, past, vector = args

        def emit(narrow: bool) -> None:
            value = narrowed(builder, vector, narrow)
            target = pointer(builder, address, value.type)
            if narrow:
                builder.store(value, target, align=2)
                return
            with builder.if_else(cgutils.is_not_null(builder, past)) as (then, otherwise):
                with then:
                    store = builder.store(value, target, align=CACHE_LINE)
                    store.set_metadata("nontemporal", builder.module.add_metadata([I32(1)]))
                with otherwise:
                    builder.store(value, target, align=4)

        on_half(builder, is_half, emit)
        return context.get_dummy_value()

    signature = types.void(types.intp, types.boolean, types.boolean, float16)
    return (signature, codegen) if integers(address) else None


@intrinsic
def splat16(typingctx: Any, value: Any) -> Any:
    """Sixteen copies of a float32."""
    kind = float16.vector
    return float16(types.float32), lambda context, builder, sig, args: splat(builder, args[0], kind)
