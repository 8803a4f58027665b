"""Every peer does its job on a small batch, and the bounds write what they are said to write."""

from __future__ import annotations

import importlib.util
import itertools
import shutil

import numpy as np
import pytest

from has_dali.bench.harness import Unavailable
from has_dali.bench.peers import op_all, op_bounds
from has_dali.bench.peers.op_has_dali import LAYOUTS, sample_ids
from has_dali.bench.peers.op_job import FUSED, HIDE, Buffers, OpJob, buffer_count, last_level_cache
from has_dali.kernels.policy import HideAndSeek

KINDS = [(HIDE, "uint8"), (HIDE, "float32"), (FUSED, "uint8")]
KEYS = [*(peer for peer in op_all.PEERS if peer != "torch_compile"), "has_dali", "has_dali_out"]
KEYS += ["has_dali_new", "has_dali_plain"]


def small(kind: str, dtype: str, sizes: tuple[int, ...] = (8, 16)) -> tuple[OpJob, Buffers]:
    job = OpJob(kind, HideAndSeek(sizes), dtype, batch=32, size=96)
    return job, Buffers(dtype, job.batch, job.size, 2)


@pytest.mark.parametrize("sizes", [(16,), (8, 16, 20)])
@pytest.mark.parametrize(("kind", "dtype"), KINDS)
@pytest.mark.parametrize("key", [*KEYS, "has_dali_fn"])
def test_every_peer_passes_its_check(key: str, kind: str, dtype: str, sizes: tuple[int, ...]) -> None:
    job, buffers = small(kind, dtype, sizes)
    found = [one for one in op_all.contenders(job, buffers) if one.key == key]
    if not found:
        assert key in (("has_dali_out",) if kind == FUSED else ("has_dali_new", "has_dali_plain"))
        return
    (one,) = found
    for module in one.requires:
        pytest.importorskip(module)
    assert one.check is not None
    try:
        with one.open() as step:
            verdict = one.check([step(), step()])
    except Unavailable as missing:
        assert (key, kind, dtype) in {("timm_erasing", HIDE, "uint8"), ("kornia_erasing", HIDE, "uint8")}, missing
        return
    assert verdict.reason is None


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("sizes", [(8,), (16, 44)])
def test_memset_writes_the_same_cells_as_hide(dtype: str, sizes: tuple[int, ...]) -> None:
    job, buffers = small(HIDE, dtype, sizes)
    by_key = {one.key: one for one in op_all.contenders(job, buffers, ())}
    with by_key["has_dali"].open() as step:
        wanted = [step().copy(), step().copy()]
    with by_key[op_bounds.MEMSET].open() as step:
        for expected in wanted:
            np.testing.assert_array_equal(step(), expected)


def test_torch_compile_is_skipped_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    job, buffers = small(HIDE, "uint8")
    (one,) = (one for one in op_all.contenders(job, buffers) if one.key == "torch_compile")
    with pytest.raises(Unavailable, match=r"no C\+\+ compiler"), one.open():
        pass


def test_runs_are_the_mask() -> None:
    job, _ = small(HIDE, "uint8", (20,))
    ids = sample_ids(job, 1)
    runs = op_bounds.hidden_runs(job, ids)
    painted = np.zeros((job.batch, job.size, job.size * 3), bool)
    for image in range(job.batch):
        for band in range(runs.images[image], runs.images[image + 1]):
            first, end, start = runs.bands[band]
            for begin, stop in runs.runs[start : runs.bands[band + 1, 2]]:
                painted[image, first:end, begin:stop] = True
    np.testing.assert_array_equal(painted[..., ::3], job.policy.mask(ids, 0, job.size, job.size))
    assert LAYOUTS["uint8"] == "NHWC"


def test_peers_are_chosen_by_name_and_ours_and_bounds_stay() -> None:
    job, buffers = small(HIDE, "uint8")
    keys = [one.key for one in op_all.contenders(job, buffers, ("torch_eager",))]
    assert keys == ["has_dali", "has_dali_out", "copy", "copy_streamed", "memset", "torch_eager", "has_dali_fn"]
    assert {one.key for one in op_all.contenders(job, buffers) if one.kind == "peer"} == set(op_all.PEERS)


def test_rotated_buffers_exceed_the_last_level_cache() -> None:
    cache = last_level_cache()
    if cache is None:
        pytest.skip("the system does not say how large its caches are")
    assert 4 * cache <= buffer_count(1 << 20) << 20 < 4 * cache + (1 << 20)
    assert buffer_count(1 << 40) == 3


@pytest.mark.parametrize("skew", [0, 4, 60])
@pytest.mark.parametrize("count", [0, 3, 64, 1000, 4096 + 7])
def test_the_streamed_copy_copies_every_byte_and_no_other(count: int, skew: int) -> None:
    rng = np.random.default_rng(count)
    source = rng.integers(0, 256, count, np.uint8)
    memory = np.full(count + 128, 77, np.uint8)
    op_bounds.copy_streamed(memory[skew : skew + count], source)
    np.testing.assert_array_equal(memory[skew : skew + count], source)
    assert (memory[:skew] == 77).all() and (memory[skew + count :] == 77).all()


def test_batches_and_results_begin_at_whole_cache_lines() -> None:
    for dtype in ("uint8", "float32"):
        buffers = Buffers(dtype, 3, 33, 4)
        arrays = [*buffers.batches("NHWC"), *buffers.batches("NCHW"), *buffers.outputs()]
        assert len(arrays) == 12 and all(array.ctypes.data % 64 == 0 for array in arrays)
        assert not any(np.shares_memory(a, b) for a, b in itertools.pairwise(arrays))


def test_fused_peers_write_to_the_same_memory_as_ours() -> None:
    pytest.importorskip("torch")
    job, buffers = small(FUSED, "uint8")
    reusing = ("has_dali", "torch_eager", "python_loop", "torchvision_erasing", "grid_dropout")
    found = {one.key: one for one in op_all.contenders(job, buffers)}
    for key in reusing:
        if any(importlib.util.find_spec(module) is None for module in found[key].requires):
            continue
        with found[key].open() as step:
            for expected in buffers.outputs():
                result = step()
                first = result[0] if isinstance(result, list) else result.numpy()
                assert first.ctypes.data == expected.ctypes.data, key
    with found["has_dali_new"].open() as step:
        assert not any(np.shares_memory(step()[0], output) for output in buffers.outputs())


def test_dali_draws_no_box_beyond_the_cells_of_the_size_drawn() -> None:
    pytest.importorskip("nvidia.dali")
    from nvidia.dali import Pipeline

    from has_dali.bench.peers import op_dali

    job, _ = small(HIDE, "uint8", (16, 48))
    pipeline = Pipeline(64, 1, None, prefetch_queue_depth=1)
    with pipeline:
        pipeline.set_outputs(*op_dali.cells(job))
    pipeline.build()
    grids, edges = pipeline.run()
    seen = {(float(np.array(edges[n])), np.array(grids[n]).shape) for n in range(64)}
    assert seen == {(16.0, (36, 2)), (48.0, (4, 2))}
    large = next(np.array(grids[n]) for n in range(64) if np.array(edges[n]) == 48)
    np.testing.assert_array_equal(large, [[0, 0], [0, 48], [48, 0], [48, 48]])
