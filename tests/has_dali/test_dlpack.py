"""Capsules read and made by hand: nothing is consumed by looking, and owners live exactly as long as consumers."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
import torch

from has_dali import dlpack


class Owner:
    """Something with a lifetime."""


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float16, np.float32, np.bool_])
def test_a_view_shares_memory_and_leaves_the_capsule_whole(dtype: type) -> None:
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    capsule = array.__dlpack__()
    view = dlpack.view(capsule)
    assert (view.pointer, view.shape, view.dtype) == (array.ctypes.data, array.shape, array.dtype)
    view.numpy()[1, 2, 3] = 0
    assert array[1, 2, 3] == 0
    assert torch.utils.dlpack.from_dlpack(capsule).shape == array.shape
    with pytest.raises(ValueError, match="nobody has consumed"):
        dlpack.view(capsule)


def test_an_owner_lives_until_the_consumer_lets_go() -> None:
    before = dlpack.alive()
    array, owner = np.arange(6, dtype=np.float32), Owner()
    gone = weakref.ref(owner)
    capsule = dlpack.capsule_of(array.ctypes.data, (2, 3), np.float32, (dlpack.CPU, 0), owner)
    del owner
    tensor = torch.utils.dlpack.from_dlpack(capsule)
    del capsule
    gc.collect()
    assert gone() is not None and tensor.tolist() == [[0, 1, 2], [3, 4, 5]]
    del tensor
    gc.collect()
    assert gone() is None and dlpack.alive() == before


def test_an_owner_of_an_unused_capsule_is_released_with_it() -> None:
    before = dlpack.alive()
    owner = Owner()
    gone = weakref.ref(owner)
    capsule = dlpack.capsule_of(0, (0, 3), np.float32, (dlpack.CPU, 0), owner)
    assert dlpack.view(capsule).numpy().shape == (0, 3)
    del owner, capsule
    gc.collect()
    assert gone() is None and dlpack.alive() == before


def test_a_device_tensor_shows_the_cuda_interface_only() -> None:
    view = dlpack.view(dlpack.capsule_of(4096, (2, 5), np.float16, (dlpack.CUDA, 0), None))
    assert view.__cuda_array_interface__["data"] == (4096, False)
    assert view.__cuda_array_interface__["shape"] == (2, 5)
    assert not hasattr(view, "__array_interface__")
