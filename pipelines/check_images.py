"""What is wrong, or odd, about one encoded image: looked at by Pillow, decoded by the loaders' decoder."""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from has_dali.pipelines.pack_images import orientation_of

BROKEN = "broken"
SUSPICIOUS = (
    "truncated", "damaged", "wrong-extension", "cmyk", "exif-rotated", "constant", "tiny", "size-differs",
)  # fmt: skip
TINY = 16  # pixels of the shorter side; below it an image shows next to nothing
_INKS = ("CMYK", "YCCK")
_SIDEWAYS = 5  # EXIF orientations from here on exchange width and height
_EXTENSIONS = {
    "JPEG": ("jpg", "jpeg", "jpe", "jfif"), "MPO": ("mpo", "jpg", "jpeg"), "PNG": ("png",), "BMP": ("bmp", "dib"),
    "PPM": ("ppm", "pgm", "pbm", "pnm"), "TIFF": ("tif", "tiff"), "WEBP": ("webp",), "GIF": ("gif",),
}  # fmt: skip
_KNOWN = {extension for extensions in _EXTENSIONS.values() for extension in extensions}


class Place(NamedTuple):
    """Where an encoded image is: a range of bytes of a file, or all of it with ``length`` None."""

    path: str
    offset: int
    length: int | None
    name: str
    """What the image is called, with its extension where it has one."""


@dataclass(frozen=True)
class Inspected:
    """What was found about an image: kinds of finding with details, and the first 16 bytes of its SHA-256."""

    findings: tuple[tuple[str, str], ...]
    digest: bytes = b""


def inspect_place(place: Place) -> Inspected:
    """Read one image and look at it."""
    try:
        with open(place.path, "rb") as file:
            file.seek(place.offset)
            content = file.read() if place.length is None else file.read(place.length)
    except OSError as error:
        return Inspected(((BROKEN, (error.strerror or str(error)).lower()),))
    if place.length is not None and len(content) < place.length:
        return Inspected(((BROKEN, "the file ends before the image does"),))
    return inspect_image(content, place.name)


def inspect_image(content: bytes, name: str) -> Inspected:
    """Look at the bytes of one image; ``name``: what it is called, for its extension."""
    digest = hashlib.sha256(content).digest()[:16]
    if not content:
        return Inspected(((BROKEN, "the file is empty"),), digest)
    header, pillow_fault = _seen_by_pillow(content)
    findings = _header_findings(header, content, name) if header is not None else []
    pixels, reason, remarks = _decoder().decode(content)
    if pixels is not None and (header is None or header.mode in _INKS):  # others have no four channels
        from has_dali.pipelines.broken import COLOURLESS
        from has_dali.pipelines.colour_check import lacks_colours

        if lacks_colours(np.frombuffer(content, np.uint8)):  # the decoder shows it black, and the loaders refuse it
            pixels, reason = None, COLOURLESS
    if pixels is None:
        advice = "; has-dali pack writes it anew, readable" if header is not None and pillow_fault is None else ""
        return Inspected(((BROKEN, reason + advice),), digest)
    if pillow_fault is not None:
        findings.append(("truncated" if "truncated" in pillow_fault else "damaged", pillow_fault))
    if remarks:
        findings.append(("damaged", remarks))
    if header is not None and pixels.shape[:2] != header.shown:
        height, width = header.shown
        findings.append(("size-differs", f"decoded {pixels.shape[0]}x{pixels.shape[1]}, header {height}x{width}"))
    findings += pixel_findings(pixels)
    return Inspected(tuple(findings), digest)


def pixel_findings(pixels: npt.NDArray[np.uint8]) -> list[tuple[str, str]]:
    """What is odd about decoded pixels (H, W, 3)."""
    findings = []
    height, width = pixels.shape[:2]
    if min(height, width) < TINY:
        findings.append(("tiny", f"{height}x{width} pixels"))
    first = pixels[0, 0]
    if height * width > 1 and (pixels == first).all():
        findings.append(("constant", f"every pixel is {tuple(first.tolist())}"))
    return findings


@dataclass(frozen=True)
class _Header:
    format: str
    mode: str
    orientation: int
    shown: tuple[int, int]
    """Height and width after the EXIF orientation, where the loaders apply it."""


def _seen_by_pillow(content: bytes) -> tuple[_Header | None, str | None]:
    """The header, where Pillow can read it, and why the rest cannot be decoded, or None."""
    from PIL import Image

    header = None
    try:
        with _silent(), Image.open(io.BytesIO(content)) as image:
            orientation = orientation_of(image)
            width, height = image.size
            sideways = orientation >= _SIDEWAYS
            shown = (width, height) if sideways else (height, width)
            header = _Header(image.format or "", image.mode, orientation, shown)
            image.load()
    except Exception as error:  # Pillow raises many kinds over broken files
        return header, str(error) or type(error).__name__
    return header, None


@contextmanager
def _silent() -> Iterator[None]:
    """Pillow warns about odd metadata."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _header_findings(header: _Header, content: bytes, name: str) -> list[tuple[str, str]]:
    findings = []
    extension = os.path.splitext(name)[1].lower().lstrip(".")
    expected = _EXTENSIONS.get(header.format, ())
    if extension in _KNOWN and expected and extension not in expected:
        findings.append(("wrong-extension", f"{header.format} data named .{extension}"))
    if header.mode in _INKS:
        findings.append(("cmyk", "four ink channels; decoders differ in how they make RGB of them"))
    if header.orientation != 1:
        findings.append(("exif-rotated", f"orientation {header.orientation}"))
    return findings


class _Decoder:
    """The loaders' decoder for one image at a time; what libraries write to stderr is read, not shown."""

    def __init__(self) -> None:
        self._content = np.empty(0, np.uint8)
        self._pipeline: Any = None
        self._remarks: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the process)

    def decode(self, content: bytes) -> tuple[npt.NDArray[np.uint8] | None, str, str]:
        """Pixels, or None and the reason; and what the decoder remarked."""
        self._content = np.frombuffer(content, np.uint8)
        self._remarks.seek(0)
        self._remarks.truncate()
        pixels, reason = None, ""
        with _redirected(self._remarks):
            try:
                self._pipeline = self._pipeline or self._built()
                (output,) = self._pipeline.run()
                pixels = np.asarray(output.at(0))
            except RuntimeError as error:
                self._pipeline = None  # DALI gives up a pipeline in which an operator failed
                from has_dali.pipelines.broken import cause, is_machines  # half a second, which good images do without

                if is_machines(str(error)):
                    raise
                reason = cause(str(error))
        self._remarks.seek(0)
        lines = self._remarks.read().decode(errors="replace").splitlines()
        return pixels, reason, next((line.strip() for line in lines if "JPEG" in line or "jpeg" in line), "")

    def _built(self) -> Any:
        from nvidia.dali import Pipeline, fn, types

        pipeline = Pipeline(1, 1, None, prefetch_queue_depth=1)
        with pipeline:
            encoded = fn.external_source(source=lambda: [self._content], batch=True, ndim=1, dtype=types.UINT8)
            pipeline.set_outputs(fn.decoders.image(encoded, output_type=types.RGB))
        return pipeline


@contextmanager
def _redirected(file: IO[bytes]) -> Iterator[None]:
    """File descriptor 2 goes to a file while the block runs: C libraries write there."""
    kept = os.dup(2)
    os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


@lru_cache(maxsize=1)
def _decoder() -> _Decoder:
    return _Decoder()
