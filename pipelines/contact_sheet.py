"""Contact sheet: what a policy does to images, as one picture. Rows are images, columns are policies and epochs.

The masks are the very ones that a loader applies: a cell is drawn from the file's sample id (its place in the
sorted file list) and the column's epoch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from has_dali.kernels import contract, reference
from has_dali.kernels.policy import HideAndSeek
from has_dali.pipelines.pil import as_rgb, opened_image

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

_BACKGROUND, _INK, _FADED, _RULE = (255, 255, 255), (28, 32, 38), (110, 118, 128), (205, 210, 216)
_MARGIN, _GAP, _GROUP_GAP = 28, 10, 34
_GROUP_TEXT, _TITLE_TEXT, _CAPTION_TEXT = 21, 26, 18
_HEADER, _CAPTION = 92, 30
# Of the whole sheet: 240 MB as RGB, and less than what Pillow warns about on opening (89 million).
MAX_PIXELS = 80_000_000


@dataclass(frozen=True)
class Column:
    """One column of the sheet; ``policy`` None shows the images whole."""

    group: str
    title: str
    policy: HideAndSeek | None = None
    epoch: int = 0


def columns(policy: HideAndSeek, epochs: int) -> list[Column]:
    """Original, one column per patch size where the policy mixes several, then ``epochs`` epochs of the policy."""
    layout = [Column("", "original")]
    sizes = sorted(size for size in set(policy.patch_sizes) if size)
    if len(sizes) > 1:
        group = "one patch size, every image hidden"
        layout += [Column(group, f"S = {s}", policy.with_(patch_sizes=(s,), p_apply=1.0)) for s in sizes]
    group = "the policy: patch size and cells drawn anew each epoch"
    return layout + [Column(group, f"epoch {epoch}", policy, epoch) for epoch in range(epochs)]


def render(
    images: Sequence[tuple[int, str]], layout: Sequence[Column], fill: Sequence[float], size: int
) -> tuple[Image, list[float]]:
    """Draw the sheet.

    Args:
        images: (sample id, file) of each row.
        layout: the columns.
        fill: RGB of hidden pixels, 0..255.
        size: edge of the square centre crop that a cell shows, in pixels.

    Returns:
        The sheet, and the fraction of hidden pixels in each column.

    Raises:
        ValueError: the sheet would have more than ``MAX_PIXELS`` pixels, or a file cannot be decoded.
    """
    from PIL import Image, ImageDraw

    lefts = list(_lefts(layout, size))
    pitch = size + _CAPTION + _GAP
    width, height = lefts[-1] + size + _MARGIN, _HEADER + len(images) * pitch - _GAP + _MARGIN // 2
    if width * height > MAX_PIXELS:
        raise ValueError(
            f"contact sheet: {len(images)} images x {len(layout)} columns of {size} pixels make {width} x {height},"
            f" expected at most {MAX_PIXELS // 10**6} million pixels; lower --images, --epochs or --size"
        )
    sheet = Image.new("RGB", (width, height), _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    _draw_header(draw, layout, lefts, size)
    hidden = np.zeros(len(layout))
    colour = np.clip(np.rint(np.asarray(fill, np.float64)), 0, 255).astype(np.uint8)
    for row, (sample_id, path) in enumerate(images):
        pixels = _centre_crop(path, size)
        top = _HEADER + row * pitch
        for i, column in enumerate(layout):
            mask, caption = _mask(column, sample_id, size)
            sheet.paste(Image.fromarray(np.where(mask[..., None], colour, pixels)), (lefts[i], top))
            text = (lefts[i] + size // 2, top + size + _CAPTION // 2)
            draw.text(text, caption, fill=_FADED, font=_font(_CAPTION_TEXT), anchor="mm")
            hidden[i] += mask.mean() / len(images)
    return sheet, [float(fraction) for fraction in hidden]


def drawn_patch_size(policy: HideAndSeek, sample_id: int, epoch: int) -> int:
    """The patch size that an image gets in an epoch; 0 when it stays whole."""
    apply, choice = (int(word) for word in reference.words(policy.seed, epoch, sample_id, 0)[0][:2])
    if apply >= contract.threshold(policy.p_apply):
        return 0
    return policy.patch_sizes[(choice * len(policy.patch_sizes)) >> 32]


def _mask(column: Column, sample_id: int, size: int) -> tuple[npt.NDArray[np.bool_], str]:
    """Mask of one cell of the sheet, (size, size), and the line below it."""
    if column.policy is None:
        return np.zeros((size, size), np.bool_), ""
    mask = column.policy.mask([sample_id], column.epoch, size, size)[0]
    patch_size = drawn_patch_size(column.policy, sample_id, column.epoch)
    share = f"{mask.mean():.0%} hidden" if patch_size else "whole"
    fixed = len(set(column.policy.patch_sizes)) == 1 or not patch_size
    return mask, share if fixed else f"S = {patch_size}, {share}"


def _centre_crop(path: str, size: int) -> npt.NDArray[np.uint8]:
    from PIL import Image, ImageOps

    with opened_image(path) as image:
        upright = as_rgb(ImageOps.exif_transpose(image))
    return np.asarray(ImageOps.fit(upright, (size, size), Image.Resampling.LANCZOS))


def _lefts(layout: Sequence[Column], size: int) -> Iterator[int]:
    """Left edge of each column; groups stand apart."""
    left = _MARGIN
    for i, column in enumerate(layout):
        if i:
            left += size + (_GAP if column.group == layout[i - 1].group else _GROUP_GAP)
        yield left


def _draw_header(draw: ImageDraw, layout: Sequence[Column], lefts: Sequence[int], size: int) -> None:
    middle = _HEADER - 24
    for column, left in zip(layout, lefts, strict=True):
        draw.text((left + size // 2, middle), column.title, fill=_INK, font=_font(_TITLE_TEXT), anchor="mm")
    for group, members in groupby(zip(layout, lefts, strict=True), key=lambda member: member[0].group):
        edges = [left for _, left in members]
        if not group:
            continue
        left, right = edges[0], edges[-1] + size
        draw.text(
            ((left + right) // 2, 20),
            _fitting(draw, group, right - left),
            fill=_FADED,
            font=_font(_GROUP_TEXT),
            anchor="mm",
        )
        draw.line((left, 40, right, 40), fill=_RULE, width=2)


def _fitting(draw: ImageDraw, text: str, width: int) -> str:
    """``text``, or as much of it before the first comma or colon as fits."""
    if draw.textlength(text, font=_font(_GROUP_TEXT)) <= width:
        return text
    return text.replace(":", ",").partition(",")[0]


def _font(size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size)
