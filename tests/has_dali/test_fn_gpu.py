"""The GPU side of the operators where there is no GPU: the graph, and the glue with the launch replaced."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from nvidia.dali import fn, pipeline_def, types

import has_dali.fn as hfn
from has_dali import HideAndSeek, dlpack
from has_dali.callbacks import ResizeCallback
from has_dali.kernels import cpu, reference
from has_dali.launchers import CpuLauncher, CudaLauncher

RNG = np.random.default_rng(3)
RAGGED = [RNG.integers(0, 256, (30 + 5 * i, 44 - 3 * i, 3), dtype=np.uint8) for i in range(5)]
UNIFORM = RNG.integers(0, 256, (5, 24, 32, 3), dtype=np.uint8)
IDS = np.array([4, -1, 2**35, 0, 9])
POLICY = HideAndSeek((0, 8), random_offset=True, seed=5)


def source(batch: Any, layout: str | None = None) -> Any:
    return fn.external_source(lambda: [np.ascontiguousarray(sample) for sample in batch], batch=True, layout=layout)


class FakeDevice:
    """Stands in for ``kernels.gpu``: computes on the CPU what the kernels would, and counts what they would do.

    ``forbidden`` operations have no method here, so a glue that copied or synchronised would fail.
    """

    def __init__(self) -> None:
        self.launches = self.allocations = 0
        self.streams: list[int] = []

    def hide(self, batch: Any, policy: Any, ids: Any, epoch: Any, **options: Any) -> Any:
        assert options["out"] is batch, "hiding is in place, so nothing is allocated"
        self.launches += 1
        self.streams.append(options["stream"])
        limits = None if options["thresholds"] is None else host(options["thresholds"]) / 2**32
        images = host(batch)
        return cpu.hide(images, policy, host(ids), host(epoch), options["fill"], options["layout"], images, limits)

    def resize_mirror_normalize_hide(self, images: Any, policy: Any, ids: Any, epoch: Any, **options: Any) -> Any:
        self.launches += 1
        self.allocations += 1
        self.streams.append(options.pop("stream"))
        thresholds, mirror = options.pop("thresholds"), options.pop("mirror")
        outputs = cpu.resize_mirror_normalize_hide(
            [host(image) for image in images], policy, host(ids), host(epoch), mirror=host(mirror) != 0,
            p_hide=None if thresholds is None else host(thresholds) / 2**32, **options,
        )  # fmt: skip
        if options["size"] is None:
            return [on_device(output) for output in outputs]
        return on_device(np.stack(outputs))


def host(view: Any) -> np.ndarray:
    """The CPU memory behind a view that the glue takes for device memory."""
    interface = view._interface() if isinstance(view, dlpack.TensorView) else view.__cuda_array_interface__
    return np.asarray(SimpleNamespace(__array_interface__=interface, owner=view))


def on_device(array: np.ndarray) -> Any:
    return SimpleNamespace(__cuda_array_interface__=array.__array_interface__, owner=array)


def define_both(images: Any, small: Any, ids: Any) -> list[Any]:
    """Every form of both operators, as a user's GPU pipeline has them."""
    shares = fn.random.uniform(range=[0.2, 0.8])
    return [
        hfn.resize_mirror_normalize_hide(
            images, POLICY, ids, 3, size=(16, 20), mirror=fn.random.coin_flip(), p_hide=shares
        ),
        hfn.resize_mirror_normalize_hide(images, None, size=None, dtype=types.FLOAT16, output_layout="HWC"),
        hfn.hide_and_seek(small, POLICY, ids, 3, fill_value=(1, 2, 3)),
        *hfn.hide_and_seek([small, small], POLICY, p_hide=shares, fill_value=[0, 255], return_mask=True),
    ]  # fmt: skip


def test_the_graph_of_a_gpu_pipeline_can_be_defined_without_a_gpu(tmp_path: Any) -> None:
    """Wrong arguments, devices or layouts show at definition; what is left is DALI's own wish for a driver."""

    @pipeline_def(batch_size=4, num_threads=1, device_id=0)
    def pipeline():  # type: ignore[no-untyped-def]
        encoded, ids = fn.readers.file(files=[str(tmp_path / "a.jpg")])
        images = fn.decoders.image_random_crop(encoded, device="mixed")
        outputs = define_both(images, fn.resize(images, size=[24, 32]), ids)
        assert all(output.device == "gpu" for output in outputs)
        return tuple(outputs)

    from nvidia.dali.backend import GetCUDADeviceCount  # type: ignore[attr-defined]

    pipe = pipeline()
    if _gpus(GetCUDADeviceCount) == 0:
        with pytest.raises(RuntimeError, match=r"CUDA|cuda"):
            pipe.build()


def _gpus(count: Any) -> int:
    try:
        return int(count())
    except RuntimeError:
        return 0


def test_the_glue_of_the_gpu_launches_once_and_allocates_one_output(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU pipeline drives the GPU's launcher: same callbacks, capsules and keys; only the launch is replaced."""
    device = FakeDevice()
    monkeypatch.setattr(hfn, "launcher_for", lambda _: CudaLauncher(device))

    @pipeline_def(batch_size=5, num_threads=2, device_id=None)
    def pipeline():  # type: ignore[no-untyped-def]
        small = source(UNIFORM, "HWC")
        return hfn.hide_and_seek(small, POLICY, source(IDS), 3, fill_value=(1, 2, 3)), small

    pipe = pipeline()
    pipe.build()
    for batch in range(1, 4):
        hidden, untouched = (out.as_array() for out in pipe.run())
        np.testing.assert_array_equal(hidden, reference.hide(UNIFORM, POLICY, IDS, 3, (1, 2, 3), "NHWC"))
        np.testing.assert_array_equal(untouched, UNIFORM)
        assert batch <= device.launches <= batch + 3  # DALI works ahead
    assert device.allocations == 0


@pytest.mark.parametrize("launcher", [CpuLauncher, lambda: CudaLauncher(FakeDevice())])
@pytest.mark.parametrize("size", [(16, 20), None])
@pytest.mark.parametrize(("dtype", "layout"), [(np.float32, "CHW"), (np.float16, "HWC")])
def test_the_gpu_route_of_the_fused_operator_on_the_cpu(launcher: Any, size: Any, dtype: Any, layout: str) -> None:
    """``dl_tensor_python_function`` with ragged images: the route of a GPU pipeline, on CPU tensors."""
    shares = np.linspace(0, 1, 5).astype(np.float32)
    flips = np.array([0, 1, 0, 1, 1])
    options = {"size": size, "antialias": True, "output_layout": layout, "mean": 3.0, "std": 2.0, "fill_value": None}
    callback = ResizeCallback(launcher(), POLICY, True, {**options, "dtype": dtype}, "has_dali.fn.fused")

    @pipeline_def(batch_size=5, num_threads=2, device_id=None, prefetch_queue_depth=3)
    def pipeline():  # type: ignore[no-untyped-def]
        from has_dali.callbacks import ResizeKeys
        from has_dali.keys import keys_node

        images = source(RAGGED, "HWC")
        seen = {"mirror": source(flips), "p_hide": source(shares), "shapes": images.shape()}
        keys = keys_node(ResizeKeys("has_dali.fn.fused", (3, 3)), sample_ids=source(IDS), epoch=7, **seen)
        return fn.dl_tensor_python_function(
            images, keys, function=callback, batch_processing=True, synchronize_stream=False, output_layouts=layout
        )

    pipe = pipeline()
    pipe.build()
    expected = reference.resize_mirror_normalize_hide(
        RAGGED, POLICY, IDS, 7, mirror=flips, dtype=dtype, p_hide=shares.astype(np.float64), **options
    )
    kept = [pipe.run()[0] for _ in range(6)]  # a slow consumer: nothing may change behind its back
    assert kept[0].layout() == layout
    for output in kept:
        for n, wanted in enumerate(expected):
            np.testing.assert_array_equal(output.at(n), wanted)
    del kept, pipe


class FakeTensor:
    """DALI's tensor object on the GPU: notes the stream that the glue passes on."""

    def __init__(self, array: np.ndarray, streams: list[Any]) -> None:
        self.array, self.streams = array, streams

    def __dlpack__(self, stream: Any) -> Any:
        self.streams.append(stream)
        return dlpack.capsule_of(
            self.array.ctypes.data, self.array.shape, self.array.dtype, (dlpack.CUDA, 0), self.array
        )


def test_on_the_gpu_dalis_stream_comes_first_and_reaches_the_launch() -> None:
    """The call of the GPU's operator: ``function(stream, *tensors)``; its own capsules go back, unconsumed."""
    from has_dali.callbacks import HideCallback, HideKeys

    device, streams = FakeDevice(), []
    keys = HideKeys("has_dali.fn.hide_and_seek", 1, False)
    keys.layouts = ["HWC"]
    callback = HideCallback(CudaLauncher(device), POLICY, [5], False, keys, "gpu")
    images, packed = UNIFORM.copy(), np.array([[[i, 3, 0, 0]] for i in IDS])
    (capsule,) = callback(77, FakeTensor(images, streams), FakeTensor(packed, streams))
    assert device.streams == [77] and streams == [77, 77]
    assert (device.launches, device.allocations) == (1, 0)
    assert dlpack.view(capsule).pointer == images.ctypes.data
    np.testing.assert_array_equal(images, reference.hide(UNIFORM, POLICY, IDS, 3, 5, "NHWC"))


def test_the_fused_gpu_route_takes_the_stream_that_dali_names(monkeypatch: pytest.MonkeyPatch) -> None:
    from nvidia.dali import python_function_plugin

    device = FakeDevice()
    options = {"size": (9, 9), "antialias": True, "output_layout": "CHW", "mean": 0.0, "std": 1.0, "fill_value": 0.0}
    callback = ResizeCallback(
        CudaLauncher(device), POLICY, False, {**options, "dtype": np.float32}, "has_dali.fn.fused"
    )
    monkeypatch.setattr(python_function_plugin, "current_dali_stream", lambda: 99)
    packed = np.array([[i, 3, 0, 0] for i in IDS])
    images = [dlpack.capsule_of(a.ctypes.data, a.shape, a.dtype, (dlpack.CUDA, 0), a) for a in RAGGED]
    keys = [dlpack.capsule_of(k.ctypes.data, k.shape, k.dtype, (dlpack.CUDA, 0), packed) for k in packed]
    outputs = callback(images, keys)
    assert (device.streams, device.launches, device.allocations, len(outputs)) == ([99], 1, 1, len(RAGGED))
    apart = [dlpack.capsule_of(k.ctypes.data, k.shape, k.dtype, (dlpack.CUDA, 0), k) for k in map(np.copy, packed)]
    with pytest.raises(ValueError, match="one piece of memory"):
        callback([dlpack.capsule_of(a.ctypes.data, a.shape, a.dtype, (dlpack.CUDA, 0), a) for a in RAGGED], apart)


def test_bad_devices_are_named_at_definition() -> None:
    @pipeline_def(batch_size=4, num_threads=1, device_id=0)
    def mixed():  # type: ignore[no-untyped-def]
        images = source(UNIFORM, "HWC")
        return tuple(hfn.hide_and_seek([images, images.gpu()], POLICY))

    with pytest.raises(ValueError, match=r"has_dali.fn.hide_and_seek: images.*one device.*cpu and gpu"):
        mixed()

    @pipeline_def(batch_size=4, num_threads=1, device_id=0)
    def ids_on_gpu():  # type: ignore[no-untyped-def]
        return hfn.hide_and_seek(source(UNIFORM, "HWC").gpu(), POLICY, source(IDS).gpu(), 0)

    with pytest.raises(ValueError, match=r"sample_ids.*CPU DataNode.*gpu"):
        ids_on_gpu()
