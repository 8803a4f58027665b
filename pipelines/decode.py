"""Whole images, decoded as the loaders decode them: by DALI on the CPU, to RGB of 8 bits."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from nvidia.dali import Pipeline, fn, types

from has_dali.kernels.threads import available_cores
from has_dali.pipelines import broken
from has_dali.pipelines.arrays import ArraySource, image_offsets
from has_dali.pipelines.sources import FileSource

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
    source: FileSource, threads: int | None = None, advance: Callable[[int], None] | None = None
) -> ArraySource:
    """All images of a file source, decoded once into memory: height * width * 3 bytes each.

    Args:
        source: image files of any size.
        threads: decoding threads; the usable cores by default.
        advance: called with the number of images just decoded.

    Raises:
        ValueError: files are missing, unreadable, broken, or no images; names them.
        MemoryError: the images need more memory than there is; says how much.
    """
    sizes = [size[:2] for batch in _outputs(source, _header, _HEADERS_PER_BATCH, threads) for size in batch]
    shapes = np.array(sizes, np.int64)
    offsets = image_offsets(shapes)
    _LOG.info("decoding %d images into memory: %s", len(source), _gigabytes(offsets[-1]))
    free = _available_memory()
    if free is not None and offsets[-1] > free:
        raise MemoryError(
            f"decoding {len(source)} images needs {_gigabytes(offsets[-1])} of memory, {_gigabytes(free)} are"
            " available; load them from their files (leave cache out), or take fewer or smaller images"
        )
    pixels = np.empty(offsets[-1], np.uint8)
    done = 0
    for images in _outputs(source, _decoded, _FILES_PER_BATCH, threads):
        for image in images:
            if image.shape[:2] != tuple(shapes[done].tolist()):
                raise ValueError(f"{source.path(done)}: the header gives a wrong size; remove it or replace it")
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
    source: FileSource, operator: Callable[[Any], Any], batch_size: int, threads: int | None
) -> Iterator[list[npt.NDArray]]:
    """What ``operator`` makes of each file, in order; a batch is valid until the next is asked for."""
    parts = [np.arange(i, min(i + batch_size, len(source))) for i in range(0, len(source), batch_size)]
    pipeline = _pipeline(source, parts, operator, batch_size, threads or available_cores(), _PREFETCH)
    for number in range(len(parts)):
        try:
            (output,) = pipeline.run()
        except RuntimeError as error:
            # The failed batch is this one or one that was being computed ahead.
            found = _broken(source, np.concatenate(parts[number : number + _PREFETCH + 1]), operator)
            if len(found) == 1:
                raise ValueError(f"{found[0].path}: {found[0].reason}; remove it or replace it") from error
            if found:
                raise ValueError(broken.message(found)) from error
            raise
        yield [np.asarray(output.at(n)) for n in range(len(output))]


def _pipeline(
    source: FileSource,
    parts: Sequence[npt.NDArray[np.int64]],
    operator: Callable[[Any], Any],
    batch_size: int,
    threads: int,
    prefetch: int,
) -> Any:
    paths = (source.encoded_paths(ids) for ids in parts)

    pipeline = Pipeline(batch_size, threads, None, prefetch_queue_depth=prefetch)
    with pipeline:
        encoded = fn.external_source(source=paths, batch=True, ndim=1, dtype=types.UINT8)
        pipeline.set_outputs(operator(fn.io.file.read(encoded, dont_use_mmap=True)))
    return pipeline


def _broken(source: FileSource, ids: npt.NDArray[np.int64], operator: Callable[[Any], Any]) -> list[broken.BrokenFile]:
    """Take samples one by one, and list those that fail."""
    found = []
    for sample_id in ids.tolist():
        path = source.path(sample_id)
        reason = broken.unreadable(path)
        if reason is None:
            try:
                _pipeline(source, [np.array([sample_id])], operator, 1, 1, prefetch=1).run()
            except RuntimeError as error:
                reason = broken.cause(str(error))
        if reason is not None:
            found.append(broken.BrokenFile(sample_id, path, reason))
    return found


def _available_memory() -> int | None:
    """Bytes that can be allocated without swapping, where the system says so."""
    try:
        with open("/proc/meminfo") as table:
            return next(int(line.split()[1]) * 1024 for line in table if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return None


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.3g} GB"
