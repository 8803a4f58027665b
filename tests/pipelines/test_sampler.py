"""The sampler: a permutation by (seed, epoch), and batches that do not depend on the world size."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from has_dali.kernels import reference
from has_dali.pipelines import Sampler
from has_dali.pipelines.sampler import PADDING, SHUFFLE_BLOCK, labels_of, shown_ids


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


_WORLDS = st.integers(1, 8)


def _ranks(count: int, batch_size: int, world_size: int, train: bool) -> list[Sampler]:
    return [Sampler(count, batch_size, train=train, rank=rank, world_size=world_size) for rank in range(world_size)]


@given(st.integers(1, 200), st.integers(1, 12), _WORLDS)
def test_evaluation_loses_and_repeats_nothing(count: int, batch_size: int, world_size: int) -> None:
    """All ranks have as many batches of the same sizes; a process alone never pads, others less than a sample each."""
    ranks = _ranks(count, batch_size, world_size, train=False)
    batches = [[sampler.ids(5, index) for index in range(len(sampler))] for sampler in ranks]
    sizes = {tuple(len(ids) for ids in part) for part in batches}
    assert len(sizes) == 1 and min(sizes.copy().pop()) >= 1 and max(sizes.pop()) <= batch_size
    ids = np.concatenate([ids for part in batches for ids in part])
    assert sorted(ids[ids != PADDING].tolist()) == list(range(count))
    padded = int((ids == PADDING).sum())
    assert padded < world_size and (world_size > 1 or not padded)
    assert all((ids[:-1] != PADDING).all() for part in batches for ids in part)  # at most one, at the end


@given(st.integers(1, 200), st.integers(1, 12), _WORLDS, st.integers(0, 3))
def test_training_repeats_nothing_and_drops_less_than_a_global_batch(
    count: int, batch_size: int, world_size: int, epoch: int
) -> None:
    assume(count >= batch_size * world_size)
    ranks = _ranks(count, batch_size, world_size, train=True)
    assert {len(sampler) for sampler in ranks} == {count // (batch_size * world_size)}
    ids = np.concatenate([sampler.ids(epoch, index) for sampler in ranks for index in range(len(sampler))])
    assert len(set(ids.tolist())) == len(ids) == ranks[0].samples_per_epoch
    assert ids.min() >= 0 and ids.max() < count
    assert count - len(ids) < batch_size * world_size


@given(st.integers(1, 120), st.sampled_from([1, 2, 3, 4, 6]), st.integers(1, 4), st.booleans())
def test_global_batches_are_the_same_for_every_world_size(count: int, worlds: int, share: int, train: bool) -> None:
    """The same samples in the same order, whatever number of processes they are dealt out to."""
    whole = 12 * share
    assume(not train or count >= whole)
    alone = Sampler(count, whole, train=train)
    ranks = _ranks(count, whole // worlds, worlds, train)
    assert {len(sampler) for sampler in ranks} == {len(alone)}
    for index in range(len(alone)):
        ids = np.concatenate([sampler.ids(3, index) for sampler in ranks])
        assert ids[ids != PADDING].tolist() == alone.ids(3, index).tolist()


def test_labels_of_padding() -> None:
    ids = np.array([2, 0, -1])
    assert shown_ids(ids).tolist() == [2, 0, 0] and labels_of(np.array([5, 6, 7]), ids).tolist() == [7, 5, -1]


def test_train_drops_a_remainder_that_rotates() -> None:
    sampler = Sampler(10, 4, train=True)
    assert len(sampler) == 2 and sampler.samples_per_epoch == 8
    dropped = []
    for epoch in range(20):
        taken = [i for index in range(2) for i in sampler.ids(epoch, index).tolist()]
        assert len(set(taken)) == 8
        dropped.append(frozenset(range(10)) - frozenset(taken))
    assert len(set(dropped)) > 5
    assert frozenset().union(*dropped) == frozenset(range(10))  # nobody is left out for long


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
