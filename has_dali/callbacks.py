"""What the DALI operators run once per batch: run-time checks, and the hand-over to a launcher."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from has_dali import dlpack
from has_dali.kernels.policy import HideAndSeek
from has_dali.keys import KEY_WORDS, PackKeys
from has_dali.launchers import Launcher, reshaped
from has_dali.sample_functions import DESCRIBED, layout_code

_LAYOUTS = ("HWC", "CHW", "HW", "FHWC", "FCHW")
_BY_CODE = {layout_code(layout): layout for layout in _LAYOUTS}


class HideKeys(PackKeys):
    """Keys of ``hide_and_seek``: one per image or, for sequences, per frame: (N, frames, 4); and empty masks.

    ``layouts`` are those of the batches, known from the first call on. The operator that hides takes the keys of
    the same iteration as an input, so it never runs before they are known.
    """

    def __init__(self, name: str, batches: int, return_mask: bool) -> None:
        super().__init__(name)
        self.layouts: list[str] = [""] * batches
        self.return_mask = return_mask

    def checked(self, keys: npt.NDArray[np.int64], values: dict[str, npt.NDArray]) -> tuple[npt.NDArray, ...]:
        """Keys repeated per frame; with ``return_mask`` also (N, H, W) uint8 zeros."""
        frames, sides = set(), set()
        for i in range(len(self.layouts)):
            described = values[f"batch{i}"].reshape(-1, DESCRIBED).astype(np.int64)
            self.layouts[i] = layout = self._layout(described)
            shape = described[0, 1:].tolist()
            sides.add((shape[layout.index("H")], shape[layout.index("W")]))
            frames.add(shape[0] if layout[0] == "F" else 1)
        if len(sides) > 1:
            raise ValueError(f"{self.name}: images: expected one height and width for all, got {sorted(sides)}")
        if len(frames) > 1:
            raise ValueError(f"{self.name}: images: expected one number of frames for all, got {sorted(frames)}")
        repeated = np.repeat(keys[:, None], next(iter(frames), 1), axis=1)
        if not self.return_mask:
            return (repeated,)
        return repeated, np.zeros((len(keys), *next(iter(sides), (0, 0))), np.uint8)

    def _layout(self, described: npt.NDArray[np.int64]) -> str:
        """The layout of a batch, whose samples have one shape."""
        shapes = [tuple(side for side in row if side >= 0) for row in described[:, 1:].tolist()]
        if len(set(shapes)) > 1:
            other = next(shape for shape in shapes if shape != shapes[0])
            raise ValueError(
                f"{self.name}: images: expected one shape for the whole batch, got {shapes[0]} and {other};"
                " resize or pad them first, or use resize_mirror_normalize_hide"
            )
        layout = _BY_CODE.get(int(described[0, 0]))
        if layout is None or len(layout) != len(shapes[0]):
            came = "another layout" if described[0, 0] else "no layout"
            raise ValueError(
                f"{self.name}: images: expected layout {', '.join(_LAYOUTS)}, got {came} for shape {shapes[0]};"
                " set it with fn.reinterpret(layout=...)"
            )
        if min(shapes[0]) < 1:
            raise ValueError(f"{self.name}: images: expected at least one pixel, got shape {shapes[0]}")
        return layout


class ResizeKeys(PackKeys):
    """Keys of ``resize_mirror_normalize_hide``; checks the images' shapes.

    Args:
        name: operator that error messages name.
        channels: least and most channels that mean, std and fill serve.
    """

    def __init__(self, name: str, channels: tuple[int, int]) -> None:
        super().__init__(name)
        self.channels = channels

    def checked(self, keys: npt.NDArray[np.int64], values: dict[str, npt.NDArray]) -> tuple[npt.NDArray, ...]:
        """The keys, if the images are HWC with the right channels."""
        shapes = values["shapes"]
        if shapes.shape[1] != 3:
            raise ValueError(f"{self.name}: images: expected HWC (3 dimensions), got {shapes.shape[1]} dimensions")
        if shapes.size and shapes[:, :2].min() < 1:
            raise ValueError(f"{self.name}: images: expected at least one pixel, got a side of {shapes[:, :2].min()}")
        least, most = self.channels
        wrong = (shapes[:, 2] < least) | (shapes[:, 2] > most)
        if wrong.any():
            wanted = f"{most}" if least == most else f"{least} to {most}"
            came = tuple(shapes[wrong][0].tolist())
            raise ValueError(
                f"{self.name}: images: expected HWC with {wanted} channels, got shape {came};"
                " mean, std and fill_value have one number per channel"
            )
        return (keys,)


class HideCallback:
    """Callable for ``BatchOperator``: (images..., [masks], keys) to the same images and masks, hidden in place."""

    def __init__(
        self, launcher: Launcher, policy: HideAndSeek, fills: Sequence[Any], own_p: bool, keys: HideKeys, device: str
    ) -> None:
        self.launcher, self.policy, self.own_p, self.keys, self.device = launcher, policy, own_p, keys, device
        self.fills = [*fills, 1] if keys.return_mask else list(fills)

    def __call__(self, *arguments: Any) -> tuple[Any, ...]:
        """On the GPU DALI's stream comes first."""
        stream, tensors = (0, arguments) if self.device == "cpu" else (arguments[0], arguments[1:])
        capsules = [tensor.__dlpack__(stream=stream or None) for tensor in tensors]
        *batches, packed = map(dlpack.view, capsules)
        samples, frames = packed.shape[:2]
        layouts = [*self.keys.layouts, "HW"] if self.keys.return_mask else self.keys.layouts
        for batch, layout, fill in zip(batches, layouts, self.fills, strict=True):
            images, order = _as_images(batch, layout)
            keys = reshaped(packed, samples * frames, KEY_WORDS)
            try:
                self.launcher.hide(images, order, self.policy, keys, self.own_p, fill, stream)
            except (TypeError, ValueError) as error:
                raise type(error)(
                    f"{self.keys.name}: {error}".replace(" fill=", " fill_value=").replace(" batch:", " images:")
                ) from None
        return tuple(capsules[:-1])


def _as_images(batch: dlpack.TensorView, layout: str) -> tuple[dlpack.TensorView, str]:
    """The batch as (images, H, W, C) or (images, C, H, W), and that order's name."""
    if layout == "HW":
        return reshaped(batch, *batch.shape, 1), "NHWC"
    if layout[0] == "F":
        batch = reshaped(batch, batch.shape[0] * batch.shape[1], *batch.shape[2:])
    return batch, "NCHW" if layout.endswith("CHW") else "NHWC"


class ResizeCallback:
    """Callable for ``dl_tensor_python_function``: lists of image and key capsules to a list of output capsules."""

    def __init__(
        self, launcher: Launcher, policy: HideAndSeek | None, own_p: bool, options: dict[str, Any], name: str
    ) -> None:
        self.launcher, self.policy, self.own_p, self.options, self.name = launcher, policy, own_p, options, name

    def __call__(self, images: list[Any], keys: list[Any]) -> list[Any]:
        """One launch for the batch, on the stream that DALI names."""
        from nvidia.dali import python_function_plugin

        sources, packed = [dlpack.view(image) for image in images], [dlpack.view(key) for key in keys]
        stream = int(python_function_plugin.current_dali_stream() or 0)
        try:
            return self.launcher.resize(sources, self.policy, self._joined(packed), self.own_p, stream, self.options)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{self.name}: {error}") from None

    def _joined(self, keys: list[dlpack.TensorView]) -> dlpack.TensorView:
        """The keys of all samples as one (N, 4) tensor: what ``.gpu()`` makes lies in one piece."""
        if not keys:
            return dlpack.TensorView(0, (0, KEY_WORDS), np.dtype(np.int64), (dlpack.CPU, 0), None, None)
        step = KEY_WORDS * keys[0].dtype.itemsize
        if any(key.pointer != keys[0].pointer + n * step for n, key in enumerate(keys)):
            raise ValueError("keys: expected the samples' keys in one piece of memory, got them apart")
        return dlpack.TensorView(keys[0].pointer, (len(keys), KEY_WORDS), keys[0].dtype, keys[0].device, None, keys)
