"""The text metadata of the wsolevaluation benchmark: image lists, labels, sizes and boxes as comma-separated lines.

``image_ids.txt`` (path), ``class_labels.txt`` (path, label), ``image_sizes.txt`` (path, width, height) and
``localization.txt`` (path, x0, y0, x1, y1; one line per box, from 0 with both ends inside; or masks, see
``wsol_masks``). In that benchmark the folder ``test`` describes the set that others call val, and ``val`` a small one
for tuning.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from has_dali.pipelines.sources import FileSource, folder_source
from has_dali.trainers.datasets.boxes import Box, Boxes
from has_dali.trainers.datasets.found import found_boxes
from has_dali.trainers.datasets.headers import image_sizes
from has_dali.trainers.datasets.ilsvrc import ilsvrc_root, image_root
from has_dali.trainers.datasets.images import BoxedImages, MaskedImages, check_same_labels
from has_dali.trainers.datasets.wsol_masks import lists_masks, read_masks

_IDS, _LABELS, _SIZES, _BOXES = "image_ids.txt", "class_labels.txt", "image_sizes.txt", "localization.txt"


def located(root: Path, metadata: Path) -> BoxedImages | MaskedImages:
    """Images below ``root``, described by ``metadata``.

    Args:
        root: the folder that all paths in the lists are relative to (of an ILSVRC layout: also its top folder).
        metadata: a folder with ``train`` and ``test`` (else ``val``) folders of lists, or with the lists of the
            evaluation images alone; training images are then the class folders of ``root/train``, and labels
            number them in sorted order.

    Returns:
        Images with boxes, or with masks if those are what the evaluation images have; lists of training boxes do not
        count then.

    Raises:
        ValueError: a list is wrong, an image has no box or mask, or classes differ between train and val.
        OSError: a list, a folder or a mask is missing.
    """
    base = ilsvrc_root(root)
    images_at = root if base is None else image_root(base)
    train_ids: list[str] | None = None
    if (metadata / _IDS).is_file():
        evaluated = metadata
        train = folder_source(images_at / "train")
        classes = train.classes
        numbers = dict(enumerate(range(len(classes))))
    else:
        evaluated = metadata / ("test" if (metadata / "test" / _IDS).is_file() else "val")
        train_ids, labels = _lists(metadata / "train")
        classes, numbers = _classes(train_ids, labels)
        train = _source(images_at, train_ids, labels, classes, numbers, metadata / "train" / _LABELS)
    ids, labels = _lists(evaluated)
    val = _source(images_at, ids, labels, classes, numbers, evaluated / _LABELS)
    name, places = root.resolve().name, evaluated / _BOXES
    images: BoxedImages | MaskedImages
    if lists_masks(places):
        images = MaskedImages(name, train, val, classes, read_masks(places, ids, images_at))
    else:
        train_boxes = None
        if train_ids is not None and (metadata / "train" / _BOXES).is_file():
            train_boxes = _boxes(metadata / "train", train_ids, train)
        images = BoxedImages(name, train, val, classes, _boxes(evaluated, ids, val), train_boxes)
    check_same_labels(images, f"metadata={str(metadata)!r}")
    return images


def _lists(folder: Path) -> tuple[list[str], list[int]]:
    """Paths and their labels."""
    ids = [line for line in (folder / _IDS).read_text().splitlines() if line]
    table = {name: numbers[0] for name, numbers in _rows(folder / _LABELS, 1)}
    if absent := [name for name in ids if name not in table]:
        raise ValueError(f"{folder / _LABELS}: {len(absent)} images have no label, the first is {absent[0]}")
    return ids, [table[name] for name in ids]


def _classes(ids: list[str], labels: list[int]) -> tuple[tuple[str, ...], dict[int, int]]:
    """Sorted class names, and the place of each of the lists' labels among them.

    A class is called by the folder of its training images, where each class has one of its own, else by its number.
    """
    folders: dict[int, set[str]] = {}
    for name, label in zip(ids, labels, strict=True):
        folders.setdefault(label, set()).add(os.path.basename(os.path.dirname(name)))
    names = [next(iter(found)) for found in folders.values() if len(found) == 1]
    if len(set(names)) != len(folders):
        names = [f"{label:0{len(str(max(folders)))}d}" for label in folders]
    order = sorted(names)
    return tuple(order), {label: order.index(name) for label, name in zip(folders, names, strict=True)}


def _source(
    root: Path, ids: list[str], labels: list[int], classes: tuple[str, ...], numbers: dict[int, int], where: Path
) -> FileSource:
    if unknown := sorted(set(labels) - set(numbers)):
        raise ValueError(
            f"{where}: classes that differ between train and val (only here: {', '.join(map(str, unknown[:5]))});"
            " both parts need images of the same classes"
        )
    return FileSource([root / name for name in ids], [numbers[label] for label in labels], classes)


def _boxes(folder: Path, ids: list[str], source: FileSource) -> Boxes:
    table: dict[str, list[Box]] = {}
    for name, (x0, y0, x1, y1) in _rows(folder / _BOXES, 4):
        table.setdefault(name, []).append((x0, y0, x1, y1))
    return found_boxes(ids, [table.get(name, []) for name in ids], _sizes(folder, ids, source), str(folder / _BOXES))


def _sizes(folder: Path, ids: list[str], source: FileSource) -> npt.NDArray[np.int64]:
    if not (folder / _SIZES).is_file():
        return image_sizes([source.path(i) for i in range(len(source))])
    table = {name: (height, width) for name, (width, height) in _rows(folder / _SIZES, 2)}
    if absent := [name for name in ids if name not in table]:
        raise ValueError(f"{folder / _SIZES}: {len(absent)} images have no size, the first is {absent[0]}")
    return np.array([table[name] for name in ids], np.int64)


def _rows(file: Path, columns: int) -> list[tuple[str, list[int]]]:
    """Lines of a path and ``columns`` whole numbers; the path may hold commas."""
    rows = []
    with open(file) as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            name, *words = line.strip().rsplit(",", columns)
            try:
                rows.append((name, [int(word) for word in words]))
            except ValueError:
                words = []
            if len(words) != columns:
                raise ValueError(f"{file}, line {number}: expected a path and {columns} whole numbers, got {line!r}")
    return rows
