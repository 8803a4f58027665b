"""What both launch plans share: per-sample keys, the policy, and how a batch is cut into launches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from has_dali.kernels import contract
from has_dali.kernels.launch_layout import PATCH_CAPACITIES, VECTOR_BYTES, round_up
from has_dali.kernels.policy import HideAndSeek

MAX_GRID = 2**31 - 1


@dataclass(frozen=True)
class DeviceArray:
    """(N,) 64-bit integers that already are on the device, by address; ``stride`` elements from one to the next."""

    pointer: int
    stride: int = 1


PerSample = int | npt.NDArray[np.integer] | DeviceArray


@dataclass(frozen=True)
class SampleKeys:
    """What differs from sample to sample: each one number for all, a host array (N,), or a ``DeviceArray``."""

    ids: PerSample
    epochs: PerSample = 0
    thresholds: PerSample = 0
    mirrors: PerSample = 0

    def on_host(self) -> bool:
        """Whether a table has to travel with the launch."""
        return any(isinstance(v, np.ndarray) for v in (self.ids, self.epochs, self.thresholds, self.mirrors))


def smallest_patch(policy: HideAndSeek | None) -> int:
    """The smallest patch size above 0; 0 where nothing can be hidden."""
    return min((size for size in policy.patch_sizes if size), default=0) if policy else 0


def patch_capacity(policy: HideAndSeek | None) -> int:
    count = len(policy.patch_sizes) if policy else 0
    for capacity in PATCH_CAPACITIES:
        if count <= capacity:
            return capacity
    raise ValueError(f"patch_sizes: {count} sizes, the GPU kernel takes at most {PATCH_CAPACITIES[-1]}")


def cell_bytes(lines: int, pixels: int, patch: int) -> int:
    """Cells that a tile of ``lines`` x ``pixels`` can touch, at a byte each, in whole vectors."""
    if patch == 0:
        return 0
    rows, columns = (min(n, (n - 1) // patch + 2) for n in (lines, pixels))
    return round_up(rows * columns, VECTOR_BYTES)


def set_policy(arguments: np.ndarray, policy: HideAndSeek | None) -> None:
    if policy is None:
        return
    fields = arguments["policy"]
    fields["seed"] = contract.as_u64(policy.seed)
    fields["apply_threshold"] = contract.threshold(policy.p_apply)
    fields["patch_count"] = len(policy.patch_sizes)
    fields["random_offset"] = policy.random_offset
    fields["patch_sizes"][0, : len(policy.patch_sizes)] = policy.patch_sizes


def set_keys(arguments: np.ndarray, keys: SampleKeys, samples: slice) -> None:
    """Write the keys of ``samples``: addresses, table entries, or one value for all."""
    fields = arguments["keys"]
    values = {"ids": keys.ids, "epochs": keys.epochs, "thresholds": keys.thresholds, "mirrors": keys.mirrors}
    table = arguments["table"][0, : samples.stop - samples.start] if "table" in (arguments.dtype.names or ()) else None
    strides = {value.stride for value in values.values() if isinstance(value, DeviceArray)}
    if len(strides) > 1:
        raise ValueError(f"keys: expected one stride for all on the device, got {sorted(strides)}; copy them apart")
    fields["stride"] = max(strides, default=1)
    for name, value in values.items():
        single = name[:-1]
        if isinstance(value, DeviceArray):
            fields[name] = value.pointer + 8 * value.stride * samples.start
        elif table is None:
            fields["shared_by_all"][single] = value
        else:
            table[single] = value[samples] if isinstance(value, np.ndarray) else value


def sample_capacity(
    capacities: Sequence[int], table: bool, samples: int, argument_bytes: Any, parameter_bytes: int
) -> int:
    """The table size of the launch: 0 without a table, else the smallest that holds all or the largest that fits."""
    if not table:
        return 0
    fitting = [n for n in capacities if n and argument_bytes(n) <= parameter_bytes]
    if not fitting:
        raise ValueError(
            f"patch_sizes: too many for the {parameter_bytes} bytes of kernel arguments that this driver offers;"
            " give fewer sizes, or update the driver to CUDA 12.1 or later"
        )
    return next((n for n in fitting if n >= samples), fitting[-1])


def batches(samples: int, capacity: int, blocks_per_sample: int) -> list[slice]:
    """Samples of each launch, within the table and the grid."""
    if blocks_per_sample > MAX_GRID:
        raise ValueError(f"batch: an image takes {blocks_per_sample} blocks, a launch has at most {MAX_GRID}; split it")
    step = min(capacity or samples, MAX_GRID // blocks_per_sample)
    return [slice(first, min(first + step, samples)) for first in range(0, samples, step)]
