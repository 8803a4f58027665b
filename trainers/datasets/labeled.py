"""Opening a labelled data set by its layout."""

from __future__ import annotations

import os
from pathlib import Path

from has_dali.pipelines.array_files import cifar_kind, cifar_source
from has_dali.pipelines.sources import folder_source
from has_dali.trainers.datasets import ilsvrc, npz, tiny_imagenet
from has_dali.trainers.datasets.images import LabeledImages, check_same_classes, check_same_labels

LAYOUTS = (
    "class folders train/<class>/ and val/<class>/, Tiny ImageNet, ILSVRC (Data/CLS-LOC), CIFAR-10/100 python"
    " batches, or train.npz and val.npz (images, labels)"
)


def open_labeled(data: str | os.PathLike[str]) -> LabeledImages:
    """The data set in a folder; its layout is found out.

    Layouts: ``train/<class>/`` and ``val/<class>/``; Tiny ImageNet's; ILSVRC's CLS-LOC; the CIFAR-10 or CIFAR-100
    python batches (their test batch is val); ``train.npz`` and ``val.npz``.

    Raises:
        OSError: the folder is missing, or a file in it is.
        ValueError: no layout fits, or the classes of train and val differ.
    """
    root = checked_folder(data)
    if tiny_imagenet.is_tiny_imagenet(root):
        return tiny_imagenet.labeled(root)
    if (base := ilsvrc.ilsvrc_root(root)) is not None:
        return ilsvrc.labeled(base)
    if npz.is_npz_folder(root):
        return npz.labeled(root)
    if cifar_kind(root) is not None:
        return _cifar(root)
    if (root / "train").is_dir() and (root / "val").is_dir():
        return _class_folders(root)
    raise ValueError(f"data={str(root)!r}: no known layout; expected\n{LAYOUTS}")


def checked_folder(data: str | os.PathLike[str]) -> Path:
    """``data`` as a path to a folder that is there."""
    root = Path(data)
    if not root.is_dir():
        what = "a file" if root.exists() else "no such folder"
        raise FileNotFoundError(f"data={str(root)!r}: {what}; expected a folder with\n{LAYOUTS}")
    return root


def _cifar(root: Path) -> LabeledImages:
    train, val = cifar_source(root, train=True), cifar_source(root, train=False)
    images = LabeledImages(f"CIFAR-{len(train.classes)}", train, val, train.classes)
    return check_same_labels(images, f"data={str(root)!r}")


def _class_folders(root: Path) -> LabeledImages:
    train, val = folder_source(root / "train"), folder_source(root / "val")
    check_same_classes(set(train.classes), set(val.classes), f"data={str(root)!r}")
    return LabeledImages(root.resolve().name, train, val, train.classes)
