"""The embedded corpus: JPEGs of ImageNet-like size, so that everything runs with no data and no network.

Each image is a random crop of one of the colour photographs in the scikit-image wheel (public domain or CC0),
scaled, mirrored, lightly recoloured and given a trace of sensor noise; one class per photograph. What is drawn for
each image is fixed by the corpus version; its bytes are the same only with the same releases of Pillow (and the
libjpeg in it), NumPy and scikit-image. Sizes, bytes and chroma subsampling are drawn like those of ImageNet samples,
because they, and not the content, set the cost of decoding.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

import numpy as np

from has_dali.kernels.threads import available_cores

VERSION = 1
IMAGES_PER_CLASS = 38
# Class name -> files in skimage/data. The two views of the motorcycle are one class: nobody could tell them apart.
PHOTOGRAPHS = {
    "astronaut": ("astronaut.png",),
    "chelsea": ("chelsea.png",),
    "coffee": ("coffee.png",),
    "hubble_deep_field": ("hubble_deep_field.jpg",),
    "ihc": ("ihc.png",),
    "motorcycle": ("motorcycle_left.png", "motorcycle_right.png"),
    "retina": ("retina.jpg",),
    "rocket": ("rocket.jpg",),
}
# (width, height), share: ImageNet's long side is 500 for most images, with a tail in both directions.
_SIZES = (
    ((500, 375), 0.44),
    ((500, 333), 0.20),
    ((375, 500), 0.09),
    ((333, 500), 0.09),
    ((500, 400), 0.05),
    ((400, 300), 0.04),
    ((320, 240), 0.03),
    ((640, 480), 0.04),
    ((1024, 768), 0.02),
)
# (Pillow subsampling, lowest and highest quality), share: 4:4:4 at high quality dominates ImageNet samples.
_ENCODINGS = (((0, 92, 96), 0.72), ((2, 75, 95), 0.26), ((1, 75, 95), 0.02))
# One good-looking image of four classes, for the sheet that the demo draws.
SHEET_FILES = (
    "chelsea/chelsea_012.jpg",
    "astronaut/astronaut_026.jpg",
    "coffee/coffee_005.jpg",
    "motorcycle/motorcycle_010.jpg",
)
_CROP_SCALE = (0.55, 1.0)  # edge of the crop relative to the largest crop of that aspect in the photograph
_COLOUR_GAIN = 0.10
_NOISE = (2.5, 6.5)  # standard deviation in grey levels
_ABANDONED_SECONDS = 3600.0  # a build takes seconds; a temporary folder as old as this is nobody's


class _Picture(NamedTuple):
    """One image to be made."""

    file: str
    """Below the corpus folder."""
    photograph: Path
    key: tuple[int, int]


def default_folder() -> Path:
    """Where the corpus is kept: the user's cache, outside any checkout."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "has_dali" / f"corpus-v{VERSION}"


def corpus_size() -> int:
    """Images in the corpus."""
    return len(PHOTOGRAPHS) * IMAGES_PER_CLASS


def ensure_corpus(folder: Path | None = None, advance: Callable[[], None] = lambda: None) -> Path:
    """The corpus in ImageFolder layout, built on first use and moved into place in one step.

    Images that are missing from an existing folder are made again; other files in it are left alone.

    Args:
        folder: where it is kept; the user's cache by default.
        advance: called once per image made.

    Raises:
        ImportError: scikit-image or Pillow is not installed.
    """
    folder = default_folder() if folder is None else folder
    _remove_abandoned(folder)
    missing = [file for file in _files() if not _is_there(folder / file)]
    if not missing:
        return folder
    pictures = [picture for picture in _pictures() if picture.file in set(missing)]
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        _build(temporary, pictures, advance)
        temporary.chmod(0o755)
        _move(temporary, folder, missing)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _files() -> list[str]:
    return [f"{name}/{name}_{i:03d}.jpg" for name in PHOTOGRAPHS for i in range(IMAGES_PER_CLASS)]


def _is_there(file: Path) -> bool:
    return file.is_file() and file.stat().st_size > 0


def _move(built: Path, folder: Path, files: Sequence[str]) -> None:
    """Put what was built into place: the whole folder in one step, or file by file where there is one already."""
    try:
        os.rename(built, folder)
    except OSError:
        if not folder.is_dir():
            raise
        for file in files:
            (folder / file).parent.mkdir(exist_ok=True)
            os.replace(built / file, folder / file)


def _remove_abandoned(folder: Path) -> None:
    """Remove temporary folders of builds that were killed."""
    for temporary in folder.parent.glob(f".{folder.name}.*"):
        try:
            abandoned = time.time() - temporary.stat().st_mtime > _ABANDONED_SECONDS
        except OSError:  # its owner was quicker
            continue
        if abandoned:
            shutil.rmtree(temporary, ignore_errors=True)


def _pictures() -> list[_Picture]:
    photographs = list(_photographs().values())
    keys = [(number, i) for number in range(len(photographs)) for i in range(IMAGES_PER_CLASS)]
    return [
        _Picture(file, photographs[number][i % len(photographs[number])], (number, i))
        for file, (number, i) in zip(_files(), keys, strict=True)
    ]


def _photographs() -> dict[str, list[Path]]:
    spec = importlib.util.find_spec("skimage")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("the embedded corpus needs scikit-image", name="skimage")
    data = Path(next(iter(spec.submodule_search_locations))) / "data"
    found = {name: [data / file for file in files] for name, files in PHOTOGRAPHS.items()}
    missing = [path for paths in found.values() for path in paths if not path.is_file()]
    if missing:
        raise FileNotFoundError(f"{missing[0]}: the installed scikit-image lacks this photograph; use --data DIR")
    return found


def _build(folder: Path, pictures: Sequence[_Picture], advance: Callable[[], None]) -> None:
    for name in {os.path.dirname(picture.file) for picture in pictures}:
        (folder / name).mkdir()
    with ThreadPoolExecutor(available_cores()) as pool:
        jobs = [pool.submit(_render, picture.photograph, picture.key, folder / picture.file) for picture in pictures]
        try:
            for job in as_completed(jobs):
                job.result()
                advance()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _render(photograph: Path, key: tuple[int, int], target: Path) -> None:
    """One image: every choice is drawn from ``key``, so order and threads do not matter."""
    from PIL import Image

    rng = np.random.default_rng((VERSION, *key))
    width, height = _draw(rng, _SIZES)
    subsampling, lowest, highest = _draw(rng, _ENCODINGS)
    with Image.open(photograph) as source:
        box = _crop_box(rng, source.size, width / height)
        image = source.convert("RGB").resize((width, height), Image.Resampling.LANCZOS, box=box)
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    pixels = np.asarray(image, np.float32) * rng.uniform(1 - _COLOUR_GAIN, 1 + _COLOUR_GAIN, 3).astype(np.float32)
    pixels += rng.standard_normal(pixels.shape, np.float32) * np.float32(rng.uniform(*_NOISE))
    image = Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))
    image.save(target, quality=int(rng.integers(lowest, highest + 1)), subsampling=subsampling)


def _draw(rng: np.random.Generator, choices: tuple[tuple[tuple[int, ...], float], ...]) -> tuple[int, ...]:
    return choices[rng.choice(len(choices), p=[share for _, share in choices])][0]


def _crop_box(rng: np.random.Generator, size: tuple[int, int], aspect: float) -> tuple[float, float, float, float]:
    """A random box (left, top, right, bottom) of the given aspect inside a picture of ``size``."""
    scale = rng.uniform(*_CROP_SCALE)
    width = min(size[0], size[1] * aspect) * scale
    height = width / aspect
    left, top = rng.uniform(0, size[0] - width), rng.uniform(0, size[1] - height)
    return left, top, left + width, top + height
