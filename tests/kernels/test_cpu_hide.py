"""The CPU hide kernel equals the reference for every shape, dtype, layout and policy."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from has_dali.kernels import cpu, reference
from has_dali.kernels.policy import HideAndSeek

LAYOUTS = {"NCHW": "nchw", "NHWC": "nhwc", "NCT": "ncw"}
DTYPES = (np.uint8, np.int16, np.float16, np.float32, np.float64, np.bool_)

policies = st.builds(
    HideAndSeek,
    patch_sizes=st.lists(st.sampled_from([0, 1, 2, 3, 5, 8, 16, 44, 1000, 2**31 - 1]), min_size=1, max_size=4),
    p_hide=st.sampled_from([0.0, 0.3, 0.5, 1.0]),
    p_apply=st.sampled_from([0.0, 0.5, 1.0]),
    seed=st.integers(-(2**63), 2**64 - 1),
    random_offset=st.booleans(),
)


@st.composite
def batches(draw: st.DrawFn) -> tuple[np.ndarray, str]:
    layout = draw(st.sampled_from(sorted(LAYOUTS)))
    sides = {
        "n": draw(st.integers(0, 3)),
        "c": draw(st.integers(1, 5)),
        "h": draw(st.integers(1, 40)),
        "w": draw(st.integers(1, 70)),
    }
    shape = [sides[axis] for axis in LAYOUTS[layout]]
    values = np.random.default_rng(draw(st.integers(0, 99))).integers(0, 200, shape)
    batch = values.astype(draw(st.sampled_from(DTYPES)))
    kind = draw(st.sampled_from(["contiguous", "fortran", "sliced", "reversed"]))
    if kind == "fortran":
        batch = np.asfortranarray(batch)
    elif kind == "sliced":
        batch = np.repeat(batch, 2, axis=-1)[..., ::2]
    elif kind == "reversed":
        batch = batch[..., ::-1]
    return batch, layout


@settings(max_examples=300, deadline=None)
@given(batches(), policies, st.integers(0, 2**32 - 1), st.data())
def test_equal_to_the_reference(
    drawn: tuple[np.ndarray, str], policy: HideAndSeek, epoch: int, data: st.DataObject
) -> None:
    batch, layout = drawn
    ids = np.array(
        data.draw(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=len(batch), max_size=len(batch))), np.int64
    )
    p_hide = data.draw(st.none() | st.lists(st.floats(0, 1), min_size=len(batch), max_size=len(batch)))
    fill = np.linspace(0, 90.5, batch.shape[layout.index("C")])
    before = batch.copy()
    expected = reference.hide(batch, policy, ids, epoch, fill, layout, p_hide)
    np.testing.assert_array_equal(cpu.hide(batch, policy, ids, epoch, fill, layout, None, p_hide), expected)
    np.testing.assert_array_equal(batch, before)
    place = batch.copy(order="K")
    assert cpu.hide(place, policy, ids, epoch, fill, layout, place, p_hide) is place
    np.testing.assert_array_equal(place, expected)
    out = np.empty(batch.shape, batch.dtype)
    cpu.hide(batch, policy, ids, epoch, fill, layout, out, p_hide)
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_threads_do_not_change_the_result(threads: int) -> None:
    batch = np.random.default_rng(1).random((9, 3, 320, 320), dtype=np.float32)
    policy = HideAndSeek((16, 44), seed=4)
    expected = cpu.hide(batch, policy, np.arange(9), 5, 0.0, threads=1)
    np.testing.assert_array_equal(cpu.hide(batch, policy, np.arange(9), 5, 0.0, threads=threads), expected)


def test_concurrent_calls_do_not_disturb_one_another() -> None:
    batch = np.random.default_rng(1).random((6, 3, 320, 320), dtype=np.float32)
    policy = HideAndSeek((16, 44))
    expected = [reference.hide(batch, policy, np.arange(6), epoch, 0.0) for epoch in range(4)]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            results = list(pool.map(lambda epoch: cpu.hide(batch, policy, np.arange(6), epoch, 0.0), range(4)))
            for got, wanted in zip(results, expected, strict=True):
                np.testing.assert_array_equal(got, wanted)


def test_in_place_writes_nothing_around_the_batch() -> None:
    frame = np.full((2, 40, 60, 3), 7, np.uint8)
    inner = frame[:, 5:35, 10:50]
    cpu.hide(inner, HideAndSeek(7, p_hide=1.0), [0, 1], 0, 200, "NHWC", inner)
    assert (inner == 200).all()
    inner[...] = 7
    assert (frame == 7).all()
