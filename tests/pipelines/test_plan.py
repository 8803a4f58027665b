"""Crop boxes and mirror flags: purity, torchvision's rule, and boxes that stay inside."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import CenterCrop, RandomResizedCrop, Resize

from has_dali.kernels import reference
from has_dali.pipelines import EvalPlan, TrainPlan
from has_dali.pipelines.plan import CROP_BLOCK, MIRROR_BLOCK


def _shapes(*sizes: tuple[int, int]) -> np.ndarray:
    return np.array([(h, w, 3) for h, w in sizes], np.int32)


def _draw(plan: TrainPlan, height: int, width: int, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return plan(np.tile(_shapes((height, width)), (count, 1)), np.arange(count), np.full(count, 2))


def test_boxes_follow_the_stated_rule() -> None:
    """A scalar rewrite on the reference Philox gives the same boxes."""
    plan = TrainPlan(seed=9, mirror=0.25)
    start, shape, mirror = _draw(plan, 90, 120, 200)
    for sample_id in range(200):
        flip = int(reference.words(9, 2, sample_id, MIRROR_BLOCK)[0, 0])
        assert mirror[sample_id] == (flip < 2**30)
        for attempt in range(10):
            w0, w1, w2, w3 = (int(word) for word in reference.words(9, 2, sample_id, CROP_BLOCK + attempt)[0])
            area = 90 * 120 * (0.08 + (1 - 0.08) * w0 / 2**32)
            aspect = math.exp(math.log(3 / 4) + (math.log(4 / 3) - math.log(3 / 4)) * w1 / 2**32)
            width, height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if width <= 120 and height <= 90:
                break
        else:
            continue
        assert shape[sample_id].tolist() == [height, width]
        assert start[sample_id].tolist() == [w2 * (91 - height) >> 32, w3 * (121 - width) >> 32]


def test_pure_function_of_seed_epoch_and_id() -> None:
    plan = TrainPlan(seed=4)
    sizes = _shapes(*[(60 + 3 * n, 100 - n) for n in range(40)])
    ids, epochs = np.arange(40) * 7919 - 3, np.arange(40) % 3
    together = plan(sizes, ids, epochs)
    order = np.random.default_rng(0).permutation(40)
    for whole, shuffled in zip(together, plan(sizes[order], ids[order], epochs[order]), strict=True):
        assert np.array_equal(whole[order], shuffled)
    for n in range(40):
        for whole, alone in zip(together, plan(sizes[n : n + 1], ids[n : n + 1], epochs[n : n + 1]), strict=True):
            assert np.array_equal(whole[n : n + 1], alone)
    for other in (TrainPlan(seed=5)(sizes, ids, epochs), plan(sizes, ids + 1, epochs), plan(sizes, ids, epochs + 1)):
        assert np.mean(np.all(other[1] == together[1], axis=1)) < 0.2


@pytest.mark.parametrize(("height", "width"), [(375, 500), (500, 375), (100, 1000), (64, 64)])
def test_distribution_is_torchvisions(height: int, width: int) -> None:
    """Two-sample Kolmogorov-Smirnov distance of area, ratio and position below its 0.1 % critical value."""
    count = 4000
    start, shape, _ = _draw(TrainPlan(seed=1), height, width, count)
    torch.manual_seed(0)
    image = torch.empty(3, height, width)
    theirs = np.array([RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(count)])
    ours = np.concatenate([start, shape], axis=1)
    critical = 1.95 * math.sqrt(2 / count)
    for name, of in {
        "area": lambda box: box[:, 2] * box[:, 3],
        "ratio": lambda box: box[:, 3] / box[:, 2],
        "centre y": lambda box: box[:, 0] + box[:, 2] / 2,
        "centre x": lambda box: box[:, 1] + box[:, 3] / 2,
    }.items():
        a, b = np.sort(of(ours)), np.sort(of(theirs))
        grid = np.union1d(a, b)
        distance = np.abs(np.searchsorted(a, grid, "right") - np.searchsorted(b, grid, "right")).max() / count
        assert distance < critical, name


def test_mirror_rate() -> None:
    for p in (0.0, 0.5, 1.0):
        flips = _draw(TrainPlan(mirror=p), 50, 50, 4000)[2]
        assert abs(flips.mean() - p) <= 4 * math.sqrt(p * (1 - p) / 4000)


def test_mirror_and_crop_are_uncorrelated() -> None:
    start, shape, mirror = _draw(TrainPlan(), 375, 500, 4000)
    for values in (start[:, 0], start[:, 1], shape[:, 0], shape[:, 1]):
        assert abs(np.corrcoef(values, mirror)[0, 1]) < 4 / math.sqrt(4000)


@pytest.mark.parametrize("height", [1, 2, 3, 7, 1000, 65500])
@pytest.mark.parametrize("width", [1, 2, 3, 7, 1000, 65500])
def test_boxes_are_inside(height: int, width: int) -> None:
    start, shape, _ = _draw(TrainPlan(), height, width, 100)
    assert start.min() >= 0 and shape.min() >= 1
    assert ((start + shape) <= [height, width]).all()
    begin, extent, first, last = EvalPlan(224, 256)(_shapes((height, width)))
    assert begin.min() >= 0 and extent.min() >= 1 and ((begin + extent) <= [height, width]).all()
    assert (first >= 0).all() and (first < last).all() and (last <= extent + 1e-3 * extent).all()


def test_fallback_is_torchvisions() -> None:
    """Images too narrow for any attempt get the central box."""
    for height, width in ((10, 400), (400, 10), (1, 30)):
        start, shape, _ = _draw(TrainPlan(scale=(1.0, 1.0)), height, width, 1)
        torch.manual_seed(0)
        top, left, box_h, box_w = RandomResizedCrop.get_params(
            torch.empty(3, height, width), [1.0, 1.0], [3 / 4, 4 / 3]
        )
        assert [*start[0], *shape[0]] == [top, left, box_h, box_w]


@pytest.mark.parametrize(("height", "width"), [(375, 500), (500, 333), (90, 61), (256, 256), (300, 301), (1200, 80)])
@pytest.mark.parametrize(("size", "resize"), [(224, 256), (64, 64), (33, 40)])
def test_eval_box_is_resize_then_centre_crop(height: int, width: int, size: int, resize: int) -> None:
    """Resampling the planned box with Pillow gives torchvision's pixels within two grey levels."""
    rng = np.random.default_rng(height + width)
    image = Image.fromarray(rng.integers(0, 256, (height, width, 3)).astype(np.uint8))
    expected = np.asarray(CenterCrop(size)(Resize(resize)(image)), np.int64)
    (start,), (shape,), (first,), (last,) = EvalPlan(size, resize)(_shapes((height, width)))
    box = image.crop((start[1], start[0], start[1] + shape[1], start[0] + shape[0]))
    region = tuple(float(edge) for edge in (first[1], first[0], last[1], last[0]))
    got = box.resize((size, size), Image.Resampling.BILINEAR, box=region)
    assert np.abs(np.asarray(got, np.int64) - expected).max() <= 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scale": (0.5, 0.1)}, r"scale=\(0.5, 0.1\): expected two numbers"),
        ({"scale": (0.1, 1.5)}, "above 0 and at most 1"),
        ({"ratio": (0.0, 1.0)}, "ratio="),
        ({"mirror": 1.5}, "mirror=1.5"),
    ],
)
def test_bad_train_plan(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainPlan(**changes)  # type: ignore[arg-type]


def test_bad_eval_plan() -> None:
    with pytest.raises(ValueError, match="resize=200: expected at least size=224"):
        EvalPlan(224, 200)
