"""Which files of a failed batch are broken, and why: DALI's own message names neither path nor sample."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from has_dali.pipelines import graph
from has_dali.pipelines.sources import FileSource
from has_dali.pipelines.spec import ImageSpec

_SHOWN = 5
# nvimgcodecStatus_t
_CODEC_STATUS = {"3": "the image header is damaged", "4": "not an image of a supported format"}


@dataclass(frozen=True)
class BrokenFile:
    """A file that cannot be read or decoded."""

    sample_id: int
    path: str
    reason: str


def broken_files(
    spec: ImageSpec,
    source: FileSource,
    sample_ids: npt.NDArray[np.int64],
    keys: npt.NDArray[np.int64],
    epoch: int,
) -> list[BrokenFile]:
    """Decode the samples one by one, with the boxes that ``keys`` give in ``epoch``, and list those that fail."""
    found = []
    at = 0

    def feed() -> graph.Inputs:
        return graph.graph_inputs(spec, source, sample_ids[at : at + 1], keys[at : at + 1], epoch)

    decoder = None
    for at, sample_id in enumerate(sample_ids.tolist()):  # noqa: B007 (feed reads it)
        path = source.path(sample_id)
        reason = unreadable(path)
        if reason is None:
            try:
                decoder = decoder or graph.build_decoder(spec, feed)
                decoder.run()
            except RuntimeError as error:
                reason = cause(str(error))
                decoder = None  # DALI gives up a pipeline in which an operator failed
        if reason is not None:
            found.append(BrokenFile(sample_id, path, reason))
    return found


def message(found: list[BrokenFile]) -> str:
    """One line on a single broken file; a list for several."""
    if len(found) == 1:
        file = found[0]
        return f"cannot load sample {file.sample_id}: {file.path}: {file.reason}; repair or remove the file"
    lines = [f"  sample {file.sample_id}: {file.path}: {file.reason}" for file in found[:_SHOWN]]
    more = [f"  and {len(found) - _SHOWN} more"] if len(found) > _SHOWN else []
    return "\n".join([f"cannot load {len(found)} samples of a batch; repair or remove the files:", *lines, *more])


def unreadable(path: str) -> str | None:
    """Why a file cannot be read, or None."""
    try:
        with open(path, "rb") as file:
            return None if file.read(1) else "the file is empty"
    except OSError as error:
        return (error.strerror or str(error)).lower() if os.path.lexists(path) else "no such file"


def cause(text: str) -> str:
    """What went wrong, from DALI's message: the codec's status, or the first line after ``encountered:``."""
    status = re.search(r"nvImageCodec failure: '#(\d+)'", text)
    if status and status[1] in _CODEC_STATUS:
        return _CODEC_STATUS[status[1]]
    if "Failed to decode sample" in text:
        return "the image data are damaged or cut off"
    lines = [line.strip() for line in text.partition("encountered:")[2].splitlines() if line.strip()]
    return f"DALI cannot decode it: {lines[0]}" if lines else "DALI cannot decode it"
