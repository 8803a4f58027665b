"""``has_dali.hide`` on NumPy arrays and torch tensors."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

from has_dali import HideAndSeek, hide
from has_dali.kernels import reference

POLICY = HideAndSeek((0, 3, 8), seed=5)
IDS = np.arange(4)
SHAPES = {"NCHW": (4, 3, 20, 33), "NHWC": (4, 20, 33, 3), "NCT": (4, 6, 50)}


@pytest.mark.parametrize("layout", SHAPES)
@pytest.mark.parametrize("backend", ["auto", "cpu", "reference"])
def test_numpy(layout: str, backend: str) -> None:
    batch = np.random.default_rng(0).random(SHAPES[layout], dtype=np.float32)
    expected = reference.hide(batch, POLICY, IDS, 2, 0.5, layout)
    result = hide(batch, POLICY, IDS, 2, fill=0.5, layout=layout, backend=backend)
    assert isinstance(result, np.ndarray)
    np.testing.assert_array_equal(result, expected)
    out = np.empty_like(batch)
    assert hide(batch, POLICY, IDS, 2, fill=0.5, layout=layout, out=out, backend=backend) is out
    np.testing.assert_array_equal(out, expected)
    assert hide(batch, POLICY, IDS, 2, fill=0.5, layout=layout, out=batch, backend=backend) is batch
    np.testing.assert_array_equal(batch, expected)


@pytest.mark.parametrize("layout", SHAPES)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_torch(layout: str, dtype: torch.dtype) -> None:
    batch = (torch.rand(SHAPES[layout]) * 200).to(dtype)
    channels = batch.shape[layout.index("C")]
    fill = [1.5 * c for c in range(channels)]
    expected = reference.hide(batch.double().numpy(), POLICY, IDS, 2, 0.0, layout)
    mask = torch.from_numpy(expected == 0) & (batch != 0)
    shape = [1] * batch.ndim
    shape[layout.index("C")] = channels
    values = (torch.tensor(fill).round() if dtype == torch.uint8 else torch.tensor(fill)).to(dtype).reshape(shape)
    result = hide(batch, POLICY, torch.arange(4), 2, fill=fill, layout=layout)
    assert result.dtype == dtype
    assert torch.equal(torch.where(mask, values, batch), torch.where(batch == 0, batch, result))
    assert hide(batch, POLICY, torch.arange(4), 2, fill=fill, layout=layout, out=batch) is batch
    assert torch.equal(batch, result)


def test_channels_last_tensors_stay_channels_last() -> None:
    batch = torch.rand(4, 3, 20, 33).contiguous(memory_format=torch.channels_last)
    result = hide(batch, POLICY, IDS, 1)
    assert result.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(result, hide(batch.contiguous(), POLICY, IDS, 1))
    out = torch.empty(4, 3, 20, 33)
    assert torch.equal(hide(batch, POLICY, IDS, 1, out=out), result)


def test_an_empty_batch_is_fine() -> None:
    assert hide(np.zeros((0, 3, 8, 8), np.float32), POLICY, [], 0).shape == (0, 3, 8, 8)
    assert hide(torch.zeros(0, 3, 8, 8), POLICY, torch.zeros(0, dtype=torch.int64), 0).shape == (0, 3, 8, 8)


BATCH = np.zeros((2, 3, 8, 8), np.float32)
READ_ONLY = np.zeros((2, 3, 8, 8), np.float32)
READ_ONLY.setflags(write=False)
BAD: list[tuple[Any, type[Exception], list[str]]] = [
    (lambda: hide([[1]], POLICY, [0], 0), TypeError, ["batch", "list"]),
    (lambda: hide(BATCH, "imagenet", [0, 1], 0), TypeError, ["policy", "str"]),
    (lambda: hide(BATCH, POLICY, [0, 1], 0, layout="CHW"), ValueError, ["layout='CHW'", "NCHW"]),
    (lambda: hide(BATCH[0], POLICY, [0, 1], 0), ValueError, ["batch", "4 dimensions", "(3, 8, 8)"]),
    (lambda: hide(BATCH, POLICY, [0, 1, 2], 0), ValueError, ["sample_ids", "(2,)", "(3,)"]),
    (lambda: hide(BATCH, POLICY, [0.5, 1], 0), TypeError, ["sample_ids", "integers"]),
    (lambda: hide(BATCH, POLICY, [0, 1], -1), ValueError, ["epoch=-1"]),
    (lambda: hide(BATCH, POLICY, [0, 1], 0, fill=[1, 2]), ValueError, ["fill=[1, 2]", "3"]),
    (lambda: hide(BATCH, POLICY, [0, 1], 0, fill=np.zeros(2, np.float32)), ValueError, ["fill=", "3"]),
    (lambda: hide(torch.zeros(2, 3, 8, 8), POLICY, [0, 1], 0, fill=np.zeros(1024, np.float32)), ValueError, ["fill="]),
    (lambda: hide(BATCH, POLICY, [0, 1], 0, fill="mean"), ValueError, ["fill='mean'", "number"]),
    (lambda: hide(BATCH, POLICY, [0, 1], 0, backend="cupy"), ValueError, ["backend='cupy'", "CUDA device"]),
    (lambda: hide(BATCH, POLICY, [0, 1], 0, backend="cuda"), ValueError, ["backend='cuda'", "auto"]),
    (lambda: hide(BATCH, POLICY, [0, 1], 0, out=np.zeros((2, 3, 8, 9), np.float32)), ValueError, ["(2, 3, 8, 9)"]),
    (lambda: hide(BATCH, POLICY, [0, 1], 0, out=torch.zeros(2, 3, 8, 8)), TypeError, ["out", "ndarray", "Tensor"]),
    (lambda: hide(BATCH, POLICY, [0, 1], 0, out=READ_ONLY), ValueError, ["out", "read-only"]),
    (lambda: hide(BATCH.astype(np.complex64), POLICY, [0, 1], 0), TypeError, ["batch", "complex64"]),
    (lambda: hide(torch.zeros(1, 1, 2, 2, requires_grad=True), POLICY, [0], 0), ValueError, ["grad", "has_dali.nn"]),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "words"), BAD)
def test_errors_name_the_argument(call: Any, error: type[Exception], words: list[str]) -> None:
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert len(message.splitlines()) <= 2


def test_overlapping_out_is_refused() -> None:
    memory = np.zeros((5, 3, 8, 8), np.float32)
    with pytest.raises(ValueError, match="out overlaps batch"):
        hide(memory[:4], POLICY, IDS, 0, out=memory[1:])


def test_out_may_be_another_view_of_the_same_or_of_other_memory() -> None:
    memory = np.random.default_rng(0).random((4, 6, 8, 8), dtype=np.float32)
    expected = reference.hide(memory[:, :3], POLICY, IDS, 0, 0.5)
    hide(memory[:, :3], POLICY, IDS, 0, fill=0.5, out=memory[:, 3:])  # interleaved in memory, but disjoint
    np.testing.assert_array_equal(memory[:, 3:], expected)
    hide(memory[:, :3], POLICY, IDS, 0, fill=0.5, out=memory[:, :3])  # a second view of the batch: in place
    np.testing.assert_array_equal(memory[:, :3], expected)


def test_importing_the_package_is_light() -> None:
    code = (
        "import sys, has_dali, has_dali.pipelines; from has_dali import HideAndSeek; HideAndSeek();"
        "heavy = {'torch', 'nvidia.dali', 'cupy', 'numba', 'numpy', 'matplotlib'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unknown_names_are_attribute_errors() -> None:
    import has_dali

    with pytest.raises(AttributeError, match="no attribute 'hide_and_go'"):
        has_dali.hide_and_go  # noqa: B018
    assert {"hide", "HideAndSeek"} <= set(dir(has_dali))
