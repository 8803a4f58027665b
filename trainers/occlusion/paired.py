"""Robustness to occlusion (paper, section 4.6, Fig. 7): models on covered images, and who is right more often.

The paper's 200 images are not released. So there are two protocols: a list of images that the user has, and a synthetic
one that covers 30, 50 or 70 % of the object's box. What covers an image is a pure function of (seed, sample id), so it
is the same for every model, batch size and order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from has_dali.trainers.metrics.paired import Interval, bootstrap_interval, mcnemar_exact
from has_dali.trainers.occlusion.covers import COVERS, LEVELS, check_cover, cover_batch, cover_masks, texture
from has_dali.trainers.occlusion.images import choose_images, read_image_list

__all__ = [
    "COVERS",
    "LEVELS",
    "Outcomes",
    "PairedRow",
    "choose_images",
    "cover_batch",
    "cover_masks",
    "evaluate",
    "paired_rows",
    "read_image_list",
    "tables",
    "texture",
]

UNCOVERED = "none"

Condition = tuple[str, float]
Model = Callable[[torch.Tensor], torch.Tensor]
CONDITIONS: tuple[Condition, ...] = tuple((kind, share) for kind in COVERS for share in LEVELS)


@dataclass(frozen=True)
class Outcomes:
    """What every model answered.

    Args:
        ids: (N,) int64 sample ids.
        labels: (N,) int64.
        predicted: per condition (what covers, level; ``(UNCOVERED, 0.0)`` for whole images) and model: (N,) int64.
        covered: per condition: (N,) share of the box that is really covered; NaN where the batch shows no box.
    """

    ids: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    predicted: Mapping[Condition, Mapping[str, npt.NDArray[np.int64]]]
    covered: Mapping[Condition, npt.NDArray[np.float64]]


@dataclass(frozen=True)
class PairedRow:
    """Two models on the same images: accuracies and their difference (second minus first) in percent."""

    cover: str
    level: float
    covered: float
    images: int
    first: str
    second: str
    first_top1: float
    second_top1: float
    difference: float
    interval: Interval
    only_first: int
    only_second: int
    p_value: float


def evaluate(
    models: Mapping[str, Model],
    batches: Iterable[tuple[torch.Tensor, npt.ArrayLike, npt.ArrayLike, npt.ArrayLike]],
    *,
    conditions: Sequence[Condition] = CONDITIONS,
    **options: Any,
) -> Outcomes:
    """Run all models on the same images, whole and under each condition.

    Args:
        models: by name; each maps (N, 3, H, W) to logits (N, classes). They are called without gradients.
        batches: images, boxes (N, 4), labels (N,) and sample ids (N,) each.
        conditions: pairs of what covers and level; none: whole images only, as for a list of occluded images.
        options: of ``cover_batch``: seed, patch_size, mean, std.

    Raises:
        ValueError: there are no batches, or a condition is unknown.
    """
    for cover, _ in conditions:
        check_cover(cover)
    every = ((UNCOVERED, 0.0), *conditions)
    ids, labels = [], []
    predicted: dict[Condition, dict[str, list[npt.NDArray]]] = {c: {name: [] for name in models} for c in every}
    covered: dict[Condition, list[npt.NDArray]] = {c: [] for c in every}
    with torch.no_grad():
        for images, boxes, batch_labels, batch_ids in batches:
            ids.append(np.asarray(batch_ids, np.int64))
            labels.append(np.asarray(batch_labels, np.int64))
            for condition in every:
                cover, level = condition
                shown, shares = images, np.zeros(len(ids[-1]))
                if cover != UNCOVERED:
                    shown, shares = cover_batch(images, boxes, ids[-1], level=level, cover=cover, **options)
                covered[condition].append(shares)
                for name, model in models.items():
                    predicted[condition][name].append(model(shown).argmax(1).cpu().numpy())
    if not ids:
        raise ValueError("batches: expected at least one, got none")
    return Outcomes(
        np.concatenate(ids),
        np.concatenate(labels),
        {c: {name: np.concatenate(parts) for name, parts in models_.items()} for c, models_ in predicted.items()},
        {c: np.concatenate(parts) for c, parts in covered.items()},
    )


def paired_rows(outcomes: Outcomes, seed: int = 0) -> list[PairedRow]:
    """Every model but the first against the first, under each condition. Images that show nothing of their box do not
    count where something is to be covered.

    Args:
        outcomes: from ``evaluate``, of at least two models.
        seed: of the bootstrap.

    Raises:
        ValueError: there are fewer than two models.
    """
    rows = []
    for (cover, level), answers in outcomes.predicted.items():
        first, *others = answers
        if not others:
            raise ValueError(f"models: expected at least two to compare, got {first} alone")
        shares = outcomes.covered[cover, level]
        shown = np.isfinite(shares)
        if not shown.any():
            raise ValueError(f"boxes: none lies inside its image, so {cover} covers nothing; are they in batch pixels?")
        right = {name: (answer == outcomes.labels)[shown] for name, answer in answers.items()}
        for second in others:
            a, b = right[first], right[second]
            low, high = bootstrap_interval(a, b, seed=seed)
            only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
            rows.append(
                PairedRow(
                    cover=cover,
                    level=level,
                    covered=100 * float(shares[shown].mean()),
                    images=len(a),
                    first=first,
                    second=second,
                    first_top1=100 * float(a.mean()),
                    second_top1=100 * float(b.mean()),
                    difference=100 * (float(b.mean()) - float(a.mean())),
                    interval=Interval(100 * low, 100 * high),
                    only_first=only_a,
                    only_second=only_b,
                    p_value=mcnemar_exact(only_a, only_b),
                )
            )
    return rows


def tables(rows: Sequence[PairedRow]) -> list[tuple[str, tuple[str, ...], list[list[str]]]]:
    """Title, columns and rows of text per pair of models; percentages, and differences in points."""
    found: list[tuple[str, tuple[str, ...], list[list[str]]]] = []
    for first, second in dict.fromkeys((row.first, row.second) for row in rows):
        own = [row for row in rows if (row.first, row.second) == (first, second)]
        cells = [
            [
                "whole" if row.cover == UNCOVERED else f"{row.cover} {100 * row.level:.0f} %",
                f"{row.covered:.0f} %",
                f"{row.first_top1:.1f}",
                f"{row.second_top1:.1f}",
                f"{row.difference:+.1f}",
                f"{row.interval.low:+.1f} to {row.interval.high:+.1f}",
                f"{row.only_first} : {row.only_second}",
                f"{row.p_value:.3f}",
            ]
            for row in own
        ]
        columns = ("", "covered", first, second, "difference", "95 % interval", "alone right", "p")
        counts = " to ".join(str(count) for count in sorted({min(r.images for r in own), max(r.images for r in own)}))
        found.append((f"Top-1 under occlusion, {counts} images: {second} against {first}", columns, cells))
    return found
