"""Which implementation runs, and why."""

from __future__ import annotations

BACKENDS = ("auto", "cpu", "reference")


def check_backend(backend: str) -> None:
    """Raise ValueError for a name that is not in ``BACKENDS``."""
    if backend not in BACKENDS:
        raise ValueError(f"backend={backend!r}: expected one of {', '.join(BACKENDS)}")


def choose_backend(device: str = "auto") -> tuple[str, str]:
    """``(backend, reason)`` for a device: "auto", "cpu" or "gpu".

    Raises:
        ValueError: the device is unknown.
        RuntimeError: the device was asked for and cannot be used; the message says why.
    """
    if device not in ("auto", "cpu", "gpu"):
        raise ValueError(f"device={device!r}: expected auto, cpu or gpu")
    if device == "cpu":
        return "cpu", "device='cpu' was asked for"
    reason = cuda_problem()
    if device == "gpu":
        raise RuntimeError(f"device='gpu': {reason}; use device='cpu' or 'auto'")
    return "cpu", reason


def cuda_problem() -> str:
    """Why no CUDA kernel can run."""
    return "the CUDA kernels are not part of this version"
