"""Labels against the classes that a user says there are."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Protocol, TypeVar, cast

import numpy as np
import numpy.typing as npt


class Labelled(Protocol):
    """A source, as far as labels go."""

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """(N,) labels, -1 where there is none."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, by label, where known."""


LabelledT = TypeVar("LabelledT", bound=Labelled)


def with_checked_classes(source: LabelledT, classes: int | Sequence[str] | None) -> LabelledT:
    """``source`` if its labels are those of ``classes``; with the class names where these are given.

    Args:
        source: any source.
        classes: their number, or their names by label; None: nothing is checked.

    Raises:
        ValueError: a label is out of range (names the sample), or the source has other class names.
        TypeError: ``classes`` is neither a number nor names.
    """
    if classes is None:
        return source
    names = _names(classes)
    count = classes if isinstance(classes, int) else len(names)
    if count < 1:
        raise ValueError(f"classes={classes!r}: expected at least one class")
    if source.classes and len(source.classes) != count:
        raise ValueError(f"classes: the data names {len(source.classes)} classes, not {count}")
    if source.classes and names and tuple(source.classes) != names:
        one, other = next(pair for pair in zip(names, source.classes, strict=True) if pair[0] != pair[1])
        raise ValueError(f"classes: {one!r} is called {other!r} in the data; give the same names in the same order")
    outside = source.labels >= count
    if outside.any():
        sample = int(outside.argmax())
        raise ValueError(
            f"{_called(source, sample)}: label {source.labels[sample]}; expected 0 to {count - 1} (classes)"
        )
    if not names or source.classes:
        return source
    named: Any = copy.copy(source)
    named.classes = names
    return cast(LabelledT, named)


def _names(classes: int | Sequence[str]) -> tuple[str, ...]:
    if isinstance(classes, int) and not isinstance(classes, bool):
        return ()
    if isinstance(classes, (str, bool)) or not all(isinstance(name, str) for name in classes):
        raise TypeError(f"classes: expected a number or a list of names, got {classes!r}")
    return tuple(classes)


def _called(source: Any, sample: int) -> str:
    return source.name(sample) if hasattr(source, "name") else f"sample {sample}"
