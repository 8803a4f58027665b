"""From what a reader has found to ``Boxes``, with errors that name the image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy.typing as npt

from has_dali.trainers.datasets.boxes import Box, BoxError, Boxes


def found_boxes(files: Sequence[str], boxes: Sequence[Sequence[Box]], sizes: npt.ArrayLike, where: str) -> Boxes:
    """The boxes of all images.

    Args:
        files: names for messages, one per image.
        boxes: the boxes found for each image.
        sizes: (N, 2), height first.
        where: the file or folder that they are from.

    Raises:
        ValueError: an image has no box (the first is named, and how many there are), or a box leaves its image.
    """
    without = [file for file, found in zip(files, boxes, strict=True) if not found]
    if without:
        raise ValueError(
            f"missing boxes: {len(without)} of {len(files)} images have no box of their class, the first is"
            f" {without[0]}; expected one in {where}"
        )
    try:
        return Boxes.from_lists(boxes, sizes)
    except BoxError as error:
        raise ValueError(f"{where}: {files[error.image]}: {error}") from None
