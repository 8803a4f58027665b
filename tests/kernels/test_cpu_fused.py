"""The fused CPU operator equals the reference bit for bit, and DALI's operators within a grey level."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from has_dali.kernels import contract, cpu, reference
from has_dali.kernels.policy import HideAndSeek

policies = st.none() | st.builds(
    HideAndSeek,
    patch_sizes=st.lists(st.sampled_from([0, 1, 3, 8, 16, 1000]), min_size=1, max_size=3),
    p_hide=st.sampled_from([0.0, 0.5, 1.0]),
    p_apply=st.sampled_from([0.5, 1.0]),
    seed=st.integers(0, 2**64 - 1),
    random_offset=st.booleans(),
)
sides = st.integers(1, 48)


def bits(array: np.ndarray) -> np.ndarray:
    return array.view(np.uint16 if array.dtype == np.float16 else np.uint32)


@settings(max_examples=150, deadline=None)
@given(policy=policies, data=st.data(), channels=st.integers(1, 4), antialias=st.booleans(), half=st.booleans())
def test_equal_to_the_reference_bit_for_bit(
    policy: HideAndSeek | None, data: st.DataObject, channels: int, antialias: bool, half: bool
) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    shapes = data.draw(st.lists(st.tuples(sides, sides), min_size=0, max_size=3))
    images = [rng.integers(0, 256, (h, w, channels), dtype=np.uint8) for h, w in shapes]
    options = {
        "size": data.draw(st.none() | st.tuples(sides, sides)),
        "mirror": np.array([bool(i % 2) for i in range(len(images))]),
        "mean": data.draw(st.sampled_from([0.0, 117.3])),
        "std": data.draw(st.sampled_from([1.0, 58.1])),
        "fill_value": data.draw(st.sampled_from([None, 0.0, 300.0])),
        "dtype": np.float16 if half else np.float32,
        "output_layout": data.draw(st.sampled_from(["CHW", "HWC"])),
        "antialias": antialias,
    }
    ids = np.arange(len(images)) * 2**33 - 7
    expected = reference.resize_mirror_normalize_hide(images, policy, ids, 6, **options)
    got = cpu.resize_mirror_normalize_hide(images, policy, ids, 6, **options)
    for a, b in zip(got, expected, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(bits(a), bits(b))


@pytest.mark.parametrize("layout", ["CHW", "HWC"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_out_is_written_and_given_back(dtype: type, layout: str) -> None:
    rng, policy = np.random.default_rng(0), HideAndSeek((8,))
    images = [rng.integers(0, 256, (h, 40, 3), np.uint8) for h in (33, 48)]
    options = {"dtype": dtype, "output_layout": layout}
    for size in ((64, 48), None):
        expected = cpu.resize_mirror_normalize_hide(images, policy, [1, 2], 3, size, **options)
        assert all(one.ctypes.data % 64 == 0 for one in expected)
        separate = [np.full_like(one, 9) for one in expected]
        given = cpu.resize_mirror_normalize_hide(images, policy, [1, 2], 3, size, out=separate, **options)
        assert all(a is b for a, b in zip(given, separate, strict=True))
        outs = [separate]
        if size is not None:
            block = np.full((2, *expected[0].shape), 9, dtype)
            given = cpu.resize_mirror_normalize_hide(images, policy, [1, 2], 3, size, out=block, **options)
            assert all(one.base is block for one in given)
            outs.append(list(block))
        for out in outs:
            for a, b in zip(out, expected, strict=True):
                np.testing.assert_array_equal(bits(a), bits(b))


def test_the_way_of_large_outputs_is_the_same_wherever_they_begin() -> None:
    images = [np.random.default_rng(0).integers(0, 256, (224, 224, 3), np.uint8)]
    expected = cpu.resize_mirror_normalize_hide(images, HideAndSeek((16,)), [1], 0, None)[0]
    memory = np.zeros(expected.size + 16, np.float32)
    for skew in (0, 1, 4, 15):
        out = memory[skew : skew + expected.size].reshape(1, *expected.shape)
        cpu.resize_mirror_normalize_hide(images, HideAndSeek((16,)), [1], 0, None, out=out)
        np.testing.assert_array_equal(bits(out[0]), bits(expected))


_OUT = np.zeros((2, 3, 8, 8), np.float32)
_LOCKED = _OUT.copy()
_LOCKED.flags.writeable = False


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (_OUT[:1], "out: expected 2 arrays, one per image, got 1"),
        ([*_OUT, _OUT[0]], "out: expected 2 arrays, one per image, got 3"),
        (np.zeros((2, 3, 8, 9), np.float32), r"out\[0\]: expected float32 \(3, 8, 8\), got float32 \(3, 8, 9\)"),
        ([_OUT[0], _OUT[1].astype(np.float16)], r"out\[1\]: expected float32 \(3, 8, 8\), got float16"),
        ([_OUT[0], None], r"out\[1\]: expected float32 \(3, 8, 8\), got NoneType"),
        (np.zeros((2, 8, 3, 8), np.float32).transpose(0, 2, 1, 3), r"out\[0\]: expected a C-contiguous array"),
        (_LOCKED, r"out\[0\]: expected a C-contiguous array that can be written to"),
    ],
)
def test_an_out_that_does_not_fit_is_refused(out: Any, message: str) -> None:
    images = [np.zeros((8, 8, 3), np.uint8)] * 2
    with pytest.raises(ValueError, match=message):
        cpu.resize_mirror_normalize_hide(images, None, [0, 1], 0, None, out=out)


@pytest.mark.parametrize("policy", [HideAndSeek(16, p_hide=0.0), HideAndSeek(16, p_apply=0.0), HideAndSeek(0)])
@pytest.mark.parametrize("size", [(20, 24), None])
def test_hiding_nothing_equals_no_policy(policy: HideAndSeek, size: tuple[int, int] | None) -> None:
    images = [np.random.default_rng(0).integers(0, 256, (31, 45, 3), dtype=np.uint8)]
    plain = cpu.resize_mirror_normalize_hide(images, None, [3], 1, size)[0]
    np.testing.assert_array_equal(bits(cpu.resize_mirror_normalize_hide(images, policy, [3], 1, size)[0]), bits(plain))


def test_hidden_pixels_are_exactly_zero_and_visible_ones_those_of_no_policy() -> None:
    images = [np.random.default_rng(0).integers(0, 256, (90, 130, 3), dtype=np.uint8) for _ in range(4)]
    policy = HideAndSeek((8, 13))
    plain = np.stack(cpu.resize_mirror_normalize_hide(images, None, np.arange(4), 2, (64, 64)))
    hidden = np.stack(cpu.resize_mirror_normalize_hide(images, policy, np.arange(4), 2, (64, 64)))
    mask = np.broadcast_to(policy.mask(np.arange(4), 2, 64, 64)[:, None], plain.shape)
    assert (bits(hidden)[mask] == 0).all()
    np.testing.assert_array_equal(hidden[~mask], plain[~mask])


def test_nothing_is_written_outside_the_output() -> None:
    from has_dali.kernels.cpu_fused import fused_image

    for size in ((7, 9), (5, 4), (64, 3)):
        for planar in (True, False):
            image = np.random.default_rng(0).integers(0, 256, (20, 11, 3), dtype=np.uint8)
            settings_words = cpu.pack_settings(HideAndSeek(3), size, 1.0, 1.0, None, False, planar, True, 3)
            guard = np.full(size[0] * size[1] * 3 + 64, 12345.0, np.float32)
            address = guard[32:].ctypes.data
            fused_image(image, address, np.uint64(1), np.uint64(1), np.uint64(2**31), False, settings_words)
            assert (guard[:32] == 12345).all() and (guard[-32:] == 12345).all()
            assert (guard[32:-32] != 12345).all()


@pytest.mark.parametrize("offset", [0, 16], ids=["past the caches", "through them"])
@pytest.mark.parametrize("size", [(160, 176), (151, 157)])
def test_large_outputs_equal_the_reference_wherever_they_lie(size: tuple[int, int], offset: int) -> None:
    """Aligned outputs of this many bytes take stores of their own; a width of 157 ends within a group of columns."""
    from has_dali.kernels.cpu_fused import fused_image

    image = np.random.default_rng(0).integers(0, 256, (200, 240, 3), dtype=np.uint8)
    policy = HideAndSeek((8, 44), seed=3)
    mean, std = contract.IMAGENET_MEAN, contract.IMAGENET_STD
    words = cpu.pack_settings(policy, size, mean, std, None, False, True, True, 3)
    count = 3 * size[0] * size[1]
    memory = np.full(count + 64, 12345.0, np.float32)
    begin = (-memory.ctypes.data % 64 + offset) // 4 + (16 if offset == 0 else 0)
    for sample_id in range(4):
        mirror = sample_id % 2 == 1
        out = memory[begin : begin + count]
        fused_image(image, out.ctypes.data, np.uint64(sample_id), np.uint64(5), np.uint64(2**31), mirror, words)
        expected = reference.resize_mirror_normalize_hide([image], policy, [sample_id], 5, size, [mirror])[0]
        np.testing.assert_array_equal(bits(out), bits(expected.reshape(-1)))
        assert (memory[:begin] == 12345).all() and (memory[begin + count :] == 12345).all()


@pytest.mark.parametrize("antialias", [True, False])
def test_within_a_grey_level_of_dalis_own_operators_on_real_jpegs(data_root: Path, antialias: bool) -> None:
    from nvidia.dali import fn, pipeline_def, types

    files = sorted(str(path) for path in (data_root / "imagenet-sample" / "train").glob("*/*.JPEG"))[::13]
    mean, std = contract.IMAGENET_MEAN, contract.IMAGENET_STD

    @pipeline_def(batch_size=len(files), num_threads=2, device_id=None)
    def dali_only():  # type: ignore[no-untyped-def]
        encoded, _ = fn.readers.file(files=files)
        images = fn.decoders.image(encoded)
        flip = fn.random.coin_flip(seed=1)
        resized = fn.resize(images, size=[224, 224], interp_type=types.INTERP_LINEAR, antialias=antialias)
        normal = fn.crop_mirror_normalize(
            resized, mirror=flip, mean=list(mean), std=list(std), dtype=types.FLOAT, output_layout="CHW"
        )
        return images, flip, normal

    pipe = dali_only()
    pipe.build()
    images, flip, normal = pipe.run()
    ours = cpu.resize_mirror_normalize_hide(
        [images.at(i) for i in range(len(files))], None, np.arange(len(files)), 0,
        mirror=flip.as_array().reshape(-1), antialias=antialias,
    )  # fmt: skip
    grey_level = 1.0 / min(std)
    for i in range(len(files)):
        assert np.abs(ours[i] - normal.at(i)).max() <= grey_level
