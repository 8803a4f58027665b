"""The DALI graph of an image loader: paths -> bytes -> header -> plan -> decode the box -> one fused operator.

Files are read and decoded on DALI's own threads. Python runs once per batch for each of three small jobs: to hand in
paths and ids, to plan the boxes, and to pack the fused operator's keys.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from nvidia.dali import Pipeline, fn, types

import has_dali.fn as hfn
from has_dali import launchers
from has_dali.operators import BatchOperator, as_numpy
from has_dali.pipelines.plan import EvalPlan
from has_dali.pipelines.sources import FileSource
from has_dali.pipelines.spec import BoxPlan, ImageSpec

_DTYPES = {"float32": types.FLOAT, "float16": types.FLOAT16}

Inputs: TypeAlias = tuple[Any, ...]
Feed: TypeAlias = Callable[[], Inputs]


def graph_inputs(
    spec: ImageSpec, source: FileSource, ids: npt.NDArray[np.int64], keys: npt.NDArray[np.int64], epoch: int
) -> Inputs:
    """What a feed returns for a batch: encoded paths; where boxes are drawn also keys (N,) and epochs (N,)."""
    paths = source.encoded_paths(ids)
    if isinstance(spec.plan, EvalPlan):
        return (paths,)
    return paths, keys, np.full(len(ids), epoch, np.int64)


def build(spec: ImageSpec, feed: Feed, batch_size: int, threads: int, prefetch: int, device_id: int | None) -> Pipeline:
    """A pipeline with one output, the batch of images; ``device_id`` None runs all of it on the CPU.

    ``feed`` is called once per batch, ahead by ``prefetch``, and returns what ``graph_inputs`` gives.
    """
    pipeline = Pipeline(batch_size, threads, device_id, prefetch_queue_depth=prefetch)
    with pipeline:
        encoded, *keys = _encoded(spec, feed)
        images = _region_images if isinstance(spec.plan, EvalPlan) else _box_images
        pipeline.set_outputs(images(spec, encoded, keys, device_id))
    return pipeline


def warm_up(spec: ImageSpec, batch_size: int, device_id: int) -> None:
    """Compile the kernel of a GPU pipeline before its first batch."""
    side = (spec.size, spec.size)
    boxes = not isinstance(spec.plan, EvalPlan)
    launchers.warm_up_resize(
        spec.policy if boxes else None,
        batch_size,
        device_id,
        **({"size": side} if boxes else {"size": None, "source": side}),
        dtype=spec.dtype,
        output_layout="HWC" if spec.channels_last else "CHW",
        antialias=spec.antialias,
    )


def build_decoder(spec: ImageSpec, feed: Feed) -> Pipeline:
    """One sample at a time, on the CPU, up to the decoded box: tells which file of a failed batch is broken."""
    pipeline = Pipeline(1, 1, None, prefetch_queue_depth=1)
    with pipeline:
        encoded, *keys = _encoded(spec, feed)
        pipeline.set_outputs(_decoded_box(encoded, _planned(spec.plan, encoded, keys), None))
    return pipeline


def _encoded(spec: ImageSpec, feed: Feed) -> tuple[Any, ...]:
    """The files' bytes, read by DALI's threads, and the keys of the samples where there are any."""
    count = 1 if isinstance(spec.plan, EvalPlan) else 3
    ndim, dtype = [1, 0, 0], [types.UINT8, types.INT64, types.INT64]
    paths, *keys = fn.external_source(
        source=feed, num_outputs=count, batch=True, ndim=ndim[:count], dtype=dtype[:count]
    )
    return (fn.io.file.read(paths, dont_use_mmap=True), *keys)


def _box_images(spec: ImageSpec, encoded: Any, keys: Sequence[Any], device_id: int | None) -> Any:
    start, shape, mirror = _planned(spec.plan, encoded, keys)
    sample_keys, epochs = keys
    return hfn.resize_mirror_normalize_hide(
        _decoded_box(encoded, (start, shape), device_id),
        spec.policy,
        sample_ids=sample_keys,
        epoch=epochs,
        size=(spec.size, spec.size),
        mirror=mirror,
        antialias=spec.antialias,
        **_output_format(spec),
    )


def _region_images(spec: ImageSpec, encoded: Any, keys: Sequence[Any], device_id: int | None) -> Any:
    # The box has fractional edges, which fn.resize takes and the fused operator does not.
    start, shape, first, last = _planned(spec.plan, encoded, keys)
    images = resized_region(spec, _decoded_box(encoded, (start, shape), device_id), first, last)
    return hfn.resize_mirror_normalize_hide(images, None, size=None, **_output_format(spec))


def resized_region(spec: ImageSpec, images: Any, first: Any, last: Any) -> Any:
    """(size, size, 3) uint8 from the region of each image whose edges ``EvalPlan`` gives, relative to the image."""
    return fn.resize(
        images,
        size=[spec.size, spec.size],
        roi_start=first,
        roi_end=last,
        interp_type=types.INTERP_LINEAR,
        antialias=spec.antialias,
    )


def _output_format(spec: ImageSpec) -> dict[str, Any]:
    return {
        "mean": spec.mean,
        "std": spec.std,
        "fill_value": spec.fill_value,
        "dtype": _DTYPES[spec.dtype],
        "output_layout": "HWC" if spec.channels_last else "CHW",
    }


def _planned(plan: BoxPlan | EvalPlan, encoded: Any, keys: Sequence[Any]) -> tuple[Any, ...]:
    """Run the plan on the sizes in the files' headers (after EXIF orientation), as one call per batch."""
    sizes = fn.peek_image_shape(encoded, dtype=types.INT32)  # the decoder wants start and shape as int32
    outputs = 4 if isinstance(plan, EvalPlan) else 3
    name = f"{type(plan).__module__}.{type(plan).__name__}"
    return tuple(BatchOperator(_on_dlpack(plan), name, num_outputs=outputs)(sizes, *keys))


def _on_dlpack(plan: Callable[..., tuple[npt.NDArray, ...]]) -> Callable[..., tuple[Any, ...]]:
    def run(*tensors: Any) -> tuple[Any, ...]:
        return tuple(array.__dlpack__() for array in plan(*map(as_numpy, tensors)))

    return run


def _decoded_box(encoded: Any, box: tuple[Any, ...], device_id: int | None) -> Any:
    start, shape = box[:2]
    return fn.decoders.image_slice(
        encoded,
        start=start,
        shape=shape,
        axes=[0, 1],
        device="cpu" if device_id is None else "mixed",
        output_type=types.RGB,
    )
