"""Maps of crops and pictures, against loops written here and OpenCV's interpolation."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from has_dali.trainers.metrics.cam import (
    Merge,
    crop_places,
    crop_probabilities,
    crop_size,
    divided_by_max,
    merged_crops,
    picture_maps,
    ten_crops,
    upsampled,
)


def test_places_of_the_paper() -> None:
    assert crop_size(256) == 224 and crop_size(73) == 64
    assert crop_places(256, 224) == [(0, 0), (0, 32), (32, 0), (32, 32), (16, 16)]
    with pytest.raises(ValueError, match="crop=9: expected 1 to 8"):
        crop_places(8, 9)


def test_ten_crops_by_hand() -> None:
    image = torch.arange(9.0).reshape(1, 1, 3, 3)
    crops = ten_crops(image, 2)[0, :, 0]
    assert crops[:5].tolist() == [
        [[0, 1], [3, 4]],
        [[1, 2], [4, 5]],
        [[3, 4], [6, 7]],
        [[4, 5], [7, 8]],
        [[0, 1], [3, 4]],
    ]
    assert torch.equal(crops[5:], crops[:5].flip(-1))


def slow_merge(maps: np.ndarray, big: int, crop: int, merge: Merge) -> np.ndarray:
    """One crop at a time, with OpenCV: enlarge, un-mirror, paste, add."""
    far = big - crop
    places = [(0, 0), (0, far), (far, 0), (far, far), (far // 2, far // 2)]
    total, covered = np.zeros((big, big)), np.zeros((big, big))
    for k in range(10):
        enlarged = cv2.resize(maps[k], (crop, crop), interpolation=cv2.INTER_CUBIC).astype(np.float64)
        if k >= 5:
            enlarged = enlarged[:, ::-1]
        y, x = places[k % 5]
        total[y : y + crop, x : x + crop] += np.abs(enlarged) if merge == "sum_abs" else enlarged
        covered[y : y + crop, x : x + crop] += 1
    return total if merge == "sum_abs" else total / covered


@pytest.mark.parametrize("merge", ["sum_abs", "mean_by_coverage"])
@pytest.mark.parametrize(("big", "crop", "side"), [(73, 64, 11), (40, 35, 4), (16, 16, 5), (21, 13, 1)])
def test_merging_is_the_slow_loop(merge: Merge, big: int, crop: int, side: int) -> None:
    torch.manual_seed(0)
    maps = torch.randn(3, 10, 2, side, side)
    merged = merged_crops(maps, big, crop, merge)
    assert merged.shape == (3, 2, big, big)
    for n in range(3):
        for m in range(2):
            expected = slow_merge(maps[n, :, m].numpy(), big, crop, merge)
            np.testing.assert_allclose(merged[n, m].numpy(), expected, atol=2e-5)


def test_where_crops_overlap_the_sum_is_larger_and_the_mean_is_not() -> None:
    ones = torch.ones(1, 10, 1, 2, 2)
    assert merged_crops(ones, 6, 4, "mean_by_coverage").allclose(torch.ones(1, 1, 6, 6))
    # A corner is in one crop and its mirror, the middle in five and theirs.
    total = merged_crops(ones, 6, 4)[0, 0]
    assert total[0, 0] == 2 and total[2, 2] == 10 and total[0, 2] == 4
    signed = -ones
    assert merged_crops(signed, 6, 4).min() == 2 and merged_crops(signed, 6, 4, "mean_by_coverage").max() == -1


def test_a_mirrored_crop_is_turned_back() -> None:
    """A peak left in a crop is right in its mirror; both land on the same pixels."""
    maps = torch.zeros(1, 10, 1, 4, 4)
    maps[0, 0, 0, 1, 0] = 1
    once = merged_crops(maps, 4, 4, "mean_by_coverage")
    maps[0, 5, 0, 1, 3] = 1
    assert torch.equal(merged_crops(maps, 4, 4, "mean_by_coverage"), 2 * once)


def test_wrong_maps() -> None:
    with pytest.raises(ValueError, match=r"expected \(N, 10, classes, height, width\)"):
        merged_crops(torch.zeros(1, 5, 1, 2, 2), 8)
    with pytest.raises(ValueError, match="merge='mean'"):
        merged_crops(torch.zeros(1, 10, 1, 2, 2), 8, merge="mean")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="do not cover 8 pixels"):
        merged_crops(torch.zeros(1, 10, 1, 2, 2), 8, 2, "mean_by_coverage")


def test_enlarging_in_parts_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    maps = torch.randn(7, 2, 5, 5)
    whole = upsampled(maps, (9, 13))
    monkeypatch.setattr("has_dali.trainers.metrics.cam._CHUNK", 300)
    assert torch.equal(upsampled(maps, (9, 13)), whole)
    same = upsampled(maps, (5, 5))
    same += 1
    assert torch.equal(same, maps + 1)  # and was no view


def test_picture_maps_follow_each_size() -> None:
    torch.manual_seed(1)
    maps = torch.rand(4, 2, 6, 6)
    sizes = [(20, 30), (20, 30), (7, 5), (20, 30)]
    found = list(picture_maps(maps, sizes))
    for picture, size, small in zip(found, sizes, maps.numpy(), strict=True):
        assert picture.shape == (2, *size) and picture.dtype == np.float32
        for m in range(2):
            expected = cv2.resize(small[m], size[::-1], interpolation=cv2.INTER_CUBIC)
            np.testing.assert_allclose(picture[m], expected / expected.max(), atol=1e-5)
            assert picture[m].max() == 1
    with pytest.raises(ValueError, match="one pair for each of 4 pictures, got 3"):
        list(picture_maps(maps, sizes[:3]))


def test_maps_without_a_maximum() -> None:
    maps = torch.tensor(
        [[[4.0, -2.0]], [[3.0, 3.0]], [[0.0, 0.0]], [[-1.0, -2.0]], [[1.0, torch.nan]], [[1.0, torch.inf]]]
    )
    expected = [[[1, -0.5]], [[1, 1]], [[0, 0]], [[0, 0]], [[0, 0]], [[0, 0]]]
    assert divided_by_max(maps).tolist() == expected


def test_probability_is_the_mean_of_the_softmax() -> None:
    """A single certain crop does not outweigh nine that lean the other way, as a mean of logits would let it."""
    logits = torch.tensor([[[100.0, 0.0]] + [[0.0, 1.0]] * 9])
    assert crop_probabilities(logits).argmax(-1).item() == 1 and logits.mean(1).argmax(-1).item() == 0
    assert crop_probabilities(logits).sum().item() == pytest.approx(1)
