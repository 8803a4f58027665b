"""The layout of ILSVRC's CLS-LOC data, and its boxes.

``ILSVRC/Data/CLS-LOC/train/<wnid>/``, ``.../val/`` flat or in class folders, and for val the boxes of
``ILSVRC/Annotations/CLS-LOC/val/*.xml``, or of ``LOC_val_solution.csv`` where those are missing.

The XML files have PASCAL VOC's form but not its count from 1: coordinates of 0 and of width - 1 occur throughout, no
box of val ends at the width, and the development kit compares them as they are. So they are used as they are, from 0
with both ends inside. A box that ends past the picture is cut to it.
"""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from has_dali.pipelines.sources import IMAGE_EXTENSIONS, FileSource, folder_source
from has_dali.trainers.datasets.boxes import Box
from has_dali.trainers.datasets.found import found_boxes
from has_dali.trainers.datasets.headers import image_sizes
from has_dali.trainers.datasets.images import BoxedImages, LabeledImages, check_same_classes
from has_dali.trainers.datasets.voc_xml import read_annotations

NAME = "ILSVRC CLS-LOC"
_IMAGES = Path("Data", "CLS-LOC")
_XML = Path("Annotations", "CLS-LOC", "val")
_CSV = "LOC_val_solution.csv"

# What is known of one val image: (wnid, box) of each object.
Objects = list[tuple[str, Box]]


def ilsvrc_root(root: Path) -> Path | None:
    """``root`` or its folder ILSVRC, whichever holds ``Data/CLS-LOC/train``."""
    return next((base for base in (root, root / "ILSVRC") if (base / _IMAGES / "train").is_dir()), None)


def image_root(base: Path) -> Path:
    """The folder with ``train`` and ``val``."""
    return base / _IMAGES


def labeled(base: Path) -> LabeledImages:
    """Images and labels; of a flat val folder, labels come from the boxes' class names.

    Raises:
        ValueError: labels of val cannot be found, or the classes of train and val differ.
        OSError: a folder is missing or unreadable.
    """
    train = folder_source(base / _IMAGES / "train")
    folder = base / _IMAGES / "val"
    if any(entry.is_dir() for entry in os.scandir(folder)):
        val = folder_source(folder)
        check_same_classes(set(train.classes), set(val.classes), f"data={str(base)!r}")
    else:
        val = _flat(base, _flat_files(folder), train.classes)
    return LabeledImages(NAME, train, val, train.classes)


def boxed(base: Path) -> BoxedImages:
    """The same with the boxes of val. Only a part of the training images has boxes, so there are none for train.

    Raises:
        ValueError, OSError: as ``labeled``, or an image has no box of its class, or a box file is wrong.
    """
    images = labeled(base)
    assert isinstance(images.val, FileSource)
    files = [images.val.path(i) for i in range(len(images.val))]
    objects, sizes, where = _objects(base, files)
    names = [images.classes[label] for label in images.val.labels]
    of_class = [[box for wnid, box in found if wnid == name] for name, found in zip(names, objects, strict=True)]
    boxes = found_boxes(files, _cut(of_class, sizes), sizes, where)
    return BoxedImages(images.name, images.train, images.val, images.classes, boxes, None)


def blacklisted_ids(file: Path, source: FileSource) -> npt.NDArray[np.int64]:
    """Sample ids of the val images that the development kit leaves out.

    Args:
        file: the kit's list, one number per line: 36 stands for ``ILSVRC2012_val_00000036``.
        source: the val images.

    Raises:
        ValueError: a line is no number, or a number has no image.
        OSError: the file is missing or unreadable.
    """
    ids = {Path(source.path(i)).stem.rpartition("_")[2]: i for i in range(len(source))}
    found = []
    for line in file.read_text().split():
        key = line.zfill(8)
        if key not in ids:
            raise ValueError(f"{file}: {line!r} is the number of no image in val; expected the list of the ILSVRC kit")
        found.append(ids[key])
    return np.array(sorted(found), np.int64)


def _flat_files(folder: Path) -> list[str]:
    files = sorted(str(folder / name) for name in os.listdir(folder) if name.lower().endswith(IMAGE_EXTENSIONS))
    if not files:
        raise FileNotFoundError(f"data: {str(folder)!r} holds no images and no class folders")
    return files


def _flat(base: Path, files: list[str], classes: tuple[str, ...]) -> FileSource:
    objects, _, where = _objects(base, files, with_sizes=False)
    names: list[str] = []
    for file, found in zip(files, objects, strict=True):
        wnids = {wnid for wnid, _ in found}
        if len(wnids) != 1:
            raise ValueError(
                f"{file}: expected objects of one class in {where}, got {sorted(wnids) or 'none'}; the class of a flat"
                " val folder's image is its boxes'"
            )
        names += wnids
    check_same_classes(set(classes), set(names), f"data={str(base)!r}")
    label = {name: index for index, name in enumerate(classes)}
    return FileSource(files, [label[name] for name in names], classes)


def _objects(
    base: Path, files: list[str], *, with_sizes: bool = True
) -> tuple[list[Objects], npt.NDArray[np.int64], str]:
    """Objects and size (N, 2) of each file, and where they are from."""
    stems = [Path(file).stem for file in files]
    if (base / _XML).is_dir():
        found = read_annotations([str(base / _XML / f"{stem}.xml") for stem in stems])
        sizes = np.array([(item.height, item.width) for item in found], np.int64).reshape(-1, 2)
        return [item.objects for item in found], sizes, str(base / _XML)
    table_file = next((place / _CSV for place in (base, base.parent) if (place / _CSV).is_file()), None)
    if table_file is None:
        raise FileNotFoundError(
            f"data: expected the classes and boxes of val in {base / _XML} or in {base.parent / _CSV}; found neither"
        )
    table = _read_csv(table_file)
    sizes = image_sizes(files) if with_sizes else np.empty((0, 2), np.int64)
    return [table.get(stem, []) for stem in stems], sizes, str(table_file)


def _read_csv(file: Path) -> dict[str, Objects]:
    """Lines ``image,wnid x0 y0 x1 y1 wnid x0 y0 ...`` after a heading."""
    table: dict[str, Objects] = {}
    with open(file, newline="") as handle:
        for row in list(csv.reader(handle))[1:]:
            try:
                name, text = row
                words = text.split()
                fields = zip(*(iter(words),) * 5, strict=True)
                table[name] = [(wnid, (int(x0), int(y0), int(x1), int(y1))) for wnid, x0, y0, x1, y1 in fields]
            except ValueError:
                raise ValueError(f"{file}: expected 'image,wnid x0 y0 x1 y1 ...' in each line, got {row!r}") from None
    return table


def _cut(boxes: list[list[Box]], sizes: npt.NDArray[np.int64]) -> list[list[Box]]:
    ends = [(width - 1, height - 1) for height, width in sizes.tolist()]
    return [
        [(max(x0, 0), max(y0, 0), min(x1, right), min(y1, bottom)) for x0, y0, x1, y1 in of_image]
        for of_image, (right, bottom) in zip(boxes, ends, strict=True)
    ]
