"""Padded, short-side and whole-image boxes: the stated rules, purity, ranges, distribution."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from has_dali.kernels import reference
from has_dali.pipelines import PadPlan, ShortSidePlan, WarpPlan
from has_dali.pipelines.plan import MIRROR_BLOCK, WINDOW_BLOCK

Plan = PadPlan | ShortSidePlan


def _draw(plan: Plan, height: int, width: int, count: int, epoch: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return plan(np.tile([[height, width]], (count, 1)), np.arange(count), np.full(count, epoch))


def _words(plan: Plan, sample_id: int, block: int) -> list[int]:
    return [int(word) for word in reference.words(plan.seed, 2, sample_id, block)[0]]


def test_pad_rule() -> None:
    """The border is 4 wide, so a window starts from -4 to 32 + 4 - 32 = 4."""
    plan = PadPlan(seed=9, size=32, padding=4, mirror=0.25)
    start, shape, flips = _draw(plan, 32, 40, 200)
    for n in range(200):
        w0, w1, _, _ = _words(plan, n, WINDOW_BLOCK)
        assert start[n].tolist() == [(w0 * 9 >> 32) - 4, (w1 * 17 >> 32) - 4]
        assert flips[n] == (_words(plan, n, MIRROR_BLOCK)[0] < 2**30)
    assert (shape == 32).all()


def test_short_side_rule() -> None:
    """375 x 500 at resize 256: 224 of 256 of the short side is round(328.125) = 328 source pixels."""
    plan = ShortSidePlan(seed=-4, size=224, resize=256)
    start, shape, flips = _draw(plan, 375, 500, 200)
    assert (shape == 328).all()
    for n in range(200):
        w0, w1, _, _ = _words(plan, n, WINDOW_BLOCK)
        assert start[n].tolist() == [w0 * (375 - 328 + 1) >> 32, w1 * (500 - 328 + 1) >> 32]
        assert flips[n] == (_words(plan, n, MIRROR_BLOCK)[0] < 2**31)


@pytest.mark.parametrize(
    ("short", "size", "resize", "side"),
    [(256, 224, 256, 224), (64, 56, 64, 56), (5, 1, 2, 2), (7, 1, 2, 4), (3, 1, 256, 1), (100, 64, 64, 100)],
)
def test_short_side_rounding(short: int, size: int, resize: int, side: int) -> None:
    """2.5 becomes 2 and 3.5 becomes 4: half to even; never less than a pixel; no crop where size is resize."""
    for height, width in ((short, 3 * short), (3 * short, short)):
        assert _draw(ShortSidePlan(0, size, resize), height, width, 1)[1].tolist() == [[side, side]]


@pytest.mark.parametrize("plan", [PadPlan(4, 20, 3), ShortSidePlan(4, 20, 30)])
def test_pure_function_of_seed_epoch_and_key(plan: Plan) -> None:
    sizes = np.array([(60 + 3 * n, 100 - n) for n in range(40)])
    keys, epochs = np.arange(40) * 7919 - 3, np.arange(40) % 3
    together = plan(sizes, keys, epochs)
    order = np.random.default_rng(0).permutation(40)
    for whole, shuffled in zip(together, plan(sizes[order], keys[order], epochs[order]), strict=True):
        assert np.array_equal(whole[order], shuffled)
    seeded = type(plan)(5, *[getattr(plan, name) for name in ("size", "padding", "resize") if hasattr(plan, name)])
    high = keys + (1 << 40)  # the number of a draw, above 32 bits
    for other in (seeded(sizes, keys, epochs), plan(sizes, high, epochs), plan(sizes, keys, epochs + 1)):
        assert np.mean(np.all(other[0] == together[0], axis=1)) < 0.2


@pytest.mark.parametrize("plan", [PadPlan(1, 28, 2), ShortSidePlan(1, 28, 32)])
def test_starts_are_uniform_and_independent(plan: Plan) -> None:
    """9 places along a side of 32: each within 5 standard errors of a ninth; no correlation above 4 of them."""
    count = 9000
    start, _, flips = _draw(plan, 32, 32, count)
    lowest = start.min()
    places = 9 if isinstance(plan, PadPlan) else 5
    for axis in (0, 1):
        counts = np.bincount(start[:, axis] - lowest, minlength=places)
        assert len(counts) == places
        assert np.abs(counts - count / places).max() < 5 * math.sqrt(count / places * (1 - 1 / places))
    pairs = np.corrcoef([start[:, 0], start[:, 1], flips])[np.triu_indices(3, 1)]
    assert np.abs(pairs).max() < 4 / math.sqrt(count)
    assert abs(flips.mean() - 0.5) < 4 * 0.5 / math.sqrt(count)


@given(
    height=st.integers(1, 70000), width=st.integers(1, 70000), size=st.integers(1, 300), more=st.integers(0, 200),
    key=st.integers(-(2**63), 2**63 - 1), epoch=st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_boxes_stay_where_they_may(height: int, width: int, size: int, more: int, key: int, epoch: int) -> None:
    at = np.array([[height, width]]), np.array([key]), np.array([epoch])
    (start,), (shape,), _ = ShortSidePlan(0, size, size + more)(*at)
    assert (start >= 0).all() and (shape >= 1).all() and (start + shape <= [height, width]).all()
    assert shape[0] == shape[1] <= min(height, width)
    (start,), (shape,), _ = PadPlan(0, size, size)(*at)
    assert (start >= -size).all() and (start + shape <= [height + size, width + size]).all()
    (start,), (shape,), (flip,) = WarpPlan()(*at)
    assert start.tolist() == [0, 0] and shape.tolist() == [height, width] and flip == 0


def test_no_border_and_no_room() -> None:
    assert (_draw(PadPlan(0, 32, 0), 32, 32, 50)[0] == 0).all()
    with pytest.raises(ValueError, match=r"padding=4: an image of 20 x 50 with this border .* smaller than size=32"):
        PadPlan(0, 32, 4)(np.array([[40, 40], [20, 50]]), np.arange(2), np.zeros(2, int))
    start, shape, flips = PadPlan()(np.empty((0, 2), int), np.empty(0, int), np.empty(0, int))
    assert start.shape == shape.shape == (0, 2) and flips.shape == (0,)


@pytest.mark.parametrize(
    ("plan", "changes", "message"),
    [
        (PadPlan, {"size": 0}, "size=0, padding=4: expected at least 1 and 0"),
        (PadPlan, {"padding": -1}, "padding=-1"),
        (PadPlan, {"mirror": 1.5}, "mirror=1.5"),
        (PadPlan, {"seed": 2**64}, "seed="),
        (ShortSidePlan, {"resize": 200}, "resize=200: expected at least size=224, the side of the crop"),
        (ShortSidePlan, {"size": 0}, "resize=256"),
        (ShortSidePlan, {"mirror": -0.1}, "mirror=-0.1"),
    ],
)
def test_bad_plans(plan: type[Plan], changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan(**changes)  # type: ignore[arg-type]
