"""``hide`` for torch CUDA tensors and CuPy arrays, on the stream that is current for their owner."""

from __future__ import annotations

import sys
from typing import Any

from has_dali.kernels import dispatch
from has_dali.kernels.policy import HideAndSeek


def hide_on_device(
    batch: Any, policy: HideAndSeek, sample_ids: Any, epoch: Any, fill: Any, layout: str, out: Any, backend: str
) -> Any:
    """See ``functional.hide``; ids and epochs on the batch's device are read there, without synchronising.

    Raises:
        RuntimeError: no CUDA implementation can run.
        TypeError, ValueError: an argument is wrong.
    """
    from has_dali.functional import check_out

    if backend in ("cpu", "reference"):
        raise ValueError(f"hide: backend={backend!r}: the batch is on a CUDA device; copy it to the CPU, or use 'auto'")
    kernels = dispatch.cuda_kernels(backend)
    torch: Any = sys.modules.get("torch")
    is_torch = torch is not None and isinstance(batch, torch.Tensor)
    check_out(batch, out, type(batch))
    if not is_torch:
        return _launch(kernels, batch, policy, sample_ids, epoch, fill, layout, out, None, _cupy_stream(batch))
    if batch.requires_grad:
        raise ValueError("hide: batch requires grad: use has_dali.nn, whose modules are differentiable")
    if out is None:
        batch = dense(batch)
    result = torch.empty_like(batch) if out is None else out
    dtype = "bfloat16" if batch.dtype == torch.bfloat16 else None
    if dtype:  # the CUDA array interface has no name for it
        batch, target = batch.view(torch.int16), None if result is batch else result.view(torch.int16)
    else:
        target = None if result is batch else result
    with torch.cuda.device(batch.device):
        stream = torch.cuda.current_stream(batch.device).cuda_stream
        ids, epochs = _torch_keys("sample_ids", sample_ids, batch.device), _torch_keys("epoch", epoch, batch.device)
        _launch(kernels, batch, policy, ids, epochs, fill, layout, batch if target is None else target, dtype, stream)
    return result


def _launch(
    kernels: Any, batch: Any, policy: HideAndSeek, sample_ids: Any, epoch: Any, fill: Any, layout: str, out: Any,
    dtype: str | None, stream: int,
) -> Any:  # fmt: skip
    options = {} if dtype is None else {"dtype": dtype}
    try:
        return kernels.hide(
            batch, policy, sample_ids, epoch, fill=fill, layout=layout, out=out, stream=stream, **options
        )
    except (TypeError, ValueError) as error:
        raise type(error)(f"hide: {error}") from None


def dense(batch: Any) -> Any:
    """The torch tensor itself if its memory is dense, channels_last included; else a contiguous copy.

    Slices and expanded gradients are not dense, and the kernels want dense memory.
    """
    torch: Any = sys.modules["torch"]
    channels_last = batch.ndim == 4 and batch.is_contiguous(memory_format=torch.channels_last)
    return batch if batch.is_contiguous() or channels_last else batch.contiguous()


def _torch_keys(name: str, value: Any, device: Any) -> Any:
    """Keys on the batch's device as int64 there; anything else as NumPy takes it."""
    if not hasattr(value, "is_cuda"):
        return value
    value = value.detach()
    if value.is_floating_point() or value.is_complex() or str(value.dtype) == "torch.bool":
        raise TypeError(f"hide: {name}: expected integers, got dtype {value.dtype}")
    if value.device == device and value.ndim == 1:
        return value.long().contiguous()
    return value.cpu().numpy()


def _cupy_stream(batch: Any) -> int:
    cupy = sys.modules.get("cupy")
    if cupy is None or not isinstance(batch, cupy.ndarray):
        return 0
    return int(cupy.cuda.get_current_stream().ptr)
