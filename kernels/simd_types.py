"""Vector types for Numba kernels, and the LLVM code that intrinsics share."""

from __future__ import annotations

import platform
from functools import lru_cache
from typing import Any

import numba
from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba import types
from numba.core import cgutils
from numba.extending import models, register_model

LANES = 4  # floats of a short vector
WIDE = 16  # floats of a long one
BYTES = 32  # bytes of a vector of bytes
CACHE_LINE = 64
IS_X86 = platform.machine() in ("x86_64", "AMD64")
F32 = ir.FloatType()
F16 = ir.HalfType()
I8 = ir.IntType(8)
I32 = ir.IntType(32)
I64 = ir.IntType(64)
FOUR_FLOATS = ir.VectorType(F32, LANES)


def _has_feature(name: str) -> bool:
    """Whether Numba compiles for a processor with this feature, by LLVM's name of it."""
    features = numba.config.CPU_FEATURES
    if features is None:
        named = numba.config.CPU_NAME not in (None, "", "host")
        return not named and bool(get_host_cpu_features().get(name))
    return f"+{name}" in features.split(",")


# Whether sixteen of 32 floats can be picked in one instruction; ``permuted`` is slow else.
PERMUTES = IS_X86 and _has_feature("avx512f")


class Vector(types.Type):
    """Numba's type for values that are one LLVM vector."""

    def __init__(self, kind: str, element: Any, lanes: int) -> None:
        super().__init__(name=f"has_dali_{kind}{lanes}")
        self.vector = ir.VectorType(element, lanes)


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, fe_type.vector)


float4, float16 = (Vector("float", F32, lanes) for lanes in (LANES, WIDE))
int16 = Vector("int", I32, WIDE)
byte_vector = Vector("byte", I8, BYTES)


def integers(*kinds: Any) -> bool:
    """Guard: Numba would convert a float to an address without a word."""
    return all(isinstance(kind, types.Integer) for kind in kinds)


def pointer(builder: Any, address: Any, element: Any) -> Any:
    """An integer address as a pointer to ``element``."""
    return builder.inttoptr(address, element.as_pointer())


def splat(builder: Any, scalar: Any, vector: Any = FOUR_FLOATS) -> Any:
    """A vector of copies of a scalar."""
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, I32(0))
    return builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(I32, vector.count), [0] * vector.count))


def fma_of(builder: Any, kind: Any) -> Any:
    """LLVM's fused multiply-add of a float32 or of a vector of them."""
    name = f"llvm.fma.v{kind.count}f32" if isinstance(kind, ir.VectorType) else "llvm.fma.f32"
    return cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind] * 3), name)


def as_float(builder: Any, packed: Any) -> Any:
    """Bytes as float32 lanes; the signed conversion of a number >= 0 is one instruction."""
    lanes = packed.type.count
    return builder.sitofp(builder.zext(packed, ir.VectorType(I32, lanes)), ir.VectorType(F32, lanes))


def narrowed(builder: Any, value: Any, half: bool) -> Any:
    """Float32, or with ``half`` the same number as float16, rounded to nearest even."""
    if not half:
        return value
    vector = isinstance(value.type, ir.VectorType)
    if _has_half_conversion():
        return builder.fptrunc(value, ir.VectorType(F16, value.type.count) if vector else F16)
    return _half_bits(builder, value, value.type.count if vector else 0)


@lru_cache(maxsize=1)
def _has_half_conversion() -> bool:
    """Whether the processor that Numba compiles for converts to float16; LLVM would call a missing routine else."""
    return not IS_X86 or _has_feature("f16c")


def _half_bits(builder: Any, value: Any, lanes: int) -> Any:
    """Float32 to the bits of float16, rounded to nearest even, in integer arithmetic."""
    kind = ir.VectorType(I32, lanes) if lanes else I32
    real = ir.VectorType(F32, lanes) if lanes else F32

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


def on_half(builder: Any, half: Any, emit: Any) -> None:
    """Emit both element types behind one well-predicted branch."""
    with builder.if_else(cgutils.is_not_null(builder, half)) as (then, otherwise):
        with then:
            emit(True)
        with otherwise:
            emit(False)
