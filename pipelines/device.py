"""Which device a loader works on, and the reason."""

from __future__ import annotations

import torch

# Where has_dali.fn's fused operator runs: its CUDA kernel adds "cuda" here.
FUSED_DEVICES: tuple[str, ...] = ("cpu",)


def choose_device(device: str | torch.device) -> tuple[torch.device, str]:
    """The torch device to load to, and why; a CUDA device has its index set.

    Args:
        device: "cpu", "cuda", "cuda:N", "gpu" (as "cuda"), or "auto": the GPU where there is one.

    Raises:
        ValueError: the name is unknown.
        RuntimeError: a GPU was asked for that cannot be used.
    """
    kind, index = _parsed(device)
    if kind == "cpu":
        return torch.device("cpu"), "as asked"
    obstacle = None
    if not torch.cuda.is_available():
        obstacle = "no CUDA device found"
    elif "cuda" not in FUSED_DEVICES:
        obstacle = "the fused operator of this version runs on the CPU only"
    if kind == "auto":
        if obstacle is not None:
            return torch.device("cpu"), f"auto: {obstacle}"
        return torch.device("cuda", torch.cuda.current_device()), "auto: the current CUDA device"
    if obstacle is not None:
        raise RuntimeError(f"device={str(device)!r}: {obstacle}; use device='auto' or 'cpu'")
    return torch.device("cuda", torch.cuda.current_device() if index is None else index), "as asked"


def _parsed(device: str | torch.device) -> tuple[str, int | None]:
    if device in ("auto", "gpu"):
        return ("auto" if device == "auto" else "cuda"), None
    try:
        parsed = torch.device(device)
    except (RuntimeError, TypeError):
        parsed = None
    if parsed is None or parsed.type not in ("cpu", "cuda"):
        raise ValueError(f"device={device!r}: expected 'auto', 'cpu', 'cuda' or 'cuda:N'")
    return parsed.type, parsed.index
