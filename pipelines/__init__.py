"""How bytes on disk become training batches: sources, sampler, plan, streams, loader.

Names load on first use: importing this package imports neither DALI nor torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from has_dali.pipelines.array_files import cifar_source, npy_source, npz_source
    from has_dali.pipelines.arrays import ArraySource
    from has_dali.pipelines.data import open_data
    from has_dali.pipelines.decode import decoded_source
    from has_dali.pipelines.loader import ImageLoader, image_loader
    from has_dali.pipelines.plan import EvalPlan, PadPlan, ShortSidePlan, TrainPlan, WarpPlan
    from has_dali.pipelines.sampler import BalancedSampler, Sampler
    from has_dali.pipelines.sources import FileSource, open_source

_HOMES = {
    "ArraySource": "arrays",
    "BalancedSampler": "sampler",
    "EvalPlan": "plan",
    "FileSource": "sources",
    "ImageLoader": "loader",
    "PadPlan": "plan",
    "Sampler": "sampler",
    "ShortSidePlan": "plan",
    "TrainPlan": "plan",
    "WarpPlan": "plan",
    "cifar_source": "array_files",
    "decoded_source": "decode",
    "image_loader": "loader",
    "npy_source": "array_files",
    "npz_source": "array_files",
    "open_data": "data",
    "open_source": "sources",
}

__all__ = [
    "ArraySource",
    "BalancedSampler",
    "EvalPlan",
    "FileSource",
    "ImageLoader",
    "PadPlan",
    "Sampler",
    "ShortSidePlan",
    "TrainPlan",
    "WarpPlan",
    "cifar_source",
    "decoded_source",
    "image_loader",
    "npy_source",
    "npz_source",
    "open_data",
    "open_source",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
