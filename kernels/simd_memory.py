"""Raw memory for Numba kernels: numbers and vectors of bytes at addresses, copies, prefetches, a fence.

Addresses are plain integers; whoever calls these has checked the bounds.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from has_dali.kernels.simd_types import BYTES, F32, I8, I32, I64, byte_vector, integers, pointer, splat


def _scalar_at(kind: Any, element: Any) -> Any:
    """An intrinsic that loads one number."""

    @intrinsic
    def load(typingctx: Any, address: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return builder.load(pointer(builder, args[0], element), align=1)

        return (kind(types.intp), codegen) if integers(address) else None

    return load


# The number at a byte address. Kernels that run once per row take addresses, not arrays: Numba counts references to
# arrays around calls, presumably with atomic instructions that wait for earlier stores (measured on the fused operator,
# 224 x 224, batch of 64, cells of 16: 49 to 37 us per image; with stores past the caches 58 to 26 us).
float_at, int_at, flag_at = (
    _scalar_at(kind, element) for kind, element in ((types.float32, F32), (types.int64, I64), (types.uint8, I8))
)


def _put_scalar(kind: Any, element: Any) -> Any:
    """An intrinsic that stores one number."""

    @intrinsic
    def put(typingctx: Any, address: Any, value: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            builder.store(args[1], pointer(builder, args[0], element), align=1)
            return context.get_dummy_value()

        return (types.void(types.intp, kind), codegen) if integers(address) else None

    return put


put_float, put_int = _put_scalar(types.float32, F32), _put_scalar(types.int64, I64)


@intrinsic
def byte_at(typingctx: Any, address: Any) -> Any:
    """The byte at an address, as float32."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.uitofp(builder.load(pointer(builder, args[0], I8)), F32)

    return (types.float32(types.intp), codegen) if integers(address) else None


@intrinsic
def store_fence(typingctx: Any) -> Any:
    """Let no later store be seen before the earlier ones: those past the caches keep no order by themselves."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def load_bytes(typingctx: Any, address: Any) -> Any:
    """``BYTES`` bytes."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.load(pointer(builder, args[0], byte_vector.vector), align=1)

    return (byte_vector(types.intp), codegen) if integers(address) else None


@intrinsic
def store_bytes(typingctx: Any, address: Any, vector: Any) -> Any:
    """Store ``BYTES`` bytes."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        builder.store(args[1], pointer(builder, args[0], byte_vector.vector), align=1)
        return context.get_dummy_value()

    return (types.void(types.intp, byte_vector), codegen) if integers(address) else None


@intrinsic
def splat_bytes(typingctx: Any, value: Any) -> Any:
    """``BYTES`` copies of a byte."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return splat(builder, args[0], byte_vector.vector)

    return (byte_vector(types.uint8), codegen) if integers(value) else None


@intrinsic
def chosen_bytes(typingctx: Any, choose: Any, a: Any, b: Any) -> Any:
    """Byte by byte: ``a`` where ``choose`` is not 0, else ``b``."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        chosen = builder.icmp_unsigned("!=", args[0], ir.Constant(byte_vector.vector, None))
        return builder.select(chosen, args[1], args[2])

    return byte_vector(byte_vector, byte_vector, byte_vector), codegen


@intrinsic
def any_byte(typingctx: Any, vector: Any) -> Any:
    """Whether any byte of a vector is not 0."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        lanes = builder.icmp_unsigned("!=", args[0], ir.Constant(byte_vector.vector, None))
        mask = builder.bitcast(lanes, ir.IntType(BYTES))
        return builder.icmp_unsigned("!=", mask, ir.Constant(mask.type, 0))

    return types.boolean(byte_vector), codegen


@intrinsic
def copy_bytes(typingctx: Any, target: Any, source: Any, count: Any) -> Any:
    """Memcpy between addresses that do not overlap."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        target, source, count = args
        byte = I8.as_pointer()
        cgutils.raw_memcpy(builder, builder.inttoptr(target, byte), builder.inttoptr(source, byte), count, 1)
        return context.get_dummy_value()

    signature = types.void(types.intp, types.intp, types.intp)
    return (signature, codegen) if integers(target, source, count) else None


def _copy_block(width: int) -> Any:
    """An intrinsic that copies ``width`` bytes through one register."""

    @intrinsic
    def copy(typingctx: Any, target: Any, source: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            kind = ir.IntType(8 * width) if width <= 8 else ir.VectorType(I8, width)
            value = builder.load(pointer(builder, args[1], kind), align=1)
            builder.store(value, pointer(builder, args[0], kind), align=1)
            return context.get_dummy_value()

        return (types.void(types.intp, types.intp), codegen) if integers(target, source) else None

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
            byte = I8.as_pointer()
            kind = ir.FunctionType(ir.VoidType(), [byte, I32, I32, I32])
            function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
            builder.call(function, [builder.inttoptr(args[0], byte), I32(write), I32(3), I32(1)])
            return context.get_dummy_value()

        return (types.void(types.intp), codegen) if integers(address) else None

    return prefetch


# The line at an address, to be read or written soon; any address is allowed.
prefetch_read, prefetch_write = _prefetch(0), _prefetch(1)
