"""The loader: what a sample looks like depends on nothing but (seed, epoch, id)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import CenterCrop, Resize

from has_dali.kernels.policy import HideAndSeek
from has_dali.pipelines import ImageLoader, image_loader
from has_dali.pipelines.loader import Batch

POLICY = HideAndSeek(patch_sizes=(0, 4, 7, 16), seed=3)


def _train(folder: Path, batch_size: int, **options: object) -> ImageLoader:
    return image_loader(folder, batch_size, **{"train": True, "policy": POLICY, "size": 32, "seed": 5, **options})


def _by_id(batches: list[Batch]) -> dict[int, tuple[bytes, int]]:
    samples = {}
    for batch in batches:
        for image, label, sample_id in zip(batch["image"], batch["label"], batch["id"], strict=True):
            samples[int(sample_id)] = (image.numpy().tobytes(), int(label))
    return samples


def test_batch_contents(image_folder: Path) -> None:
    loader = _train(image_folder, 4)
    batches = list(loader)
    assert len(batches) == len(loader) == 7
    for batch in batches:
        assert set(batch) == {"image", "label", "id"}
        assert batch["image"].shape == (4, 3, 32, 32) and batch["image"].dtype == torch.float32
        assert batch["image"].is_contiguous()
        assert batch["label"].dtype == batch["id"].dtype == torch.int64
        assert torch.equal(batch["label"], torch.from_numpy(loader.source.labels[batch["id"].numpy()]))


def test_same_ids_same_tensors_for_any_batch_size_and_world(image_folder: Path) -> None:
    settings = [(1, 1), (7, 1), (30, 1), (15, 2), (3, 2), (7, 4), (1, 4)]
    reference = _by_id(list(_train(image_folder, 1)))
    assert len(reference) == 30
    for batch_size, world_size in settings:
        samples: dict[int, tuple[bytes, int]] = {}
        for rank in range(world_size):
            part = _by_id(list(_train(image_folder, batch_size, rank=rank, world_size=world_size, threads=rank + 1)))
            assert not samples.keys() & part.keys()
            samples |= part
        assert len(samples) == 30 // (batch_size * world_size) * batch_size * world_size
        assert all(reference[i] == sample for i, sample in samples.items())


def test_masks_are_the_policys(image_folder: Path) -> None:
    loader = _train(image_folder, 6, mean=0.0, std=1.0, fill_value=-1.0)
    for batch in loader:
        hidden = POLICY.mask(batch["id"].numpy(), 0, 32, 32)
        assert np.array_equal((batch["image"] == -1.0).all(dim=1).numpy(), hidden)


def test_images_are_the_planned_boxes(image_folder: Path) -> None:
    """Crop, orientation of the mirror, and scale against Pillow, within the resampling's tolerance."""
    loader = _train(image_folder, 6, policy=None, mean=0.0, std=1.0)
    plan = loader.spec.plan
    for batch in loader:
        for image, sample_id in zip(batch["image"], batch["id"], strict=True):
            source = Image.open(loader.source.path(int(sample_id))).convert("RGB")
            (start,), (shape,), (mirror,) = plan(np.array([source.size[::-1]]), [int(sample_id)], [0])
            box = source.crop((start[1], start[0], start[1] + shape[1], start[0] + shape[0]))
            expected = np.asarray(box.resize((32, 32), Image.Resampling.BILINEAR), np.float32)
            got = image.numpy().transpose(1, 2, 0)[:, :: -1 if mirror else 1]
            assert np.abs(got - expected).max() <= 2


def test_epochs_differ_and_repeat(image_folder: Path) -> None:
    loader = _train(image_folder, 7)
    first, second = list(loader), list(loader)
    assert loader.epoch == 2
    assert [b["id"].tolist() for b in first] != [b["id"].tolist() for b in second]
    loader.set_epoch(0)
    again = list(loader)
    assert all(torch.equal(a["image"], b["image"]) for a, b in zip(first, again, strict=True))
    assert loader.epoch == 1


def test_seed_matters(image_folder: Path) -> None:
    one, other = _by_id(list(_train(image_folder, 6))), _by_id(list(_train(image_folder, 6, seed=6)))
    assert sum(one[i] == other[i] for i in one) < 5  # a 1 x 1 image can look the same


def test_output_formats(image_folder: Path) -> None:
    plain = next(iter(_train(image_folder, 6)))["image"]
    last = next(iter(_train(image_folder, 6, channels_last=True)))["image"]
    assert last.shape == plain.shape and last.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(last, plain)
    half = next(iter(_train(image_folder, 6, dtype="float16")))["image"]
    assert half.dtype == torch.float16
    assert torch.equal(half, plain.half())


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_eval_covers_each_image_once_and_hides_nothing(image_folder: Path, world_size: int) -> None:
    """And, over several ranks, in equally many batches of equal sizes, with padding that has a label of its own."""
    seen: dict[int, tuple[bytes, int]] = {}
    sizes = set()
    for rank in range(world_size):
        loader = image_loader(image_folder, 7, train=False, size=32, rank=rank, world_size=world_size)
        for epoch in range(2):
            batches = list(loader)
            assert len(batches) == len(loader)
            sizes.add(tuple(len(batch["id"]) for batch in batches))
            part = _by_id(batches)
            assert sum(sizes.copy().pop()) == len(part)
            padding = part.pop(-1, None)
            assert (padding is None) == (world_size < 4 or rank < 2)
            assert padding is None or padding[1] == -1
            if epoch:
                assert part.items() <= seen.items()  # evaluation is the same in every epoch
            else:
                assert not seen.keys() & part.keys()
                seen |= part
    assert sorted(seen) == list(range(30)) and len(sizes) == 1


def test_eval_is_resize_and_centre_crop(image_folder: Path) -> None:
    for batch in image_loader(image_folder, 8, train=False, size=32, resize=40, mean=0.0, std=1.0):
        for image, sample_id in zip(batch["image"], batch["id"], strict=True):
            source = Image.open(sorted(image_folder.rglob("*.jpg"))[int(sample_id)]).convert("RGB")
            expected = np.asarray(CenterCrop(32)(Resize(40)(source)), np.float32)
            assert np.abs(image.numpy().transpose(1, 2, 0) - expected).max() <= 2


def test_eval_of_real_images_is_torchvisions(data_root: Path) -> None:
    files = sorted((data_root / "imagenet-sample" / "train").rglob("*.JPEG"))[::10]
    for batch in image_loader(files, 8, train=False, mean=0.0, std=1.0):
        for image, sample_id in zip(batch["image"], batch["id"], strict=True):
            source = Image.open(files[int(sample_id)]).convert("RGB")
            expected = np.asarray(CenterCrop(224)(Resize(256)(source)), np.float32)
            assert np.abs(image.numpy().transpose(1, 2, 0) - expected).max() <= 1


@pytest.mark.parametrize("prefetch", [1, 2, 4])
@pytest.mark.parametrize("train", [True, False])
def test_held_batches_are_never_overwritten(image_folder: Path, prefetch: int, train: bool) -> None:
    loader = image_loader(image_folder, 3, train=train, size=64, prefetch=prefetch)
    held, copies = [], []
    for _ in range(4):
        for batch in loader:
            held.append(batch["image"])
            copies.append(batch["image"].clone())
    assert len(held) == 40
    assert len({image.data_ptr() for image in held}) == 40
    assert all(torch.equal(image, copy) for image, copy in zip(held, copies, strict=True))


def test_a_batch_outlives_its_loader(image_folder: Path) -> None:
    loader = _train(image_folder, 6)
    images = next(iter(loader))["image"]
    copy = images.clone()
    del loader
    list(_train(image_folder, 6))
    assert torch.equal(images, copy)
