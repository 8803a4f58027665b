"""Which implementation runs, and why: CuPy's CUDA kernels, else numba-cuda's, else the CPU's."""

from __future__ import annotations

import importlib
import logging
from functools import lru_cache
from typing import Any

_LOG = logging.getLogger(__name__)

BACKENDS = ("auto", "cpu", "cupy", "numba-cuda", "reference")
# Implementations for CUDA devices in the order of preference, and their modules.
_CUDA = {"cupy": "has_dali.kernels.gpu", "numba-cuda": "has_dali.kernels.numba_cuda"}


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
    problems = cuda_problems()
    for backend, problem in problems.items():
        if problem is None:
            passed_over = [text for text in problems.values() if text]
            return backend, "; ".join(["a CUDA device is here", *passed_over])
    reason = "; ".join(str(problem) for problem in problems.values())
    if device == "gpu":
        raise RuntimeError(f"device='gpu': {reason}; use device='cpu' or 'auto'")
    return "cpu", reason


@lru_cache(maxsize=1)
def cuda_problems() -> dict[str, str | None]:
    """For each CUDA implementation why it cannot run here, or None where it can."""
    return {backend: _problem(module) for backend, module in _CUDA.items()}


def _problem(module: str) -> str | None:
    try:
        reason: str | None = importlib.import_module(module).unavailable_reason()
    except ImportError as error:
        return f"{module.rpartition('.')[2]} cannot be imported ({error})"
    return reason


@lru_cache
def cuda_kernels(backend: str = "auto") -> Any:
    """The module whose ``hide`` and ``resize_mirror_normalize_hide`` launch on CUDA devices.

    Raises:
        RuntimeError: none can run here; the message says why.
    """
    name, reason = choose_backend("gpu") if backend == "auto" else (backend, "asked for by name")
    problem = cuda_problems()[name]
    if problem is not None:
        raise RuntimeError(f"backend={backend!r}: {problem}")
    _LOG.log(logging.INFO if name == "cupy" else logging.WARNING, "CUDA kernels: %s (%s)", name, reason)
    return importlib.import_module(_CUDA[name])
