"""An event happens when its word is *below* T(p), to the last bit, in every implementation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from has_dali.kernels import cpu, reference
from has_dali.kernels.policy import HideAndSeek

SAMPLE, EPOCH = 12, 3


def by_reference(policy: HideAndSeek) -> bool:
    return bool(policy.mask([SAMPLE], EPOCH, 1, 1)[0, 0, 0])


def by_hide(policy: HideAndSeek) -> bool:
    return bool(cpu.hide(np.zeros((1, 1, 1, 1), np.uint8), policy, [SAMPLE], EPOCH, 1)[0, 0, 0, 0])


def by_fused(policy: HideAndSeek) -> bool:
    image = np.full((1, 1, 1), 9, np.uint8)
    return bool(cpu.resize_mirror_normalize_hide([image], policy, [SAMPLE], EPOCH, None, mean=0, std=1)[0].item() == 0)


def by_dali(policy: HideAndSeek) -> bool:
    from nvidia.dali import fn, pipeline_def

    import has_dali.fn as hfn

    @pipeline_def(batch_size=1, num_threads=1, device_id=None)
    def pipeline():  # type: ignore[no-untyped-def]
        image = fn.external_source(lambda: [np.full((1, 1, 1), 9, np.uint8)], batch=True, layout="HWC")
        ids = fn.external_source(lambda: [np.array([SAMPLE])], batch=True)
        shares = fn.external_source(lambda: [np.array([policy.p_hide])], batch=True)
        return hfn.hide_and_seek(image, policy.with_(p_hide=0.0), ids, EPOCH, p_hide=shares)

    pipe = pipeline()
    pipe.build()
    return bool(pipe.run()[0].as_array().item() == 0)


@pytest.mark.parametrize("hidden", [by_reference, by_hide, by_fused, by_dali])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_cell_is_hidden_strictly_below_the_threshold(hidden: Callable[[HideAndSeek], bool], seed: int) -> None:
    word = int(reference.words(seed, EPOCH, SAMPLE, 1)[0, 0])
    assert not hidden(HideAndSeek((1,), p_hide=word / 2**32, seed=seed))
    assert hidden(HideAndSeek((1,), p_hide=(word + 1) / 2**32, seed=seed))


@pytest.mark.parametrize("hidden", [by_reference, by_hide, by_fused])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_an_image_is_augmented_strictly_below_the_threshold(hidden: Callable[[HideAndSeek], bool], seed: int) -> None:
    word = int(reference.words(seed, EPOCH, SAMPLE, 0)[0, 0])
    assert not hidden(HideAndSeek((1,), p_hide=1.0, p_apply=word / 2**32, seed=seed))
    assert hidden(HideAndSeek((1,), p_hide=1.0, p_apply=(word + 1) / 2**32, seed=seed))
