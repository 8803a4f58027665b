"""An operator that does less, or something else, is void; one that does the job is not."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from has_dali.bench.peers.op_check import judge
from has_dali.bench.peers.op_job import FUSED, HIDE, Buffers, OpJob
from has_dali.kernels import reference
from has_dali.kernels.policy import HideAndSeek

POLICY = HideAndSeek((8, 16), p_hide=0.5)
SIZE, BATCH = 64, 64


def made(kind: str, dtype: str, policy: HideAndSeek = POLICY) -> tuple[OpJob, Buffers, npt.NDArray]:
    """A job, its batches, and what a correct operator with ``policy`` makes of one, (N, H, W, C)."""
    job = OpJob(kind, POLICY, dtype, BATCH, SIZE)
    buffers = Buffers(dtype, BATCH, SIZE, 1)
    mask = policy.mask(np.arange(BATCH), 0, SIZE, SIZE)[..., None]
    visible = buffers.normalized if kind == FUSED else buffers.pristine
    return job, buffers, np.where(mask, np.array(job.fill, visible.dtype), visible)


CASES = [(HIDE, "uint8"), (HIDE, "float32"), (HIDE, "float16"), (FUSED, "uint8")]


@pytest.mark.parametrize(("kind", "dtype"), CASES)
def test_the_same_job_passes_in_either_layout(kind: str, dtype: str) -> None:
    job, buffers, output = made(kind, dtype)
    verdict = judge(job, buffers, [output], "NHWC")
    assert verdict.reason is None
    assert verdict.facts["hidden"] == pytest.approx(0.5, abs=verdict.facts["bound"])
    assert judge(job, buffers, [output.transpose(0, 3, 1, 2)], "NCHW").reason is None


@pytest.mark.parametrize(("kind", "dtype"), CASES)
@pytest.mark.parametrize("p_hide", [0.0, 0.35, 0.65, 1.0])
def test_another_fraction_is_void(kind: str, dtype: str, p_hide: float) -> None:
    job, buffers, output = made(kind, dtype, POLICY.with_(p_hide=p_hide))
    assert "expected 50.0%" in str(judge(job, buffers, [output], "NHWC").reason)


@pytest.mark.parametrize(("kind", "dtype"), CASES)
def test_another_fill_is_void(kind: str, dtype: str) -> None:
    job, buffers, output = made(kind, dtype)
    wrong = np.array(125 if dtype == "uint8" and kind == HIDE else 0.5, output.dtype)
    filled = np.where((output == np.array(job.fill, output.dtype)).all(-1, keepdims=True), wrong, output)
    assert f"expected {job.fill:g}" in str(judge(job, buffers, [filled], "NHWC").reason)


@pytest.mark.parametrize(("kind", "dtype"), CASES)
def test_a_touched_visible_pixel_is_void(kind: str, dtype: str) -> None:
    job, buffers, output = made(kind, dtype)
    y, x = np.argwhere((output[3] != np.array(job.fill, output.dtype)).any(-1))[7]
    output[3, y, x] = output[3, y, x] // 2 + 1 if dtype == "uint8" and kind == HIDE else output[3, y, x] + 0.25
    output[4] = np.where((output[4] == job.fill).all(-1, keepdims=True), output[4], output[4][::-1])
    assert "neither as they were nor hidden" in str(judge(job, buffers, [output], "NHWC").reason)


def test_another_dtype_or_shape_is_void() -> None:
    job, buffers, output = made(HIDE, "uint8")
    assert "gives int16, expected uint8" in str(judge(job, buffers, [output.astype(np.int16)], "NHWC").reason)
    assert "gives shape" in str(judge(job, buffers, [output[:-1]], "NHWC").reason)
    assert "gives shape" in str(judge(job, buffers, [output], "NCHW").reason)


def test_one_mask_for_the_whole_batch_is_void() -> None:
    job, buffers, _ = made(HIDE, "uint8")
    mask = HideAndSeek((8,)).mask([5], 0, SIZE, SIZE)[..., None]
    output = np.where(mask, np.uint8(124), buffers.pristine)
    assert "the same pixels of every image" in str(judge(job, buffers, [output], "NHWC").reason)


def test_a_fill_rounded_to_a_grey_level_passes_where_normalisation_follows() -> None:
    job, buffers, _ = made(FUSED, "uint8")
    mask = POLICY.mask(np.arange(BATCH), 0, SIZE, SIZE)[..., None]
    hidden = np.where(mask, np.array([124, 116, 104], np.uint8), buffers.pristine)
    output = np.stack(reference.resize_mirror_normalize_hide(list(hidden), None, np.arange(BATCH), 0, size=None))
    assert judge(job, buffers, [output], "NCHW").reason is None


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32"])
def test_no_pixel_looks_hidden_before_it_is(dtype: str) -> None:
    buffers = Buffers(dtype, 8, 32, 2)
    job = OpJob(HIDE, POLICY, dtype, 8, 32)
    assert not (buffers.pristine == job.fill).any()
    first, second = buffers.batches("NCHW")
    first[:] = 0
    assert not np.shares_memory(first, second)
    assert (buffers.batches("NCHW")[0].transpose(0, 2, 3, 1) == buffers.pristine).all()
