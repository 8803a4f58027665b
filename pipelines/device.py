"""Which device a loader works on, and the reason."""

from __future__ import annotations

import torch

from has_dali.kernels import dispatch


def choose_device(device: str | torch.device) -> tuple[torch.device, str]:
    """The torch device to load to, and why; a CUDA device has its index set.

    A GPU is taken where ``kernels.dispatch.choose_backend`` finds kernels for it and torch can use it too.

    Args:
        device: "cpu", "cuda" or "gpu" (the current one), "cuda:N", or "auto": the GPU where there is one.

    Raises:
        ValueError: the name is unknown.
        RuntimeError: a GPU was asked for that cannot be used.
    """
    kind, index = _parsed(device)
    backend, reason = dispatch.choose_backend("cpu" if kind == "cpu" else "auto")
    if kind == "cpu":
        return torch.device("cpu"), reason
    obstacle = _obstacle(backend, reason, index)
    if obstacle is None:
        return torch.device("cuda", torch.cuda.current_device() if index is None else index), f"{backend}: {reason}"
    if kind == "auto":
        return torch.device("cpu"), f"auto: {obstacle}"
    raise RuntimeError(f"device={str(device)!r}: {obstacle}; use device='auto' or 'cpu'")


def _obstacle(backend: str, reason: str, index: int | None) -> str | None:
    """Why the GPU (one of a given index) cannot be used, or None."""
    if backend == "cpu":
        return reason
    if not torch.cuda.is_available():
        return f"{backend} finds a CUDA device, but torch {torch.__version__} does not; install a CUDA build of torch"
    count = torch.cuda.device_count()
    return None if index is None or index < count else f"there are {count} CUDA devices, counted from 0"


def _parsed(device: str | torch.device) -> tuple[str, int | None]:
    if device in ("auto", "gpu"):
        return ("auto" if device == "auto" else "cuda"), None
    try:
        parsed = torch.device(device)
    except (RuntimeError, TypeError):
        parsed = None
    if parsed is None or parsed.type not in ("cpu", "cuda"):
        raise ValueError(f"device={device!r}: expected 'auto', 'cpu', 'cuda', 'gpu' or 'cuda:N'")
    return parsed.type, parsed.index
