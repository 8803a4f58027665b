"""Whole images at their own size, one per batch, through the same machinery as crops: for evaluation of dense tasks."""

from __future__ import annotations

from typing import Any

from nvidia.dali import Pipeline, fn, types

import has_dali.fn as hfn
from has_dali.pipelines import graph
from has_dali.pipelines.colour_check import colourless
from has_dali.pipelines.stream import BatchStream


class WholeStream(BatchStream):
    """A ``BatchStream`` whose images are not resampled: (1, 3, height, width) of any size.

    Its spec's plan is ``WarpPlan``, for which the whole image is decoded; its sampler gives one sample a batch.
    """

    def _built(self) -> Any:
        pipeline = Pipeline(1, self._threads, self._device_id, prefetch_queue_depth=self._prefetch)
        with pipeline:
            feed = self._feeder  # the graph must not refer to the stream, which would never be freed
            paths = fn.external_source(source=lambda: feed()[0], batch=True, ndim=1, dtype=types.UINT8)
            encoded = fn.io.file.read(paths, dont_use_mmap=True)
            images = graph.whole_images(encoded, self._device_id)
            form = graph.output_format(self.spec)
            whole = hfn.resize_mirror_normalize_hide(images, None, size=None, **form)
            pipeline.set_outputs(whole, colourless(encoded))
        return pipeline
