"""create_loader in timm's shape: its argument names, its batches, and what it refuses."""

from __future__ import annotations

import doctest
import inspect
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torchvision.datasets import ImageFolder

from has_dali.kernels.policy import HideAndSeek
from has_dali.pipelines import image_loader, timm_loader
from has_dali.pipelines.timm_loader import TimmLoader, create_loader

OURS = {"policy", "threads", "seed", "options", "timm_arguments"}


def test_examples() -> None:
    assert doctest.testmod(timm_loader).failed == 0


def test_arguments_are_timms() -> None:
    """Names, order of the leading ones, and defaults: all of timm's are known, and no other."""
    data = pytest.importorskip("timm.data")
    theirs = inspect.signature(data.create_loader).parameters
    ours = inspect.signature(create_loader).parameters
    assert list(ours)[:5] == list(theirs)[:5]
    named = set(ours) - OURS
    assert named | timm_loader._IGNORED | set(timm_loader._NEUTRAL) >= set(theirs)
    assert named <= set(theirs)
    for name in named - {"dataset", "input_size", "batch_size", "device"}:
        assert ours[name].default == theirs[name].default, name


def test_batches_are_the_loaders(image_folder: Path) -> None:
    policy = HideAndSeek((8,), seed=1)
    loader = create_loader(image_folder, (3, 32, 32), 4, True, policy=policy, seed=9, device="cpu", hflip=0.2)
    expected = image_loader(image_folder, 4, train=True, policy=policy, size=32, seed=9, device="cpu", mirror=0.2)
    assert isinstance(loader, TimmLoader) and len(loader) == len(expected) == 7
    for epoch in range(2):
        for (images, targets), batch in zip(loader, expected, strict=True):
            assert torch.allclose(images, batch["image"], atol=1e-5) and torch.equal(targets, batch["label"])
        assert loader.loader.epoch == epoch + 1


def test_evaluation_crops_as_timm_does(image_folder: Path) -> None:
    for options, plan in (
        ({}, {"resize": 36}),
        ({"crop_pct": 1.0}, {"resize": 32}),
        ({"crop_mode": "squash"}, {"crop": "warp"}),
    ):
        loader = create_loader(image_folder, 32, 8, fp16=True, device="cpu", **options)
        expected = image_loader(image_folder, 8, train=False, size=32, device="cpu", dtype="float16", **plan)
        for (images, targets), batch in zip(loader, expected, strict=True):
            assert images.dtype == torch.float16 and (images - batch["image"]).abs().max() < 0.01
            assert torch.equal(targets, batch["label"])


def test_data_sets_that_list_their_files(image_folder: Path) -> None:
    folder = ImageFolder(str(image_folder))
    for dataset in (folder, SimpleNamespace(reader=SimpleNamespace(samples=folder.samples))):
        loader = create_loader(dataset, 16, 30, device="cpu")
        ((_, targets),) = loader
        assert targets.tolist() == folder.targets and len(loader.dataset) == 30
    with pytest.raises(TypeError, match="no pairs of file and target"):
        create_loader(SimpleNamespace(samples=[1, 2]), 16, 2)


def test_a_call_as_timms_training_script_makes_it(image_folder: Path) -> None:
    loader = create_loader(
        image_folder, input_size=(3, 16, 16), batch_size=8, is_training=True, no_aug=False, re_prob=0.0,
        re_mode="pixel", re_count=1, re_split=False, train_crop_mode=None, scale=[0.08, 1.0], ratio=[0.75, 1.3333],
        hflip=0.5, vflip=0.0, color_jitter=None, color_jitter_prob=None, grayscale_prob=0.0, gaussian_blur_prob=0.0,
        auto_augment=None, num_aug_repeats=0, num_aug_splits=0, interpolation="bilinear", num_workers=4,
        distributed=False, collate_fn=None, pin_memory=False, img_dtype=torch.float32, device=torch.device("cpu"),
        use_prefetcher=True, use_multi_epochs_loader=False, worker_seeding="all",
    )  # fmt: skip
    loader.sampler.set_epoch(3)
    assert len([images.shape for images, _ in loader]) == 3 and loader.loader.epoch == 4
    loader.set_epoch(1)
    batches = iter(loader)
    next(batches)
    state = loader.state_dict()
    rest = [images for images, _ in batches]
    loader.load_state_dict(state)
    assert all(torch.equal(a, b) for (a, _), b in zip(loader, rest, strict=True))


def test_padding_repeats_a_sample_with_its_target(image_folder: Path) -> None:
    targets = []
    for rank in range(4):
        options = {"rank": rank, "world_size": 4}
        inner = image_loader(image_folder, 4, train=False, size=16, device="cpu", **options)
        for images, labels in TimmLoader(inner):
            assert len(images) == len(labels)
            targets += labels.tolist()
    assert len(targets) == 32 and sorted(targets) == [0] * 12 + [1] * 10 + [2] * 10


def test_an_evaluation_cannot_skip(image_folder: Path) -> None:
    """Its targets could not say so; training, and images in memory, which never skip, can."""
    skip: dict[str, Any] = {"on_error": "skip", "error_budget": 0.1}
    with pytest.raises(ValueError, match="on_error='skip': targets of an evaluation cannot tell"):
        create_loader(image_folder, 16, 4, device="cpu", options=skip)
    for train, more in ((True, {}), (False, {"cache": "decoded"})):
        loader = create_loader(image_folder, 16, 4, train, device="cpu", options={**skip, **more})
        assert loader.loader.skips == train and len(next(iter(loader))[1]) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"auto_augment": "rand-m9"}, "auto_augment='rand-m9': this loader does not do that; give auto_augment=None"),
        ({"re_prob": 0.25}, r"re_prob=0\.25: this loader does not do that"),
        ({"color_jitter": 0.4}, "color_jitter"),
        ({"interpolation": "bicubic"}, "give interpolation='bilinear'"),
        ({"train_crop_mode": "rkrc"}, "train_crop_mode"),
        ({"input_sizes": 3}, "takes no such argument, nor does timm's"),
        ({"input_size": (3, 16, 32)}, "both sides equal"),
        ({"input_size": (1, 16, 16)}, "input_size"),
        ({"no_aug": True}, "no_aug=True"),
        ({"is_training": False, "policy": HideAndSeek()}, "evaluation hides nothing"),
        ({"is_training": False, "crop_mode": "border"}, "crop_mode='border'"),
        ({"is_training": False, "crop_pct": 1.2}, r"crop_pct=1\.2"),
        ({"img_dtype": torch.bfloat16}, r"img_dtype=torch\.bfloat16"),
        ({"distributed": True}, r"torch\.distributed is not initialised"),
    ],
)
def test_arguments_that_do_not_fit(image_folder: Path, options: dict[str, Any], message: str) -> None:
    settings: dict[str, Any] = {"input_size": 16, "batch_size": 4, "is_training": True, "device": "cpu", **options}
    with pytest.raises((ValueError, TypeError), match=message):
        create_loader(image_folder, **settings)
