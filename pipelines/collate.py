"""Hide-and-Seek as a ``collate_fn``: a whole batch is hidden at once, in the worker that puts it together."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import default_collate

from has_dali.functional import hide
from has_dali.pipelines.policy_schedule import Policy, policy_at
from has_dali.pipelines.shared_epoch import SharedEpoch
from has_dali.random_keys import RandomKeys


class HideCollate(SharedEpoch):
    """Collate samples, then hide cells of the images.

    Without ``ids`` the keys of the masks come from torch's default generator: in a DataLoader's worker that is the
    worker's, seeded anew in each epoch, so masks differ between workers, epochs and runs, and ``torch.manual_seed``
    before a run repeats it for the same number of workers. Ranks of a distributed job draw other masks even where all
    set one seed: the rank of ``torch.distributed``, or of torchrun's RANK, counts. With ``ids`` masks depend on (policy
    seed, epoch, id) only, whatever batch or worker a sample is in; call ``set_epoch`` before each epoch then. Its value
    lies in shared memory, so it reaches workers that live on between epochs (``persistent_workers=True``).

    Args:
        policy: what is hidden, or a schedule over epochs.
        collate: puts samples together.
        fill: what hidden pixels become, one number or one per channel, in the images' own units.
        image: where a batch has its images: an index where it is a list, a key where it is a dict; None: 0, or
            "image".
        ids: where it has the samples' ids, likewise; None: nowhere.
        layout: of the images, "NCHW", "NHWC" or "NCT".

    Raises:
        TypeError, ValueError: the policy is none, or, when called, a batch has no images or ids there.

    Example:
        >>> from has_dali import HideAndSeek
        >>> samples = [(torch.ones(3, 32, 32), label) for label in range(8)]
        >>> collate = HideCollate(HideAndSeek((16,), p_hide=1.0))
        >>> loader = torch.utils.data.DataLoader(samples, batch_size=4, collate_fn=collate)
        >>> [(tuple(images.shape), float(images.max()), labels.tolist()) for images, labels in loader]
        [((4, 3, 32, 32), 0.0, [0, 1, 2, 3]), ((4, 3, 32, 32), 0.0, [4, 5, 6, 7])]
    """

    def __init__(
        self,
        policy: Policy,
        collate: Callable[[list[Any]], Any] = default_collate,
        *,
        fill: float | Sequence[float] = 0.0,
        image: int | str | None = None,
        ids: int | str | None = None,
        layout: str = "NCHW",
    ) -> None:
        self._share(policy)
        self.collate, self.fill, self.layout = collate, fill, layout
        self.image, self.ids = image, ids
        self._random_keys = RandomKeys()

    def __call__(self, samples: list[Any]) -> Any:
        """The batch, with hidden images."""
        batch = self.collate(samples)
        if isinstance(batch, torch.Tensor):
            if self.ids is not None:
                raise ValueError(f"HideCollate: ids={self.ids!r}: the batch is a tensor alone and has no ids")
            return self._hidden(batch, None)
        place = ("image" if isinstance(batch, Mapping) else 0) if self.image is None else self.image
        images = _entry(batch, place, "image")
        ids = None if self.ids is None else _entry(batch, self.ids, "ids")
        return _replaced(batch, place, self._hidden(images, ids))

    def _hidden(self, images: Any, ids: Any) -> torch.Tensor:
        if not isinstance(images, torch.Tensor):
            raise TypeError(f"HideCollate: expected a tensor of images, got {type(images).__name__}; set image=")
        keys = self._random_keys(len(images)) if ids is None else torch.as_tensor(ids)
        policy = policy_at(self.policy, self.epoch)
        assert policy is not None
        # What default_collate made is this batch's alone; another function may hand out a data set's own memory.
        out = images if self.collate is default_collate and not images.requires_grad else None
        return hide(images, policy, keys, self.epoch, fill=self.fill, layout=self.layout, out=out)


def _entry(batch: Any, place: int | str, name: str) -> Any:
    try:
        return batch[place]
    except (KeyError, IndexError, TypeError):
        has = f"keys {', '.join(map(str, batch))}" if isinstance(batch, Mapping) else f"a {type(batch).__name__}"
        raise ValueError(f"HideCollate: {name}={place!r}: the batch has no such entry, it is {has}") from None


def _replaced(batch: Any, place: Any, images: torch.Tensor) -> Any:
    """The batch with other images; its kind stays."""
    if batch[place] is images:
        return batch
    if isinstance(batch, Mapping):
        changed: Any = copy.copy(batch)
        changed[place] = images
        return changed
    entries = [images if entry is batch[place] else entry for entry in batch]
    if hasattr(batch, "_fields"):  # a named tuple
        return type(batch)(*entries)
    return type(batch)(entries)
