"""``create_loader`` in the shape of timm's, over ``image_loader``: batches of (images, targets)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from has_dali.pipelines.image_batches import ImageLoader
from has_dali.pipelines.loader import image_loader
from has_dali.pipelines.policy_schedule import Policy
from has_dali.pipelines.rank_check import check_ranks

_DTYPES = {torch.float32: "float32", torch.float16: "float16"}
# timm's arguments that say how its workers and streams run: here there are none.
_IGNORED = frozenset(
    ("collate_fn", "num_workers", "persistent_workers", "pin_memory", "use_multi_epochs_loader", "use_prefetcher",
     "worker_seeding")
)  # fmt: skip
# timm's arguments for what this loader does not do, with the values that ask for nothing. A second value of a number
# that only matters with another argument is its default.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "auto_augment": (None, ""),
    "batch_choice_schedule": ("constant",),
    "batch_choice_seed": (0,),
    "batch_choice_weights": (None,),
    "batch_schedule_epochs": (None,),
    "batch_schedule_random_mix": (0.1,),
    "batch_schedule_spread": (0.65,),
    "batch_size_choices": (None,),
    "color_jitter": (None, 0.0),
    "color_jitter_prob": (None, 0.0),
    "crop_border_pixels": (None, 0),
    "gaussian_blur_prob": (None, 0.0),
    "grayscale_prob": (None, 0.0),
    "input_size_choices": (None,),
    "interpolation": ("bilinear", ""),
    "num_aug_repeats": (0,),
    "num_aug_splits": (0, 1),
    "num_batches": (None,),
    "re_count": (1,),
    "re_mode": ("const", "pixel", "rand"),
    "re_prob": (None, 0.0),
    "re_split": (False,),
    "tf_preprocessing": (False,),
    "train_crop_mode": (None, "", "rrc"),
    "vflip": (None, 0.0),
}


class TimmLoader:
    """Iterable over (images, targets) of one epoch; iterating again gives the next epoch.

    Args:
        loader: gives the batches.

    Raises:
        ValueError: an evaluation that skips broken files: a batch of (images, targets) has no place to say which of
            its images stand in for them.
    """

    def __init__(self, loader: ImageLoader) -> None:
        if loader.skips and not loader.sample_order.train:
            raise ValueError(
                "on_error='skip': targets of an evaluation cannot tell which images were skipped; leave it out, or use"
                " image_loader, whose batches have ids (-1 for these)"
            )
        self.loader = loader

    def __len__(self) -> int:
        """Batches per epoch on this rank."""
        return len(self.loader)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Images (N, 3, H, W) and targets (N,) int64 of the next epoch.

        Where an evaluation over several processes fills up a batch, its first image comes once more with its own
        target, as with timm's ``OrderedDistributedSampler``.
        """
        first = int(self.loader.source.labels[0])
        padded = not self.loader.sample_order.train
        for batch in self.loader:
            targets = batch["label"]
            if padded:
                targets = torch.where(batch["id"] < 0, torch.full_like(targets, first), targets)
            yield batch["image"], targets
            del batch, targets

    @property
    def dataset(self) -> Any:
        """The images, by sample id."""
        return self.loader.source

    @property
    def sampler(self) -> ImageLoader:
        """What has ``set_epoch``, where timm's training script looks for it."""
        return self.loader

    def set_epoch(self, epoch: int) -> None:
        """Make ``epoch`` the next one."""
        self.loader.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """See ``ImageLoader.state_dict``."""
        return self.loader.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See ``ImageLoader.load_state_dict``."""
        self.loader.load_state_dict(state)


def create_loader(
    dataset: Any,
    input_size: int | Sequence[int],
    batch_size: int,
    is_training: bool = False,
    no_aug: bool = False,
    *,
    policy: Policy | None = None,
    scale: tuple[float, float] | None = None,
    ratio: tuple[float, float] | None = None,
    hflip: float = 0.5,
    mean: Sequence[float] = (0.485, 0.456, 0.406),
    std: Sequence[float] = (0.229, 0.224, 0.225),
    distributed: bool = False,
    crop_pct: float | None = None,
    crop_mode: str | None = None,
    fp16: bool = False,
    img_dtype: torch.dtype | None = torch.float32,
    device: str | torch.device = "auto",
    threads: int | None = None,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
    **timm_arguments: Any,
) -> TimmLoader:
    """Batches of (images, targets), called as ``timm.data.create_loader``.

    Arguments of timm that ask for augmentations which this loader does not do are refused, by name, unless they ask
    for nothing; those about worker processes and prefetching are taken and make no difference.

    Args:
        dataset: what ``image_loader`` takes, or a data set of timm or torchvision that lists its files
            (``samples``); its own transform is not used.
        input_size: the images' side, or (3, side, side).
        batch_size: images per batch on this rank.
        is_training: shuffled, random-resized crop, flip and ``policy``; else centre crop.
        no_aug: not together with ``is_training``.
        policy: what to hide, in training only; not timm's.
        scale: of the area of random crops, from (0.08, 1.0).
        ratio: of their aspect ratio, from (3/4, 4/3).
        hflip: probability of a flip.
        mean, std: per channel, 0..1, as timm has them.
        distributed: this process's rank and world size from ``torch.distributed``; the ranks' data and settings are
            compared once, here.
        crop_pct: evaluation: side over the short side that images are resized to before the crop; None: 0.875.
        crop_mode: evaluation: "center", or "squash": the whole image, whatever its aspect ratio.
        fp16: float16 images, as ``img_dtype=torch.float16``.
        img_dtype: torch.float32 or torch.float16.
        device: where batches go.
        threads: decoding threads.
        seed: of order, crops and flips.
        options: more arguments for ``image_loader``, such as {"cache": "decoded"}.
        timm_arguments: the others of timm's, see above.

    Raises:
        ValueError, TypeError: an argument is out of range, unknown, or asks for what this loader does not do; or the
            ranks differ in it.

    Example:
        >>> from has_dali.pipelines import ArraySource
        >>> import numpy as np
        >>> images = ArraySource.from_images(np.zeros((4, 40, 40, 3), np.uint8), labels=[0, 1, 0, 1])
        >>> loader = create_loader(images, (3, 32, 32), batch_size=2, is_training=True, color_jitter=0.0, device="cpu")
        >>> [(tuple(images.shape), tuple(targets.shape)) for images, targets in loader]
        [((2, 3, 32, 32), (2,)), ((2, 3, 32, 32), (2,))]
    """
    _check_others(timm_arguments)
    if no_aug and is_training:
        raise ValueError("no_aug=True: training always crops at random here; leave it out")
    crop: dict[str, Any] = {}
    if is_training:
        crop = {"policy": policy, "scale": scale or (0.08, 1.0), "ratio": ratio or (3 / 4, 4 / 3), "mirror": hflip}
    elif policy is not None:
        raise ValueError("policy: evaluation hides nothing (is_training=False); leave policy out")
    elif crop_mode == "squash":
        crop = {"crop": "warp"}
    elif crop_mode in (None, "", "center"):
        crop = {"resize": math.floor(_side(input_size) / _share(crop_pct))}
    else:
        raise ValueError(f"crop_mode={crop_mode!r}: expected 'center' or 'squash'")
    dtype = torch.float16 if fp16 else img_dtype or torch.float32
    if dtype not in _DTYPES:
        raise ValueError(f"img_dtype={dtype}: expected torch.float32 or torch.float16")
    rank, world_size = _ranks() if distributed else (0, 1)
    data, labels = _files(dataset)
    loader = image_loader(
        data, batch_size, train=bool(is_training), size=_side(input_size), labels=labels, device=device,
        threads=threads, seed=seed, rank=rank, world_size=world_size, mean=[255 * value for value in mean],
        std=[255 * value for value in std], dtype=_DTYPES[dtype], **crop, **(options or {}),
    )  # fmt: skip
    if distributed:
        check_ranks(loader)
    return TimmLoader(loader)


def _check_others(arguments: Mapping[str, Any]) -> None:
    for name, value in arguments.items():
        if name in _IGNORED:
            continue
        if name not in _NEUTRAL:
            raise TypeError(f"{name}={value!r}: create_loader takes no such argument, nor does timm's")
        if value not in _NEUTRAL[name]:
            raise ValueError(
                f"{name}={value!r}: this loader does not do that; give {name}={_NEUTRAL[name][0]!r}, or use timm's"
            )


def _side(input_size: int | Sequence[int]) -> int:
    sides = [input_size] if isinstance(input_size, int) else list(input_size)
    if len(set(sides[-2:])) != 1 or (len(sides) == 3 and sides[0] != 3) or len(sides) > 3:
        raise ValueError(f"input_size={input_size!r}: expected a side, or (3, side, side) with both sides equal")
    return int(sides[-1])


def _share(crop_pct: float | None) -> float:
    share = 0.875 if crop_pct is None else float(crop_pct)
    if not 0 < share <= 1:
        raise ValueError(f"crop_pct={crop_pct!r}: expected a number above 0, at most 1")
    return share


def _ranks() -> tuple[int, int]:
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        raise ValueError("distributed=True: torch.distributed is not initialised; call init_process_group before")
    return torch.distributed.get_rank(), torch.distributed.get_world_size()


def _files(dataset: Any) -> tuple[Any, Any]:
    """What ``image_loader`` takes as data and labels."""
    samples = getattr(dataset, "samples", None) or getattr(getattr(dataset, "reader", None), "samples", None)
    if samples is None:
        return dataset, None
    try:
        files, labels = zip(*samples, strict=True)
    except (TypeError, ValueError):
        raise TypeError("dataset: its samples are no pairs of file and target; give a folder or a list") from None
    return list(files), [int(label) for label in labels]
