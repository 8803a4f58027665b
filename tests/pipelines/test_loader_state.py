"""Position: epochs, early exits, and resuming at any batch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from has_dali.kernels.policy import HideAndSeek
from has_dali.pipelines import FileSource, ImageLoader, image_loader, stream
from has_dali.pipelines.loader import Batch
from has_dali.pipelines.policy_schedule import PolicySchedule


def _loader(data: Any, batch_size: int = 4, **options: Any) -> ImageLoader:
    defaults = {"train": True, "policy": HideAndSeek((5,)), "size": 16, "batch_size": batch_size}
    return image_loader(data, **{**defaults, **options})


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


def _place(loader: ImageLoader) -> tuple[int, int]:
    state = loader.state_dict()
    return state["epoch"], state["samples"]


def test_state_counts_what_was_handed_out(image_folder: Path) -> None:
    loader = _loader(image_folder, prefetch=4, seed=8)
    assert _place(loader) == (0, 0)
    batches = iter(loader)
    next(batches), next(batches)
    assert _place(loader) == (0, 8)
    for _ in batches:
        last = _place(loader)
    assert last == _place(loader) == (1, 0)


def test_what_a_state_holds(image_folder: Path) -> None:
    """All of it survives JSON, and a loader made alike takes it."""
    policy = PolicySchedule(HideAndSeek((5,), seed=3), p_hide=[0.1, 0.2], p_apply=lambda epoch: 1 / (epoch + 1))
    loader = _loader(image_folder, seed=2**63, policy=policy, multi_view=2, world_size=2, rank=1)
    state = loader.state_dict()
    assert set(state) == {"version", "seed", "epoch", "samples", "data", "settings", "fingerprint"}
    assert state["version"] == 2 and state["seed"] == 2**63
    assert state["data"] == loader.source.fingerprint() and len(state["fingerprint"]) == 16
    assert state["settings"]["policy"]["p_hide"] == [0.1, 0.2] and state["settings"]["global_batch"] == 8
    again = json.loads(json.dumps(state))
    assert again == state
    _loader(image_folder, seed=2**63, policy=policy, multi_view=2, world_size=2).load_state_dict(again)


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
    files = sorted(image_folder.rglob("*.jpg"))[:images]
    batch_size = 2 if images == 10 else 1  # of 3 images, rank 3 gets none: padding alone

    def loader(rank: int) -> ImageLoader:
        return image_loader(files, batch_size, train=False, size=16, device="cpu", rank=rank, world_size=4)

    whole = [list(loader(rank)) for rank in range(4)]
    assert len({len(part) for part in whole}) == 1
    assert whole[3][-1]["id"].tolist() == [-1] == whole[3][-1]["label"].tolist()
    done = 1 if images == 10 else 0
    first = loader(giver)
    batches = iter(first)
    for _ in range(done):
        next(batches)
    state = first.state_dict()
    assert _place(first) == (0, done * 4 * batch_size)
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
        loader.load_state_dict({**loader.state_dict(), "epoch": 2**32})
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
    loader.load_state_dict({**loader.state_dict(), "samples": 8})
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
        ({"version": 1}, "version is 1, this loader's is 2; it cannot be used here"),
        ({"seed": 1}, "seed is 1, this loader's is 0"),
        ({"samples": 9}, "samples=9 is no batch boundary"),
        ({"samples": 28}, "samples=28 is no batch boundary"),
        ({"samples": -4}, "samples"),
        ({"epoch": None}, "epoch"),
        ({"fingerprint": "0"}, "the fingerprint does not belong to the rest of it"),
        ({"settings": {}}, "train is missing, this loader's is true"),
    ],
)
def test_states_that_do_not_fit(image_folder: Path, changes: dict[str, object], message: str) -> None:
    loader = _loader(image_folder)
    with pytest.raises((ValueError, TypeError), match=message):
        loader.load_state_dict({**loader.state_dict(), "samples": 4, **changes})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 24}, "state: size is 16, this loader's is 24; use the data and settings"),
        ({"policy": None}, r"policy is \{\"patch_sizes\": \[5\], .*\}, this loader's is null"),
        ({"policy": HideAndSeek((5,), p_hide=0.3)}, "policy.p_hide is 0.5, this loader's is 0.3"),
        ({"policy": PolicySchedule(HideAndSeek((5,)), p_hide=[0.5])}, "policy.policy is missing"),
        ({"multi_view": 2}, "multi_view is null, this loader's is 2"),
        ({"crop": "short-side"}, "crop is random-resized, this loader's is short-side"),
        ({"scale": (0.2, 1.0)}, r"scale is \[0.08, 1.0\], this loader's is \[0.2, 1.0\]"),
        ({"mirror": 0.0}, "mirror is 0.5, this loader's is 0.0"),
        ({"mean": 0.0}, r"mean is .*, this loader's is \[0.0, 0.0, 0.0\]"),
        ({"fill_value": 3.0}, r"fill_value is null, this loader's is \[3.0, 3.0, 3.0\]"),
        ({"dtype": "float16"}, "dtype is float32, this loader's is float16"),
        ({"antialias": False}, "antialias is true, this loader's is false"),
        ({"sampling": "class-balanced", "steps": 7}, "sampling is shuffle, this loader's is class-balanced"),
        ({"batch_size": 3}, r"global_batch is 4, this loader's is 3 \(batch_size \* world_size\)"),
        ({"world_size": 3}, r"global_batch is 4, this loader's is 12 \(batch_size \* world_size\)"),
        ({"size": 24, "antialias": False}, "size is 16, .* is 24; antialias is true, this loader's is false; use"),
    ],
)
def test_other_settings_are_refused_by_name(image_folder: Path, options: dict[str, Any], message: str) -> None:
    state = _loader(image_folder).state_dict()
    with pytest.raises(ValueError, match=message) as caught:
        _loader(image_folder, **options).load_state_dict(state)
    assert len(str(caught.value).splitlines()) == 1


def test_what_changes_no_batch_is_accepted(image_folder: Path) -> None:
    state = _loader(image_folder).state_dict()
    options: dict[str, Any] = {"threads": 1, "prefetch": 4, "channels_last": True, "on_error": "skip"}
    for free in ({name: value} for name, value in options.items()):
        _loader(image_folder, **free).load_state_dict(state)


def test_other_data_are_refused(image_folder: Path) -> None:
    files = sorted(image_folder.rglob("*.jpg"))
    state = _loader(files, labels=[0] * 30).state_dict()
    for other, labels in ((files[::-1], [0] * 30), (files[:-1] + files[:1], [0] * 30), (files, [1] * 30)):
        with pytest.raises(ValueError, match=r"data is [0-9a-f]{16}, .* is [0-9a-f]{16} \(other files, labels, sizes"):
            _loader(other, labels=labels).load_state_dict(state)


def test_fingerprints_are_had_late_and_once(image_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a million paths they take a while: nothing that a loader without a state should pay, or any twice."""
    calls = []
    plain = FileSource.fingerprint
    monkeypatch.setattr(FileSource, "fingerprint", lambda self: calls.append(1) or plain(self))
    loader = _loader(image_folder)
    list(loader)
    assert not calls
    loader.load_state_dict(loader.state_dict())
    loader.state_dict()
    assert len(calls) == 1


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
