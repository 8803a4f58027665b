"""The loaders that are compared do the job on real files; each gets the number of threads that suits it."""

from __future__ import annotations

import contextlib
import itertools
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from has_dali.bench import same_job, timing
from has_dali.bench.harness import Unavailable
from has_dali.bench.peers import loader_dali, loader_job, loader_spdl, loader_turns
from has_dali.bench.peers.loader_all import CEILING, DALI_ERASE, FFCV, LOADERS, OURS, PLAIN, READ, SPDL, TIMM
from has_dali.bench.peers.loader_job import Job, LoaderPeer, job_for, some_of
from has_dali.bench.peers.loader_torch import hidden_batch, hide_patches
from has_dali.kernels.policy import HideAndSeek
from has_dali.pipelines.sources import folder_source

BATCH, SIZE = 16, 64
SHORT = timing.Window(seconds=0.0, batches=1, discarded=0, stride=1)


@pytest.fixture
def job(jpeg_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    monkeypatch.setattr(loader_job, "EPOCH_IMAGES", 72)
    return job_for(folder_source(jpeg_folder), HideAndSeek((8, 16, 24)), threads=1, batch_size=BATCH, size=SIZE)


def test_small_sets_are_listed_again(job: Job) -> None:
    assert len(job.files) == len(job.labels) == 72
    assert job.files[36:] == job.files[:36] and sorted(set(job.labels)) == [0, 1, 2]


def test_large_sets_are_thinned_out_evenly(jpeg_folder: Path) -> None:
    source = folder_source(jpeg_folder)
    assert some_of(source) is source
    some = some_of(source, 9)
    assert [some.path(i) for i in range(9)] == [source.path(4 * i) for i in range(9)]
    assert some.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2] and some.classes == source.classes


@pytest.mark.parametrize("key", [key for key, peer in LOADERS.items() if peer.delivers])
def test_every_loader_does_the_job(key: str, job: Job) -> None:
    peer = LOADERS[key]
    for module in peer.requires:
        pytest.importorskip(module)
    try:
        with peer.open(job) as batches:
            seen = [next(batches) for _ in range(6)]  # more than an epoch: the iterator is endless
    except Unavailable as reason:
        pytest.skip(str(reason))
    policy = job.policy if peer.hides else None
    check = same_job.inspect(seen)
    assert same_job.difference(check, policy, 6 * BATCH, BATCH, SIZE) is None
    assert all(abs(mean) < 1 for mean in check.visible_mean)  # normalised noise around mid-grey
    assert all(0.3 < std < 2 for std in check.visible_std)
    labels = torch.cat([batch["label"] for batch in seen])
    assert set(labels.tolist()) == {0, 1, 2}


def test_an_epoch_of_spdl_has_every_file_once(job: Job) -> None:
    pytest.importorskip("spdl")
    one = replace(job, files=job.files[:36], labels=tuple(range(36)), batch_size=36)
    try:
        with LOADERS[SPDL].open(one) as batches:
            labels = next(batches)["label"]
    except Unavailable as reason:
        pytest.skip(str(reason))
    assert sorted(labels.tolist()) == list(range(36))


@pytest.mark.parametrize(
    "policy", [HideAndSeek((0, 8), p_hide=0.3, p_apply=0.7), HideAndSeek((0,)), HideAndSeek((24,))]
)
def test_erase_hides_what_the_policy_asks_for(policy: HideAndSeek, job: Job) -> None:
    with LOADERS[DALI_ERASE].open(replace(job, policy=policy)) as batches:
        check = same_job.inspect([next(batches) for _ in range(12)])
    assert same_job.difference(check, policy, 12 * BATCH, BATCH, SIZE) is None
    assert loader_dali.erased("images", HideAndSeek((0,)), SIZE, 1) == "images"


def test_ceilings_stop_early(job: Job) -> None:
    with LOADERS[CEILING].open(job) as batches:
        images, labels = next(batches)
    shapes = [tuple(shape) for shape in images.shape()]
    assert len(shapes) == len(labels) == BATCH
    assert len(set(shapes)) > 1 and all(h <= 120 and w <= 160 and c == 3 for h, w, c in shapes)
    with LOADERS[READ].open(job) as batches:
        encoded, labels = next(batches)
    assert len(encoded) == BATCH
    contents = {Path(file).read_bytes() for file in job.files}
    assert all(encoded.at(i).tobytes() in contents for i in range(BATCH))


def test_crops_lie_within_the_image_and_cover_the_range_of_areas() -> None:
    shares = []
    for width, height in itertools.product((1, 7, 160, 4000), (1, 90, 120)):
        for _ in range(40):
            left, top, w, h = loader_spdl.random_crop(width, height)
            assert min(left, top) >= 0 and min(w, h) >= 1 and left + w <= width and top + h <= height
            shares.append(w * h / (width * height))
    assert min(shares) < 0.2 and max(shares) > 0.8


def test_a_missing_library_says_what_helps(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ffcv", "ffcv.fields", "ffcv.fields.decoders"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(Unavailable, match=r"ffcv does not import .*libopencv-dev"), LOADERS[FFCV].open(job):
        pass
    monkeypatch.setitem(sys.modules, "spdl", None)
    with pytest.raises(Unavailable, match=r"spdl\.io does not load .*libavfilter"), LOADERS[SPDL].open(job):
        pass


@contextlib.contextmanager
def slow_alone(job: Job) -> Iterator[Iterator[Any]]:
    def batches() -> Iterator[int]:
        for number in itertools.count():
            time.sleep(0.004 if job.threads == 1 else 0.001)
            yield number

    yield batches()


@contextlib.contextmanager
def broken(job: Job) -> Iterator[Iterator[Any]]:
    raise OSError("no such thing")
    yield iter(())


def test_the_best_number_of_threads_is_found(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader_turns, "_TRIAL", timing.Window(seconds=0.02, batches=2, discarded=0))
    peers = [
        LoaderPeer(OURS, "ours", slow_alone),
        LoaderPeer(PLAIN, "follows", slow_alone, threads_of=OURS),
        LoaderPeer("broken", "broken", broken),
    ]
    notes: list[str] = []
    judge = same_job.Judge(job.policy, BATCH, SIZE)
    made = loader_turns.contenders(peers, job, [1, 3], judge, lambda steps=1, note="": notes.append(note))
    assert [one.extra["threads"] for one in made] == [3, 3, 1] and notes == ["ours", "follows", "broken"]
    assert set(made[0].extra["swept"]) == {1, 3} and made[2].extra["swept"] == {}
    assert made[0].extra["swept"][3] > 2 * made[0].extra["swept"][1]
    assert [one.extra["threads"] for one in loader_turns.contenders(peers, job, [3], judge)] == [1, 1, 1]


def test_a_loader_that_refuses_more_threads_says_how_many_it_has(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader_job, "available_cores", lambda: 2)
    opened: list[int] = []

    @contextlib.contextmanager
    def counted(job: Job) -> Iterator[Iterator[Any]]:
        opened.append(job.threads)
        yield itertools.count()

    peer = LoaderPeer("a", "A", counted, one_per_core=True)
    for asked, got in ((1, 1), (4, 2)):
        one = loader_turns.contender(peer, replace(job, threads=asked))
        with one.open() as step:
            assert (step(), step()) == (0, 1)
        assert one.extra["threads"] == opened.pop() == got
    assert LOADERS[FFCV].one_per_core and LOADERS[FFCV].threads_of == OURS


def test_ours_counts_as_ours() -> None:
    assert {key for key, peer in LOADERS.items() if peer.kind == "ours"} == {OURS, PLAIN}


def test_timm_runs_no_colour_jitter(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    data = pytest.importorskip("timm.data")
    made: list[Any] = []
    create = data.create_loader
    monkeypatch.setattr(
        data, "create_loader", lambda *given, **options: made.append(create(*given, **options)) or made[0]
    )
    with LOADERS[TIMM].open(replace(job, threads=0)) as batches:
        next(batches)
    steps = [type(step).__name__ for step in made[0].loader.dataset.transform.transforms]
    assert "ColorJitter" not in steps and any("RandomResizedCrop" in name for name in steps), steps


def test_a_hair_more_speed_does_not_change_the_usual_number() -> None:
    assert loader_turns._choice({1: 50.0, 2: 100.0, 4: 102.0}, 2) == 2
    assert loader_turns._choice({1: 50.0, 2: 100.0, 4: 110.0}, 2) == 4
    assert loader_turns._choice({1: 50.0, 4: 40.0}, 2) == 1 and loader_turns._choice({}, 2) == 2


def test_authors_form_hides_whole_cells_of_the_right_share() -> None:
    torch.manual_seed(0)
    hidden = [(hide_patches(torch.ones(3, 50, 70), HideAndSeek((16,), p_hide=0.3)) == 0).all(dim=0) for _ in range(60)]
    share = torch.stack(hidden).float().mean().item()
    assert 0.25 < share < 0.35
    for mask in hidden[:5]:
        for y in range(0, 50, 16):
            for x in range(0, 70, 16):
                assert mask[y : y + 16, x : x + 16].unique().numel() == 1
    batch = torch.ones(2, 3, 8, 8)
    assert hidden_batch(batch, HideAndSeek((4,), p_hide=1.0)) is batch and (batch == 0).all()
    assert (hide_patches(torch.ones(3, 8, 8), HideAndSeek((0,), p_hide=1.0)) == 1).all()
