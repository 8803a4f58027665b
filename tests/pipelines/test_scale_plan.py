"""ScalePlan: boxes of a fixed crop from an image scaled at random."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from has_dali.pipelines.scale_plan import ScalePlan

SIDES = st.integers(1, 700)


@settings(deadline=None)  # the first call compiles
@given(SIDES, SIDES, st.integers(1, 400), st.integers(0, 2**63 - 1), st.booleans())
def test_boxes(height: int, width: int, size: int, key: int, pad: bool) -> None:
    plan = ScalePlan(seed=3, size=size, scales=(0.5, 2.0), pad=pad)
    (start,), (shape,), (flip,) = plan(np.array([[height, width, 3]]), [key], [7])
    side = int(shape[0])
    assert shape[0] == shape[1] >= 1 and flip in (0, 1)
    least, most = round(size / 2), round(size / 0.5)
    if pad:
        assert max(least, 1) <= side <= most
    else:
        assert side == min(height, width) or max(least, 1) <= side <= min(most, height, width)
    for begin, extent in zip(start, (height, width), strict=True):
        # Either the box lies within the image, or the image within the box.
        assert (0 <= begin <= extent - side) if side <= extent else (extent - side <= begin <= 0)


def test_a_sample_has_the_same_box_in_any_batch() -> None:
    plan = ScalePlan(seed=1, size=64, pad=True)
    shapes, ids = np.tile([100, 140], (50, 1)), np.arange(50)
    together = plan(shapes, ids, np.full(50, 4))
    for n in (0, 17, 49):
        alone = plan(shapes[n : n + 1], ids[n : n + 1], [4])
        assert all(np.array_equal(a[n], b[0]) for a, b in zip(together, alone, strict=True))
    assert not np.array_equal(plan(shapes, ids, np.full(50, 5))[0], together[0])


def test_factors_and_places_are_uniform() -> None:
    count = 20_000
    start, shape, flips = ScalePlan(size=1000, scales=(0.5, 2.0), mirror=0.25)(
        np.tile([5000, 6000], (count, 1)), np.arange(count), np.zeros(count, np.int64)
    )
    factors = 1000 / shape[:, 0]
    assert abs(factors.mean() - 1.25) < 0.01 and abs(np.quantile(factors, 0.25) - 0.875) < 0.02
    for axis, extent in ((0, 5000), (1, 6000)):
        places = start[:, axis] / (extent - shape[:, axis])
        assert abs(places.mean() - 0.5) < 0.01 and abs(places.std() - 12**-0.5) < 0.01
        assert abs(np.corrcoef(places, factors)[0, 1]) < 0.03
    assert abs(flips.mean() - 0.25) < 0.015


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scales": (0.0, 1.0)}, "scales"),
        ({"scales": (2.0, 1.0)}, "scales"),
        ({"scales": (1.0,)}, "expected two numbers"),
        ({"scales": (1.0, float("inf"))}, "scales"),
        ({"size": 0}, "size=0"),
        ({"mirror": 1.5}, "mirror"),
        ({"seed": 0.5}, "seed"),
    ],
)
def test_bad_arguments(options: dict[str, object], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        ScalePlan(**options)  # type: ignore[arg-type]
