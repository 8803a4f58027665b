"""Every knob of a training run, as plain dataclasses: what a recipe may set and the command line may change.

A field is one option: ``loader.batch_size`` in a recipe is ``--loader.batch_size`` on the command line. The trainer
group is pytorch-lightning's own Trainer and is not repeated here.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal

from has_dali.kernels.contract import IMAGENET_MEAN, IMAGENET_STD
from has_dali.kernels.policy import HideAndSeek


@dataclass
class ModelSettings:
    """The network and how it runs.

    Args:
        name: a name that ``has-dali recipes --models`` lists, a torchvision model, or ``timm/<name>``.
        block: CIFAR ResNets: "bottleneck_re" (what the paper most likely trained) or "basic" (He et al.).
        pool: localisation: "gap" or "gmp" (paper, Table IV).
        norm: AlexNet-GAP: "lrn", "bn" or "none"; None: the network's own.
        dropout: before the last layer; None: the network's own.
        width: multiplier of the channels of "smallnet".
        channels_last: run in torch's channels_last memory format.
        compile: run through ``torch.compile``.
    """

    name: str = "resnet50"
    block: Literal["bottleneck_re", "basic"] = "bottleneck_re"
    pool: Literal["gap", "gmp"] = "gap"
    norm: Literal["lrn", "bn", "none"] | None = None
    dropout: float | None = None
    width: float = 1.0
    channels_last: bool = True
    compile: bool = False


@dataclass
class LoaderSettings:
    """The training and evaluation batches; see ``has_dali.pipelines.image_loader``.

    Args:
        batch_size: images per optimiser step, over all processes and accumulation steps.
        eval_batch_size: images per evaluation batch of one process; None: what one training batch has.
        size: side of the training images in pixels.
        sizes: progressive resolution: [[first epoch, side], ...], overrides ``size``.
        eval_size: side of the evaluation images; None: ``size``.
        eval_resize: short side before the centre crop of evaluation; None: ``eval_size`` * 256 / 224.
        crop: "random-resized", "short-side" (needs ``resize``) or "pad".
        resize: short side of crop="short-side".
        padding: pixels of black around the image for crop="pad".
        scale: smallest and largest area of crop="random-resized".
        ratio: smallest and largest aspect ratio of crop="random-resized".
        mirror: probability of a horizontal flip.
        sampling: "shuffle", or "class-balanced": a class at random, then an image of it, with replacement.
        steps: optimiser steps per epoch of sampling="class-balanced".
        mean: per channel, 0..255.
        std: per channel, 0..255.
        cache: "decoded" keeps decoded images in memory.
        held_out: every n-th training image of a class is kept out of training, for choices that must not be made on
            the validation set; 0: none.
        metadata: localisation: folder with the wsolevaluation text files.
        device: "auto", "cpu", "cuda"; None: where the model is.
        dtype: "float32" or "float16".
        threads: decoding threads; None: one per core.
        prefetch: batches computed ahead.
        on_error: "raise": a file that cannot be loaded ends the run. "skip": training takes the next image instead,
            evaluation leaves it out; ``report.json`` lists them. What ``cache`` decodes must be whole.
        error_budget: used by "skip": share of a data set that may be broken, for each process; above it the run ends.
    """

    batch_size: int = 256
    eval_batch_size: int | None = None
    size: int = 224
    sizes: list[list[int]] = field(default_factory=list)
    eval_size: int | None = None
    eval_resize: int | None = None
    crop: Literal["random-resized", "short-side", "pad"] = "random-resized"
    resize: int | None = None
    padding: int = 4
    scale: list[float] = field(default_factory=lambda: [0.08, 1.0])
    ratio: list[float] = field(default_factory=lambda: [3 / 4, 4 / 3])
    mirror: float = 0.5
    sampling: Literal["shuffle", "class-balanced"] = "shuffle"
    steps: int | None = None
    mean: list[float] = field(default_factory=lambda: list(IMAGENET_MEAN))
    std: list[float] = field(default_factory=lambda: list(IMAGENET_STD))
    cache: Literal["decoded"] | None = None
    held_out: int = 0
    metadata: str | None = None
    device: str | None = None
    dtype: Literal["float32", "float16"] = "float32"
    threads: int | None = None
    prefetch: int = 2
    on_error: Literal["raise", "skip"] = "raise"
    error_budget: float = 0.01


@dataclass
class HideSettings:
    """What is hidden from the network in training, and the methods that the paper compares with.

    Args:
        method: "none"; "has": Hide-and-Seek on the image; "conv1": on the first convolution's maps (section 4.3.4);
            "pixel-dropout": Table III; "random-erasing": the peer of section 4.6.
        preset: a policy of the paper, changed by the fields below; None: the fields alone.
        patch_sizes: patch edges in pixels (of the map for "conv1"); 0 leaves an image whole.
        p_hide: probability that a cell (a pixel) is hidden; of an erased rectangle for "random-erasing".
        p_apply: probability that an image is hidden at all.
        random_offset: shift the grid at random.
        fill: "conv1": 0 or "running_mean". On the image hidden pixels always show the mean, or ``image_fill``.
        image_fill: "has": colour of hidden pixels, 0..255 per channel, instead of the mean (tasks: black or white).
        at: "pixel-dropout": "train", or "traintest": while testing too.
        rescale: "pixel-dropout": divide what stays by 1 - p_hide.
        per_channel: "pixel-dropout": a coin per value instead of one per pixel.
        area: "random-erasing": smallest and largest share of the area.
        aspect: "random-erasing": smallest aspect ratio; the largest is its inverse.
        erase_fill: "random-erasing": "mean" (0 after normalisation), or "legacy": what the authors' code writes, the
            ImageNet means of the 0..1 scale into normalised pixels.
    """

    method: Literal["none", "has", "conv1", "pixel-dropout", "random-erasing"] = "has"
    preset: str | None = None
    patch_sizes: list[int] | None = None
    p_hide: float | None = None
    p_apply: float | None = None
    random_offset: bool = False
    fill: float | Literal["running_mean"] = 0.0
    image_fill: list[float] | None = None
    at: Literal["train", "traintest"] = "train"
    rescale: bool = True
    per_channel: bool = False
    area: list[float] = field(default_factory=lambda: [0.02, 0.4])
    aspect: float = 0.3
    erase_fill: Literal["mean", "legacy"] = "mean"

    def __post_init__(self) -> None:
        low, high = (*self.area, 0.0, 0.0)[:2]
        if len(self.area) != 2 or not 0 < low <= high <= 1:
            raise ValueError(f"hide.area={self.area}: expected two shares of the area, smallest and largest, in (0, 1]")
        if not 0 < self.aspect <= 1:
            raise ValueError(f"hide.aspect={self.aspect}: expected the smallest aspect ratio, above 0, at most 1")

    def policy(self, seed: int) -> HideAndSeek | None:
        """The policy that the fields describe; None for methods that hide no cells.

        Raises:
            ValueError: a field is out of range, or the preset is unknown.
        """
        if self.method in ("none", "random-erasing"):
            return None
        names = ("patch_sizes", "p_hide", "p_apply")
        changes = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        changes |= {"seed": seed, "random_offset": self.random_offset}
        if self.method == "pixel-dropout":
            return HideAndSeek(**{**changes, "patch_sizes": (1,)})
        if self.preset is not None:
            return HideAndSeek.preset(self.preset, **changes)
        if self.patch_sizes is None:
            raise ValueError(f"hide.method={self.method}: give hide.preset or hide.patch_sizes")
        return HideAndSeek(**changes)


@dataclass
class OptimSettings:
    """Loss, optimiser and schedule. Learning rate and decay are functions of the epoch: a resumed run needs no state.

    Args:
        optimizer: "sgd" or "adamw".
        lr: peak learning rate of the schedules "cosine", "linear" and "constant".
        weight_decay: L2 of the same schedules.
        schedule: "phases", "cosine" (to 0), "linear" (to 0) or "constant".
        phases: [[first epoch, learning rate, weight decay], ...] of the schedule "phases".
        warmup_epochs: linear rise of the learning rate from 0.
        momentum: of SGD.
        nesterov: of SGD.
        decay_norm_and_bias: let weight decay act on biases and normalisation layers too.
        label_smoothing: of the cross entropy.
        ema: decay of an exponential moving average of the weights, used for evaluation; 0: off.
    """

    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.1
    weight_decay: float = 1e-4
    schedule: Literal["phases", "cosine", "linear", "constant"] = "cosine"
    phases: list[list[float]] = field(default_factory=list)
    warmup_epochs: float = 0.0
    momentum: float = 0.9
    nesterov: bool = False
    decay_norm_and_bias: bool = True
    label_smoothing: float = 0.0
    ema: float = 0.0


@dataclass
class CamSettings:
    """How a class activation map becomes a box (paper, section 4.2.1), and which metrics are computed.

    Args:
        crops: "ten" (the paper), or "one": the warped image itself.
        merge: how ten maps become one: "sum_abs" (released code) or "mean_by_coverage" (the paper's text).
        threshold: share of the map's maximum that counts as foreground; "held-out": chosen on the boxes of the
            held-out training images.
        box: "component": around the largest connected component; "cam_dt": as the released box tool.
        wsol: also compute MaxBoxAcc, MaxBoxAccV2 on one crop.
        wsol_step: step of their thresholds and of PxAP's. Images with masks have PxAP alone, and no other setting of
            this group matters there.
        blacklist: the ILSVRC kit's list of images to leave out; metrics are given with and without them.
    """

    crops: Literal["ten", "one"] = "ten"
    merge: Literal["sum_abs", "mean_by_coverage"] = "sum_abs"
    threshold: float | Literal["held-out"] = 0.2
    box: Literal["component", "cam_dt"] = "component"
    wsol: bool = True
    wsol_step: float = 0.001
    blacklist: str | None = None


@dataclass
class PaperRow:
    """Which row of the paper's tables a run stands for, for ``has-dali compare``.

    Args:
        table: "II", "VIII", ...
        method: the row's name; of a recipe's row, while its network and what it hides are those of the recipe.
        baseline: the row that a run of the recipe stands for when it hides nothing.
        metric: name of the main metric there, such as "resnet44_acc".
    """

    table: str | None = None
    method: str | None = None
    baseline: str | None = None
    metric: str | None = None


@dataclass
class ClassificationSettings:
    """All groups of the task classification."""

    model: ModelSettings = field(default_factory=ModelSettings)
    loader: LoaderSettings = field(default_factory=LoaderSettings)
    hide: HideSettings = field(default_factory=HideSettings)
    optim: OptimSettings = field(default_factory=OptimSettings)
    paper: PaperRow = field(default_factory=PaperRow)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-able dict of all groups."""
        return asdict(self)


@dataclass
class LocalisationSettings(ClassificationSettings):
    """All groups of the task localisation."""

    cam: CamSettings = field(default_factory=CamSettings)


Settings = ClassificationSettings


def config_hash(settings: dict[str, Any]) -> str:
    """Twelve hex digits that differ when any setting differs."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]


def differences(ours: dict[str, Any], theirs: dict[str, Any], prefix: str = "") -> list[str]:
    """Settings that differ, as ``name: ours, theirs``."""
    found = []
    for key in sorted(set(ours) | set(theirs)):
        a, b = ours.get(key), theirs.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            found.append(f"{prefix}{key}: {a!r}, {b!r}")
    return found


def from_dict(kind: type[Settings], values: dict[str, Any]) -> Settings:
    """Settings from ``to_dict``'s result, as a checkpoint holds them; what it lacks keeps its default."""
    ready = kind()
    for group in fields(kind):
        defaults = getattr(ready, group.name)
        known = {name: value for name, value in values.get(group.name, {}).items() if hasattr(defaults, name)}
        setattr(ready, group.name, replace(defaults, **known))
    return ready
