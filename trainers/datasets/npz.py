"""A folder with ``train.npz`` and ``val.npz``: arrays ``images``, ``labels`` and, for localisation, ``boxes``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from has_dali.pipelines.array_files import npz_source
from has_dali.pipelines.sources import FileSource
from has_dali.trainers.datasets.boxes import Box, Boxes
from has_dali.trainers.datasets.found import found_boxes
from has_dali.trainers.datasets.images import BoxedImages, LabeledImages, check_same_labels

PARTS = ("train", "val")
PADDING = [-1, -1, -1, -1]


def is_npz_folder(root: Path) -> bool:
    """Whether ``root`` holds both files."""
    return all((root / f"{part}.npz").is_file() for part in PARTS)


def labeled(root: Path) -> LabeledImages:
    """Images and labels; classes are called by their numbers where the files name none.

    Raises:
        ValueError: a file has no labels, or the classes of train and val differ.
    """
    train, val = (npz_source(root / f"{part}.npz") for part in PARTS)
    for part, source in zip(PARTS, (train, val), strict=True):
        if source.labels.min() < 0:
            raise ValueError(f"{root / f'{part}.npz'}: expected labels from 0 on, one per image, got none or negatives")
    highest = int(max(train.labels.max(), val.labels.max()))
    classes = train.classes or tuple(f"{label:0{len(str(highest))}d}" for label in range(highest + 1))
    if highest >= len(classes):
        raise ValueError(f"{root}: label {highest} has no class name; train.npz names {len(classes)} classes")
    return check_same_labels(LabeledImages(root.resolve().name, train, val, classes), f"data={str(root)!r}")


def boxed(root: Path) -> BoxedImages:
    """The same with boxes: (N, 4), or (N, K, 4) with rows of -1 where an image has fewer than K.

    Raises:
        ValueError: val.npz has no boxes, they are of another form, or an image has none.
    """
    images = labeled(root)
    assert not isinstance(images.train, FileSource) and not isinstance(images.val, FileSource)
    val_boxes = _boxes(root / "val.npz", images.val.shapes)
    if val_boxes is None:
        raise ValueError(f"missing boxes: {root / 'val.npz'} has no array 'boxes'; expected (N, 4) or (N, K, 4)")
    train_boxes = _boxes(root / "train.npz", images.train.shapes)
    return BoxedImages(images.name, images.train, images.val, images.classes, val_boxes, train_boxes)


def _boxes(file: Path, sizes: npt.NDArray[np.int64]) -> Boxes | None:
    with np.load(file) as arrays:
        if "boxes" not in arrays:
            return None
        values = arrays["boxes"]
    if values.dtype.kind not in "iu" or values.ndim not in (2, 3) or values.shape[-1] != 4:
        raise ValueError(
            f"{file}: boxes: expected whole numbers (N, 4) or (N, K, 4), got {values.dtype} of shape {values.shape}"
        )
    if len(values) != len(sizes):
        raise ValueError(f"{file}: boxes: expected one row for each of {len(sizes)} images, got {len(values)}")
    rows = values.reshape(len(values), -1, 4).tolist()
    found: list[list[Box]] = [[(a, b, c, d) for a, b, c, d in row if [a, b, c, d] != PADDING] for row in rows]
    return found_boxes([f"image {i}" for i in range(len(found))], found, sizes, str(file))
