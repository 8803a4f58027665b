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
