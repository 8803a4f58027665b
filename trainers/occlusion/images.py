"""Which images an occlusion trial is made on: drawn from the validation set, or listed in a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from has_dali.kernels import reference
from has_dali.trainers.occlusion.covers import CHOICE_BLOCK

CLASSES, PER_CLASS = 100, 2


def choose_images(
    labels: npt.ArrayLike, classes: int = CLASSES, per_class: int = PER_CLASS, seed: int = 0
) -> npt.NDArray[np.int64]:
    """Sample ids of some images of some classes, or as many as there are: sorted, (<= classes * per_class,) int64.

    Args:
        labels: (N,) integers, one per sample id.
        classes: number of classes to draw.
        per_class: images to draw per class.
        seed: 64-bit integer.

    Raises:
        ValueError: there are no images, or a number is below 1.
    """
    label = np.asarray(labels, np.int64)
    if not len(label) or classes < 1 or per_class < 1:
        raise ValueError(
            f"images={len(label)}, classes={classes}, per_class={per_class}: expected at least one of each"
        )
    present = np.unique(label)
    drawn = sorted(present.tolist(), key=lambda c: _word(seed, c, 0))[:classes]
    ids = [sorted(np.flatnonzero(label == c).tolist(), key=lambda i: _word(seed, i, 1))[:per_class] for c in drawn]
    return np.sort(np.concatenate(ids)).astype(np.int64)


def read_image_list(file: Path | str, classes: Sequence[str]) -> tuple[tuple[Path, ...], npt.NDArray[np.int64]]:
    """Images of a text file: a path and a label per line, ``path,label``. Blank lines and ``#`` comments are skipped.

    Args:
        file: the list; paths in it are relative to its folder.
        classes: names of the classes that the models know. A label is a name, or else an index.

    Returns:
        Paths, and (N,) int64 labels.

    Raises:
        OSError: the list or an image does not exist.
        ValueError: a line is not a path and a label, a label is unknown, an image is listed twice, or there is none.
    """
    file = Path(file)
    index = {name: i for i, name in enumerate(classes)}
    seen: dict[Path, int] = {}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        where = f"{file}, line {number}"
        name, comma, label = (part.strip() for part in text.rpartition(","))
        if not comma or not name or not label:
            raise ValueError(f"{where}: expected path,label, got {text!r}")
        path = file.parent / name
        if not path.is_file():
            raise FileNotFoundError(f"{where}: the image {path} does not exist; paths are relative to the list")
        if path in seen:
            raise ValueError(f"{where}: {name} is listed twice; remove one line, or it would count double")
        seen[path] = _class_index(where, label, index)
    if not seen:
        raise ValueError(f"{file}: lists no image; expected lines of path,label")
    return tuple(seen), np.array(list(seen.values()), np.int64)


def _word(seed: int, number: int, place: int) -> int:
    """A random word by which classes (place 0) and images (place 1) are put into an order."""
    return int(reference.words(seed, 0, number, CHOICE_BLOCK)[0, place])


def _class_index(where: str, label: str, index: Mapping[str, int]) -> int:
    if label in index:
        return index[label]
    if label.isascii() and label.isdigit() and int(label) < len(index):
        return int(label)
    raise ValueError(
        f"{where}: label {label!r} is no class of the models; expected one of {len(index)} names, such as"
        f" {next(iter(index), '')!r}, or an index from 0 to {len(index) - 1}"
    )
