"""Lists and mask files as the wsolevaluation benchmark has them, written by tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image


def write_mask(file: Path, marked: Sequence[Sequence[int]] | np.ndarray) -> None:
    """A black and white PNG of one bit per pixel, as Open Images has them."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(marked, np.uint8) * 255).convert("1").save(file)


def write_lists(folder: Path, labels: Mapping[str, int], lines: Sequence[str] | None = None) -> None:
    """image_ids.txt, class_labels.txt and, with ``lines``, localization.txt."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "image_ids.txt").write_text("".join(f"{name}\n" for name in labels))
    (folder / "class_labels.txt").write_text("".join(f"{name},{label}\n" for name, label in labels.items()))
    if lines is not None:
        (folder / "localization.txt").write_text("".join(f"{line}\n" for line in lines))
