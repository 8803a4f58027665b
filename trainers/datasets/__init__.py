"""Data sets as the trainers see them: labelled images, and boxes or masks where the task needs them."""

from has_dali.trainers.datasets.boxed import open_boxed
from has_dali.trainers.datasets.boxes import Boxes
from has_dali.trainers.datasets.ilsvrc import blacklisted_ids
from has_dali.trainers.datasets.images import BoxedImages, LabeledImages, MaskedImages, Source
from has_dali.trainers.datasets.labeled import open_labeled
from has_dali.trainers.datasets.masks import Masks
from has_dali.trainers.datasets.split import held_out, held_out_ids

__all__ = [
    "BoxedImages",
    "Boxes",
    "LabeledImages",
    "MaskedImages",
    "Masks",
    "Source",
    "blacklisted_ids",
    "held_out",
    "held_out_ids",
    "open_boxed",
    "open_labeled",
]
