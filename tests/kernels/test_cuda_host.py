"""The CUDA source as host C++: every bit equal to the reference, over shapes, types, layouts and policies."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
import cuda_support as support

from has_dali.kernels import reference
from has_dali.kernels.policy import HideAndSeek

PATCH_SIZES = (0, 1, 2, 3, 5, 8, 16, 44, 300, 2**31 - 1)
EXAMPLES = 600 if os.environ.get("HAS_DALI_EXHAUSTIVE") else 60


@pytest.fixture(scope="session")
def host_folder(tmp_path_factory):
    """Where compiled specialisations are kept for the session."""
    return tmp_path_factory.mktemp("cuda_host")


policies = st.one_of(
    st.none(),
    st.builds(
        HideAndSeek,
        patch_sizes=st.lists(st.sampled_from([0, 1, 2, 3, 5, 8, 16, 44, 300, 2**31 - 1]), min_size=1, max_size=4).map(
            tuple
        ),
        p_hide=st.sampled_from([0.0, 0.3, 0.5, 1.0]),
        p_apply=st.sampled_from([0.0, 0.5, 1.0]),
        seed=st.sampled_from([0, -1, 2**63 + 11]),
        random_offset=st.booleans(),
    ),
)


@st.composite
def hide_cases(draw):
    """Any small batch; the numbers of specialisations are kept low, since each is compiled."""
    layout = draw(st.sampled_from(["NCHW", "NHWC", "NCT"]))
    dtype = draw(st.sampled_from(["uint8", "float16", "bfloat16", "float32"]))
    channels = draw(st.sampled_from([1, 3, 5, 20]))
    size = {"N": draw(st.integers(1, 3)), "C": channels, "H": draw(st.integers(1, 40))}
    size["W"] = size["T"] = draw(st.sampled_from([1, 2, 7, 16, 33, 64, 225, 900, 5000]))
    in_place = draw(st.booleans())
    item = 1 if dtype == "uint8" else 4 if dtype == "float32" else 2
    skew = draw(st.sampled_from([(0, 0), (item, item), (0, item)]))
    if size["W"] > 900:
        size["H"] = min(size["H"], 2)
    fill = draw(st.sampled_from([0.0, 7.0, tuple(range(1, channels + 1))]))
    return support.HideCase(
        tuple(size[axis] for axis in layout), layout, dtype, draw(policies), in_place, fill,
        (skew[0],) * 2 if in_place else skew,
        ids=[draw(st.sampled_from([0, 1, -1, 2**62 + n])) for n in range(size["N"])],
        epoch=draw(st.sampled_from([0, 1, 2**32 - 1])),
    )  # fmt: skip


@st.composite
def resize_cases(draw):
    """Any few small images, shrunk, enlarged or as they are."""
    side = st.sampled_from([1, 2, 3, 17, 40, 70, 150, 400])
    count = draw(st.integers(1, 3))
    sources = [(draw(side), draw(side)) for _ in range(count)]
    size = draw(st.one_of(st.none(), st.tuples(st.sampled_from([1, 5, 16, 33]), st.sampled_from([1, 8, 32, 65, 300]))))
    uniform = draw(st.booleans())
    if size is None:
        sources = [(min(h, 70), w) for h, w in sources]
    return support.ResizeCase(
        sources[:1] * count if uniform else sources, size, draw(st.sampled_from([1, 3, 4])),
        draw(st.sampled_from(["float32", "float16", "bfloat16"])), draw(st.sampled_from(["CHW", "HWC"])),
        draw(st.booleans()), draw(policies), [draw(st.integers(0, 1)) for _ in range(count)],
        fill_value=draw(st.sampled_from([None, 30.0])), uniform=uniform,
    )  # fmt: skip


def run(case, folder):
    """Plan, execute, compare."""
    job = case.job()
    support.run_host(job, folder)
    if job.plan is not None:
        job.check()


sweep = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None
)


@sweep
@given(case=hide_cases())
def test_hide(host_folder, case):
    """Hidden and visible bits equal the reference."""
    run(case, host_folder)


@sweep
@given(case=resize_cases())
def test_resize(host_folder, case):
    """All bits of all outputs equal the reference."""
    run(case, host_folder)


@pytest.mark.parametrize(
    "case",
    [
        support.ResizeCase([(3000, 5)], (1, 5)),  # more taps than the row table holds
        support.ResizeCase([(4, 20_000)], (4, 2)),  # more taps than the column table holds, many chunks
        support.ResizeCase([(4, 65_535)], (2, 3), channels=4, mirror=[1]),
        support.ResizeCase([(65_535, 2)], (3, 2), channels=1),
        support.ResizeCase([(2, 3)], (2, 2000), antialias=False),  # tiles side by side
        support.ResizeCase([(9, 9)], (4, 1100), policy=HideAndSeek(patch_sizes=(5,), random_offset=True)),
    ],
    ids=lambda case: f"{case.sources[0]}-{case.size}",
)
def test_extreme_sizes(host_folder, case):
    """The widest and highest images, one pixel wide results, weights that the tables do not hold."""
    run(case, host_folder)


def test_batches_beyond_the_table(host_folder):
    """A batch that does not fit the arguments takes several launches and gives the same result."""
    hide = support.HideCase((300, 1, 3, 5), dtype="uint8", parameter_bytes=4096)
    resize = support.ResizeCase([(3, 4)] * 70, (2, 2), parameter_bytes=4096)
    assert [len(case.job().plan.launches) for case in (hide, resize)] == [3, 2]
    run(hide, host_folder)
    run(resize, host_folder)


def test_many_patch_sizes(host_folder):
    """More sizes than the small table of sizes holds."""
    run(support.HideCase((8, 2, 30, 30), policy=HideAndSeek(patch_sizes=tuple(range(1, 400)))), host_folder)


def test_per_sample_probabilities(host_folder):
    """Each sample its own p_hide."""
    run(support.HideCase((4, 2, 30, 30), p_hide=[0.0, 0.2, 0.9, 1.0]), host_folder)


def test_thresholds_are_exact(host_folder):
    """A word equal to its threshold does not happen, one below does: for a cell, and for the image."""
    policy = HideAndSeek((4,), seed=12)
    ids = list(range(8))
    words = [int(reference.words(12, 3, n, 1)[0, 0]) for n in ids]
    for more in (0, 1):
        case = support.HideCase((8, 1, 4, 4), policy=policy, ids=ids, p_hide=[(word + more) / 2**32 for word in words])
        assert reference.mask(policy, ids, 3, 4, 4, case.p_hide).all() == bool(more)
        run(case, host_folder)
    draw = int(reference.words(12, 3, 0, 0)[0, 0])
    for more in (0, 1):
        applied = HideAndSeek((4,), seed=12, p_hide=1.0, p_apply=(draw + more) / 2**32)
        assert applied.mask([0], 3, 4, 4).all() == bool(more)
        run(support.HideCase((1, 1, 4, 4), policy=applied, ids=[0]), host_folder)


@pytest.mark.parametrize(("dtype", "shift"), [("bfloat16", 0.5), ("bfloat16", -0.5), ("float16", 1 / 16)])
def test_halfway_values_round_to_even(host_folder, dtype, shift):
    """Pixels from 128 on, plus this, lie halfway between two values of the type."""
    case = support.ResizeCase([(16, 32)], None, dtype=dtype, mean=(-shift,) * 3, std=(1.0,) * 3)
    run(case, host_folder)


def test_sanitizers(tmp_path):
    """The same, with the address and undefined-behaviour sanitizers watching, in a process of its own."""
    preload = [
        subprocess.run(["g++", f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout.strip()
        for name in ("libasan.so", "libubsan.so", "libstdc++.so.6")
    ]
    environment = {**os.environ, "LD_PRELOAD": ":".join(preload), "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1"}
    environment |= {"UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1", "PYTHONMALLOC": "malloc"}
    command = [sys.executable, str(Path(__file__).with_name("cuda_sanitized.py")), str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    assert "caught the planted overrun" in done.stdout
