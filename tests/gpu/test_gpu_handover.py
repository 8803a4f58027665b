"""The hand-over from DALI to torch on a GPU: a slow consumer on torch's stream must find its batches untouched."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from nvidia.dali import fn, pipeline_def, types

import has_dali.fn as hfn
from has_dali import HideAndSeek, hide
from has_dali.kernels import dispatch, reference
from has_dali.nn import HideAndSeek2d

pytestmark = pytest.mark.gpu

POLICY = HideAndSeek((8, 0, 13), seed=7)
BATCH, SIDE, BATCHES = 16, 96, 12
DELAY_CYCLES = 50_000_000  # tens of milliseconds


@pytest.fixture(scope="module", autouse=True)
def device() -> None:
    """A device that both torch and the kernels can use, or a skip that says why not."""
    if not torch.cuda.is_available():
        pytest.skip("torch finds no CUDA device")
    if all(dispatch.cuda_problems().values()):
        pytest.skip("; ".join(str(problem) for problem in dispatch.cuda_problems().values()))


def operator(name: str, images: Any, ids: Any) -> Any:
    if name == "fused":
        return hfn.resize_mirror_normalize_hide(images, POLICY, ids, 0, size=None, mean=0.0, std=1.0, fill_value=9.0)
    return hfn.hide_and_seek(images, POLICY, ids, 0, fill_value=9, inplace=name == "in place", layout="HWC")


@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.parametrize("name", ["hide", "in place", "fused"])
def test_a_slow_consumer_finds_every_batch_as_it_was_made(name: str, depth: int) -> None:
    @pipeline_def(batch_size=BATCH, num_threads=2, device_id=0, prefetch_queue_depth=depth)
    def pipeline():  # type: ignore[no-untyped-def]
        ids = fn.external_source(
            lambda info: np.arange(BATCH)[:, None] + BATCH * info.iteration, batch=True, batch_info=True
        )
        images = fn.random.uniform(range=[0, 255], shape=[SIDE, SIDE, 3], dtype=types.UINT8)
        images = fn.reinterpret(images.gpu(), layout="HWC")
        return operator(name, fn.copy(images), ids), images, ids

    pipe = pipeline()
    pipe.build()
    stream = torch.cuda.Stream()
    results = []
    with torch.cuda.stream(stream):
        for turn in range(BATCHES):
            hidden, images, ids = pipe.run(stream)
            batch = torch.utils.dlpack.from_dlpack(hidden.as_tensor())
            original = torch.utils.dlpack.from_dlpack(images.as_tensor())
            torch.cuda._sleep(DELAY_CYCLES)  # the copies below are queued long before they run
            results.append((batch.clone(), original.clone(), np.array(ids.as_array())[:, 0]))
            if turn % 2:
                del batch, original  # freed while the stream still has to read them
    stream.synchronize()
    for batch, original, ids in results:
        expected = reference.hide(original.cpu().numpy(), POLICY, ids, 0, 9, "NHWC")
        got = batch.cpu().numpy()
        np.testing.assert_array_equal(got.transpose(0, 2, 3, 1) if name == "fused" else got, expected)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("form", ["NCHW", "channels_last", "sliced"])
def test_torch_tensors_on_a_side_stream(dtype: torch.dtype, form: str) -> None:
    ids = torch.arange(8, device="cuda")
    with torch.cuda.stream(torch.cuda.Stream()):
        batch = (torch.rand(8, 3, 64, 48, device="cuda") * 200).to(dtype)
        if form == "channels_last":
            batch = batch.contiguous(memory_format=torch.channels_last)
        elif form == "sliced":
            batch = batch[:, :, ::2]
        result = hide(batch, POLICY, ids, 5, fill=3)
        torch.cuda.current_stream().synchronize()
    assert torch.equal(result.cpu(), hide(batch.cpu(), POLICY, ids.cpu(), 5, fill=3))


def test_modules_compile_and_differentiate_on_the_device() -> None:
    layer, ids = HideAndSeek2d(POLICY), torch.arange(4, device="cuda")
    batch = torch.rand(4, 5, 32, 40, device="cuda", requires_grad=True)
    compiled = torch.compile(lambda x: layer(x, ids, 1), fullgraph=True)(batch)
    compiled.sum().backward()
    hidden = layer(torch.ones(4, 5, 32, 40), ids.cpu(), 1) == 0
    assert torch.equal(batch.grad.cpu(), (~hidden).float())


def test_the_image_loader_gives_the_masks_of_the_reference(tmp_path: Any) -> None:
    from PIL import Image

    from has_dali.pipelines import image_loader

    for i in range(8):
        (tmp_path / "a").mkdir(exist_ok=True)
        Image.fromarray(np.full((80, 90, 3), 200, np.uint8)).save(tmp_path / "a" / f"{i}.jpg")
    loader = image_loader(tmp_path, 4, train=True, policy=POLICY, size=64, device="cuda")
    for batch in loader:
        hidden = (batch["image"] == 0).all(dim=1).cpu().numpy()
        np.testing.assert_array_equal(hidden, POLICY.mask(batch["id"].cpu().numpy(), 0, 64, 64))
