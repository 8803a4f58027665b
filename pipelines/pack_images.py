"""One image on its way into a shard: read, checked, shrunk and encoded.

Whatever a shard holds has been decoded once, so a broken file never gets in. Files are decoded by Pillow here: it reads
some damaged headers that the loaders refuse, and what it decodes comes out as a clean JPEG.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from has_dali.pipelines.arrays import DecodedSource
from has_dali.pipelines.jpeg_markers import has_clean_header, has_end
from has_dali.pipelines.pil import as_rgb
from has_dali.pipelines.tar_shards import TAR_IMAGES

if TYPE_CHECKING:
    from PIL.Image import Image

Content: TypeAlias = "bytes | npt.NDArray[np.uint8]"
"""An encoded image, or pixels (H, W, 3)."""

_ORIENTATION = 0x0112  # EXIF tag
_DRAFT_MARGIN = 2  # a JPEG decoded at a half, a quarter or an eighth keeps at least this many times the final size
_EXTENSIONS = {"JPEG": "jpg", "MPO": "jpg", "PPM": "ppm", "TIFF": "tif"}  # others: the format's name


class BrokenImageError(ValueError):
    """An image that cannot be read or decoded; the message is the reason alone."""


@dataclass(frozen=True)
class Form:
    """What becomes of an image.

    Args:
        short_side: pixels of the shorter side at most; 0 leaves sizes as they are, and encoded images that the loaders
            read byte for byte.
        quality: of JPEGs that are encoded, 1 to 95.
        raw: store pixels instead.
    """

    short_side: int = 256
    quality: int = 90
    raw: bool = False


@dataclass(frozen=True)
class Member:
    """A file of a shard.

    Args:
        extension: of its name, without the dot.
        content: its bytes.
        start: where the image begins in them: behind the header of a ``.npy`` file.
        shape: height and width of raw pixels.
    """

    extension: str
    content: bytes
    start: int = 0
    shape: tuple[int, int] | None = None


def content_of(source: Any) -> Callable[[int], Content]:
    """A function that gives the image of a sample of any source: its bytes, or its pixels.

    Raises:
        TypeError: the source is of an unknown kind.
    """
    if isinstance(source, DecodedSource):
        return source.image
    if hasattr(source, "contents"):
        return lambda sample_id: source.contents(np.array([sample_id], np.int64))[0].tobytes()
    if hasattr(source, "path"):
        return lambda sample_id: _read(source.path(sample_id))
    raise TypeError(f"source: expected files, byte ranges or images in memory, got {type(source).__name__}")


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise BrokenImageError((error.strerror or str(error)).lower()) from None


def encoded(content: Content, form: Form) -> Member:
    """The member that holds an image in the given form.

    A JPEG that needs neither shrinking nor turning is copied byte for byte, after it was decoded to see that it is
    whole; with a short side of 0, so is an image of any format and orientation that the loaders read. Every other one
    is shrunk with a Lanczos filter, turned as its EXIF entry says, and encoded anew, with chroma at half resolution as
    is usual.

    Raises:
        BrokenImageError: the image cannot be decoded.
    """
    from PIL import Image, UnidentifiedImageError

    if isinstance(content, np.ndarray):
        return _member(_shrunk(Image.fromarray(content), form.short_side), form)
    if not content:
        raise BrokenImageError("the file is empty")
    try:
        with Image.open(io.BytesIO(content)) as image:
            orientation = orientation_of(image)
            if not form.raw and _stays(image, content, orientation, form.short_side):
                image.draft(image.mode, (1, 1))  # reads all data as well, in two thirds of the time
                image.load()
                return Member(_extension(image), content)
            return _member(_turned(_shrunk(image, form.short_side), orientation), form)
    except UnidentifiedImageError:
        raise BrokenImageError("is no image that can be decoded") from None
    except MemoryError:
        raise
    except Exception as error:  # Pillow raises many kinds over broken files
        raise BrokenImageError(f"cannot be decoded ({error or type(error).__name__})") from None


def orientation_of(image: Image) -> int:
    """EXIF orientation, 1 to 8; 1 where there is none or it cannot be read."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # Pillow raises many kinds over broken EXIF blocks, which do not hinder decoding
        return 1
    return value if value in range(1, 9) else 1


def _stays(image: Image, content: bytes, orientation: int, short_side: int) -> bool:
    if short_side == 0:
        return _extension(image) in TAR_IMAGES and (image.format not in ("JPEG", "MPO") or _loads(image, content))
    plain = image.format == "JPEG" and image.mode in ("RGB", "L") and orientation == 1
    return plain and min(image.size) <= short_side and _loads(image, content)


def _loads(image: Image, content: bytes) -> bool:
    """Whether the loaders' decoder takes a JPEG that Pillow takes."""
    if not (has_clean_header(content) and has_end(content)):
        return False
    if image.mode != "CMYK":  # of four channels
        return True
    from has_dali.pipelines.colour_check import lacks_colours  # compiles, which other images do without

    return not lacks_colours(np.frombuffer(content, np.uint8))


def _extension(image: Image) -> str:
    name = image.format or ""
    return _EXTENSIONS.get(name, name.lower())


def _shrunk(image: Image, short_side: int) -> Image:
    """RGB, its short side at most ``short_side``, the other one as torchvision's ``Resize`` rounds it."""
    from PIL import Image as Pillow

    width, height = image.size
    short = min(width, height)
    if short_side == 0 or short <= short_side:
        return as_rgb(image)
    size = short_side * width // short, short_side * height // short
    image.draft(image.mode, (_DRAFT_MARGIN * size[0], _DRAFT_MARGIN * size[1]))
    return as_rgb(image).resize(size, Pillow.Resampling.LANCZOS)


def _turned(image: Image, orientation: int) -> Image:
    from PIL.Image import Transpose

    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    return image.transpose(turns[orientation]) if orientation in turns else image


def _member(image: Image, form: Form) -> Member:
    buffer = io.BytesIO()
    if form.raw:
        pixels = np.asarray(image)
        np.save(buffer, pixels)
        return Member("npy", buffer.getvalue(), buffer.tell() - pixels.nbytes, (image.height, image.width))
    image.save(buffer, "JPEG", quality=form.quality)
    return Member("jpg", buffer.getvalue())
