"""The image loader: batches of torch tensors for training and evaluation, resumable at any batch."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy.typing as npt
import torch

from has_dali.kernels.contract import IMAGENET_MEAN, IMAGENET_STD, normalization, per_channel
from has_dali.kernels.threads import available_cores
from has_dali.pipelines import options
from has_dali.pipelines.arrays import DecodedSource
from has_dali.pipelines.data import Data, Opened, open_data
from has_dali.pipelines.device import choose_device
from has_dali.pipelines.image_batches import Batch, ImageLoader, Stream
from has_dali.pipelines.policy_schedule import Policy
from has_dali.pipelines.sampler import Sampler, at_least
from has_dali.pipelines.spec import MAX_SIDE, ImageSpec

__all__ = ["Batch", "ImageLoader", "Stream", "image_loader", "stream_for"]

_LOG = logging.getLogger(__name__)


def image_loader(
    data: Data,
    batch_size: int,
    *,
    train: bool,
    policy: Policy | None = None,
    size: int = 224,
    device: str | torch.device = "auto",
    threads: int | None = None,
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
    labels: npt.ArrayLike | None = None,
    on_error: str = "raise",
    error_budget: float = 0.01,
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
    classes: int | Sequence[str] | None = None,
    multi_view: int | None = None,
) -> ImageLoader:
    """Batches of normalised images with Hide-and-Seek, from files or from memory.

    Training: shuffled, random crop, mirror, Hide-and-Seek; an incomplete last batch is dropped.
    Evaluation: in order, centre crop or the whole image, nothing hidden, every image exactly once. All ranks have
    equally many batches, of equal sizes: a rank that lacks an image of the last one gets another image with the id and
    label -1, which metrics must ignore.
    What a sample looks like depends on (seed, epoch, id) only, never on batch size, threads, rank or world size; with
    class-balanced sampling also on the number of the draw.

    Args:
        data: a folder with one folder of images per class; a sequence of image files, or a list of them in a file;
            shards and records; a folder of CIFAR's python batches; ``.npz`` or ``.npy`` files; or a source:
            ``open_data`` has the table.
        batch_size: images per batch on this rank.
        train: training or evaluation, see above.
        policy: what to hide, in training only: a ``HideAndSeek``, or a ``PolicySchedule`` of them; None hides nothing.
        size: height and width of the images, at most 65535.
        device: "cpu", "cuda" or "gpu" (the current one), "cuda:N", or "auto": the GPU where there is one.
        threads: decoding threads, or, for images in memory, threads that share a batch; None: one per core that this
            process may use.
        seed: of order, crop and mirror (the policy has its own).
        rank: this process, from 0.
        world_size: number of processes; together they see each sample once. ``batch_size`` times this is the global
            batch, which must stay the same where a run goes on with another number of processes.
        labels: one integer per file, when ``data`` is a sequence; without them every label is -1.
        on_error: "raise": a file that cannot be loaded is an error that names it. "skip": the next sample id that can
            be loaded takes its place, named once in the log and counted in ``report()``; in evaluation such an image
            has the id and label -1. Files decoded by ``cache`` are all read here, where a broken one is an error.
        error_budget: used by "skip": the share of the data set that may be broken, from 0 to 1; above it the loader
            stops with the list.
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
        classes: the number of classes, or their names by label: labels are checked against it.
        multi_view: k independently hidden views of each sample, with the same crop and flip: images are
            (N, k, 3, size, size), view 0 that of a loader without it. Needs a policy.

    Raises:
        OSError: a folder or file is missing, unreadable, or holds no images.
        ValueError, TypeError: an argument is out of range or of the wrong kind, or a file to be cached is broken.
        MemoryError: the images to be cached need more memory than there is.
        RuntimeError: while iterating, a file cannot be loaded, or too many cannot; or the device asked for is missing.

    Example:
        >>> loader = image_loader("train", 64, train=True, policy=HideAndSeek())  # doctest: +SKIP
        >>> for batch in loader:  # doctest: +SKIP
        ...     loss = criterion(model(batch["image"]), batch["label"])
    """
    options.check_flags(train=train, channels_last=channels_last, antialias=antialias)
    options.check_choices(train, policy, dtype, sampling, steps)
    budget = options.checked_budget(on_error, error_budget)
    views = options.checked_views(multi_view, policy)
    size = at_least("size", size, 1, MAX_SIDE)
    plan = options.plan_for(
        train, crop, seed=seed, size=size, resize=resize, padding=padding, scale=scale, ratio=ratio, mirror=mirror
    )
    normalization(mean, std, fill_value, 3)  # checks all three before any work is done
    workers = at_least("threads", available_cores() if threads is None else threads, 1)
    source = open_data(data, train=train, labels=labels, cache=cache, threads=workers, classes=classes)
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
        views=views,
    )
    chosen, reason = choose_device(device)
    _LOG.info("image_loader: %d images on %s (%s), %d threads", len(source), chosen, reason, workers)
    ahead = at_least("prefetch", prefetch, 1)
    return ImageLoader(stream_for(spec, source, sampler, workers, ahead, chosen, budget), source, sampler, chosen)


def stream_for(
    spec: ImageSpec,
    source: Opened,
    sampler: Sampler,
    threads: int,
    prefetch: int,
    device: torch.device,
    error_budget: float | None = None,
) -> Stream:
    """What computes the batches of a source; ``error_budget``: see ``BatchStream``."""
    if isinstance(source, DecodedSource):
        from has_dali.pipelines.array_stream import ArrayStream

        return ArrayStream(spec, source, sampler, threads, prefetch, device)
    from has_dali.pipelines.stream import BatchStream  # needs DALI, which images in memory do without

    return BatchStream(spec, source, sampler, threads, prefetch, device.index, error_budget)
