"""What an evaluation of images in memory shows: the region of each image that ``EvalPlan`` gives, as pixels.

Evaluation shows the same images in every epoch, so regions that need resampling are resampled once, to uint8, by the
operator that resamples files: the results are the same.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from has_dali.pipelines.arrays import CHANNELS, ArraySource
from has_dali.pipelines.plan import EvalPlan
from has_dali.pipelines.sampler import Sampler
from has_dali.pipelines.spec import ImageSpec

_LOG = logging.getLogger(__name__)
_IMAGES_PER_BATCH = 16


@dataclass(frozen=True)
class Regions:
    """Images whose windows of ``size`` x ``size`` are what is shown.

    Args:
        source: the images.
        ids: (M,) int64, ascending: which sample each is.
        start: (M, 2) int32, where each window starts.
    """

    source: ArraySource
    ids: npt.NDArray[np.int64]
    start: npt.NDArray[np.int32]

    def rows(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Where samples are in ``source`` and ``start``."""
        return np.searchsorted(self.ids, ids)


def prepare(spec: ImageSpec, plan: EvalPlan, source: ArraySource, sampler: Sampler, threads: int) -> Regions:
    """The regions of all samples, or, where they have to be resampled, of those that the sampler gives this rank."""
    everything = np.arange(len(source))
    start, _, first, last = plan(source.shapes)
    exact = (first == np.rint(first)) & (last - first == spec.size)
    if exact.all():
        return Regions(source, everything, start + first.astype(np.int32))
    ids = np.concatenate([sampler.ids(0, index) for index in range(len(sampler))])
    _LOG.info("resampling %d images once, to %d x %d", len(ids), spec.size, spec.size)
    return Regions(_resampled(spec, plan, source, ids, threads), ids, np.zeros((len(ids), 2), np.int32))


def _resampled(
    spec: ImageSpec, plan: EvalPlan, source: ArraySource, ids: npt.NDArray[np.int64], threads: int
) -> ArraySource:
    from nvidia.dali import Pipeline, fn, types

    from has_dali.pipelines.graph import resized_region

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
