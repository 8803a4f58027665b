"""How bytes on disk become training batches: sources, sampler, plan, graph, loader.

Names load on first use: importing this package imports neither DALI nor torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from has_dali.pipelines.loader import ImageLoader, image_loader
    from has_dali.pipelines.plan import EvalPlan, TrainPlan
    from has_dali.pipelines.sampler import Sampler
    from has_dali.pipelines.sources import FileSource, open_source

_HOMES = {
    "EvalPlan": "plan",
    "FileSource": "sources",
    "ImageLoader": "loader",
    "Sampler": "sampler",
    "TrainPlan": "plan",
    "image_loader": "loader",
    "open_source": "sources",
}

__all__ = ["EvalPlan", "FileSource", "ImageLoader", "Sampler", "TrainPlan", "image_loader", "open_source"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
