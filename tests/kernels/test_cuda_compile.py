"""NVRTC compiles every kind of kernel for every architecture; registers, spills and vector accesses are read back."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import cuda_support as support

from has_dali.bench import cubin

HIDE_REGISTERS = 40
RESIZE_REGISTERS = {0: 64, 1: 64, 2: 80}
RESIZE_SIZE = (32, 64)

HIDE = {
    "f32 planar": support.HideCase((2, 3, 32, 64)),
    "f16 planar": support.HideCase((2, 3, 32, 64), dtype="float16"),
    "u8 planar in place": support.HideCase((2, 3, 32, 64), dtype="uint8", in_place=True),
    "u8 interleaved in place": support.HideCase((2, 32, 64, 3), "NHWC", "uint8", in_place=True, fill=(1, 2, 3)),
    "u8 interleaved, many fills": support.HideCase((2, 4, 8, 32), "NHWC", "uint8", in_place=True, fill=range(32)),
    "f16 unaligned": support.HideCase((2, 3, 7, 7), dtype="float16", skew=(2, 2)),
    "f32 misaligned copy": support.HideCase((2, 3, 7, 7), skew=(0, 4)),
}


def _resize(resample, dtype, layout, size=RESIZE_SIZE):
    return support.ResizeCase(
        [(32, 64)] * 2, size if resample else None, dtype=dtype, layout=layout, antialias=resample == 2
    )


RESIZE = {
    f"resample {resample} {dtype} {layout}": _resize(resample, dtype, layout)
    for resample in (0, 1, 2)
    for dtype, layout in (("float16", "CHW"), ("float32", "CHW"), ("float16", "HWC"))
} | {
    "unaligned 1": _resize(1, "float32", "CHW", (9, 13)),
    "unaligned 2": _resize(2, "float16", "HWC", (9, 13)),
}
CASES = HIDE | RESIZE
ALIGNED_PLANAR = [name for name in CASES if re.search(r"f(loat)?(16|32) (planar|CHW)$", name)]


@pytest.fixture(scope="module")
def compiled():
    """Cubins by case and architecture, each compiled once."""
    cache = {}

    def get(name, arch):
        if (name, arch) not in cache:
            try:
                code = cubin.compile_cubin(CASES[name].job().plan.specialisation, arch)
                cache[name, arch] = cubin.resources(code), cubin.disassemble(code)
            except cubin.ToolMissingError as error:
                pytest.skip(str(error))
        return cache[name, arch]

    return get


@pytest.mark.parametrize(("name", "arch"), [(name, arch) for name in CASES for arch in cubin.ARCHITECTURES])
def test_no_spills_and_few_registers(compiled, name, arch):
    """No stack, no local memory, and no more registers than the occupancy aimed at allows."""
    used, code = compiled(name, arch)
    resample = dict(CASES[name].job().plan.specialisation.defines).get("RESAMPLE")
    limit = HIDE_REGISTERS if resample is None else RESIZE_REGISTERS[resample]
    assert (used.stack_bytes, used.local_bytes) == (0, 0)
    assert not [line for line in code if re.search(r"\b(LDL|STL)\b", line)]
    assert used.registers <= limit or arch < 80


@pytest.mark.parametrize("name", ALIGNED_PLANAR)
def test_128_bit_stores(compiled, name):
    """Aligned planar outputs are stored 16 bytes at a time and in no other way; global accesses are not generic."""
    _, code = compiled(name, 90)
    stores = [line for line in code if re.search(r"\bSTG?\.E", line)]
    assert stores
    assert all("STG.E" in line and ".128" in line for line in stores)


def test_out_of_place_hide_loads_vectors(compiled):
    """The batch is read 16 bytes at a time, through the read-only path."""
    _, code = compiled("f16 planar", 90)
    assert [line for line in code if re.search(r"LDG\.E\.128\.CONSTANT", line)]


def test_in_place_hide_reads_nothing_of_the_batch(compiled):
    """The only global loads are of 64-bit keys."""
    _, code = compiled("u8 planar in place", 90)
    loads = [line for line in code if "LDG" in line]
    assert loads
    assert all(re.search(r"LDG\.E(\.64)?(\.CONSTANT)? R", line) for line in loads)
