"""The one step in which CPU and CUDA pipelines differ: launching a kernel on tensors that DALI handed over.

Where output memory comes from, and why nobody can pull it away:

* ``hide`` works in place on DALI's own buffer, whose capsule goes back to DALI unconsumed (see ``dlpack.py``). Nothing
  is allocated, and no reference of ours decides how long the buffer lives.
* ``resize_mirror_normalize_hide`` on a GPU allocates its output on DALI's stream. DALI copies it into memory of its
  own, on that stream, before the operator ends; what is freed afterwards is reused by work that is queued on the
  same stream, hence later. So a consumer on another stream, however slow, never reads memory of ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from has_dali import dlpack
from has_dali.dlpack import TensorView
from has_dali.kernels import cpu, dispatch
from has_dali.kernels.policy import HideAndSeek
from has_dali.keys import EPOCH, KEY_WORDS, MIRROR, SAMPLE_ID, THRESHOLD


class Launcher(Protocol):
    """Launches on tensors of one kind of device."""

    def hide(
        self, batch: TensorView, layout: str, policy: HideAndSeek, keys: TensorView, own_p: bool, fill: Any, stream: int
    ) -> None:
        """Hide in place; ``keys`` (N, 4) int64, ``own_p``: the last of them is the sample's own threshold."""

    def resize(
        self, images: Sequence[TensorView], policy: HideAndSeek | None, keys: TensorView, own_p: bool, stream: int,
        options: dict[str, Any],
    ) -> list[Any]:  # fmt: skip
        """The fused operator: one capsule per image."""


def reshaped(tensor: TensorView, *shape: int) -> TensorView:
    """The same dense memory with another shape."""
    return TensorView(tensor.pointer, shape, tensor.dtype, tensor.device, None, tensor)


class CpuLauncher:
    """Numba kernels; a stream means nothing to them."""

    def hide(
        self, batch: TensorView, layout: str, policy: HideAndSeek, keys: TensorView, own_p: bool, fill: Any, stream: int
    ) -> None:
        """See ``Launcher``."""
        images, words = batch.numpy(), keys.numpy()
        cpu.hide(images, policy, words[:, SAMPLE_ID], words[:, EPOCH], fill, layout, images, self._p_hide(words, own_p))

    def resize(
        self, images: Sequence[TensorView], policy: HideAndSeek | None, keys: TensorView, own_p: bool, stream: int,
        options: dict[str, Any],
    ) -> list[Any]:  # fmt: skip
        """See ``Launcher``."""
        words = keys.numpy()
        outputs = cpu.resize_mirror_normalize_hide(
            [image.numpy() for image in images], policy, words[:, SAMPLE_ID], words[:, EPOCH],
            mirror=words[:, MIRROR] != 0, p_hide=self._p_hide(words, own_p), **options,
        )  # fmt: skip
        return [output.__dlpack__() for output in outputs]

    @staticmethod
    def _p_hide(words: np.ndarray, own_p: bool) -> Any:
        return words[:, THRESHOLD].astype(np.float64) / 2**32 if own_p else None  # exact: at most 33 bits


class CudaLauncher:
    """The CUDA kernels, on DALI's stream; keys are read on the device, so nothing waits for them.

    Args:
        module: ``kernels.gpu`` or a stand-in; None: the implementation that ``dispatch`` chooses, at the first launch,
            so that a graph can be defined where there is no GPU.
    """

    def __init__(self, module: Any = None) -> None:
        self._module = module

    def hide(
        self, batch: TensorView, layout: str, policy: HideAndSeek, keys: TensorView, own_p: bool, fill: Any, stream: int
    ) -> None:
        """See ``Launcher``."""
        self._kernels().hide(
            batch, policy, _column(keys, SAMPLE_ID), _column(keys, EPOCH), fill=fill, layout=layout, out=batch,
            thresholds=_column(keys, THRESHOLD) if own_p else None, stream=stream,
        )  # fmt: skip

    def resize(
        self, images: Sequence[TensorView], policy: HideAndSeek | None, keys: TensorView, own_p: bool, stream: int,
        options: dict[str, Any],
    ) -> list[Any]:  # fmt: skip
        """See ``Launcher``."""
        if not images:
            return []
        options = {**options, "dtype": np.dtype(options["dtype"]).name}
        result = self._kernels().resize_mirror_normalize_hide(
            list(images), policy, _column(keys, SAMPLE_ID), _column(keys, EPOCH), mirror=_column(keys, MIRROR),
            thresholds=_column(keys, THRESHOLD) if own_p else None, stream=stream, **options,
        )  # fmt: skip
        samples = result if isinstance(result, list) else _samples(result, len(images))
        return [_capsule(sample, images[0].device, result) for sample in samples]

    def _kernels(self) -> Any:
        if self._module is None:
            self._module = dispatch.cuda_kernels()
        return self._module


def warm_up_resize(policy: HideAndSeek | None, batch_size: int, device_index: int, **options: Any) -> None:
    """Compile what a GPU pipeline's ``resize_mirror_normalize_hide`` will launch, so that no batch waits for it.

    Args:
        policy: as the operator gets it.
        batch_size: as the pipeline has it.
        device_index: CUDA device.
        options: size, dtype, output_layout and antialias, as ``kernels.gpu.warm_up_resize`` takes them.
    """
    import torch

    with torch.cuda.device(device_index):
        compile_ahead = getattr(dispatch.cuda_kernels(), "warm_up_resize", None)
        if compile_ahead is not None:  # numba-cuda compiles at its first launch
            compile_ahead(policy, batch_size, keys_on_device=True, ragged=True, **options)


def _column(keys: TensorView, word: int) -> TensorView:
    """One word of every key, as a strided (N,) view."""
    item = keys.dtype.itemsize
    return TensorView(keys.pointer + word * item, keys.shape[:1], keys.dtype, keys.device, (KEY_WORDS * item,), keys)


def _samples(batch: Any, count: int) -> list[tuple[int, tuple[int, ...], str]]:
    """(address, shape, type string) of each sample of a dense batch on the device."""
    interface = batch.__cuda_array_interface__
    shape, typestr = tuple(interface["shape"][1:]), interface["typestr"]
    step = math.prod(shape) * np.dtype(typestr).itemsize
    return [(interface["data"][0] + n * step, shape, typestr) for n in range(count)]


def _capsule(sample: Any, device: tuple[int, int], owner: Any) -> Any:
    if not isinstance(sample, tuple):
        interface = sample.__cuda_array_interface__
        sample = (interface["data"][0], tuple(interface["shape"]), interface["typestr"])
    pointer, shape, typestr = sample
    return dlpack.capsule_of(pointer, shape, typestr, device, owner)
