"""The kernels' own PTX, executed on the CPU: every bit equal to the reference, no race, no stray or unset access."""

from __future__ import annotations

import mmap
import os
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
import cuda_support as support

from has_dali.kernels import reference
from has_dali.kernels.policy import HideAndSeek

POLICY = HideAndSeek(patch_sizes=(3, 0, 8), seed=5)
OFFSET = POLICY.with_(random_offset=True, p_hide=0.4)
EXHAUSTIVE = bool(os.environ.get("HAS_DALI_EXHAUSTIVE"))
# Schedules and fills of unset registers and shared memory; all must give the same bits.
CONDITIONS = (
    {"schedule": "warp", "seed": 1, "poison": 0xCDCDCDCDCDCDCDCD},
    {"schedule": "random", "seed": 2, "poison": 0x0102030405060708},
)


def _hide_cases():
    """Every specialisation of ``hide``: element size, layout, in place, access and fill."""
    for dtype, item in (("uint8", 1), ("float16", 2), ("float32", 4)):
        for layout in ("NCHW", "NHWC"):
            for in_place in (False, True):
                for access in ("vector", "edges") if in_place else ("vector", "edges", "scalar"):
                    for fill in (0, 1, 2):
                        channels = 18 if fill == 2 else 3
                        height, width = (6, 32) if access == "vector" else (7, 9)
                        size = {"N": 2, "C": channels, "H": height, "W": width}
                        skew = {"vector": (0, 0), "edges": (item, item), "scalar": (0, item)}[access]
                        yield support.HideCase(
                            tuple(size[a] for a in layout), layout, dtype, OFFSET if fill else POLICY, in_place,
                            tuple(range(channels)) if fill else 3.0, skew,
                        )  # fmt: skip


def _resize_cases():
    """Every specialisation of the fused kernel: filter, output type, layout, access and channels."""
    for size, antialias in ((None, False), ((0, 0), False), ((0, 0), True)):
        for dtype in ("float32", "float16", "bfloat16"):
            for layout in ("CHW", "HWC"):
                for wide in (True, False):
                    if dtype == "bfloat16" and layout == "HWC" and not EXHAUSTIVE:
                        continue
                    for channels in (1, 2, 3, 4) if EXHAUSTIVE else (3, 4) if wide else (3, 1):
                        target = (5, 16) if wide else (5, 9)
                        sources = [target, target] if size is None else [(11, 23), (4, 70)]
                        yield support.ResizeCase(
                            sources, None if size is None else target, channels, dtype, layout, antialias,
                            OFFSET, [1, 0], skew=0 if wide else 4, uniform=False,
                        )  # fmt: skip


def _name(case):
    if isinstance(case, support.HideCase):
        return f"{case.dtype}-{case.layout}-{'in' if case.in_place else 'out'}-{case.skew}-{case.fill!s:.9}"
    return f"{case.size}-{case.dtype}-{case.layout}-{case.channels}-{case.antialias}"


@pytest.mark.parametrize("case", [*_hide_cases(), *_resize_cases()], ids=_name)
def test_every_specialisation(case):
    """Bit-equal under two schedules and two poisons, with races checked; no result depends on the compiler's choice."""
    for condition in CONDITIONS:
        job = case.job()
        support.run_ptx(job, check_races=True, **condition)
        job.check()
    specialisation = job.plan.specialisation
    assert support.load_ptxrun().inexact(support.ptx_of(specialisation), specialisation.kernel) == []


@pytest.mark.parametrize("arch", ["compute_75", "compute_90"])
@pytest.mark.parametrize(
    "case",
    [
        support.HideCase((2, 3, 40, 225), dtype="uint8", policy=OFFSET),
        support.HideCase((1, 2, 5000), "NCT", "float16", policy=OFFSET, in_place=True),
        support.HideCase((2, 70, 7, 7), dtype="float16"),
        support.HideCase((1, 3, 33, 5), policy=HideAndSeek(patch_sizes=(1,))),
        support.HideCase((1, 3, 33, 5), policy=HideAndSeek(patch_sizes=(2**31 - 1,), random_offset=True)),
        support.ResizeCase([(300, 9), (9, 300)], (3, 2), mirror=[1, 0]),
        support.ResizeCase([(33, 40)], (20, 300), mirror=[1], policy=HideAndSeek(patch_sizes=(30,))),
        support.HideCase((3, 2, 9, 16), dtype="uint8", keys_on_device=True),
        support.ResizeCase([(12, 20)] * 2, (8, 16), uniform=True, mirror=[1, 0]),
        support.ResizeCase([(12, 20)] * 2, (8, 16), uniform=True, mirror=[1, 0], keys_on_device=True),
        support.ResizeCase([(12, 20)] * 2, (8, 16), policy=None),
    ],
    ids=_name,
)
def test_shapes_and_architectures(case, arch):
    """Tiles of every form, by both ways of combining a warp's bits (shuffles before sm_80, a reduction after)."""
    job = case.job()
    support.run_ptx(job, arch, check_races=True, **CONDITIONS[0])
    job.check()


def test_a_planted_fault_is_caught():
    """The checks are awake: a plan with less shared memory than it needs must not pass."""
    job = support.HideCase((1, 1, 32, 64), dtype="uint8").job()
    launch = job.plan.launches[0]
    ptxrun = support.load_ptxrun()
    with pytest.raises(ptxrun.MemoryFault):
        ptxrun.launch(
            support.ptx_of(job.plan.specialisation), "hide", (launch.grid,), (launch.block,), [launch.arguments[0]],
            shared_bytes=launch.shared_bytes - 64, buffers=job.buffers,
        )  # fmt: skip


def _far_apart(nbytes):
    """Zeros that take no memory until they are touched."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0x4000)
    return np.frombuffer(mmap.mmap(-1, nbytes, flags=flags), np.uint8)


FAR = 2**32 + 2**20  # elements between neighbours: beyond 32 bits, signed or not


def _launch(job, buffers):
    launch = job.plan.launches[0]
    support.load_ptxrun().launch(
        support.ptx_of(job.plan.specialisation), job.plan.specialisation.kernel, (launch.grid,), (launch.block,),
        [launch.arguments[0]], shared_bytes=launch.shared_bytes, buffers=buffers,
    )  # fmt: skip


def test_hide_beyond_2_to_the_32_elements():
    """Planes that lie more than 2^32 elements apart: the offsets are 64-bit."""
    case = support.HideCase((2, 2, 4, 64), dtype="uint8", policy=POLICY.with_(patch_sizes=(8,)), in_place=True)
    job = case.job()
    memory = _far_apart(3 * FAR + 256)
    planes = [memory[n * FAR : n * FAR + 256].reshape(4, 64) for n in range(4)]
    for plane in planes:
        plane[:] = 9
    arguments = job.plan.launches[0].arguments
    arguments["plane_elements"], arguments["fill"] = FAR, 0x05050505
    arguments["input"] = arguments["output"] = memory.ctypes.data
    _launch(job, [memory])
    masks = case.policy.mask([-3, 4], 3, 4, 64)
    assert masks.any() and not masks.all()
    for n, plane in enumerate(planes):
        np.testing.assert_array_equal(plane, np.where(masks[n // 2], 5, 9))


def test_resize_beyond_2_to_the_32_bytes():
    """Images and outputs that lie as far apart."""
    case = support.ResizeCase([(12, 20)] * 2, (8, 16), uniform=True, mirror=[1, 0], keys_on_device=True)
    job = case.job()
    source, target = _far_apart(FAR + 720), _far_apart((FAR + 8 * 16 * 3) * 4)
    for n in range(2):
        source[n * FAR : n * FAR + 720] = job.buffers[0][n].reshape(-1)
    arguments = job.plan.launches[0].arguments
    arguments["image"]["input"], arguments["image"]["output"] = source.ctypes.data, target.ctypes.data
    arguments["input_stride"] = arguments["output_stride"] = FAR
    _launch(job, [source, target, *job.buffers])
    for n in range(2):
        result = target[n * FAR * 4 :][: 8 * 16 * 3 * 4].view(np.float32)
        np.testing.assert_array_equal(result, job.expected[0][n].reshape(-1))


def _half_hidden(height, width, size, first_half):
    """A sample id for which cells of ``size`` hide all of the second half (rows, or columns of a single row)."""
    policy = HideAndSeek((size,), seed=1)
    for n in range(10_000):
        mask = policy.mask([n], 3, height, width)[0]
        if mask[~first_half].all() and not mask.all():
            return policy, n
    raise AssertionError("no such sample")


def test_hide_reads_no_hidden_vector():
    """Out of place, the memory of hidden rows is never touched: here it does not exist."""
    first_half = np.zeros((32, 32), bool)
    first_half[:16] = True
    policy, sample = _half_hidden(32, 32, 16, first_half)
    job = support.HideCase((1, 1, 32, 32), policy=policy, ids=[sample]).job()
    source, target = job.buffers[:2]
    _launch(job, [source[:, :, :16], target])
    job.check()


@pytest.mark.parametrize("antialias", [None, False, True])
@pytest.mark.parametrize("axis", [0, 1])
def test_resize_reads_no_hidden_pixel(axis, antialias):
    """Source rows and columns that only hidden pixels would need are never touched: here they do not exist."""
    target = (32, 32) if axis == 0 else (1, 64)
    source = tuple(n if antialias is None or n == 1 else 3 * n for n in target)
    first_half = np.zeros(target, bool)
    first_half[(slice(None),) * axis + (slice(target[axis] // 2),)] = True
    policy, sample = _half_hidden(*target, target[axis] // 2, first_half)
    case = support.ResizeCase(
        [source], None if antialias is None else target, policy=policy, antialias=bool(antialias), ids=[sample]
    )
    job = case.job()
    needed = target[axis] // 2
    if antialias is not None:
        taps = reference.resize_taps(source[axis], target[axis], antialias)[:needed]
        needed = max(first + len(weights) for first, weights in taps)
    assert needed < source[axis]
    image = job.buffers[0]
    _launch(job, [image[:needed] if axis == 0 else image[:, :needed], *job.buffers[1:]])
    job.check()
