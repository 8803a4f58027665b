"""Pictures of two-part objects that the toy recipes train on (a sanity run without data: see the trend checks).

Each picture shows one object on a cluttered background: a small saturated disc, whose hue gives the class away, on the
rim of a larger muted body with a pattern. Classes come in pairs: the body shows its class's own pattern in three
objects of four and its partner's in the fourth, so the body alone allows 75 % accuracy at best. A network that looks
for the easiest cue maps its classes to the disc alone; the box is that of the whole object.
"""

from __future__ import annotations

import json
import os
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from has_dali.console import atomic_file, output_folder
from has_dali.kernels.policy import checked_probability, checked_seed

SIDE = 64
# Sorted, as a folder's classes are. The hue is that of the disc.
_HUES = {"blue": 0.62, "cyan": 0.5, "green": 0.34, "magenta": 0.85, "red": 0.0, "yellow": 0.15}
CLASSES = tuple(_HUES)
_VERSION = 1
_CHUNK = 30  # pictures drawn together, so few that they stay in the cache; none depends on how many are asked for
_CLUTTER = 12
# Of the pattern, as a share of white. At half of it a small network had not learned the pattern after twelve epochs, so
# Hide-and-Seek could not make it look at the body.
_CONTRAST = (0.22, 0.30)
_MARGIN = 1.0

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ToySettings:
    """What decides every pixel of the toy data.

    Args:
        seed: 64-bit integer.
        train: pictures to train on.
        val: pictures to evaluate on.
        classes: an even number from 2 to 6.
        own_pattern: probability that a body shows its class's own pattern, not its partner's.

    Raises:
        ValueError: a value is out of range.
    """

    seed: int = 0
    train: int = 3000
    val: int = 600
    classes: int = len(CLASSES)
    own_pattern: float = 0.75

    def __post_init__(self) -> None:
        checked_seed(self.seed)
        checked_probability("own_pattern", self.own_pattern)
        if self.classes not in range(2, len(CLASSES) + 1, 2):
            raise ValueError(
                f"classes={self.classes!r}: expected an even number from 2 to {len(CLASSES)}; they are paired"
            )
        if min(self.train, self.val) < self.classes:
            raise ValueError(
                f"train={self.train!r}, val={self.val!r}: expected at least {self.classes}, one picture per class"
            )


@dataclass(frozen=True)
class ToyPictures:
    """Pictures, and what is where in them.

    Args:
        images: (N, 64, 64, 3) uint8.
        labels: (N,) int64.
        boxes: (N, 4) int64 x0, y0, x1, y1 of the whole object, both ends inside.
        body: (N, 64, 64) bool, pixels of the body that the disc does not cover.
        disc: (N, 64, 64) bool.
        patterns: (N,) int64, the class whose pattern the body shows.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.int64]
    body: npt.NDArray[np.bool_]
    disc: npt.NDArray[np.bool_]
    patterns: npt.NDArray[np.int64]


def render_toy(
    folder: Path | str,
    seed: int = 0,
    train: int = 3000,
    val: int = 600,
    classes: int = len(CLASSES),
    own_pattern: float = 0.75,
) -> Path:
    """Write ``train.npz`` and ``val.npz`` into ``folder``, or keep those that are there with the same settings.

    Each holds images (N, 64, 64, 3) uint8, labels (N,) int64, boxes (N, 4) int64 (x0, y0, x1, y1, both ends inside),
    classes (names by label), and the settings as JSON.

    Args:
        folder: made if missing.
        seed: 64-bit integer.
        train: pictures to train on.
        val: pictures to evaluate on; never those of train.
        classes: an even number from 2 to 6.
        own_pattern: probability that a body shows its class's own pattern, not its partner's.

    Returns:
        The folder.

    Raises:
        ValueError: a value is out of range, or a file there holds something else.
        OSError: the folder cannot be written to.
    """
    settings = ToySettings(seed, train, val, classes, own_pattern)
    with output_folder(Path(folder)) as path:
        for split in ("train", "val"):
            stamp = json.dumps({"toy": _VERSION, "split": split, **asdict(settings)})
            file = path / f"{split}.npz"
            if _stamp(file) == stamp:
                continue
            pictures = draw(settings, split)
            with atomic_file(file) as out:
                np.savez(
                    out,
                    images=pictures.images,
                    labels=pictures.labels,
                    boxes=pictures.boxes,
                    classes=np.array(CLASSES[: settings.classes]),
                    settings=np.array(stamp),
                )
        return path


def draw(settings: ToySettings, split: str) -> ToyPictures:
    """The pictures of one split, "train" or "val"."""
    count = {"train": settings.train, "val": settings.val}[split]
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # NumPy computes outside the interpreter's lock
        chunks = list(pool.map(lambda chunk: _draw_chunk(settings, split, chunk), range(-(-count // _CHUNK))))
    return ToyPictures(*(np.concatenate(parts)[:count] for parts in zip(*chunks, strict=True)))


def _stamp(file: Path) -> str | None:
    """The settings of toy data that is there; None where nothing is."""
    if not file.exists():
        return None
    try:
        with np.load(file) as content:
            stamp = str(content["settings"])
            if "toy" in json.loads(stamp):
                return stamp
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
        pass
    raise ValueError(f"{file}: is not toy data and is not overwritten; choose another folder")


def _draw_chunk(settings: ToySettings, split: str, chunk: int) -> tuple[Any, ...]:
    rng = np.random.default_rng([settings.seed & (2**64 - 1), split == "val", chunk])
    y, x = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32)[:, None]
    labels = (np.arange(_CHUNK) + chunk * _CHUNK) % settings.classes
    swapped = rng.random(_CHUNK) >= settings.own_pattern
    patterns = np.where(swapped, labels ^ 1, labels)

    picture = _background(rng, x, y)
    # The body: an ellipse of any direction; the disc straddles its rim at any angle.
    long = _uniform(rng, 10, 19)
    short = long * _uniform(rng, 0.68, 1.0)
    turn, angle = _uniform(rng, 0, np.pi), _uniform(rng, 0, 2 * np.pi)
    radius = (long * _uniform(rng, 0.26, 0.32)).clip(3.2)
    rim = long * short / np.hypot(short * np.cos(angle - turn), long * np.sin(angle - turn))
    away = rim + 0.35 * radius
    disc_x, disc_y = away * np.cos(angle), away * np.sin(angle)
    reach_x = np.sqrt((long * np.cos(turn)) ** 2 + (short * np.sin(turn)) ** 2)
    reach_y = np.sqrt((long * np.sin(turn)) ** 2 + (short * np.cos(turn)) ** 2)
    centre_x = _placed(rng, np.minimum(-reach_x, disc_x - radius), np.maximum(reach_x, disc_x + radius))
    centre_y = _placed(rng, np.minimum(-reach_y, disc_y - radius), np.maximum(reach_y, disc_y + radius))
    dx, dy = x - centre_x, y - centre_y
    u, v = dx * np.cos(turn) + dy * np.sin(turn), dy * np.cos(turn) - dx * np.sin(turn)
    body = _inked((1 - np.hypot(u / long, v / short)) * short)
    from_disc = np.hypot(dx - disc_x, dy - disc_y)
    disc = _inked(radius - from_disc)

    backdrop = picture.mean((1, 2, 3), keepdims=True)
    tone = backdrop + np.where(backdrop > 0.5, -1, 1) * _uniform(rng, 0.16, 0.3)[..., None]
    colour = tone + _colours(rng, 0.07)
    ripple = _pattern(patterns, dx, dy, long * _uniform(rng, 0.36, 0.46), _uniform(rng, -0.15, 0.15))
    shade = _uniform(rng, *_CONTRAST) * ripple - 0.10 * _inked(1.6 - (1 - np.hypot(u / long, v / short)) * short)
    picture = _over(picture, colour + shade[..., None], body)
    hue = np.array([_HUES[name] for name in CLASSES], np.float32)[labels][:, None, None]
    picture = _over(picture, _saturated(hue) * 0.45, disc)
    picture = _over(picture, _saturated(hue), _inked(radius - 1.0 - from_disc))
    picture = picture * _uniform(rng, 0.85, 1.15)[..., None]
    picture += 0.025 * rng.standard_normal(picture.shape, np.float32)

    disc_mask = disc >= 0.5
    body_mask = (body >= 0.5) & ~disc_mask
    images = np.rint(picture.clip(0, 1) * 255).astype(np.uint8)
    return images, labels, _tight_boxes(body_mask | disc_mask), body_mask, disc_mask, patterns


def _background(rng: np.random.Generator, x: Array, y: Array) -> Array:
    """Soft muted ground with ellipses and bars on it, some of them hatched in directions that no body has."""
    spread = np.maximum(0, 1 - np.abs(np.arange(SIDE)[:, None] / SIDE * 5 - np.arange(6))).astype(np.float32)
    knots = rng.uniform(-0.18, 0.18, (_CHUNK, 6, 6)).astype(np.float32)
    ground = _uniform(rng, 0.28, 0.72)[..., None]
    tint = _colours(rng, 0.06)
    picture = (spread @ knots @ spread.T)[..., None] + ground + tint
    for _ in range(_CLUTTER):
        long, short = _uniform(rng, 3, 16), _uniform(rng, 1.2, 8)
        turn = _uniform(rng, 0, np.pi)
        dx, dy = x - _uniform(rng, 0, SIDE), y - _uniform(rng, 0, SIDE)
        u, v = dx * np.cos(turn) + dy * np.sin(turn), dy * np.cos(turn) - dx * np.sin(turn)
        bar = np.minimum(long - np.abs(u), short - np.abs(v))
        oval = (1 - np.hypot(u / long, v / short)) * short
        cover = _inked(np.where(_uniform(rng, 0, 1) < 0.5, bar, oval))
        colour = ground + _uniform(rng, -0.22, 0.22)[..., None] + _colours(rng, 0.08)
        slant = _uniform(rng, 0.55, 1.0) * np.where(_uniform(rng, 0, 1) < 0.5, -1, 1).astype(np.float32)
        waves = _uniform(rng, 0.7, 1.6)  # radians per pixel
        hatch = np.sin(x * (waves * np.cos(slant)) + y * (waves * np.sin(slant)))
        hatch *= np.where(_uniform(rng, 0, 1) < 0.35, 0.1, 0).astype(np.float32)
        picture = _over(picture, colour + hatch[..., None], 0.85 * cover)
    return picture


def _pattern(kinds: npt.NDArray[np.int64], dx: Array, dy: Array, period: Array, turn: Array) -> Array:
    """One of six patterns per picture, -1 to 1, about the body's centre: none changes when it is mirrored."""
    u, v = dx * np.cos(turn) + dy * np.sin(turn), dy * np.cos(turn) - dx * np.sin(turn)
    a, b = 2 * np.pi * u / period, 2 * np.pi * v / period
    distance, angle = np.hypot(a, b), np.arctan2(b, a)
    every = (
        np.sin(b),  # lying stripes
        np.sin(a),  # standing stripes
        np.sin(0.8 * a) * np.sin(0.8 * b) * 1.6,  # chequers
        1.6 * np.maximum(0, np.cos(a) + np.cos(b)) - 0.9,  # dots
        np.sin(distance),  # rings
        np.cos(6 * angle),  # spokes
    )
    chosen = np.zeros_like(dx)
    for kind, ripple in enumerate(every):
        chosen = np.where(kinds[:, None, None] == kind, ripple, chosen)
    return np.clip(chosen, -1, 1).astype(np.float32)


def _uniform(rng: np.random.Generator, low: float, high: float) -> Array:
    """(pictures, 1, 1) numbers."""
    return rng.uniform(low, high, (_CHUNK, 1, 1)).astype(np.float32)


def _colours(rng: np.random.Generator, spread: float) -> Array:
    """(pictures, 1, 1, 3) offsets from grey."""
    return rng.uniform(-spread, spread, (_CHUNK, 1, 1, 3)).astype(np.float32)


def _placed(rng: np.random.Generator, first: Array, last: Array) -> Array:
    """Where the body's centre lies on an axis so that the object, from ``first`` to ``last`` about it, fits."""
    low, high = _MARGIN - first, SIDE - 1 - _MARGIN - last
    return (low + (high - low) * _uniform(rng, 0, 1)).astype(np.float32)


def _inked(depth: Array) -> Array:
    """Opacity from the depth inside an outline in pixels: the outline's own pixels are half covered."""
    return (depth + 0.5).clip(0, 1)


def _over(picture: Array, colour: Array, opacity: Array) -> Array:
    return picture + opacity[..., None] * (colour - picture)


def _saturated(hue: Array) -> Array:
    """Hue 0..1 to a bright saturated RGB colour: (..., 3)."""
    red, green, blue = np.abs(hue * 6 - 3) - 1, 2 - np.abs(hue * 6 - 2), 2 - np.abs(hue * 6 - 4)
    rgb = np.stack([red, green, blue], axis=-1).clip(0, 1)
    return (0.12 + 0.83 * rgb).astype(np.float32)


def _tight_boxes(masks: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """(N, 4) int64 x0, y0, x1, y1 around the true pixels of (N, H, W) masks, both ends inside."""
    columns, rows = masks.max(1), masks.max(2)
    return np.stack(
        [
            columns.argmax(1),
            rows.argmax(1),
            masks.shape[2] - 1 - columns[:, ::-1].argmax(1),
            masks.shape[1] - 1 - rows[:, ::-1].argmax(1),
        ],
        axis=1,
    ).astype(np.int64)
