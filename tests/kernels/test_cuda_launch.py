"""The launch plan: grids, tiles, alignment, tables, limits and errors, as pure functions."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
import cuda_support as support

from has_dali.kernels import launch_layout
from has_dali.kernels.launch import DeviceArray, Images, SampleKeys, plan_hide, plan_launch, plan_resize
from has_dali.kernels.policy import HideAndSeek

POLICY = HideAndSeek()
SHARED_LIMIT = 48 * 1024


def hide_plan(
    shape, *, interleaved=False, element=4, start=4096, end=8192, policy=POLICY, keys=None, fills=None, **more
):
    """A plan for addresses that are only looked at."""
    fills = np.zeros(shape[1], f"u{element}") if fills is None else np.asarray(fills, f"u{element}")
    keys = SampleKeys(np.zeros(shape[0], np.uint64)) if keys is None else keys
    return plan_hide(
        input_pointer=start, output_pointer=end, shape=shape, interleaved=interleaved, fills=fills, policy=policy,
        keys=keys, **more,
    )  # fmt: skip


def resize_plan(count=2, sides=(300, 200), size=(224, 224), *, outputs=4096, keys=None, channels=3, **more):
    """The same for the fused kernel."""
    ones = np.ones(channels, np.float32)
    images = Images(
        np.arange(count, dtype=np.uint64), np.full(count, sides[0]), np.full(count, sides[1]), count, channels
    )
    keys = SampleKeys(np.zeros(count, np.uint64)) if keys is None else keys
    return plan_resize(
        images=images, outputs=outputs, size=size, scale=ones, shift=ones, fill=ones, policy=POLICY, keys=keys, **more
    )


def defines(plan):
    """Compile-time definitions of a plan."""
    return dict(plan.specialisation.defines)


@pytest.mark.parametrize(
    ("shape", "start", "end", "access"),
    [
        ((2, 3, 224, 224), 4096, 8192, 16),
        ((2, 3, 224, 224), 4096, 4096, 16),
        ((2, 3, 224, 224), 4100, 8196, 0),  # equally misaligned
        ((2, 3, 224, 224), 4096, 8196, 1),  # misaligned to one another
        ((2, 3, 7, 7), 4096, 8192, 0),  # planes do not keep the alignment
    ],
)
def test_access_follows_alignment(shape, start, end, access):
    """16-byte accesses wherever both addresses allow."""
    assert defines(hide_plan(shape, start=start, end=end))["ACCESS"] == access


def test_one_launch_for_common_batches():
    """256 images with keys on the host travel in one launch; with keys on the device, any number does."""
    assert len(hide_plan((256, 3, 224, 224)).launches) == 1
    assert len(resize_plan(256).launches) == 1
    on_device = SampleKeys(DeviceArray(64), 3, 1, DeviceArray(128))
    plan = hide_plan((100_000, 3, 224, 224), keys=on_device)
    assert len(plan.launches) == 1
    assert defines(plan)["SAMPLE_CAPACITY"] == 0


@pytest.mark.parametrize("parameter_bytes", [4096, 32_764])
def test_arguments_fit(parameter_bytes):
    """No launch passes more than the driver takes, and all samples are launched once, with their own keys."""
    count = 1500
    for plan in (
        hide_plan((count, 3, 8, 8), keys=SampleKeys(np.arange(count)), parameter_bytes=parameter_bytes),
        resize_plan(count, keys=SampleKeys(np.arange(count)), parameter_bytes=parameter_bytes),
    ):
        assert all(launch.arguments.nbytes <= parameter_bytes for launch in plan.launches)
        covered = [n for launch in plan.launches for n in range(launch.samples.start, launch.samples.stop)]
        assert covered == list(range(count))
        for launch in plan.launches:
            own = launch.arguments["table"]["id"][0, : launch.samples.stop - launch.samples.start]
            assert own.tolist() == covered[launch.samples]


def test_grid_is_cut_at_its_limit():
    """More blocks than a grid holds: several launches, with device keys moved along."""
    shape = (3, 1, 2**31 - 1, 2048)  # 2^30 tiles each
    plan = hide_plan(shape, keys=SampleKeys(DeviceArray(800)))
    assert [launch.grid <= 2**31 - 1 for launch in plan.launches] == [True] * len(plan.launches)
    assert len(plan.launches) > 1
    first, second = plan.launches[0], plan.launches[1]
    assert second.arguments["keys"]["ids"][0] == 800 + 8 * second.samples.start
    assert second.arguments["input"][0] - first.arguments["input"][0] == math.prod(shape[1:]) * 4 * second.samples.start


sides = st.integers(1, 3000)


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 600), sides, sides),
    interleaved=st.booleans(),
    element=st.sampled_from([1, 2, 4]),
    patch=st.sampled_from([0, 1, 3, 16, 2**31 - 1]),
)
def test_tiles_cover_the_batch(shape, interleaved, element, patch):
    """Tiles and channel groups cover every element once; shared memory suffices for the worst draw and fits a block."""
    plan = hide_plan(shape, interleaved=interleaved, element=element, policy=HideAndSeek((patch or 1,)))
    fields = plan.launches[0].arguments
    value = {
        name: int(fields[name][0])
        for name in fields.dtype.names
        if fields.dtype[name].kind == "u" and not fields.dtype[name].shape
    }
    line = shape[3] * (shape[1] if interleaved else 1)
    assert value["tiles_across"] * value["tile_elements"] >= line > (value["tiles_across"] - 1) * value["tile_elements"]
    down = value["tiles"] // value["tiles_across"]
    assert down * value["tile_lines"] >= shape[2] > (down - 1) * value["tile_lines"]
    assert value["plane_groups"] * value["planes_per_block"] >= value["planes"]
    assert plan.launches[0].grid == shape[0] * value["tiles"] * value["plane_groups"]
    assert plan.launches[0].shared_bytes <= SHARED_LIMIT
    cells = min(value["tile_lines"], 2 + value["tile_lines"] // (patch or 1))
    assert value["mask_at"] - value["hidden_at"] >= min(cells, value["tile_lines"])
    assert value["mask_at"] % 16 == value["hidden_at"] % 16 == value["pattern_at"] % 16 == 0


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(
    source=st.tuples(st.integers(1, 65_535), st.integers(1, 65_535)),
    size=st.one_of(st.none(), st.tuples(st.integers(1, 4000), st.integers(1, 65_535))),
    channels=st.integers(1, 4),
    dtype=st.sampled_from(["float32", "float16", "bfloat16"]),
    interleaved=st.booleans(),
    antialias=st.booleans(),
)
def test_shared_memory_fits(source, size, channels, dtype, interleaved, antialias):
    """No plan needs more shared memory than every GPU gives without being asked, and each keeps one weight at least."""
    plan = resize_plan(
        2, source, size, outputs=4096, channels=channels, dtype=dtype, interleaved=interleaved, antialias=antialias
    )
    launch = plan.launches[0]
    assert launch.shared_bytes <= SHARED_LIMIT
    if size is not None:
        wanted = min(2, *source) if not antialias else 1
        assert min(launch.arguments["column_taps"][0], launch.arguments["row_taps"][0]) >= wanted
    assert launch.arguments["columns_at"][0] % 4 == launch.arguments["warps_at"][0] % 16 == 0
    assert launch.arguments["warp_bytes"][0] % 16 == 0


def test_nothing_to_do():
    """Empty batches, and in place without anything that can be hidden, launch nothing."""
    assert hide_plan((0, 3, 4, 4)) is None
    assert hide_plan((2, 3, 0, 4)) is None
    assert hide_plan((2, 3, 4, 4), start=64, end=64, policy=None) is None
    assert hide_plan((2, 3, 4, 4), start=64, end=64, policy=HideAndSeek((0,))) is None
    assert resize_plan(0, keys=SampleKeys(np.zeros(0, np.uint64))) is None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: hide_plan((1, 1, 1, 2**31)), "width=2147483648"),
        (lambda: hide_plan((1, 4, 1, 2**30), interleaved=True), r"width \* channels=4294967296"),
        (lambda: hide_plan((1, 1, 4, 4), start=4097), "multiple of its element size, 4 bytes"),
        (lambda: hide_plan((1, 1, 4, 4), policy=HideAndSeek(tuple(range(1, 514)))), "patch_sizes: 513 sizes"),
        (
            lambda: hide_plan((1, 1, 4, 4), element=1, policy=HideAndSeek(tuple(range(1, 500))), parameter_bytes=4096),
            "update the driver",
        ),
        (lambda: resize_plan(sides=(0, 5)), "images: a height of 0"),
        (lambda: resize_plan(sides=(5, 65_536)), "images: a width of 65536"),
        (lambda: resize_plan(size=(5, 70_000)), "size="),
        (lambda: resize_plan(dtype="float64"), "dtype='float64'"),
        (lambda: resize_plan(channels=5), "5 channels"),
        (lambda: plan_launch("blur"), "kernel='blur'"),
    ],
)
def test_errors(call, message):
    """What cannot be done is refused by name."""
    with pytest.raises(ValueError, match=message):
        call()


def test_ragged_outputs_need_addresses():
    """Images of different shapes cannot share one dense output."""
    images = Images(np.arange(2, dtype=np.uint64), np.array([4, 5]), np.array([4, 4]), 2, 3)
    ones = np.ones(3, np.float32)
    with pytest.raises(ValueError, match="outputs: images of different shapes"):
        plan_resize(
            images=images, outputs=64, size=None, scale=ones, shift=ones, fill=ones, policy=None, keys=SampleKeys(0)
        )


def test_plans_are_reproducible():
    """The same call gives the same specialisation, so that a warm-up compiles what the batch will use."""
    a, b = (support.HideCase((2, 3, 32, 32)).job().plan.specialisation for _ in range(2))
    assert a == b and hash(a) == hash(b)
    assert all(option.startswith("-D") for option in a.options())
    assert launch_layout.round_up(17, 16) == 32
