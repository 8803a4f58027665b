"""The index of a folder of class folders, found by a walk or taken from the cache."""

from __future__ import annotations

import os
import time
from array import array
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from has_dali.pipelines.flat_files import alone
from has_dali.pipelines.index_cache import Arrays, cache_key, index_path, load_index, save_index, settled, stamp_of
from has_dali.pipelines.name_table import NameBuilder, NameTable

# torchvision.datasets.folder.IMG_EXTENSIONS; compared in lower case.
IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")

CACHED_FROM = 10_000  # files; fewer are found again as quickly as a cached index is checked


@dataclass(frozen=True, eq=False)
class ClassFolders:
    """Images below ``root/<class>/``, in the order and with the labels of torchvision's ImageFolder.

    Args:
        paths: of the images, each with the root as it was given.
        labels: (N,) int64.
        classes: class names, by label.
    """

    paths: NameTable
    labels: npt.NDArray[np.int64]
    classes: tuple[str, ...]


def class_folders(root: str) -> ClassFolders:
    """The images below ``root``, from the cache if no folder there has changed since they were listed.

    Raises:
        OSError: a folder is missing, unreadable, or holds no images.
    """
    key = cache_key("folder", [root])
    found = _cached(key, root)
    if found is None:
        with alone(lambda: index_path(key)):
            found = _cached(key, root) or _listed_anew(key, root)  # another process may have walked meanwhile
    return found


def _cached(key: str, root: str) -> ClassFolders | None:
    stored = load_index(key)
    # The paths hold the root as it was given, which may be relative.
    if stored is None or stored["root"] != root or not _unchanged(stored):
        return None
    return ClassFolders(NameTable.from_arrays(stored, "paths"), stored["labels"], tuple(stored["classes"].tolist()))


def _listed_anew(key: str, root: str) -> ClassFolders:
    begun = time.time_ns()
    found, places = _walk(root)
    if len(found.paths) >= CACHED_FROM:
        stamps = np.array([stamp_of(place) for place in places], np.int64)
        if settled(stamps, begun):
            entry = {
                "root": np.array(root),
                "labels": found.labels,
                "classes": np.array(found.classes, np.str_),
                "stamps": stamps,
                **found.paths.arrays("paths"),
                **NameTable.of(places).arrays("folders"),
            }
            save_index(key, entry)
    return found


def _unchanged(stored: Arrays) -> bool:
    """Whether every folder exists and is as it was: none gained, lost or renamed an entry."""
    folders = NameTable.from_arrays(stored, "folders")
    try:
        return all(
            stamp_of(folder) == tuple(stamp) for folder, stamp in zip(folders, stored["stamps"].tolist(), strict=True)
        )
    except OSError:
        return False


def _walk(root: str) -> tuple[ClassFolders, list[str]]:
    """The images, and every folder that was listed."""
    classes = sorted(entry.name for entry in _listed(root) if entry.is_dir())
    if not classes:
        raise FileNotFoundError(
            f"data={root!r}: no class folders; expected {os.path.join(root, '<class>', '<image>.jpg')},"
            " or pass a list of files"
        )
    paths, counts, places = NameBuilder(), array("q"), [root]
    for name in classes:
        before = len(paths)
        places += _add_images_below(os.path.join(root, name), paths)
        counts.append(len(paths) - before)
    labels = np.repeat(np.arange(len(classes), dtype=np.int64), counts)
    return ClassFolders(paths.table(), labels, tuple(classes)), places


def _add_images_below(folder: str, paths: NameBuilder) -> list[str]:
    places, before = [], len(paths)
    for place, _, names in sorted(os.walk(folder, onerror=_raise, followlinks=True)):
        start = os.fsencode(os.path.join(place, ""))
        paths.extend([start + os.fsencode(name) for name in sorted(names) if name.lower().endswith(IMAGE_EXTENSIONS)])
        places.append(place)
    if len(paths) == before:
        raise FileNotFoundError(
            f"data: class folder {folder!r} holds no images ({' '.join(IMAGE_EXTENSIONS)});"
            " remove it or add images to it"
        )
    return places


def _listed(root: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(root) as entries:
            return list(entries)
    except FileNotFoundError:
        raise FileNotFoundError(f"data={root!r}: no such folder; expected a folder of class folders") from None
    except NotADirectoryError:
        raise NotADirectoryError(f"data={root!r}: a file; expected a folder of class folders or a list") from None
    except PermissionError:
        raise PermissionError(f"data={root!r}: not readable by this user; check the folder's permissions") from None


def _raise(error: OSError) -> None:
    raise type(error)(f"data: cannot read folder {error.filename!r}: {error.strerror}; check its permissions")
