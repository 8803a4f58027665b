"""Object masks of many images, in files that are read when they are needed."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from has_dali.pipelines.pil import opened_image
from has_dali.trainers.datasets.headers import READERS

IGNORED = 255
"""Value of pixels that do not count."""


@dataclass(frozen=True, eq=False)
class Masks:
    """The masks of each image's own class: any grey above 0 marks a pixel.

    A file need not have its image's size; it is brought to the size asked for.

    Args:
        objects: the files of each image's masks, one per object; at least one.
        ignored: the files of regions of each image that do not count; none or more.

    Raises:
        ValueError: the two differ in length, or an image has no mask.
    """

    objects: tuple[tuple[str, ...], ...]
    ignored: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        if len(self.objects) != len(self.ignored):
            raise ValueError(
                f"masks: expected regions to ignore (or none) of {len(self.objects)} images, got {len(self.ignored)}"
            )
        without = [image for image, files in enumerate(self.objects) if not files]
        if without:
            raise ValueError(f"masks: {len(without)} images have none, the first is image {without[0]}")

    def __len__(self) -> int:
        """Number of images."""
        return len(self.objects)

    def of(self, image: int, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
        """The mask of one image.

        Sizes change as in the wsolevaluation benchmark, which reads with OpenCV: pixel x of the result is pixel
        floor(x * width / new width) of the file. An object may vanish that way; that is no error.

        Args:
            image: its number.
            size: height and width wanted.

        Returns:
            (height, width): 1 where any of its objects is, ``IGNORED`` in its regions to ignore outside of them, else
            0.

        Raises:
            ValueError: a file is missing, is no image, or the files of all its objects are empty.
        """
        objects = [_marked(file) for file in self.objects[image]]
        if not any(marked.any() for marked in objects):
            files = self.objects[image]
            others = f" and the {len(files) - 1} other masks of its image" if len(files) > 1 else ""
            raise ValueError(
                f"{files[0]}{others}: no pixel is above 0, so there is no object; replace the mask or take its image"
                " off the lists"
            )
        inside = _united(objects, size)
        outside = _united([_marked(file) for file in self.ignored[image]], size) & ~inside
        return np.where(outside, np.uint8(IGNORED), inside.astype(np.uint8))

    def batch(self, images: npt.ArrayLike, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
        """(n, height, width): the masks of several images; see ``of``."""
        with ThreadPoolExecutor(READERS) as pool:
            masks = list(pool.map(lambda image: self.of(image, size), np.asarray(images, np.int64).tolist()))
        return np.stack(masks) if masks else np.zeros((0, *size), np.uint8)


def _marked(file: str) -> npt.NDArray[np.bool_]:
    with opened_image(file) as image:
        return np.asarray(image.convert("L")) > 0


def _united(masks: Sequence[npt.NDArray[np.bool_]], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    united = np.zeros(size, np.bool_)
    for mask in masks:
        united |= cv2.resize(mask.view(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST).view(np.bool_)
    return united
