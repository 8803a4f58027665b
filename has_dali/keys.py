"""Per-sample keys of the operators: one (4,) int64 of sample id, epoch, mirror and hide threshold.

One call per batch replaces a dozen small DALI operators, and is where values that only exist at run time are checked.
It runs on the CPU in all pipelines; a GPU operator gets the keys by ``.gpu()``.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import numpy.typing as npt
from nvidia.dali import fn, types
from nvidia.dali.data_node import DataNode

from has_dali import dlpack
from has_dali.kernels import contract
from has_dali.operators import BatchOperator

SAMPLE_ID, EPOCH, MIRROR, THRESHOLD = range(4)
KEY_WORDS = 4
# DALI's uniform integers come from a float32, which holds 24 bits.
_RANDOM_WORD = 2**24 - 1


def keys_node(packer: PackKeys, num_outputs: int = 1, **given: DataNode | int | None) -> Any:
    """Graph node(s) of the keys.

    Args:
        packer: gets the tensors of the nodes in ``given``, by name, once per batch.
        num_outputs: how many tensors it returns.
        given: ``sample_ids``, ``epoch``, ``mirror``, ``p_hide``, and what the packer wants to see beside them; ids
            and epochs that are None are drawn from DALI's random operators.
    """
    if given.get("epoch") is None:
        keyed = given.get("sample_ids") is not None
        given["epoch"] = fn.random.uniform(range=[0, _RANDOM_WORD], dtype=types.INT32) if keyed else 0
    if given.get("sample_ids") is None:
        words = fn.random.uniform(range=[0, _RANDOM_WORD], dtype=types.INT32, shape=[2])
        given["sample_ids"] = fn.reinterpret(words, dtype=types.INT64, shape=[1])
    nodes = {argument: node for argument, node in given.items() if isinstance(node, DataNode)}
    packer.arguments = tuple(nodes)
    packer.constants = {name: int(value) for name, value in given.items() if isinstance(value, (int, np.integer))}
    return BatchOperator(packer, packer.name, num_outputs)(*nodes.values())


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


class PackKeys:
    """Callable for ``BatchOperator``: keys from tensors of any integer type.

    Args:
        name: operator that error messages name.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.arguments: tuple[str, ...] = ()
        self.constants: dict[str, int] = {}

    def __call__(self, *tensors: Any) -> tuple[Any, ...]:
        # The capsules live as long as ``views``, hence as long as the arrays are used.
        views = [dlpack.view(tensor.__dlpack__(stream=None)) for tensor in tensors]
        values = {argument: view.numpy() for argument, view in zip(self.arguments, views, strict=True)}
        keys = np.empty((len(next(iter(values.values()))), KEY_WORDS), np.int64)
        keys[:, SAMPLE_ID] = self._integers("sample_ids", values)
        keys[:, EPOCH] = self._integers("epoch", values)
        keys[:, MIRROR] = self._integers("mirror", values)
        keys[:, THRESHOLD] = self._thresholds(values.get("p_hide"), len(keys))
        epochs = keys[:, EPOCH]
        if epochs.size and not (epochs.min() >= 0 and epochs.max() < 2**32):
            raise ValueError(f"{self.name}: epoch: expected integers from 0 to 2**32 - 1, got {epochs.min()}")
        return tuple(array.__dlpack__() for array in self.checked(keys, values))

    def checked(self, keys: npt.NDArray[np.int64], values: dict[str, npt.NDArray]) -> tuple[npt.NDArray, ...]:
        """The outputs, after checks of what came beside the keys; operators have their own."""
        return (keys,)

    def _integers(self, argument: str, values: dict[str, npt.NDArray]) -> npt.NDArray | int:
        if argument not in values:
            return self.constants.get(argument, 0)
        value = self._one_per_sample(argument, values[argument])
        if value.dtype.kind not in "iub":
            raise TypeError(f"{self.name}: {argument}: expected integers, got dtype {value.dtype}; fn.cast them")
        return value.astype(np.int64) if value.dtype != np.uint64 else value.view(np.int64)

    def _thresholds(self, p_hide: npt.NDArray | None, count: int) -> npt.NDArray | int:
        if p_hide is None:
            return 0
        try:
            return contract.thresholds_u64(self._one_per_sample("p_hide", p_hide), count).view(np.int64)
        except ValueError as error:
            raise ValueError(f"{self.name}: {error}") from None

    def _one_per_sample(self, argument: str, value: npt.NDArray) -> npt.NDArray:
        if value.size != len(value):
            came = f"shape {value.shape[1:]}"
            raise ValueError(f"{self.name}: {argument}: expected one value per sample, got {came} for each")
        return value.reshape(-1)
