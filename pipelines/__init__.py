"""How bytes on disk become training batches: sources, sampler, plan, streams, loader.

Names load on first use: importing this package imports neither DALI nor torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from has_dali.pipelines.array_files import cifar_source, npy_source, npz_source
    from has_dali.pipelines.arrays import ArraySource
    from has_dali.pipelines.collate import HideCollate
    from has_dali.pipelines.data import open_data
    from has_dali.pipelines.datamodule import ImageDataModule
    from has_dali.pipelines.decode import decoded_source
    from has_dali.pipelines.epoch_batches import EpochBatches
    from has_dali.pipelines.file_list import file_list_source
    from has_dali.pipelines.image_batches import ImageLoader
    from has_dali.pipelines.loader import image_loader
    from has_dali.pipelines.paired import PairedLoader, paired_loader
    from has_dali.pipelines.parquet import parquet_source
    from has_dali.pipelines.plan import EvalPlan, PadPlan, ShortSidePlan, TrainPlan, WarpPlan
    from has_dali.pipelines.policy_schedule import PolicySchedule
    from has_dali.pipelines.rank_check import check_ranks
    from has_dali.pipelines.raw_spans import RawSource
    from has_dali.pipelines.recordio import recordio_source
    from has_dali.pipelines.sampler import BalancedSampler, Sampler
    from has_dali.pipelines.scale_plan import ScalePlan
    from has_dali.pipelines.sequence_batches import sample_indices
    from has_dali.pipelines.sequences import SequenceLoader, sequence_loader
    from has_dali.pipelines.sources import FileSource, open_source
    from has_dali.pipelines.spans import SpanSource
    from has_dali.pipelines.tar_shards import tar_source
    from has_dali.pipelines.tfrecords import tfrecord_source
    from has_dali.pipelines.timm_loader import create_loader
    from has_dali.pipelines.transforms import RandomHideAndSeek

# No module has the name of what it gives: the package's attribute would be the module once that is imported.
_HOMES = {
    "ArraySource": "arrays",
    "BalancedSampler": "sampler",
    "EpochBatches": "epoch_batches",
    "EvalPlan": "plan",
    "FileSource": "sources",
    "HideCollate": "collate",
    "ImageDataModule": "datamodule",
    "ImageLoader": "image_batches",
    "PadPlan": "plan",
    "PairedLoader": "paired",
    "PolicySchedule": "policy_schedule",
    "RandomHideAndSeek": "transforms",
    "RawSource": "raw_spans",
    "Sampler": "sampler",
    "ScalePlan": "scale_plan",
    "SequenceLoader": "sequences",
    "ShortSidePlan": "plan",
    "SpanSource": "spans",
    "TrainPlan": "plan",
    "WarpPlan": "plan",
    "check_ranks": "rank_check",
    "cifar_source": "array_files",
    "create_loader": "timm_loader",
    "decoded_source": "decode",
    "file_list_source": "file_list",
    "image_loader": "loader",
    "npy_source": "array_files",
    "npz_source": "array_files",
    "open_data": "data",
    "open_source": "sources",
    "paired_loader": "paired",
    "parquet_source": "parquet",
    "recordio_source": "recordio",
    "sample_indices": "sequence_batches",
    "sequence_loader": "sequences",
    "tar_source": "tar_shards",
    "tfrecord_source": "tfrecords",
}

__all__ = [
    "ArraySource",
    "BalancedSampler",
    "EpochBatches",
    "EvalPlan",
    "FileSource",
    "HideCollate",
    "ImageDataModule",
    "ImageLoader",
    "PadPlan",
    "PairedLoader",
    "PolicySchedule",
    "RandomHideAndSeek",
    "RawSource",
    "Sampler",
    "ScalePlan",
    "SequenceLoader",
    "ShortSidePlan",
    "SpanSource",
    "TrainPlan",
    "WarpPlan",
    "check_ranks",
    "cifar_source",
    "create_loader",
    "decoded_source",
    "file_list_source",
    "image_loader",
    "npy_source",
    "npz_source",
    "open_data",
    "open_source",
    "paired_loader",
    "parquet_source",
    "recordio_source",
    "sample_indices",
    "sequence_loader",
    "tar_source",
    "tfrecord_source",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
