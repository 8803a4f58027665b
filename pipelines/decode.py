"""Whole images, decoded as the loaders decode them: by DALI on the CPU, to RGB of 8 bits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from nvidia.dali import Pipeline, fn, types

from has_dali.kernels.threads import available_cores
from has_dali.pipelines import broken
from has_dali.pipelines.sources import FileSource

_FILES_PER_BATCH = 8  # bounds memory: photographs of 12 megapixels make 290 MB of pixels


def decoded_images(files: Sequence[str], threads: int | None = None) -> Iterator[list[npt.NDArray[np.uint8]]]:
    """Pixels of every file, in order, as batches of (H, W, 3) arrays; a batch is valid until the next is asked for.

    Args:
        files: image files of any size.
        threads: decoding threads; the usable cores by default.

    Raises:
        ValueError: a file is missing, unreadable, broken, or no image; names it.
    """
    source = FileSource(files)
    parts = [np.arange(i, min(i + _FILES_PER_BATCH, len(source))) for i in range(0, len(source), _FILES_PER_BATCH)]
    pipeline = _pipeline(source, parts, threads or available_cores(), prefetch=2)
    for number in range(len(parts)):
        try:
            (output,) = pipeline.run()
        except RuntimeError:
            _raise_named(source, np.concatenate(parts[number:]))
            raise
        yield [np.asarray(output.at(n)) for n in range(len(output))]


def _pipeline(source: FileSource, parts: Sequence[npt.NDArray[np.int64]], threads: int, prefetch: int) -> Any:
    paths = (source.encoded_paths(ids) for ids in parts)

    pipeline = Pipeline(_FILES_PER_BATCH, threads, None, prefetch_queue_depth=prefetch)
    with pipeline:
        encoded = fn.external_source(source=paths, batch=True, ndim=1, dtype=types.UINT8)
        content = fn.io.file.read(encoded, dont_use_mmap=True)
        pipeline.set_outputs(fn.decoders.image(content, output_type=types.RGB))
    return pipeline


def _raise_named(source: FileSource, ids: npt.NDArray[np.int64]) -> None:
    """Decode files one by one up to the first that fails, and say which it is."""
    for sample_id in ids:
        path = source.path(sample_id)
        reason = broken.unreadable(path)
        if reason is None:
            try:
                _pipeline(source, [np.array([sample_id])], 1, prefetch=1).run()
            except RuntimeError as error:
                reason = broken.cause(str(error))
        if reason is not None:
            raise ValueError(f"{path}: {reason}; remove it or replace it") from None
