"""multi_view=k: one crop and flip, k masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from has_dali.kernels import reference
from has_dali.kernels.policy import HideAndSeek
from has_dali.pipelines import ArraySource, ImageLoader, image_loader
from has_dali.pipelines.policy_schedule import VIEW_BLOCK, PolicySchedule, view_policy

POLICY = HideAndSeek((4, 7), seed=-5)


@pytest.fixture(scope="module")
def arrays() -> ArraySource:
    pixels = np.random.default_rng(0).integers(1, 256, (12, 20, 24, 3)).astype(np.uint8)
    return ArraySource.from_images(pixels, np.arange(12))


def _open(source: object, **options: Any) -> ImageLoader:
    defaults = {
        "train": True, "size": 16, "batch_size": 4, "mean": 0.5, "std": 1.0, "device": "cpu", "threads": 1,
        "policy": POLICY,
    }  # fmt: skip
    return image_loader(source, **{**defaults, **options})  # type: ignore[arg-type]


def test_seeds_of_views_are_words_of_the_reference() -> None:
    assert view_policy(POLICY, 0) == POLICY
    high, low = (int(word) for word in reference.words(-5, 0, 3, VIEW_BLOCK)[0][:2])
    assert view_policy(POLICY, 3) == POLICY.with_(seed=high << 32 | low)
    assert len({view_policy(POLICY.with_(seed=seed), view) for seed in range(20) for view in range(20)}) == 400


@pytest.mark.parametrize("kind", ["files", "arrays"])
@pytest.mark.parametrize("form", [{}, {"channels_last": True, "dtype": "float16"}])
def test_views_differ_in_the_mask_alone(image_folder: Path, arrays: ArraySource, kind: str, form: dict) -> None:
    source: Any = image_folder if kind == "files" else arrays
    single, whole, views = (_open(source, **form, **o) for o in ({}, {"policy": None}, {"multi_view": 3}))
    for _ in range(2):
        for one, plain, many in zip(single, whole, views, strict=True):
            images = many["image"]
            assert images.shape == (4, 3, 3, 16, 16) and images.dtype == one["image"].dtype
            assert torch.equal(images[:, 0], one["image"]) and torch.equal(many["id"], one["id"])
            for view in range(3):
                mask = view_policy(POLICY, view).mask(one["id"].numpy(), single.epoch, 16, 16)
                hidden = torch.from_numpy(mask)[:, None]
                assert torch.equal(images[:, view], torch.where(hidden, 0.0, plain["image"]))
            assert images.is_contiguous() == (not form)
            if form:
                assert images.stride()[-3] == 1  # channels last


@pytest.mark.parametrize("kind", ["files", "arrays"])
def test_one_view_keeps_its_dimension(image_folder: Path, arrays: ArraySource, kind: str) -> None:
    source: Any = image_folder if kind == "files" else arrays
    for one, views in zip(_open(source), _open(source, multi_view=1), strict=True):
        assert torch.equal(views["image"], one["image"][:, None])


@pytest.mark.parametrize("kind", ["files", "arrays"])
def test_views_of_a_schedule(image_folder: Path, arrays: ArraySource, kind: str) -> None:
    source: Any = image_folder if kind == "files" else arrays
    schedule = PolicySchedule(POLICY, p_hide=[0.2, 0.9])
    views = _open(source, policy=schedule, multi_view=2)
    for epoch in range(2):
        fixed = _open(source, policy=view_policy(schedule.at(epoch), 1))
        fixed.set_epoch(epoch)
        for many, one in zip(views, fixed, strict=True):
            assert torch.equal(many["image"][:, 1], one["image"])


def test_held_views_are_never_overwritten(arrays: ArraySource, image_folder: Path) -> None:
    for source in (arrays, image_folder):
        views = _open(source, multi_view=2, prefetch=3)
        held = [batch["image"] for _ in range(4) for batch in views]
        copies = [image.clone() for image in held]
        list(views)
        assert all(torch.equal(a, b) for a, b in zip(held, copies, strict=True))
