"""Per-sample keys of the operators: one (4,) int64 of sample id, epoch, mirror and hide threshold.

One call per batch replaces a dozen small DALI operators, and is where values that only exist at run time are checked.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import numpy.typing as npt
from nvidia.dali import fn, types
from nvidia.dali.data_node import DataNode

from has_dali.kernels import contract
from has_dali.operators import BatchOperator, as_numpy

SAMPLE_ID, EPOCH, MIRROR, THRESHOLD = range(4)
# The threshold of samples that take the policy's own probability.
POLICY_THRESHOLD = -1
# DALI's uniform integers come from a float32, which holds 24 bits.
_RANDOM_WORD = 2**24 - 1


def keys_node(
    name: str,
    sample_ids: DataNode | None,
    epoch: DataNode | int | None,
    mirror: DataNode | bool | None,
    p_hide: DataNode | None,
    image_shapes: DataNode | None = None,
    channels: tuple[int, int] = (1, 1),
) -> DataNode:
    """Graph node of the keys; ids and epochs that are None are drawn from DALI's random operators.

    Args:
        name: operator that error messages name.
        image_shapes: shapes of HWC images to check against ``channels``, the least and the most allowed.
    """
    if epoch is None:
        epoch = 0 if sample_ids is None else fn.random.uniform(range=[0, _RANDOM_WORD], dtype=types.INT32)
    if sample_ids is None:
        words = fn.random.uniform(range=[0, _RANDOM_WORD], dtype=types.INT32, shape=[2])
        sample_ids = fn.reinterpret(words, dtype=types.INT64, shape=[1])
    given = {"sample_ids": sample_ids, "epoch": epoch, "mirror": mirror, "p_hide": p_hide, "images": image_shapes}
    nodes = {argument: node for argument, node in given.items() if isinstance(node, DataNode)}
    constants = {argument: int(value) for argument, value in given.items() if isinstance(value, (int, np.integer))}
    pack = _PackKeys(name, tuple(nodes), constants, channels)
    return BatchOperator(pack, name)(*nodes.values())


def check_key(name: str, argument: str, value: Any) -> None:
    """A DataNode on the CPU, a small integer or None."""
    if value is None:
        return
    if isinstance(value, DataNode):
        if value.device != "cpu":
            raise ValueError(f"{name}: {argument}: expected a CPU DataNode, got one on the {value.device}; drop .gpu()")
        return
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: {argument}: expected a DataNode of integers, got {type(value).__name__}") from None
    if not 0 <= number < 2**31:
        raise ValueError(f"{name}: {argument}={value!r}: expected an integer from 0 to 2**31 - 1, or a DataNode")


class _PackKeys:
    """Callable for ``BatchOperator``: columns of the keys from tensors of any integer type."""

    def __init__(
        self, name: str, arguments: tuple[str, ...], constants: dict[str, int], channels: tuple[int, int]
    ) -> None:
        self.name, self.arguments, self.constants, self.channels = name, arguments, constants, channels

    def __call__(self, *tensors: Any) -> tuple[Any, ...]:
        values: dict[str, npt.NDArray] = {
            argument: as_numpy(tensor) for argument, tensor in zip(self.arguments, tensors, strict=True)
        }
        keys = np.empty((len(next(iter(values.values()))), 4), np.int64)
        keys[:, SAMPLE_ID] = self._integers("sample_ids", values)
        keys[:, EPOCH] = self._integers("epoch", values)
        keys[:, MIRROR] = self._integers("mirror", values)
        keys[:, THRESHOLD] = self._thresholds(values.get("p_hide"), len(keys))
        if keys[:, EPOCH].size and not (keys[:, EPOCH].min() >= 0 and keys[:, EPOCH].max() < 2**32):
            raise ValueError(f"{self.name}: epoch: expected integers from 0 to 2**32 - 1, got {keys[:, EPOCH].min()}")
        if "images" in values:
            self._check_shapes(values["images"])
        return (keys.__dlpack__(),)

    def _integers(self, argument: str, values: dict[str, npt.NDArray]) -> npt.NDArray | int:
        if argument not in values:
            return self.constants.get(argument, 0)
        value = self._one_per_sample(argument, values[argument])
        if value.dtype.kind not in "iub":
            raise TypeError(f"{self.name}: {argument}: expected integers, got dtype {value.dtype}; fn.cast them")
        return value.astype(np.int64) if value.dtype != np.uint64 else value.view(np.int64)

    def _thresholds(self, p_hide: npt.NDArray | None, count: int) -> npt.NDArray | int:
        if p_hide is None:
            return POLICY_THRESHOLD
        try:
            return contract.thresholds_u64(self._one_per_sample("p_hide", p_hide), count).view(np.int64)
        except ValueError as error:
            raise ValueError(f"{self.name}: {error}") from None

    def _one_per_sample(self, argument: str, value: npt.NDArray) -> npt.NDArray:
        if value.size != len(value):
            raise ValueError(
                f"{self.name}: {argument}: expected one value per sample, got shape {value.shape[1:]} each"
            )
        return value.reshape(-1)

    def _check_shapes(self, shapes: npt.NDArray) -> None:
        if shapes.shape[1] != 3:
            raise ValueError(f"{self.name}: images: expected HWC (3 dimensions), got {shapes.shape[1]} dimensions")
        least, most = self.channels
        wrong = (shapes[:, 2] < least) | (shapes[:, 2] > most)
        if wrong.any():
            wanted = f"{most}" if least == most else f"{least} to {most}"
            raise ValueError(
                f"{self.name}: images: expected {wanted} channels, got {shapes[wrong][0, 2]};"
                " give mean, std and fill_value one number per channel"
            )
