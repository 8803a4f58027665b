"""Whole images, decoded as the loaders decode them: by DALI on the CPU, to RGB of 8 bits."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from nvidia.dali import Pipeline, fn, types

from has_dali.kernels.threads import available_cores
from has_dali.pipelines import broken, colour_check, graph
from has_dali.pipelines.arrays import ArraySource, image_offsets
from has_dali.pipelines.memory import available_memory, gigabytes
from has_dali.pipelines.sources import FileSource
from has_dali.pipelines.spans import SpanSource

_LOG = logging.getLogger(__name__)

_FILES_PER_BATCH = 8  # bounds memory: photographs of 12 megapixels make 290 MB of pixels
_HEADERS_PER_BATCH = 64
_PREFETCH = 2


def decoded_images(files: Sequence[str], threads: int | None = None) -> Iterator[list[npt.NDArray[np.uint8]]]:
    """Pixels of every file, in order, as batches of (H, W, 3) arrays; a batch is valid until the next is asked for.

    Args:
        files: image files of any size.
        threads: decoding threads; the usable cores by default.

    Raises:
        ValueError: a file is missing, unreadable, broken, or no image; names it.
    """
    yield from _outputs(FileSource(files), _decoded, _FILES_PER_BATCH, threads)


def decoded_source(
    source: FileSource | SpanSource, threads: int | None = None, advance: Callable[[int], None] | None = None
) -> ArraySource:
    """All images of a source of encoded ones, decoded once into memory: height * width * 3 bytes each.

    Args:
        source: image files of any size.
        threads: decoding threads; the usable cores by default.
        advance: called with the number of images just decoded.

    Raises:
        ValueError: files are missing, unreadable, broken, or no images; names them.
        MemoryError: the images need more memory than there is; says how much.
    """
    headers = _outputs(source, _header, _HEADERS_PER_BATCH, threads)
    sizes = [size[:2].tolist() for batch in headers for size in batch]
    shapes = np.array(sizes, np.int64)
    offsets = image_offsets(shapes)
    _LOG.info("decoding %d images into memory: %s", len(source), gigabytes(offsets[-1]))
    free = available_memory()
    if free is not None and offsets[-1] > free:
        raise MemoryError(
            f"decoding {len(source)} images needs {gigabytes(offsets[-1])} of memory, {gigabytes(free)} are"
            " available; load them from their files (leave cache out), or take fewer or smaller images"
        )
    pixels = np.empty(offsets[-1], np.uint8)
    done = 0
    for images in _outputs(source, _decoded, _FILES_PER_BATCH, threads):
        for image in images:
            if image.shape[:2] != tuple(shapes[done].tolist()):
                raise ValueError(f"{source.name(done)}: the header gives a wrong size; remove it or replace it")
            pixels[offsets[done] : offsets[done + 1]] = image.reshape(-1)
            done += 1
        if advance is not None:
            advance(len(images))
    return ArraySource(pixels, offsets, shapes, source.labels, source.classes)


def _decoded(content: Any) -> Any:
    return fn.decoders.image(content, output_type=types.RGB)


def _header(content: Any) -> Any:
    return fn.peek_image_shape(content)


def _outputs(
    source: Any, operator: Callable[[Any], Any], batch_size: int, threads: int | None
) -> Iterator[list[npt.NDArray]]:
    """What ``operator`` makes of each file, in order; a batch is valid until the next is asked for."""
    parts = [np.arange(i, min(i + batch_size, len(source))) for i in range(0, len(source), batch_size)]
    pipeline = _pipeline(source, parts, operator, batch_size, threads or available_cores(), _PREFETCH)
    for number in range(len(parts)):
        try:
            output, colourless = pipeline.run()
        except RuntimeError as error:
            # The failed batch is this one or one that was being computed ahead.
            found = _broken(source, np.concatenate(parts[number : number + _PREFETCH + 1]), operator)
            if len(found) == 1:
                raise ValueError(f"{found[0].path}: {found[0].reason}; remove it or replace it") from error
            if found:
                raise ValueError(broken.message(found)) from error
            raise
        for n in np.flatnonzero(colourless.as_array()).tolist():
            name = source.name(int(parts[number][n]))
            raise ValueError(f"{name}: {broken.COLOURLESS}; remove it or replace it")
        yield [np.asarray(output.at(n)) for n in range(len(output))]


def _pipeline(
    source: Any,
    parts: Sequence[npt.NDArray[np.int64]],
    operator: Callable[[Any], Any],
    batch_size: int,
    threads: int,
    prefetch: int,
) -> Any:
    read = graph.by_path(source)  # else DALI gets the bytes
    feed = ((source.encoded_paths if read else source.contents)(ids) for ids in parts)
    pipeline = Pipeline(batch_size, threads, None, prefetch_queue_depth=prefetch)
    with pipeline:
        encoded = fn.external_source(source=feed, batch=True, ndim=1, dtype=types.UINT8)
        content = fn.io.file.read(encoded, dont_use_mmap=True) if read else encoded
        pipeline.set_outputs(operator(content), colour_check.colourless(content))
    return pipeline


def _broken(source: Any, ids: npt.NDArray[np.int64], operator: Callable[[Any], Any]) -> list[broken.BrokenFile]:
    """Take samples one by one, and list those that fail."""
    found = []
    for sample_id in ids.tolist():
        reason = broken.unreadable(source.path(sample_id)) if graph.by_path(source) else None
        if reason is None:
            try:
                _pipeline(source, [np.array([sample_id])], operator, 1, 1, prefetch=1).run()
            except RuntimeError as error:
                reason = broken.cause(str(error))
        if reason is not None:
            found.append(broken.BrokenFile(sample_id, source.name(sample_id), reason))
    return found
