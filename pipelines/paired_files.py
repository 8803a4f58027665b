"""Images and their label masks as two lists of files: from a VOC folder, two folders, or lists."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from has_dali.pipelines.sources import IMAGE_EXTENSIONS, PathLike

Pairs: TypeAlias = tuple[list[str], list[str]]

_IMAGES, _MASKS, _LISTS = "JPEGImages", "SegmentationClass", os.path.join("ImageSets", "Segmentation")


def paired_files(
    data: PathLike | Sequence[PathLike], masks: PathLike | Sequence[PathLike] | None = None, split: str | None = None
) -> Pairs:
    """Paths of images and of their masks, in the order of sample ids.

    Args:
        data: a folder in the layout of Pascal VOC, where ``masks`` is None; else a folder of images, or a list of them.
        masks: for a folder of images the folder of masks, matched by name without extension (every image needs
            one; masks without an image are left out); for a list of images a list of as many masks, in its order; for
            a VOC folder, with ``split``, another folder than ``SegmentationClass``.
        split: the list of a VOC folder: ``ImageSets/Segmentation/<split>.txt``.

    Raises:
        OSError: a folder, a list or a file is missing.
        ValueError, TypeError: images and masks cannot be paired; says why.
    """
    if isinstance(data, (str, os.PathLike)):
        root = os.fspath(data)
        if masks is not None and not isinstance(masks, (str, os.PathLike)):
            raise TypeError("masks: data is a folder, so expected the folder of its masks, got a list")
        if masks is None or split is not None:
            return _voc(root, split, os.path.join(root, _MASKS) if masks is None else os.fspath(masks))
        return _folders(root, os.fspath(masks))
    if split is not None:
        raise ValueError(f"split={split!r}: only a VOC folder has splits, got a list of files")
    if masks is None or isinstance(masks, (str, os.PathLike)):
        raise TypeError("masks: data is a list of images, so expected a list of as many masks, in the same order")
    images, targets = _listed("data", data), _listed("masks", masks)
    if len(images) != len(targets):
        raise ValueError(f"masks: expected {len(images)} files, one per image, got {len(targets)}")
    if not images:
        raise ValueError("data is empty: expected at least one image file")
    return images, targets


def _voc(root: str, split: str | None, masks: str) -> Pairs:
    images, lists = os.path.join(root, _IMAGES), os.path.join(root, _LISTS)
    for folder in (root, images, masks, lists):
        if not os.path.isdir(folder):
            raise FileNotFoundError(
                f"data={root!r}: no folder {folder}; expected {_IMAGES}, {_MASKS} and {_LISTS}, or, without split, give"
                " masks="
            )
    known = sorted(name[: -len(".txt")] for name in os.listdir(lists) if name.endswith(".txt"))
    if split not in known:
        raise ValueError(f"split={split!r}: expected one of {', '.join(known) or 'none: no list'} ({lists})")
    with open(os.path.join(lists, f"{split}.txt"), encoding="utf-8") as file:
        names = [line.strip() for line in file if line.strip()]
    if not names:
        raise ValueError(f"split={split!r}: {os.path.join(lists, split)}.txt is empty")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"split={split!r}: {twice[0]!r} stands in the list more than once; remove the repetition")
    pictures, targets = _by_stem(images), _by_stem(masks)
    for name in names:
        for kind, folder, found in (("image", images, pictures), ("mask", masks, targets)):
            if name not in found:
                raise FileNotFoundError(f"split={split!r}: {name!r} has no {kind} in {folder}")
    return [pictures[name] for name in names], [targets[name] for name in names]


def _folders(images: str, masks: str) -> Pairs:
    pictures, targets = _by_stem(images), _by_stem(masks)
    if not pictures:
        raise FileNotFoundError(f"data={images!r}: holds no images ({' '.join(IMAGE_EXTENSIONS)})")
    missing = sorted(set(pictures) - set(targets))
    if missing:
        raise FileNotFoundError(
            f"masks={masks!r}: {len(missing)} of {len(pictures)} images have no mask, the first is"
            f" {pictures[missing[0]]}; expected one with the same name, such as {missing[0]}.png"
        )
    names = sorted(pictures)
    return [pictures[name] for name in names], [targets[name] for name in names]


def _by_stem(folder: str) -> dict[str, str]:
    """Files of a folder by name without extension."""
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise type(error)(f"{folder!r}: cannot be listed ({error.strerror}); expected a folder of images") from None
    found: dict[str, str] = {}
    for name in names:
        stem, extension = os.path.splitext(name)
        if extension.lower() not in IMAGE_EXTENSIONS:
            continue
        path = os.path.join(folder, name)
        if stem in found:
            raise ValueError(f"{found[stem]} and {path} have one name; remove one, or give lists of files")
        found[stem] = path
    return found


def _listed(name: str, files: Iterable[PathLike]) -> list[str]:
    try:
        return [os.fspath(path) for path in files]
    except TypeError as error:
        raise TypeError(f"{name}: expected a folder or a sequence of file paths ({error})") from None
