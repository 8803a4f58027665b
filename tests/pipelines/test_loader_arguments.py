"""Crops, sampling, caches and kinds of data: what the loader makes of its arguments, and which it refuses."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional

from has_dali.kernels.policy import HideAndSeek
from has_dali.pipelines import ArraySource, BalancedSampler, ImageLoader, ShortSidePlan, image_loader, open_source
from has_dali.pipelines.loader import Batch

POLICY = HideAndSeek((5, 8), seed=2)


@pytest.fixture(scope="module")
def arrays() -> ArraySource:
    """30 images of 32 x 32 in three classes of 2, 8 and 20."""
    images = np.random.default_rng(0).integers(0, 256, (30, 32, 32, 3)).astype(np.uint8)
    return ArraySource.from_images(images, np.repeat([0, 1, 2], [2, 8, 20]))


def _open(source: object, batch_size: int = 4, **options: object) -> ImageLoader:
    defaults = {"train": True, "policy": POLICY, "size": 24, "device": "cpu"}
    return image_loader(source, batch_size, **{**defaults, **options})  # type: ignore[arg-type]


def _same(a: list[Batch], b: list[Batch]) -> bool:
    return len(a) == len(b) and all(torch.equal(x[name], y[name]) for x, y in zip(a, b, strict=True) for name in x)


KINDS = [
    {"crop": "pad"},
    {"crop": "short-side"},
    {"sampling": "class-balanced", "steps": 6},
    {"train": False, "policy": None, "resize": 28},
    {"train": False, "policy": None, "crop": "warp"},
]


@pytest.mark.parametrize("options", KINDS)
def test_resume_at_any_batch(arrays: ArraySource, options: dict[str, object]) -> None:
    whole = _open(arrays, **options)
    epochs = [list(whole) for _ in range(3)]
    for stop in range(len(whole) + 1):
        interrupted = _open(arrays, **options)
        list(interrupted)
        state = interrupted.state_dict()
        for done, _ in enumerate(interrupted, start=1):
            if done == stop:
                state = interrupted.state_dict()
                break
        resumed = _open(arrays, **options)
        resumed.load_state_dict(json.loads(json.dumps(state)))
        assert _same(list(resumed), epochs[1][stop:] or epochs[2])  # after the last batch comes the next epoch


def test_class_balanced_batches(arrays: ArraySource) -> None:
    """An image drawn again in an epoch is cropped and hidden anew; the mask is that of the draw's key."""
    options = {"sampling": "class-balanced", "steps": 10, "mean": 0.5, "std": 1.0}
    balanced = _open(arrays, 6, **options)
    assert isinstance(balanced.sample_order, BalancedSampler) and len(balanced) == 10
    looks: dict[int, set[bytes]] = {}
    for index, batch in enumerate(balanced):
        assert torch.equal(batch["label"], torch.from_numpy(arrays.labels[batch["id"].numpy()]))
        hidden = torch.from_numpy(POLICY.mask(balanced.sample_order.keys(0, index), 0, 24, 24))
        assert torch.equal((batch["image"] == 0).all(dim=1), hidden)
        for image, sample_id in zip(batch["image"], batch["id"].tolist(), strict=True):
            looks.setdefault(sample_id, set()).add(image.numpy().tobytes())
    draws = np.bincount(balanced.sample_order.order(0))
    assert draws.max() > 5 and all(len(found) == draws[sample_id] for sample_id, found in looks.items())
    ranks = [list(_open(arrays, 3, rank=rank, world_size=2, **options)) for rank in range(2)]
    for index, batch in enumerate(_open(arrays, 6, **options)):
        assert torch.equal(batch["image"], torch.cat([rank[index]["image"] for rank in ranks]))


def test_class_balanced_files_are_keyed_the_same_way(image_folder: Path) -> None:
    """Files and decoded files, with the labels of the class folders."""
    options = {"sampling": "class-balanced", "steps": 5, "mean": (100.3, 110.7, 90.1), "std": 1.0}
    files, decoded = (list(_open(image_folder, 8, cache=cache, **options)) for cache in (None, "decoded"))
    for a, b in zip(files, decoded, strict=True):
        assert torch.equal(a["id"], b["id"]) and torch.equal(a["image"] == 0, b["image"] == 0)
        assert (a["image"] - b["image"]).abs().max() <= 2


def test_a_broken_file_drawn_with_a_key_is_named(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("good.png", "bad.png")]
    Image.new("RGB", (20, 20)).save(files[0])
    files[1].write_text("no image")
    broken = _open(files, 8, labels=[0, 1], sampling="class-balanced", steps=3)
    with pytest.raises(RuntimeError, match=r"sample 1: .*bad\.png: not an image of a supported format"):
        list(broken)


@pytest.mark.parametrize(("images", "batch_size", "steps"), [(30, 4, 7), (3, 4, 1)])
def test_steps_default_to_those_of_a_shuffle(arrays: ArraySource, images: int, batch_size: int, steps: int) -> None:
    part = arrays.select(range(images))
    assert len(_open(part, batch_size, sampling="class-balanced")) == steps
    assert len(_open(part, 1, sampling="class-balanced", world_size=2, rank=1)) == images // 2


@pytest.mark.parametrize("cache", [None, "decoded"])
def test_warp_is_torchvisions_resize(image_folder: Path, cache: str | None) -> None:
    """Both sides to the output's size, as Resize((24, 24)); within two grey levels of Pillow's fixed point."""
    source = open_source(image_folder)
    warped = _open(image_folder, train=False, policy=None, crop="warp", mean=0.0, std=1.0, cache=cache)
    for batch in warped:
        for image, sample_id in zip(batch["image"], batch["id"].tolist(), strict=True):
            picture = Image.open(source.path(sample_id)).convert("RGB")
            expected = functional.pil_to_tensor(functional.resize(picture, [24, 24]))  # type: ignore[arg-type]
            assert (image - expected).abs().max() <= 2


def test_short_side_crop_is_resize_and_crop(tmp_path: Path) -> None:
    """Where the box has whole pixels (96 to 64: 36 to 24), it is the crop of the resized image, up to its edges."""
    pixels = np.random.default_rng(3).integers(0, 256, (4, 5, 3)).astype(np.uint8)
    picture = Image.fromarray(pixels).resize((144, 96), Image.Resampling.BICUBIC)
    picture.save(tmp_path / "a.png")
    resized = functional.pil_to_tensor(functional.resize(picture, [64])).float()  # type: ignore[arg-type]
    options = {"crop": "short-side", "resize": 64, "policy": None, "mean": 0.0, "std": 1.0, "seed": 6}
    training = _open([tmp_path / "a.png"], 1, **options)
    compared = 0
    for epoch in range(30):
        (batch,) = training
        ((top, left),), ((height, width),), (flip,) = ShortSidePlan(6, 24, 64)(
            np.array([[96, 144]]), np.zeros(1, int), np.array([epoch])
        )
        assert height == width == 36
        if top % 3 or left % 3:  # the box starts between two pixels of the resized image
            continue
        image = batch["image"][0].flip(-1) if flip else batch["image"][0]
        y, x = top * 2 // 3, left * 2 // 3
        expected = resized[:, y : y + 24, x : x + 24]
        assert (image - expected)[:, 1:-1, 1:-1].abs().max() <= 2
        compared += 1
    assert compared >= 2


def test_repr_and_log_say_what_is_loaded(arrays: ArraySource, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="has_dali"):
        opened = _open(arrays, crop="pad", padding=2)
        list(_open(arrays, train=False, policy=None, resize=40))
    assert "image_loader: 30 images on cpu" in caplog.text and "resampling 30 images once, to 24 x 24" in caplog.text
    assert "30 images, 7 batches of 4" in repr(opened) and "PadPlan(seed=0, size=24, padding=2" in repr(opened)


def test_cifar_folder(data_root: Path) -> None:
    folder = data_root / "cifar-10-batches-py"
    training = _open(folder, 100, size=32, crop="pad")
    assert len(training) == 100 and training.source.classes[1] == "automobile"
    testing = _open(folder, 100, size=32, train=False, policy=None, resize=32)
    assert len(testing) == 20 and next(iter(testing))["label"].bincount(minlength=10).min() > 0


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"crop": "center"}, ValueError, "crop='center': training takes one of 'random-resized', 'short-side', 'pad'"),
        ({"crop": "warp"}, ValueError, "crop='warp': training takes"),
        ({"crop": 5}, ValueError, "crop=5: training takes"),
        ({"crop": "pad", "train": False}, ValueError, "crop='pad': evaluation takes one of 'center', 'warp'"),
        ({"crop": "pad", "resize": 40}, ValueError, "resize=40: training crops at random"),
        ({"crop": "random-resized", "resize": 40}, ValueError, "leave it out, or give crop='short-side'"),
        ({"crop": "warp", "resize": 40, "train": False}, ValueError, "resize=40: crop='warp' shows the whole image"),
        (
            {"crop": "short-side", "resize": 23},
            ValueError,
            "resize=23: expected at least size=24",
        ),
        ({"crop": "short-side", "resize": 2.5}, TypeError, r"resize=2\.5"),
        ({"crop": "pad", "padding": -1}, ValueError, "padding=-1: expected an integer from 0"),
        ({"padding": "4"}, TypeError, "padding='4'"),
        ({"crop": "pad", "size": 48}, ValueError, "padding=4: an image of 32 x 32 .* smaller than size=48"),
        ({"sampling": "balanced"}, ValueError, "sampling='balanced': expected one of 'shuffle', 'class-balanced'"),
        ({"sampling": "class-balanced", "train": False}, ValueError, "evaluation takes every image once"),
        ({"steps": 10}, ValueError, "steps=10: an epoch of sampling='shuffle' is all images"),
        ({"sampling": "class-balanced", "steps": 0}, ValueError, "steps=0: expected an integer of at least 1"),
        ({"sampling": "class-balanced", "batch_size": 0}, ValueError, "batch_size=0"),
        ({"cache": "disk"}, ValueError, "cache='disk': expected None or 'decoded'"),
        ({"cache": True}, ValueError, "cache=True"),
        ({"labels": [0] * 30}, ValueError, "labels: only a list of files takes labels"),
        ({"prefetch": 0}, ValueError, "prefetch=0"),
        ({"threads": 0}, ValueError, "threads=0"),
    ],
)
def test_bad_arguments(arrays: ArraySource, options: dict[str, object], kind: type[Exception], message: str) -> None:
    if not options.get("train", True):
        options = {"policy": None, **options}
    with pytest.raises(kind, match=message):
        _open(arrays, **{"batch_size": 4, **options})


def test_arguments_that_the_data_do_not_fit(image_folder: Path, arrays: ArraySource) -> None:
    with pytest.raises(ValueError, match=r"crop='pad': files are cropped while .*; add cache='decoded'"):
        _open(image_folder, crop="pad")
    unlabelled = ArraySource.from_images(arrays.pixels.reshape(30, 32, 32, 3))
    with pytest.raises(ValueError, match="labels: drawing by class needs a label for every image"):
        _open(unlabelled, sampling="class-balanced")
