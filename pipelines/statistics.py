"""Mean and standard deviation of a training set, and what the files are like.

The paper's definition: over all pixels of all training images, every pixel weighs the same, so a large image
counts for more than a small one. Pixels are those that the loaders feed, from the same decoder: 16-bit images are
scaled to 8 bits. Sums are whole numbers, so the result does not depend on order or threads.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from has_dali.pipelines.pil import opened_image

CHANNELS = 3
_CHROMA = {0: "4:4:4", 1: "4:2:2", 2: "4:2:0"}  # Pillow's codes
_HEADERS_READ = 2000


@dataclass(frozen=True)
class PixelStatistics:
    """Exact sums over a set of images; gray images count as RGB with equal channels.

    Args:
        images: number of images.
        pixels: number of pixels.
        sums: sum of the values of each channel.
        squares: sum of the squared values of each channel.
    """

    images: int
    pixels: int
    sums: tuple[int, ...]
    squares: tuple[int, ...]

    @property
    def mean(self) -> tuple[float, ...]:
        """Per-channel mean, 0..255."""
        return tuple(total / self.pixels for total in self.sums)

    @property
    def std(self) -> tuple[float, ...]:
        """Per-channel standard deviation, 0..255; rounded once, from a variance in whole numbers."""
        n = self.pixels
        return tuple(
            math.sqrt((n * square - total * total) / (n * n))
            for total, square in zip(self.sums, self.squares, strict=True)
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-able result, on the 0..255 scale that ``has_dali`` uses and on torchvision's 0..1 scale."""
        return {
            "images": self.images,
            "pixels": self.pixels,
            "mean": list(self.mean),
            "std": list(self.std),
            "mean_0_1": [value / 255 for value in self.mean],
            "std_0_1": [value / 255 for value in self.std],
        }


def pixel_statistics(
    files: Sequence[str], advance: Callable[[int], None] = lambda images: None, threads: int | None = None
) -> PixelStatistics:
    """Decode every file and add up its pixels.

    Args:
        files: image files of any size.
        advance: called with the number of images just finished.
        threads: decoding threads; the usable cores by default.

    Raises:
        ValueError: there are no files, or one cannot be decoded.
    """
    if not files:
        raise ValueError("files is empty: give at least one image")
    from has_dali.pipelines.decode import decoded_images

    pixels = 0
    totals = [0] * (2 * CHANNELS)
    for images in decoded_images(files, threads):
        sums = np.zeros(2 * CHANNELS, np.uint64)
        for image in images:
            add_pixels(image.reshape(-1, CHANNELS), sums)
            pixels += image.size // CHANNELS
        totals = [a + int(b) for a, b in zip(totals, sums, strict=True)]
        advance(len(images))
    return PixelStatistics(len(files), pixels, tuple(totals[:CHANNELS]), tuple(totals[CHANNELS:]))


def describe_files(files: Sequence[str]) -> dict[str, Any]:
    """What sets the cost of decoding, for reports: count, bytes, sizes, chroma subsampling.

    Of a large set, an evenly spaced part is read; headers only.
    """
    from PIL import JpegImagePlugin

    step = -(-len(files) // _HEADERS_READ)
    part = files[::step]
    sizes, lengths, chroma = [], [], Counter[str]()
    for path in part:
        with opened_image(path) as image:
            sizes.append(image.size)
            gray = image.mode == "L"
            if isinstance(image, JpegImagePlugin.JpegImageFile):
                chroma["gray" if gray else _CHROMA.get(JpegImagePlugin.get_sampling(image), "other")] += 1
            else:
                chroma[f"no JPEG: {image.format}"] += 1
        lengths.append(os.path.getsize(path))
    width, height = np.median(sizes, axis=0)
    return {
        "images": len(files),
        "headers_read": len(part),
        "mean_kilobytes": round(float(np.mean(lengths)) / 1000, 1),
        "median_width": int(width),
        "median_height": int(height),
        "mean_megapixels": round(float(np.mean(np.prod(sizes, axis=1))) / 1e6, 4),
        "chroma_percent": {name: round(100 * count / len(part), 1) for name, count in chroma.most_common()},
    }


def files_in_words(data: Mapping[str, Any]) -> str:
    """One line about what ``describe_files`` found."""
    chroma = ", ".join(f"{share:.0f} % {name}" for name, share in data["chroma_percent"].items())
    return (
        f"{data['images']} images, median {data['median_width']}x{data['median_height']},"
        f" mean {data['mean_kilobytes']:.0f} KB, {chroma}"
    )


@numba.njit("void(Array(uint8, 2, 'C', readonly=True), uint64[::1])", nogil=True, cache=True)
def add_pixels(pixels: npt.NDArray[np.uint8], totals: npt.NDArray[np.uint64]) -> None:
    """Add (N, 3) pixels to three sums and three sums of squares."""
    for start in range(0, len(pixels), 65536):  # 65,536 squares of a byte fit 32 bits
        stop = min(len(pixels), start + 65536)
        s0 = s1 = s2 = q0 = q1 = q2 = np.uint32(0)
        for i in range(start, stop):
            a, b, c = np.uint32(pixels[i, 0]), np.uint32(pixels[i, 1]), np.uint32(pixels[i, 2])
            s0, s1, s2 = np.uint32(s0 + a), np.uint32(s1 + b), np.uint32(s2 + c)
            q0, q1, q2 = np.uint32(q0 + a * a), np.uint32(q1 + b * b), np.uint32(q2 + c * c)
        for k, value in enumerate((s0, s1, s2, q0, q1, q2)):
            totals[k] += np.uint64(value)
