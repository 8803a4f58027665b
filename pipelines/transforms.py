"""Hide-and-Seek as a transform for ``torchvision.transforms.v2``, for people who keep their own data set and loader."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from has_dali.functional import hide
from has_dali.pipelines.mask_files import VOID
from has_dali.pipelines.policy_schedule import Policy, policy_at
from has_dali.pipelines.shared_epoch import SharedEpoch
from has_dali.random_keys import RandomKeys


class RandomHideAndSeek(SharedEpoch, v2.Transform):
    """Hide cells of images: the last transform of a chain, behind ``v2.Normalize`` if there is one.

    Images are tensors (..., C, H, W), ``tv_tensors.Image`` among them; leading dimensions are a batch, each image of
    which is hidden by itself. All frames of a ``tv_tensors.Video`` (..., T, C, H, W) share one mask. As in all v2
    transforms, plain tensors beside an ``Image`` or ``Video`` pass unchanged, and where there is none the first tensor
    is the image. Bounding boxes, key points and everything else pass unchanged, masks too unless ``hide_masks``.
    Pictures of Pillow are refused: put ``v2.ToImage()`` before.

    Keys of the masks come from torch's default generator, so a DataLoader's seeding of its workers holds; ranks of a
    distributed job draw other masks even where all set one seed (see ``RandomKeys``). With ``id_key`` they come from
    the sample instead, and masks depend on (policy seed, epoch, id) only.

    Args:
        policy: what is hidden, or a schedule over epochs.
        fill: what hidden pixels become, one number or one per channel, in the images' own units: 0 behind
            ``Normalize``, the data set's mean before it.
        hide_masks: write ``ignore_index`` into hidden cells of ``tv_tensors.Mask`` (..., H, W) too, whose first
            dimensions are the images' batch.
        ignore_index: for masks.
        id_key: samples are dicts that hold an integer id, or one per image of a batch, under this key.

    Raises:
        TypeError, ValueError: an argument, or an input, is of the wrong kind; says which.

    Example:
        >>> from has_dali import HideAndSeek
        >>> transform = v2.Compose([
        ...     v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.25] * 3),
        ...     RandomHideAndSeek(HideAndSeek((16,), p_hide=1.0)),
        ... ])
        >>> image, label = transform((tv_tensors.Image(torch.full((3, 32, 32), 255, dtype=torch.uint8)), 7))
        >>> float(image.abs().max()), label
        (0.0, 7)
    """

    _transformed_types = (torch.Tensor,)

    def __init__(
        self,
        policy: Policy,
        *,
        fill: float | Sequence[float] = 0.0,
        hide_masks: bool = False,
        ignore_index: int = VOID,
        id_key: str | None = None,
    ) -> None:
        super().__init__()
        self._share(policy)
        self.fill, self.hide_masks, self.ignore_index = fill, hide_masks, ignore_index
        self.id_key = id_key
        self._ids: Any = None
        self._random_keys = RandomKeys()

    def forward(self, *inputs: Any) -> Any:
        """The same structure with hidden images."""
        if self.id_key is None:
            return super().forward(*inputs)
        if len(inputs) != 1 or not isinstance(inputs[0], Mapping) or self.id_key not in inputs[0]:
            raise TypeError(f"id_key={self.id_key!r}: expected a dict with this key, got {type(inputs[0]).__name__}")
        sample = dict(inputs[0])
        keyed = copy.copy(self)  # threads may share a transform
        keyed._ids = sample.pop(self.id_key)
        hidden = super(RandomHideAndSeek, keyed).forward(sample)
        return {name: hidden.get(name, value) for name, value in inputs[0].items()}

    def check_inputs(self, flat_inputs: list[Any]) -> None:
        """Refuse what cannot be hidden, and images of one sample that are not of one size."""
        if any(type(value).__module__.startswith("PIL.") for value in flat_inputs):
            raise TypeError("RandomHideAndSeek: got a Pillow picture; put v2.ToImage() before this transform")

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Keys (N,) of the N images of this call."""
        images = [value for value in flat_inputs if _is_dense(value) and not isinstance(value, tv_tensors.Mask)]
        if not images:
            return {}
        leading = _leading(images[0])
        sides = images[0].shape[-2:]
        for value in flat_inputs if self.hide_masks else images:
            if _is_dense(value) and (value.shape[: len(leading)] != leading or value.shape[-2:] != sides):
                raise ValueError(
                    f"RandomHideAndSeek: images and masks of a sample share one grid, got {tuple(images[0].shape)} and"
                    f" {tuple(value.shape)}; resize or crop them to one size first"
                )
        count = math.prod(leading)
        if self._ids is None:
            keys = self._random_keys(count)
        else:
            keys = torch.as_tensor(self._ids, dtype=torch.int64).reshape(-1)
            if len(keys) != count:
                raise ValueError(f"id_key={self.id_key!r}: expected {count} ids, one per image, got {len(keys)}")
        policy = policy_at(self.policy, self.epoch)
        return {"keys": keys, "epoch": self.epoch, "policy": policy, "leading": len(leading)}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """One image, video or mask; other tensors as they are."""
        is_mask = isinstance(inpt, tv_tensors.Mask)
        if not params or not _is_dense(inpt) or (is_mask and not self.hide_masks):
            return inpt
        # What is not the batch's is hidden alike: channels, frames, the masks of several objects.
        channels = math.prod(inpt.shape[params["leading"] : -2])
        batch = inpt.as_subclass(torch.Tensor).reshape(len(params["keys"]), channels, *inpt.shape[-2:])
        fill = self.ignore_index if is_mask else self._fill(inpt)
        hidden = hide(batch, params["policy"], params["keys"], params["epoch"], fill=fill).reshape(inpt.shape)
        return tv_tensors.wrap(hidden, like=inpt) if isinstance(inpt, tv_tensors.TVTensor) else hidden

    def _fill(self, inpt: torch.Tensor) -> Any:
        """One value per channel; the frames of a video are so many more channels."""
        if isinstance(self.fill, (int, float)) or not isinstance(inpt, tv_tensors.Video):
            return self.fill
        return [*self.fill] * inpt.shape[-4]

    def extra_repr(self) -> str:
        """What is hidden."""
        return f"{self.policy}, fill={self.fill!r}, hide_masks={self.hide_masks}"


def _is_dense(value: Any) -> bool:
    """Whether a tensor has pixels."""
    if isinstance(value, tv_tensors.TVTensor):
        return isinstance(value, (tv_tensors.Image, tv_tensors.Video, tv_tensors.Mask))
    return True


def _leading(value: torch.Tensor) -> tuple[int, ...]:
    """The dimensions of the batch of an image or video."""
    own = 4 if isinstance(value, tv_tensors.Video) else 3
    if value.ndim < own:
        raise ValueError(
            f"RandomHideAndSeek: {type(value).__name__}: expected at least {own} dimensions, got {tuple(value.shape)}"
        )
    return tuple(value.shape[:-own])
