"""One image as training sees it: several patch sizes, several epochs (paper, Figs 1 and 2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from has_dali.functional import hide
from has_dali.kernels.policy import HideAndSeek
from has_dali.trainers.figures import style

_SIDE, _GAP, _CAPTION, _HEAD = 1.15, 0.07, 0.24, 0.26
_FIRST_GAP, _TITLE = 0.24, 0.32


def strip_figure(
    image: npt.NDArray[np.uint8],
    policies: Mapping[str, HideAndSeek],
    epochs: Sequence[int],
    fill: Sequence[float],
    *,
    sample_id: int = 0,
    title: str = "",
) -> Figure:
    """The whole image once, then a row per policy with a column per epoch: the very masks that a loader applies.

    Args:
        image: (H, W, 3) uint8, as it enters the operator.
        policies: by the name of their row.
        epochs: the columns.
        fill: RGB of hidden pixels, 0..255: the data set's mean.
        sample_id: of the image.
        title: above all.

    Raises:
        ValueError: there is no policy or no epoch, or the image has another shape.
    """
    if not policies or not epochs:
        raise ValueError(f"policies={len(policies)}, epochs={len(epochs)}: expected at least one of each")
    names = max(style.text_width(name, 8) for name in policies) + 0.12
    left = style.MARGIN + _SIDE + _FIRST_GAP + names
    top = style.MARGIN + (_TITLE if title else 0)
    pitch = _SIDE + _CAPTION
    width = left + len(epochs) * (_SIDE + _GAP) - _GAP + style.MARGIN
    figure = style.new_figure(width, top + _HEAD + len(policies) * pitch + style.MARGIN / 2)
    style.write(figure, style.MARGIN, style.MARGIN + 0.1, title, 10, width=width - 2 * style.MARGIN, fontweight="bold")
    middle = top + _HEAD + (len(policies) - 1) * pitch / 2
    style.write(figure, style.MARGIN + _SIDE / 2, middle - 0.13, "whole image", 8, ha="center")
    style.show_picture(style.panel(figure, style.MARGIN, middle, _SIDE, _SIDE), image, smooth=False)
    for column, epoch in enumerate(epochs):
        x = left + column * (_SIDE + _GAP)
        style.write(figure, x + _SIDE / 2, top + 0.13, f"epoch {epoch}", 8, ha="center")
        for row, policy in enumerate(policies.values()):
            y = top + _HEAD + row * pitch
            hidden = hide(image[None], policy, [sample_id], epoch, fill=fill, layout="NHWC")[0]
            share = policy.mask([sample_id], epoch, *image.shape[:2]).mean()
            style.show_picture(style.panel(figure, x, y, _SIDE, _SIDE), hidden, smooth=False)
            caption = f"{share:.0%} hidden" if share else "whole"
            style.write(figure, x + _SIDE / 2, y + _SIDE + 0.1, caption, 7, ha="center", color=style.FADED)
    for row, name in enumerate(policies):
        y = top + _HEAD + row * pitch + _SIDE / 2
        style.write(figure, left - 0.1, y, name, 8, ha="right")
    return figure
