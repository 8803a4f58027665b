"""Policies that follow the epoch: values, masks of the loader, what tells one schedule from another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from has_dali.kernels.policy import HideAndSeek
from has_dali.pipelines import ArraySource, ImageLoader, image_loader
from has_dali.pipelines.policy_schedule import PolicySchedule

BASE = HideAndSeek((4, 7), p_hide=0.5, seed=9)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6), st.integers(0, 2**32 - 1))
def test_lists_hold_their_last_value(values: list[float], epoch: int) -> None:
    policy = PolicySchedule(BASE, p_hide=values).at(epoch)
    assert policy == BASE.with_(p_hide=values[min(epoch, len(values) - 1)])


def test_functions_and_sizes() -> None:
    schedule = PolicySchedule(BASE, p_apply=lambda epoch: min(epoch / 4, 1), patch_sizes=[8, (8, 16), [0, 4]])
    assert [schedule.at(epoch).p_apply for epoch in range(6)] == [0, 0.25, 0.5, 0.75, 1, 1]
    assert [schedule.at(epoch).patch_sizes for epoch in range(4)] == [(8,), (8, 16), (0, 4), (0, 4)]
    assert schedule.at(5).seed == 9 and schedule.at(5).p_hide == 0.5
    assert PolicySchedule(BASE, p_hide=np.linspace(0, 1, 5)).at(1).p_hide == 0.25
    assert PolicySchedule(BASE).at(3) == BASE


@pytest.mark.parametrize(
    ("fields", "kind", "message"),
    [
        ({"p_hide": [0.1, 1.5]}, ValueError, r"p_hide in epoch 1: p_hide=1\.5: expected a probability"),
        ({"p_apply": ["a"]}, TypeError, "p_apply in epoch 0: p_apply='a'"),
        ({"patch_sizes": [(4,), ()]}, ValueError, "patch_sizes in epoch 1: patch_sizes is empty"),
        ({"p_hide": []}, ValueError, "p_hide is empty: expected at least one value"),
        ({"p_hide": 0.5}, TypeError, r"p_hide=0\.5: expected a list with one value per epoch, or a function"),
        ({"p_hide": "0.5"}, TypeError, "p_hide='0.5': expected a list"),
        ({"policy": None}, TypeError, "policy=None: expected a HideAndSeek"),
    ],
)
def test_bad_fields(fields: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        PolicySchedule(**{"policy": BASE, **fields})


def test_a_function_that_gives_no_probability() -> None:
    schedule = PolicySchedule(BASE, p_hide=lambda epoch: epoch / 2)
    with pytest.raises(ValueError, match=r"p_hide in epoch 3: p_hide=1\.5"):
        schedule.at(3)


def test_what_tells_schedules_apart() -> None:
    """Lists by their values; functions by theirs, whatever they are called, and not beyond where they fail."""
    schedules = [
        PolicySchedule(BASE),
        PolicySchedule(BASE.with_(seed=1)),
        PolicySchedule(BASE, p_hide=[0.1, 0.2]),
        PolicySchedule(BASE, p_apply=[0.1, 0.2]),
        PolicySchedule(BASE, patch_sizes=[4, (4, 8)]),
        PolicySchedule(BASE, p_hide=lambda epoch: epoch / 1000),
        PolicySchedule(BASE, p_hide=lambda epoch: epoch / 1000 + 1e-12),
        PolicySchedule(BASE, p_hide=lambda epoch: [0.1, 0.2][epoch]),
    ]
    described = [json.dumps(schedule.to_dict()) for schedule in schedules]
    assert len(set(described)) == len(described)
    assert PolicySchedule(BASE, p_hide=lambda e: e * 0.001).to_dict().keys() == schedules[5].to_dict().keys()
    assert "function of the epoch: 0.1, 0.2, ... (" in described[7]

    def renamed(number: int) -> float:
        return number / 1000

    assert PolicySchedule(BASE, p_hide=renamed).to_dict() == schedules[5].to_dict()


def _open(source: object, **options: Any) -> ImageLoader:
    defaults = {"train": True, "size": 16, "batch_size": 5, "mean": 0.5, "std": 1.0, "device": "cpu", "threads": 1}
    return image_loader(source, **{**defaults, **options})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def arrays() -> ArraySource:
    pixels = np.random.default_rng(0).integers(1, 256, (20, 24, 24, 3)).astype(np.uint8)
    return ArraySource.from_images(pixels, np.arange(20))


SCHEDULE = PolicySchedule(BASE, p_hide=[0.2, 0.2, 0.8], p_apply=lambda epoch: 1 - epoch / 8, patch_sizes=[4, 4, 4, 8])


@pytest.mark.parametrize("kind", ["files", "arrays"])
@pytest.mark.parametrize("prefetch", [1, 3])
def test_masks_follow_the_epoch(image_folder: Path, arrays: ArraySource, kind: str, prefetch: int) -> None:
    """Also where batches of the next epoch are computed ahead; hidden pixels are those of that epoch's policy."""
    scheduled = _open(image_folder if kind == "files" else arrays, policy=SCHEDULE, prefetch=prefetch)
    for epoch in range(5):
        fixed = _open(scheduled.source, policy=SCHEDULE.at(epoch))
        fixed.set_epoch(epoch)
        for a, b in zip(scheduled, fixed, strict=True):
            assert torch.equal(a["image"], b["image"]) and torch.equal(a["id"], b["id"])
            hidden = torch.from_numpy(SCHEDULE.at(epoch).mask(a["id"].numpy(), epoch, 16, 16))
            assert (a["image"] == 0).all(dim=1)[hidden].all()


@pytest.mark.parametrize("prefetch", [1, 2, 4])
def test_a_function_of_the_epochs_of_the_run_alone(image_folder: Path, prefetch: int) -> None:
    """Working ahead into an epoch that nobody asks for harms no batch; asking for it raises the function's error."""
    policy = PolicySchedule(BASE, p_hide=lambda epoch: [0.1, 0.2][epoch])
    loader = _open(image_folder, policy=policy, prefetch=prefetch)
    epochs = [list(loader), list(loader)]
    assert [len(batches) for batches in epochs] == [6, 6]
    for _ in range(2):
        with pytest.raises(IndexError):
            next(iter(loader))
        assert loader.position() == (2, 0)
    resumed = _open(image_folder, policy=policy, prefetch=prefetch)
    resumed.load_state_dict({**resumed.state_dict(), "epoch": 1, "samples": 20})
    assert all(torch.equal(a["image"], b["image"]) for a, b in zip(resumed, epochs[1][4:], strict=True))
    late = PolicySchedule(BASE, p_hide=lambda epoch: {1: 0.2}[epoch])
    started = _open(image_folder, policy=late, prefetch=prefetch)
    started.set_epoch(1)
    assert all(torch.equal(a["image"], b["image"]) for a, b in zip(started, epochs[1], strict=True))


@pytest.mark.parametrize("kind", ["files", "arrays"])
def test_resuming_in_any_epoch(image_folder: Path, arrays: ArraySource, kind: str) -> None:
    source = image_folder if kind == "files" else arrays
    whole = _open(source, policy=SCHEDULE)
    epochs = [list(whole) for _ in range(4)]
    for epoch, samples in ((0, 5), (2, 10), (3, 0)):
        resumed = _open(source, policy=SCHEDULE)
        resumed.load_state_dict({**resumed.state_dict(), "epoch": epoch, "samples": samples})
        rest = list(resumed)
        assert len(rest) == len(epochs[epoch]) - samples // 5
        assert all(
            torch.equal(a["image"], b["image"]) for a, b in zip(rest, epochs[epoch][samples // 5 :], strict=True)
        )
    with pytest.raises(ValueError, match=r"policy\.p_hide is \[0\.2, 0\.2, 0\.8\], this loader's is \[0\.2, 0\.8\]"):
        _open(source, policy=PolicySchedule(BASE, [0.2, 0.8], SCHEDULE.p_apply, SCHEDULE.patch_sizes)).load_state_dict(
            resumed.state_dict()
        )
