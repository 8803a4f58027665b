"""Which files of a failed batch are broken, and why: DALI's own message names neither path nor sample."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from has_dali.pipelines import graph
from has_dali.pipelines.colour_check import lacks_colours
from has_dali.pipelines.sampler import IdArray
from has_dali.pipelines.spec import ImageSpec

_SHOWN = 5
COLOURLESS = "a JPEG of four channels that does not tell their colours"
# nvimgcodecStatus_t
_CODEC_STATUS = {"3": "the image header is damaged", "4": "not an image of a supported format"}
# What the machine lacks or does wrong is no fault of the file that happened to be under way.
_MACHINE = re.compile(r"\bCUDA (runtime|driver|API|error|allocation)|cudaError|CUDA_ERROR|[Oo]ut of memory|bad_alloc")


@dataclass(frozen=True)
class BrokenFile:
    """A file that cannot be read or decoded; ``path`` is what its source calls it."""

    sample_id: int
    path: str
    reason: str


class Probe:
    """Loads samples one by one, up to the decoded box, to tell which of them fail.

    Args:
        spec: what is computed.
        source: encoded images.
        device_id: the device whose decoder is asked, or None for the CPU's.
    """

    def __init__(self, spec: ImageSpec, source: Any, device_id: int | None = None) -> None:
        self._spec, self._source, self._device_id = spec, source, device_id
        self._inputs: list[graph.Inputs] = [()]  # an object of its own: the pipeline must not refer to its owner
        self._decoder: Any = None

    def __call__(self, sample_id: int, key: int, epoch: int) -> BrokenFile | None:
        """What is wrong with a sample, for the box that ``key`` gives in ``epoch``; None: nothing.

        Raises:
            RuntimeError: it failed for want of memory, or on an error of the GPU: the file may be whole.
        """
        reason = self._unreadable(sample_id) or colourless(self._source, sample_id)
        if reason is None:
            ids, keys = np.array([sample_id], np.int64), np.array([key], np.int64)
            try:
                self._inputs[0] = graph.graph_inputs(self._spec, self._source, ids, keys, epoch)
                if self._decoder is None:
                    self._decoder = self._built()
                self._decoder.run()
            except RuntimeError as error:
                self._decoder = None  # DALI gives up a pipeline in which an operator failed
                if is_machines(str(error)):
                    raise
                reason = cause(str(error))
        return None if reason is None else BrokenFile(sample_id, self._source.name(sample_id), reason)

    def among(self, sample_ids: IdArray, keys: IdArray, epoch: int) -> list[BrokenFile]:
        """The broken ones of some samples."""
        found = (self(*pair, epoch) for pair in zip(sample_ids.tolist(), keys.tolist(), strict=True))
        return [file for file in found if file is not None]

    def _built(self) -> Any:
        inputs = self._inputs
        return graph.build_decoder(self._spec, self._source, lambda: inputs[0], self._device_id)

    def _unreadable(self, sample_id: int) -> str | None:
        if graph.by_path(self._source):
            return unreadable(self._source.path(sample_id))
        (content,) = self._source.contents(np.array([sample_id]))
        return None if len(content) else "the file is empty"


def colourless(source: Any, sample_id: int) -> str | None:
    """Why the decoder would show a sample as black without saying so, or why its file cannot be read; or None."""
    if graph.by_path(source):
        try:
            content = np.fromfile(source.path(sample_id), np.uint8)
        except OSError as error:
            return (error.strerror or str(error)).lower()
    else:
        (content,) = source.contents(np.array([sample_id]))
    return COLOURLESS if lacks_colours(content) else None


def message(found: Sequence[BrokenFile], of: str = "a batch", shown: int = _SHOWN) -> str:
    """One line on a single broken file; a list of at most ``shown`` for several."""
    if len(found) == 1:
        file = found[0]
        return f"cannot load sample {file.sample_id}: {file.path}: {file.reason}; repair or remove the file"
    lines = [f"  sample {file.sample_id}: {file.path}: {file.reason}" for file in found[:shown]]
    more = [f"  and {len(found) - shown} more"] if len(found) > shown else []
    return "\n".join([f"cannot load {len(found)} samples of {of}; repair or remove the files:", *lines, *more])


def unreadable(path: str) -> str | None:
    """Why a file cannot be read, or None."""
    try:
        with open(path, "rb") as file:
            return None if file.read(1) else "the file is empty"
    except OSError as error:
        return (error.strerror or str(error)).lower() if os.path.lexists(path) else "no such file"


def is_machines(text: str) -> bool:
    """Whether DALI's message tells of the machine, its memory or its GPU, not of a file."""
    return _MACHINE.search(text) is not None


def cause(text: str) -> str:
    """What went wrong, from DALI's message: the codec's status, or the first line after ``encountered:``."""
    status = re.search(r"nvImageCodec failure: '#(\d+)'", text)
    if status and status[1] in _CODEC_STATUS:
        return _CODEC_STATUS[status[1]]
    for reason in (graph.NO_PIXELS, graph.TOO_LARGE):
        if reason in text:
            return reason
    if "Failed to decode sample" in text:
        return "the image data are damaged or cut off"
    lines = [line.strip() for line in text.partition("encountered:")[2].splitlines() if line.strip()]
    return f"DALI cannot decode it: {lines[0]}" if lines else "DALI cannot decode it"
