"""The loaders whose memory the trial ``memory`` watches: each keeps or builds anew something that could leak."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from has_dali.kernels.policy import HideAndSeek

BATCH_SIZE, SIZE = 16, 64
SMALL = 3 * BATCH_SIZE  # images of the schedule's loader: its pipeline is built anew every third batch
BROKEN = 3


@dataclass(frozen=True)
class Setup:
    """What all kinds are made of.

    Args:
        images: a class folder.
        masks: one PNG for each of its images, by name.
        broken: the same images in a class folder, three of them broken.
        seed: of order, crops and masks.
        threads: of each loader; None: the usable cores.
    """

    images: Path
    masks: Path
    broken: Path
    seed: int
    threads: int | None

    @classmethod
    def beside(cls, images: Path, seed: int, threads: int | None) -> Setup:
        """Masks and broken files written beside a class folder of images."""
        from PIL import Image, ImageOps

        masks, broken = images.with_name("masks"), images.with_name("broken")
        masks.mkdir()
        for number, path in enumerate(sorted(images.rglob("*.jpg"))):
            with Image.open(path) as picture:
                width, height = ImageOps.exif_transpose(picture).size
            labels = np.random.default_rng(number).integers(0, 21, (height, width), np.uint8)
            Image.fromarray(labels).save(masks / f"{path.stem}.png")
            copy = broken / path.relative_to(images)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(b"no image" if number < BROKEN else path.read_bytes())
        return cls(images, masks, broken, seed, threads)

    def policy(self) -> HideAndSeek:
        """What is hidden."""
        return HideAndSeek((0, 8, 16, 32), seed=self.seed)

    def loader(self, data: Any, **options: Any) -> Any:
        """A training loader."""
        from has_dali.pipelines.loader import image_loader

        options = {"policy": self.policy(), "size": SIZE, "seed": self.seed, "threads": self.threads, **options}
        return image_loader(data, BATCH_SIZE, train=True, **options)


def _scheduled(setup: Setup) -> Any:
    """Another policy in every epoch, and short epochs."""
    from has_dali.pipelines.policy_schedule import PolicySchedule

    schedule = PolicySchedule(setup.policy(), p_hide=lambda epoch: 0.1 + 0.8 * math.modf(epoch * 0.618)[0])
    files = sorted(setup.images.rglob("*.jpg"))[:SMALL]
    return setup.loader(files, policy=schedule)


def _paired(setup: Setup) -> Any:
    from has_dali.pipelines.paired import paired_loader

    files = sorted(setup.images.rglob("*.jpg"))
    return paired_loader(
        files, BATCH_SIZE, train=True, masks=[setup.masks / f"{file.stem}.png" for file in files], size=SIZE,
        policy=setup.policy(), seed=setup.seed, threads=setup.threads,
    )  # fmt: skip


KINDS: dict[str, Callable[[Setup], Any]] = {
    "files": lambda setup: setup.loader(setup.images),
    "decoded": lambda setup: setup.loader(setup.images, cache="decoded"),
    "skip": lambda setup: setup.loader(setup.broken, on_error="skip", error_budget=0.2),
    "schedule": _scheduled,
    "paired": _paired,
    "anew": lambda setup: setup.loader(setup.images),
}
"""By name: from files; from memory; with broken files; another policy in each epoch; with masks; made anew often."""

ANEW = frozenset(("anew",))
"""Kinds whose loader is dropped and made anew at every jump."""
