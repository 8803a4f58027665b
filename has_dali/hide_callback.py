"""What ``fn.hide_and_seek`` runs once per batch: layouts read, keys unpacked, the kernel launched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from has_dali.kernels import cpu
from has_dali.kernels.policy import HideAndSeek
from has_dali.keys import EPOCH, POLICY_THRESHOLD, SAMPLE_ID, THRESHOLD
from has_dali.operators import as_numpy, as_writable_numpy

NAME = "has_dali.fn.hide_and_seek"
_LAYOUTS = ("HWC", "CHW", "HW", "FHWC", "FCHW")
# Dimensions, first and last letter tell them apart; that is what the graph hands over.
_BY_ENDS = {(len(layout), layout[0], layout[-1]): layout for layout in _LAYOUTS}


class HideCallback:
    """Callable for ``BatchOperator``: (images..., layouts..., keys) to (images..., [mask])."""

    def __init__(self, policy: HideAndSeek, fills: Sequence[Any], *, inplace: bool, return_mask: bool) -> None:
        self.policy, self.fills = policy, fills
        self.inplace, self.return_mask = inplace, return_mask

    def __call__(self, *tensors: Any) -> tuple[Any, ...]:
        count = len(self.fills)
        keys = as_numpy(tensors[2 * count])
        thresholds = keys[:, THRESHOLD]
        p_hide = None
        if len(keys) and thresholds[0] != POLICY_THRESHOLD:
            p_hide = thresholds.astype(np.float64) / 2**32
        outputs = []
        sides = set()
        for i in range(count):
            batch = as_writable_numpy(tensors[i]) if self.inplace else as_numpy(tensors[i])
            layout = _layout_of(batch, as_numpy(tensors[count + i]))
            frames, sequence_layout = _as_frames(batch, layout)
            sides.add((frames.shape[sequence_layout.index("H")], frames.shape[sequence_layout.index("W")]))
            out = batch if self.inplace else np.empty_like(batch)
            self._hide(frames, _as_frames(out, layout)[0], sequence_layout, keys, p_hide, self.fills[i])
            outputs.append(out)
        if len(sides) > 1:
            raise ValueError(f"{NAME}: images: expected one height and width to share a mask, got {sorted(sides)}")
        if self.return_mask:
            height, width = next(iter(sides))
            masks = np.zeros((len(keys), height, width, 1), np.uint8)
            cpu.hide(masks, self.policy, keys[:, SAMPLE_ID], keys[:, EPOCH], 1, "NHWC", masks, p_hide)
            outputs.append(masks[..., 0])
        return tuple(out.__dlpack__() for out in outputs)

    def _hide(
        self, frames: npt.NDArray, out: npt.NDArray, layout: str, keys: npt.NDArray, p_hide: Any, fill: Any
    ) -> None:
        repeat = len(frames) // max(len(keys), 1)  # all frames of a sequence share the mask
        ids, epochs = np.repeat(keys[:, SAMPLE_ID], repeat), np.repeat(keys[:, EPOCH], repeat)
        per_frame = None if p_hide is None else np.repeat(p_hide, repeat)
        try:
            cpu.hide(frames, self.policy, ids, epochs, fill, layout, out, per_frame)
        except ValueError as error:
            raise ValueError(f"{NAME}: {error}".replace(": fill=", ": fill_value=")) from None


def _layout_of(batch: npt.NDArray, ends: npt.NDArray) -> str:
    first, last = (chr(int(letter)) if letter else "" for letter in ends[0, 0])
    layout = _BY_ENDS.get((batch.ndim - 1, first, last))
    if layout is None:
        came = f"{batch.ndim - 1} dimensions, {f'layout {first}..{last}' if first else 'no layout'}"
        raise ValueError(
            f"{NAME}: images: expected layout {', '.join(_LAYOUTS)}, got {came}; set it with fn.reinterpret(layout=...)"
        )
    return layout


def _as_frames(batch: npt.NDArray, layout: str) -> tuple[npt.NDArray, str]:
    """The batch as (frames, H, W, C) or (frames, C, H, W), and that layout's name."""
    if layout == "HW":
        return batch[..., None], "NHWC"
    if layout.startswith("F"):
        batch = batch.reshape(-1, *batch.shape[2:])
    return batch, "NCHW" if layout.endswith("CHW") else "NHWC"
