"""``hide`` for any array: the augmentation in a plain training loop, with no DALI."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from has_dali.kernels import contract, cpu, dispatch, reference
from has_dali.kernels.policy import HideAndSeek

Array = TypeVar("Array")
_OVERLAP_WORK = 100_000
_DIMENSIONS = {"NCHW": 4, "NHWC": 4, "NCT": 3}


def hide(
    batch: Array,
    policy: HideAndSeek,
    sample_ids: Any,
    epoch: Any,
    *,
    fill: float | Sequence[float] = 0.0,
    layout: str = "NCHW",
    out: Array | None = None,
    backend: str = "auto",
) -> Array:
    """Hide cells of every image or sequence of a batch (paper, sections 3.1 and 3.2).

    Args:
        batch: NumPy array, torch tensor (CPU or CUDA) or CuPy array, (N, C, H, W), (N, H, W, C) or (N, C, T). On the
            CPU any dtype of 1 to 8 bytes and any strides; on CUDA devices uint8, float16, bfloat16 or float32, dense
            (channels_last counts), on the caller's current stream.
        policy: what is hidden how often.
        sample_ids: (N,) integers; with ``epoch`` and the policy's seed they determine the masks.
        epoch: one integer >= 0, or (N,) integers.
        fill: value of hidden pixels, one number or one per channel, in the batch's own units: the data set's mean
            before normalisation, 0 after it. Integers are rounded and saturated.
        layout: "NCHW", "NHWC", or "NCT" for sequences.
        out: where the result goes; ``out=batch`` works in place and touches hidden pixels only.
        backend: "auto" (by the batch's device: "cpu"; "cupy" or else "numba-cuda"), or one of these, or "reference".

    Returns:
        An array of the same kind as ``batch``; ``out`` where it was given.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.
    """
    _check_policy_and_layout(policy, layout)
    dispatch.check_backend(backend)
    torch = sys.modules.get("torch")
    if _on_cuda(batch):
        from has_dali.device_functional import hide_on_device

        return hide_on_device(batch, policy, sample_ids, epoch, fill, layout, out, backend)
    if backend in ("cupy", "numba-cuda"):
        raise ValueError(f"hide: backend={backend!r}: expected a batch on a CUDA device, got one on the CPU")
    if torch is not None and isinstance(batch, torch.Tensor):
        return _hide_torch(torch, batch, policy, sample_ids, epoch, fill, layout, out, backend)
    if not isinstance(batch, np.ndarray):
        raise TypeError(f"hide: batch: expected a NumPy or CuPy array or a torch tensor, got {type(batch).__name__}")
    check_out(batch, out, np.ndarray)
    result = _run(batch, policy, _host_array(sample_ids), _host_array(epoch), fill, layout, out, backend)
    return result  # type: ignore[return-value]


def _check_policy_and_layout(policy: Any, layout: Any) -> None:
    if not isinstance(policy, HideAndSeek):
        raise TypeError(f"hide: policy: expected a HideAndSeek, got {type(policy).__name__}")
    if layout not in _DIMENSIONS:
        raise ValueError(f"hide: layout={layout!r}: expected one of {', '.join(_DIMENSIONS)}")


def _run(
    batch: npt.NDArray,
    policy: HideAndSeek,
    sample_ids: npt.ArrayLike,
    epoch: npt.ArrayLike,
    fill: Any,
    layout: str,
    out: Any,
    backend: str,
    fill_values: npt.NDArray | None = None,
) -> npt.NDArray:
    if batch.ndim != _DIMENSIONS[layout]:
        raise ValueError(
            f"hide: batch: expected {_DIMENSIONS[layout]} dimensions for {layout}, got shape {batch.shape}"
        )
    if batch.dtype.itemsize not in (1, 2, 4, 8) or batch.dtype.kind not in "biuf":
        raise TypeError(f"hide: batch: expected numbers of 1 to 8 bytes, got dtype {batch.dtype}")
    if out is not None and not out.flags.writeable:
        raise ValueError("hide: out: expected a writable array, got a read-only one")
    if out is not None and out is not batch and not _same_memory(out, batch) and _overlaps(out, batch):
        raise ValueError("hide: out overlaps batch: expected batch itself (in place) or memory of its own")
    _checked_fill(fill, batch.shape[layout.index("C")])
    try:
        if backend == "reference":
            exact: Any = fill if fill_values is None else fill_values
            result = reference.hide(batch, policy, sample_ids, epoch, exact, layout)
            if out is None:
                return result
            out[...] = result
            return out
        return cpu.hide(batch, policy, sample_ids, epoch, fill, layout, out, fill_values=fill_values)
    except (TypeError, ValueError) as error:
        raise type(error)(f"hide: {error}") from None


def _overlaps(a: npt.NDArray, b: npt.NDArray) -> bool:
    try:
        return bool(np.shares_memory(a, b, max_work=_OVERLAP_WORK))  # type: ignore[arg-type]
    except RuntimeError:  # too hard to tell: strides that hardly occur
        return True


def _checked_fill(fill: Any, channels: int) -> npt.NDArray[np.float64]:
    try:
        return contract.per_channel("fill", fill, channels)
    except (TypeError, ValueError):
        raise ValueError(f"hide: fill={fill!r}: expected a finite number or {channels}, one per channel") from None


def _on_cuda(batch: Any) -> bool:
    """A torch CUDA tensor, or any other array that offers the CUDA array interface."""
    if hasattr(batch, "is_cuda"):
        return bool(batch.is_cuda)
    return hasattr(batch, "__cuda_array_interface__")


def _same_memory(a: npt.NDArray, b: npt.NDArray) -> bool:
    return a.ctypes.data == b.ctypes.data and a.strides == b.strides


def check_out(batch: Any, out: Any, kind: type[Any]) -> None:
    """``out`` has the batch's kind, shape and dtype, and is either its memory exactly or none of it."""
    if out is None or out is batch:
        return
    if not isinstance(out, kind):
        raise TypeError(f"hide: out: expected a {kind.__name__} like batch, got {type(out).__name__}")
    if getattr(out, "device", None) != getattr(batch, "device", None):
        raise ValueError(f"hide: out: expected it on {batch.device} like batch, got {out.device}")
    if out.shape != batch.shape or out.dtype != batch.dtype:
        raise ValueError(
            f"hide: out: expected shape {tuple(batch.shape)} and dtype {batch.dtype} like batch,"
            f" got {tuple(out.shape)} and {out.dtype}"
        )


def _host_array(value: Any) -> Any:
    """Ids or epochs as something NumPy understands; torch tensors come from the CPU or a device."""
    return value.detach().cpu().numpy() if hasattr(value, "detach") else value


def _hide_torch(
    torch: Any,
    batch: Any,
    policy: HideAndSeek,
    sample_ids: Any,
    epoch: Any,
    fill: Any,
    layout: str,
    out: Any,
    backend: str,
) -> Any:
    if batch.requires_grad:
        raise ValueError("hide: batch requires grad: use has_dali.nn, whose modules are differentiable")
    if batch.device.type != "cpu":
        raise ValueError(f"hide: batch: expected a tensor on the CPU or a CUDA device, got one on {batch.device}")
    check_out(batch, out, torch.Tensor)
    result = torch.empty_like(batch) if out is None else out
    channels = batch.shape[layout.index("C")] if batch.ndim == len(layout) else 0
    values = None
    if channels and batch.dtype == torch.bfloat16:  # NumPy has no bfloat16: hide its bits
        values = torch.as_tensor(_checked_fill(fill, channels)).to(torch.bfloat16).view(torch.int16).numpy()
    bits = (lambda tensor: tensor.view(torch.int16)) if batch.dtype == torch.bfloat16 else (lambda tensor: tensor)
    source, target = bits(batch).numpy(), bits(result).numpy()
    target = source if result is batch else target
    _run(source, policy, _host_array(sample_ids), _host_array(epoch), fill, layout, target, backend, values)
    return result
