"""Opening a data set with boxes or masks by its layout."""

from __future__ import annotations

import os
from pathlib import Path

from has_dali.trainers.datasets import ilsvrc, npz, tiny_imagenet, wsol_metadata
from has_dali.trainers.datasets.images import BoxedImages, MaskedImages
from has_dali.trainers.datasets.labeled import checked_folder

LAYOUTS = (
    "Tiny ImageNet, ILSVRC (Data/CLS-LOC and Annotations/CLS-LOC/val), train.npz and val.npz (images, labels, boxes),"
    " or any images with metadata=, a folder of wsolevaluation's lists (image_ids.txt, localization.txt, ...)"
)


def open_boxed(
    data: str | os.PathLike[str], metadata: str | os.PathLike[str] | None = None
) -> BoxedImages | MaskedImages:
    """The data set in a folder, with boxes of each image's own class.

    Layouts: Tiny ImageNet's (boxes for train and val); ILSVRC's CLS-LOC with its XML files or
    ``LOC_val_solution.csv`` (boxes for val); ``train.npz`` and ``val.npz`` with ``boxes``; with ``metadata``, any
    images that the text lists of wsolevaluation describe, and ``MaskedImages`` where those name masks, not boxes.
    Sizes are those of the lists, the XML files or the image headers. Boxes one pixel wide or high are kept.

    Args:
        data: the folder of images.
        metadata: the folder of lists.

    Raises:
        OSError: a folder or file is missing.
        ValueError: no layout fits, an image has no box or mask, a box leaves its image, or the classes of train and val
            differ.
    """
    root = checked_folder(data)
    if metadata is not None:
        if not Path(metadata).is_dir():
            raise FileNotFoundError(f"metadata={str(metadata)!r}: no such folder; expected one with image_ids.txt")
        return wsol_metadata.located(root, Path(metadata))
    if tiny_imagenet.is_tiny_imagenet(root):
        images = tiny_imagenet.labeled(root)
        val_boxes, train_boxes = tiny_imagenet.boxes(root, images)
        return BoxedImages(images.name, images.train, images.val, images.classes, val_boxes, train_boxes)
    if (base := ilsvrc.ilsvrc_root(root)) is not None:
        return ilsvrc.boxed(base)
    if npz.is_npz_folder(root):
        return npz.boxed(root)
    raise ValueError(f"data={str(root)!r}: no known layout with boxes; expected\n{LAYOUTS}")
