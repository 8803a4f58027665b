"""Hide-and-Seek augmentation at loader speed: fused DALI operators, PyTorch loaders and trainers.

Importing this package is light: torch, DALI, CuPy and Numba load with the first name that needs them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from has_dali.functional import hide
    from has_dali.kernels.policy import HideAndSeek

__version__ = "0.1.0"
__all__ = ["HideAndSeek", "__version__", "hide"]

_HOMES = {"HideAndSeek": "has_dali.kernels.policy", "hide": "has_dali.functional"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'has_dali' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
