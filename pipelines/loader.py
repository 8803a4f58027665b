"""The image loader: batches of torch tensors for training and evaluation, resumable at any batch."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from has_dali.kernels.contract import IMAGENET_MEAN, IMAGENET_STD, normalization, per_channel
from has_dali.kernels.policy import HideAndSeek
from has_dali.kernels.threads import available_cores
from has_dali.pipelines import options
from has_dali.pipelines.arrays import ArraySource, Source
from has_dali.pipelines.data import open_data
from has_dali.pipelines.device import choose_device
from has_dali.pipelines.sampler import MAX_EPOCH, BalancedSampler, Position, Sampler, at_least
from has_dali.pipelines.sources import PathLike
from has_dali.pipelines.spec import MAX_SIDE, ImageSpec

Batch: TypeAlias = dict[str, torch.Tensor]

_LOG = logging.getLogger(__name__)
_STATE_VERSION = 1


class Stream(Protocol):
    """Batches by position, computed ahead of the reader."""

    spec: ImageSpec

    def batch(self, position: Position) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], torch.Tensor]:
        """The ids, labels and images of one batch."""


class ImageLoader:
    """Iterable over the batches of one epoch; iterating again gives the next epoch. Made by ``image_loader``.

    A batch is a dict: ``image`` (N, 3, size, size), ``label`` (N,) int64, ``id`` (N,) int64. Its tensors are the
    reader's to keep: no later batch overwrites them. Class-balanced batches also hold ``key`` (N,) int64: what crops
    and masks were drawn for, which tells apart the draws of a sample that comes more than once in an epoch.

    As with torch's DataLoader, a new loop starts afresh: after leaving a loop early, the next one takes the
    following epoch. Only ``load_state_dict`` continues in the middle. One loop at a time: a new one ends the older.
    """

    def __init__(self, stream: Stream, source: Source, sampler: Sampler, device: torch.device) -> None:
        # Not "sampler": trainers that find an attribute of that name take the loader for torch's own.
        self.source, self.sample_order, self.device = source, sampler, device
        self.spec = stream.spec
        self._stream = stream
        self._epoch, self._index = 0, 0  # position of the next batch
        self._handed_out = False  # a loop gave at least one batch of _epoch and did not end by itself
        self._loop = 0

    def __len__(self) -> int:
        """Batches per epoch on this rank."""
        return len(self.sample_order)

    def __repr__(self) -> str:
        """The data and everything that decides what the images look like."""
        batches = f"{len(self)} batches of {self.sample_order.batch_size}"
        return f"ImageLoader({len(self.source)} images, {batches}, {self.spec})"

    def __iter__(self) -> Iterator[Batch]:
        """The batches of the next epoch, or the rest of the epoch that ``load_state_dict`` pointed into."""
        self.set_epoch(self.next_epoch)
        self._loop += 1
        return self._batches(self._loop)

    @property
    def epoch(self) -> int:
        """The epoch under way or left early; after a complete loop, the next one."""
        return self._epoch

    @property
    def next_epoch(self) -> int:
        """The epoch that a new loop takes: the one loaded or not begun, or the one after a loop left early."""
        return self._epoch + self._handed_out

    def set_epoch(self, epoch: int) -> None:
        """Make ``epoch`` the next one to be iterated, from its start, or from the position loaded within it.

        Raises:
            ValueError, TypeError: the epoch is no integer from 0 to 2**32 - 1.
        """
        epoch = at_least("epoch", epoch, 0, MAX_EPOCH)
        if self._handed_out or epoch != self._epoch:
            self._epoch, self._index, self._handed_out = epoch, 0, False

    def state_dict(self) -> dict[str, int]:
        """Position of the next batch, JSON-able; batches computed ahead but not handed out do not count.

        ``samples`` is what all ranks together consumed of ``epoch``, in whole global batches. After the last one of
        an epoch the position is the start of the next. A state is good for every rank, also for one that has a step
        less in evaluation.
        """
        epoch, index = (self._epoch + 1, 0) if self._index >= self.sample_order.steps else (self._epoch, self._index)
        samples = index * self.sample_order.global_batch
        return {"version": _STATE_VERSION, "seed": self.sample_order.seed, "epoch": epoch, "samples": samples}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue at a position that ``state_dict`` gave, over the same data with the same settings.

        The number of processes may differ if the global batch (batch_size * world_size) is the same. A rank that
        has no batch left at that position gives an empty loop, then the next epoch.

        Raises:
            ValueError: the state is of another kind, or does not fit this loader's seed or batches.
        """
        for name, value in (("version", _STATE_VERSION), ("seed", self.sample_order.seed)):
            if state.get(name) != value:
                raise ValueError(f"state: {name} is {state.get(name)!r}, this loader's is {value}; use the same")
        epoch = at_least("state['epoch']", state.get("epoch", -1), 0, MAX_EPOCH)
        samples = at_least("state['samples']", state.get("samples", -1), 0)
        index, rest = divmod(samples, self.sample_order.global_batch)
        if rest or (index and index >= self.sample_order.steps):
            raise ValueError(
                f"state: samples={samples} is no batch boundary of this loader ({self.sample_order.steps} batches of"
                f" {self.sample_order.global_batch} over all ranks); use the same data and global batch size"
            )
        self._epoch, self._index, self._handed_out = epoch, index, False

    def _batches(self, loop: int) -> Iterator[Batch]:
        while self._index < len(self):
            ids, labels, images = self._stream.batch((self._epoch, self._index))
            self._index += 1
            self._handed_out = True
            batch = {"image": images, "label": self._tensor(labels), "id": self._tensor(ids.copy())}
            if isinstance(self.sample_order, BalancedSampler):
                batch["key"] = self._tensor(self.sample_order.keys(self._epoch, self._index - 1))
            yield batch
            del batch, images  # else they would live on until the next batch is there
            if loop != self._loop:
                raise RuntimeError("this loop over the loader was ended by a newer one; run one loop at a time")
        self._epoch, self._index, self._handed_out = self._epoch + 1, 0, False

    def _tensor(self, values: npt.NDArray[np.int64]) -> torch.Tensor:
        tensor = torch.from_numpy(values)
        # Even a .to() that does nothing lets other threads take Python's lock, and the one that works ahead keeps it.
        return tensor if self.device.type == "cpu" else tensor.to(self.device, non_blocking=True)


def image_loader(
    data: PathLike | Sequence[PathLike] | Source,
    batch_size: int,
    *,
    train: bool,
    policy: HideAndSeek | None = None,
    size: int = 224,
    device: str | torch.device = "auto",
    threads: int | None = None,
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
    labels: npt.ArrayLike | None = None,
    on_error: str = "raise",
    crop: str | None = None,
    resize: int | None = None,
    padding: int = 4,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    mirror: float = 0.5,
    mean: float | Sequence[float] = IMAGENET_MEAN,
    std: float | Sequence[float] = IMAGENET_STD,
    fill_value: float | Sequence[float] | None = None,
    dtype: str = "float32",
    channels_last: bool = False,
    antialias: bool = True,
    prefetch: int = 2,
    sampling: str = "shuffle",
    steps: int | None = None,
    cache: str | None = None,
) -> ImageLoader:
    """Batches of normalised images with Hide-and-Seek, from files or from memory.

    Training: shuffled, random crop, mirror, Hide-and-Seek; an incomplete last batch is dropped.
    Evaluation: in order, centre crop or the whole image, nothing hidden, every image exactly once.
    What a sample looks like depends on (seed, epoch, id) only, never on batch size, threads, rank or world size; with
    class-balanced sampling also on the number of the draw.

    Args:
        data: a folder with one folder of images per class; a sequence of image files; a folder of CIFAR-10's or
            CIFAR-100's python batches (``train`` chooses the set); an ``.npz`` file with ``images`` and ``labels``, or
            an ``.npy`` file of images; or a source.
        batch_size: images per batch on this rank.
        train: training or evaluation, see above.
        policy: what to hide, in training only; None hides nothing.
        size: height and width of the images, at most 65535.
        device: "cpu", "cuda" or "gpu" (the current one), "cuda:N", or "auto": the GPU where there is one.
        threads: decoding threads, or, for images in memory, threads that share a batch; None: one per core that this
            process may use.
        seed: of order, crop and mirror (the policy has its own).
        rank: this process, from 0.
        world_size: number of processes; together they see each sample once.
        labels: one integer per file, when ``data`` is a sequence; without them every label is -1.
        on_error: "raise": a file that cannot be loaded is an error that names it.
        crop: training: "random-resized" (the default: torchvision's rule); "short-side": short side to ``resize``,
            then anywhere (see ``ShortSidePlan`` for its rounding); "pad": a black border of
            ``padding``, then anywhere, for images in memory. Evaluation: "center" (the default): short side to
            ``resize``, then the centre; "warp": the whole image, whatever its aspect ratio.
        resize: short side before the crop, for "short-side" and "center"; None: ``size`` * 256 / 224.
        padding: used by "pad": width of the border on each side, in pixels.
        scale: used by "random-resized": smallest and largest share of the image's area in the crop.
        ratio: used by "random-resized": smallest and largest aspect ratio of the crop.
        mirror: used in training: probability of a horizontal flip.
        mean: per channel, 0..255.
        std: per channel, 0..255.
        fill_value: what hidden pixels show, per channel, 0..255; None: the mean.
        dtype: "float32" or "float16".
        channels_last: give images in torch's channels_last memory format.
        antialias: filter when shrinking, as torchvision does.
        prefetch: batches computed ahead.
        sampling: training: "shuffle": every image once; "class-balanced": each draw takes a class, then one of its
            images, with replacement.
        steps: batches per epoch with "class-balanced"; None: as many as with "shuffle".
        cache: "decoded": decode all files once, here, into memory (of each process: height * width * 3 bytes per
            image), and load from there.

    Raises:
        OSError: a folder or file is missing, unreadable, or holds no images.
        ValueError, TypeError: an argument is out of range or of the wrong kind, or a file to be cached is broken.
        MemoryError: the images to be cached need more memory than there is.
        RuntimeError: while iterating, a file cannot be loaded; or the device asked for is missing.

    Example:
        >>> loader = image_loader("train", 64, train=True, policy=HideAndSeek())  # doctest: +SKIP
        >>> for batch in loader:  # doctest: +SKIP
        ...     loss = criterion(model(batch["image"]), batch["label"])
    """
    options.check_flags(train=train, channels_last=channels_last, antialias=antialias)
    options.check_choices(train, policy, on_error, dtype, sampling, steps)
    size = at_least("size", size, 1, MAX_SIDE)
    plan = options.plan_for(
        train, crop, seed=seed, size=size, resize=resize, padding=padding, scale=scale, ratio=ratio, mirror=mirror
    )
    normalization(mean, std, fill_value, 3)  # checks all three before any work is done
    workers = at_least("threads", available_cores() if threads is None else threads, 1)
    source = open_data(data, train=train, labels=labels, cache=cache, threads=workers)
    options.check_crop(plan, source)
    ranks = {"seed": seed, "rank": rank, "world_size": world_size}
    sampler = options.sampler_for(source, batch_size, sampling, steps, train=train, **ranks)
    spec = ImageSpec(
        plan=plan,
        policy=policy,
        size=size,
        mean=tuple(per_channel("mean", mean, 3).tolist()),
        std=tuple(per_channel("std", std, 3).tolist()),
        fill_value=None if fill_value is None else tuple(per_channel("fill_value", fill_value, 3).tolist()),
        dtype=dtype,
        channels_last=channels_last,
        antialias=antialias,
    )
    chosen, reason = choose_device(device)
    _LOG.info("image_loader: %d images on %s (%s), %d threads", len(source), chosen, reason, workers)
    ahead = at_least("prefetch", prefetch, 1)
    return ImageLoader(_stream(spec, source, sampler, workers, ahead, chosen), source, sampler, chosen)


def _stream(
    spec: ImageSpec, source: Source, sampler: Sampler, threads: int, prefetch: int, device: torch.device
) -> Stream:
    if isinstance(source, ArraySource):
        from has_dali.pipelines.array_stream import ArrayStream

        return ArrayStream(spec, source, sampler, threads, prefetch, device)
    from has_dali.pipelines.stream import BatchStream  # needs DALI, which images in memory do without

    return BatchStream(spec, source, sampler, threads, prefetch, device.index)
