"""Class-balanced draws: the stated rule, its statistics, keys, and independence of the world size."""

from __future__ import annotations

import math

import numpy as np
import pytest

from has_dali.kernels import reference
from has_dali.pipelines import BalancedSampler, Sampler
from has_dali.pipelines.sampler import BALANCED_BLOCK, MAX_EPOCH

# Class 3 has one image, class 5 two, class 9 a hundred; labels are mixed and have gaps.
LABELS = np.random.default_rng(0).permutation(np.repeat([3, 5, 9], [1, 2, 100]))


def test_draws_follow_the_stated_rule() -> None:
    sampler = BalancedSampler(LABELS, 4, steps=25, seed=-3)
    images = [np.flatnonzero(label == LABELS) for label in (3, 5, 9)]
    for i, drawn in enumerate(sampler.order(7).tolist()):
        w0, w1, _, _ = (int(word) for word in reference.words(-3, 7, i, BALANCED_BLOCK)[0])
        of_class = images[w0 * 3 >> 32]
        assert drawn == of_class[w1 * len(of_class) >> 32]


def test_classes_are_equally_likely_and_so_are_the_images_of_a_class() -> None:
    """Counts within 5 standard errors of a binomial: a class 1/3, an image of class 9 1/300."""
    sampler = BalancedSampler(LABELS, 100, steps=600, seed=1)
    draws = np.concatenate([sampler.order(0), sampler.order(1)])
    n = len(draws)
    for label in (3, 5, 9):
        assert abs((LABELS[draws] == label).sum() - n / 3) < 5 * math.sqrt(n * 2 / 9)
    for label, share in ((5, 1 / 6), (9, 1 / 300)):
        counts = np.bincount(draws, minlength=len(LABELS))[label == LABELS]
        assert np.abs(counts - n * share).max() < 5 * math.sqrt(n * share * (1 - share))
    same_next = (LABELS[draws[1:]] == LABELS[draws[:-1]]).mean()
    assert abs(same_next - 1 / 3) < 5 * math.sqrt(2 / 9 / n)  # one draw says nothing about the next


def test_keys_hold_id_and_draw() -> None:
    sampler = BalancedSampler(LABELS, 5, steps=6, rank=1, world_size=2)
    seen = []
    for index in range(6):
        keys, ids = sampler.keys(3, index), sampler.ids(3, index)
        assert (keys & 0xFFFFFFFF).tolist() == ids.tolist()
        assert (keys >> 32).tolist() == list(range(10 * index + 5, 10 * index + 10))
        seen += keys.tolist()
    assert len(set(seen)) == 30 > len({key & 0xFFFFFFFF for key in seen})
    shuffled = Sampler(30, 5, train=True)
    assert shuffled.keys(3, 2).tolist() == shuffled.ids(3, 2).tolist()


def test_pure_function_of_seed_epoch_and_position() -> None:
    orders = {
        (seed, epoch): tuple(BalancedSampler(LABELS, 8, steps=9, seed=seed).order(epoch))
        for seed in (0, 1)
        for epoch in (0, 1)
    }
    assert len(set(orders.values())) == 4
    longer = BalancedSampler(LABELS, 3, steps=50, seed=1, rank=1, world_size=2)
    assert tuple(longer.order(1)[:72]) == orders[1, 1]  # a longer epoch begins like a shorter one


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_global_batches_are_the_same_for_every_world_size(world_size: int) -> None:
    alone = BalancedSampler(LABELS, 12, steps=5)
    ranks = [
        BalancedSampler(LABELS, 12 // world_size, steps=5, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    for index in range(5):
        assert np.array_equal(alone.keys(2, index), np.concatenate([rank.keys(2, index) for rank in ranks]))


def test_counts_and_what_follows() -> None:
    sampler = BalancedSampler(LABELS, 12, steps=5, world_size=2)
    assert len(sampler) == 5 and sampler.train
    assert sampler.global_batch == 24 and sampler.samples_per_epoch == 120
    assert sampler.following((2, 3)) == (2, 4) and sampler.following((2, 4)) == (3, 0)
    assert sampler.following((MAX_EPOCH, 4)) is None
    assert Sampler(10, 5, train=False).following((0, 1)) is None
    with pytest.raises(IndexError, match="index=5: expected 0 to 4"):
        sampler.keys(0, 5)


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"steps": 0}, ValueError, "steps=0: expected an integer of at least 1"),
        ({"steps": 1.5}, TypeError, r"steps=1\.5"),
        ({"steps": 2**31}, ValueError, r"steps=2147483648: .* at most 2\*\*31 of each fit a key"),
        ({"batch_size": 0}, ValueError, "batch_size=0"),
        ({"world_size": 0}, ValueError, "world_size=0"),
        ({"rank": 1}, ValueError, "rank=1"),
        ({"seed": 2**64}, ValueError, "seed="),
        ({"labels": np.array([0, -1])}, ValueError, "labels: drawing by class needs a label for every image"),
        ({"labels": np.array([], np.int64)}, ValueError, "labels: drawing by class"),
    ],
)
def test_bad_numbers(changes: dict[str, object], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        BalancedSampler(**{"labels": LABELS, "batch_size": 2, "steps": 3, **changes})  # type: ignore[arg-type]
