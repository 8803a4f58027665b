"""The image loader: batches of torch tensors for training and evaluation, resumable at any batch."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from has_dali.arguments import MAX_SIDE
from has_dali.kernels.contract import IMAGENET_MEAN, IMAGENET_STD, normalization, per_channel
from has_dali.kernels.policy import HideAndSeek
from has_dali.kernels.threads import available_cores
from has_dali.pipelines.device import choose_device
from has_dali.pipelines.graph import DTYPES, GraphSpec
from has_dali.pipelines.plan import EvalPlan, TrainPlan
from has_dali.pipelines.sampler import MAX_EPOCH, Sampler, at_least
from has_dali.pipelines.sources import FileSource, PathLike, open_source
from has_dali.pipelines.stream import BatchStream

Batch: TypeAlias = dict[str, torch.Tensor]

_LOG = logging.getLogger(__name__)
_STATE_VERSION = 1


class ImageLoader:
    """Iterable over the batches of one epoch; iterating again gives the next epoch. Made by ``image_loader``.

    A batch is a dict: ``image`` (N, 3, size, size), ``label`` (N,) int64, ``id`` (N,) int64. Its tensors are the
    reader's to keep: no later batch overwrites them.

    As with torch's DataLoader, a new loop starts afresh: after leaving a loop early, the next one takes the
    following epoch. Only ``load_state_dict`` continues in the middle. One loop at a time: a new one ends the older.
    """

    def __init__(self, stream: BatchStream, source: FileSource, sampler: Sampler, device: torch.device) -> None:
        self.source, self.sampler, self.device = source, sampler, device
        self.spec = stream.spec
        self._stream = stream
        self._epoch, self._index = 0, 0  # position of the next batch
        self._handed_out = False  # a loop gave at least one batch of _epoch and did not end by itself
        self._loop = 0

    def __len__(self) -> int:
        """Batches per epoch on this rank."""
        return len(self.sampler)

    def __repr__(self) -> str:
        """The data and everything that decides what the images look like."""
        return f"ImageLoader({len(self.source)} images, {len(self)} batches of {self.sampler.batch_size}, {self.spec})"

    def __iter__(self) -> Iterator[Batch]:
        """The batches of the next epoch, or the rest of the epoch that ``load_state_dict`` pointed into."""
        self.set_epoch(self._epoch + self._handed_out)
        self._loop += 1
        return self._batches(self._loop)

    @property
    def epoch(self) -> int:
        """The epoch under way or left early; after a complete loop, the next one."""
        return self._epoch

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
        epoch, index = (self._epoch + 1, 0) if self._index >= self.sampler.steps else (self._epoch, self._index)
        samples = index * self.sampler.global_batch
        return {"version": _STATE_VERSION, "seed": self.sampler.seed, "epoch": epoch, "samples": samples}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue at a position that ``state_dict`` gave, over the same data with the same settings.

        The number of processes may differ if the global batch (batch_size * world_size) is the same. A rank that
        has no batch left at that position gives an empty loop, then the next epoch.

        Raises:
            ValueError: the state is of another kind, or does not fit this loader's seed or batches.
        """
        for name, value in (("version", _STATE_VERSION), ("seed", self.sampler.seed)):
            if state.get(name) != value:
                raise ValueError(f"state: {name} is {state.get(name)!r}, this loader's is {value}; use the same")
        epoch = at_least("state['epoch']", state.get("epoch", -1), 0, MAX_EPOCH)
        samples = at_least("state['samples']", state.get("samples", -1), 0)
        index, rest = divmod(samples, self.sampler.global_batch)
        if rest or (index and index >= self.sampler.steps):
            raise ValueError(
                f"state: samples={samples} is no batch boundary of this loader ({self.sampler.steps} batches of"
                f" {self.sampler.global_batch} over all ranks); use the same data and global batch size"
            )
        self._epoch, self._index, self._handed_out = epoch, index, False

    def _batches(self, loop: int) -> Iterator[Batch]:
        while self._index < len(self):
            ids, images = self._stream.batch((self._epoch, self._index))
            self._index += 1
            self._handed_out = True
            yield {"image": images, "label": self._tensor(self.source.labels[ids]), "id": self._tensor(ids.copy())}
            if loop != self._loop:
                raise RuntimeError("this loop over the loader was ended by a newer one; run one loop at a time")
        self._epoch, self._index, self._handed_out = self._epoch + 1, 0, False

    def _tensor(self, values: npt.NDArray[np.int64]) -> torch.Tensor:
        return torch.from_numpy(values).to(self.device, non_blocking=True)


def image_loader(
    data: PathLike | Sequence[PathLike] | FileSource,
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
    resize: int | None = None,
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
) -> ImageLoader:
    """Batches of normalised images with Hide-and-Seek, from files.

    Training: shuffled, random resized crop, mirror, Hide-and-Seek; an incomplete last batch is dropped.
    Evaluation: in order, short side to ``resize``, centre crop, nothing hidden, every image exactly once.
    What a sample looks like depends on (seed, epoch, id) only, never on batch size, threads, rank or world size.

    Args:
        data: a folder with one folder of images per class, or a sequence of image files.
        batch_size: images per batch on this rank.
        train: training or evaluation, see above.
        policy: what to hide, in training only; None hides nothing.
        size: height and width of the images, at most 65535.
        device: "cpu", "cuda" or "gpu" (the current one), "cuda:N", or "auto": the GPU where there is one.
        threads: decoding threads; None: one per core that this process may use.
        seed: of order, crop and mirror (the policy has its own).
        rank: this process, from 0.
        world_size: number of processes; together they see each sample once.
        labels: one integer per file, when ``data`` is a sequence; without them every label is -1.
        on_error: "raise": a file that cannot be loaded is an error that names it.
        resize: evaluation only: the short side before the centre crop; None: ``size`` * 256 / 224.
        scale: used in training: smallest and largest share of the image's area in the crop.
        ratio: used in training: smallest and largest aspect ratio of the crop.
        mirror: used in training: probability of a horizontal flip.
        mean: per channel, 0..255.
        std: per channel, 0..255.
        fill_value: what hidden pixels show, per channel, 0..255; None: the mean.
        dtype: "float32" or "float16".
        channels_last: give images in torch's channels_last memory format.
        antialias: filter when shrinking, as torchvision does.
        prefetch: batches computed ahead.

    Raises:
        OSError: a folder is missing, unreadable, or holds no images.
        ValueError, TypeError: an argument is out of range or of the wrong kind.
        RuntimeError: while iterating, a file cannot be loaded; or the device asked for is missing.

    Example:
        >>> loader = image_loader("train", 64, train=True, policy=HideAndSeek())  # doctest: +SKIP
        >>> for batch in loader:  # doctest: +SKIP
        ...     loss = criterion(model(batch["image"]), batch["label"])
    """
    _check_flags(train=train, channels_last=channels_last, antialias=antialias)
    _check_options(train, policy, on_error, dtype, resize)
    size = at_least("size", size, 1, MAX_SIDE)
    plan = TrainPlan(seed, scale, ratio, mirror)  # checks its arguments, also where evaluation leaves them unused
    normalization(mean, std, fill_value, 3)  # checks all three before any work is done
    source = open_source(data, labels)
    sampler = Sampler(len(source), batch_size, train=train, seed=seed, rank=rank, world_size=world_size)
    spec = GraphSpec(
        plan=plan if train else EvalPlan(size, _short_side(size, resize)),
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
    workers = at_least("threads", available_cores() if threads is None else threads, 1)
    _LOG.info("image_loader: %d images on %s (%s), %d threads", len(source), chosen, reason, workers)
    stream = BatchStream(spec, source, sampler, workers, at_least("prefetch", prefetch, 1), chosen.index)
    return ImageLoader(stream, source, sampler, chosen)


def _short_side(size: int, resize: int | None) -> int:
    return round(size * 256 / 224) if resize is None else at_least("resize", resize, 1, 2 * MAX_SIDE)


def _check_flags(**flags: object) -> None:
    """Truth values only: ``train='val'`` would train."""
    for name, value in flags.items():
        if not isinstance(value, (bool, np.bool_)):
            raise TypeError(f"{name}={value!r}: expected True or False")


def _check_options(train: bool, policy: HideAndSeek | None, on_error: str, dtype: str, resize: int | None) -> None:
    if policy is not None and not isinstance(policy, HideAndSeek):
        raise TypeError(f"policy={policy!r}: expected a HideAndSeek or None, such as HideAndSeek.preset('imagenet')")
    if policy is not None and not train:
        raise ValueError("policy: evaluation hides nothing (train=False); leave policy out")
    if resize is not None and train:
        raise ValueError(f"resize={resize!r}: training crops at random (train=True); leave it out, or give scale=")
    if on_error != "raise":
        raise ValueError(f"on_error={on_error!r}: only 'raise' is supported")
    if dtype not in DTYPES:
        raise ValueError(f"dtype={dtype!r}: expected one of {', '.join(map(repr, DTYPES))}")
