"""The DALI operators: equal to the reference, keyed by sample, honest about their inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from nvidia.dali import fn, pipeline_def, types

import has_dali.fn as hfn
from has_dali import HideAndSeek
from has_dali.kernels import reference

RNG = np.random.default_rng(0)
RAGGED = [RNG.integers(0, 256, (30 + 7 * i, 50 - 3 * i, 3), dtype=np.uint8) for i in range(6)]
UNIFORM = np.stack([RNG.integers(0, 256, (40, 56, 3), dtype=np.uint8) for _ in range(6)])
IDS = np.array([5, -1, 2**40, 7, 0, 3])
POLICY = HideAndSeek((0, 8, 13), random_offset=True, seed=77)


def run(define: Callable[[], Any], batch_size: int = 6, times: int = 1, **options: Any) -> list[Any]:
    """Outputs of the last of ``times`` batches as arrays; ragged ones as lists."""

    @pipeline_def(batch_size=batch_size, num_threads=2, device_id=None, **options)
    def pipeline():  # type: ignore[no-untyped-def]
        outputs = define()
        return tuple(outputs) if isinstance(outputs, list) else outputs

    pipe = pipeline()
    pipe.build()
    for _ in range(times):
        outputs = pipe.run()
    return [out.as_array() if out.is_dense_tensor() else [out.at(i) for i in range(len(out))] for out in outputs]


def source(batch: Any, layout: str | None = None) -> Any:
    return fn.external_source(lambda: [np.ascontiguousarray(sample) for sample in batch], batch=True, layout=layout)


def test_fused_equals_the_reference_on_ragged_images() -> None:
    flips, shares = np.array([0, 1, 1, 0, 1, 0], np.int32), np.linspace(0, 1, 6).astype(np.float32)

    def define() -> Any:
        return hfn.resize_mirror_normalize_hide(
            source(RAGGED, "HWC"), POLICY, source(IDS), 4, size=(24, 40), mirror=source(flips), p_hide=source(shares)
        )

    expected = reference.resize_mirror_normalize_hide(
        RAGGED, POLICY, IDS, 4, (24, 40), flips, p_hide=shares.astype(np.float64)
    )
    np.testing.assert_array_equal(run(define)[0], np.stack(expected))


@pytest.mark.parametrize("layout", ["CHW", "HWC"])
@pytest.mark.parametrize(("dtype", "numpy_dtype"), [(types.FLOAT, np.float32), (types.FLOAT16, np.float16)])
def test_fused_without_resampling_keeps_ragged_shapes(layout: str, dtype: Any, numpy_dtype: Any) -> None:
    def define() -> Any:
        images = source(RAGGED, "HWC")
        return hfn.resize_mirror_normalize_hide(
            images,
            POLICY,
            source(IDS),
            source(np.full(6, 9)),
            size=None,
            dtype=dtype,
            output_layout=layout,
            mean=3,
            std=2,
        )

    expected = reference.resize_mirror_normalize_hide(
        RAGGED, POLICY, IDS, 9, None, mean=3, std=2, dtype=numpy_dtype, output_layout=layout
    )
    for got, wanted in zip(run(define)[0], expected, strict=True):
        assert got.dtype == wanted.dtype
        np.testing.assert_array_equal(got, wanted)


def test_constants_may_be_numpy_arrays() -> None:
    def define() -> Any:
        return hfn.resize_mirror_normalize_hide(
            source(RAGGED, "HWC"), None, size=np.array([8, 9]), mean=np.full(3, 7.0), std=np.full(3, 2.0)
        )

    expected = reference.resize_mirror_normalize_hide(RAGGED, None, IDS, 0, (8, 9), mean=7, std=2)
    np.testing.assert_array_equal(run(define)[0], np.stack(expected))


def test_fused_without_a_policy_is_resize_and_normalise_alone() -> None:
    def define() -> Any:
        return hfn.resize_mirror_normalize_hide(source(RAGGED, "HWC"), None, size=32, antialias=False)

    expected = reference.resize_mirror_normalize_hide(RAGGED, None, IDS, 0, (32, 32), antialias=False)
    np.testing.assert_array_equal(run(define)[0], np.stack(expected))


def test_layout_and_source_info_are_kept(tmp_path: Any) -> None:
    from PIL import Image

    files = [str(tmp_path / f"{i}.png") for i in range(6)]
    for name, image in zip(files, UNIFORM, strict=True):
        Image.fromarray(image).save(name)

    @pipeline_def(batch_size=6, num_threads=2, device_id=None)
    def pipeline():  # type: ignore[no-untyped-def]
        images = fn.decoders.image(fn.readers.file(files=files)[0])
        hidden = hfn.hide_and_seek(images, POLICY)
        fused = hfn.resize_mirror_normalize_hide(images, POLICY, size=8, output_layout="HWC")
        infos = [fn.get_property(node, key="source_info") for node in (hidden, fused)]
        return hidden, fused, hfn.resize_mirror_normalize_hide(images, None, size=8), *infos

    pipe = pipeline()
    pipe.build()
    hidden, fused, planar, *infos = pipe.run()
    assert (hidden.layout(), fused.layout(), planar.layout()) == ("HWC", "HWC", "CHW")
    for info in infos:
        assert bytes(info.at(2)).decode() == files[2]


def test_a_layout_given_at_definition_stands_for_the_batchs_own() -> None:
    def define() -> Any:
        images = fn.reshape(source(UNIFORM, "HWC"), layout="")
        return hfn.hide_and_seek(images, POLICY, source(IDS), 3, fill_value=5, layout="HWC")

    np.testing.assert_array_equal(run(define)[0], reference.hide(UNIFORM, POLICY, IDS, 3, 5, "NHWC"))


@pytest.mark.parametrize("inplace", [False, True])
def test_hide_equals_the_reference(inplace: bool) -> None:
    def define() -> Any:
        images = fn.copy(source(UNIFORM, "HWC"))
        return hfn.hide_and_seek(images, POLICY, source(IDS), 3, fill_value=(1.0, 2.4, 300.0), inplace=inplace)

    expected = reference.hide(UNIFORM, POLICY, IDS, 3, (1.0, 2.4, 300.0), "NHWC")
    np.testing.assert_array_equal(run(define)[0], expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float16, np.float32])
def test_hide_takes_any_dtype_and_chw(dtype: Any) -> None:
    batch = UNIFORM.transpose(0, 3, 1, 2).astype(dtype)
    got = run(lambda: hfn.hide_and_seek(source(batch, "CHW"), POLICY, source(IDS), 3, fill_value=7))[0]
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, reference.hide(batch, POLICY, IDS, 3, 7))


def test_image_and_label_map_share_the_mask_that_is_returned() -> None:
    labels = RNG.integers(0, 20, (6, 40, 56), dtype=np.uint8)

    def define() -> Any:
        return hfn.hide_and_seek(
            [source(UNIFORM, "HWC"), source(labels, "HW")], POLICY, fill_value=[0, 255], return_mask=True
        )

    images, hidden_labels, mask = run(define)
    assert 0 < mask.mean() < 1
    np.testing.assert_array_equal(images, np.where(mask[..., None] == 1, 0, UNIFORM))
    np.testing.assert_array_equal(hidden_labels, np.where(mask == 1, 255, labels))


@pytest.mark.parametrize("layout", ["FHWC", "FCHW"])
def test_all_frames_of_a_sequence_share_the_mask(layout: str) -> None:
    clips = RNG.integers(1, 256, (4, 5, 24, 32, 3), dtype=np.uint8)
    batch = clips if layout == "FHWC" else clips.transpose(0, 1, 4, 2, 3)
    got = run(lambda: hfn.hide_and_seek(source(batch, layout), POLICY, source(IDS[:4]), 1), batch_size=4)[0]
    got = got if layout == "FHWC" else got.transpose(0, 1, 3, 4, 2)
    hidden = POLICY.mask(IDS[:4], 1, 24, 32)[:, None, :, :, None]
    np.testing.assert_array_equal(got, np.where(hidden, 0, clips))


def test_hide_takes_p_hide_per_sample() -> None:
    shares = np.array([0, 1, 0, 1, 0.5, 0.5], np.float32)
    policy = HideAndSeek(8)

    def define() -> Any:
        return hfn.hide_and_seek(source(UNIFORM, "HWC"), policy, source(IDS), 0, p_hide=source(shares), fill_value=5)

    got = run(define)[0]
    np.testing.assert_array_equal(got, reference.hide(UNIFORM, policy, IDS, 0, 5, "NHWC", shares.astype(float)))
    assert (got[1] == 5).all() and (got[0] == UNIFORM[0]).all()


def test_keys_drawn_by_dali_change_per_batch_and_follow_the_pipeline_seed() -> None:
    def define() -> Any:
        return hfn.hide_and_seek(source(UNIFORM, "HWC"), HideAndSeek(8), fill_value=0, return_mask=True)

    first, second = run(define, seed=1)[1], run(define, seed=1, times=2)[1]
    np.testing.assert_array_equal(first, run(define, seed=1)[1])
    assert (first != second).any() and (first != run(define, seed=2)[1]).any()
    assert len({mask.tobytes() for mask in first}) == 6


@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.parametrize("copied", [False, True])
def test_in_place_results_outlive_the_buffer_they_came_from(depth: int, copied: bool) -> None:
    """DALI reuses its buffers: a result on a bare pointer would change while a slow consumer holds it."""
    policy = HideAndSeek(8)

    @pipeline_def(batch_size=6, num_threads=2, device_id=None, prefetch_queue_depth=depth)
    def pipeline():  # type: ignore[no-untyped-def]
        counter = fn.external_source(lambda info: np.full((6, 1), info.iteration), batch=True, batch_info=True)
        images = fn.cast(fn.random.uniform(range=[0, 255], shape=[64, 64, 3]), dtype=types.UINT8)
        images = fn.reinterpret(images, layout="HWC")
        hidden = hfn.hide_and_seek(fn.copy(images), policy, counter, 0, fill_value=9, inplace=True)
        return (fn.copy(hidden) if copied else hidden), images, counter

    pipe = pipeline()
    pipe.build()
    kept = []
    for _ in range(12):
        kept.append([out.as_tensor() for out in pipe.run()])
        hidden, images, counter = (np.array(out) for out in kept[-1])
        np.testing.assert_array_equal(hidden, reference.hide(images, policy, counter[:, 0], 0, 9, "NHWC"))


BAD_GRAPHS = [
    (lambda x: hfn.hide_and_seek([], POLICY), ValueError, ["images", "empty list"]),
    (lambda x: hfn.hide_and_seek(x, POLICY, layout=["HWC", "HW"]), ValueError, ["layout=", "one per batch"]),
    (lambda x: hfn.resize_mirror_normalize_hide(x, None, p_hide=1.5), ValueError, ["p_hide=1.5"]),
    (lambda x: hfn.hide_and_seek(np.zeros(3), POLICY), TypeError, ["images", "DataNode", "ndarray"]),
    (lambda x: hfn.hide_and_seek(x, None), TypeError, ["policy", "HideAndSeek", "NoneType"]),
    (lambda x: hfn.hide_and_seek(x, POLICY, sample_ids=[1, 2]), TypeError, ["sample_ids", "DataNode", "list"]),
    (lambda x: hfn.hide_and_seek(x, POLICY, epoch=-1), ValueError, ["epoch=-1"]),
    (lambda x: hfn.hide_and_seek(x, POLICY, p_hide=1.5), ValueError, ["p_hide=1.5", "0 to 1"]),
    (lambda x: hfn.hide_and_seek([x, x], POLICY, fill_value=[1, 2, 3]), ValueError, ["fill_value", "2 entries", "3"]),
    (lambda x: hfn.hide_and_seek(x, POLICY, fill_value="mean"), ValueError, ["fill_value='mean'", "number"]),
    (lambda x: hfn.resize_mirror_normalize_hide(x, "imagenet"), TypeError, ["policy", "str", "preset"]),
    (lambda x: hfn.resize_mirror_normalize_hide(x, None, size=0), ValueError, ["size=0", "1 to 65535"]),
    (lambda x: hfn.resize_mirror_normalize_hide(x, None, size=(1, 2, 3)), TypeError, ["size=(1, 2, 3)", "height"]),
    (lambda x: hfn.resize_mirror_normalize_hide(x, None, output_layout="NCHW"), ValueError, ["output_layout=NCHW"]),
    (lambda x: hfn.resize_mirror_normalize_hide(x, None, dtype=types.UINT8), ValueError, ["dtype", "FLOAT"]),
    (lambda x: hfn.resize_mirror_normalize_hide(x, None, std=0), ValueError, ["std=0", "above 0"]),
    (lambda x: hfn.resize_mirror_normalize_hide(x, None, mean=(1, 2)), ValueError, ["mean", "per channel"]),
    (lambda x: hfn.resize_mirror_normalize_hide(x, None, mirror="yes"), TypeError, ["mirror", "str"]),
]  # fmt: skip


@pytest.mark.parametrize(("define", "error", "words"), BAD_GRAPHS)
def test_errors_at_definition_name_operator_and_argument(define: Any, error: type[Exception], words: list[str]) -> None:
    with pytest.raises(error) as caught:
        run(lambda: define(source(UNIFORM, "HWC")))
    message = str(caught.value)
    assert message.startswith("has_dali.fn.")
    assert all(word in message for word in words), message
    assert len(message.splitlines()) <= 2


BAD_RUNS = [
    (lambda x, i: hfn.hide_and_seek(source(RAGGED, "HWC"), POLICY), ["one shape", "resize"]),
    (lambda x, i: hfn.hide_and_seek(fn.reshape(x, layout="HXC"), POLICY, i, 0), ["images", "another layout"]),
    (lambda x, i: hfn.hide_and_seek(x[0:0], POLICY, i, 0), ["images", "at least one pixel"]),
    (lambda x, i: hfn.resize_mirror_normalize_hide(x[0:0], POLICY, i, 0, size=8), ["images", "at least one pixel"]),
    (lambda x, i: hfn.resize_mirror_normalize_hide(x, None, size=None, mean=[0] * 4, std=1), ["(40, 56, 3)"]),
    (lambda x, i: hfn.hide_and_seek(x, POLICY, i, (i + 1) * 2**30 * 8), ["epoch", "2**32"]),
    (lambda x, i: hfn.hide_and_seek(fn.reshape(x, layout=""), POLICY, i, 0), ["images", "layout", "reinterpret"]),
    (lambda x, i: hfn.hide_and_seek(x, POLICY, fn.cast(i, dtype=types.FLOAT), 0), ["sample_ids", "float32"]),
    (lambda x, i: hfn.hide_and_seek(x, POLICY, fn.stack(i, i), 0), ["sample_ids", "one value per sample"]),
    (lambda x, i: hfn.hide_and_seek(x, POLICY, i, fn.cast(i, dtype=types.INT64) - 10), ["epoch", "0 to 2**32"]),
    (lambda x, i: hfn.hide_and_seek(x, POLICY, i, 0, p_hide=i * 2.0), ["p_hide", "0 to 1"]),
    (lambda x, i: hfn.hide_and_seek(x, POLICY, i, 0, fill_value=[1, 2]), ["fill_value", "3"]),
    (lambda x, i: hfn.hide_and_seek([x, fn.resize(x, size=[8, 8])], POLICY, i, 0), ["images", "one height and width"]),
    (lambda x, i: hfn.resize_mirror_normalize_hide(fn.stack(x, x), POLICY, i, 0), ["images", "HWC", "4 dimensions"]),
    (lambda x, i: hfn.resize_mirror_normalize_hide(x[:, :, 0:1], POLICY, i, 0), ["3 channels", "(40, 56, 1)"]),
]  # fmt: skip


@pytest.mark.parametrize(("define", "words"), BAD_RUNS)
def test_values_of_a_batch_are_checked_before_they_are_used(define: Any, words: list[str]) -> None:
    with pytest.raises(RuntimeError) as caught:
        run(lambda: define(source(UNIFORM, "HWC"), source(np.arange(6))))
    assert "Error: has_dali.fn." in str(caught.value), caught.value
    assert all(word in str(caught.value) for word in words), caught.value
