"""The contract against known answers, an independent transcription in plain integers, and exact arithmetic."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from has_dali.kernels import contract, reference
from has_dali.kernels.policy import HideAndSeek

floats32 = st.floats(width=32, allow_nan=False, allow_infinity=False, min_value=-1e6, max_value=1e6)

KNOWN_ANSWERS = [  # counter, key, words (Random123's kat_vectors)
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN_ANSWERS)
def test_philox_gives_the_known_answers(counter: tuple, key: tuple, words: tuple) -> None:
    assert tuple(int(w) for w in reference.philox4x32([counter], key)[0]) == words


def plain_mask(policy: HideAndSeek, sample_id: int, epoch: int, height: int, width: int) -> list[list[bool]]:
    """The contract once more, pixel by pixel in Python integers (design, section 3)."""

    def word(block: int, lane: int) -> int:
        id_bits, seed_bits = sample_id % 2**64, policy.seed % 2**64
        counter = [block, epoch, id_bits % 2**32, id_bits // 2**32]
        return int(reference.philox4x32([counter], (seed_bits % 2**32, seed_bits // 2**32))[0][lane])

    hidden = [[False] * width for _ in range(height)]
    if word(0, 0) >= round(policy.p_apply * 2**32):
        return hidden
    size = policy.patch_sizes[word(0, 1) * len(policy.patch_sizes) // 2**32]
    if size == 0:
        return hidden
    oy = word(0, 2) * size // 2**32 if policy.random_offset else 0
    ox = word(0, 3) * size // 2**32 if policy.random_offset else 0
    columns = -(-(width + ox) // size)
    for y in range(height):
        for x in range(width):
            cell = (y + oy) // size * columns + (x + ox) // size
            hidden[y][x] = word(1 + cell // 4, cell % 4) < round(policy.p_hide * 2**32)
    return hidden


def test_masks_of_all_small_cases_follow_the_contract() -> None:
    for height in (1, 2, 5):
        for width in (1, 3, 6):
            for sizes in ((1,), (2,), (3, 0), (4, 7), (100,)):
                for offset in (False, True):
                    for p_apply in (1.0, 0.5):
                        policy = HideAndSeek(sizes, 0.4, p_apply, seed=-3, random_offset=offset)
                        for sample_id in (0, -1, 2**40 + 5):
                            expected = plain_mask(policy, sample_id, 9, height, width)
                            assert policy.mask([sample_id], 9, height, width)[0].tolist() == expected


def test_seed_and_id_use_all_64_bits() -> None:
    policy = HideAndSeek(4, seed=1)
    base = policy.mask([1], 0, 64, 64)
    for seed in (1 + 2**32, 1 - 2**63, 1 + 2**63):
        assert (policy.with_(seed=seed).mask([1], 0, 64, 64) != base).any()
    assert (policy.mask([1 + 2**32], 0, 64, 64) != base).any()
    assert (policy.mask(np.array([2**64 - 1], np.uint64), 0, 9, 9) == policy.mask([-1], 0, 9, 9)).all()


def test_zero_never_hides_and_one_always() -> None:
    ids = np.arange(200)
    assert not HideAndSeek(3, p_hide=0.0).mask(ids, 0, 8, 8).any()
    assert HideAndSeek(3, p_hide=1.0).mask(ids, 0, 8, 8).all()
    assert not HideAndSeek(3, p_hide=1.0, p_apply=0.0).mask(ids, 0, 8, 8).any()
    assert not HideAndSeek(0, p_hide=1.0).mask(ids, 0, 8, 8).any()


def test_channels_share_one_mask_and_visible_pixels_stay() -> None:
    batch = np.random.default_rng(0).integers(1, 255, (6, 3, 20, 30)).astype(np.uint8)
    policy = HideAndSeek((4, 7))
    hidden = policy.mask(np.arange(6), 2, 20, 30)
    out = reference.hide(batch, policy, np.arange(6), 2, (1.4, 2.6, 300.0))
    assert (out.transpose(0, 2, 3, 1)[hidden] == (1, 3, 255)).all()  # rounded, saturated
    assert (out.transpose(0, 2, 3, 1)[~hidden] == batch.transpose(0, 2, 3, 1)[~hidden]).all()


@given(floats32, floats32, floats32)
def test_fma_rounds_once(a: float, b: float, c: float) -> None:
    exact = Fraction(float(np.float32(a))) * Fraction(float(np.float32(b))) + Fraction(float(np.float32(c)))
    got = float(reference.fma(np.float32(a), np.float32(b), np.float32(c)))
    below, above = (float(np.nextafter(np.float32(got), np.float32(s * np.inf))) for s in (-1, 1))
    error = abs(Fraction(got) - exact)
    assert error <= abs(Fraction(below) - exact)
    assert error <= abs(Fraction(above) - exact)


@given(st.integers(1, 60), st.integers(1, 60), st.booleans())
def test_taps_stay_inside_and_sum_to_one(n_in: int, n_out: int, antialias: bool) -> None:
    taps = reference.resize_taps(n_in, n_out, antialias)
    assert len(taps) == n_out
    for first, weights in taps:
        assert first >= 0 and first + len(weights) <= n_in
        assert (weights > 0).all()
        assert abs(float(weights.astype(np.float64).sum()) - 1) < 1e-6
    if n_in == n_out:
        assert taps == [(i, 1.0) for i in range(n_in)]


def test_mean_fill_is_exactly_zero_after_normalisation() -> None:
    _, _, fill = contract.normalization(contract.IMAGENET_MEAN, contract.IMAGENET_STD, None, 3)
    assert fill.tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: contract.sample_ids_u64([1, 2], 3), ["sample_ids", "(3,)", "(2,)"]),
        (lambda: contract.sample_ids_u64([0.5], 1), ["sample_ids", "integers", "float64"]),
        (lambda: contract.epochs_u32(-1, 2), ["epoch=-1"]),
        (lambda: contract.epochs_u32([1, 2, 3], 2), ["epoch", "(3,)"]),
        (lambda: contract.thresholds_u64([0.5, 1.5], 2), ["p_hide", "0 to 1"]),
        (lambda: contract.normalization((1.0, 2.0), 1.0, None, 3), ["mean=(1.0, 2.0)", "3"]),
        (lambda: contract.normalization(0.0, 0.0, None, 3), ["std=0.0", "above 0"]),
    ],
)
def test_bad_values_are_named(call: object, words: list[str]) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        call()  # type: ignore[operator]
    assert all(word in str(caught.value) for word in words), caught.value
