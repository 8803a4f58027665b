"""The sampler: a permutation by (seed, epoch), and batches that do not depend on the world size."""

from __future__ import annotations

import numpy as np
import pytest

from has_dali.kernels import reference
from has_dali.pipelines import Sampler
from has_dali.pipelines.sampler import SHUFFLE_BLOCK


def test_order_sorts_philox_words_of_the_reference() -> None:
    sampler = Sampler(50, 5, train=True, seed=-3)
    keys = []
    for sample_id in range(50):
        high, low, _, _ = (int(word) for word in reference.words(-3, 7, sample_id, SHUFFLE_BLOCK)[0])
        keys.append((high << 32) | low)
    assert sampler.order(7).tolist() == sorted(range(50), key=keys.__getitem__)


def test_order_changes_with_seed_and_epoch_only() -> None:
    orders = {
        (seed, epoch): tuple(Sampler(200, 8, train=True, seed=seed).order(epoch)) for seed in (0, 1) for epoch in (0, 1)
    }
    assert len(set(orders.values())) == 4
    assert tuple(Sampler(200, 3, train=True, seed=1, rank=1, world_size=2).order(1)) == orders[1, 1]


def test_order_is_uniform() -> None:
    """Mean position of each id over many epochs is that of a uniform permutation, within 5 standard errors."""
    count, epochs = 64, 400
    sampler = Sampler(count, 8, train=True)
    positions = np.mean([np.argsort(sampler.order(epoch)) for epoch in range(epochs)], axis=0)
    error = np.sqrt((count**2 - 1) / 12 / epochs)
    assert np.abs(positions - (count - 1) / 2).max() < 5 * error


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("count", [24, 29, 31])
def test_global_batches_are_the_same_for_every_world_size(train: bool, count: int) -> None:
    epoch = 3
    alone = Sampler(count, 12, train=train)
    whole = [alone.ids(epoch, index).tolist() for index in range(len(alone))]
    for world_size in (2, 3, 4):
        ranks = [
            Sampler(count, 12 // world_size, train=train, rank=rank, world_size=world_size)
            for rank in range(world_size)
        ]
        for index, expected in enumerate(whole):
            got = [i for s in ranks if index < len(s) for i in s.ids(epoch, index).tolist()]
            assert got == expected


def test_train_drops_a_remainder_that_rotates() -> None:
    sampler = Sampler(10, 4, train=True)
    assert len(sampler) == 2 and sampler.samples_per_epoch == 8
    dropped = []
    for epoch in range(20):
        taken = [i for index in range(2) for i in sampler.ids(epoch, index).tolist()]
        assert len(set(taken)) == 8
        dropped.append(frozenset(range(10)) - frozenset(taken))
    assert len(set(dropped)) > 5


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize("count", [1, 5, 8, 9, 11, 16])
def test_eval_covers_each_sample_once(count: int, world_size: int) -> None:
    seen: list[int] = []
    for rank in range(world_size):
        sampler = Sampler(count, 2, train=False, rank=rank, world_size=world_size)
        for index in range(len(sampler)):
            ids = sampler.ids(0, index)
            assert 1 <= len(ids) <= 2
            seen += ids.tolist()
    assert sorted(seen) == list(range(count))


def test_ids_outside_the_epoch() -> None:
    with pytest.raises(IndexError, match="index=2: expected 0 to 1"):
        Sampler(10, 5, train=True).ids(0, 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "batch_size=0: expected an integer of at least 1"),
        ({"rank": 2, "world_size": 2}, "rank=2: expected 0 to world_size - 1 = 1"),
        ({"rank": -1}, "rank=-1"),
        ({"world_size": 0}, "world_size=0"),
        ({"batch_size": 11}, "does not fit into 10 training samples"),
        ({"batch_size": 4, "world_size": 3}, "a global batch of 12 samples"),
        ({"seed": 2**64}, "seed=18446744073709551616"),
    ],
)
def test_bad_numbers(changes: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sampler(**{"count": 10, "batch_size": 2, "train": True, **changes})


def test_bad_type() -> None:
    with pytest.raises(TypeError, match=r"batch_size=2\.5"):
        Sampler(10, 2.5, train=True)  # type: ignore[arg-type]
