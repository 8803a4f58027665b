"""Images with label masks, for segmentation: one crop, one flip and one grid for both, resumable at any batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from has_dali.kernels.contract import IMAGENET_MEAN, IMAGENET_STD
from has_dali.kernels.threads import available_cores
from has_dali.pipelines import mask_files, options
from has_dali.pipelines.arrays import DecodedSource
from has_dali.pipelines.image_batches import Batch, ImageLoader
from has_dali.pipelines.loader import image_loader, stream_for
from has_dali.pipelines.mask_stream import MaskReader, MaskSpec, MaskStream
from has_dali.pipelines.paired_files import paired_files
from has_dali.pipelines.plan import WarpPlan
from has_dali.pipelines.policy_schedule import Policy
from has_dali.pipelines.scale_plan import ScalePlan
from has_dali.pipelines.sources import FileSource, PathLike

TRAIN_CROPS = ("random-resized", "short-side", "scale", "scale-pad", "pad")
EVAL_CROPS = ("whole", "center", "warp")
_BORDERED = ("scale-pad", "pad")  # boxes that reach beyond the image


class PairedLoader:
    """Iterable over the batches of one epoch; iterating again gives the next epoch. Made by ``paired_loader``.

    A batch is a dict: ``image`` (N, 3, h, w), ``mask`` (N, h, w) int64, ``id`` (N,) int64. Epochs, early exits and
    states are those of the ``ImageLoader`` that makes the images, which is ``images``.

    Args:
        images: gives the images.
        masks: gives the masks of the same batches.
        described: what tells these masks from others, for the state.
        replaces: broken images are replaced by other samples.
    """

    def __init__(
        self, images: ImageLoader, masks: MaskStream, described: Mapping[str, Any], replaces: bool = False
    ) -> None:
        self.images = images
        self._masks, self._described, self._replaces = masks, dict(described), replaces

    def __len__(self) -> int:
        """Batches per epoch on this rank."""
        return len(self.images)

    def __repr__(self) -> str:
        """The images, and what is done to the masks."""
        return f"PairedLoader({self.images!r}, masks={self._described})"

    @property
    def source(self) -> Any:
        """The images, by sample id."""
        return self.images.source

    @property
    def epoch(self) -> int:
        """The epoch under way or left early; after a complete loop, the next one."""
        return self.images.epoch

    @property
    def next_epoch(self) -> int:
        """The epoch that a new loop takes."""
        return self.images.next_epoch

    def set_epoch(self, epoch: int) -> None:
        """See ``ImageLoader.set_epoch``."""
        self.images.set_epoch(epoch)

    def report(self) -> Any:
        """See ``ImageLoader.report``."""
        return self.images.report()

    def state_dict(self) -> dict[str, Any]:
        """The images' state, see ``ImageLoader.state_dict``, and what the masks are."""
        return {**self.images.state_dict(), "masks": dict(self._described)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue at a position that ``state_dict`` gave, see ``ImageLoader.load_state_dict``.

        Raises:
            ValueError: the state is of another kind, or of other images, masks or settings.
        """
        rest = dict(state)
        saved = rest.pop("masks", None)
        if not isinstance(saved, Mapping):
            raise ValueError("state: has no 'masks'; it is not a paired loader's")
        for name, value in self._described.items():
            if saved.get(name) != value:
                raise ValueError(f"state: masks: {name} is {saved.get(name)!r}, this loader's is {value!r}")
        self.images.load_state_dict(rest)

    def __iter__(self) -> Iterator[Batch]:
        """The batches of the next epoch, or the rest of the epoch that ``load_state_dict`` pointed into."""
        loop = iter(self.images)
        epoch, samples = self.images.position()
        return self._batches(loop, epoch, samples // self.images.sample_order.global_batch)

    def _batches(self, loop: Iterator[Batch], epoch: int, index: int) -> Iterator[Batch]:
        order, device = self.images.sample_order, self.images.device
        while True:
            if index < len(self):
                self._masks.work_ahead((epoch, index))  # before waiting for the images, not after
            batch = next(loop, None)
            if batch is None:
                return
            # The sampler knows the ids without asking a device for them.
            ids = batch["id"].cpu().numpy() if self._replaces else order.ids(epoch, index)
            try:
                masks = self._masks.batch((epoch, index), ids, tuple(batch["image"].shape[-2:]))
            except BaseException as error:
                self.images.move_to(epoch, index * order.global_batch)  # this batch was not handed out
                if isinstance(error, ValueError):
                    raise RuntimeError(f"cannot load a mask: {error}") from error
                raise
            index += 1
            images, sample_ids = batch["image"], batch["id"]
            del batch
            yield {
                "image": images,
                "mask": masks if device.type == "cpu" else masks.to(device, non_blocking=True),
                "id": sample_ids,
            }
            del images, masks, sample_ids  # else they would live on until the next batch is there


def paired_loader(
    data: PathLike | Sequence[PathLike],
    batch_size: int,
    *,
    train: bool,
    masks: PathLike | Sequence[PathLike] | None = None,
    split: str | None = None,
    policy: Policy | None = None,
    size: int = 224,
    hide_masks: bool = False,
    ignore_index: int = mask_files.VOID,
    device: str | torch.device = "auto",
    threads: int | None = None,
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
    on_error: str = "raise",
    error_budget: float = 0.01,
    crop: str | None = None,
    resize: int | None = None,
    padding: int = 4,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    scales: tuple[float, float] = (0.5, 2.0),
    mirror: float = 0.5,
    mean: float | Sequence[float] = IMAGENET_MEAN,
    std: float | Sequence[float] = IMAGENET_STD,
    fill_value: float | Sequence[float] | None = None,
    dtype: str = "float32",
    channels_last: bool = False,
    antialias: bool = True,
    prefetch: int = 2,
    cache: str | None = None,
) -> PairedLoader:
    """Batches of normalised images with Hide-and-Seek and their label masks, cut and flipped alike.

    Images are made as by ``image_loader``. A mask's pixel is the source pixel in which the centre of the output pixel
    lies (nearest sampling with half-pixel centres, over the box that the image shows); no class is ever mixed.
    Masks are int64, as ``torch.nn.functional.cross_entropy`` takes them: palette indices or gray values as the file
    has them, 255 (void) included; 8 bytes a pixel. They are read whole, by Pillow, and used as they are stored: an
    image that EXIF data turn needs a mask that lies as the turned image does.

    Args:
        data: a folder in Pascal VOC's layout (``JPEGImages``, ``SegmentationClass``, ``ImageSets/Segmentation``); or,
            with ``masks``, a folder of images or a list of them.
        batch_size: images per batch on this rank.
        train: shuffled and cropped at random, or in order.
        masks: the folder of masks, matched to images by name without extension; or a list, in the images' order; with
            ``split``, a folder to take instead of ``SegmentationClass``.
        split: which list of a VOC folder, such as "train".
        policy: what to hide, in training only; None hides nothing.
        size: height and width of a batch, apart from whole images.
        hide_masks: write ``ignore_index`` into the hidden cells of masks too; by default masks stay whole.
        ignore_index: what masks show where a crop reaches beyond the image, and in hidden cells.
        device: see ``image_loader``, as all arguments that are not here.
        on_error: what a broken image does; a broken mask is always an error that names it. Where an evaluation skips an
            image, or fills up a batch, the id is -1 and the mask ``ignore_index``.
        crop: training: "random-resized" (the default) and "short-side", see ``image_loader``; "scale": the image
            scaled by a random factor within ``scales``, then ``size`` x ``size`` anywhere, the factor never so small
            that the crop would leave the image; "scale-pad": the same without that limit: what lies outside is black
            in images and ``ignore_index`` in masks; "pad": see ``image_loader``. The last two need cache="decoded".
            Evaluation: "whole" (the default): images at their own size, batch_size 1; "center" and "warp", see
            ``image_loader``.
        scales: used by "scale" and "scale-pad": smallest and largest factor.
        cache: "decoded": decode all images once into memory; masks stay in their files.

    Raises:
        OSError: a folder or file is missing.
        ValueError, TypeError: an argument is out of range, or images and masks cannot be paired.
        RuntimeError: while iterating, a file cannot be loaded, or an image and its mask differ in size.

    Example:
        >>> loader = paired_loader("VOC2012", 16, split="train", train=True, size=321, crop="scale")  # doctest: +SKIP
        >>> for batch in loader:  # doctest: +SKIP
        ...     loss = cross_entropy(model(batch["image"]), batch["mask"], ignore_index=255)
    """
    options.check_flags(train=train, hide_masks=hide_masks)
    if hide_masks and policy is None:
        raise ValueError("hide_masks=True: nothing is hidden without a policy; give one, or leave hide_masks out")
    chosen = _chosen_crop(train, crop, batch_size, cache)
    scaled = ScalePlan(seed, size, scales, mirror, chosen == "scale-pad")
    images, targets = paired_files(data, masks, split)
    common: dict[str, Any] = {
        "train": train, "policy": policy, "size": size, "device": device, "threads": threads, "seed": seed,
        "rank": rank, "world_size": world_size, "on_error": on_error, "error_budget": error_budget,
        "resize": resize, "padding": padding, "scale": scale, "ratio": ratio, "mirror": mirror, "mean": mean,
        "std": std, "fill_value": fill_value, "dtype": dtype, "channels_last": channels_last,
        "antialias": antialias, "prefetch": prefetch, "cache": cache,
    }  # fmt: skip
    replaced = {"whole": "warp", "scale": None, "scale-pad": None}  # what the arguments are checked as
    loader = image_loader(FileSource(images), batch_size, crop=replaced.get(chosen, chosen), **common)
    workers = available_cores() if threads is None else threads
    if chosen in replaced:
        budget = options.checked_budget(on_error, error_budget)
        loader = _with_plan(loader, scaled, chosen == "whole", workers, prefetch, budget)
    void = int(ignore_index)
    spec = MaskSpec(None if chosen == "whole" else loader.spec.plan, size, policy if hide_masks else None, void)
    reader = MaskReader(spec, images.__getitem__, targets, _sides(loader.source, images))
    mask_stream = MaskStream(reader, loader.sample_order, workers, prefetch, pinned=loader.device.type == "cuda")
    described = {
        "files": FileSource(targets).fingerprint(), "hide_masks": hide_masks, "ignore_index": void,
        "whole": chosen == "whole",
    }  # fmt: skip
    return PairedLoader(loader, mask_stream, described, replaces=on_error != "raise")


def _chosen_crop(train: bool, crop: str | None, batch_size: int, cache: str | None) -> str:
    crops = TRAIN_CROPS if train else EVAL_CROPS
    chosen = crops[0] if crop is None else crop
    if chosen not in crops:
        kind = "training" if train else "evaluation"
        raise ValueError(f"crop={crop!r}: {kind} takes one of {', '.join(map(repr, crops))}")
    if chosen == "whole" and batch_size != 1:
        raise ValueError(
            f"batch_size={batch_size}: whole images differ in size, so expected 1; or use crop='warp' or 'center'"
        )
    if chosen == "whole" and cache is not None:
        raise ValueError(f"cache={cache!r}: whole images come from their files; leave cache out")
    if chosen in _BORDERED and cache is None:
        raise ValueError(
            f"crop={chosen!r}: files are cropped while they are decoded, without a border; add cache='decoded', or"
            " use crop='scale', which stays inside the image"
        )
    return chosen


def _with_plan(
    loader: ImageLoader, plan: ScalePlan, whole: bool, threads: int, prefetch: int, budget: float | None
) -> ImageLoader:
    """The same loader with a plan that ``image_loader`` does not offer, or of whole images."""
    chosen: Any = WarpPlan() if whole else plan
    spec = dataclasses.replace(loader.spec, plan=chosen)
    source, order, device = loader.source, loader.sample_order, loader.device
    if whole:
        from has_dali.pipelines.whole_stream import WholeStream

        stream: Any = WholeStream(spec, source, order, threads, prefetch, device.index, budget)
    else:
        stream = stream_for(spec, source, order, threads, prefetch, device, budget)
    return ImageLoader(stream, source, order, device)


def _sides(source: Any, images: Sequence[str]) -> Any:
    """Height and width by sample id: of decoded images, or from the headers of files."""
    if isinstance(source, DecodedSource):
        shapes = source.shapes
        return lambda sample_id: tuple(shapes[sample_id].tolist())
    return lambda sample_id: mask_files.image_sides(images[sample_id])
