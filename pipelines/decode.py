"""Whole images, decoded as the loaders decode them: by DALI on the CPU, to RGB of 8 bits."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from nvidia.dali import Pipeline, fn, types

from has_dali.kernels.threads import available_cores
from has_dali.pipelines import broken, colour_check, graph
from has_dali.pipelines.arrays import ArraySource, image_offsets
from has_dali.pipelines.memory import available_memory, gigabytes
from has_dali.pipelines.sources import FileSource
from has_dali.pipelines.spans import SpanSource

IdArray: TypeAlias = "npt.NDArray[np.int64]"

_LOG = logging.getLogger(__name__)

_FILES_PER_BATCH = 8  # bounds memory: photographs of 12 megapixels make 290 MB of pixels
_HEADERS_PER_BATCH = 64
_PREFETCH = 2
_LISTED = 20
_WRONG_SIZE = "the header gives a wrong size"


def decoded_images(files: Sequence[str], threads: int | None = None) -> Iterator[list[npt.NDArray[np.uint8]]]:
    """Pixels of every file, in order, as batches of (H, W, 3) arrays; a batch is valid until the next is asked for.

    Args:
        files: image files of any size.
        threads: decoding threads; the usable cores by default.

    Raises:
        ValueError: a file is missing, unreadable, broken, or no image; names it.
    """
    found: list[broken.BrokenFile] = []
    for _, images in _outputs(FileSource(files), graph.whole_images, _FILES_PER_BATCH, threads, found):
        if found:
            raise _error(found, len(files))
        yield images
    if found:
        raise _error(found, len(files))


def decoded_source(
    source: FileSource | SpanSource, threads: int | None = None, advance: Callable[[int], None] | None = None
) -> ArraySource:
    """All images of a source of encoded ones, decoded once into memory: height * width * 3 bytes each.

    Its fingerprint and the names of its samples stay those of ``source``.

    Args:
        source: image files of any size.
        threads: decoding threads; the usable cores by default.
        advance: called with the number of images just decoded.

    Raises:
        ValueError: files are missing, unreadable, broken, or no images; one list of all of them, for which all others
            are decoded too.
        MemoryError: the images need more memory than there is; says how much.
    """
    found: list[broken.BrokenFile] = []
    shapes = _header_shapes(source, threads, found)
    whole = not found
    offsets = image_offsets(shapes)
    _LOG.info("decoding %d images into memory: %s", len(source), gigabytes(offsets[-1]))
    free = available_memory()
    if whole and free is not None and offsets[-1] > free:
        raise MemoryError(
            f"decoding {len(source)} images needs {gigabytes(offsets[-1])} of memory, {gigabytes(free)} are"
            " available; load them from their files (leave cache out), or take fewer or smaller images"
        )
    pixels = np.empty(offsets[-1] if whole else 0, np.uint8)
    rest = np.setdiff1d(np.arange(len(source)), [file.sample_id for file in found])
    for ids, images in _outputs(source, _decoded, _FILES_PER_BATCH, threads, found, rest):
        for sample_id, image in zip(ids.tolist(), images, strict=True):
            if image.shape[:2] != tuple(shapes[sample_id].tolist()):
                _take_note(found, [broken.BrokenFile(sample_id, source.name(sample_id), _WRONG_SIZE)])
            elif whole:
                pixels[offsets[sample_id] : offsets[sample_id + 1]] = image.reshape(-1)
        if advance is not None:
            advance(len(images))
    if found:
        raise _error(found, len(source))
    return ArraySource(pixels, offsets, shapes, source.labels, source.classes, origin=source)


def _header_shapes(
    source: FileSource | SpanSource, threads: int | None, found: list[broken.BrokenFile]
) -> npt.NDArray[np.int64]:
    """(N, 2) heights and widths from the headers; 0 where there is none that may be decoded, which is ``found``."""
    shapes = np.zeros((len(source), 2), np.int64)
    for ids, sizes in _outputs(source, _header, _HEADERS_PER_BATCH, threads, found):
        for sample_id, size in zip(ids.tolist(), sizes, strict=True):
            reason = graph.unfit_size(size[:2])
            if reason is None:
                shapes[sample_id] = size[:2]
            else:
                _take_note(found, [broken.BrokenFile(sample_id, source.name(sample_id), reason)])
    return shapes


def _take_note(found: list[broken.BrokenFile], more: Sequence[broken.BrokenFile]) -> None:
    """Name broken files in the log at once: the list comes when all files are through."""
    for file in more:
        _LOG.warning("cannot decode sample %d: %s: %s", file.sample_id, file.path, file.reason)
    found += more


def _error(found: Sequence[broken.BrokenFile], count: int) -> ValueError:
    if len(found) == 1:
        return ValueError(f"{found[0].path}: {found[0].reason}; remove it or replace it")
    ordered = sorted(found, key=lambda file: file.sample_id)
    return ValueError(broken.message(ordered, of=str(count), shown=_LISTED))


def _decoded(content: Any) -> Any:
    return fn.decoders.image(content, output_type=types.RGB)  # headers were looked at before


def _header(content: Any) -> Any:
    return fn.peek_image_shape(content)


def _outputs(
    source: Any,
    operator: Callable[[Any], Any],
    batch_size: int,
    threads: int | None,
    found: list[broken.BrokenFile],
    ids: IdArray | None = None,
) -> Iterator[tuple[IdArray, list[npt.NDArray]]]:
    """What ``operator`` makes of each file, in order, and their ids; a batch is valid until the next is asked for.

    Broken files are left out and added to ``found``; what cannot be told from the files is raised.
    """
    rest = np.arange(len(source)) if ids is None else ids
    while len(rest):
        parts = [rest[i : i + batch_size] for i in range(0, len(rest), batch_size)]
        pipeline = _pipeline(source, parts, operator, batch_size, threads or available_cores(), _PREFETCH)
        for number, part in enumerate(parts):
            try:
                output, colourless = pipeline.run()
            except (RuntimeError, OSError):
                # The failed batch is this one or one that was being computed ahead.
                bad = _broken(source, np.concatenate(parts[number : number + _PREFETCH + 1]), operator)
                if not bad:
                    raise
                _take_note(found, bad)
                rest = np.setdiff1d(rest[number * batch_size :], [file.sample_id for file in bad])
                break  # DALI gives up a pipeline in which an operator failed
            black = colourless.as_array().reshape(-1) != 0
            names = [(sample_id, source.name(sample_id)) for sample_id in part[black].tolist()]
            _take_note(found, [broken.BrokenFile(sample_id, name, broken.COLOURLESS) for sample_id, name in names])
            yield part[~black], [np.asarray(output.at(n)) for n in np.flatnonzero(~black).tolist()]
        else:
            return


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
                if broken.is_machines(str(error)):
                    raise
                reason = broken.cause(str(error))
        if reason is not None:
            found.append(broken.BrokenFile(sample_id, source.name(sample_id), reason))
    return found
