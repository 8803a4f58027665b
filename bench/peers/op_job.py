"""The job of the operator peers: hide cells of a decoded batch, alone or fused with normalisation, on memory that is
rotated so that no peer finds its batch in the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from has_dali.bench.harness import Step
from has_dali.kernels.contract import IMAGENET_MEAN, IMAGENET_STD
from has_dali.kernels.cpu import aligned_empty
from has_dali.kernels.policy import HideAndSeek

CHANNELS = 3
HIDE, FUSED = "hide", "fused"
FILLS = {"uint8": 124.0, "float16": 0.0, "float32": 0.0}
"""What hidden values become: the rounded mean of ImageNet's red, or the mean after normalisation. One number for all
channels, since that is all that several peers take."""
PIXEL_FILL = tuple(float(round(mean)) for mean in IMAGENET_MEAN)
"""The mean per channel, as peers fill it that hide before they normalise."""
_CACHE_MULTIPLE = 4
"""Times the last-level cache that all batches together hold: working in place touches half of their bytes or less."""
_FALLBACK_CACHE = 64 << 20
_LEAST_BUFFERS = 3


@dataclass(frozen=True)
class OpJob:
    """What every peer gets.

    Args:
        kind: "hide": cells of a batch of ``dtype``; "fused": uint8 (N, H, W, 3) to normalised float32 (N, 3, H, W)
            with hidden cells 0.
        dtype: of the batch, "uint8", "float16" or "float32"; of fused, uint8.
        output_dtype: of fused, "float32" or "float16".
        batch: images.
        size: height and width in pixels.
        threads: cores that a peer may use.
    """

    kind: str
    policy: HideAndSeek
    dtype: str = "uint8"
    batch: int = 64
    size: int = 224
    threads: int = 1
    output_dtype: str = "float32"

    @property
    def fill(self) -> float:
        """Value of hidden pixels in the output."""
        return 0.0 if self.kind == FUSED else FILLS[self.dtype]

    @property
    def values(self) -> int:
        """Numbers of one image."""
        return self.size * self.size * CHANNELS

    @property
    def image_bytes(self) -> int:
        """Of one image that comes in."""
        return self.values * np.dtype(self.dtype).itemsize

    @property
    def output_bytes(self) -> int:
        """Of one image that goes out."""
        return self.values * np.dtype(self.output_dtype).itemsize if self.kind == FUSED else self.image_bytes

    @property
    def sizes(self) -> str:
        """The patch sizes in words."""
        sizes = self.policy.patch_sizes
        return f"S = {sizes[0]}" if len(sizes) == 1 else f"mixed S = {', '.join(map(str, sizes))}"


def last_level_cache() -> int | None:
    """Bytes of the largest cache of a core, or None where the system does not say."""
    sizes = []
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = path.read_text(encoding="ascii").strip()
        scale = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}.get(text[-1:], 1)
        digits = text.rstrip("KMG")
        if digits.isdigit():
            sizes.append(int(digits) * scale)
    return max(sizes, default=None)


def buffer_count(step_bytes: int) -> int:
    """Batches to rotate so that together they hold four times the last-level cache, at least three."""
    cache = last_level_cache() or _FALLBACK_CACHE
    return max(_LEAST_BUFFERS, -(-_CACHE_MULTIPLE * cache // step_bytes))


@dataclass
class Buffers:
    """Batches in memory that all peers of some tables share, each in the layout that it works in.

    All begin at whole cache lines, as the memory that DALI and torch allocate does.

    Every ``rotation`` starts from the same pixels, none of which equals the fill, so the equality check sees what a
    peer did. Peers that work in place leave their marks for those after them; no peer's time depends on pixels.

    Args:
        dtype, batch, size: as in ``OpJob``.
        count: batches to rotate.
    """

    dtype: str
    batch: int
    size: int
    count: int
    _made: dict[str, list[npt.NDArray]] = field(default_factory=dict)

    @cached_property
    def pristine(self) -> npt.NDArray:
        """(N, H, W, 3): what every batch holds before anything was hidden."""
        rng = np.random.default_rng(0)
        shape = (self.batch, self.size, self.size, CHANNELS)
        if self.dtype == "uint8":
            values = rng.integers(0, 255, shape, np.uint8)
            return values + (values >= FILLS["uint8"]).astype(np.uint8)  # any value but the fill
        signs = np.where(rng.integers(0, 2, shape, np.uint8), np.float32(1), np.float32(-1))
        return (signs * (rng.random(shape, np.float32) * np.float32(2) + np.float32(0.01))).astype(self.dtype)

    @cached_property
    def normalized(self) -> npt.NDArray[np.float32]:
        """``pristine`` after normalisation."""
        mean, std = np.array(IMAGENET_MEAN, np.float32), np.array(IMAGENET_STD, np.float32)
        return (self.pristine.astype(np.float32) - mean) / std

    def batches(self, layout: str) -> list[npt.NDArray]:
        """The batches in "NHWC" or "NCHW", as pristine as at the start."""
        source = self.pristine if layout == "NHWC" else self.pristine.transpose(0, 3, 1, 2)
        if layout not in self._made:
            self._made[layout] = [aligned_empty(source.shape, source.dtype) for _ in range(self.count)]
        for batch in self._made[layout]:
            np.copyto(batch, source)
        return self._made[layout]

    def outputs(self) -> list[npt.NDArray[np.float32]]:
        """Float32 (N, 3, H, W) memory for as many results; its pages are there already."""
        if "outputs" not in self._made:
            shape = (self.batch, CHANNELS, self.size, self.size)
            self._made["outputs"] = [aligned_empty(shape, np.float32) for _ in range(self.count)]
            for output in self._made["outputs"]:
                output.fill(1)
        return self._made["outputs"]


def buffers_for(job: OpJob) -> Buffers:
    """Enough batches for this job."""
    step_bytes = job.batch * (job.image_bytes + (job.output_bytes if job.kind == FUSED else 0))
    return Buffers(job.dtype, job.batch, job.size, buffer_count(step_bytes))


@contextmanager
def over_batches(work: Callable[[Any], Any], make: Callable[[], list[Any]]) -> Iterator[Step]:
    """``open`` of a contender that applies ``work`` to one batch after the other, round and round.

    Args:
        make: gives the batches, pristine.
    """
    turns = cycle(make())
    yield lambda: work(next(turns))
