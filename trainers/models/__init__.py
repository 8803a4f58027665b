"""Models by name: the paper's networks, a small one for CPUs, and everything in torchvision and timm.

Names load on first use: importing this package imports neither torch nor torchvision.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from has_dali.trainers.models.build import LOCALISERS, build_classifier, build_localiser, model_names
    from has_dali.trainers.models.heads import Localiser

_HOMES = {
    "LOCALISERS": "build",
    "Localiser": "heads",
    "build_classifier": "build",
    "build_localiser": "build",
    "model_names": "build",
}

__all__ = ["LOCALISERS", "Localiser", "build_classifier", "build_localiser", "model_names"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
