"""Lists of masks in the wsolevaluation benchmark, which has them for OpenImages30k.

There ``localization.txt`` holds an image, one of its masks, and a region that does not count: one line per mask, the
region on the first line of an image only. Masks lie beside the images, so all paths are relative to the same folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from has_dali.pipelines.sources import IMAGE_EXTENSIONS
from has_dali.trainers.datasets.headers import READERS
from has_dali.trainers.datasets.masks import Masks


def lists_masks(file: Path) -> bool:
    """Whether the first line ends in files of images, not in numbers.

    Raises:
        OSError: the file is missing or unreadable.
    """
    with open(file) as lines:
        first = next((line.strip() for line in lines if line.strip()), "")
    return any(word.strip().lower().endswith(IMAGE_EXTENSIONS) for word in first.rsplit(",", 2)[1:])


def read_masks(file: Path, ids: Sequence[str], root: Path) -> Masks:
    """The masks of images, in their order.

    Args:
        file: the list. Lines of other images are passed over.
        ids: the images, as the list names them.
        root: the folder that the paths in the list are relative to.

    Raises:
        ValueError: a line has other columns, or an image has no mask.
        OSError: the list is missing, or a file that it names.
    """
    objects: dict[str, list[str]] = {name: [] for name in ids}
    ignored: dict[str, list[str]] = {name: [] for name in ids}
    with open(file) as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            words = [word.strip() for word in line.rsplit(",", 2)]
            unknown = len(words) != 3 or words[0] not in objects
            if len(words) != 3 or not words[1] or (unknown and line.split(",")[0].strip() in objects):
                raise ValueError(
                    f"{file}, line {number}: expected an image, a mask and a region to ignore, which may be empty, got"
                    f" {line!r}"
                )
            if unknown:
                continue
            name, mask, region = words
            objects[name].append(mask)
            if region and region not in ignored[name]:
                ignored[name].append(region)
    without = [name for name in ids if not objects[name]]
    if without:
        raise ValueError(
            f"missing masks: {len(without)} of {len(ids)} images have none, the first is {without[0]}; expected a line"
            f" for each in {file}"
        )
    _check_files(file, [path for name in ids for path in (*objects[name], *ignored[name])], root)
    objects_of, ignored_of = (
        tuple(tuple(str(root / path) for path in table[name]) for name in ids) for table in (objects, ignored)
    )
    return Masks(objects_of, ignored_of)


def _check_files(file: Path, paths: list[str], root: Path) -> None:
    """All at once and at the start: a run that trains for days must not end on a file that never was there."""
    with ThreadPoolExecutor(READERS) as pool:
        there = list(pool.map(lambda path: (root / path).is_file(), paths, chunksize=64))
    absent = [path for path, found in zip(paths, there, strict=True) if not found]
    if absent:
        raise FileNotFoundError(
            f"missing masks: {len(absent)} of {len(paths)} files that {file} names are not below {root}, the first is"
            f" {absent[0]}; unpack the masks beside the images"
        )
