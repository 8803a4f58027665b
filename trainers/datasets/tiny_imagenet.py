"""Tiny ImageNet's layout: ``train/<wnid>/images``, ``val/images`` and ``val/val_annotations.txt``, with a box for
every image. Coordinates in these files are whole pixels with both ends inside the box (a full frame is 0 0 63 63).
"""

from __future__ import annotations

import os
from pathlib import Path

from has_dali.pipelines.sources import FileSource, folder_source
from has_dali.trainers.datasets.boxes import Box, Boxes
from has_dali.trainers.datasets.found import found_boxes
from has_dali.trainers.datasets.headers import image_sizes
from has_dali.trainers.datasets.images import LabeledImages, check_same_classes

ANNOTATIONS = os.path.join("val", "val_annotations.txt")


def is_tiny_imagenet(root: Path) -> bool:
    """Whether ``root`` holds this layout."""
    return (root / ANNOTATIONS).is_file() and (root / "train").is_dir()


def labeled(root: Path) -> LabeledImages:
    """Images and labels; classes are the sorted folder names of ``train``.

    Raises:
        ValueError: a line or an image is wrong, or the classes of train and val differ.
        OSError: a folder is missing or unreadable.
    """
    train = folder_source(root / "train")
    table = {name: rest[0] for name, rest in _table(root / ANNOTATIONS, 5).items()}
    check_same_classes(set(train.classes), set(table.values()), f"data={str(root)!r}")
    folder = root / "val" / "images"
    names = sorted(table)
    on_disk = set(os.listdir(folder))
    if absent := [name for name in names if name not in on_disk]:
        raise ValueError(f"{root / ANNOTATIONS}: {len(absent)} images are not in {folder}, the first is {absent[0]}")
    label = {name: index for index, name in enumerate(train.classes)}
    val = FileSource([folder / name for name in names], [label[table[name]] for name in names], train.classes)
    return LabeledImages(root.resolve().name, train, val, train.classes)


def boxes(root: Path, images: LabeledImages) -> tuple[Boxes, Boxes]:
    """Boxes of val and of train.

    Raises:
        ValueError: an image has no box, or a line is wrong.
        OSError: a file is missing.
    """
    val_table = {name: _box(rest[1:], root / ANNOTATIONS) for name, rest in _table(root / ANNOTATIONS, 5).items()}
    train_table: dict[str, Box] = {}
    for wnid in images.classes:
        file = root / "train" / wnid / f"{wnid}_boxes.txt"
        train_table.update({name: _box(rest, file) for name, rest in _table(file, 4).items()})
    where = str(root / "train" / "<wnid>" / "<wnid>_boxes.txt")
    assert isinstance(images.val, FileSource) and isinstance(images.train, FileSource)
    return _of(images.val, val_table, str(root / ANNOTATIONS)), _of(images.train, train_table, where)


def _of(source: FileSource, table: dict[str, Box], where: str) -> Boxes:
    files = [source.path(i) for i in range(len(source))]
    found = [[table[name]] if (name := os.path.basename(file)) in table else [] for file in files]
    return found_boxes(files, found, image_sizes(files), where)


def _table(file: Path, columns: int) -> dict[str, list[str]]:
    """Lines of a file name and ``columns`` more words."""
    table: dict[str, list[str]] = {}
    for number, line in enumerate(file.read_text().splitlines(), 1):
        words = line.split()
        if not words:
            continue
        if len(words) != columns + 1:
            raise ValueError(f"{file}, line {number}: expected {columns + 1} words, got {len(words)}: {line!r}")
        table[words[0]] = words[1:]
    return table


def _box(words: list[str], file: Path) -> Box:
    try:
        x0, y0, x1, y1 = (int(word) for word in words)
    except ValueError:
        raise ValueError(f"{file}: expected four whole numbers for a box, got {' '.join(words)!r}") from None
    return x0, y0, x1, y1
