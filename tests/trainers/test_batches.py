"""Loaders as a trainer sees them: the time that they were waited for, and sizes that follow the epochs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from has_dali.pipelines.arrays import ArraySource
from has_dali.pipelines.loader import ImageLoader, image_loader
from has_dali.trainers import batches
from has_dali.trainers.batches import ProgressiveLoader, TimedBatches, joined_reports

SIZES = [[0, 8], [1, 12], [3, 16]]


@pytest.fixture(scope="module")
def source() -> ArraySource:
    rng = np.random.default_rng(0)
    return ArraySource.from_images(rng.integers(0, 256, (20, 16, 16, 3), np.uint8), np.arange(20) % 2, ("a", "b"))


@pytest.fixture
def loader(source: ArraySource) -> ProgressiveLoader:
    return ProgressiveLoader(lambda size: make(source, size), SIZES)


def make(source: ArraySource, size: int) -> ImageLoader:
    return image_loader(source, 4, train=True, size=size, device="cpu", seed=3, threads=1)


class Clock:
    """Time that passes only where a test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(batches, "time", SimpleNamespace(perf_counter=lambda: self.now))


class Slow:
    """Batches after known delays."""

    def __init__(self, clock: Clock | None, seconds: list[float]) -> None:
        self.clock, self.seconds = clock, seconds
        self.epochs: list[int] = []

    def __len__(self) -> int:
        return len(self.seconds)

    def __iter__(self) -> Iterator[int]:
        for i, seconds in enumerate(self.seconds):
            if self.clock is not None:
                self.clock.now += seconds
            yield i

    def set_epoch(self, epoch: int) -> None:
        self.epochs.append(epoch)


def test_waiting_is_measured_and_the_first_batch_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    timed = TimedBatches(Slow(clock, [8.0, 0.5, 0.25]))
    got = []
    for batch in timed:
        clock.now += 2  # the reader's own work is not waiting
        got.append(batch)
    assert got == [0, 1, 2] and len(timed) == 3 and timed.batches == 3
    assert timed.first == 8 and timed.waited == 0.75
    for _ in timed:  # the start of a later epoch counts as waiting
        pass
    assert timed.first == 8 and timed.waited == 0.75 + 8.75 and timed.batches == 6


def test_the_epoch_is_asked_for_when_the_first_batch_is() -> None:
    epoch = [0]
    slow = Slow(None, [0.0])
    timed = TimedBatches(slow, lambda: epoch[0])
    loop = iter(timed)
    epoch[0] = 7  # a trainer makes the iterator before it has loaded its checkpoint
    assert slow.epochs == []
    next(loop)
    assert slow.epochs == [7]


def test_state_goes_through(source: ArraySource) -> None:
    timed = TimedBatches(make(source, 8))
    loop = iter(timed)
    next(loop)
    state = timed.state_dict()
    assert (state["epoch"], state["samples"]) == (0, 4) and state == timed.loader.state_dict()
    rest = [batch["id"].tolist() for batch in loop]
    again = TimedBatches(make(source, 8))
    again.load_state_dict(state)
    assert [batch["id"].tolist() for batch in again] == rest and len(rest) == 4


def test_reports_go_through_and_add_up(loader: ProgressiveLoader, source: ArraySource) -> None:
    """Of all sizes together."""
    timed = TimedBatches(loader, lambda: timed.batches // 5)
    for _ in range(2):
        for _ in timed:
            pass
    assert timed.report() == {"batches": 10, "samples": 40, "replaced": 0, "broken": []}
    a, b = {"id": 3, "name": "a", "reason": "x"}, {"id": 7, "name": "b", "reason": "y"}
    reports = [{"batches": 2, "samples": 8, "replaced": 1, "broken": broken} for broken in ([b], [a, b], [])]
    assert joined_reports(reports) == {"batches": 6, "samples": 24, "replaced": 3, "broken": [a, b]}


def ids_and_images(loader: Any) -> list[tuple[list[int], torch.Tensor]]:
    return [(batch["id"].tolist(), batch["image"]) for batch in loader]


def equal(a: list[tuple[list[int], torch.Tensor]], b: list[tuple[list[int], torch.Tensor]]) -> bool:
    return len(a) == len(b) and all(i == j and torch.equal(x, y) for (i, x), (j, y) in zip(a, b, strict=True))


def test_the_size_follows_the_epoch_and_the_order_does_not_care(loader: ProgressiveLoader, source: ArraySource) -> None:
    assert [loader.side(epoch) for epoch in range(5)] == [8, 12, 12, 16, 16] and len(loader) == 5
    plain = make(source, 12)
    for epoch in range(5):
        ours, theirs = ids_and_images(loader), ids_and_images(plain)
        assert {image.shape[-1] for _, image in ours} == {[8, 12, 12, 16, 16][epoch]}
        assert [ids for ids, _ in ours] == [ids for ids, _ in theirs]
        assert equal(ours, theirs) == (epoch in (1, 2))


@pytest.mark.parametrize("samples", [0, 8])
def test_resuming_within_a_later_size(loader: ProgressiveLoader, source: ArraySource, samples: int) -> None:
    whole = [ids_and_images(loader) for _ in range(4)]
    state = {**ProgressiveLoader(lambda size: make(source, size), SIZES).state_dict(), "epoch": 2, "samples": samples}
    again = ProgressiveLoader(lambda size: make(source, size), SIZES)
    again.load_state_dict(state)
    assert again.state_dict() == state
    assert equal(ids_and_images(again), whole[2][samples // 4 :])
    assert equal(ids_and_images(again), whole[3])


def test_state_in_the_middle_of_a_size(loader: ProgressiveLoader, source: ArraySource) -> None:
    for _ in loader:
        pass
    loop = iter(loader)
    next(loop), next(loop)
    state = loader.state_dict()
    assert (state["epoch"], state["samples"]) == (1, 8)
    rest = ids_and_images(loop)
    again = ProgressiveLoader(lambda size: make(source, size), SIZES)
    again.load_state_dict(state)
    assert equal(ids_and_images(again), rest) and len(rest) == 3


def test_states_of_other_tables_are_refused(loader: ProgressiveLoader, source: ArraySource) -> None:
    """Whatever the size under way: the table tells one run from another."""
    for _ in loader:
        pass
    for _, _batch in zip(range(2), loader, strict=False):
        pass
    state = json.loads(json.dumps(loader.state_dict()))
    assert state["settings"]["sizes"] == SIZES
    for other in ([[0, 8], [1, 12]], [[0, 8], [2, 12], [3, 16]]):
        with pytest.raises(ValueError, match=r"state: sizes is \[\[0, 8\], \[1, 12\], \[3, 16\]\], this loader's is"):
            ProgressiveLoader(lambda size: make(source, size), other).load_state_dict(state)
    with pytest.raises(ValueError, match=r"state: sizes is .*, this loader's is missing"):
        make(source, 8).load_state_dict(state)


def test_a_trainer_sets_the_epoch(loader: ProgressiveLoader) -> None:
    loader.set_epoch(3)
    assert next(iter(loader))["image"].shape[-1] == 16
    timed = TimedBatches(loader, lambda: 1)
    assert next(iter(timed))["image"].shape[-1] == 12


def test_a_loader_of_each_size_is_made_once(source: ArraySource) -> None:
    made = []

    def counted(size: int) -> ImageLoader:
        made.append(size)
        return make(source, size)

    loader = ProgressiveLoader(counted, SIZES)
    for _ in range(5):
        for _ in loader:
            pass
    assert made == [8, 12, 16]


@pytest.mark.parametrize(
    "sizes", [[[1, 8]], [[0, 8], [0, 12]], [[0, 8], [4, 12], [2, 16]], [[0, 8, 3]], [[0]], [[0, 8], []]]
)
def test_malformed_tables(sizes: list[list[int]], source: ArraySource) -> None:
    with pytest.raises(
        ValueError, match=r"loader.sizes=.*: expected \[\[0, side\], \[epoch, side\], ...\] with rising"
    ):
        ProgressiveLoader(lambda size: make(source, size), sizes)
