"""Decoded images in memory, any mix of sizes, by sample id: one flat block of pixels, as a file source is of paths."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from has_dali.pipelines.sources import FileSource, checked_ids, checked_labels, digest_of

CHANNELS = 3


class DecodedSource:
    """Decoded RGB images of 8 bits with labels, that may lie anywhere in memory: what ``ArrayStream`` reads.

    Attributes:
        shapes: (N, 2) int64, height and width, read-only.
        labels: (N,) int64.
        classes: class names, by label, where known.
    """

    shapes: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.shapes)

    @property
    def addresses(self) -> npt.NDArray[np.int64]:
        """(N,) int64, where the pixels of each image start: (height, width, 3) uint8, contiguous.

        They can be read as long as the source lives.
        """
        raise NotImplementedError

    def check(self, ids: npt.NDArray[np.int64]) -> None:
        """Raise OSError where the pixels of these samples can no longer be read."""

    def image(self, sample_id: int) -> npt.NDArray[np.uint8]:
        """One image, (H, W, 3) uint8: a read-only view."""
        raise NotImplementedError

    def name(self, sample_id: int) -> str:
        """What errors call a sample."""
        raise NotImplementedError


class ArraySource(DecodedSource):
    """RGB images of 8 bits with labels.

    Args:
        pixels: flat uint8, all images one after the other, each (height, width, 3).
        offsets: (N + 1,) int64, where each image starts in ``pixels``, and where the last one ends.
        shapes: (N, 2) int64, height and width.
        labels: one integer per image; None: every label is -1.
        classes: class names, by label, where known.
        origin: the source of encoded images that these are, sample by sample: fingerprint and names are its, so that
            a run can go on from its state with or without decoded images.

    Raises:
        ValueError: no images, or the arrays do not fit together.
        TypeError: an array is of another dtype.
    """

    def __init__(
        self,
        pixels: npt.NDArray[np.uint8],
        offsets: npt.NDArray[np.int64],
        shapes: npt.NDArray[np.int64],
        labels: npt.ArrayLike | None = None,
        classes: Sequence[str] = (),
        origin: Any = None,
    ) -> None:
        for name, array, dtype in (("pixels", pixels, "uint8"), ("offsets", offsets, "int64")):
            if array.dtype != dtype or array.ndim != 1 or not array.flags.c_contiguous:
                raise TypeError(f"{name}: expected a flat contiguous {dtype} array, got {_described(array)}")
        count = len(offsets) - 1
        if count < 1:
            raise ValueError("data is empty: expected at least one image")
        if shapes.dtype != np.int64 or shapes.shape != (count, 2):
            raise TypeError(f"shapes: expected int64 ({count}, 2), height and width, got {_described(shapes)}")
        if shapes.min() < 1:
            raise ValueError(f"shapes: image {int(shapes.min(axis=1).argmin())} has a side of 0 pixels; remove it")
        if offsets[0] != 0 or offsets[-1] != len(pixels) or (np.diff(offsets) != shapes.prod(axis=1) * CHANNELS).any():
            raise ValueError("offsets: expected height * width * 3 bytes of pixels for each image, one after the other")
        # Views that cannot be written to: a fingerprint, and batches computed ahead, hold for good.
        self.pixels, self.offsets, self.shapes = (_read_only(array) for array in (pixels, offsets, shapes))
        self.labels = checked_labels(labels, count, "image")
        self.classes = tuple(classes)
        self._origin = origin

    @classmethod
    def from_images(
        cls,
        images: npt.NDArray[np.uint8] | Sequence[npt.NDArray[np.uint8]],
        labels: npt.ArrayLike | None = None,
        classes: Sequence[str] = (),
    ) -> ArraySource:
        """A source of given images.

        Args:
            images: uint8 array (N, H, W, 3), or (N, H, W) of gray images; or a sequence of arrays (H, W, 3) or (H, W).
            labels: one integer per image.
            classes: class names, by label.

        Raises:
            ValueError, TypeError: no images, or something that is no 8-bit image; says which.
        """
        if isinstance(images, np.ndarray) and images.dtype != object:
            return cls._from_array(images, labels, classes)
        pictures = [_as_rgb(f"images[{n}]", np.asarray(image)) for n, image in enumerate(images)]
        if not pictures:
            raise ValueError("images is empty: expected at least one image")
        shapes = np.array([picture.shape[:2] for picture in pictures], np.int64)
        pixels = np.concatenate([picture.reshape(-1) for picture in pictures])
        return cls(pixels, image_offsets(shapes), shapes, labels, classes)

    @classmethod
    def _from_array(cls, images: npt.NDArray, labels: npt.ArrayLike | None, classes: Sequence[str]) -> ArraySource:
        gray = images.ndim == 3
        if images.dtype != np.uint8 or not (gray or (images.ndim == 4 and images.shape[3] == CHANNELS)):
            raise _no_images("images", images, "(N, height, width, 3) or (N, height, width)")
        if images.size == 0:
            raise ValueError(f"images: shape {images.shape} is empty; expected at least one pixel")
        rgb = np.repeat(images[..., None], CHANNELS, axis=3) if gray else np.ascontiguousarray(images)
        shapes = np.tile(np.array(images.shape[1:3], np.int64), (len(images), 1))
        return cls(rgb.reshape(-1), image_offsets(shapes), shapes, labels, classes)

    def __repr__(self) -> str:
        """Counts and memory."""
        return f"ArraySource({len(self)} images, {len(self.classes)} classes, {len(self.pixels) / 1e6:.0f} MB)"

    @functools.cached_property
    def addresses(self) -> npt.NDArray[np.int64]:
        """(N,) int64, where the pixels of each image start in memory."""
        return self.pixels.ctypes.data + self.offsets[:-1]

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the addresses, which differ in another process."""
        return {name: value for name, value in self.__dict__.items() if name != "addresses"}

    def image(self, sample_id: int) -> npt.NDArray[np.uint8]:
        """One image, (H, W, 3) uint8: a read-only view."""
        height, width = self.shapes[sample_id].tolist()
        return self.pixels[self.offsets[sample_id] : self.offsets[sample_id + 1]].reshape(height, width, CHANNELS)

    def name(self, sample_id: int) -> str:
        """What errors call a sample: its place, or what its origin calls it."""
        return f"images[{sample_id}]" if self._origin is None else str(self._origin.name(sample_id))

    def select(self, ids: npt.ArrayLike) -> ArraySource:
        """The samples ``ids``, (M,) integers, as a source of their own, copied: ``ids[i]`` becomes sample i."""
        chosen = checked_ids(ids, len(self))
        shapes = self.shapes[chosen]
        offsets = image_offsets(shapes)
        pixels = np.empty(offsets[-1], np.uint8)
        for n, sample_id in enumerate(chosen.tolist()):
            pixels[offsets[n] : offsets[n + 1]] = self.pixels[self.offsets[sample_id] : self.offsets[sample_id + 1]]
        origin = None if self._origin is None else self._origin.select(chosen)
        return ArraySource(pixels, offsets, shapes, self.labels[chosen], self.classes, origin)

    def fingerprint(self) -> str:
        """16 hex digits that change with any pixel, size, label, or the order of the samples; or the origin's."""
        return self._fingerprint

    @functools.cached_property
    def _fingerprint(self) -> str:
        if self._origin is not None:
            return str(self._origin.fingerprint())
        return digest_of(self.pixels, self.shapes, self.labels)


Source: TypeAlias = "FileSource | ArraySource"


def image_offsets(shapes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """(N + 1,) int64: where images with sides ``shapes`` (N, 2) start when they lie one after the other."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(shapes.prod(axis=1) * CHANNELS)])


def _as_rgb(name: str, image: npt.NDArray) -> npt.NDArray[np.uint8]:
    if image.dtype != np.uint8 or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] == CHANNELS)):
        raise _no_images(name, image, "(height, width, 3) or (height, width)")
    if image.size == 0:
        raise ValueError(f"{name}: shape {image.shape} is empty; expected at least one pixel")
    return np.repeat(image[..., None], CHANNELS, axis=2) if image.ndim == 2 else image


def _no_images(name: str, array: npt.NDArray, shape: str) -> Exception:
    if array.dtype != np.uint8:
        return TypeError(f"{name}: expected uint8 from 0 to 255, got {array.dtype}; scale and convert it first")
    return ValueError(f"{name}: expected {shape}, channels last, got shape {array.shape}")


def _described(array: npt.NDArray) -> str:
    return f"{array.dtype} of shape {array.shape}"


def _read_only(array: npt.NDArray) -> npt.NDArray:
    view = array.view()
    view.flags.writeable = False
    return view
