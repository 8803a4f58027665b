"""The Hide-and-Seek policy: what is hidden how often, as a frozen value.

Knows nothing of arrays and devices; ``mask`` borrows the reference implementation when it is called.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

MAX_PATCH_SIZE = 2**31 - 1

# Hide-and-Seek, arXiv 1811.02545: the section that each entry is taken from. p_hide is 0.5 unless given.
# "Mixed" lists hold 0 (leave the image whole) as one more equally likely size; the classification
# presets show the whole image half of the time instead (p_apply).
_MIXED: dict[str, Any] = {"patch_sizes": (0, 16, 32, 44, 56)}
_PRESETS: dict[str, dict[str, Any]] = {
    "wsol-16": {"patch_sizes": (16,)},  # section 4.3.1
    "wsol-32": {"patch_sizes": (32,)},
    "wsol-44": {"patch_sizes": (44,)},
    "wsol-56": {"patch_sizes": (56,)},
    "wsol-mixed": _MIXED,
    "imagenet": {"patch_sizes": (16, 32, 44, 56), "p_apply": 0.5},  # section 4.6
    "cifar": {"patch_sizes": (8,), "p_apply": 0.5},  # section 4.6
    "dcsp": _MIXED,  # section 4.4
    "fcn-pretrain": _MIXED,  # section 4.7
    "ckplus": {"patch_sizes": (0, 12, 16, 32, 48)},  # section 4.8
    "face64": {"patch_sizes": (0, 8, 16, 32)},  # section 4.8
    "reid-market": {"patch_sizes": (64,), "p_hide": 0.33},  # section 4.9
    "reid-duke": {"patch_sizes": (64,)},  # section 4.9
    "thumos": {"patch_sizes": (100,)},  # section 4.2.3
    "conv1-5": {"patch_sizes": (5,)},  # section 4.3.4
    "conv1-11": {"patch_sizes": (11,)},  # section 4.3.4
}


@dataclass(frozen=True)
class HideAndSeek:
    """Which patches of a training image are hidden: a frozen, hashable value.

    An image is hidden with probability ``p_apply``; its patch size is one of ``patch_sizes`` with equal
    chance, and each cell of the grid is hidden on its own with probability ``p_hide`` (paper, section 3.1).

    Args:
        patch_sizes: patch edges in pixels, each >= 0; 0 means "leave the image whole". One int is accepted.
        p_hide: probability that a cell is hidden, in [0, 1].
        p_apply: probability that an image is augmented at all, in [0, 1].
        seed: 64-bit integer; with the epoch and the sample id it determines every mask.
        random_offset: shift the grid by a random offset per image; the paper anchors it at pixel (0, 0).

    Raises:
        ValueError: a value is out of range.
        TypeError: a value is of the wrong kind.
    """

    patch_sizes: tuple[int, ...] = (16, 32, 44, 56)
    p_hide: float = 0.5
    p_apply: float = 1.0
    seed: int = 0
    random_offset: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "patch_sizes", _checked_patch_sizes(self.patch_sizes))
        object.__setattr__(self, "p_hide", checked_probability("p_hide", self.p_hide))
        object.__setattr__(self, "p_apply", checked_probability("p_apply", self.p_apply))
        object.__setattr__(self, "seed", checked_seed(self.seed))
        if not isinstance(self.random_offset, bool):
            raise TypeError(f"random_offset={self.random_offset!r}: expected True or False")

    @classmethod
    def preset(cls, name: str, **changes: Any) -> HideAndSeek:
        """A policy of the paper by name, with ``changes`` applied; ``HideAndSeek.presets()`` lists the names."""
        if name not in _PRESETS:
            raise ValueError(f"preset {name!r} is unknown: choose one of {', '.join(_PRESETS)}")
        return cls(**{**_PRESETS[name], **changes})

    @staticmethod
    def presets() -> tuple[str, ...]:
        """Names that ``preset`` accepts."""
        return tuple(_PRESETS)

    def with_(self, **changes: Any) -> HideAndSeek:
        """A copy with some fields changed: ``policy.with_(p_hide=0.3)``."""
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-able dict; ``HideAndSeek.from_dict`` gives the same policy back."""
        return {**asdict(self), "patch_sizes": list(self.patch_sizes)}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> HideAndSeek:
        """Inverse of ``to_dict``; missing fields take their defaults, unknown ones are an error."""
        unknown = sorted(set(fields) - set(cls.__dataclass_fields__))
        if unknown:
            known = ", ".join(cls.__dataclass_fields__)
            raise ValueError(f"policy field {unknown[0]!r} is unknown: the fields are {known}")
        return cls(**fields)

    def mask(self, sample_ids: npt.ArrayLike, epoch: npt.ArrayLike, height: int, width: int) -> npt.NDArray[np.bool_]:
        """Masks of the given samples, (N, height, width) bool, True = hidden (reference implementation)."""
        from has_dali.kernels import reference

        return reference.mask(self, sample_ids, epoch, height, width)


def checked_probability(name: str, value: Any) -> float:
    """``value`` as a float in [0, 1], or an error that names the argument."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name}={value!r}: expected a probability, a number from 0 to 1") from None
    if not (math.isfinite(number) and 0.0 <= number <= 1.0):
        raise ValueError(f"{name}={value!r}: expected a probability, a number from 0 to 1")
    return number


def checked_seed(value: Any, name: str = "seed") -> int:
    """``value`` as an int that fits 64 bits, signed or unsigned, or an error that names the argument."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}={value!r}: expected a 64-bit integer") from None
    if not -(2**63) <= number < 2**64:
        raise ValueError(f"{name}={value!r}: expected a 64-bit integer, from -2**63 to 2**64 - 1")
    return number


def _checked_patch_sizes(value: Any) -> tuple[int, ...]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        try:
            value = (operator.index(value),)  # type: ignore[arg-type]
        except TypeError:
            raise TypeError(
                f"patch_sizes={value!r}: expected a sequence of whole pixels, such as (16, 32, 44, 56)"
            ) from None
    value = tuple(value)
    if not value:
        raise ValueError("patch_sizes is empty: give at least one size in pixels (0 leaves the image whole)")
    sizes = []
    for i, size in enumerate(value):
        try:
            number = operator.index(size)
        except TypeError:
            number = -1
        if not 0 <= number <= MAX_PATCH_SIZE:
            raise ValueError(
                f"patch_sizes[{i}]={size!r}: patch sizes are whole pixels from 0 to 2**31 - 1"
                ' (0 means "leave the image whole")'
            )
        sizes.append(number)
    return tuple(sizes)
