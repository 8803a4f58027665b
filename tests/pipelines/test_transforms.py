"""RandomHideAndSeek among torchvision's v2 transforms."""

from __future__ import annotations

import doctest
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from has_dali.kernels.policy import HideAndSeek
from has_dali.pipelines import transforms
from has_dali.pipelines.policy_schedule import PolicySchedule
from has_dali.pipelines.transforms import RandomHideAndSeek
from has_dali.random_keys import LARGEST_KEY

POLICY = HideAndSeek((4, 7), seed=3)


def test_examples() -> None:
    assert doctest.testmod(transforms).failed == 0


def _sample(size: int = 20) -> dict[str, Any]:
    return {
        "image": tv_tensors.Image(torch.rand(3, size, size) + 1),
        "mask": tv_tensors.Mask(torch.ones(2, size, size, dtype=torch.uint8)),
        "boxes": tv_tensors.BoundingBoxes(torch.tensor([[1, 2, 8, 9]]), format="XYXY", canvas_size=(size, size)),
        "features": torch.rand(3, size, size),
        "label": 5,
    }


def test_only_the_image_is_hidden() -> None:
    sample = _sample()
    torch.manual_seed(0)
    hidden = RandomHideAndSeek(POLICY, fill=0.0)(sample)
    torch.manual_seed(0)
    key = torch.randint(LARGEST_KEY, (1,))
    mask = torch.from_numpy(POLICY.mask(key.numpy(), 0, 20, 20)[0])
    assert torch.equal(hidden["image"], sample["image"].masked_fill(mask, 0.0)) and 0.2 < mask.float().mean() < 0.8
    assert type(hidden["image"]) is tv_tensors.Image
    for name in ("mask", "boxes", "features", "label"):
        assert hidden[name] is sample[name]
    assert (sample["image"] >= 1).all()  # the input stays


def test_masks_share_the_cells_of_their_image() -> None:
    hidden = RandomHideAndSeek(POLICY, hide_masks=True, ignore_index=9)(_sample())
    cells = (hidden["image"] == 0).all(dim=0)
    assert torch.equal(hidden["mask"] == 9, cells.expand(2, -1, -1)) and cells.any() and not cells.all()
    assert type(hidden["mask"]) is tv_tensors.Mask and hidden["mask"].dtype == torch.uint8


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.bfloat16, torch.float32])
def test_batches_of_images_and_dtypes(dtype: torch.dtype) -> None:
    images = torch.ones(6, 3, 12, 16, dtype=dtype)
    torch.manual_seed(1)
    hidden = RandomHideAndSeek(HideAndSeek((5,)), fill=[7, 8, 9])(images)
    torch.manual_seed(1)
    mask = torch.from_numpy(HideAndSeek((5,)).mask(torch.randint(LARGEST_KEY, (6,)).numpy(), 0, 12, 16))
    for channel, fill in enumerate((7, 8, 9)):
        assert torch.equal(hidden[:, channel], images[:, channel].masked_fill(mask, fill))
    assert len({bytes(cells.numpy().tobytes()) for cells in mask}) > 3


def test_batches_of_images_and_masks() -> None:
    sample = (tv_tensors.Image(torch.ones(4, 3, 12, 12)), tv_tensors.Mask(torch.ones(4, 12, 12, dtype=torch.int64)))
    images, masks = RandomHideAndSeek(POLICY, hide_masks=True, ignore_index=-100)(sample)
    assert torch.equal(masks == -100, images[:, 0] == 0) and (masks == -100).any()
    fewer = tv_tensors.Mask(torch.ones(3, 12, 12))
    with pytest.raises(ValueError, match="share one grid"):
        RandomHideAndSeek(POLICY, hide_masks=True)((sample[0], fewer))
    assert RandomHideAndSeek(POLICY)((sample[0], fewer))[1].shape == (3, 12, 12)


def test_frames_of_a_video_share_their_mask() -> None:
    video = tv_tensors.Video(torch.ones(2, 5, 3, 16, 16))
    hidden = RandomHideAndSeek(HideAndSeek((4,)), fill=[0.0, 2.0, 3.0])(video)
    assert type(hidden) is tv_tensors.Video and hidden.shape == video.shape
    cells = hidden[:, 0, 0] == 0
    assert all(torch.equal(hidden[:, frame, 1] == 2, cells) for frame in range(5))
    assert not torch.equal(cells[0], cells[1])


def test_ids_from_the_sample() -> None:
    transform = RandomHideAndSeek(POLICY, id_key="id")
    transform.set_epoch(4)
    hidden = transform({"id": 11, "x": torch.ones(1, 9, 9), "name": "a"})
    assert torch.equal(hidden["x"][0] == 0, torch.from_numpy(POLICY.mask([11], 4, 9, 9)[0]))
    assert list(hidden) == ["id", "x", "name"] and hidden["id"] == 11
    batch = transform({"id": torch.tensor([3, 11]), "x": torch.ones(2, 1, 9, 9)})
    assert torch.equal(batch["x"][1], hidden["x"])
    with pytest.raises(ValueError, match="expected 2 ids, one per image, got 1"):
        transform({"id": 3, "x": torch.ones(2, 1, 9, 9)})
    with pytest.raises(TypeError, match="id_key='id': expected a dict"):
        transform(torch.ones(1, 9, 9))


def test_a_schedule_follows_the_epoch() -> None:
    transform = RandomHideAndSeek(PolicySchedule(POLICY, p_hide=[0.0, 1.0]))
    image = torch.ones(3, 8, 8)
    assert torch.equal(transform(image), image)
    transform.set_epoch(1)
    assert not transform(image).any()


def test_bad_inputs() -> None:
    transform = RandomHideAndSeek(POLICY)
    with pytest.raises(TypeError, match=r"v2.ToImage\(\)"):
        transform(Image.new("RGB", (4, 4)))
    with pytest.raises(ValueError, match="share one grid"):
        transform((tv_tensors.Image(torch.ones(3, 8, 8)), tv_tensors.Image(torch.ones(3, 8, 9))))
    with pytest.raises(ValueError, match="at least 3 dimensions"):
        transform(torch.ones(8, 8))
    with pytest.raises(TypeError, match=r"policy=0\.5: expected a HideAndSeek"):
        RandomHideAndSeek(0.5)  # type: ignore[arg-type]
    assert transform("no image") == "no image"


class _Ones(Dataset):
    def __init__(self, transform: Any, keyed: bool) -> None:
        self.transform, self.keyed = transform, keyed

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Any:
        return self.transform({"id": index, "image": torch.ones(1, 12, 12)})


def _masks(loader: DataLoader) -> torch.Tensor:
    return torch.cat([batch["image"][:, 0] == 0 for batch in loader])


def test_workers_that_live_on_see_the_epoch() -> None:
    transform = RandomHideAndSeek(POLICY, id_key="id")
    loader = DataLoader(_Ones(transform, True), batch_size=2, num_workers=2, persistent_workers=True)
    for epoch in range(2):
        transform.set_epoch(epoch)
        assert np.array_equal(_masks(loader).numpy(), POLICY.mask(np.arange(8), epoch, 12, 12))


def test_workers_and_epochs_differ_and_seeds_repeat() -> None:
    loader = DataLoader(_Ones(RandomHideAndSeek(POLICY), False), batch_size=2, num_workers=2)
    torch.manual_seed(5)
    first, second = _masks(loader), _masks(loader)
    torch.manual_seed(5)
    assert torch.equal(_masks(loader), first) and not torch.equal(first, second)
    assert not torch.equal(first[:2], first[2:4])  # the first batches of two workers


def test_it_is_a_transform_like_the_others() -> None:
    transform = v2.Compose([v2.ToDtype(torch.float32, scale=True), RandomHideAndSeek(POLICY, fill=-1.0)])
    copy = pickle.loads(pickle.dumps(transform))
    image = tv_tensors.Image(torch.full((3, 10, 10), 255, dtype=torch.uint8))
    torch.manual_seed(2)
    expected = transform(image)
    torch.manual_seed(2)
    assert torch.equal(copy(image), expected) and set(expected.unique().tolist()) == {-1.0, 1.0}
    assert "patch_sizes" in repr(transform)
