"""Masks as random variables: stated bounds, wide enough for one false alarm in a million runs (seeds are fixed)."""

from __future__ import annotations

import math

import numpy as np

from has_dali.kernels import cpu, reference
from has_dali.kernels.cpu_grid import draw_grid
from has_dali.kernels.policy import HideAndSeek

Z = 5.0  # standard deviations: a fair coin strays further once in 1.7 million


def cells(policy: HideAndSeek, ids: np.ndarray, epoch: int, side: int) -> np.ndarray:
    """(N, side, side) bool, one entry per cell: a picture with one pixel per cell has the same words."""
    batch = np.zeros((len(ids), side, side, 1), np.uint8)
    return cpu.hide(batch, policy.with_(patch_sizes=1), ids, epoch, 1, "NHWC", batch)[..., 0].astype(bool)


def assert_share(hits: np.ndarray, p: float) -> None:
    bound = Z * math.sqrt(p * (1 - p) / hits.size)
    assert abs(hits.mean() - p) <= bound, (hits.mean(), p, bound)


def test_hidden_share_is_p_hide() -> None:
    for p in (0.25, 0.33, 0.5, 0.66, 0.75):
        hidden = cells(HideAndSeek(p_hide=p, seed=11), np.arange(5000), 3, 14)
        assert_share(hidden, p)
        assert_share(hidden[:, 13, 13], p)  # the last cell has its own coin


def test_every_pixel_is_hidden_with_p_hide_also_in_cut_cells() -> None:
    masks = reference.mask(HideAndSeek(5, p_hide=0.4, seed=2), np.arange(3000), 0, 7, 12)
    for y, x in ((0, 0), (6, 11), (5, 0), (0, 10)):
        assert_share(masks[:, y, x], 0.4)


def grids(policy: HideAndSeek, count: int) -> np.ndarray:
    """(count, 3) patch size, offset y and offset x that the CPU kernel draws."""
    words = cpu.policy_words(policy)
    sizes, seed, apply, offset = words
    return np.array([draw_grid(seed, apply, offset, sizes, np.uint64(i), np.uint64(1)) for i in range(count)])


def test_patch_sizes_are_equally_likely() -> None:
    sizes = (0, 16, 32, 44, 56)
    drawn = grids(HideAndSeek(sizes, seed=9), 10_000)[:, 0]
    counts = np.array([(drawn == size).sum() for size in sizes])
    assert counts.sum() == 10_000
    assert ((counts - 2000) ** 2 / 2000).sum() < 33.4  # 4 degrees of freedom, one in a million


def test_share_of_augmented_images_is_p_apply() -> None:
    hidden = cells(HideAndSeek(p_apply=0.5, p_hide=1.0, seed=5), np.arange(20_000), 0, 2)
    assert (hidden.all(axis=(1, 2)) == hidden.any(axis=(1, 2))).all()
    assert_share(hidden[:, 0, 0], 0.5)


def test_random_offsets_are_uniform_and_independent() -> None:
    drawn = grids(HideAndSeek(8, random_offset=True, seed=1), 16_000)  # type: ignore[arg-type]
    for axis in (1, 2):
        counts = np.bincount(drawn[:, axis], minlength=8)
        assert len(counts) == 8
        assert ((counts - 2000) ** 2 / 2000).sum() < 40.5  # 7 degrees of freedom, one in a million
    pairs = np.bincount(drawn[:, 1] * 8 + drawn[:, 2], minlength=64)
    assert ((pairs - 250) ** 2 / 250).sum() < 130  # 63 degrees of freedom, one in a million


def test_cells_images_and_epochs_are_uncorrelated() -> None:
    policy, ids = HideAndSeek(seed=21), np.arange(4000)
    now = cells(policy, ids, 0, 14) * 2.0 - 1
    later = cells(policy, ids, 1, 14) * 2.0 - 1
    other_seed = cells(policy.with_(seed=22), ids, 0, 14) * 2.0 - 1
    pairs = {
        "right neighbour": (now[:, :, :-1], now[:, :, 1:]),
        "lower neighbour": (now[:, :-1], now[:, 1:]),
        "next image": (now[:-1], now[1:]),
        "next epoch": (now, later),
        "next seed": (now, other_seed),
        "four cells on": (now.reshape(4000, -1)[:, :-4], now.reshape(4000, -1)[:, 4:]),
    }
    for name, (a, b) in pairs.items():
        assert abs((a * b).mean()) <= Z / math.sqrt(a.size), name
