"""Position: epochs, early exits, and resuming at any batch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from has_dali.kernels.policy import HideAndSeek
from has_dali.pipelines import ImageLoader, image_loader, stream
from has_dali.pipelines.loader import Batch


def _loader(folder: Path, batch_size: int = 4, **options: object) -> ImageLoader:
    return image_loader(folder, batch_size, **{"train": True, "policy": HideAndSeek((5,)), "size": 16, **options})


def _same(a: list[Batch], b: list[Batch]) -> bool:
    return len(a) == len(b) and all(torch.equal(x[name], y[name]) for x, y in zip(a, b, strict=True) for name in x)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("stop", [0, 1, 3, 6, 7])
def test_resume_gives_the_batches_of_the_uninterrupted_run(image_folder: Path, train: bool, stop: int) -> None:
    options = {} if train else {"train": False, "policy": None}
    whole = _loader(image_folder, **options)
    epochs = [list(whole) for _ in range(3)]
    interrupted = _loader(image_folder, **options)
    list(interrupted)
    state = interrupted.state_dict()
    for done, _ in enumerate(interrupted, start=1):
        if done == stop:
            state = interrupted.state_dict()
            break
    resumed = _loader(image_folder, **options)
    resumed.load_state_dict(json.loads(json.dumps(state)))
    rest = epochs[1][stop:] or epochs[2]  # after the last batch of an epoch comes the next epoch
    assert _same(list(resumed), rest)
    if stop < len(whole):
        assert _same(list(resumed), epochs[2])


def test_state_counts_what_was_handed_out(image_folder: Path) -> None:
    loader = _loader(image_folder, prefetch=4, seed=8)
    assert loader.state_dict() == {"version": 1, "seed": 8, "epoch": 0, "samples": 0}
    batches = iter(loader)
    next(batches), next(batches)
    assert loader.state_dict() == {"version": 1, "seed": 8, "epoch": 0, "samples": 8}
    for _ in batches:
        last = loader.state_dict()
    assert last == loader.state_dict() == {"version": 1, "seed": 8, "epoch": 1, "samples": 0}


def test_resume_with_another_world_size(image_folder: Path) -> None:
    alone = _loader(image_folder, 6)
    batches = list(alone)
    loader = _loader(image_folder, 6)
    next(iter(loader))
    state = loader.state_dict()
    halves = []
    for rank in range(2):
        half = _loader(image_folder, 3, rank=rank, world_size=2)
        half.load_state_dict(state)
        halves.append(list(half))
    for index, batch in enumerate(batches[1:]):
        assert torch.equal(batch["image"], torch.cat([half[index]["image"] for half in halves]))


@pytest.mark.parametrize("images", [10, 3])
@pytest.mark.parametrize("giver", range(4))
def test_any_ranks_evaluation_state_fits_every_rank(image_folder: Path, images: int, giver: int) -> None:
    """The last global batch is short, so the high ranks have one step less than the others."""
    files = sorted(image_folder.rglob("*.jpg"))[:images]
    batch_size = 2 if images == 10 else 1  # of 3 images, rank 3 gets none at all

    def loader(rank: int) -> ImageLoader:
        return image_loader(files, batch_size, train=False, size=16, device="cpu", rank=rank, world_size=4)

    whole = [list(loader(rank)) for rank in range(4)]
    assert len(whole[0]) == len(whole[3]) + 1
    done = 1 if images == 10 else 0
    first = loader(giver)
    batches = iter(first)
    for _ in range(done):
        next(batches)
    state = first.state_dict()
    assert state == {"version": 1, "seed": 0, "epoch": 0, "samples": done * 4 * batch_size}
    for rank in range(4):
        resumed = loader(rank)
        resumed.load_state_dict(state)
        assert _same(list(resumed), whole[rank][done:])
        assert resumed.epoch == 1
        assert _same(list(resumed), whole[rank])


def test_epochs_are_32_bit(image_folder: Path) -> None:
    loader = _loader(image_folder)
    for epoch in (2**32, -1):
        with pytest.raises(ValueError, match=f"epoch={epoch}: expected an integer from 0 to 4294967295"):
            loader.set_epoch(epoch)
    with pytest.raises(ValueError, match=r"state\['epoch'\]=4294967296: expected"):
        loader.load_state_dict({"version": 1, "seed": 0, "epoch": 2**32, "samples": 0})
    loader.set_epoch(2**32 - 1)
    assert len(list(loader)) == len(loader)
    assert not loader._stream._feeder.scheduled  # working ahead stopped at the last epoch
    with pytest.raises(ValueError, match="epoch=4294967296"):
        iter(loader)


def test_leaving_a_loop_early_starts_the_next_epoch(image_folder: Path) -> None:
    whole = _loader(image_folder)
    epochs = [list(whole) for _ in range(3)]
    loader = _loader(image_folder)
    for count in (1, 5):
        for _, _batch in zip(range(count), loader, strict=False):
            pass
    assert loader.epoch == 1
    assert _same(list(loader), epochs[2])


def test_loading_a_state_in_the_middle_of_a_loop(image_folder: Path) -> None:
    whole = list(_loader(image_folder))
    loader = _loader(image_folder)
    batches = iter(loader)
    next(batches)
    state = loader.state_dict()
    next(batches), next(batches)
    loader.load_state_dict(state)
    assert _same(list(loader), whole[1:])


def test_set_epoch_keeps_a_loaded_position(image_folder: Path) -> None:
    whole = list(_loader(image_folder))
    loader = _loader(image_folder)
    loader.load_state_dict({"version": 1, "seed": 0, "epoch": 0, "samples": 8})
    for epoch in range(loader.epoch, 1):
        loader.set_epoch(epoch)
        assert _same(list(loader), whole[2:])


def test_iterators_without_a_batch_skip_no_epoch(image_folder: Path) -> None:
    loader = _loader(image_folder)
    iter(loader)
    assert _same(list(loader), list(_loader(image_folder)))


def test_two_loops_at_once(image_folder: Path) -> None:
    loader = _loader(image_folder)
    older = iter(loader)
    next(older)
    next(iter(loader))
    with pytest.raises(RuntimeError, match="was ended by a newer one"):
        next(older)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 2}, "version is 2, this loader's is 1"),
        ({"seed": 1}, "seed is 1, this loader's is 0"),
        ({"samples": 9}, "samples=9 is no batch boundary"),
        ({"samples": 28}, "samples=28 is no batch boundary"),
        ({"samples": -4}, "samples"),
        ({"epoch": None}, "epoch"),
    ],
)
def test_states_that_do_not_fit(image_folder: Path, changes: dict[str, object], message: str) -> None:
    state = {"version": 1, "seed": 0, "epoch": 0, "samples": 4, **changes}
    with pytest.raises((ValueError, TypeError), match=message):
        _loader(image_folder).load_state_dict(state)


def test_an_interrupt_keeps_ids_and_images_together(image_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = list(_loader(image_folder))
    loader = _loader(image_folder)
    batches = iter(loader)
    next(batches)
    state = loader.state_dict()

    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(stream.torch.utils.dlpack, "from_dlpack", interrupted)  # the output is taken from DALI's queue
        with pytest.raises(KeyboardInterrupt):
            next(batches)
    loader.load_state_dict(state)
    assert _same(list(loader), whole[1:])
