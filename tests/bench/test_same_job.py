"""A peer that does less, or something else, is found out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from has_dali.bench import same_job
from has_dali.kernels.policy import HideAndSeek

POLICY = HideAndSeek((8, 16), seed=3)
N, SIZE = 32, 64


def batches(policy: HideAndSeek | None = POLICY, mean: float = 0.0, std: float = 1.0) -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    made = []
    for start in (0, N):
        images = torch.randn(N, 3, SIZE, SIZE, generator=generator) * std + mean
        if policy is not None:
            mask = torch.from_numpy(policy.mask(np.arange(start, start + N), 0, SIZE, SIZE))
            images.masked_fill_(mask[:, None], 0.0)
        made.append({"image": images, "label": torch.zeros(N, dtype=torch.int64)})
    return made


def verdict(seen: list[dict[str, torch.Tensor]], policy: HideAndSeek | None = POLICY) -> str | None:
    return same_job.difference(same_job.inspect(seen), policy, 2 * N, N, SIZE)


def test_the_same_job_passes() -> None:
    assert verdict(batches()) is None
    assert verdict(batches(None), None) is None
    assert verdict(batches(POLICY.with_(p_apply=0.5)), POLICY.with_(p_apply=0.5)) is None


@pytest.mark.parametrize("policy", [None, POLICY.with_(p_hide=0.3), POLICY.with_(p_apply=0.5), HideAndSeek((0, 8))])
def test_another_policy_is_void(policy: HideAndSeek | None) -> None:
    assert "hides" in str(verdict(batches(policy)))


def test_hiding_where_none_is_asked_for_is_void() -> None:
    assert "expected 0.0%" in str(verdict(batches(), None))


def test_another_dtype_shape_or_label_is_void() -> None:
    half = [{**batch, "image": batch["image"].half()} for batch in batches()]
    assert verdict(half) == "dtype is float16, expected float32"
    last = [{**batch, "image": batch["image"].permute(0, 2, 3, 1)} for batch in batches()]
    assert "shape" in str(verdict([{**batch, "image": batch["image"].contiguous()} for batch in last]))
    labels = [{**batch, "label": batch["label"].int()} for batch in batches()]
    assert "label_dtype" in str(verdict(labels))


def test_another_normalisation_is_void() -> None:
    ours = same_job.inspect(batches())
    assert same_job.disagreement(same_job.inspect(batches(mean=0.1)), ours) is None
    assert "mean" in str(same_job.disagreement(same_job.inspect(batches(mean=2.0)), ours))
    assert "std" in str(same_job.disagreement(same_job.inspect(batches(std=0.3)), ours))


def changed(batch: list[dict[str, torch.Tensor]], image: torch.Tensor) -> list[dict[str, torch.Tensor]]:
    """The same batches with other pixels where something is visible."""
    return [{**one, "image": torch.where(one["image"] == 0, one["image"], image)} for one in batch]


def test_one_mask_for_all_images_of_a_batch_is_void() -> None:
    mask = torch.from_numpy(HideAndSeek((8,)).mask([5], 0, SIZE, SIZE))
    seen = [{**batch, "image": batch["image"].masked_fill(mask[:, None], 0.0)} for batch in batches(None)]
    assert verdict(seen) == "hides the same pixels of every image of a batch"
    assert verdict([seen[0], batches()[1]]) is None  # one of two batches: chance, or another reason will say so


def test_the_same_image_again_and_again_is_void() -> None:
    image = torch.randn(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    assert verdict(changed(batches(), image)) == "gives the same image again and again"
    repeated = [{**batch, "image": image.repeat(N, 1, 1, 1)} for batch in batches(None)]
    assert verdict(repeated, None) == "gives the same image again and again"


def test_channels_are_compared_one_by_one() -> None:
    shift = torch.tensor([0.35, 0.0, -0.35])[:, None, None]
    ours = same_job.inspect([{**b, "image": torch.where(b["image"] == 0, 0.0, b["image"] + shift)} for b in batches()])
    seen = [{**b, "image": torch.where(b["image"] == 0, 0.0, b["image"] - shift)} for b in batches()]
    swapped = same_job.inspect(seen)
    assert swapped.visible_mean == pytest.approx((-0.35, 0.0, 0.35), abs=0.02)
    assert "channel 0 have mean" in str(same_job.disagreement(swapped, ours))
    darker = [{**b, "image": torch.where(b["image"] == 0, 0.0, b["image"] - shift + 0.3)} for b in batches()]
    assert "channels swapped" in str(same_job.disagreement(same_job.inspect(darker), ours))
    scale = torch.tensor([1.0, 1.0, 2.0])[:, None, None]
    uneven = same_job.inspect([{**b, "image": b["image"] * scale} for b in batches()])
    assert "channel 2 have std" in str(same_job.disagreement(uneven, same_job.inspect(batches())))


@pytest.mark.parametrize("policy", [HideAndSeek((16, 44), p_hide=0.4), HideAndSeek((0, 24), p_apply=0.7)])
def test_hidden_moments_match_the_reference(policy: HideAndSeek) -> None:
    fractions = policy.mask(np.arange(1500), 0, 64, 64).mean(axis=(1, 2))
    mean, variance = same_job.hidden_moments(policy, 64)
    assert abs(fractions.mean() - mean) < 5 * np.sqrt(variance / len(fractions))
    assert fractions.var() == pytest.approx(variance, rel=0.15)


def test_the_judge_compares_with_the_first_one_that_does_the_job() -> None:
    judge = same_job.Judge(POLICY, N, SIZE)
    assert "hides" in str(judge.verdict(batches(None), hides=True).reason) and judge.first is None
    first = judge.verdict(batches(), hides=True)
    assert first.reason is None and first.facts["dtype"] == "float32" and judge.first is not None
    assert judge.verdict(batches(None), hides=False).reason is None
    assert "hides" in str(judge.verdict(batches(), hides=False).reason)
    assert "mean" in str(judge.verdict(batches(mean=2.0), hides=True).reason)
    assert judge.first == same_job.inspect(batches())
