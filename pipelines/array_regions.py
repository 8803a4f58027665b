"""What an evaluation of decoded images shows: the region of each image that ``EvalPlan`` gives, as pixels.

Regions that are pixels of the image already are shown where they lie. Evaluation shows the same images in every
epoch, so the others are resampled once, to uint8, by the operator that resamples files: the results are the same.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from has_dali.pipelines.arrays import CHANNELS, ArraySource, DecodedSource
from has_dali.pipelines.memory import available_memory, gigabytes
from has_dali.pipelines.plan import EvalPlan
from has_dali.pipelines.sampler import Sampler, shown_ids
from has_dali.pipelines.spec import ImageSpec

_LOG = logging.getLogger(__name__)
_IMAGES_PER_BATCH = 16


@dataclass(frozen=True)
class Regions:
    """Images, by sample id, whose windows of ``size`` x ``size`` are what is shown.

    Args:
        addresses: (N,) int64, where each image lies.
        shapes: (N, 2) int64, its height and width.
        start: (N, 2) int32, where its window starts.
        resampled: what the addresses of resampled regions point into; None where nothing is resampled.
    """

    addresses: npt.NDArray[np.int64]
    shapes: npt.NDArray[np.int64]
    start: npt.NDArray[np.int32]
    resampled: ArraySource | None


def prepare(spec: ImageSpec, plan: EvalPlan, source: DecodedSource, sampler: Sampler, threads: int) -> Regions:
    """The regions of all samples; those that have to be resampled are, as far as the sampler gives them this rank.

    Raises:
        MemoryError: the resampled regions need more memory than there is.
    """
    start, _, first, last = plan(source.shapes)
    exact = ((first == np.rint(first)) & (last - first == spec.size)).all(axis=1)
    start = start + first.astype(np.int32)
    if exact.all():
        return Regions(source.addresses, source.shapes, start, None)
    ids = np.unique(shown_ids(np.concatenate([sampler.ids(0, index) for index in range(len(sampler))])))
    ids = ids[~exact[ids]]
    addresses, shapes = source.addresses.copy(), source.shapes.copy()
    # A region that nobody asks for still gets an address that may be read.
    start[~exact], shapes[~exact] = 0, spec.size
    if not len(ids):
        addresses[~exact] = source.addresses[exact][0]
        return Regions(addresses, _read_only(shapes), start, None)
    _LOG.info("resampling %d images once, to %d x %d", len(ids), spec.size, spec.size)
    resampled = _resampled(spec, plan, source, ids, threads)
    addresses[~exact] = resampled.addresses[0]
    addresses[ids] = resampled.addresses
    return Regions(addresses, _read_only(shapes), start, resampled)


def _resampled(
    spec: ImageSpec, plan: EvalPlan, source: DecodedSource, ids: npt.NDArray[np.int64], threads: int
) -> ArraySource:
    from nvidia.dali import Pipeline, fn, types

    from has_dali.pipelines.graph import resized_region

    need, free = len(ids) * spec.size**2 * CHANNELS, available_memory()
    if free is not None and need > free:
        raise MemoryError(
            f"resize: resampling {len(ids)} images for evaluation needs {gigabytes(need)} of memory, {gigabytes(free)}"
            " are available; evaluate the images from files or packed JPEGs, or pack them with --short-side as large"
            " as resize"
        )
    start, shape, first, last = plan(source.shapes[ids])
    parts = [slice(at, at + _IMAGES_PER_BATCH) for at in range(0, len(ids), _IMAGES_PER_BATCH)]

    def box(n: int) -> npt.NDArray[np.uint8]:
        (top, left), (height, width) = start[n], shape[n]
        return source.image(ids[n])[top : top + height, left : left + width]

    def batch(part: slice) -> list[Any]:
        return [[np.ascontiguousarray(box(n)) for n in range(len(ids))[part]], first[part], last[part]]

    pipeline = Pipeline(_IMAGES_PER_BATCH, threads, None, prefetch_queue_depth=1)
    with pipeline:
        images, begin, end = fn.external_source(
            source=map(batch, parts), num_outputs=3, batch=True,
            ndim=[3, 1, 1], dtype=[types.UINT8, types.FLOAT, types.FLOAT],
        )  # fmt: skip
        pipeline.set_outputs(resized_region(spec, fn.reinterpret(images, layout="HWC"), begin, end))
    result = np.empty((len(ids), spec.size, spec.size, CHANNELS), np.uint8)
    for part in parts:
        (output,) = pipeline.run()
        result[part] = np.asarray(output.as_tensor())
    return ArraySource.from_images(result)


def _read_only(array: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """As the arrays of sources are, so that one compiled kernel serves both."""
    array.flags.writeable = False
    return array
